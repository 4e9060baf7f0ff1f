//! What may a commit expect, and what becomes of one that is made twice?
//!
//! P8: `Conflict` and nothing written, the events kept. Requirement 26: a retry with the same id is told of the first.

use amberlog::maintenance::CompactOptions;
use amberlog::{
    Commit, CommitId, CommitOptions, Durability, ErrorKind, Expect, Log, Options, Position, Seq,
    Stream,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn commit(stream: &mut Stream, expect: Expect) -> amberlog::Result<Commit> {
    stream.commit_with(CommitOptions::new().expect(expect)).wait()
}

fn payloads(log: &Log, stream: &Stream) -> Vec<String> {
    let events = log.read_view().events(stream.id()).expect("known");
    events
        .map(|one| String::from_utf8_lossy(one.expect("readable").payload()).into_owned())
        .collect()
}

fn is_conflict(outcome: amberlog::Result<Commit>, expected: u64, actual: u64) {
    match *outcome.expect_err("not as expected").kind() {
        ErrorKind::Conflict { expected: told, actual: found, .. } => {
            assert_eq!((told.get(), found.get()), (expected, actual));
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn p8_expectations_of_a_new_stream() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("a").expect("room");
    is_conflict(commit(&mut stream, Expect::Exists), 0, 0);
    is_conflict(commit(&mut stream, Expect::At(Seq::from(1))), 1, 0);
    assert_eq!(stream.buffered(), 1, "kept");
    commit(&mut stream, Expect::NoStream).expect("as expected");
    stream.append("b").expect("room");
    is_conflict(commit(&mut stream, Expect::NoStream), 0, 1);
    commit(&mut stream, Expect::Exists).expect("as expected");
    stream.append("c").expect("room");
    commit(&mut stream, Expect::At(Seq::from(2))).expect("as expected");
    assert_eq!(payloads(&log, &stream), ["a", "b", "c"]);
}

#[test]
fn p8_any_goes_behind_what_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    first.append("a0").expect("room");
    first.commit().wait().expect("committed");
    let mut second = log.open_stream(first.id()).expect("known");
    for text in ["b1", "b2"] {
        second.append(text).expect("room");
    }
    for text in ["a1", "a2", "a3"] {
        first.append(text).expect("room");
    }
    first.commit().wait().expect("committed");
    is_conflict(commit(&mut second, Expect::Seen), 1, 4);
    is_conflict(commit(&mut second, Expect::At(Seq::from(3))), 3, 4);
    let done = commit(&mut second, Expect::Any).expect("anything goes");
    assert_eq!(done.seqs, Seq::from(4)..Seq::from(6), "the real seqs");
    assert_eq!(payloads(&log, &first), ["a0", "a1", "a2", "a3", "b1", "b2"]);
    // The handle goes on from there.
    assert_eq!(second.append("b3").expect("room"), Seq::from(6));
    second.commit().wait().expect("it has seen its own commit");
    // Also after the stream was rewound, in the new generation.
    let mut third = log.open_stream(first.id()).expect("known");
    third.rewind(2).expect("rewound");
    third.commit().wait().expect("committed");
    second.append("b4").expect("room");
    is_conflict(commit(&mut second, Expect::Seen), 7, 2);
    let done = commit(&mut second, Expect::At(Seq::from(2))).expect("as expected");
    assert_eq!(done.seqs, Seq::from(2)..Seq::from(3));
    assert_eq!(payloads(&log, &first), ["a0", "a1", "b4"]);
    let seen: Vec<_> =
        second.events().expect("readable").map(|one| one.expect("readable")).collect();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].generation(), 1);
}

/// A caller may ask for more than the head that its handle saw: only if nothing was added since.
#[test]
fn p8_a_stream_that_moved_is_neither_trimmed_nor_archived_nor_deleted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut writer = log.create_stream().expect("a stream");
    for n in 0..3 {
        writer.append([n]).expect("room");
    }
    writer.commit().wait().expect("committed");
    type Ask = fn(&mut Stream) -> amberlog::Ticket;
    let trim: Ask = |stream| {
        stream.trim(2).expect("staged");
        stream.commit()
    };
    let asks = [trim, Stream::archive, Stream::delete];
    for (nth, ask) in asks.iter().enumerate() {
        let seen = 3 + nth as u64;
        let mut late = log.open_stream(writer.id()).expect("there");
        assert_eq!(late.head().get(), seen);
        writer.append("more").expect("room");
        writer.commit().wait().expect("committed");
        is_conflict(ask(&mut late).wait(), seen, seen + 1);
        let info = log.read_view().info(writer.id()).expect("there");
        assert_eq!((info.state, info.start.get()), (amberlog::StreamState::Active, 0));
    }
    for ask in asks {
        ask(&mut log.open_stream(writer.id()).expect("there")).wait().expect("nobody was quicker");
    }
    assert_eq!(log.state(writer.id()), Some(amberlog::StreamState::Deleted));
}

