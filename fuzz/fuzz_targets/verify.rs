//! Any bytes, lying in a log's directory (P13): looking, opening, reading, writing and repairing never
//! panic, never hang, and never allocate what a damaged length asks for.
//!
//! The first byte of the input chooses: bytes as they are, a sound log with some of its bytes changed, or
//! a log whose checksums are right and whose fields are anything. Of a changed sound log it is known what it
//! held, so there nothing may be read that was not written, and nothing be missing unsaid.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use amberlog::verify::{RecordDump, RecoveryReport};
use amberlog::verify::{repair, verify_quick};
use amberlog::{AppendError, Error, ErrorKind, Event, Log, Position, ReadView, StreamId};
use tempfile::TempDir;

/// Number of bytes that any run may allocate at once, however small the input.
const ALLOCATION_BYTES_BASE: usize = 64 << 20;
const ALLOCATION_FACTOR: usize = 16;
/// Items that reading may give for each byte of the files.
const ITEMS_BASE: usize = 1000;

struct Bounded;

static ALLOCATION_BYTES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

fn check(bytes: usize) {
    if bytes > ALLOCATION_BYTES_MAX.load(Ordering::Relaxed) {
        eprintln!("one allocation of {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: everything is the system allocator's; this only looks at the sizes.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// No leak checks: retired entries of a lock-free map are freed some runs later, and to look for them
/// after every run takes longer than the run.
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const std::ffi::c_char {
    c"detect_leaks=0".as_ptr()
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

type Files = Vec<(u32, Vec<u8>)>;
type Contents = BTreeMap<(StreamId, u64), Vec<u8>>;

/// Content of a sound log.
struct Truth {
    /// Without what was trimmed and rewound.
    by_stream: Contents,
    by_position: Contents,
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let (files, truth) = match mode % 3 {
        0 => (raw(rest), None),
        1 => (changed(rest), Some(&sound().1)),
        _ => (amberlog::fuzzing::log(rest), None),
    };
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    ALLOCATION_BYTES_MAX
        .store(ALLOCATION_BYTES_BASE + ALLOCATION_FACTOR * bytes, Ordering::Relaxed);
    let dir = write(&files);
    let path = dir.path();
    let sound = look(path, bytes, truth);
    assert_eq!(listing(path), expected(&files), "looking changes nothing");
    if mode & 0x80 == 0 {
        go_on(path, sound && truth.is_some());
    }
    let mended = mend(path);
    go_on(path, mended);
    ALLOCATION_BYTES_MAX.store(usize::MAX, Ordering::Relaxed);
});

/// Files as they come: each has a length in two bytes, then its bytes.
fn raw(mut input: &[u8]) -> Files {
    let mut files = Files::new();
    while let [low, high, rest @ ..] = input {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, after) = rest.split_at(length);
        files.push((files.len() as u32 + 1, bytes.to_vec()));
        input = after;
    }
    files
}

/// The sound log, changed at places of the input's choice: file, two bytes of offset, what to flip.
fn changed(input: &[u8]) -> Files {
    let mut files = sound().0.clone();
    for change in input.chunks_exact(4) {
        let at = usize::from(change[0]) % files.len();
        let bytes = &mut files[at].1;
        let offset = usize::from(u16::from_le_bytes([change[1], change[2]]));
        match change[0] >> 6 {
            3 => bytes.truncate(offset),
            2 => {
                let end = (offset + usize::from(change[3])).min(bytes.len());
                bytes[offset.min(end)..end].fill(0);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= change[3];
                }
            }
        }
    }
    files
}

/// A sound log, and what it holds.
fn sound() -> &'static (Files, Truth) {
    static SOUND: OnceLock<(Files, Truth)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let files = amberlog::fuzzing::log(amberlog::fuzzing::SOUND);
        let dir = write(&files);
        let found = verify_quick(dir.path()).expect("readable");
        assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
        assert_eq!(found.torn_tail, None);
        let (view, _) = ReadView::open(dir.path()).expect("readable");
        let (by_stream, streams_fine) = read_streams(&view, usize::MAX - 1);
        let (by_position, all_fine) = read_all(&view, Position::START, usize::MAX - 1);
        assert!(streams_fine && all_fine);
        assert!(by_stream.len() > 10 && by_position.len() > 20);
        (files, Truth { by_stream, by_position })
    })
}

