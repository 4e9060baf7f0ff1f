//! Does what is only in memory stay there, and does a commit keep its word, whatever happens around it?
//!
//! P1, P2, P3, P5, P8, P10; F5, F7, F12, F37. Failures are made with the tools of any user: something stands
//! where a file or a directory should be made, and is taken away again.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::{fs, thread};

use crate::support::verified::checked;
use crate::support::waiting::wait_until;
use crate::support::{read_dir, segment};
use amberlog::{
    AppendError, CommitOptions, Durability, ErrorKind, Log, Overflow, Position, Stream,
    StreamOptions, Ticket,
};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn small() -> amberlog::Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn fill(stream: &mut Stream, from: u64, to: u64) {
    for n in from..to {
        stream.append(n.to_string()).expect("room");
    }
}

fn numbers(events: amberlog::Events) -> Vec<u64> {
    let number = |event: amberlog::Event| {
        let text = std::str::from_utf8(event.payload()).expect("a number");
        assert_eq!(text, event.seq().to_string(), "an event at the seq of another");
        event.seq().get()
    };
    events.map(|event| number(event.expect("readable"))).collect()
}

fn durable(log: &Log, stream: &Stream) -> Vec<u64> {
    numbers(log.read_view().events(stream.id()).expect("known"))
}

fn upto(end: u64) -> Vec<u64> {
    (0..end).collect()
}

#[test]
fn p1_ten_thousand_streams_leave_no_trace() {
    let dir = dir();
    fs::write(dir.path().join("unrelated"), b"stays").expect("written");
    let before = read_dir(dir.path());
    let log = Log::open(dir.path()).expect("opens");
    for n in 0..10_000 {
        let options = StreamOptions::new().name(format!("thread {n}"));
        let mut stream = log.create_stream_with(&options).expect("a stream");
        fill(&mut stream, 0, 10);
        assert!(!stream.is_durable());
        assert_eq!(numbers(stream.events().expect("readable")).len(), 10);
    }
    assert_eq!(log.stats().memory.uncommitted_bytes, 0, "P10: dropped streams hold nothing");
    assert!(log.read_view().streams().is_empty());
    log.close().expect("closes");
    assert_eq!(read_dir(dir.path()), before);
}

#[test]
fn p1_p2_in_a_log_that_is_there_only_commits_change_the_directory() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut durable = log.create_stream().expect("a stream");
    fill(&mut durable, 0, 3);
    durable.commit().wait().expect("committed");
    let before = read_dir(dir.path());
    let mut other = log.open_stream(durable.id()).expect("known");
    fill(&mut other, 3, 500);
    let mut fresh = log.create_stream().expect("a stream");
    fill(&mut fresh, 0, 500);
    assert_eq!(numbers(other.events().expect("readable")), upto(500));
    fresh.discard();
    drop((other, fresh));
    assert_eq!(read_dir(dir.path()), before);
    log.close().expect("closes");
}

#[test]
fn p10_the_budget_holds_over_all_streams_and_refuses_by_type() {
    let dir = dir();
    let log = Log::options().memory_bytes_max(1 << 20).open(dir.path()).expect("opens");
    let mut streams: Vec<Stream> =
        (0..100).map(|_| log.create_stream().expect("a stream")).collect();
    let (mut taken, mut refused) = (vec![0_u64; 100], 0);
    for _ in 0..40 {
        for (at, stream) in streams.iter_mut().enumerate() {
            match stream.try_append([7; 1000]) {
                Ok(seq) => {
                    assert_eq!(seq.get(), taken[at]);
                    taken[at] += 1;
                }
                Err(back) => {
                    assert_eq!(back.event.payload, [7; 1000], "the event comes back");
                    let full = AppendError::MemoryFull { memory_bytes_max: 1 << 20 };
                    assert_eq!(back.error, full);
                    refused += 1;
                }
            }
            assert!(log.stats().memory.uncommitted_bytes <= 1 << 20);
        }
    }
    assert!(refused > 0);
    log.commit_all(&mut streams).wait().expect("committed");
    for (stream, taken) in streams.iter_mut().zip(&taken) {
        assert_eq!(stream.head().get(), *taken);
        assert_eq!(stream.discard(), 0, "all of it was committed");
        stream.append([7; 1000]).expect("a commit makes room");
    }
}