/// P4, P8: one stream that is not as expected fails the commit for all, and is named. Each handle keeps its events.
#[test]
fn p4_p8_each_stream_of_a_commit_has_an_expectation_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let appended = |stream: &mut Stream| stream.append("event").expect("room");
    let mut made = [(); 3].map(|()| log.create_stream().expect("a stream"));
    for stream in &mut made {
        appended(stream);
    }
    let [first, second, third] = &mut made;
    let plain = CommitOptions::new();
    let all = [(&mut *first, Expect::NoStream), (&mut *second, Expect::At(Seq::from(0)))];
    log.commit_all_expecting(all, plain).wait().expect("as expected");

    // The expectation of one is not that of another: the first exists now, the third does not.
    appended(first);
    let position = log.read_view().position();
    for (of_first, of_third, names_first) in [
        (Expect::NoStream, Expect::NoStream, true),
        (Expect::Exists, Expect::Exists, false),
        (Expect::At(Seq::from(2)), Expect::Any, true),
        (Expect::Any, Expect::At(Seq::from(1)), false),
    ] {
        let all = [(&mut *first, of_first), (&mut *third, of_third)];
        let error = log.commit_all_expecting(all, plain).wait().expect_err("a conflict");
        let ErrorKind::Conflict { stream, .. } = *error.kind() else { panic!("{error}") };
        assert_eq!(stream, if names_first { first.id() } else { third.id() });
        assert_eq!((first.buffered(), third.buffered()), (1, 1), "kept");
    }
    assert_eq!(log.read_view().position(), position, "nothing was written");
    let all = [(&mut *first, Expect::Exists), (&mut *third, Expect::NoStream)];
    log.commit_all_expecting(all, plain).wait().expect("as expected");
    assert_eq!(payloads(&log, first).len(), 2);
    assert_eq!(payloads(&log, third).len(), 1);
}

/// P8: a stream with nothing to commit is checked, also where no stream has anything. `commit_all` leaves it out.
#[test]
fn p8_a_commit_may_depend_on_a_stream_that_it_leaves_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut rule = log.create_stream().expect("a stream");
    rule.append("rule").expect("room");
    rule.commit().wait().expect("committed");
    let mut decision = log.create_stream().expect("a stream");
    let mut seen = log.open_stream(rule.id()).expect("durable");
    let plain = CommitOptions::new();
    let mut decide = |seen: &mut Stream, expect| {
        let all = [(&mut decision, Expect::Seen), (seen, expect)];
        log.commit_all_expecting(all, plain).wait()
    };
    decide(&mut seen, Expect::Seen).expect("nothing moved, and nothing is committed");
    rule.append("another rule").expect("room");
    rule.commit().wait().expect("committed");
    is_conflict(decide(&mut seen, Expect::Seen), 1, 2);
    is_conflict(decide(&mut seen, Expect::At(Seq::from(1))), 1, 2);
    is_conflict(decide(&mut seen, Expect::NoStream), 0, 2);
    decide(&mut seen, Expect::At(Seq::from(2))).expect("as expected");
    decide(&mut seen, Expect::Any).expect("anything goes");
    is_conflict(decide(&mut seen, Expect::Seen), 1, 2);
    decision.append("decided").expect("room");
    let all = [(&mut decision, Expect::Seen), (&mut seen, Expect::Seen)];
    is_conflict(log.commit_all_expecting(all, plain).wait(), 1, 2);
    assert_eq!(decision.buffered(), 1);
    log.commit_all([&mut decision, &mut seen]).wait().expect("it takes no part");
    assert_eq!(payloads(&log, &decision), ["decided"]);
    assert_eq!(payloads(&log, &rule).len(), 2);
}

