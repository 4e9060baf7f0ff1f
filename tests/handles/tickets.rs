//! What may a thread do with a ticket, and when does its commit start?

use amberlog::sim::{Fault, SimDisk};
use amberlog::{CommitOptions, Durability, ErrorKind, Log, Stream};

#[cfg(amberlog_sabotage)]
use super::support::waiting::let_chance_pass;
use super::support::waiting::{outcome_at_last, outcome_soon, wait_until};

fn log() -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    disk.allow_threads();
    let log = Log::options().open_on(&disk).expect("opens");
    (disk, log)
}

fn appended(log: &Log) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    stream.append("event").expect("room");
    stream
}

/// P3: a wait that ends early says nothing, and changes nothing.
#[test]
fn p3_a_ticket_is_as_good_as_before_when_a_wait_was_too_short() {
    let (disk, log) = log();
    let mut stream = appended(&log);
    disk.hold_syncs(true);
    let mut ticket = stream.commit();
    for _ in 0..3 {
        assert!(outcome_soon(&mut ticket).is_none(), "no sync returns");
    }
    assert!(!ticket.is_settled());
    disk.hold_syncs(false);
    let first = outcome_at_last(&mut ticket).expect("in time").expect("committed");
    let again = outcome_soon(&mut ticket).expect("known").expect("the same");
    assert_eq!(first, again);
    assert_eq!(ticket.wait().expect("the same"), first);
    assert_eq!(log.read_view().position(), first.position);
}

/// A failure that was returned once is the caller's business, and no background error.
#[test]
fn p5_a_wait_with_a_timeout_returns_the_failure() {
    let (disk, log) = log();
    let mut stream = appended(&log);
    disk.fail_at(disk.calls(), Fault::Io);
    let mut ticket = stream.commit();
    let error = outcome_at_last(&mut ticket).expect("in time").expect_err("the disk failed");
    assert_eq!(*error.kind(), ErrorKind::Io);
    drop(ticket);
    assert!(log.background_errors().is_empty());
    assert_eq!(stream.buffered(), 1, "the event is back");
    stream.commit().wait().expect("a later commit succeeds");
}

/// A commit needs nobody who waits: `commit` is enough.
#[test]
fn p3_a_commit_whose_ticket_is_kept_starts_by_itself() {
    let (_disk, log) = log();
    for round in 1..=3 {
        let mut stream = appended(&log);
        let ticket = stream.commit();
        wait_until("a commit that nobody waits for", || log.read_view().position().get() == round);
        assert_eq!(ticket.wait().expect("committed").position.get(), round);
    }
    // It cannot end behind a sync that does not return, and goes on with it.
    let (disk, log) = self::log();
    disk.hold_syncs(true);
    let mut streams = [appended(&log), appended(&log)];
    let tickets = streams.each_mut().map(Stream::commit);
    disk.hold_syncs(false);
    wait_until("both commits", || log.read_view().position().get() == 2);
    drop(tickets);
}

/// Without a commit thread a kept ticket stays open, however long the caller keeps it.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_kept_ticket_that_no_thread_leads_is_noticed() {
    let broken = amberlog::sabotage(amberlog::Sabotage::NoThread);
    let (_disk, log) = log();
    let mut stream = appended(&log);
    let ticket = stream.commit();
    let_chance_pass(200_000);
    assert!(!ticket.is_settled(), "no thread could lead");
    assert_eq!(log.read_view().position().get(), 0);
    drop(broken);
    ticket.wait().expect("the waiting thread leads");
}

/// One write and one sync for all that was queued.
#[test]
fn a_commit_that_starts_later_shares_the_sync_of_the_next_one() {
    let disk = SimDisk::new(1);
    let log = Log::options().open_on(&disk).expect("opens");
    appended(&log).commit().wait().expect("committed");
    let before = (disk.syncs(), disk.writes());
    appended(&log).commit().wait().expect("committed");
    let of_one = (disk.syncs() - before.0, disk.writes() - before.1);
    let mut streams = [(); 5].map(|()| appended(&log));
    let before = (disk.syncs(), disk.writes());
    let later = CommitOptions::new().later();
    let tickets = streams.each_mut().map(|stream| stream.commit_with(later));
    assert!(tickets.iter().all(|ticket| !ticket.is_settled()));
    let last = appended(&log).commit().wait().expect("committed");
    assert!(tickets.iter().all(|ticket| ticket.is_settled()));
    assert_eq!((disk.syncs() - before.0, disk.writes() - before.1), of_one);
    let firsts = tickets.map(|ticket| ticket.wait().expect("committed").position);
    assert_eq!(firsts.map(|position| position.get()), [3, 4, 5, 6, 7]);
    assert_eq!(last.position.get(), 8);
}

/// P3: with `sync`, commits that only the system had are on the disk. The control is the same log without it.
#[test]
fn p3_a_sync_makes_durable_what_was_acknowledged() {
    const COMMITS: u64 = 5;
    let lost = |syncs: bool| {
        let disk = SimDisk::new(7);
        let log = Log::options().open_on(&disk).expect("opens");
        // The first commit makes files, and syncs them.
        let mut stream = appended(&log);
        stream.commit().wait().expect("committed");
        for _ in 1..COMMITS {
            stream.append("event").expect("room");
            let os = CommitOptions::new().durability(Durability::Os);
            stream.commit_with(os).wait().expect("committed");
        }
        if syncs {
            let synced = log.sync().wait().expect("synced");
            assert_eq!(synced.position.get(), COMMITS);
            assert_eq!(log.read_view().durable_position().get(), COMMITS);
        }
        let cut = |seed| {
            let left = Log::options().open_on(&disk.after_power_cut(seed)).expect("opens");
            left.read_view().info(stream.id()).map_or(0, |info| info.head.get())
        };
        (0..50).any(|seed| cut(seed) < COMMITS)
    };
    assert!(lost(false), "the control loses nothing");
    assert!(!lost(true), "something was lost behind a sync");
}

#[test]
fn p1_a_sync_of_nothing_writes_nothing() {
    let (disk, log) = log();
    let calls = disk.calls();
    assert_eq!(log.sync().wait().expect("nothing to do").position.get(), 0);
    assert_eq!(disk.writes() + disk.syncs(), 0, "{} calls", disk.calls() - calls);
    let (disk, log) = self::log();
    appended(&log).commit().wait().expect("committed");
    disk.fail_at(disk.calls() + 1, Fault::Io);
    let error = log.sync().wait().expect_err("the disk failed");
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned), "{error}");
    log.clone().close().unwrap_or_default();
    assert_eq!(*log.sync().wait().expect_err("closed").kind(), ErrorKind::Closed);
}
