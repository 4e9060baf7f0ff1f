//! What does it cost in memory: an open log, a stream in each of its states, an index entry, an append, a commit?
//!
//! P10, and the table of sizes: at most 256 bytes for each of a million volatile streams (as many as
//! `AMBERLOG_STREAMS` says, 100,000 by default), what [`MemoryCosts`] says of the rest, and no allocation by an
//! append in the steady state. Counted by an allocator of this binary's own, in one test, so that nothing else
//! allocates meanwhile.

#[path = "support/counting.rs"]
mod counting;

use amberlog::stats::MemoryCosts;
use amberlog::{CommitId, CommitOptions, Durability, Log, Query, Stream, StreamId};

use self::counting::live_bytes;

const MEMORY_COSTS: MemoryCosts = MemoryCosts::CURRENT;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = counting::allocations();
    work();
    counting::allocations() - before
}

/// Returns the memory that `work` leaves allocated, divided by `each_of`, and the value that holds it.
fn left_by<T>(each_of: u64, work: impl FnOnce() -> T) -> (f64, T) {
    let before = live_bytes();
    let kept = work();
    ((live_bytes() as f64 - before as f64) / each_of as f64, kept)
}

/// Checks that a stated cost is at least the measured one, and not much more.
fn told(what: &str, bytes: u64, measured: f64) {
    println!("{what}: {measured:.1} bytes, told as {bytes}");
    assert!(
        measured <= bytes as f64,
        "{what} costs {measured:.1} bytes, and MemoryCosts says {bytes}"
    );
    assert!(
        bytes as f64 <= 1.5 * measured,
        "{what} costs only {measured:.1} bytes: MemoryCosts says {bytes}"
    );
}

#[test]
fn p10_memory_is_bounded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path().join("log")).expect("opens");
    volatile_streams(&log);
    appends(&log);
    commits(&log);
    drop(log);
    durable_streams();
    what_is_said();
    large_groups();
    commit_ids();
    changes();
}

/// A stream that is only there costs at most 256 bytes, its handle included.
fn volatile_streams(log: &Log) {
    let streams = std::env::var("AMBERLOG_STREAMS").ok().and_then(|text| text.parse().ok());
    let streams: u64 = streams.unwrap_or(100_000);
    let (each, made) = left_by(streams, || {
        let mut made: Vec<Stream> = Vec::with_capacity(streams as usize);
        made.extend((0..streams).map(|_| log.create_stream().expect("a stream")));
        made
    });
    let handle = size_of::<Stream>();
    println!("{streams} volatile streams; a handle has {handle} bytes");
    assert!(each <= 256.0, "{each:.1} bytes for each volatile stream");
    told("a volatile stream", MEMORY_COSTS.volatile_stream, each);
    assert_eq!(log.stats().memory.uncommitted_bytes, 0, "rings take memory as they fill");
    assert!(!log.path().exists(), "P1: nothing is on disk");
    drop(made);
}

/// An open log, streams in it with a handle and without, and batches in the index of an unsealed segment.
fn durable_streams() {
    const STREAMS: u64 = 20_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    // One segment takes it all, and no spare is made meanwhile.
    let options = Log::options().segment_bytes_first(32 << 20).segment_bytes_max(32 << 20);
    let open = || options.clone().open(dir.path().join("log")).expect("opens");
    let log = open();
    let mut first = log.create_stream().expect("a stream");
    commit_all(&log, std::slice::from_mut(&mut first));
    drop(first);
    log.close().expect("closes");

    let (each, log) = left_by(1, || {
        let log = open();
        commit_all(&log, &mut [log.create_stream().expect("a stream")]);
        log
    });
    told("an open log", MEMORY_COSTS.open_log, each);

    let (with_entry, ids) = left_by(STREAMS, || {
        let mut streams: Vec<Stream> =
            (0..STREAMS).map(|_| log.create_stream().expect("a stream")).collect();
        commit_all(&log, &mut streams);
        streams.iter().map(Stream::id).collect::<Vec<StreamId>>()
    });
    let with_entry = with_entry - size_of::<StreamId>() as f64;

    let open =
        || ids.iter().map(|id| log.open_stream(*id).expect("durable")).collect::<Vec<Stream>>();
    let (entry, ()) = left_by(STREAMS, || commit_all(&log, &mut open()));
    told("an index entry", MEMORY_COSTS.index_entry, entry);
    told("a durable stream", MEMORY_COSTS.durable_stream, with_entry - entry);

    let (listed, ()) =
        left_by(STREAMS, || (0..2).for_each(|_| drop(log.list(&Query::new()).expect("listed"))));
    told("a listed stream", MEMORY_COSTS.listed_stream, listed);

    let (idle, streams) = left_by(STREAMS, open);
    told("an idle stream's handle", MEMORY_COSTS.idle_stream, idle);
    drop(streams);
}