#[test]
fn a_retry_is_told_of_the_first_commit_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = CommitId::from(77_u128);
    let how = CommitOptions::new().id(id);
    stream.append("once").expect("room");
    let first = stream.commit_with(how).wait().expect("committed");
    let stream_id = stream.id();
    drop(stream);
    for round in 0..3 {
        let mut again = log.open_stream(stream_id).expect("known");
        again.append("once").expect("room");
        let error = again.commit_with(how).wait().expect_err("made before");
        let already = ErrorKind::AlreadyCommitted { position: first.position };
        assert_eq!(*error.kind(), already, "round {round}");
        assert_eq!(again.discard(), 1, "it is for the caller to say what becomes of it");
        let error = again.commit_with(how).wait().expect_err("made before");
        assert_eq!(*error.kind(), already, "also with nothing to commit");
        // A commit over several streams has one id.
        let mut other = log.create_stream().expect("a stream");
        other.append("both").expect("room");
        again.append("both").expect("room");
        let both = CommitOptions::new().id(CommitId::from(1_000 + round as u128));
        let done = log.commit_all_with([&mut again, &mut other], both).wait().expect("committed");
        other.append("both").expect("room");
        let error = other.commit_with(both).wait().expect_err("made before");
        assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position: done.position });
        // Enough for the first one to be in a sealed segment.
        for _ in 0..10 {
            again.append(vec![0; 4_000]).expect("room");
            again.commit().wait().expect("committed");
        }
        drop((again, other));
        log.close().expect("closes");
        log = options().open(dir.path()).expect("opens again");
    }
    let expected = 1 + 3 * 11;
    assert_eq!(log.read_view().info(stream_id).expect("known").head, Seq::from(expected));
}

/// The window of commit ids is as long as the option says: before and after a restart, in sealed segments, and when
/// streams were deleted and compacted meanwhile. One that came earlier is made again.
#[test]
fn a_retry_is_told_of_the_first_commit_as_long_as_the_option_says() {
    let id = |n: u64| CommitOptions::new().id(CommitId::from(u128::from(n)));
    let retry = |log: &Log, n: u64| {
        let mut stream = log.create_stream().expect("a stream");
        stream.append("again").expect("room");
        let outcome = stream.commit_with(id(n)).wait();
        outcome.err().map(|error| error.kind().clone())
    };
    for (max, made) in [(1, 5_u64), (40, 100), (100, 100)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || options().commit_ids_max(max).open(dir.path()).expect("opens");
        let log = open();
        let mut stream = log.create_stream().expect("a stream");
        for n in 1..=made {
            stream.append(vec![0; 1_000]).expect("room");
            stream.commit_with(id(n)).wait().expect("committed");
        }
        stream.delete().wait().expect("deleted");
        drop(stream);
        log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
        log.close().expect("closes");
        let log = open();
        let oldest = made - max as u64 + 1;
        for n in [oldest, made] {
            let already = ErrorKind::AlreadyCommitted { position: Position::from(n) };
            assert_eq!(retry(&log, n), Some(already), "{n} of {made}, {max} remembered");
        }
        if oldest > 1 {
            assert_eq!(retry(&log, oldest - 1), None, "{max} remembered");
            // Now it is the latest, and the oldest one gave way to it.
            assert!(retry(&log, oldest - 1).is_some());
            assert_eq!(retry(&log, oldest), None, "{max} remembered");
        }
    }
    let none = options().commit_ids_max(0).open("nowhere").map(drop);
    assert!(matches!(none.expect_err("refused").kind(), ErrorKind::InvalidOption(_)));
}

#[test]
fn commits_of_the_same_id_in_one_group_are_made_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut streams =
        [log.create_stream().expect("a stream"), log.create_stream().expect("a stream")];
    let how = CommitOptions::new().id(CommitId::new()).durability(Durability::Disk);
    let tickets = streams.each_mut().map(|stream| {
        stream.append("once").expect("room");
        stream.commit_with(how)
    });
    let [first, second] = tickets.map(amberlog::Ticket::wait);
    first.expect("committed");
    let error = second.expect_err("the other one is in flight");
    assert_eq!(*error.kind(), ErrorKind::CommitInFlight(streams[1].id()));
    let error = streams[1].commit_with(how).wait().expect_err("made before");
    let position = Position::from(1);
    assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position });
}

/// P8: an expectation holds or not whether or not there is anything to commit.
#[test]
fn p8_a_commit_of_nothing_has_to_meet_its_expectation() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let expect = |expect| CommitOptions::new().expect(expect);
    let mut stream = log.create_stream().expect("a stream");
    let error = stream.commit_with(expect(Expect::Exists)).wait().expect_err("volatile");
    assert!(error.is_conflict(), "{error}");
    for fine in [Expect::Seen, Expect::Any, Expect::NoStream, Expect::At(0.into())] {
        stream.commit_with(expect(fine)).wait().expect("as expected");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "P1: nothing was written");
    stream.append("one").expect("room");
    let position = stream.commit().wait().expect("committed").position;
    for wrong in [Expect::NoStream, Expect::At(7.into())] {
        let error = stream.commit_with(expect(wrong)).wait().expect_err("not as expected");
        assert!(error.is_conflict(), "{error}");
    }
    for fine in [Expect::Seen, Expect::Any, Expect::Exists, Expect::At(1.into())] {
        let commit = stream.commit_with(expect(fine)).wait().expect("as expected");
        assert_eq!(commit.position, position);
    }
}

