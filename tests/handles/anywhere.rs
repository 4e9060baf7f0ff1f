//! May handles live and die anywhere that a Rust value may: in long queues, in thread-locals, on the log's own threads,
//! in a child after a fork?
//!
//! F37, F47, F50, F51.

#![cfg(feature = "sim")]

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amberlog::options::Compaction;
use amberlog::sim::{Fault, SimDisk};
use amberlog::{ErrorKind, Log, Query, ReadView, Stream, StreamId, StreamOptions, Ticket};

/// A stack that a recursion over a few thousand commits would overflow.
const STACK_BYTES: usize = 256 << 10;
const COMMITS: u64 = 10_000;

/// Runs on a thread with a small stack.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    thread.expect("a thread").join().expect("no panic");
}

/// Effect of the disk on the commits of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meets {
    Nothing,
    /// The write of them all fails, and is undone.
    FailedWrite,
    /// The log is poisoned by then.
    FailedSync,
}

/// A log, a stream that has a commit in it, and many commits behind each other for which no thread has led yet.
fn queued(meets: Meets) -> (Log, Stream, Vec<Ticket>) {
    let disk = SimDisk::new(1);
    let log = Log::options().segment_bytes_first(4 << 20).open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("first").expect("room");
    stream.commit().wait().expect("committed");
    if meets == Meets::FailedSync {
        disk.fail_at(disk.calls() + 1, Fault::LostSync);
        stream.append("lost").expect("room");
        stream.commit().wait().expect_err("the sync fails");
    }
    let commit = |n: u64| {
        stream.append(n.to_le_bytes()).expect("room");
        stream.commit()
    };
    let tickets = (0..COMMITS).map(commit).collect();
    if meets == Meets::FailedWrite {
        disk.fail_at(disk.calls(), Fault::Io);
    }
    (log, stream, tickets)
}

/// F47: commits that stand behind each other are settled and dropped one after the other, however many there are. (Those
/// of a poisoned log were never asked what they stand behind, and held each other until the last of them was dropped.)
#[test]
fn f47_long_chains_of_commits_do_not_recurse() {
    for meets in [Meets::Nothing, Meets::FailedWrite, Meets::FailedSync] {
        on_a_small_stack(move || {
            let (log, mut stream, mut tickets) = queued(meets);
            let last = tickets.pop().expect("many").wait();
            assert_eq!(last.is_ok(), meets == Meets::Nothing, "{meets:?}: {last:?}");
            assert!(tickets.iter().all(Ticket::is_settled));
            drop(tickets);
            let buffered = match meets {
                Meets::Nothing => 0,
                Meets::FailedWrite => COMMITS,
                Meets::FailedSync => COMMITS + 1,
            };
            assert_eq!(stream.buffered(), buffered);
            let again = stream.commit().wait();
            let is_poisoned = again.is_err_and(|error| matches!(error.kind(), ErrorKind::Poisoned));
            assert_eq!(is_poisoned, meets == Meets::FailedSync);
            drop(stream);
            drop(log);
        });
    }
}

/// F47: the same where the tickets are lost and no thread leads before the last handle is gone.
#[test]
fn f47_long_chains_of_commits_end_with_the_log() {
    for meets in [Meets::Nothing, Meets::FailedWrite, Meets::FailedSync] {
        on_a_small_stack(move || {
            let (log, stream, tickets) = queued(meets);
            tickets.into_iter().for_each(std::mem::forget);
            drop(stream);
            drop(log);
        });
    }
}

/// Does its work when the thread that keeps it ends, among the destructors of that thread's values.
struct AtTheEnd(Option<Box<dyn FnOnce()>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|work| work());
    }
}

thread_local!(static KEPT: RefCell<Vec<AtTheEnd>> = const { RefCell::new(Vec::new()) });

/// Runs on a thread that keeps what `make` gives until it ends. What the thread uses first is destroyed last: so these
/// values outlive all that the library, and the libraries below it, keep with the thread.
fn kept_by_a_thread(make: impl FnOnce() -> Vec<AtTheEnd> + Send + 'static) {
    let work = || {
        KEPT.with_borrow_mut(Vec::clear);
        let kept = make();
        KEPT.with_borrow_mut(|all| all.extend(kept));
    };
    std::thread::spawn(work).join().expect("no panic");
}

/// A value that is dropped at the end.
fn kept<T: 'static>(value: T) -> AtTheEnd {
    AtTheEnd(Some(Box::new(move || drop(value))))
}

