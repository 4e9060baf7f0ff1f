//! wal-db: every append writes to the page cache, `sync` is shared.

use std::path::Path;

use wal_db::Wal;

use super::buffer::Packed;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct WalDb;

impl Contestant for WalDb {
    fn name(&self) -> &'static str {
        "wal-db"
    }

    fn package(&self) -> Option<&'static str> {
        Some("wal-db")
    }

    fn setup(&self) -> &'static str {
        "the default options, one growing file; a commit's events are packed into one record, which makes \
         them atomic; `append` writes that to the page cache, then `sync`; append is of one event"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanStreams => Some("it knows no streams"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        Box::new(Open(Wal::open(dir.join("events.wal")).expect("opens")))
    }
}

struct Open(Wal);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Packing { wal: &self.0, packed: Packed::of(stream) })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Appending { wal: &self.0 })
    }

    fn read_any(&self, sink: &mut Sink) {
        self.read_log(sink);
    }

    fn read_log(&self, sink: &mut Sink) {
        for record in self.0.iter().expect("readable") {
            Packed::unpack(record.expect("sound").data(), sink);
        }
    }
}

struct Packing<'a> {
    wal: &'a Wal,
    packed: Packed,
}

impl Writer for Packing<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.packed.push(payload);
    }

    fn commit(&mut self) {
        let _ = self.wal.append_and_sync(self.packed.record()).expect("committed");
        self.packed.clear();
    }

    fn commit_unsynced(&mut self) {
        let _ = self.wal.append(self.packed.record()).expect("appended");
        self.packed.clear();
    }
}

/// Appends event by event, to measure the cost.
struct Appending<'a> {
    wal: &'a Wal,
}

impl Writer for Appending<'_> {
    fn append(&mut self, payload: &[u8]) {
        let _ = self.wal.append(payload).expect("appended");
    }

    fn commit(&mut self) {
        unreachable!("it measures appends only");
    }
}
