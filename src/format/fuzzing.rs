//! Fuzzing hooks of the format: runs every decoder over arbitrary bytes, and generates files with
//! valid checksums and arbitrary fields. Compiled only for fuzzing; no check is weaker for it.

mod segments;

use super::{
    Attribute, Attributes, BatchHead, BatchKind, Class, CommitHead, CommitPlan, Ending, Frames,
    PlannedBatch, SegmentHeader, TailRecord, align_up, attribute, batch_crc, batch_header,
    checksum, classify, commit_header, commit_place, commit_place_layout, commit_places,
    decode_fork, decode_header, decode_tail_record, decode_trailer, encode_commit, encode_footer,
    encode_fork, footer, footer_entry, footer_entry_layout, footer_is_valid, frame_head,
    frame_header, header, header_of_trailer, marker, padding_is_zero, put, put_attribute,
    put_frame_head, tail_record, take_u32, take_u64, trailer,
};

pub use segments::{SOUND, log};

const SALTS: [u32; 3] = [0, 1, 0x1234_5678];

/// Runs every decoder over `bytes`, as they are and with corrected checksums. Asserts that decoded
/// ranges lie inside `bytes` and that decoded values encode to the same bytes.
pub fn frame(bytes: &[u8]) {
    frames(bytes);
    attributes(bytes);
    if let Some((stream, generation)) = decode_fork(bytes) {
        assert_eq!(encode_fork(&stream, generation)[..], *bytes);
    }
    let _ = padding_is_zero(bytes);
    segment_header(bytes);
    for salt in SALTS {
        record(bytes, salt);
        end_of_segment(bytes, salt);
        let mut right = bytes.to_vec();
        fix_commit_checksums(&mut right, salt);
        record(&right, salt);
        let mut right = bytes.to_vec();
        if right.len() >= tail_record::BYTES {
            write_crc(&mut right, &tail_record::CRC, salt);
        }
        record(&right, salt);
    }
}

/// Writes the checksum of the bytes in front of `field` into it.
fn write_crc(bytes: &mut [u8], field: &std::ops::Range<usize>, salt: u32) {
    let crc = checksum(salt, &[&bytes[..field.start]]);
    put(bytes, field, &crc.to_le_bytes());
}

/// Makes the checksums of a commit's header, directory and marker agree, as far as `bytes` hold it.
fn fix_commit_checksums(bytes: &mut [u8], salt: u32) {
    let Class::Commit { length } = classify(bytes) else { return };
    let Some(head) = bytes.get_mut(..commit_header::BYTES) else { return };
    write_crc(head, &commit_header::CRC, salt);
    let crc = take_u32(head, &commit_header::CRC);
    let head_bytes = commit_header::BYTES
        + take_u32(head, &commit_header::BATCHES) as usize * batch_header::BYTES;
    let Some(whole) = bytes.get_mut(..length as usize) else { return };
    let at = whole.len() - marker::BYTES;
    put(&mut whole[at..], &marker::LENGTH, &(length as u32).to_le_bytes());
    put(&mut whole[at..], &marker::INVERSE, &(!crc).to_le_bytes());
    let Some(directory) = whole.get_mut(commit_header::BYTES..head_bytes) else { return };
    for entry in directory.chunks_exact_mut(batch_header::BYTES) {
        write_crc(entry, &batch_header::HEAD_CRC, crc);
    }
}

fn frames(bytes: &[u8]) {
    let mut end = 0;
    for (at, head) in Frames::new(bytes) {
        assert_eq!(at, end, "frames are contiguous");
        end = at + head.frame_bytes();
        assert!(end <= bytes.len());
        assert_eq!(frame_head(&bytes[at..]), Some(head));
        let mut again = [0; frame_header::BYTES];
        put_frame_head(&mut again, &head);
        assert!(!head.is_known() || again[..] == bytes[at..at + frame_header::BYTES]);
    }
}

fn attributes(bytes: &[u8]) {
    let mut walk = Attributes(bytes);
    let mut before = bytes;
    while let Some(found) = walk.next() {
        let used = before.len() - walk.0.len();
        assert!(used > 0, "every step advances");
        let unused = before.get(attribute::UNUSED);
        if let Ok(found) = found
            && found != Attribute::Optional
            && unused == Some(&[0; 2][..])
        {
            assert_eq!(attribute_bytes(&found), before[..used]);
        }
        before = walk.0;
    }
}

fn attribute_bytes(attribute: &Attribute<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_attribute(attribute, &mut bytes);
    bytes
}

fn record(bytes: &[u8], salt: u32) {
    let class = classify(bytes);
    if let Some(found) = decode_tail_record(bytes, salt) {
        assert_eq!(class, Class::TailRecord);
        let flags = bytes[tail_record::FLAGS.start] & !tail_record::FLAG_CLEAN;
        if take_u32(bytes, &tail_record::UNUSED) == 0 && flags == 0 {
            assert_eq!(found.encode(salt)[..], bytes[..tail_record::BYTES]);
        }
    }
    let Some(head) = CommitHead::decode(bytes, salt) else { return };
    let Class::Commit { length } = class else {
        panic!("only a commit decodes as a commit");
    };
    assert_eq!(head.length, length);
    assert!(head.position > head.acked && head.position > head.durable);
    let Some(whole) = bytes.get(..length as usize) else { return };
    let marker_at = whole.len() - marker::BYTES;
    let Some(directory) = head.directory(whole) else { return };
    if !head.is_closed_by(&whole[marker_at..]) || !directory.is_whole() {
        return;
    }
    let batches: Vec<BatchHead> = directory.iter().collect();
    assert_eq!(batches.len(), head.batches as usize);
    let mut end = head.head_bytes();
    for batch in &batches {
        assert_eq!(batch.start, end, "batches are contiguous");
        assert!(batch.start <= batch.end);
        end = batch.end;
        let Some(kind) = batch.kind else { continue };
        if let Some(found) = directory.find(&batch.stream, kind) {
            // Of two with the same kind, one may have unknown flags.
            assert!(found.stream == batch.stream && found.kind.is_none_or(|of| of == kind));
        }
    }
    assert_eq!(align_up(end) + marker::BYTES as u64, length);
    let key = |batch: &BatchHead| (batch.stream, batch.kind);
    let known = batches.iter().all(|batch| batch.kind.is_some());
    if known && batches.windows(2).all(|two| key(&two[0]) < key(&two[1])) {
        for batch in &batches {
            let found = batch.kind.and_then(|kind| directory.find(&batch.stream, kind));
            assert_eq!(found, Some(*batch), "sorted batches are found");
        }
    }
    encoded_again(&bytes[..head.head_bytes() as usize], &head, &batches, salt);
}

