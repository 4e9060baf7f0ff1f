//! Models of the commit path: short scenarios, run in every order that threads can take (F5, F37).
//!
//! The queue, the tickets and their locks are the real ones; the writer is a [`Scribe`], without a
//! disk. Each model has a control: the same scenario with one fault, which it must notice. A leader
//! that is dropped early stands for one that panics: unwinding drops it too, but cannot run here
//! while other threads of a model go on.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::ticket::ThreadWaker;
use super::{Commit, GroupWriter, Pending, Queue, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::options::CommitOptions;
use crate::sabotage::Sabotage;
use crate::sync::{Condvar, Mutex, model, thread};
use crate::types::{Durability, Position, Seq, Timestamp};

/// Writer that keeps its log in memory.
#[derive(Debug, Default)]
struct Scribe {
    /// Committed commits, in order.
    log: Vec<Name>,
    poisoned: bool,
    /// Fault of the next group.
    failure: Failure,
    handled: Arc<Handled>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Failure {
    #[default]
    None,
    /// A write fails: only this group is lost.
    Write,
    /// A sync fails: nothing is trusted any more.
    Sync,
    /// A sync fails and is forgotten.
    SyncForgotten,
}

/// Identity of a commit: its address, while it is alive.
type Name = usize;

fn name(pending: &Arc<Pending>) -> Name {
    Arc::as_ptr(pending).addr()
}

impl GroupWriter for Scribe {
    fn commit_group(&mut self, group: &[Arc<Pending>]) {
        let failure = std::mem::take(&mut self.failure);
        for pending in group {
            let refusal = match failure {
                _ if self.poisoned => Some(Error::new(ErrorKind::Poisoned, "commit")),
                Failure::None => pending.failure_before(),
                _ => Some(Error::new(ErrorKind::StorageFull, "commit")),
            };
            pending.settle(match refusal {
                Some(error) => Err(error),
                None => {
                    self.log.push(name(pending));
                    Ok(commit_at(self.log.len()))
                }
            });
        }
        self.poisoned |= failure == Failure::Sync;
        self.handled.record(group);
    }

    fn poison(&mut self) {
        self.poisoned = true;
    }
}

fn commit_at(position: usize) -> Commit {
    Commit {
        position: Position(position as u64),
        seqs: Seq(0)..Seq(0),
        time: Timestamp::from_micros(0),
        durability: Durability::Disk,
    }
}

/// Commits that a leader has handled: lets a thread wait for one without leading.
#[derive(Debug, Default)]
struct Handled {
    names: Mutex<Vec<Name>>,
    changed: Condvar,
}

impl Handled {
    fn record(&self, group: &[Arc<Pending>]) {
        self.names.lock().extend(group.iter().map(name));
        self.changed.notify_all();
    }

    fn wait_for(&self, pending: &Arc<Pending>) {
        let mut names = self.names.lock();
        while !names.contains(&name(pending)) {
            names = self.changed.wait(names);
        }
    }
}

fn queue() -> Arc<Queue<Scribe>> {
    queue_of(Scribe::default())
}

fn queue_of(scribe: Scribe) -> Arc<Queue<Scribe>> {
    Queue::new(Box::new(scribe))
}

fn pending() -> Arc<Pending> {
    pending_after(Vec::new())
}

fn pending_after(behind: Vec<Arc<Pending>>) -> Arc<Pending> {
    Pending::new(Vec::new(), CommitOptions::new(), behind)
}

/// Submits a commit on a new thread and passes its ticket to `with` there.
fn on_a_thread<T: Send + 'static>(
    queue: &Arc<Queue<Scribe>>,
    with: impl FnOnce(Ticket) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let queue = Arc::clone(queue);
    thread::spawn(move || with(queue.submit(pending())))
}

/// Closes the log and returns its writer.
fn ended(queue: &Queue<Scribe>) -> Scribe {
    *queue.close().expect("nobody else closed it")
}

/// Ticket that a failing model does not drop: its drop would call into a model that has ended.
type Kept = std::mem::ManuallyDrop<Ticket>;

impl ThreadWaker {
    fn poll(self: &Arc<Self>, ticket: &mut Ticket) -> Poll<Result<Commit>> {
        let waker = Waker::from(Arc::clone(self));
        std::pin::Pin::new(ticket).poll(&mut Context::from_waker(&waker))
    }

    fn block_on(self: &Arc<Self>, ticket: Ticket) -> Result<Commit> {
        let mut ticket = Kept::new(ticket);
        loop {
            if let Poll::Ready(outcome) = self.poll(&mut ticket) {
                drop(Kept::into_inner(ticket));
                return outcome;
            }
            let mut is_woken = self.is_woken.lock();
            while !*is_woken {
                is_woken = self.changed.wait(is_woken);
            }
            *is_woken = false;
        }
    }
}

/// A thread that waits while another leads is woken: with the outcome, or to lead the next group.
fn lost_wake_up(waiters: usize) {
    let queue = queue();
    let others: Vec<_> = (1..waiters).map(|_| on_a_thread(&queue, Ticket::wait)).collect();
    queue.submit(pending()).wait().expect("committed");
    for other in others {
        other.join().expect("no panic").expect("committed");
    }
    assert_eq!(ended(&queue).log.len(), waiters);
}

#[test]
fn f5_lost_wake_up() {
    model(None, None, || lost_wake_up(2));
}

#[test]
fn f5_lost_wake_up_of_three() {
    model(None, Some(4), || lost_wake_up(3));
}

#[test]
#[should_panic(expected = "deadlock")]
fn f5_lost_wake_up_is_noticed() {
    model(Some(Sabotage::TellNobody), None, || lost_wake_up(2));
}

#[test]
#[should_panic(expected = "deadlock")]
fn f5_lost_wake_up_of_three_is_noticed() {
    model(Some(Sabotage::ListenLate), Some(4), || lost_wake_up(3));
}

/// The commit thread leads for a ticket that is dropped while another thread leads; a ticket that
/// is kept meanwhile can still be waited for.
fn dropped_leader() {
    let handled = Arc::new(Handled::default());
    let queue = queue_of(Scribe { handled: Arc::clone(&handled), ..Scribe::default() });
    let waits = on_a_thread(&queue, Ticket::wait);
    let kept = Kept::new(queue.submit(pending()));
    let dropped = pending();
    drop(queue.submit(Arc::clone(&dropped)));
    handled.wait_for(&dropped);
    waits.join().expect("no panic").expect("committed");
    Kept::into_inner(kept).wait().expect("committed");
    assert_eq!(ended(&queue).log.len(), 3);
}

#[test]
fn f37_dropped_leader() {
    model(None, Some(4), dropped_leader);
}

#[test]
#[should_panic(expected = "deadlock")]
fn f37_dropped_leader_is_noticed() {
    model(Some(Sabotage::TellNobody), Some(2), dropped_leader);
}

/// The commit thread cannot be started while another thread leads: the awaiting task must not be
/// forgotten. (It was: the leader woke only threads that wait, and there were none.)
fn no_thread_to_be_had() {
    let queue = queue();
    let waits = on_a_thread(&queue, Ticket::wait);
    let awaited = queue.submit(pending());
    Arc::new(ThreadWaker::default()).block_on(awaited).expect("committed");
    waits.join().expect("no panic").expect("committed");
    assert_eq!(ended(&queue).log.len(), 2);
}

#[test]
fn f5_no_thread_to_be_had() {
    model(Some(Sabotage::NoThread), None, no_thread_to_be_had);
}

#[test]
#[should_panic(expected = "deadlock")]
fn f5_no_thread_to_be_had_is_noticed() {
    model(Some(Sabotage::ForgetWhoAsked), None, no_thread_to_be_had);
}

/// Like [`no_thread_to_be_had`], with a panic of the leader.
#[test]
fn f37_no_thread_to_be_had_and_a_panic_in_the_leader() {
    model(Some(Sabotage::NoThread), None, || {
        let queue = queue();
        let falls = on_a_thread(&queue, {
            let queue = Arc::clone(&queue);
            move |ticket| {
                drop(queue.try_lead());
                ticket.wait()
            }
        });
        let awaited = queue.submit(pending());
        let awaited = Arc::new(ThreadWaker::default()).block_on(awaited);
        let _ = falls.join().expect("no panic");
        assert!(awaited.is_ok() || ended(&queue).poisoned);
    });
}

/// A leader panics: its group is settled, the writer is back, and all later commits get the cause.
fn panic_in_the_leader() {
    let queue = queue();
    let falls = on_a_thread(&queue, {
        let queue = Arc::clone(&queue);
        move |ticket| {
            let fell = queue.try_lead().map(drop).is_some();
            (fell, ticket.wait())
        }
    });
    let waits = queue.submit(pending()).wait();
    let (fell, own) = falls.join().expect("no panic");
    let scribe = ended(&queue);
    assert_eq!(scribe.poisoned, fell, "the writer knows of it");
    let acked = [&waits, &own].into_iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(acked, scribe.log.len(), "Ok means done");
    if fell {
        let refused = [waits, own].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert!(!refused.is_empty(), "the group that fell gets an error");
        assert!(refused.iter().all(|error| matches!(error.kind(), ErrorKind::Poisoned)));
    }
}

#[test]
fn f37_panic_in_the_leader() {
    model(None, None, panic_in_the_leader);
}

#[test]
#[should_panic(expected = "deadlock")]
fn f37_panic_in_the_leader_is_noticed() {
    model(Some(Sabotage::LeaveGroup), None, panic_in_the_leader);
}

/// A sync fails while others wait: its group and every later group fail, each commit once.
fn poison_during_wait(failure: Failure) {
    let queue = queue_of(Scribe { failure, ..Scribe::default() });
    let others: Vec<_> = (0..2).map(|_| on_a_thread(&queue, Ticket::wait)).collect();
    queue.submit(pending()).wait().expect_err("poisoned");
    for other in others {
        other.join().expect("no panic").expect_err("poisoned");
    }
    assert!(ended(&queue).log.is_empty());
}

#[test]
fn f5_f8_poison_during_wait() {
    model(None, Some(4), || poison_during_wait(Failure::Sync));
}

#[test]
#[should_panic(expected = "poisoned")]
fn f5_f8_poison_during_wait_is_noticed() {
    model(None, Some(2), || poison_during_wait(Failure::SyncForgotten));
}

/// A write fails: later commits of the same stream fail too, in whatever group, and no others (P5).
#[test]
fn p5_failure_of_the_commit_before() {
    model(None, Some(4), || {
        let queue = queue_of(Scribe { failure: Failure::Write, ..Scribe::default() });
        let first = pending();
        let before = queue.submit(Arc::clone(&first));
        let elsewhere = on_a_thread(&queue, Ticket::wait);
        let behind = queue.submit(pending_after(vec![first]));
        let behind = Arc::new(ThreadWaker::default()).block_on(behind);
        let before = before.wait();
        let elsewhere = elsewhere.join().expect("no panic");
        assert!(behind.is_err() || before.is_ok());
        let outcomes = [before, elsewhere, behind];
        let acked = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(acked, ended(&queue).log.len(), "Ok means done");
    });
}

/// The log is closed during commits: every ticket gets an outcome, and Ok means that the commit is
/// in the log. A single caller gets the writer.
fn close_during_commit() {
    let queue = queue();
    let waits = on_a_thread(&queue, Ticket::wait);
    let closes = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.close())
    };
    let kept = Kept::new(queue.submit(pending()));
    let mine = queue.close();
    let theirs = closes.join().expect("no panic");
    assert!(mine.is_some() != theirs.is_some(), "the writer is given once");
    let outcomes = [Kept::into_inner(kept).wait(), waits.join().expect("no panic")];
    let acked = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let log = mine.or(theirs).map_or(0, |scribe| scribe.log.len());
    assert_eq!(acked, log, "Ok means done");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(error.kind(), ErrorKind::Closed));
    }
}