/// Checks that counted memory is at least nine tenths of what is allocated, and not much more.
fn counted(what: &str, bytes: u64, allocated: f64) {
    println!("{what}: {allocated:.0} bytes, counted as {bytes}");
    assert!(bytes as f64 >= 0.9 * allocated, "{what}: {allocated:.0} bytes, counted as {bytes}");
    assert!(bytes as f64 <= 1.1 * allocated, "{what}: only {allocated:.0}, counted as {bytes}");
}

/// Data, names and labels: counted for volatile streams, in flight, and for durable ones, and given back when they go.
fn what_is_said() {
    static DATA: [u8; 64 << 10] = [7; 64 << 10];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path().join("log")).expect("opens");
    let make = |n: u64, data: &[u8], labels: u64| {
        let mut stream = log.create_stream().expect("a stream");
        stream.set_data(data).expect("room");
        for label in 0..labels {
            stream.set_label(&format!("label {label}"), &"v".repeat(100)).expect("room");
        }
        stream.rename(&format!("{n}: {}", "n".repeat(500))).expect("room");
        stream
    };
    for (streams, data, labels) in [(3_000, &DATA[..], 0), (500, &[], 64), (500, &[], 5)] {
        let what = format!("{streams} streams with {} bytes and {labels} labels", data.len());
        let (each, made) =
            left_by(1, || (0..streams).map(|n| make(n, data, labels)).collect::<Vec<_>>());
        let plain = (streams * MEMORY_COSTS.volatile_stream) as f64;
        counted(&what, log.stats().memory.uncommitted_bytes, each - plain);
        drop(made);
        assert_eq!(log.stats().memory.uncommitted_bytes, 0, "{what}: all are gone");
    }
    let (each, ()) = left_by(1, || {
        let mut made: Vec<Stream> = (0..500).map(|n| make(n, &DATA, 1)).collect();
        commit_all(&log, &mut made);
    });
    assert_eq!(log.stats().memory.uncommitted_bytes, 0, "committed, and the handles are gone");
    let memory = log.stats().memory;
    assert_eq!(memory.costs, MEMORY_COSTS);
    assert_eq!(memory.catalog_bytes, 500 * MEMORY_COSTS.durable_stream);
    counted("500 durable streams", memory.metadata_bytes, each - memory.catalog_bytes as f64);
    for info in log.read_view().streams() {
        assert_eq!(info.data.as_deref(), Some(&DATA[..]));
        log.open_stream(info.id).expect("durable").delete().wait().expect("deleted");
    }
}

/// However much a group held, the writer keeps little of it; and it is written as it was given.
fn large_groups() {
    const STREAMS: u64 = 2_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Log::options().segment_bytes_first(64 << 20).segment_bytes_max(64 << 20);
    let log = options.open(dir.path().join("log")).expect("opens");
    let event = |n: u64| [n.to_le_bytes(), [5; 8]].concat().repeat(1_000);
    let round = || {
        let mut streams: Vec<_> =
            (0..STREAMS).map(|_| log.create_stream().expect("a stream")).collect();
        for (n, stream) in (0..).zip(&mut streams) {
            stream.append(event(n)).expect("room");
        }
        let os = CommitOptions::new().durability(Durability::Os);
        log.commit_all_with(&mut streams, os).wait().expect("committed");
        streams.iter().map(Stream::id).collect::<Vec<StreamId>>()
    };
    let (kept, ids) = left_by(1, round);
    println!("a group of {STREAMS} events of 16,000 bytes leaves {kept:.0} bytes");
    assert!(kept < f64::from(4 << 20), "{kept:.0} bytes are kept of a group");
    let view = log.read_view();
    for (n, id) in (0..).zip(ids) {
        let mut events = view.events(id).expect("known");
        assert_eq!(events.next().expect("one").expect("whole").payload(), event(n));
    }
}