fn keep(event: &Event) -> ((StreamId, u64), Vec<u8>) {
    ((event.stream(), event.seq().get()), event.payload().to_vec())
}

fn write(files: &[(u32, Vec<u8>)]) -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    let dir = dir.expect("a temporary directory");
    fs::create_dir(dir.path().join("segments")).expect("writable");
    fs::write(dir.path().join("LOCK"), b"").expect("writable");
    for (number, bytes) in files {
        fs::write(dir.path().join(name(*number)), bytes).expect("writable");
    }
    dir
}

fn name(number: u32) -> String {
    format!("segments/{number:010}.seg")
}

fn listing(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path.join("segments")).expect("readable");
    entries
        .map(|entry| {
            let entry = entry.expect("readable");
            let name = format!("segments/{}", entry.file_name().to_string_lossy());
            (name, fs::read(entry.path()).expect("readable"))
        })
        .collect()
}

fn expected(files: &[(u32, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let one = |(number, bytes): &(u32, Vec<u8>)| (name(*number), bytes.clone());
    files.iter().map(one).collect()
}

/// Looks at everything without changing it. True: the log is sound.
fn look(path: &Path, bytes: usize, truth: Option<&Truth>) -> bool {
    let found = verify_quick(path);
    let items = RecordDump::open(path).expect("there is a directory");
    let items_max = ITEMS_BASE + 4 * bytes;
    assert!(items.take(items_max + 1).count() <= items_max);
    let opened = ReadView::open(path);
    if let Err(error) = &found {
        refusal(error);
    }
    let (view, quick) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            refusal(&error);
            return false;
        }
    };
    let (by_stream, streams_fine) = read_streams(&view, items_max);
    let (by_position, all_fine) = read_all(&view, Position::START, items_max);
    let middle = Position::from(view.position().get() / 2);
    let (from_middle, _) = read_all(&view, middle, items_max);
    let Some(truth) = truth else {
        return false;
    };
    for contents in [&by_stream, &by_position, &from_middle] {
        for (at, payload) in contents {
            assert_eq!(truth.by_position.get(at), Some(payload), "nothing is made up: {at:?}");
        }
    }
    let Ok(found) = found else { return false };
    let sound = found.is_sound() && quick.is_sound();
    if sound {
        complete(&by_stream, streams_fine, &truth.by_stream, &found);
        complete(&by_position, all_fine, &truth.by_position, &found);
    }
    if all_fine && streams_fine {
        // By position everything is shown that was committed, also what was trimmed or rewound since.
        assert!(by_stream.keys().all(|at| by_position.contains_key(at)), "{found:?}");
    }
    sound
}

/// P6: what was acknowledged is there, or somebody says that it is not: as damage, or as commits that a
/// reader is not shown before the log was opened for writing.
fn complete(contents: &Contents, fine: bool, truth: &Contents, found: &RecoveryReport) {
    let all_shown = found.acknowledged == found.position && found.torn_tail.is_none();
    assert!(fine && (contents.len() == truth.len() || !all_shown), "{found:?}");
}

/// A log may be refused whole only for these reasons.
fn refusal(error: &Error) {
    let known = matches!(
        error.kind(),
        ErrorKind::UnsupportedVersion { .. } | ErrorKind::UnsupportedFeature | ErrorKind::NoLog
    );
    assert!(known, "{error:?}");
}

