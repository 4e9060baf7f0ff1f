//! What does it cost in memory: a volatile stream, an append, a commit?
//!
//! P10, and the table of sizes: at most 256 bytes for each of a million volatile streams, and no allocation
//! by an append in the steady state. Counted by an allocator of this binary's own, in one test, so that
//! nothing else allocates meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use amberlog::{CommitOptions, Durability, Log, Stream};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed to the system's allocator as it is; counting touches no memory of others.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(bytes as u64, Relaxed);
        LIVE_BYTES.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Relaxed);
    work();
    ALLOCATIONS.load(Relaxed) - before
}

#[test]
fn p10_memory_is_bounded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path().join("log")).expect("opens");
    volatile_streams(&log);
    appends(&log);
    commits(&log);
}

/// A stream that is only there costs at most 256 bytes, its handle included.
fn volatile_streams(log: &Log) {
    const STREAMS: u64 = 100_000;
    let mut streams: Vec<Stream> = Vec::with_capacity(STREAMS as usize);
    let handles = STREAMS * size_of::<Stream>() as u64;
    let before = LIVE_BYTES.load(Relaxed) - handles;
    streams.extend((0..STREAMS).map(|_| log.stream().expect("a stream")));
    let each = (LIVE_BYTES.load(Relaxed) - before) as f64 / STREAMS as f64;
    println!("a volatile stream: {each:.1} bytes, {} of them its handle", size_of::<Stream>());
    assert!(each <= 256.0, "{each:.1} bytes for each volatile stream");
    assert_eq!(log.memory_bytes(), 0, "rings take memory as they fill");
}

/// Once a ring has its size, an append allocates nothing.
fn appends(log: &Log) {
    let mut stream = log.stream().expect("a stream");
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
    let mut stream = log.stream().expect("a stream");
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
