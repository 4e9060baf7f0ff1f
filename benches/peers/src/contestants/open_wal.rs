//! open-wal: one log behind a lock, because its handle has one writer.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use open_wal::{Lsn, Wal, WalConfig};

use super::buffer::Packed;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct OpenWal;

impl Contestant for OpenWal {
    fn name(&self) -> &'static str {
        "open-wal"
    }

    fn package(&self) -> Option<&'static str> {
        Some("open-wal")
    }

    fn setup(&self) -> &'static str {
        "the default options; one handle behind a lock; a commit's events are packed into one record, which \
         makes them atomic; append is of one event"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanStreams => Some("it knows no streams"),
            Work::Mixed => {
                Some("its reader borrows the log, so that nothing is committed meanwhile")
            }
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let (wal, _) = Wal::open(dir, WalConfig::default()).expect("opens");
        Box::new(Open(Mutex::new(wal)))
    }
}

struct Open(Mutex<Wal>);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Locking { wal: &self.0, packed: Packed::of(stream) })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Holding { wal: &self.0 })
    }

    fn read_any(&self, sink: &mut Sink) {
        self.read_log(sink);
    }

    fn read_log(&self, sink: &mut Sink) {
        let wal = lock(&self.0);
        let mut reader = wal.reader_from(Lsn(0)).expect("readable");
        while let Some(record) = reader.next() {
            let (_, record) = record.expect("sound");
            Packed::unpack(record, sink);
        }
    }
}

struct Locking<'a> {
    wal: &'a Mutex<Wal>,
    packed: Packed,
}

impl Writer for Locking<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.packed.push(payload);
    }

    fn commit(&mut self) {
        let mut wal = lock(self.wal);
        wal.append(self.packed.record()).expect("appended");
        wal.commit().expect("committed");
        self.packed.clear();
    }

    /// Only a commit writes, so each commit holds many events.
    fn commit_unsynced(&mut self) {
        const BUFFERED_RECORDS: u64 = 4096;
        let mut wal = lock(self.wal);
        wal.append(self.packed.record()).expect("appended");
        if wal.last_lsn().0 - wal.durable_lsn().0 > BUFFERED_RECORDS {
            wal.commit().expect("committed");
        }
        self.packed.clear();
    }
}

/// Single writer, the intended use: it locks once for many events.
struct Holding<'a> {
    wal: &'a Mutex<Wal>,
}

impl Writer for Holding<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.append_many(payload, 1);
    }

    fn append_many(&mut self, payload: &[u8], count: usize) {
        let mut wal = lock(self.wal);
        for _ in 0..count {
            wal.append(std::hint::black_box(payload)).expect("appended");
        }
    }

    fn commit(&mut self) {
        lock(self.wal).commit().expect("committed");
    }

    fn discard(&mut self) {
        self.commit();
    }
}

fn lock(mutex: &Mutex<Wal>) -> MutexGuard<'_, Wal> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