/// A commit id that is remembered: what a log that remembers all of them takes beyond one that remembers one.
fn commit_ids() {
    const IDS: u64 = 20_000;
    let os = CommitOptions::new().durability(Durability::Os);
    let log_of = |ids_max: usize| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Log::options().segment_bytes_first(32 << 20).segment_bytes_max(32 << 20);
        let log = options.commit_ids_max(ids_max).open(dir.path().join("log")).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for n in 0..IDS {
            stream.append(b"one").expect("room");
            let how = os.id(CommitId::from(u128::from(n)));
            stream.commit_with(how).wait().expect("committed");
        }
        (dir, log, stream)
    };
    let (one, kept_one) = left_by(IDS, || log_of(1));
    let (all, kept_all) = left_by(IDS, || log_of(IDS as usize));
    told("a commit id", MEMORY_COSTS.commit_id, all - one);
    drop((kept_one, kept_all));
}

fn commit_all(log: &Log, streams: &mut [Stream]) {
    let os = CommitOptions::new().durability(Durability::Os);
    for some in streams.chunks_mut(1_000) {
        some.iter_mut().for_each(|stream| assert!(stream.append(b"one").is_ok()));
        log.commit_all_with(some, os).wait().expect("committed");
    }
}

/// An old version of a stream is forgotten once no view can show it: however often it changes, it takes no more memory.
fn changes() {
    const CHANGES: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Log::options().segment_bytes_first(256 << 10).segment_bytes_max(256 << 10);
    let open = || options.clone().open(dir.path().join("log")).expect("opens");
    let log = open();
    let os = CommitOptions::new().durability(Durability::Os);
    let mut stream = log.create_stream().expect("a stream");
    let mut change = |n: u64, labels: u64| {
        for label in 0..labels {
            stream.set_label(&format!("label {label}"), &n.to_string()).expect("fine");
        }
        stream.commit_with(os).wait().expect("committed");
    };
    (0..1_000).for_each(|n| change(n, 11));
    let (each, ()) = left_by(CHANGES, || (0..CHANGES).for_each(|n| change(n, 1)));
    println!("{CHANGES} changes of one of 11 labels: {each:.1} bytes each");
    // Each is in the index until its segment is sealed. Kept, it would take about 1,200.
    assert!(each < 60.0, "{each:.1} bytes for each change of a label");
    // Nor does opening the log keep them, sealed or replayed.
    drop(stream);
    log.close().expect("closes");
    let (each, _log) = left_by(CHANGES, open);
    println!("{CHANGES} changes that were found: {each:.1} bytes each");
    assert!(each < 10.0, "{each:.1} bytes for each change of a label that was found");
}

/// Once a ring has its size, an append allocates nothing.
fn appends(log: &Log) {
    let mut stream = log.create_stream().expect("a stream");
    for _ in 0..3 {
        for n in 0..10_000_u64 {
            stream.append(n.to_le_bytes()).expect("room");
        }
        stream.discard();
    }
    let count = allocations(|| {
        for n in 0..10_000_u64 {
            stream.append(n.to_le_bytes()).expect("room");
        }
    });
    assert_eq!(count, 0, "allocations by 10,000 appends");
}

/// A commit allocates a few times, whatever its size: its ticket, and its place in the index.
fn commits(log: &Log) {
    const COMMITS: u64 = 1_000;
    const ALLOCATIONS_MAX: u64 = 4;
    let os = CommitOptions::new().durability(Durability::Os);
    let mut stream = log.create_stream().expect("a stream");
    let mut round = |events: u64| {
        for n in 0..events {
            stream.append(n.to_le_bytes()).expect("room");
        }
        stream.commit_with(os).wait().expect("committed");
    };
    (0..100).for_each(|_| round(32));
    for events in [1, 32] {
        let count = allocations(|| (0..COMMITS).for_each(|_| round(events)));
        let each = count as f64 / COMMITS as f64;
        println!("a commit of {events} events: {each:.2} allocations");
        assert!(count <= COMMITS * ALLOCATIONS_MAX, "{each:.2} allocations by a commit");
    }
}
