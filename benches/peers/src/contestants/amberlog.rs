//! amberlog, as its README shows it: `append`, then `commit().wait()` or `commit().await`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use amberlog::{CommitOptions, Durability, Log, Position, StreamId};

use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};
use crate::measure::Tally;

/// Default size of a segment in a grown log.
const GROWN_BYTES: u64 = 64 << 20;

pub(super) struct Amberlog;

impl Contestant for Amberlog {
    fn name(&self) -> &'static str {
        "amberlog"
    }

    fn package(&self) -> Option<&'static str> {
        Some("amberlog")
    }

    fn setup(&self) -> &'static str {
        "the default options; for commits alone, segments of 64 MiB from the start, as a log has that has \
         grown; a stream each, `append`, `commit().wait()`; tasks await the ticket"
    }

    fn refuses(&self, _work: Work) -> Option<Reason> {
        None
    }

    fn open(&self, dir: &Path, purpose: Purpose) -> Box<dyn Store> {
        let options = match purpose {
            Purpose::Commits => Log::options().segment_bytes_first(GROWN_BYTES),
            Purpose::Keep => Log::options(),
        };
        let log = options.open(dir.join("log")).expect("opens");
        Box::new(Open { log, ids: Mutex::default() })
    }
}

struct Open {
    log: Log,
    /// Ids of streams by their number in the race.
    ids: Mutex<HashMap<u64, StreamId>>,
}

impl Open {
    fn id(&self, stream: u64) -> StreamId {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.is_empty() {
            let all = self.log.read_view().streams();
            ids.extend(all.iter().map(|info| info.id).enumerate().map(|(n, id)| (n as u64, id)));
        }
        ids[&stream]
    }

    fn read(&self, id: StreamId, sink: &mut Sink) {
        let mut events = self.log.read_view().events(id).expect("known");
        while let Some(event) = events.lend() {
            sink.take(event.expect("sound").payload());
        }
    }
}

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        let handle = self.log.create_stream().expect("open");
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(stream, handle.id());
        Box::new(handle)
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        self.read(self.id(stream), sink);
    }

    fn read_any(&self, sink: &mut Sink) {
        let mut all = self.log.read_view().all_events(Position::START).expect("in range");
        let first = all.next().expect("not empty").expect("sound");
        self.read(first.stream(), sink);
    }

    fn read_log(&self, sink: &mut Sink) {
        let mut all = self.log.read_view().all_events(Position::START).expect("in range");
        while let Some(event) = all.lend() {
            sink.take(event.expect("sound").payload());
        }
    }

    fn run_tasks(&self, tasks: u64, payload: &[u8], time: Duration) -> Tally {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .expect("a runtime starts");
        let begun = Instant::now();
        let spawn = |_| {
            let (log, payload) = (self.log.clone(), payload.to_owned());
            runtime.spawn(commit_until(log, payload, begun + time))
        };
        let tasks: Vec<_> = (0..tasks).map(spawn).collect();
        let mut all = Tally::default();
        for task in tasks {
            all.then(runtime.block_on(task).expect("a writer"));
        }
        all.elapsed = begun.elapsed();
        all
    }

    fn close(self: Box<Self>) {
        self.log.close().expect("closes");
    }
}

async fn commit_until(log: Log, payload: Vec<u8>, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut stream = log.create_stream().expect("open");
    loop {
        let started = Instant::now();
        if started >= end {
            return tally;
        }
        stream.append(&payload[..]).expect("room");
        stream.commit().await.expect("committed");
        tally.push(started.elapsed());
    }
}

impl Writer for amberlog::Stream {
    #[inline]
    fn append(&mut self, payload: &[u8]) {
        Self::append(self, payload).expect("room");
    }

    fn commit(&mut self) {
        Self::commit(self).wait().expect("committed");
    }

    fn commit_unsynced(&mut self) {
        let os = CommitOptions::new().durability(Durability::Os);
        self.commit_with(os).wait().expect("committed");
    }

    fn discard(&mut self) {
        Self::discard(self);
    }
}
