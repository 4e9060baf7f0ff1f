//! Counted work: a few paths of the engine, each repeated.

use std::hint::black_box;
use std::path::Path;

use amberlog::sim::SimDisk;
use amberlog::{Log, Options, ReadView, Stream};

use crate::counting::allocations;

const EVENT_BYTES: usize = 256;
/// One segment holds all events, and no other is requested, so that only this thread works.
const SEGMENT_BYTES: u64 = 8 << 20;
const STREAMS: usize = 16;
/// Events of each stream in the log that is opened and scanned, in commits of [`COMMIT_EVENTS`].
const EVENTS: usize = 256;
const COMMIT_EVENTS: usize = 32;

/// Path of the engine.
pub struct Work {
    pub name: &'static str,
    /// Name of one repetition.
    pub unit: &'static str,
    /// Number of repetitions. A second process makes twice as many, so that preparations cancel
    /// out.
    pub times: u64,
    /// Set for a path that runs only on the simulated disk: elsewhere it needs the log's own
    /// threads.
    pub is_simulated: bool,
    run: fn(&Site<'_>, u64, bool) -> u64,
}

pub const ALL: [Work; 6] = [
    Work {
        name: "append",
        unit: "event of 256 bytes",
        times: 20_000,
        is_simulated: false,
        run: append,
    },
    Work {
        name: "commit-1",
        unit: "commit of 1 event",
        times: 200,
        is_simulated: false,
        run: commit_1,
    },
    Work {
        name: "commit-32",
        unit: "commit of 32 events",
        times: 100,
        is_simulated: false,
        run: commit_32,
    },
    Work {
        name: "roll",
        unit: "segment of 16 KiB, filled and sealed",
        times: 20,
        is_simulated: true,
        run: roll,
    },
    Work {
        name: "open",
        unit: "opening of 4,096 events in 128 commits after a kill",
        times: 5,
        is_simulated: false,
        run: open,
    },
    Work {
        name: "scan",
        unit: "reading of 4,096 events by stream",
        times: 5,
        is_simulated: false,
        run: scan,
    },
];

/// Disk that holds the log.
pub enum Site<'a> {
    Real(&'a Path),
    Simulated(SimDisk),
}

impl Site<'_> {
    fn log(&self, options: Options) -> Log {
        match self {
            Self::Real(path) => options.open(path),
            Self::Simulated(disk) => options.open_on(disk),
        }
        .expect("opens")
    }

    fn view(&self) -> ReadView {
        match self {
            Self::Real(path) => ReadView::open(path),
            Self::Simulated(disk) => ReadView::open_on(disk),
        }
        .expect("opens")
        .0
    }
}

impl Work {
    /// Repeats the path after preparations. With `regressed` it does slightly too much work, to
    /// show that the guard notices.
    fn run(&self, site: &Site<'_>, times: u64, regressed: bool) {
        black_box((self.run)(site, times, regressed));
    }

    /// Returns the calls of the disk, including preparations.
    pub fn disk_calls(&self, times: u64, regressed: bool) -> u64 {
        let disk = SimDisk::new(1);
        self.run(&Site::Simulated(disk.clone()), times, regressed);
        disk.calls()
    }

    /// Returns the allocations on a real disk, including preparations.
    pub fn allocations(&self, times: u64, regressed: bool) -> u64 {
        // The counts are the same on every file system; one in memory is faster.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("a temporary directory");
        let before = allocations();
        self.run(&Site::Real(&dir.path().join("log")), times, regressed);
        allocations() - before
    }
}

fn options() -> Options {
    Log::options().segment_bytes_first(SEGMENT_BYTES).segment_bytes_max(SEGMENT_BYTES)
}

fn append(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    let log = site.log(options());
    let mut stream = log.create_stream().expect("open");
    let event = [7; EVENT_BYTES];
    // The ring reaches its size first.
    for _ in 0..1_000 {
        stream.append(event).expect("room");
    }
    for n in 0..times {
        if n % 1_000 == 0 {
            stream.discard();
        }
        stream.append(black_box(&event)).expect("room");
        if regressed {
            drop(black_box(Box::new(n)));
        }
    }
    stream.discard()
}

fn commit_1(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    commits(site, times, 1, regressed)
}

fn commit_32(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    commits(site, times, 32, regressed)
}

fn commits(site: &Site<'_>, times: u64, events: usize, regressed: bool) -> u64 {
    let log = site.log(options());
    let mut stream = log.create_stream().expect("open");
    let mut second = log.create_stream().expect("open");
    for n in 0..times + 10 {
        fill_and_commit(&mut stream, events);
        if regressed && n >= 10 {
            fill_and_commit(&mut second, 1);
        }
    }
    stream.head().get()
}

fn fill_and_commit(stream: &mut Stream, events: usize) {
    let event = [7; EVENT_BYTES];
    for _ in 0..events {
        stream.append(event).expect("room");
    }
    stream.commit().wait().expect("committed");
}

fn roll(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    let log = site.log(Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10));
    let mut stream = log.create_stream().expect("open");
    // Six commits of six events fill a segment; smaller commits need one more.
    for _ in 0..times {
        match regressed {
            false => (0..6).for_each(|_| fill_and_commit(&mut stream, 6)),
            true => (0..12).for_each(|_| fill_and_commit(&mut stream, 3)),
        }
    }
    stream.head().get()
}

/// Creates a log in the state that a kill leaves, with its last commit unsealed.
fn prepare(site: &Site<'_>) -> (Log, Vec<Stream>) {
    let log = site.log(options());
    let mut streams: Vec<_> = (0..STREAMS).map(|_| log.create_stream().expect("open")).collect();
    for _ in 0..EVENTS / COMMIT_EVENTS {
        streams.iter_mut().for_each(|stream| fill_and_commit(stream, COMMIT_EVENTS));
    }
    (log, streams)
}

fn open(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    let _log = prepare(site);
    let times = times + if regressed { times.div_ceil(5) } else { 0 };
    (0..times).map(|_| site.view().position().get()).sum()
}

fn scan(site: &Site<'_>, times: u64, regressed: bool) -> u64 {
    let (log, streams) = prepare(site);
    let mut bytes = 0;
    for _ in 0..times {
        let view = log.read_view();
        for stream in &streams {
            for event in view.events(stream.id()).expect("known") {
                let event = event.expect("whole");
                bytes += event.payload().len() as u64;
                if regressed {
                    bytes += black_box(event.payload().to_vec()).len() as u64;
                }
            }
        }
    }
    bytes
}
