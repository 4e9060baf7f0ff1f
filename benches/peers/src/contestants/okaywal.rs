//! okaywal: an entry for each commit.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{
    Configuration, Entry, EntryId, EntryWriter, LogManager, SegmentReader, WriteAheadLog,
};

use super::buffer::Packed;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct OkayWal;

impl Contestant for OkayWal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn package(&self) -> Option<&'static str> {
        Some("okaywal")
    }

    fn setup(&self) -> &'static str {
        "files of 64 MiB written ahead, used again when full: what was in them is then gone; an entry \
         for each commit, its events packed into one chunk; append is of one event"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanStreams | Work::ScanLog | Work::Mixed => {
                Some("it hands back what it holds only while it opens")
            }
            Work::ManyStreams => {
                Some("to keep everything, its file must be laid out in full ahead")
            }
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, purpose: Purpose) -> Box<dyn Store> {
        let file_bytes = match purpose {
            Purpose::Commits => 64 << 20,
            Purpose::Keep => 512 << 20,
        };
        let found = Arc::new(Mutex::new(Sink::default()));
        let wal = Configuration::default_for(dir)
            .preallocate_bytes(file_bytes)
            .checkpoint_after_bytes(u64::from(file_bytes) / 64 * 63)
            .open(Manager(Arc::clone(&found)))
            .expect("opens");
        Box::new(Open { wal, found })
    }
}

/// Reads everything at opening, and drops everything at a checkpoint.
#[derive(Debug)]
struct Manager(Arc<Mutex<Sink>>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in entry.read_all_chunks()?.unwrap_or_default() {
            Packed::unpack(&chunk, &mut sink);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

struct Open {
    wal: WriteAheadLog,
    found: Arc<Mutex<Sink>>,
}

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Entering { wal: &self.wal, packed: Packed::of(stream) })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Chunking { wal: &self.wal, entry: None })
    }

    fn read_any(&self, sink: &mut Sink) {
        std::mem::swap(sink, &mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn close(self: Box<Self>) {
        self.wal.shutdown().expect("closes");
    }
}

struct Entering<'a> {
    wal: &'a WriteAheadLog,
    packed: Packed,
}

impl Writer for Entering<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.packed.push(payload);
    }

    fn commit(&mut self) {
        let mut entry = self.wal.begin_entry().expect("begins");
        entry.write_chunk(self.packed.record()).expect("written");
        entry.commit().expect("committed");
        self.packed.clear();
    }
}

/// Appends to an open entry, to measure its cost.
struct Chunking<'a> {
    wal: &'a WriteAheadLog,
    entry: Option<EntryWriter<'a>>,
}

impl Writer for Chunking<'_> {
    fn append(&mut self, payload: &[u8]) {
        let entry = self.entry.get_or_insert_with(|| self.wal.begin_entry().expect("begins"));
        entry.write_chunk(payload).expect("written");
    }

    fn commit(&mut self) {
        unreachable!("it measures appends only");
    }

    fn discard(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.rollback().expect("rolled back");
        }
    }
}