#[test]
fn p5_a_first_commit_that_fails_gives_its_events_back_and_works_when_the_cause_is_gone() {
    let dir = dir();
    let above = dir.path().join("deep");
    let log = Log::open(above.join("log")).expect("opens");
    fs::write(&above, b"a plain file").expect("written");
    assert_eq!(*Log::open(above.join("log")).expect_err("no place").kind(), ErrorKind::Io);
    let mut stream = log.create_stream().expect("a stream");
    for round in 0..3 {
        fill(&mut stream, round * 5, round * 5 + 5);
        stream.commit().wait().expect_err("a plain file is in the way");
        assert_eq!(stream.buffered(), round * 5 + 5);
        assert!(!stream.is_durable());
        assert_eq!(numbers(stream.events().expect("readable")), upto(round * 5 + 5));
    }
    fs::remove_file(&above).expect("removed");
    let commit = stream.commit().wait().expect("committed");
    assert_eq!((commit.seqs.start.get(), commit.seqs.end.get()), (0, 15));
    assert_eq!(durable(&log, &stream), upto(15));
}

/// F12: the next segment cannot be made. What was committed stays readable, and nothing is lost.
#[test]
fn p5_f12_commits_that_need_a_new_segment_fail_and_come_back_in_order() {
    let dir = dir();
    // So large that the next segment is not made ready by the first commit.
    let options = Log::options().segment_bytes_first(64 << 10).segment_bytes_max(64 << 10);
    let log = options.open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut other = log.create_stream().expect("a stream");
    fill(&mut stream, 0, 10);
    stream.commit().wait().expect("committed");
    fs::create_dir(segment(dir.path(), 2)).expect("made");
    // More than is left, so that the first of these has to roll.
    fill(&mut stream, 10, 4_000);
    let first = stream.commit();
    fill(&mut stream, 4_000, 4_010);
    let second = stream.commit();
    fill(&mut stream, 4_010, 4_020);
    fill(&mut other, 0, 5);
    let both = log.commit_all([&mut stream, &mut other]);
    fill(&mut stream, 4_020, 4_030);
    for ticket in [first, second, both] {
        assert_eq!(*ticket.wait().expect_err("no room").kind(), ErrorKind::Io);
    }
    assert_eq!(durable(&log, &stream), upto(10));
    assert_eq!((stream.buffered(), other.buffered()), (4_020, 5));
    assert_eq!(numbers(stream.events().expect("readable")), upto(4_030));
    fs::remove_dir(segment(dir.path(), 2)).expect("removed");
    log.commit_all([&mut stream, &mut other]).wait().expect("committed");
    assert_eq!(durable(&log, &stream), upto(4_030));
    assert_eq!(durable(&log, &other), upto(5));
    drop((stream, other));
    log.close().expect("closes");
    let found = checked(dir.path()).expect("readable");
    assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
}

#[test]
fn p5_p8_commits_behind_a_conflict_fail_with_it_and_all_come_back() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut winner = log.create_stream().expect("a stream");
    fill(&mut winner, 0, 3);
    winner.commit().wait().expect("committed");
    let mut loser = log.open_stream(winner.id()).expect("known");
    fill(&mut winner, 3, 4);
    winner.commit().wait().expect("committed");
    let tickets: Vec<Ticket> = (3..9)
        .map(|n| {
            fill(&mut loser, n, n + 1);
            loser.commit()
        })
        .collect();
    for ticket in tickets {
        let error = ticket.wait().expect_err("the stream has moved");
        assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}");
    }
    assert_eq!(loser.buffered(), 6);
    assert_eq!(numbers(loser.events().expect("readable")), upto(9));
    assert_eq!(loser.discard(), 6);
    assert_eq!(loser.head().get(), 3);
}

