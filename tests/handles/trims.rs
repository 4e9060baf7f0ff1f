//! Is a trim part of the next commit, together with whatever else is staged, and only of what its handle saw?
//!
//! P2, P4, P5, P8, P9. Every outcome is compared through the handle, through another handle, in read views taken before
//! and after, and in the log that a power cut leaves.

#![cfg(feature = "sim")]

use super::in_flight::{append, durable, on_one_thread, text};
use amberlog::sim::SimDisk;
use amberlog::{
    CommitOptions, Error, ErrorKind, Expect, Log, Position, Stream, StreamState, Ticket,
};

/// A stream `abcd`; the ticket of `cd`, if that is in flight.
fn abcd(log: &Log, flying: bool) -> (Stream, Option<Ticket>) {
    let mut stream = log.create_stream().expect("a stream");
    append(&mut stream, b"ab");
    stream.commit().wait().expect("committed");
    append(&mut stream, b"cd");
    let ticket = stream.commit();
    if flying {
        return (stream, Some(ticket));
    }
    ticket.wait().expect("committed");
    (stream, None)
}

fn other_handle(log: &Log, stream: &Stream) -> Stream {
    log.open_stream(stream.id()).expect("durable")
}

fn position(log: &Log) -> Position {
    log.read_view().position()
}

/// Checks what the stream shows everywhere, and after a power cut.
fn shows(disk: &SimDisk, log: &Log, stream: &Stream, start: u64, expected: &str) {
    let head = start + expected.len() as u64;
    let cut = Log::options().open_on(&disk.after_power_cut(7)).expect("opens");
    for log in [log, &cut] {
        let (info, handle) =
            (log.read_view().info(stream.id()).expect("known"), other_handle(log, stream));
        for info in [&info, &handle.info()] {
            assert_eq!((info.start.get(), info.head.get()), (start, head));
        }
        assert_eq!(durable(log, stream), expected);
        assert_eq!(text(handle.events().expect("open")), expected);
    }
    assert_eq!(text(stream.events().expect("open")), expected);
    assert_eq!((stream.info().start.get(), stream.head().get()), (start, head));
}

fn is_conflict<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.expect_err("not what the handle saw");
    assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}");
}

/// P4, P9: truncate and append, purge, and replace by a summary: each is one commit, also behind one in flight.
#[test]
fn p4_p9_a_trim_a_rewind_and_events_are_one_commit() {
    for flying in [false, true] {
        for (rewind, new) in (0..=4).flat_map(|rewind| [(rewind, ""), (rewind, "xy")]) {
            let whole = format!("{}{new}", &"abcd"[..rewind]);
            for to in 0..=whole.len() {
                let (disk, log) = on_one_thread();
                let (mut stream, ticket) = abcd(&log, flying);
                let (before, was) = (log.read_view(), durable(&log, &stream));
                stream.rewind(rewind as u64).expect("in range");
                append(&mut stream, new.as_bytes());
                stream.trim(to as u64).expect("in range");
                let expected = &whole[to..];
                assert_eq!(text(stream.events().expect("open")), expected, "at once");
                assert_eq!(durable(&log, &stream), was, "and nowhere else (P2)");
                let commit = stream.commit();
                assert_eq!(text(stream.events().expect("open")), expected, "in flight");
                let commit = commit.wait().expect("committed").position.get();
                ticket.map(|ticket| ticket.wait().expect("committed"));
                let is_news = to > 0 || rewind < 4 || !new.is_empty();
                assert_eq!(commit, 2 + u64::from(is_news), "{rewind} {new} {to}");
                shows(&disk, &log, &stream, to as u64, expected);
                assert_eq!(text(before.events(stream.id()).expect("known")), was, "as it was");
                stream.commit().wait().expect("nothing to say");
                assert_eq!(position(&log).get(), commit);
            }
        }
    }
}

