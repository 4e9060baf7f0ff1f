//! What fuzzing needs of the format: every decoder run over any bytes, and files whose checksums are right
//! and whose fields are anything. Compiled only for fuzzing; no check is weaker for it.

use super::{
    Attribute, Attributes, BatchHead, BatchKind, COMMITS_AT, Class, CommitHead, CommitPlan, Ending,
    FooterEntry, FrameHead, Frames, PlannedBatch, SegmentHeader, Trailer, Witness, align_up,
    attribute, batch_crc, batch_header, checksum, classify, commit_header, decode_fork, decode_gap,
    decode_header, decode_trailer, decode_witness, encode_commit, encode_footer, encode_fork,
    encode_gap, footer, footer_entry, footer_entry_layout, footer_is_valid, frame_head,
    frame_header, header, marker, padding_is_zero, put, put_attribute, put_frame_head, record_at,
    take_u32, take_u64, trailer, witness,
};
use crate::types::{CodecId, EventKind, StreamState, Timestamp};

const SALTS: [u32; 3] = [0, 1, 0x1234_5678];

/// Runs every decoder over `bytes`, as they are and with their checksums put right, and checks that what
/// is decoded lies inside and encodes to the same bytes.
pub fn frame(bytes: &[u8]) {
    frames(bytes);
    attributes(bytes);
    let _ = decode_gap(bytes);
    if let Some((stream, generation)) = decode_fork(bytes) {
        assert_eq!(encode_fork(&stream, generation)[..], *bytes);
    }
    let _ = padding_is_zero(bytes);
    segment_header(bytes);
    for salt in SALTS {
        record(bytes, salt);
        end_of_segment(bytes, salt);
        let mut right = bytes.to_vec();
        put_commit_right(&mut right, salt);
        record(&right, salt);
        let mut right = bytes.to_vec();
        if right.len() >= witness::BYTES {
            put_crc(&mut right, &witness::CRC, salt);
        }
        record(&right, salt);
    }
}

/// Writes the checksum of what stands before `field` into it.
fn put_crc(bytes: &mut [u8], field: &std::ops::Range<usize>, salt: u32) {
    let crc = checksum(salt, &[&bytes[..field.start]]);
    put(bytes, field, &crc.to_le_bytes());
}

/// Makes header, directory and marker of a commit agree, as far as `bytes` hold them.
fn put_commit_right(bytes: &mut [u8], salt: u32) {
    let Class::Commit { length } = classify(bytes) else { return };
    let Some(head) = bytes.get_mut(..commit_header::BYTES) else { return };
    let crc = checksum(salt, &[&head[..commit_header::CRC.start]]);
    put(head, &commit_header::CRC, &crc.to_le_bytes());
    let head_bytes = commit_header::BYTES
        + take_u32(head, &commit_header::BATCHES) as usize * batch_header::BYTES;
    let Some(whole) = bytes.get_mut(..length as usize) else { return };
    let at = whole.len() - marker::BYTES;
    let Some(directory) = whole.get(commit_header::BYTES..head_bytes) else { return };
    let length = (length as u32).to_le_bytes();
    let crc = checksum(salt, &[&crc.to_le_bytes(), directory, &length]);
    put(&mut whole[at..], &marker::LENGTH, &length);
    put(&mut whole[at..], &marker::CRC, &crc.to_le_bytes());
}

fn frames(bytes: &[u8]) {
    let mut end = 0;
    for (at, head) in Frames::new(bytes) {
        assert_eq!(at, end, "frames lie in a row");
        end = at + head.frame_bytes();
        assert!(end <= bytes.len());
        assert_eq!(frame_head(&bytes[at..]), Some(head));
        let mut again = [0; frame_header::BYTES];
        put_frame_head(&mut again, &head);
        assert_eq!(again[..], bytes[at..at + frame_header::BYTES]);
    }
}