fn committed(log: &Log) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    stream.append("durable").expect("room");
    stream.commit().wait().expect("committed");
    stream
}

fn payloads(log: &Log, id: StreamId) -> Vec<String> {
    let events = log.read_view().events(id).expect("durable");
    let text = |event: amberlog::Event| String::from_utf8_lossy(event.payload()).into_owned();
    events.map(|event| text(event.expect("whole"))).collect()
}

/// F50: everything that a program can hold may be dropped with its thread. (A volatile stream aborted the process.)
#[test]
fn f50_thread_locals_may_hold_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path().join("log")).expect("opens");
    let (give, take) = std::sync::mpsc::channel();
    let of_the_thread = log.clone();
    kept_by_a_thread(move || {
        let log = of_the_thread;
        let mut stream = committed(&log);
        let named = StreamOptions::new().name("kept");
        let mut volatile = log.create_stream_with(&named).expect("a stream");
        volatile.append("never committed").expect("room");
        let fork = stream.fork_at(1).expect("a fork");
        stream.append("asked for").expect("room");
        let ticket = stream.commit();
        stream.append("never asked for").expect("room");
        let view = log.read_view();
        let mut events = view.events(stream.id()).expect("durable");
        let event = events.next();
        let all = view.all_events(amberlog::Position::START).expect("within");
        let typed =
            view.events(stream.id()).expect("durable").typed::<String, amberlog::typed::Json>();
        give.send(stream.id()).expect("awaited");
        let own = stream.events().expect("open");
        let mut all =
            vec![kept(ticket), kept(own), kept(event), kept(events), kept(all), kept(typed)];
        #[cfg(feature = "tokio")]
        all.push(kept(view.events(stream.id()).expect("durable").into_async()));
        all.extend([kept(view), kept(fork), kept(stream), kept(volatile), kept(log)]);
        all
    });
    let id = take.recv().expect("made");
    log.create_stream_with(&StreamOptions::new().name("kept")).expect("the name is free again");
    assert_eq!(
        log.list(&Query::new().volatile()).expect("listed").streams.len(),
        1,
        "no volatile stream is left"
    );
    log.create_stream().expect("a stream").commit().wait().expect("what was asked for is done");
    assert_eq!(payloads(&log, id), ["durable", "asked for"]);
}

/// F50: a destructor may also do everything that a program does otherwise.
#[test]
fn f50_destructors_of_thread_locals_may_do_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = Log::options().compaction(Compaction::Background).open(&path).expect("opens");
    let (of_the_thread, copy) = (log.clone(), dir.path().join("copy"));
    kept_by_a_thread(move || {
        let (log, mut stream) = (of_the_thread.clone(), committed(&of_the_thread));
        let work = move || {
            stream.append("at the end").expect("room");
            stream.set_label("at", "the end").expect("fine");
            stream.rename("at the end").expect("free");
            stream.commit().wait().expect("committed");
            let mut again = log.open_stream(stream.id()).expect("durable");
            again.append("by another").expect("room");
            log.commit_all([&mut again]).wait().expect("committed");
            let mut fork = again.fork_at(1).expect("a fork");
            fork.append("of a fork").expect("room");
            fork.commit().wait().expect("committed");
            drop(log.create_stream().expect("a stream").fork_at(0).expect("a fork"));
            let view = log.read_view();
            assert_eq!(view.find("at the end"), Some(again.id()));
            assert_eq!(view.streams().len(), 2);
            assert_eq!(again.events().expect("open").count(), 3);
            let all = view.all_events(amberlog::Position::START).expect("within");
            assert_eq!(all.count(), 4);
            assert_eq!(log.list(&Query::new().volatile()).expect("listed").streams.len(), 2);
            assert!(log.read_view().info(again.id()).is_some_and(|info| info.is_durable));
            again.archive().wait().expect("archived");
            log.compact(amberlog::maintenance::CompactOptions::new()).expect("open");
            log.retain(amberlog::maintenance::RetainOptions::new()).expect("open");
            log.backup(&copy).expect("backed up");
            let (backup, _) = ReadView::open(&copy).expect("readable");
            assert_eq!(backup.streams().len(), 2);
            fork.delete().wait().expect("deleted");
            let mut last = log.create_stream().expect("a stream");
            last.append("nobody waits").expect("room");
            drop(last.commit());
            log.close().expect("closes");
        };
        vec![AtTheEnd(Some(Box::new(work)))]
    });
    assert!(matches!(log.create_stream().expect_err("closed").kind(), ErrorKind::Closed));
    drop(Log::open(&path).expect("it is free"));
}