/// P9: what a trim was told is true for the handle at once: it goes no further back, and no further than the head.
#[test]
fn p9_a_trim_that_waits_bounds_what_comes_after() {
    let (disk, log) = on_one_thread();
    let (mut stream, _) = abcd(&log, false);
    append(&mut stream, b"ef");
    let before = stream.info();
    let refused = stream.trim(7).expect_err("behind the head");
    assert!(matches!(refused.kind(), ErrorKind::SeqOutOfRange { .. }), "{refused}");
    assert_eq!(stream.info(), before);
    stream.trim(3).expect("in range");
    stream.trim(1).expect("says nothing");
    let refused = stream.rewind(2).expect_err("trimmed");
    assert!(matches!(refused.kind(), ErrorKind::Trimmed { start, .. } if start.get() == 3));
    let refused = stream.fork_at(2).expect_err("trimmed");
    assert!(matches!(refused.kind(), ErrorKind::Trimmed { .. }), "{refused}");
    stream.rewind(4).expect("in range");
    let refused = stream.trim(5).expect_err("rewound");
    assert!(matches!(refused.kind(), ErrorKind::SeqOutOfRange { .. }), "{refused}");
    let mut fork = stream.fork_at(4).expect("a fork");
    stream.rewind(3).expect("in range");
    stream.commit().wait().expect("committed");
    shows(&disk, &log, &stream, 3, "");
    append(&mut fork, b"f");
    assert_eq!(text(fork.events().expect("open")), "df");
    fork.trim(4).expect("in range");
    fork.commit().wait().expect("committed");
    shows(&disk, &log, &fork, 4, "f");
    fork.rewind(4).expect("in range");
    append(&mut fork, b"gh");
    fork.trim(5).expect("in range");
    fork.commit().wait().expect("committed");
    shows(&disk, &log, &fork, 5, "h");
}

/// P2: like a rewind a trim goes with its handle.
#[test]
fn p2_a_trim_that_was_not_committed_leaves_no_trace() {
    let (disk, log) = on_one_thread();
    let (mut dropped, _) = abcd(&log, false);
    let (mut closed, _) = abcd(&log, false);
    dropped.trim(2).expect("in range");
    closed.trim(2).expect("in range");
    let ids = [dropped.id(), closed.id()];
    drop(dropped);
    log.close().expect("closes");
    let log = Log::options().open_on(&disk).expect("opens");
    assert_eq!(position(&log).get(), 4);
    for id in ids {
        assert_eq!(text(log.read_view().events(id).expect("known")), "abcd");
    }
}

/// P9: a discard leaves a trim, but for what is discarded.
#[test]
fn p9_a_discard_leaves_a_trim_of_what_is_committed() {
    let (disk, log) = on_one_thread();
    for (to, start) in [(2, 2), (4, 4), (6, 4)] {
        let (mut stream, _) = abcd(&log, false);
        let savepoint = stream.savepoint();
        append(&mut stream, b"xyz");
        stream.trim(to).expect("in range");
        match to {
            2 => assert_eq!(stream.discard(), 3),
            _ => assert_eq!(stream.discard_to(savepoint).expect("buffered"), 3),
        }
        let position = position(&log).get();
        let commit = stream.commit().wait().expect("committed");
        assert_eq!(commit.position.get(), position + 1, "a trim is something to commit");
        shows(&disk, &log, &stream, start, &"abcd"[start as usize..]);
        append(&mut stream, b"q");
        stream.trim(5).expect("in range");
        stream.discard();
        let commit = stream.commit().wait().expect("nothing to say");
        let expected = position + if start < 4 { 2 } else { 1 };
        assert_eq!(commit.position.get(), expected);
    }
}

/// P5: a trim stays when its commit fails, or one before it; it is made with what came back.
#[test]
fn p5_a_trim_that_failed_is_made_by_the_next_commit() {
    for (to, rewind) in (1..=6).flat_map(|to| [(to, None), (to, Some(to.max(3)))]) {
        for taken in [false, true] {
            let (disk, log) = on_one_thread();
            let (mut stream, first) = abcd(&log, true);
            append(&mut stream, b"ef");
            rewind.into_iter().for_each(|rewind| stream.rewind(rewind).expect("in range"));
            stream.trim(to).expect("in range");
            let second = taken.then(|| stream.commit());
            disk.set_file_bytes_max(1);
            first.expect("in flight").wait().expect_err("no room");
            second.map(|second| second.wait().expect_err("behind one that failed"));
            let expected = &"abcdef"[to as usize..rewind.unwrap_or(6) as usize];
            assert_eq!(text(stream.events().expect("open")), expected);
            assert_eq!(durable(&log, &stream), "ab");
            disk.set_file_bytes_max(u64::MAX);
            let commit = stream.commit().wait().expect("committed");
            assert_eq!(commit.position.get(), 2, "all of it in one commit");
            shows(&disk, &log, &stream, to, expected);
        }
    }
}