fn attributes(bytes: &[u8]) {
    let mut walk = Attributes(bytes);
    let mut before = bytes;
    while let Some(found) = walk.next() {
        let used = before.len() - walk.0.len();
        assert!(used > 0, "every step goes on");
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
    if let Some(found) = decode_witness(bytes, salt) {
        assert_eq!(class, Class::Witness);
        let flags = bytes[witness::FLAGS.start] & !witness::FLAG_CLEAN;
        if take_u32(bytes, &witness::UNUSED) == 0 && flags == 0 {
            assert_eq!(found.encode(salt)[..], bytes[..witness::BYTES]);
        }
    }
    let Some(head) = CommitHead::decode(bytes, salt) else { return };
    let Class::Commit { length } = class else {
        panic!("only a commit is decoded as one");
    };
    assert_eq!(head.length, length);
    assert!(head.position > head.acked && head.position > head.durable);
    let Some(whole) = bytes.get(..length as usize) else { return };
    let (head_bytes, marker_at) = (head.head_bytes(), whole.len() - marker::BYTES);
    let Some(directory) = head.directory(whole, &whole[marker_at..], salt) else { return };
    let batches: Vec<BatchHead> = directory.iter().collect();
    assert_eq!(batches.len(), directory.len());
    assert_eq!(batches.len(), head.batches as usize);
    let mut end = head_bytes;
    for batch in &batches {
        assert_eq!(batch.start, end, "batches lie in a row");
        assert!(batch.start <= batch.end);
        end = batch.end;
        let Some(kind) = batch.kind else { continue };
        if let Some(found) = directory.find(&batch.stream, kind) {
            assert_eq!((found.stream, found.kind), (batch.stream, Some(kind)));
        }
    }
    assert_eq!(align_up(end) + marker::BYTES as u64, length);
    let key = |batch: &BatchHead| (batch.stream, batch.kind);
    let known = batches.iter().all(|batch| batch.kind.is_some());
    if known && batches.windows(2).all(|two| key(&two[0]) < key(&two[1])) {
        for batch in &batches {
            let found = batch.kind.and_then(|kind| directory.find(&batch.stream, kind));
            assert_eq!(found, Some(*batch), "what is sorted is found");
        }
    }
    encoded_again(&bytes[..head_bytes as usize], &head, &batches, salt);
}

fn encoded_again(bytes: &[u8], head: &CommitHead, batches: &[BatchHead], salt: u32) {
    let planned: Option<Vec<PlannedBatch>> = batches.iter().map(plan).collect();
    let Some(batches) = planned else { return };
    let plan = CommitPlan {
        position: head.position,
        time_micros: head.time_micros,
        acked: head.acked,
        durable: head.durable,
        salt,
        batches: &batches,
    };
    let mut again = Vec::new();
    encode_commit(&plan, &mut again);
    // Fields that this version ignores, or keeps within bounds, need not come back.
    let lag_fits = |field| (1..=head.position).contains(&u64::from(take_u32(bytes, field)));
    let known = bytes[commit_header::FLAGS.start] == 0;
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
        bytes: batch.end - batch.start,
        crc: batch.crc,
    })
}

fn segment_header(bytes: &[u8]) {
    let mut right = bytes.to_vec();
    right.resize(header::BLOCK_BYTES, 0);
    for at in [0, header::TWIN] {
        put_crc(&mut right[at..at + header::BYTES], &header::CRC, 0);
    }
    let mut twin = right.clone();
    twin.copy_within(..header::BYTES, header::TWIN);
    for block in [bytes, &right, &twin] {
        let Ok((found, whole)) = decode_header(block) else {
            continue;
        };
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
    put_crc(&mut right[split..], &trailer::CRC, salt);
    if split >= footer::BYTES {
        let (head, body) = right[..split].split_at_mut(footer::BYTES);
        let entries = (body.len() / footer_entry_layout::BYTES) as u32;
        put(head, &footer::ENTRIES, &entries.to_le_bytes());
        let crc = checksum(salt, &[&head[..footer::CRC.start], body]);
        put(head, &footer::CRC, &crc.to_le_bytes());
    }
    for bytes in [bytes, &right] {
        let (front, last) = bytes.split_at(split);
        let of = SegmentHeader {
            log_id: super::take(last, &trailer::LOG_ID),
            number: take_u64(last, &trailer::NUMBER) as u32,
            reserved_bytes: 0,
            covers: None,
            created_micros: 0,
            salt,
        };
        let found = decode_trailer(last, &of);
        if let Some(found) = &found {
            let again = encode_footer(&[], found);
            assert_eq!(again[footer::BYTES..], *last);
        }
        let Some(body) = footer_is_valid(front, salt) else {
            continue;
        };
        let count = body.len() / footer_entry_layout::BYTES;
        assert_eq!(footer_entry(body, count), None);
        let _ = footer_entry(body, usize::MAX);
        let entries: Option<Vec<_>> = (0..count).map(|at| footer_entry(body, at)).collect();
        if let (Some(entries), Some(found)) = (entries, found) {
            let again = encode_footer(&entries, &found);
            assert_eq!(again[footer::BYTES..split], *body);
        }
    }
}

/// Files with right checksums, made by instructions: each is a segment's number and its bytes.
#[must_use]
pub fn log(instructions: &[u8]) -> Vec<(u32, Vec<u8>)> {
    const FILES_MAX: usize = 6;
    let mut input = Input(instructions);
    let mut maker = Maker::default();
    let mut files = Vec::new();
    while !input.0.is_empty() && files.len() < FILES_MAX {
        files.push(maker.segment(&mut input));
    }
    files
}

/// The instructions of a sound log with two sealed segments and one that was closed cleanly.
pub const SOUND: &[u8] = &[
    0, 0x10, 0x12, 0x14, 0x21, 0x31, 0x11, 0x10, 0xF0, // sealed, with a name and a gap
    0, 0x13, 0x12, 0x11, 0x22, 0x10, 0x17, 0xF0, // sealed
    0, 0x10, 0x11, 0x15, 0x32, 0x12, 0x40, 0xE0, // closed cleanly
];

/// Bytes that decide.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number: near `usual`, at an edge, or anything.
    fn number(&mut self, usual: u64) -> u64 {
        match self.byte() {
            0 => usual,
            1 => u64::MAX,
            2 => u64::MAX - u64::from(self.byte()),
            3 => u64::from(u32::MAX),
            4 => u64::from(u32::MAX) + 1 + u64::from(self.byte()),
            5 => 1 << 63,
            6 => usual.wrapping_add(u64::from(self.byte())),
            7 => usual.wrapping_sub(u64::from(self.byte())),
            8 => (0..8).fold(0, |all, _| all << 8 | u64::from(self.byte())),
            other => u64::from(other) - 9,
        }
    }
}

