//! Generator of segments with valid checksums and fields that the fuzzer chooses.

use super::super::{
    Attribute, BatchKind, COMMITS_AT, CommitDate, CommitPlace, CommitPlan, Ending, FooterEntry,
    FrameHead, PlannedBatch, SegmentHeader, SegmentTimes, TailRecord, Trailer, batch_crc,
    batch_header, commit_header, encode_commit, encode_footer, encode_fork, frame_header, header,
    index_order, place_block, put, put_frame_head, record_at,
};
use super::{attribute_bytes, fix_commit_checksums};
use crate::types::{CodecId, EventKind, StreamState, Timestamp};

/// Length of large payloads: some commits of them reach the next block of the position index.
const LARGE_BYTES: usize = 12 << 10;

/// Generates segments with valid checksums; returns the number and the bytes of each.
#[must_use]
pub fn log(instructions: &[u8]) -> Vec<(u32, Vec<u8>)> {
    const FILES_MAX: usize = 6;
    let mut input = Input(instructions);
    let mut generator = Generator::default();
    let mut files = Vec::new();
    while !input.0.is_empty() && files.len() < FILES_MAX {
        files.push(generator.segment(&mut input));
    }
    files
}

/// Instructions for a sound log: two sealed segments and one that was closed cleanly.
pub const SOUND: &[u8] = &[
    0, 0x10, 0x12, 0x14, 0x21, 0x31, 0x11, 0x10, 0xF0, // sealed, with a name and a gap
    0, 0x13, 0x12, 0x11, 0x22, 0x10, 0x17, 0xF0, // sealed
    0, 0x10, 0x11, 0x15, 0x32, 0x12, 0x40, 0xE0, // closed cleanly
];

/// Instruction bytes that drive the generator; zero after the last one.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// Returns a number: near `usual`, at an edge, or arbitrary.
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

/// Writer state that the generator tracks.
struct Generator {
    number: u32,
    next: u64,
    heads: [u64; 4],
    generations: [u32; 4],
}

impl Default for Generator {
    fn default() -> Self {
        Self { number: 1, next: 1, heads: [0; 4], generations: [0; 4] }
    }
}

/// Segment under construction.
struct OpenSegment {
    header: SegmentHeader,
    first_position: u64,
    bytes: Vec<u8>,
    entries: Vec<FooterEntry>,
    /// Place of the first commit of each block.
    places: Vec<CommitPlace>,
}

impl Generator {
    /// Generates one segment: a byte that selects faults of the header, then records.
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
        let mut made = OpenSegment {
            header,
            first_position: self.next,
            bytes: vec![0; COMMITS_AT as usize],
            entries: Vec::new(),
            places: Vec::new(),
        };
        while made.bytes.len() < 1 << 18 && self.record(&mut made, input) {}
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

    /// Generates one record; returns `false` after the last one of its segment.
    fn record(&mut self, made: &mut OpenSegment, input: &mut Input<'_>) -> bool {
        if input.0.is_empty() {
            return false;
        }
        let instruction = input.byte();
        let low = usize::from(instruction & 15);
        match instruction >> 4 {
            1 if low >= 12 => self.commit_of(made, &[(low % 4, BatchKind::Events)], LARGE_BYTES),
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
            9 => made.tail_record(
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
                made.tail_record(
                    input_or(input, low, self.next),
                    self.next.saturating_sub(1),
                    true,
                );
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

    /// Generates a commit of small events as a writer would.
    fn commit(&mut self, made: &mut OpenSegment, batches: &[(usize, BatchKind)]) {
        self.commit_of(made, batches, 0);
    }

    /// Generates a commit whose events have payloads of at least this many bytes.
    fn commit_of(
        &mut self,
        made: &mut OpenSegment,
        batches: &[(usize, BatchKind)],
        payload_bytes: usize,
    ) {
        let position = self.next;
        let Some(after) = position.checked_add(1) else { return };
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
                    BatchKind::Gap | BatchKind::LongGap => (3, Vec::new()),
                    BatchKind::Events => {
                        let count = 1 + *stream as u32;
                        (count, events(seq, count, payload_bytes))
                    }
                };
                self.heads[*stream] = seq.saturating_add(kind.seqs(count));
                let mut batch = planned(*stream as u8, seq, count, *kind, &body);
                batch.generation = generation;
                (batch, body)
            })
            .collect();
        let before = position.saturating_sub(1);
        made.commit(position, before, before, &planned);
        self.next = after;
    }