fn encoded_again(bytes: &[u8], head: &CommitHead, batches: &[BatchHead], salt: u32) {
    let planned: Option<Vec<PlannedBatch>> = batches.iter().map(plan).collect();
    let Some(batches) = planned else { return };
    let plan = CommitPlan {
        position: head.position,
        date: head.date,
        acked: head.acked,
        durable: head.durable,
        salt,
        batches: &batches,
    };
    let mut again = Vec::new();
    encode_commit(&plan, &mut again);
    // Fields that this version ignores or clamps need not round-trip.
    let lag_fits = |field| (1..=head.position).contains(&u64::from(take_u32(bytes, field)));
    let known = bytes[commit_header::FLAGS.start] & !commit_header::FLAG_UNVOUCHED == 0;
    let lags_fit = lag_fits(&commit_header::ACKED_LAG) && lag_fits(&commit_header::DURABLE_LAG);
    if lags_fit && known {
        assert_eq!(again, bytes);
    }
}

fn plan(batch: &BatchHead) -> Option<PlannedBatch> {
    Some(PlannedBatch {
        stream: batch.stream,
        first_seq: batch.first_seq,
        count: batch.count,
        kind: batch.kind?,
        generation: batch.generation,
        order: batch.order,
        bytes: batch.end - batch.start,
        crc: batch.crc,
    })
}

fn segment_header(bytes: &[u8]) {
    let mut right = bytes.to_vec();
    right.resize(header::BLOCK_BYTES, 0);
    for at in [0, header::TWIN] {
        write_crc(&mut right[at..at + header::BYTES], &header::CRC, 0);
    }
    let mut twin = right.clone();
    twin.copy_within(..header::BYTES, header::TWIN);
    for block in [bytes, &right, &twin] {
        let Ok((found, whole)) = decode_header(block) else { continue };
        let zeros = take_u64(block, &header::LAST_POSITION) == 0
            && take_u64(&block[header::TWIN..], &header::LAST_POSITION) == 0;
        if whole && zeros {
            assert_eq!(found.encode()[..], block[..header::BLOCK_BYTES]);
        }
    }
}

fn end_of_segment(bytes: &[u8], salt: u32) {
    let Some(split) = bytes.len().checked_sub(trailer::BYTES) else {
        let _ = footer_is_valid(bytes, salt);
        return;
    };
    let mut right = bytes.to_vec();
    write_crc(&mut right[split..], &trailer::CRC, salt);
    if split >= footer::BYTES {
        let (head, body) = right[..split].split_at_mut(footer::BYTES);
        // An entry takes 32 bytes and a place 12, so that one to seven places fill the rest.
        let fills = |places: &usize| {
            let places_bytes = places * commit_place_layout::BYTES;
            body.len() >= places_bytes
                && (body.len() - places_bytes).is_multiple_of(footer_entry_layout::BYTES)
        };
        let places = (0..8).find(fills).unwrap_or(0);
        let places_bytes = places * commit_place_layout::BYTES;
        let entries = body.len().saturating_sub(places_bytes) / footer_entry_layout::BYTES;
        put(head, &footer::ENTRIES, &(entries as u32).to_le_bytes());
        put(head, &footer::PLACES, &(places as u32).to_le_bytes());
        let crc = checksum(salt, &[&head[..footer::CRC.start], body]);
        put(head, &footer::CRC, &crc.to_le_bytes());
    }
    for bytes in [bytes, &right] {
        let (front, last) = bytes.split_at(split);
        let of = SegmentHeader {
            log_id: super::take(last, &trailer::LOG_ID),
            number: take_u32(last, &trailer::NUMBER),
            reserved_bytes: 0,
            covers: None,
            created_micros: 0,
            salt,
        };
        let _ = header_of_trailer(last);
        let found = decode_trailer(last, &of);
        if let Some(found) = &found {
            let again = encode_footer(&[], &[], found);
            assert_eq!(again[footer::BYTES..], *last);
        }
        let Some((body, listed)) = footer_is_valid(front, salt) else { continue };
        let places: Vec<_> = (0..).map_while(|at| commit_place(listed, at)).collect();
        let count = commit_places(front, front.len() as u64).map(|(count, _)| count as usize);
        assert_eq!(count, Some(places.len()));
        let count = body.len() / footer_entry_layout::BYTES;
        assert_eq!(footer_entry(body, count), None);
        let _ = footer_entry(body, usize::MAX);
        let entries: Option<Vec<_>> = (0..count).map(|at| footer_entry(body, at)).collect();
        if let (Some(entries), Some(found)) = (entries, found) {
            let again = encode_footer(&entries, &places, &found);
            assert_eq!(again[footer::BYTES..split], front[footer::BYTES..]);
        }
    }
}