/// What a writer would know.
struct Maker {
    number: u32,
    next: u64,
    heads: [u64; 4],
    generations: [u32; 4],
}

impl Default for Maker {
    fn default() -> Self {
        Self { number: 1, next: 1, heads: [0; 4], generations: [0; 4] }
    }
}

/// A segment that is being made.
struct Made {
    header: SegmentHeader,
    first_position: u64,
    bytes: Vec<u8>,
    entries: Vec<FooterEntry>,
}

impl Maker {
    /// A byte that says what is unusual about the header, then records up to one that ends the segment.
    fn segment(&mut self, input: &mut Input<'_>) -> (u32, Vec<u8>) {
        let odd = input.byte();
        let mut of = |bit: u8, usual: u64| {
            if odd & bit == 0 { usual } else { input.number(usual) }
        };
        let name = of(1, u64::from(self.number)) as u32;
        let next = of(8, self.next);
        let header = SegmentHeader {
            log_id: [if odd & 2 == 0 { 7 } else { 8 }; 16],
            number: of(4, u64::from(self.number)) as u32,
            reserved_bytes: of(16, u64::MAX),
            covers: None,
            created_micros: 1,
            salt: self.number | 0x100,
        };
        self.next = next;
        self.number = name.wrapping_add(1);
        let mut made = Made {
            header,
            first_position: self.next,
            bytes: vec![0; COMMITS_AT as usize],
            entries: Vec::new(),
        };
        while made.bytes.len() < 1 << 16 && self.record(&mut made, input) {}
        if odd & 16 == 0 {
            made.header.reserved_bytes = made.bytes.len() as u64;
        } else if made.header.reserved_bytes <= 1 << 32 {
            made.header.reserved_bytes %= 1 << 18;
        }
        let mut block = made.header.encode();
        if odd & 32 != 0 {
            block[usize::from(input.byte())] ^= 1;
        }
        if odd & 64 != 0 {
            block[header::TWIN + usize::from(input.byte())] ^= 1;
        }
        if odd & 128 != 0 {
            block = [0; header::BLOCK_BYTES];
        }
        made.bytes[..header::BLOCK_BYTES].copy_from_slice(&block);
        (name, made.bytes)
    }