/// P7: once a commit has settled, the next event is counted from where its leader put it.
#[test]
fn p7_an_event_after_a_commit_that_was_put_elsewhere_has_its_seq() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    first.append("0").expect("room");
    first.commit().wait().expect("committed");
    for together in [false, true] {
        let mut stale = log.open_stream(first.id()).expect("known");
        first.append("more").expect("room");
        first.append("more").expect("room");
        let head = first.commit().wait().expect("committed").seqs.end;
        stale.set_label("k", if together { "1" } else { "0" }).expect("room");
        let any = CommitOptions::new().expect(Expect::Any);
        let ticket = match together {
            true => log.commit_all_with([&mut stale], any),
            false => stale.commit_with(any),
        };
        ticket.wait().expect("committed");
        assert_eq!(stale.append("next").expect("room"), head);
        stale.commit().wait().expect("committed");
        first = stale;
    }
}

/// A commit behind one that was made before was not made itself, and says so: only what is old may be discarded.
#[test]
fn p3_a_commit_behind_one_that_was_made_before_is_not_taken_for_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let [old, new] = [CommitId::new(), CommitId::new()].map(|id| CommitOptions::new().id(id));
    stream.append("old").expect("room");
    stream.commit_with(old).wait().expect("committed");
    stream.append("old").expect("room");
    let again = stream.commit_with(old);
    stream.append("new").expect("room");
    let fresh = stream.commit_with(new);
    let error = again.wait().expect_err("made before");
    assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position: Position::from(1) });
    assert_eq!(error.to_string(), "commit: commit id already used at position 1");
    let error = fresh.wait().expect_err("not made");
    assert_eq!(*error.kind(), ErrorKind::Aborted);
    let text = "commit: an earlier commit was refused: commit id already used at position 1; open the stream again, and append the events of this commit again";
    assert_eq!(error.to_string(), text);
    assert_eq!(stream.buffered(), 2);
    stream.discard();
    stream.append("new").expect("room");
    stream.commit_with(new).wait().expect("its id was never used");
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_a_commit_that_inherits_the_outcome_before_it_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::InheritOutcome);
    std::panic::catch_unwind(p3_a_commit_behind_one_that_was_made_before_is_not_taken_for_made)
        .expect_err("a commit that was not made is said to be made, unnoticed");
}

/// Between savepoints only what is buffered is forgotten.
#[test]
fn discarding_goes_back_to_a_savepoint_and_no_further_than_the_last_commit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let start = stream.savepoint();
    stream.append("a").expect("room");
    let after = stream.savepoint();
    stream.append("b").expect("room");
    stream.append("c").expect("room");
    assert_eq!(stream.discard_to(after).expect("buffered"), 2);
    assert_eq!(stream.append("d").expect("room"), Seq::from(1));
    stream.commit().wait().expect("committed");
    let error = stream.discard_to(start).expect_err("committed since");
    assert!(matches!(error.kind(), ErrorKind::SeqOutOfRange { .. }));
    assert_eq!(payloads(&log, &stream), ["a", "d"]);
    let mut other = log.create_stream().expect("a stream");
    let mut again = log.open_stream(stream.id()).expect("durable");
    for handle in [&mut other, &mut again] {
        let error = handle.discard_to(after).expect_err("of another stream, of another handle");
        assert!(matches!(error.kind(), ErrorKind::InvalidOption(_)));
    }
    log.close().expect("closes");
    assert!(matches!(stream.discard_to(after).expect_err("closed").kind(), ErrorKind::Closed));
    assert!(matches!(stream.commit().wait().expect_err("closed").kind(), ErrorKind::Closed));
}