#[test]
fn f37_close_during_commit() {
    model(None, Some(4), close_during_commit);
}

#[test]
#[should_panic(expected = "deadlock")]
fn f37_close_during_commit_is_noticed() {
    model(Some(Sabotage::LeaveQueue), Some(2), close_during_commit);
}

/// A ticket moves to another task while it is settled: the last waker is woken.
fn waker_replaced() {
    let queue = queue();
    let mut ticket = queue.submit(pending());
    let first = Arc::new(ThreadWaker::default());
    let second = Arc::new(ThreadWaker::default());
    let outcome = match first.poll(&mut ticket) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => second.block_on(ticket),
    };
    outcome.expect("committed");
    assert_eq!(ended(&queue).log.len(), 1);
}

#[test]
fn f5_waker_replaced() {
    model(None, None, waker_replaced);
}

#[test]
#[should_panic(expected = "deadlock")]
fn f5_waker_replaced_is_noticed() {
    model(Some(Sabotage::LateWaker), None, waker_replaced);
}

/// Threads and tasks together: one waits, one awaits, one drops.
#[test]
fn f5_waiting_awaiting_and_dropping_at_once() {
    model(None, Some(3), || {
        let queue = queue();
        let waits = on_a_thread(&queue, Ticket::wait);
        let drops = on_a_thread(&queue, drop);
        let awaited = queue.submit(pending());
        Arc::new(ThreadWaker::default()).block_on(awaited).expect("committed");
        waits.join().expect("no panic").expect("committed");
        drops.join().expect("no panic");
        assert_eq!(ended(&queue).log.len(), 3);
    });
}