    /// Generates a commit with valid checksums and fields that the instructions choose.
    fn odd_commit(&mut self, made: &mut OpenSegment, input: &mut Input<'_>, low: usize) {
        let position = input.number(self.next);
        let acked = input.number(position);
        let durable = input.number(position);
        let mut batches = Vec::new();
        let mut kinds = Vec::new();
        for _ in 0..1 + low % 3 {
            let stream = input.byte() % 6;
            let seq = input.number(self.heads[usize::from(stream) % 4]);
            let count = input.number(1) as u32;
            let kind = input.byte() % 8;
            let body: Vec<u8> = match input.byte() % 6 {
                0 => events(seq, count % 8, 0),
                1 => input.number(u64::from(count)).to_le_bytes().to_vec(),
                2 => attribute_bytes(&Attribute::Name("odd")),
                3 => encode_fork(&[input.byte() % 6; 16], input.number(0) as u32).to_vec(),
                4 => vec![input.byte(); 16],
                _ => (0..input.byte() % 32).map(|_| input.byte()).collect(),
            };
            let known = BatchKind::from_byte(kind).unwrap_or(BatchKind::Events);
            let mut batch = planned(stream, seq, count, known, &body);
            batch.crc ^= u32::from(low & 8 != 0);
            batch.generation = if low & 4 == 0 { 0 } else { input.number(1) as u32 & 0xFF_FFFF };
            batches.push((batch, body));
            kinds.push(kind);
        }
        let start = made.bytes.len();
        made.commit(position, acked, durable, &batches);
        let salt = made.header.salt;
        for (index, kind) in kinds.iter().enumerate() {
            let at = start + commit_header::BYTES + index * batch_header::BYTES;
            put(&mut made.bytes[at..], &batch_header::KIND, &[*kind]);
        }
        fix_commit_checksums(&mut made.bytes[start..], salt);
        self.next = position.saturating_add(1);
    }

    fn seal(&mut self, made: &mut OpenSegment, input: &mut Input<'_>, low: usize) {
        let last = input_or(input, low & 1, self.next.saturating_sub(1));
        let (mut entries, mut places) = (made.entries.clone(), made.places.clone());
        if low & 2 == 0 {
            entries.sort_by_key(|entry| entry.stream);
        }
        if low & 4 != 0
            && let Some(entry) = entries.get_mut(usize::from(input.byte() % 8))
        {
            entry.first_seq = input.number(entry.first_seq);
            entry.count = input.number(u64::from(entry.count)) as u32;
            entry.offset = input.number(entry.offset) % (1 << 32);
            entry.position = input.number(entry.position);
            entry.generation = input.number(u64::from(entry.generation)) as u32 & 0xFF_FFFF;
        }
        if low & 4 != 0
            && let Some(place) = places.get_mut(usize::from(input.byte() % 4))
        {
            place.position = input.number(place.position);
            place.offset = input.number(place.offset) % (1 << 35);
        }
        made.bytes.resize(record_at(made.bytes.len() as u64) as usize, 0);
        let end = Trailer {
            log_id: made.header.log_id,
            number: made.header.number,
            is_sparse: made.header.covers.is_some(),
            first_position: made.first_position,
            last_position: last,
            footer_at: input_or(input, low & 8, made.bytes.len() as u64),
            times: SegmentTimes { latest: input_or(input, low & 16, 1), ..Default::default() },
            salt: made.header.salt,
        };
        made.bytes.extend(encode_footer(&entries, &places, &end));
    }
}

fn input_or(input: &mut Input<'_>, choose: usize, usual: u64) -> u64 {
    if choose == 0 { usual } else { input.number(usual) }
}

/// Returns the bytes of a catalog batch with five attributes.
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
        order: u32::from(!stream),
        bytes: body.len() as u64,
        crc: batch_crc(&[body]),
    }
}

/// Returns frames of events whose payload is their seq, after spaces up to this length, flagged for
/// no known feature if it is high.
fn events(seq: u64, count: u32, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..u64::from(count) {
        let payload = format!("{:>payload_bytes$}", seq.wrapping_add(n));
        let payload_bytes = payload.len() as u32;
        let (kind, codec) = (EventKind(1), CodecId::RAW);
        let time = Timestamp::from_micros(1);
        let head = FrameHead { payload_bytes, kind, schema_version: n as u8, codec, time };
        let mut front = [0; frame_header::BYTES];
        put_frame_head(&mut front, &head);
        front[frame_header::BYTES - 1] = u8::from(seq > 99);
        bytes.extend(front.iter().chain(payload.as_bytes()));
    }
    bytes
}

impl OpenSegment {
    fn commit(&mut self, position: u64, acked: u64, durable: u64, all: &[(PlannedBatch, Vec<u8>)]) {
        self.bytes.resize(record_at(self.bytes.len() as u64) as usize, 0);
        let offset = self.bytes.len() as u64;
        let is_same = |last: &CommitPlace| place_block(last.offset) == place_block(offset);
        if !self.places.last().is_some_and(is_same) {
            self.places.push(CommitPlace { position, offset });
        }
        let batches: Vec<_> = all.iter().map(|(batch, _)| *batch).collect();
        let plan = CommitPlan {
            position,
            date: CommitDate { time: Timestamp::from_micros(1), is_vouched: true },
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
                kind: batch.kind,
                first_seq: batch.first_seq,
                count: batch.count,
                offset,
                position,
                generation: batch.generation,
            })
            .collect();
        entries.sort_by_key(|entry| (entry.stream, index_order(entry.kind)));
        self.entries.extend(entries);
    }

    fn tail_record(&mut self, position: u64, durable: u64, clean: bool) {
        let ending = if clean { Ending::Clean } else { Ending::Settled };
        let vouched = Timestamp::from_micros(1);
        let found = TailRecord { position, durable, vouched, ending };
        self.bytes.resize(record_at(self.bytes.len() as u64) as usize, 0);
        self.bytes.extend_from_slice(&found.encode(self.header.salt));
    }
}
