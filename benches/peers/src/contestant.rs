//! Operations of a contestant, and its reasons to take no part.
//!
//! One rule for all: a commit returns only after its data is synced to the device. A contestant
//! that cannot do a kind of work, or not at that durability, is left out of it with a reason.

use std::path::Path;
use std::time::Duration;

use crate::measure::Tally;

/// Kind of work. A scenario is a kind of work with a size.
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
    /// Read everything in the order of commits.
    ScanLog,
    /// Open the store of a killed process.
    OpenKilled,
    /// A hundred thousand streams of four events.
    ManyStreams,
    /// Commits from eight threads while two others read.
    Mixed,
    /// Commits to ten thousand streams, few of them hot.
    HotCold,
}

/// Purpose of an opened store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Durable commits. A contestant that can prepare its files does so now, before the clock
    /// starts.
    Commits,
    /// Hundreds of mebibytes that must all stay readable.
    Keep,
}

/// Reason to take no part.
pub(crate) type Reason = &'static str;

/// Store of events under measurement.
pub(crate) trait Contestant: Sync {
    /// Returns the name in tables and on the command line.
    fn name(&self) -> &'static str;

    /// Returns the measured package in `Cargo.lock`; `None` for floors.
    fn package(&self) -> Option<&'static str> {
        None
    }

    /// Returns its configuration and use, in one line.
    fn setup(&self) -> &'static str;

    /// Returns the reason to take no part in this kind of work, if there is one.
    fn refuses(&self, work: Work) -> Option<Reason>;

    /// Returns true for a floor: the least possible cost of the work, not a store.
    fn is_floor(&self) -> bool {
        false
    }

    /// Opens the store in this directory, which exists; it is empty for a new one.
    fn open(&self, dir: &Path, purpose: Purpose) -> Box<dyn Store>;
}

/// Open store.
pub(crate) trait Store: Send + Sync {
    /// Returns the only writer of the stream with this number.
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a>;

    /// Returns a writer to measure buffering with, if that is not the writer of commits.
    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        self.writer(0)
    }

    /// Reads one stream from its beginning.
    fn read_stream(&self, _stream: u64, _sink: &mut Sink) {
        unreachable!("refused");
    }

    /// Reads the stream that is found fastest, or everything if the store cannot separate streams.
    fn read_any(&self, sink: &mut Sink) {
        self.read_stream(0, sink);
    }

    /// Reads everything in the order of commits.
    fn read_log(&self, _sink: &mut Sink) {
        unreachable!("refused");
    }

    /// Commits one event of `payload` at a time in several tasks for a limited time.
    fn run_tasks(&self, _tasks: u64, _payload: &[u8], _time: Duration) -> Tally {
        unreachable!("refused");
    }

    /// Closes the store cleanly.
    fn close(self: Box<Self>) {}
}

/// Writer of one stream.
pub(crate) trait Writer: Send {
    /// Buffers an event.
    fn append(&mut self, payload: &[u8]);

    /// Buffers the same event several times. The trait has it so that the loop is compiled for the
    /// writer: a virtual call for each event would cost as much as some appends.
    fn append_many(&mut self, payload: &[u8], count: usize) {
        for _ in 0..count {
            self.append(std::hint::black_box(payload));
        }
    }

    /// Makes the events since the last commit durable. Returns when they are synced.
    fn commit(&mut self);

    /// Writes the appended events, which a later [`Writer::commit`] makes durable: fills a store
    /// fast.
    fn commit_unsynced(&mut self) {
        self.commit();
    }

    /// Discards the events that are not committed, if it can.
    fn discard(&mut self) {}
}

/// Sink of the events read: looks at every payload and keeps none.
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
