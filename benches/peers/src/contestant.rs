//! What a contestant must be able to do, and how it says that it cannot.
//!
//! One rule for all: a commit returns only after its data was synced to the device. Who cannot do a kind
//! of work, or not at that durability, is left out of it with a reason, never raced at less.

use std::path::Path;
use std::time::Duration;

use crate::measure::Tally;

/// A kind of work. A scenario is a kind of work with a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Buffer events, nothing durable.
    Append,
    /// Durable commits from one thread.
    Commit,
    /// Durable commits from many threads, a stream each.
    Group,
    /// Durable commits from many tasks on two threads.
    Tasks,
    /// The first commit of a new stream.
    Fresh,
    /// Read each stream from its beginning to its end.
    ScanStreams,
    /// Read all that was committed, in the order of commits.
    ScanLog,
    /// Open what a killed process left.
    OpenKilled,
    /// A hundred thousand streams of four events.
    ManyStreams,
    /// Commits from eight threads while two others read.
    Mixed,
    /// Commits to ten thousand streams, few of them hot.
    HotCold,
}

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Durable commits. A contestant that can prepare its files does so now, before the clock starts.
    Commits,
    /// Hundreds of mebibytes that must all stay readable.
    Keep,
}

/// Why somebody does not take part.
pub(crate) type Reason = &'static str;

/// A store of events under measurement.
pub(crate) trait Contestant: Sync {
    /// The name in tables and on the command line.
    fn name(&self) -> &'static str;

    /// The package in `Cargo.lock` that is measured. None for floors.
    fn package(&self) -> Option<&'static str> {
        None
    }

    /// How it is configured and used, in one line.
    fn setup(&self) -> &'static str;

    /// Why it takes no part in this kind of work, if so.
    fn refuses(&self, work: Work) -> Option<Reason>;

    /// Whether this is a floor: the least that the work can cost, not a store.
    fn is_floor(&self) -> bool {
        false
    }

    /// Opens the store in this directory, which exists; it is empty for a new one.
    fn open(&self, dir: &Path, purpose: Purpose) -> Box<dyn Store>;
}

/// An open store.
pub(crate) trait Store: Send + Sync {
    /// A writer of the stream with this number, which nobody else writes now.
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a>;

    /// A writer to measure buffering with, where that is not what a commit uses.
    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        self.writer(0)
    }

    /// Reads one stream from its beginning.
    fn read_stream(&self, _stream: u64, _sink: &mut Sink) {
        unreachable!("refused");
    }

    /// Reads one stream, whichever is found soonest; everything, where streams are not told apart.
    fn read_any(&self, sink: &mut Sink) {
        self.read_stream(0, sink);
    }

    /// Reads everything in the order of commits.
    fn read_log(&self, _sink: &mut Sink) {
        unreachable!("refused");
    }

    /// Commits one event of `payload` at a time in so many tasks, for so long.
    fn run_tasks(&self, _tasks: u64, _payload: &[u8], _time: Duration) -> Tally {
        unreachable!("refused");
    }

    /// Closes cleanly.
    fn close(self: Box<Self>) {}
}

/// Writes one stream.
pub(crate) trait Writer: Send {
    /// Buffers an event.
    fn append(&mut self, payload: &[u8]);

    /// Buffers the same event so many times. It is here so that the loop is compiled for the writer: a
    /// virtual call for each event would cost as much as some appends do.
    fn append_many(&mut self, payload: &[u8], count: usize) {
        for _ in 0..count {
            self.append(std::hint::black_box(payload));
        }
    }

    /// Makes durable what was appended since the last commit; returns when it is synced.
    fn commit(&mut self);

    /// Writes what was appended, to be made durable by a later [`Writer::commit`]: to fill a store fast.
    fn commit_unsynced(&mut self) {
        self.commit();
    }

    /// Forgets what was appended and not committed, if it can.
    fn discard(&mut self) {}
}

/// Where events that are read go: every payload is looked at, none is kept.
#[derive(Default, Debug)]
pub(crate) struct Sink {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    mixed: u8,
}

impl Sink {
    /// Takes one event.
    #[inline]
    pub(crate) fn take(&mut self, payload: &[u8]) {
        self.events += 1;
        self.bytes += payload.len() as u64;
        self.mixed ^= payload.last().copied().unwrap_or_default();
        std::hint::black_box(self.mixed);
    }
}
