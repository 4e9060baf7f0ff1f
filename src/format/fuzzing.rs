//! Fuzzing hooks of the format: runs every decoder over arbitrary bytes, and generates files with
//! valid checksums and arbitrary fields. Compiled only for fuzzing; no check is weaker for it.

mod segments;

use super::{
    Attribute, Attributes, BatchHead, Class, CommitHead, CommitPlace, CommitPlan, Footer,
    FooterEntry, Frames, PlannedBatch, SegmentHeader, align_up, attribute, batch_header, checksum,
    classify, commit_header, commit_place, commit_place_layout, decode_fork, decode_header,
    decode_tail_record, decode_trailer, encode_commit, encode_footer, encode_fork, footer_head,
    footer_stream_layout, frame_head, frame_header, header, header_of_trailer, marker,
    padding_is_zero, put, put_attribute, put_frame_head, tail_record, take_u32, take_u64, trailer,
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
        let _ = Footer::verify(bytes, salt, 1);
        return;
    };
    let mut right = bytes.to_vec();
    write_crc(&mut right[split..], &trailer::CRC, salt);
    fill_footer(&mut right[..split], salt);
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
            assert_eq!(again[footer_head::BYTES..], *last);
        }
        let first_position = found.map_or(1, |found| found.first_position);
        let Some(footer) = Footer::verify(front, salt, first_position) else { continue };
        assert_eq!(Footer::of_head(front, first_position), Some(footer));
        assert_eq!(footer.entry(front, [0; 16], footer.entries), None);
        assert_eq!(footer.entry(front, [0; 16], u32::MAX), None);
        let (entries, places) = listed(&footer, front);
        assert_eq!(places.len(), footer.places as usize);
        if let (Some(entries), Some(found)) = (entries, found) {
            let again = encode_footer(&entries, &places, &found);
            let again = &again[..again.len() - trailer::BYTES];
            assert!(again.len() <= front.len(), "columns are as narrow as they can be");
            let shown = Footer::verify(again, salt, first_position).expect("whole");
            assert_eq!(listed(&shown, again), (Some(entries), places));
        }
    }
}

/// Makes the sections of a footer fill these bytes, if any numbers of streams and places do, and
/// corrects the checksum.
fn fill_footer(bytes: &mut [u8], salt: u32) {
    if bytes.len() < footer_head::BYTES {
        return;
    }
    let (head, body) = bytes.split_at_mut(footer_head::BYTES);
    let widths = &mut head[footer_head::WIDTHS];
    widths.iter_mut().zip([8, 4, 4, 8, 3]).for_each(|(width, max)| *width %= max + 1);
    let row_bytes = 1 + widths.iter().map(|width| usize::from(*width)).sum::<usize>();
    let room = |streams, places| {
        let used = streams * footer_stream_layout::BYTES + places * commit_place_layout::BYTES;
        body.len().checked_sub(used).filter(|room| room.is_multiple_of(row_bytes))
    };
    let all = (1..8).flat_map(|streams| (0..8).map(move |places| (streams, places)));
    let fill = all.filter_map(|(streams, places)| Some((streams, places, room(streams, places)?)));
    let Some((streams, places, room)) = fill.max_by_key(|(.., room)| *room) else { return };
    let entries = room / row_bytes;
    for (index, row) in body.chunks_exact_mut(footer_stream_layout::BYTES).take(streams).enumerate()
    {
        let end = entries * (index + 1) / streams;
        put(row, &footer_stream_layout::END, &(end as u32).to_le_bytes());
    }
    put(head, &footer_head::MAGIC_AT, &footer_head::MAGIC);
    put(head, &footer_head::STREAMS, &(streams as u32).to_le_bytes());
    put(head, &footer_head::ENTRIES, &(entries as u32).to_le_bytes());
    put(head, &footer_head::PLACES, &(places as u32).to_le_bytes());
    let crc = checksum(salt, &[&head[..footer_head::CRC.start], body]);
    put(head, &footer_head::CRC, &crc.to_le_bytes());
}

/// Returns the entries of a footer, unless the kind of one is unknown, and the places.
fn listed(footer: &Footer, bytes: &[u8]) -> (Option<Vec<FooterEntry>>, Vec<CommitPlace>) {
    let streams = (0..).map_while(|at| footer.stream(bytes, at));
    let entries =
        streams.flat_map(|(stream, run)| run.map(move |at| footer.entry(bytes, stream, at)));
    let places = &bytes[footer.places_at()..];
    (entries.collect(), (0..).map_while(|at| commit_place(places, at)).collect())
}