fn read_streams(view: &ReadView, items_max: usize) -> (Contents, bool) {
    let (mut contents, mut fine) = (Contents::new(), true);
    for info in view.streams() {
        let events = || view.events(info.id).expect("listed").take(items_max + 1);
        let mut forward = Vec::new();
        for event in events() {
            forward.extend(event.as_ref().ok().map(keep));
            fine &= event.is_ok();
        }
        assert!(forward.len() <= items_max);
        assert!(forward.windows(2).all(|two| two[0].0 < two[1].0), "in order");
        let mut backward = Vec::new();
        let mut backward_fine = true;
        let events = view.events(info.id).expect("listed").rev();
        for event in events.take(items_max + 1) {
            backward.extend(event.as_ref().ok().map(keep));
            backward_fine &= event.is_ok();
        }
        assert!(backward.len() <= items_max);
        assert!(backward.windows(2).all(|two| two[0].0 > two[1].0), "in order");
        if fine && backward_fine {
            backward.reverse();
            assert_eq!(forward, backward);
        }
        let middle = info.head.get() / 2;
        let mut one = view.events(info.id).expect("listed").range(middle..);
        let _ = (one.next(), one.next_back());
        contents.extend(forward);
    }
    (contents, fine)
}

fn read_all(view: &ReadView, from: Position, items_max: usize) -> (Contents, bool) {
    let (mut contents, mut fine, mut count) = (Contents::new(), true, 0);
    let events = view.all_events(from).expect("in range");
    for event in events.take(items_max + 1) {
        count += 1;
        fine &= event.is_ok();
        contents.extend(event.as_ref().ok().map(keep));
    }
    assert!(count <= items_max);
    (contents, fine)
}

/// Opens for writing, commits something new, and finds it again.
fn go_on(path: &Path, must_open: bool) {
    let options = || Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = match options().open(path) {
        Ok(log) => log,
        Err(error) => {
            let damaged = matches!(error.kind(), ErrorKind::Corrupt { .. });
            if !damaged || must_open {
                refusal(&error);
            }
            return;
        }
    };
    let mut stream = log.create_stream().expect("open");
    let id = stream.id();
    for n in 0..3_u8 {
        stream.append([n; 100]).expect("room");
    }
    match stream.commit().wait() {
        Ok(_) => {}
        // The last position or the last segment there can be; or files that are called like segments, and
        // are none, where no log is.
        Err(error) => {
            let known = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::NotThisLog);
            assert!(known, "{error:?}");
            return;
        }
    }
    let known: Vec<StreamId> = log.read_view().streams().iter().map(|info| info.id).collect();
    for old in known.into_iter().filter(|one| *one != id).take(4) {
        // A head that no writer reached is refused as damage.
        if let Ok(mut old) = log.open_stream(old) {
            // One that is archived refuses, as long as that cannot be taken back.
            let _ = old.unarchive().wait();
            match old.append(b"more") {
                Ok(_) => drop(old.commit().wait()),
                Err(refused) => assert_eq!(refused, AppendError::Archived),
            }
        }
    }
    let ours = |view: &ReadView| {
        let events = view.events(id).expect("committed");
        let payloads: Vec<_> =
            events.map(|event| event.expect("sound").payload().to_vec()).collect();
        assert_eq!(payloads, [vec![0; 100], vec![1; 100], vec![2; 100]]);
    };
    ours(&log.read_view());
    drop(stream);
    let before = log.recovery_report().clone();
    log.close().expect("closes");
    let (view, _) = ReadView::open(path)
        .unwrap_or_else(|error| panic!("{error:?} after going on behind {before:?}"));
    ours(&view);
    let log = options().open(path).expect("opens again");
    ours(&log.read_view());
}

/// Repairs, and sees that a second repair finds nothing to do. False: it could not.
fn mend(path: &Path) -> bool {
    match repair(path) {
        Ok(first) => {
            // What was cut as torn counts once another segment stands behind it, and may be refused then.
            let again = match repair(path) {
                Err(error) if *error.kind() == ErrorKind::UnsupportedFeature => return false,
                again => again.unwrap_or_else(|error| panic!("{error:?} after {first:?}")),
            };
            assert!(again.changed_nothing(), "{again:?} after {first:?}");
            true
        }
        // The last position or the last segment there can be.
        Err(error) if *error.kind() == ErrorKind::StorageFull => false,
        Err(error) => {
            refusal(&error);
            false
        }
    }
}