    /// One record; false when it was the last of its segment.
    fn record(&mut self, made: &mut Made, input: &mut Input<'_>) -> bool {
        if input.0.is_empty() {
            return false;
        }
        let what = input.byte();
        let low = usize::from(what & 15);
        match what >> 4 {
            1 => self.commit(made, &[(low % 4, BatchKind::Events)]),
            2 => self.commit(made, &[(low % 4, BatchKind::Gap), (low % 4, BatchKind::Events)]),
            3 => self.commit(made, &[(low % 4, BatchKind::Catalog), (low % 4, BatchKind::Events)]),
            4 if low < 8 => {
                self.commit(made, &[0, 1, 2, 3].map(|stream| (stream, BatchKind::Events)));
            }
            4 => {
                let kind = if low < 12 { BatchKind::Rewind } else { BatchKind::Fork };
                let stream = low % 4;
                self.commit(made, &[(stream, BatchKind::Events), (stream, kind)]);
            }
            5..=8 => self.odd_commit(made, input, low),
            9 => made.witness(
                input.number(self.next),
                input.number(self.next.saturating_sub(1)),
                false,
            ),
            10 => made.bytes.extend((0..low * 8).map(|_| input.byte())),
            11 => made.bytes.resize(made.bytes.len() + (low + 1) * 40, 0),
            12 => {
                let cut =
                    (input.byte() as usize * 16 + low).min(made.bytes.len() - COMMITS_AT as usize);
                made.bytes.truncate(made.bytes.len() - cut);
            }
            13 => {
                let at = made.bytes.len().saturating_sub(1 + low * 5 + usize::from(input.byte()));
                made.bytes[at] ^= 0x40;
            }
            14 => {
                made.witness(input_or(input, low, self.next), self.next.saturating_sub(1), true);
                return false;
            }
            15 => {
                self.seal(made, input, low);
                return false;
            }
            _ => return false,
        }
        true
    }

    /// A commit as a writer makes it.
    fn commit(&mut self, made: &mut Made, batches: &[(usize, BatchKind)]) {
        let position = self.next;
        let Some(after) = position.checked_add(1) else {
            return;
        };
        for (stream, kind) in batches {
            if *kind == BatchKind::Rewind {
                self.heads[*stream] /= 2;
                self.generations[*stream] += 1;
            }
        }
        let starts = self.heads;
        let planned: Vec<_> = batches
            .iter()
            .map(|(stream, kind)| {
                let seq = match kind {
                    BatchKind::Rewind | BatchKind::Fork | BatchKind::CommitId => starts[*stream],
                    _ => self.heads[*stream],
                };
                let generation = self.generations[*stream];
                let (count, body) = match kind {
                    BatchKind::Catalog => (5, catalog(*stream)),
                    BatchKind::Rewind => (generation, Vec::new()),
                    BatchKind::Fork => (generation, encode_fork(&[1; 16], 0).to_vec()),
                    BatchKind::CommitId => (1, vec![7; 16]),
                    BatchKind::Gap => (3, encode_gap(3).to_vec()),
                    BatchKind::Events => (1 + *stream as u32, events(seq, 1 + *stream as u32)),
                };
                if matches!(kind, BatchKind::Gap | BatchKind::Events) {
                    self.heads[*stream] = seq.saturating_add(u64::from(count));
                }
                let mut one = planned(*stream as u8, seq, count, *kind, &body);
                one.generation = generation;
                (one, body)
            })
            .collect();
        let before = position.saturating_sub(1);
        made.commit(position, before, before, &planned);
        self.next = after;
    }

    /// A commit with right checksums, in which the instructions choose what they like.
    fn odd_commit(&mut self, made: &mut Made, input: &mut Input<'_>, low: usize) {
        let position = input.number(self.next);
        let (acked, durable) = (input.number(position), input.number(position));
        let mut batches = Vec::new();
        let mut kinds = Vec::new();
        for _ in 0..1 + low % 3 {
            let stream = input.byte() % 6;
            let seq = input.number(self.heads[usize::from(stream) % 4]);
            let count = input.number(1) as u32;
            let kind = input.byte() % 8;
            let body: Vec<u8> = match input.byte() % 6 {
                0 => events(seq, count % 8),
                1 => encode_gap(input.number(u64::from(count))).to_vec(),
                2 => attribute_bytes(&Attribute::Name("odd")),
                3 => encode_fork(&[input.byte() % 6; 16], input.number(0) as u32).to_vec(),
                4 => vec![input.byte(); 16],
                _ => (0..input.byte() % 32).map(|_| input.byte()).collect(),
            };
            let known = BatchKind::from_byte(kind).unwrap_or(BatchKind::Events);
            let mut one = planned(stream, seq, count, known, &body);
            one.crc ^= u32::from(low & 8 != 0);
            one.generation = if low & 4 == 0 { 0 } else { input.number(1) as u32 & 0xFF_FFFF };
            batches.push((one, body));
            kinds.push(kind);
        }
        let start = made.bytes.len();
        made.commit(position, acked, durable, &batches);
        let salt = made.header.salt;
        for (index, kind) in kinds.iter().enumerate() {
            let at = start + commit_header::BYTES + index * batch_header::BYTES;
            put(&mut made.bytes[at..], &batch_header::KIND, &[*kind]);
        }
        put_commit_right(&mut made.bytes[start..], salt);
        self.next = position.saturating_add(1);
    }