/// P2, P8: a savepoint names what was buffered when it was taken, wherever a leader puts the commits before it, and
/// whether they succeed. (It was a seq: what was appended before it was discarded, or it was refused.)
#[test]
fn p8_a_savepoint_stays_where_it_is_when_a_leader_moves_the_events_before_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    for (buffered, theirs, how) in
        [(2, 1, Expect::Any), (0, 5, Expect::Any), (2, 5, Expect::Exists), (2, 3, Expect::Seen)]
    {
        let mut stream = log.create_stream().expect("a stream");
        stream.append("a").expect("room");
        stream.commit().wait().expect("committed");
        let mut other = log.open_stream(stream.id()).expect("durable");
        let append = |stream: &mut Stream, events: u64, payload: &str| {
            for _ in 0..events {
                stream.append(payload).expect("room");
            }
        };
        append(&mut other, theirs, "other");
        let moves_it = other.commit();
        stream.append("b").expect("room");
        let moved = stream.commit_with(CommitOptions::new().expect(how));
        append(&mut stream, buffered, "before");
        let savepoint = stream.savepoint();
        stream.append("after").expect("room");
        moves_it.wait().expect("committed");
        assert_eq!(moved.wait().is_ok(), how != Expect::Seen);
        assert_eq!(stream.discard_to(savepoint).expect("buffered"), 1);
        append(&mut stream, 3, "after");
        assert_eq!(stream.discard_to(savepoint).expect("buffered"), 3);
        assert_eq!(stream.discard_to(savepoint).expect("buffered"), 0);
        let failed = u64::from(how == Expect::Seen);
        assert_eq!(stream.buffered(), buffered + failed, "{how:?}");
    }
}

/// The message of a conflict says what was expected, and why equal heads are none.
fn conflicts_say_what_was_expected() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("a").expect("room");
    let mut told = |expect| commit(&mut stream, expect).expect_err("a conflict").to_string();
    let never = told(Expect::Exists);
    assert!(never.contains(": the stream was never committed; "), "{never}");
    let at = told(Expect::At(Seq::from(7)));
    assert!(at.contains("is 0, but the commit expects 7"), "{at}");
    commit(&mut stream, Expect::NoStream).expect("as expected");
    stream.append("b").expect("room");
    let exists = commit(&mut stream, Expect::NoStream).expect_err("a conflict").to_string();
    let end = ": the stream exists already; open the stream again, look at it, and decide";
    assert!(exists.ends_with(end), "{exists}");
}

/// Operations that need the disk say so for a stream that was never committed.
fn a_volatile_stream_is_not_materialized() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    let error = log.write_archive(id).expect_err("nothing is on disk");
    assert_eq!(*error.kind(), ErrorKind::NotMaterialized { stream: id, buffered: None });
    stream.append("a").expect("room");
    stream.commit().wait().expect("committed");
    log.write_archive(id).expect("it is there");
    let gone = log.create_stream().expect("a stream").id();
    let error = log.write_archive(gone).expect_err("its handle is gone");
    assert_eq!(*error.kind(), ErrorKind::UnknownStream(gone));
}

/// Ids have milliseconds, and a time to ask for has more.
fn times_of_ids_are_compared_by_the_millisecond() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("a").expect("room");
    stream.commit().wait().expect("committed");
    let created = stream.id().created().expect("of version 7").as_micros();
    let later = |micros| amberlog::Timestamp::from_micros(created + micros);
    let found = |query: amberlog::Query| log.list(&query).expect("listed").streams.len();
    assert_eq!(found(amberlog::Query::new().created_from(later(999))), 1);
    assert_eq!(found(amberlog::Query::new().created_from(later(1_000))), 0);
    assert_eq!(found(amberlog::Query::new().created_until(later(999))), 0);
    assert_eq!(found(amberlog::Query::new().created_until(later(1_000))), 1);
}

#[test]
fn p8_p9_refusals_say_what_was_asked() {
    conflicts_say_what_was_expected();
    a_volatile_stream_is_not_materialized();
    times_of_ids_are_compared_by_the_millisecond();
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_refusals_that_say_something_else_are_noticed() {
    use amberlog::Sabotage::{CompareMicros, ForgetVolatile, SayNoReason};
    let tests: [(_, fn()); 3] = [
        (SayNoReason, conflicts_say_what_was_expected),
        (ForgetVolatile, a_volatile_stream_is_not_materialized),
        (CompareMicros, times_of_ids_are_compared_by_the_millisecond),
    ];
    for (what, test) in tests {
        let _broken = amberlog::sabotage(what);
        assert!(std::panic::catch_unwind(test).is_err(), "{what:?} was not noticed");
    }
}

#[test]
fn p14_a_bound_of_rings_that_cannot_work_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = options().ring_bytes_max(63).open(dir.path()).expect_err("too small");
    assert_eq!(*error.kind(), ErrorKind::InvalidOption("ring_bytes_max must be at least 64 bytes"));
    let log = options().ring_bytes_max(64).open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("the least that works");
    stream.append("a").expect("room");
    stream.commit().wait().expect("committed");
    let error = options().open(dir.path()).expect_err("open in this process").to_string();
    assert!(error.contains("this process has it open already"), "{error}");
}