/// Runs this in a child of the process, made by `fork`. Wrong: what it says, or that it does not end.
#[cfg(target_os = "linux")]
fn in_a_child(
    mut work: impl FnMut() -> Result<(), &'static str> + Send + Sync + 'static,
) -> Result<(), String> {
    use std::os::unix::process::CommandExt;

    /// A child that hangs is ended by a signal; what it does takes milliseconds.
    const SECONDS_MAX: u32 = if cfg!(amberlog_sabotage) { 5 } else { 20 };
    let mut child = std::process::Command::new("true");
    let work = move || {
        // SAFETY: it only sets an alarm, which the child has no other use for.
        #[allow(unsafe_code, reason = "the standard library has no alarm")]
        unsafe {
            libc::alarm(SECONDS_MAX);
        }
        work().map_err(|what| {
            eprintln!("in the child: {what}");
            std::io::Error::other(what)
        })
    };
    // SAFETY: the handles take no lock in the child; that is what is tested.
    #[allow(unsafe_code, reason = "std has no other fork")]
    unsafe {
        child.pre_exec(work);
    }
    match child.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the child did not end by itself: {status}")),
        Err(error) => Err(format!("the child did not do as it should: {error}")),
    }
}

#[cfg(target_os = "linux")]
fn is_told<T>(answer: amberlog::Result<T>, what: &'static str) -> Result<(), &'static str> {
    match answer {
        Err(error) if matches!(error.kind(), ErrorKind::OtherProcess) => Ok(()),
        _ => Err(what),
    }
}

/// Handles that a program holds when its process forks.
#[cfg(target_os = "linux")]
struct Holds {
    log: Log,
    stream: Stream,
    volatile: Stream,
    waits: Ticket,
    awaited: Ticket,
    dropped: Ticket,
    view: ReadView,
}

#[cfg(target_os = "linux")]
impl Holds {
    /// A durable stream with an event in its ring and commits in flight, and a volatile one with a name.
    fn new(log: &Log, name: &str) -> Self {
        let mut stream = committed(log);
        let mut commit = || {
            stream.append("in flight").expect("room");
            stream.commit()
        };
        let (waits, awaited, dropped) = (commit(), commit(), commit());
        stream.append("buffered").expect("room");
        let named = StreamOptions::new().name(name);
        let mut volatile = log.create_stream_with(&named).expect("a stream");
        volatile.append("never committed").expect("room");
        let (log, view) = (log.clone(), log.read_view());
        Self { log, stream, volatile, waits, awaited, dropped, view }
    }

    /// Everything that a handle can be asked, in the child: it is told by type, or does no harm, and all of it ends.
    fn are_of_no_use(self) -> Result<(), &'static str> {
        let Self { log, mut stream, mut volatile, waits, mut awaited, dropped, view } = self;
        let id = stream.id();
        Self::asks_the_stream(&mut stream, "stream")?;
        Self::asks_the_stream(&mut volatile, "volatile stream")?;
        is_told(waits.wait(), "wait")?;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(&mut awaited).poll(&mut context) {
            std::task::Poll::Ready(outcome) => is_told(outcome, "poll")?,
            std::task::Poll::Pending => return Err("poll"),
        }
        dropped.start();
        drop((awaited, dropped));
        is_told(log.create_stream(), "create stream")?;
        is_told(log.open_stream(id), "open stream")?;
        is_told(log.commit_all([&mut stream, &mut volatile]).wait(), "commit_all")?;
        is_told(log.compact(amberlog::maintenance::CompactOptions::new()), "compact")?;
        is_told(log.retain(amberlog::maintenance::RetainOptions::new()), "retain")?;
        is_told(log.backup("nowhere"), "backup")?;
        is_told(log.write_archive(id), "archive")?;
        #[cfg(feature = "json")]
        is_told(log.import_jsonl(std::io::Cursor::new("")), "import")?;
        let listed = log.list(&Query::new().volatile()).expect("listed").streams.len();
        let is_same = log.state(id) == Some(amberlog::StreamState::Active)
            && listed == view.streams().len()
            && log.read_view().info(id).is_some()
            && view.find("no such name").is_none();
        drop((stream, volatile, view));
        is_told(log.clone().close(), "close")?;
        drop(log);
        if is_same { Ok(()) } else { Err("what is committed is still shown") }
    }

    fn asks_the_stream(stream: &mut Stream, what: &'static str) -> Result<(), &'static str> {
        let refused = stream.append("in the child").expect_err("another process");
        if refused != amberlog::AppendError::OtherProcess {
            return Err("append");
        }
        is_told(stream.commit().wait(), what)?;
        is_told(stream.events(), what)?;
        is_told(stream.fork_at(0), what)?;
        is_told(stream.rewind(0), what)?;
        is_told(stream.rename("in the child"), what)?;
        is_told(stream.clear_name(), what)?;
        is_told(stream.set_label("a", "b"), what)?;
        is_told(stream.remove_label("a"), what)?;
        is_told(stream.set_data(b"data"), what)?;
        is_told(stream.trim(1), what)?;
        is_told(stream.archive().wait(), what)?;
        is_told(stream.unarchive().wait(), what)?;
        is_told(stream.delete().wait(), what)?;
        is_told(stream.discard_to(stream.savepoint()), what)?;
        let _ = (stream.info(), stream.head(), stream.state());
        if stream.buffered() == 1 && stream.discard() == 1 { Ok(()) } else { Err("buffered") }
    }
}

/// F37, F50: in a child every handle of its parent's answers by type and nothing waits, also when another thread led, or
/// held any lock, in the moment of the fork. (A commit waited for ever for a leader that the child does not have.)
#[cfg(target_os = "linux")]
#[test]
fn f37_f50_in_a_child_after_a_fork_every_handle_answers() {
    let disk = SimDisk::new(1);
    disk.allow_threads();
    let log = Log::options().open_on(&disk).expect("opens");
    let mut leads = committed(&log);
    let mut holds = Some(Holds::new(&log, "a name"));
    disk.hold_syncs(true);
    leads.append("led for").expect("room");
    let ticket = leads.commit();
    let calls = disk.calls();
    let leader = std::thread::spawn(move || ticket.wait().expect("committed"));
    while disk.calls() == calls {
        std::thread::yield_now();
    }
    let ended = in_a_child(move || holds.take().map_or(Ok(()), Holds::are_of_no_use));
    disk.hold_syncs(false);
    leader.join().expect("no panic");
    log.close().expect("closes");
    ended.expect("all answer");
}

/// F37, F50: the same in many moments of a process whose other threads commit, name, list and drop all the while; and what
/// the parent does goes on as if there had been no child.
#[cfg(target_os = "linux")]
#[test]
fn f37_f50_children_of_a_process_that_is_busy() {
    const CHILDREN: usize = 24;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = Log::open(&path).expect("opens");
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(std::sync::Barrier::new(3));
    let busy: Vec<_> = (0..2)
        .map(|writer| {
            let (log, is_over, begun) = (log.clone(), Arc::clone(&is_over), Arc::clone(&begun));
            std::thread::spawn(move || {
                let mut stream = committed(&log);
                let mut commits = 1_u64;
                begun.wait();
                while !is_over.load(Ordering::Relaxed) {
                    stream.append("busy").expect("room");
                    stream.commit().wait().expect("committed");
                    commits += 1;
                    let named = StreamOptions::new().name(format!("{writer} of the parent"));
                    let other = log.create_stream_with(&named).expect("free");
                    assert!(
                        !log.list(&Query::new().volatile()).expect("listed").streams.is_empty()
                    );
                    drop(other);
                }
                (stream.id(), commits)
            })
        })
        .collect();
    begun.wait();
    let mut ended = Ok(());
    for child in 0..CHILDREN {
        let mut holds = Some(Holds::new(&log, &format!("{child}")));
        ended = ended.and(in_a_child(move || holds.take().map_or(Ok(()), Holds::are_of_no_use)));
    }
    is_over.store(true, Ordering::Relaxed);
    ended.expect("all answer");
    for writer in busy {
        let (id, commits) = writer.join().expect("no panic");
        assert_eq!(payloads(&log, id).len() as u64, commits);
    }
    log.close().expect("closes");
    let found = amberlog::verify::verify_quick(&path).expect("readable");
    assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
}

/// F51: the log's own thread compacts as the last handle is dropped: when the drop returns, the log
/// can be opened again. (An opening used to fail as locked for hundreds of milliseconds.)
#[test]
fn f51_the_last_handle_closes_a_log_that_compacts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let options = Log::options().segment_bytes_first(1 << 20).segment_bytes_max(1 << 20);
    let options = options.durability(amberlog::Durability::Os).compaction(Compaction::Background);
    let log = options.clone().open(&path).expect("opens");
    let mut streams: Vec<_> = (0..32).map(|_| log.create_stream().expect("a stream")).collect();
    for round in 0..20_u8 {
        for stream in &mut streams {
            stream.append(vec![round; 10_000]).expect("room");
        }
        log.commit_all(&mut streams).wait().expect("committed");
    }
    for stream in streams.iter_mut().skip(8) {
        stream.delete().wait().expect("deleted");
    }
    let names = || -> Vec<_> {
        let names = std::fs::read_dir(path.join("segments")).expect("a directory");
        names.map(|name| name.expect("a name").file_name()).collect()
    };
    let before = names().len();
    let is_unfinished = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".seg.new");
    while names().len() >= before && !names().iter().any(is_unfinished) {
        std::thread::yield_now();
    }
    drop(streams);
    drop(log);
    let log = options.open(&path).expect("it is free");
    assert!(log.recovery_report().is_sound() && log.recovery_report().closed_cleanly);
    assert_eq!(log.read_view().streams().len(), 8);
}

