//! fjall: one keyspace, a batch for each commit.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::buffer::Buffer;
use super::key;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct Fjall;

impl Contestant for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn package(&self) -> Option<&'static str> {
        Some("fjall")
    }

    fn setup(&self) -> &'static str {
        "built without compression; one keyspace of (stream, seq), a batch for each commit, `PersistMode::SyncData`; append is an \
         insert into a batch"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanLog => Some("the keyspace is ordered by stream, not by commit"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let database = Database::builder(dir).open().expect("opens");
        let events = database.keyspace("events", KeyspaceCreateOptions::default).expect("opens");
        Box::new(Open { database, events })
    }
}

struct Open {
    database: Database,
    events: Keyspace,
}

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Batching { open: self, stream, seq: 0, buffer: Buffer::default() })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Inserting { open: self, seq: 0, batch: self.database.batch() })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        for event in self.events.prefix(stream.to_be_bytes()) {
            sink.take(&event.value().expect("sound"));
        }
    }
}

struct Batching<'a> {
    open: &'a Open,
    stream: u64,
    seq: u64,
    buffer: Buffer,
}

impl Batching<'_> {
    fn commit_with(&mut self, mode: PersistMode) {
        let mut batch = self.open.database.batch().durability(Some(mode));
        for payload in self.buffer.iter() {
            batch.insert(&self.open.events, key(self.stream, self.seq), payload);
            self.seq += 1;
        }
        batch.commit().expect("committed");
        self.buffer.clear();
    }
}

impl Writer for Batching<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.buffer.push(payload);
    }

    fn commit(&mut self) {
        self.commit_with(PersistMode::SyncData);
    }

    fn commit_unsynced(&mut self) {
        self.commit_with(PersistMode::Buffer);
    }
}

/// Appends to an open batch, to measure its cost.
struct Inserting<'a> {
    open: &'a Open,
    seq: u64,
    batch: fjall::OwnedWriteBatch,
}

impl Writer for Inserting<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.batch.insert(&self.open.events, key(0, self.seq), payload);
        self.seq += 1;
    }

    fn commit(&mut self) {
        unreachable!("it measures appends only");
    }

    fn discard(&mut self) {
        self.batch = self.open.database.batch();
    }
}