#[test]
fn p2_p3_commits_whose_tickets_are_dropped_happen_all_the_same() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..200 {
        fill(&mut stream, n, n + 1);
        drop(stream.commit());
    }
    let last = stream.commit().wait().expect("F7: what was before it is decided");
    assert_eq!(last.position, Position::from(200));
    assert_eq!(durable(&log, &stream), upto(200));
    fill(&mut stream, 200, 300);
    drop(stream.commit());
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    let log = Log::open(dir.path()).expect("opens");
    assert_eq!(numbers(log.read_view().events(id).expect("known")), upto(300));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn p3_tickets_are_futures_on_any_executor() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..50 {
        fill(&mut stream, n, n + 1);
        let commit = block_on(stream.commit()).expect("committed");
        assert_eq!(commit.position, Position::from(n + 1));
    }
    let mut tickets = Vec::new();
    for n in 50..100 {
        fill(&mut stream, n, n + 1);
        tickets.push(stream.commit());
    }
    // Awaited in the wrong order, and some not at all.
    for ticket in tickets.into_iter().rev().step_by(2) {
        block_on(ticket).expect("committed");
    }
    assert_eq!(durable(&log, &stream), upto(100));
}

#[cfg(feature = "tokio")]
#[test]
fn p3_many_tasks_and_threads_commit_at_once() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let log = log.clone();
            runtime.spawn(async move {
                let mut stream = log.create_stream().expect("a stream");
                for n in 0..10 {
                    fill(&mut stream, n, n + 1);
                    stream.commit().await.expect("committed");
                }
                stream
            })
        })
        .collect();
    let mut mine = log.create_stream().expect("a stream");
    for n in 0..50 {
        fill(&mut mine, n, n + 1);
        mine.commit().wait().expect("committed");
    }
    for task in tasks {
        let stream = runtime.block_on(task).expect("no panic");
        assert_eq!(durable(&log, &stream), upto(10));
    }
    assert_eq!(log.read_view().position(), Position::from(1_050));
}

