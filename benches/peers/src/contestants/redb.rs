//! redb: one table, a write transaction for each commit.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};

use super::buffer::Buffer;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

const EVENTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("events");

pub(super) struct Redb;

impl Contestant for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn package(&self) -> Option<&'static str> {
        Some("redb")
    }

    fn setup(&self) -> &'static str {
        "a table of (stream, seq); a write transaction for each commit, `Durability::Immediate`; append is \
         an insert into an open transaction"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanLog => Some("the table is ordered by stream, not by commit"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        Box::new(Open(Database::create(dir.join("events.redb")).expect("opens")))
    }
}

struct Open(Database);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Transacting { database: &self.0, stream, seq: 0, buffer: Buffer::default() })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Inserting { database: &self.0, seq: 0, transaction: Some(begin(&self.0)) })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        let transaction = self.0.begin_read().expect("begins");
        let table = transaction.open_table(EVENTS).expect("it is there");
        for event in table.range((stream, 0)..=(stream, u64::MAX)).expect("readable") {
            let (_, payload) = event.expect("sound");
            sink.take(payload.value());
        }
    }
}

fn begin(database: &Database) -> WriteTransaction {
    database.begin_write().expect("begins")
}

struct Transacting<'a> {
    database: &'a Database,
    stream: u64,
    seq: u64,
    buffer: Buffer,
}

impl Transacting<'_> {
    fn commit_at(&mut self, durability: Durability) {
        let mut transaction = begin(self.database);
        transaction.set_durability(durability).expect("allowed");
        {
            let mut table = transaction.open_table(EVENTS).expect("opens");
            for payload in self.buffer.iter() {
                table.insert((self.stream, self.seq), payload).expect("inserted");
                self.seq += 1;
            }
        }
        transaction.commit().expect("committed");
        self.buffer.clear();
    }
}

impl Writer for Transacting<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.buffer.push(payload);
    }

    fn commit(&mut self) {
        self.commit_at(Durability::Immediate);
    }

    fn commit_unsynced(&mut self) {
        self.commit_at(Durability::None);
    }
}

/// Appends to an open transaction, to measure its cost.
struct Inserting<'a> {
    database: &'a Database,
    seq: u64,
    /// `None` only while it is replaced, with the clock stopped.
    transaction: Option<WriteTransaction>,
}

impl Writer for Inserting<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.append_many(payload, 1);
    }

    fn append_many(&mut self, payload: &[u8], count: usize) {
        let transaction = self.transaction.as_ref().expect("one is open");
        let mut table = transaction.open_table(EVENTS).expect("opens");
        for _ in 0..count {
            table.insert((0, self.seq), payload).expect("inserted");
            self.seq += 1;
        }
    }

    fn commit(&mut self) {
        unreachable!("it measures appends only");
    }

    fn discard(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            transaction.abort().expect("aborted");
        }
        self.transaction = Some(begin(self.database));
    }
}