/// P4, P5: a rewind and a trim are one commit with the events that replace what they cut: another
/// state goes without them.
#[test]
fn p4_p5_a_state_leaves_a_rewind_and_a_trim_to_their_events() {
    let (disk, log) = on_one_thread();
    let (mut stream, _) = abcd(&log, false);
    stream.rewind(3).expect("in range");
    append(&mut stream, b"xyz");
    stream.trim(5).expect("in range");
    stream.set_label("kind", "archived").expect("room");
    disk.set_file_bytes_max(1);
    stream.archive().wait().expect_err("no room");
    disk.set_file_bytes_max(u64::MAX);
    assert_eq!((stream.state(), stream.info().start.get()), (StreamState::Active, 5));
    for archived in [true, false] {
        let ticket = if archived { stream.archive() } else { stream.unarchive() };
        ticket.wait().expect("committed");
        assert_eq!(durable(&log, &stream), "abcd", "all or nothing");
        assert_eq!(text(stream.events().expect("open")), "z");
        let cut = Log::options().open_on(&disk.after_power_cut(0)).expect("opens");
        let info = cut.read_view().info(stream.id()).expect("known");
        assert_eq!((info.head.get(), info.generation), (4, 0));
        assert_eq!(info.state == StreamState::Archived, archived);
        assert_eq!(info.labels["kind"], "archived", "what is said of the stream goes along");
    }
    stream.commit().wait().expect("committed");
    shows(&disk, &log, &stream, 5, "z");
}

/// P5, P8: a delete has no use for a pending rewind: one that can no longer be made does not refuse it, and after a
/// delete that failed it is still pending.
#[test]
fn p5_p8_a_delete_makes_no_rewind() {
    let (disk, log) = on_one_thread();
    let (mut stream, _) = abcd(&log, false);
    let mut other = other_handle(&log, &stream);
    stream.rewind(1).expect("in range");
    append(&mut stream, b"xyz");
    disk.set_file_bytes_max(1);
    stream.delete().wait().expect_err("no room");
    disk.set_file_bytes_max(u64::MAX);
    assert_eq!(stream.state(), StreamState::Active);
    assert_eq!(text(stream.events().expect("open")), "axyz");
    other.trim(2).expect("in range");
    other.commit().wait().expect("trimmed");
    let error = stream.commit().wait().expect_err("what it goes back to is trimmed");
    assert!(matches!(error.kind(), ErrorKind::Trimmed { .. }), "{error}");
    stream.delete().wait().expect("deleted");
    let error = log.open_stream(stream.id()).expect_err("deleted");
    assert_eq!(*error.kind(), ErrorKind::Deleted(stream.id()));
}

/// P4: the trims of several streams are one commit, and an archived stream is trimmed as well.
#[test]
fn p4_trims_of_several_streams_are_one_commit() {
    let (disk, log) = on_one_thread();
    let mut streams = [(); 3].map(|()| abcd(&log, false).0);
    streams[0].archive().wait().expect("archived");
    streams[1].rewind(2).expect("in range");
    append(&mut streams[2], b"x");
    streams.iter_mut().for_each(|stream| stream.trim(2).expect("in range"));
    let before = position(&log).get();
    let commit = log.commit_all(&mut streams).wait().expect("committed");
    assert_eq!(commit.position.get(), before + 1);
    for (stream, expected) in streams.iter().zip(["cd", "", "cdx"]) {
        shows(&disk, &log, stream, 2, expected);
    }
}