/// F5: every waiter is woken exactly once; P7: positions are dense and unique.
#[test]
fn p7_f5_sixty_four_threads_commit_and_every_ticket_resolves() {
    const THREADS: usize = 64;
    const COMMITS: u64 = 50;
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let start = Barrier::new(THREADS);
    let positions: Vec<u64> = thread::scope(|scope| {
        let work = |index: usize| {
            let (log, start) = (&log, &start);
            move || {
                let mut stream = log.create_stream().expect("a stream");
                let os = CommitOptions::new().durability(Durability::Os);
                start.wait();
                let commit = |n| {
                    fill(&mut stream, n, n + 1);
                    let ticket = if index.is_multiple_of(4) {
                        stream.commit()
                    } else {
                        stream.commit_with(os)
                    };
                    let done =
                        if index.is_multiple_of(3) { block_on(ticket) } else { ticket.wait() };
                    let done = done.expect("committed");
                    assert_eq!(done.seqs.start.get(), n);
                    done.position.get()
                };
                (0..COMMITS).map(commit).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|index| scope.spawn(work(index))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let all = THREADS as u64 * COMMITS;
    let unique: BTreeSet<u64> = positions.into_iter().collect();
    assert!(unique.into_iter().eq(1..=all));
    let view = log.read_view();
    let mut count = 0;
    for (event, position) in view.all_events(Position::START).expect("in range").zip(1..) {
        assert_eq!(event.expect("readable").position(), Some(Position::from(position)));
        count += 1;
    }
    assert_eq!(count, all);
}

/// F37: a commit during the close gets an answer, and `Ok` means that it is durable.
#[test]
fn f37_closing_while_others_commit_leaves_no_ticket_without_an_answer() {
    for round in 0..20 {
        let dir = dir();
        let log = small().open(dir.path()).expect("opens");
        let (start, commits) = (Arc::new(Barrier::new(9)), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let (log, start) = (log.clone(), Arc::clone(&start));
                let commits = Arc::clone(&commits);
                thread::spawn(move || {
                    let mut stream = log.create_stream().expect("a stream");
                    start.wait();
                    let mut done = 0;
                    loop {
                        if stream.append(done.to_string()).is_err() {
                            break;
                        }
                        let ticket = stream.commit();
                        let outcome = if index % 2 == 0 { block_on(ticket) } else { ticket.wait() };
                        match outcome {
                            Ok(_) => {
                                done += 1;
                                commits.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(error) => {
                                assert_eq!(*error.kind(), ErrorKind::Closed);
                                break;
                            }
                        }
                    }
                    assert_eq!(*log.create_stream().expect_err("closed").kind(), ErrorKind::Closed);
                    (stream.id(), done)
                })
            })
            .collect();
        start.wait();
        wait_until("commits", || commits.load(Ordering::SeqCst) >= round * 2);
        log.close().expect("closes");
        let done: Vec<_> = threads.into_iter().map(|one| one.join().expect("no panic")).collect();
        let log = Log::open(dir.path()).expect("opens");
        for (id, done) in done {
            let found = log.read_view().events(id).map(numbers).unwrap_or_default();
            assert_eq!(found, upto(done), "round {round}");
        }
    }
}

/// F37: a fork of the process has every handle and may write with none, nor end anything; the parent goes on.
#[test]
fn f37_a_fork_of_the_process_writes_nothing() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    let dir = dir();
    // Large segments: no spare is made meanwhile.
    let log = Log::open(dir.path()).expect("opens");
    let mut streams =
        [log.create_stream().expect("a stream"), log.create_stream().expect("a stream")];
    for stream in &mut streams {
        fill(stream, 0, 3);
        stream.commit().wait().expect("committed");
    }
    let [mut mine, mut theirs] = streams;
    let (id, mut held) = (theirs.id(), Some(log.clone()));
    fill(&mut theirs, 3, 6);
    let before = read_dir(dir.path());
    let mut theirs = Some(theirs);
    // What runs here is this very process, forked, before it becomes another program.
    let in_the_fork = move || {
        let (Some(mut stream), Some(log)) = (theirs.take(), held.take()) else { return Ok(()) };
        let refused = stream.commit().wait().is_err() && stream.buffered() == 3;
        let reads = numbers(log.read_view().events(stream.id()).expect("known")) == upto(3);
        drop(stream);
        drop(log);
        if refused && reads { Ok(()) } else { Err(std::io::Error::other("the fork wrote")) }
    };
    let mut child = Command::new("true");
    // SAFETY: the fork takes no lock that a thread of this test could hold: all of its commits are done.
    #[allow(unsafe_code, reason = "std has no other fork")]
    unsafe {
        child.pre_exec(in_the_fork);
    }
    assert!(child.status().expect("the fork was refused, read, and ended").success());
    assert!(read_dir(dir.path()) == before, "it changed the directory");
    assert!(Log::open(dir.path()).is_err(), "the parent still has the lock");
    drop(child);
    fill(&mut mine, 3, 9);
    mine.commit().wait().expect("committed");
    assert_eq!(durable(&log, &mine), upto(9));
    assert_eq!(numbers(log.read_view().events(id).expect("known")), upto(3));
    log.close().expect("closes");
    let found = checked(dir.path()).expect("readable");
    assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
}

#[test]
fn handles_of_a_closed_log_say_so() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream, 0, 2);
    stream.commit().wait().expect("committed");
    fill(&mut stream, 2, 4);
    let (id, other) = (stream.id(), log.clone());
    log.close().expect("closes");
    assert_eq!(stream.append(b"more").expect_err("closed"), AppendError::Closed);
    assert_eq!(*stream.commit().wait().expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(*block_on(stream.commit()).expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(*stream.events().expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(*other.create_stream().expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(*other.open_stream(id).expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(stream.buffered(), 2, "the events are with the handle, until it goes");
    let again = Log::open(dir.path()).expect("the lock is free, whoever still has a handle");
    assert_eq!(numbers(again.read_view().events(id).expect("known")), upto(2));
}

/// P9: a fork has all events up to its seq, or is refused: also by a ring that drops events when it is full.
#[test]
fn p9_a_fork_that_does_not_fit_an_overwriting_ring_is_refused() {
    let dir = dir();
    let log = Log::open(dir.path().join("log")).expect("opens");
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, 0, 20);
    let small = StreamOptions::new().ring_bytes_max(64).overflow(Overflow::OverwriteOldest);
    let error = parent.fork_with(20_u64, &small).expect_err("it does not fit");
    assert!(matches!(error.kind(), ErrorKind::Refused(AppendError::RingFull { .. })), "{error}");
    let mut fork = parent.fork_with(3_u64, &small).expect("it fits");
    assert_eq!(numbers(fork.events().expect("open")), [0, 1, 2]);
    fill(&mut fork, 3, 30);
    assert!(numbers(fork.events().expect("open")).len() < 10, "it drops events from now on");
}