    fn seal(&mut self, made: &mut Made, input: &mut Input<'_>, low: usize) {
        let last = input_or(input, low & 1, self.next.saturating_sub(1));
        let mut entries = made.entries.clone();
        if low & 2 == 0 {
            entries.sort_by_key(|one| one.stream);
        }
        if low & 4 != 0
            && let Some(one) = entries.get_mut(usize::from(input.byte() % 8))
        {
            one.first_seq = input.number(one.first_seq);
            one.count = input.number(u64::from(one.count)) as u32;
            one.offset = input.number(one.offset) % (1 << 32);
        }
        made.bytes.resize(record_at(made.bytes.len() as u64) as usize, 0);
        let end = Trailer {
            log_id: made.header.log_id,
            number: made.header.number,
            first_position: made.first_position,
            last_position: last,
            footer_at: input_or(input, low & 8, made.bytes.len() as u64),
            salt: made.header.salt,
        };
        made.bytes.extend(encode_footer(&entries, &end));
    }
}

fn input_or(input: &mut Input<'_>, choose: usize, usual: u64) -> u64 {
    if choose == 0 { usual } else { input.number(usual) }
}

/// A catalog batch's bytes: five attributes.
fn catalog(stream: usize) -> Vec<u8> {
    let all = [
        Attribute::Name(["a", "b", "c", "d"][stream]),
        Attribute::Label { key: "k", value: Some("v") },
        Attribute::Data(b"data"),
        Attribute::State(StreamState::Archived),
        Attribute::Start(stream as u64),
    ];
    all.iter().flat_map(attribute_bytes).collect()
}

fn planned(stream: u8, first_seq: u64, count: u32, kind: BatchKind, body: &[u8]) -> PlannedBatch {
    PlannedBatch {
        stream: [stream; 16],
        first_seq,
        count,
        kind,
        generation: 0,
        bytes: body.len() as u64,
        crc: batch_crc(&[body]),
    }
}

/// Frames of events whose payload tells their seq.
fn events(seq: u64, count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..u64::from(count) {
        let payload = seq.wrapping_add(n).to_string();
        let head = FrameHead {
            payload_bytes: payload.len() as u32,
            kind: EventKind(1),
            codec: CodecId::RAW,
            time: Timestamp::from_micros(1),
        };
        let mut front = [0; frame_header::BYTES];
        put_frame_head(&mut front, &head);
        bytes.extend_from_slice(&front);
        bytes.extend_from_slice(payload.as_bytes());
    }
    bytes
}

impl Made {
    fn commit(&mut self, position: u64, acked: u64, durable: u64, all: &[(PlannedBatch, Vec<u8>)]) {
        self.bytes.resize(record_at(self.bytes.len() as u64) as usize, 0);
        let offset = self.bytes.len() as u64;
        let batches: Vec<_> = all.iter().map(|(batch, _)| *batch).collect();
        let plan = CommitPlan {
            position,
            time_micros: 1,
            acked,
            durable,
            salt: self.header.salt,
            batches: &batches,
        };
        let (tail, used) = encode_commit(&plan, &mut self.bytes);
        for (_, body) in all {
            self.bytes.extend_from_slice(body);
        }
        self.bytes.extend_from_slice(&tail[tail.len() - used..]);
        let mut entries: Vec<_> = batches
            .iter()
            .map(|batch| FooterEntry {
                stream: batch.stream,
                first_seq: batch.first_seq,
                count: batch.count,
                offset,
                kind: batch.kind,
            })
            .collect();
        let is_later =
            |kind| matches!(kind, BatchKind::Catalog | BatchKind::Gap | BatchKind::Events);
        entries.sort_by_key(|entry| (entry.stream, is_later(entry.kind)));
        self.entries.extend(entries);
    }

    fn witness(&mut self, position: u64, durable: u64, clean: bool) {
        let ending = if clean { Ending::Clean } else { Ending::Settled };
        let found = Witness { position, durable, time_micros: 1, ending };
        self.bytes.resize(record_at(self.bytes.len() as u64) as usize, 0);
        self.bytes.extend_from_slice(&found.encode(self.header.salt));
    }
}