/// P8: another handle has put other events at the seqs that were to be trimmed. No expectation lets the trim have them.
#[test]
fn p8_a_trim_of_events_that_were_rewound_and_regrown_is_a_conflict() {
    for expect in [Expect::Seen, Expect::Any, Expect::Exists, Expect::At(4.into())] {
        let (_disk, log) = on_one_thread();
        let (mut stream, _) = abcd(&log, false);
        let mut other = other_handle(&log, &stream);
        append(&mut stream, b"x");
        stream.trim(2).expect("in range");
        other.rewind(0).expect("in range");
        append(&mut other, b"OOOO");
        other.commit().wait().expect("committed");
        for _ in 0..2 {
            is_conflict(stream.commit_with(CommitOptions::new().expect(expect)).wait());
            assert_eq!((stream.info().start.get(), stream.buffered()), (2, 1));
            assert_eq!(durable(&log, &stream), "OOOO");
        }
    }
}

/// P8: a handle that was led into the other generation by a commit of its own knows nothing of those events either, until
/// it is asked again.
#[test]
fn p8_a_trim_does_not_follow_its_handle_into_another_generation() {
    let any = CommitOptions::new().expect(Expect::Any);
    for (taken, again) in [(false, 3), (true, 3), (false, 1), (true, 1)] {
        let (disk, log) = on_one_thread();
        let (mut stream, _) = abcd(&log, false);
        let mut other = other_handle(&log, &stream);
        other.rewind(0).expect("in range");
        append(&mut other, b"OOOO");
        other.commit().wait().expect("committed");
        append(&mut stream, b"x");
        let first = stream.commit_with(any);
        stream.trim(2).expect("in range");
        let second = taken.then(|| stream.commit_with(any));
        first.wait().expect("committed");
        second.into_iter().for_each(|second| is_conflict(second.wait()));
        for _ in 0..2 {
            is_conflict(stream.commit_with(any).wait());
            is_conflict(stream.commit().wait());
            assert_eq!(durable(&log, &stream), "OOOOx");
        }
        stream.trim(again).expect("in range");
        stream.commit().wait().expect("committed");
        shows(&disk, &log, &stream, again, &"OOOOx"[again as usize..]);
    }
}

/// P8: a trim goes on being of the events that it named, wherever a leader puts those behind them.
#[test]
fn p8_a_trim_beside_events_that_go_elsewhere() {
    let any = CommitOptions::new().expect(Expect::Any);
    for to in 1..=6_u64 {
        let (disk, log) = on_one_thread();
        let (mut stream, _) = abcd(&log, false);
        let mut other = other_handle(&log, &stream);
        append(&mut other, b"OO");
        other.commit().wait().expect("committed");
        append(&mut stream, b"xyz");
        stream.trim(to).expect("in range");
        let commit = stream.commit_with(any);
        if to <= 4 {
            commit.wait().expect("committed");
            shows(&disk, &log, &stream, to, &"abcdOOxyz"[to as usize..]);
            continue;
        }
        is_conflict(commit.wait());
        assert_eq!((durable(&log, &stream), stream.buffered()), ("abcdOO".into(), 3));
        assert_eq!(stream.discard(), 3);
        stream.commit_with(any).wait().expect("committed");
        assert_eq!(durable(&log, &stream), "OO");
    }
}

/// P8: the same with events in flight: a conflict once, and the next commit trims what was meant.
#[test]
fn p8_a_trim_of_events_in_flight_that_went_elsewhere_is_a_conflict_once() {
    let any = CommitOptions::new().expect(Expect::Any);
    for (to, taken) in (3..=7_u64).flat_map(|to| [(to, false), (to, true)]) {
        let (disk, log) = on_one_thread();
        let (mut stream, _) = abcd(&log, false);
        let mut other = other_handle(&log, &stream);
        append(&mut other, b"OO");
        other.commit().wait().expect("committed");
        append(&mut stream, b"xy");
        let first = stream.commit_with(any);
        stream.trim(to.min(6)).expect("in range");
        append(&mut stream, b"z");
        stream.trim(to).expect("in range");
        let second = taken.then(|| stream.commit_with(any));
        first.wait().expect("committed");
        let is_moved = to > 4;
        match second.map(Ticket::wait) {
            Some(second) if is_moved => is_conflict(second),
            Some(second) => drop(second.expect("committed")),
            None => {}
        }
        let start = to + if is_moved { 2 } else { 0 };
        let expected = &"abcdOOxyz"[start as usize..];
        assert_eq!(text(stream.events().expect("open")), expected);
        stream.commit().wait().expect("committed");
        shows(&disk, &log, &stream, start, expected);
    }
}