/// Without these guards the tests above fail.
#[cfg(all(amberlog_sabotage, target_os = "linux"))]
#[test]
fn control_handles_that_do_not_know_where_they_are_are_noticed() {
    use amberlog::{Sabotage, sabotage};

    let fails = |what, test: fn()| {
        let _broken = sabotage(what);
        assert!(std::panic::catch_unwind(test).is_err(), "{what:?} was not noticed");
    };
    fails(Sabotage::ForgetProcess, f37_f50_in_a_child_after_a_fork_every_handle_answers);
    fails(Sabotage::LeaveOpen, f51_the_last_handle_closes_a_log_that_compacts);
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const CLONE_IN: &str = "AMBERLOG_CLONE_IN";

/// Runs a test of this file in a process of its own: memory that another thread allocates as its child is made would stay
/// locked there. Returns whether it passed, and its output.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn alone(test: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let test = format!("anywhere::{test}");
    let mut alone = std::process::Command::new(std::env::current_exe().expect("this file"));
    let alone = alone.args(["--exact", &test, "--test-threads=1", "--nocapture"]);
    let done = alone.env(CLONE_IN, dir.path()).output().expect("runs");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.success() && said.contains("1 passed"), said)
}

/// A child that the C library does not know of, as `_Fork` and the raw system call make it, writes nothing either: the
/// system is asked which process writes.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn p3_f37_a_child_that_is_told_of_no_fork_writes_nothing() {
    if let Some(dir) = std::env::var_os(CLONE_IN) {
        return commit_beside_a_clone(std::path::Path::new(&dir));
    }
    let (passed, said) = alone("p3_f37_a_child_that_is_told_of_no_fork_writes_nothing");
    assert!(passed, "{said}");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64", amberlog_sabotage))]
