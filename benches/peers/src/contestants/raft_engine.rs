//! raft-engine: a raft group for each stream, a log batch for each commit.

use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

/// Head of a payload.
const INDEX_BYTES: usize = 8;
/// Number of entries fetched at once.
const FETCH: u64 = 1024;

pub(super) struct RaftEngine {
    pub(super) prefilled: bool,
}

impl Contestant for RaftEngine {
    fn name(&self) -> &'static str {
        if self.prefilled { "raft-engine, prefilled" } else { "raft-engine" }
    }

    fn package(&self) -> Option<&'static str> {
        Some("raft-engine")
    }

    fn setup(&self) -> &'static str {
        if self.prefilled {
            "as above, with log files written ahead (`prefill-for-recycle`, 3 files)"
        } else {
            "a group for each stream, a `LogBatch` for each commit, `write(sync: true)`; no compression"
        }
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        const ONCE: Option<Reason> = Some("prefilled files change nothing here: see raft-engine");
        match work {
            Work::ScanLog => Some("it reads by group, not in the order of commits"),
            Work::Tasks => Some("it has no asynchronous commit"),
            Work::Append | Work::ScanStreams | Work::OpenKilled | Work::ManyStreams
                if self.prefilled =>
            {
                ONCE
            }
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let config = Config {
            dir: dir.to_str().expect("a plain path").to_owned(),
            batch_compression_threshold: ReadableSize(0),
            prefill_for_recycle: self.prefilled,
            prefill_limit: self.prefilled.then_some(ReadableSize::mb(256)),
            ..Config::default()
        };
        Box::new(Open(Engine::open(config).expect("opens")))
    }
}

struct Open(Engine);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        let (batch, index) = (LogBatch::default(), 0);
        Box::new(Batching { engine: &self.0, stream, index, batch, entries: Vec::new(), used: 0 })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        let (Some(first), Some(last)) = (self.0.first_index(stream), self.0.last_index(stream))
        else {
            return;
        };
        let mut entries: Vec<BytesValue> = Vec::new();
        for from in (first..=last).step_by(FETCH as usize) {
            entries.clear();
            let to = (from + FETCH).min(last + 1);
            self.0
                .fetch_entries_to::<Entry>(stream, from, to, None, &mut entries)
                .expect("readable");
            for entry in &entries {
                sink.take(&entry.value[INDEX_BYTES..]);
            }
        }
    }
}

/// Message with its index in front of its payload.
#[derive(Clone)]
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(index)
    }
}

struct Batching<'a> {
    engine: &'a Engine,
    stream: u64,
    index: u64,
    batch: LogBatch,
    /// Entries are reused, so that an append allocates no message.
    entries: Vec<BytesValue>,
    used: usize,
}

impl Batching<'_> {
    fn add(&mut self, payload: &[u8]) {
        if self.used == self.entries.len() {
            self.entries.push(BytesValue::default());
        }
        self.index += 1;
        let value = &mut self.entries[self.used].value;
        value.clear();
        value.extend_from_slice(&self.index.to_le_bytes());
        value.extend_from_slice(payload);
        self.used += 1;
    }

    fn fill(&mut self) {
        let entries = &self.entries[..self.used];
        self.batch.add_entries::<Entry>(self.stream, entries).expect("room");
        self.used = 0;
    }
}

impl Writer for Batching<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.append_many(payload, 1);
    }

    fn append_many(&mut self, payload: &[u8], count: usize) {
        for _ in 0..count {
            self.add(std::hint::black_box(payload));
        }
        self.fill();
    }

    fn commit(&mut self) {
        self.engine.write(&mut self.batch, true).expect("committed");
    }

    fn commit_unsynced(&mut self) {
        self.engine.write(&mut self.batch, false).expect("committed");
    }

    fn discard(&mut self) {
        self.batch = LogBatch::default();
        self.index = 0;
    }
}
