//! The commitlog of SpacetimeDB: appends into a buffer, `flush_and_sync` under its lock.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use spacetimedb_commitlog::error::Traversal;
use spacetimedb_commitlog::{Commitlog, Decoder, Encode, Options};
use spacetimedb_paths::FromPathUnchecked;
use spacetimedb_paths::server::CommitLogDir;
use spacetimedb_sats::buffer::{BufReader, BufWriter, DecodeError};

use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

pub(super) struct SpacetimeDb;

impl Contestant for SpacetimeDb {
    fn name(&self) -> &'static str {
        "spacetimedb-commitlog"
    }

    fn package(&self) -> Option<&'static str> {
        Some("spacetimedb-commitlog")
    }

    fn setup(&self) -> &'static str {
        "the default options with up to 65,535 records in a commit; `append_maybe_flush`, then \
         `flush_and_sync`; records carry their stream's number and length; groups are formed a layer \
         above, which is not here"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanStreams => Some("it knows no streams"),
            Work::Tasks => Some("its asynchronous layer is another package"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let root = CommitLogDir::from_path_unchecked(dir.join("log"));
        root.create().expect("a directory");
        let options =
            Options { max_records_in_commit: std::num::NonZeroU16::MAX, ..Options::default() };
        Box::new(Open(Commitlog::open(root, options).expect("opens")))
    }
}

/// Record: its stream, and its bytes, which are shared so that appending them again allocates
/// nothing.
struct Record {
    stream: u64,
    payload: Arc<[u8]>,
}

impl Encode for Record {
    fn encode_record<W: BufWriter>(&self, writer: &mut W) {
        writer.put_u64(self.stream);
        writer.put_u32(self.payload.len() as u32);
        writer.put_slice(&self.payload);
    }
}

/// Reads records into a sink.
struct Reading<'a>(RefCell<&'a mut Sink>);

#[derive(Debug)]
#[expect(dead_code, reason = "it is printed when a race stops")]
enum ReadError {
    Decode(DecodeError),
    Traversal(Traversal),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Traversal> for ReadError {
    fn from(error: Traversal) -> Self {
        Self::Traversal(error)
    }
}

impl Decoder for Reading<'_> {
    type Record = ();
    type Error = ReadError;

    fn decode_record<'a, R: BufReader<'a>>(
        &self,
        _version: u8,
        _offset: u64,
        reader: &mut R,
    ) -> Result<(), ReadError> {
        let _stream = reader.get_u64()?;
        let bytes = reader.get_u32()? as usize;
        self.0.borrow_mut().take(reader.get_slice(bytes)?);
        Ok(())
    }

    fn skip_record<'a, R: BufReader<'a>>(
        &self,
        version: u8,
        offset: u64,
        reader: &mut R,
    ) -> Result<(), ReadError> {
        self.decode_record(version, offset, reader)
    }
}

struct Open(Commitlog<Record>);

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Appending { log: &self.0, stream })
    }

    fn read_any(&self, sink: &mut Sink) {
        self.read_log(sink);
    }

    fn read_log(&self, sink: &mut Sink) {
        self.0.fold_transactions(Reading(RefCell::new(sink))).expect("sound");
    }
}

struct Appending<'a> {
    log: &'a Commitlog<Record>,
    stream: u64,
}

impl Writer for Appending<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.append_many(payload, 1);
    }

    fn append_many(&mut self, payload: &[u8], count: usize) {
        let payload: Arc<[u8]> = payload.into();
        for _ in 0..count {
            let record = Record { stream: self.stream, payload: Arc::clone(&payload) };
            assert!(self.log.append_maybe_flush(record).is_ok(), "appended");
        }
    }

    fn commit(&mut self) {
        self.log.flush_and_sync().expect("synced");
    }

    fn commit_unsynced(&mut self) {
        self.log.flush().expect("written");
    }

    fn discard(&mut self) {
        self.log.flush().expect("written");
    }
}