#[test]
fn control_a_child_that_waits_to_be_told_of_its_fork_is_noticed() {
    if let Some(dir) = std::env::var_os(CLONE_IN) {
        let _broken = amberlog::sabotage(amberlog::Sabotage::BelieveForks);
        return commit_beside_a_clone(std::path::Path::new(&dir));
    }
    let (passed, said) = alone("control_a_child_that_waits_to_be_told_of_its_fork_is_noticed");
    assert!(!passed && said.contains("the child committed"), "{said}");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn commit_beside_a_clone(dir: &std::path::Path) {
    let log = Log::open(dir).expect("opens");
    let mut stream = committed(&log);
    // SAFETY: a child with a copy of this memory; it ends by `_exit`.
    #[allow(unsafe_code, reason = "std has no raw clone")]
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        stream.append("of the child").expect("room");
        let told = is_told(stream.commit().wait(), "it was committed");
        // SAFETY: ends the process, without anything else.
        #[allow(unsafe_code, reason = "std has no _exit")]
        unsafe {
            libc::_exit(i32::from(told.is_err()));
        }
    }
    let mut status = -1;
    // SAFETY: waits for the child, and writes one word.
    #[allow(unsafe_code, reason = "std waits for its own children alone")]
    unsafe {
        libc::waitpid(child as libc::pid_t, &raw mut status, 0);
    }
    assert_ne!(status, 1 << 8, "the child committed");
    assert_eq!(status, 0, "the child died");
    stream.append("of the parent").expect("room");
    stream.commit().wait().expect("committed");
    let id = stream.id();
    drop((stream, log));
    let log = Log::open(dir).expect("opens again");
    let events = log.read_view().events(id).expect("known").map(|event| event.expect("whole"));
    let last = events.last().expect("some");
    assert_eq!(last.payload(), b"of the parent");
}
