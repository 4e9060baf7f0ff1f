//! RocksDB: one column family, a write batch for each commit. Built only with feature `rocksdb`.
//!
//! Building it takes most of an hour on two cores. A shared library of the system works too, even
//! an older one (Debian's 7.8.3) if no function that it lacks is called:
//!
//! ```sh
//! ROCKSDB_LIB_DIR=/usr/lib/x86_64-linux-gnu AMBERLOG_ROCKSDB="7.8.3, Debian's" \
//!     cargo rustc --release --locked --features rocksdb -- \
//!     -C link-arg=-Wl,--defsym=rocksdb_write_buffer_manager_destroy=0
//! ```

use std::path::Path;

use rocksdb::{DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

use super::key;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct RocksDb;

impl Contestant for RocksDb {
    fn name(&self) -> &'static str {
        "RocksDB"
    }

    fn package(&self) -> Option<&'static str> {
        Some("librocksdb-sys")
    }

    fn setup(&self) -> &'static str {
        "the default options, no compression, keys of (stream, seq), a `WriteBatch` for each commit, \
         `sync = true`; append is a put into a batch"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanLog => Some("the keys are ordered by stream, not by commit"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        Box::new(Open(DB::open(&options, dir).expect("opens")))
    }
}

struct Open(DB);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Batching { database: &self.0, stream, seq: 0, batch: WriteBatch::default() })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        let from = key(stream, 0);
        let events = self.0.iterator(IteratorMode::From(&from, Direction::Forward));
        for event in events {
            let (key, payload) = event.expect("sound");
            if key[..8] != from[..8] {
                return;
            }
            sink.take(&payload);
        }
    }
}

struct Batching<'a> {
    database: &'a DB,
    stream: u64,
    seq: u64,
    batch: WriteBatch,
}

impl Batching<'_> {
    fn write(&mut self, sync: bool) {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let batch = std::mem::take(&mut self.batch);
        self.database.write_opt(batch, &options).expect("committed");
    }
}

impl Writer for Batching<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.batch.put(key(self.stream, self.seq), payload);
        self.seq += 1;
    }

    fn commit(&mut self) {
        self.write(true);
    }

    fn commit_unsynced(&mut self) {
        self.write(false);
    }

    fn discard(&mut self) {
        self.batch.clear();
    }
}
