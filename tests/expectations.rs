//! What may a commit expect, and what becomes of one that is made twice?
//!
//! P8: `Conflict` and nothing written, the events kept. Requirement 26: a retry with the same id is told of the first.

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
    let events = log.snapshot().events(stream.id()).expect("known");
    events
        .map(|one| String::from_utf8_lossy(one.expect("readable").payload()).into_owned())
        .collect()
}

fn is_conflict(outcome: amberlog::Result<Commit>, expected: u64, actual: u64) {
    let kind = outcome.expect_err("not as expected").kind().clone();
    let conflict = ErrorKind::Conflict { expected: expected.into(), actual: actual.into() };
    assert_eq!(kind, conflict);
}

#[test]
fn p8_expectations_of_a_new_stream() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
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
    let mut first = log.stream().expect("a stream");
    first.append("a0").expect("room");
    first.commit().wait().expect("committed");
    let mut second = log.resume(first.id()).expect("known");
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
    let mut third = log.resume(first.id()).expect("known");
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

/// Who asks for more than a commit says what it saw by its handle: only if nothing was added since.
#[test]
fn p8_a_stream_that_moved_is_neither_trimmed_nor_archived_nor_deleted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut writer = log.stream().expect("a stream");
    for n in 0..3 {
        writer.append([n]).expect("room");
    }
    writer.commit().wait().expect("committed");
    type Ask = fn(&mut Stream) -> amberlog::Ticket;
    let asks: [Ask; 3] = [|stream| stream.trim(2), Stream::archive, Stream::delete];
    for (nth, ask) in asks.iter().enumerate() {
        let seen = 3 + nth as u64;
        let mut late = log.resume(writer.id()).expect("there");
        assert_eq!(late.head().get(), seen);
        writer.append("more").expect("room");
        writer.commit().wait().expect("committed");
        is_conflict(ask(&mut late).wait(), seen, seen + 1);
        let info = log.snapshot().stream(writer.id()).expect("there");
        assert_eq!((info.state, info.start.get()), (amberlog::StreamState::Active, 0));
    }
    for ask in asks {
        ask(&mut log.resume(writer.id()).expect("there")).wait().expect("nobody was quicker");
    }
    assert_eq!(log.status(writer.id()), amberlog::Status::Deleted);
}

#[test]
fn a_retry_is_told_of_the_first_commit_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut log = options().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    let id = CommitId::from(77_u128);
    let how = CommitOptions::new().id(id);
    stream.append("once").expect("room");
    let first = stream.commit_with(how).wait().expect("committed");
    let stream_id = stream.id();
    drop(stream);
    for round in 0..3 {
        let mut again = log.resume(stream_id).expect("known");
        again.append("once").expect("room");
        let error = again.commit_with(how).wait().expect_err("made before");
        let already = ErrorKind::AlreadyCommitted { position: first.position };
        assert_eq!(*error.kind(), already, "round {round}");
        assert_eq!(again.discard(), 1, "it is for the caller to say what becomes of it");
        let error = again.commit_with(how).wait().expect_err("made before");
        assert_eq!(*error.kind(), already, "also with nothing to commit");
        // A commit over several streams has one id.
        let mut other = log.stream().expect("a stream");
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
    assert_eq!(log.snapshot().stream(stream_id).expect("known").head, Seq::from(expected));
}

#[test]
fn commits_of_the_same_id_in_one_group_are_made_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut streams = [log.stream().expect("a stream"), log.stream().expect("a stream")];
    let how = CommitOptions::new().id(CommitId::new()).durability(Durability::Disk);
    let tickets = streams.each_mut().map(|stream| {
        stream.append("once").expect("room");
        stream.commit_with(how)
    });
    let [first, second] = tickets.map(amberlog::Ticket::wait);
    first.expect("committed");
    let error = second.expect_err("the other one is under way");
    assert_eq!(*error.kind(), ErrorKind::CommitInFlight(streams[1].id()));
    let error = streams[1].commit_with(how).wait().expect_err("made before");
    let position = Position::from(1);
    assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position });
}

/// Between savepoints only what is buffered is forgotten.
#[test]
fn discarding_goes_back_to_a_savepoint_and_no_further_than_the_last_commit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
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
    let mut other = log.stream().expect("a stream");
    let error = other.discard_to(after).expect_err("of another stream");
    assert!(matches!(error.kind(), ErrorKind::InvalidOption(_)));
    log.close().expect("closes");
    assert!(matches!(stream.discard_to(after).expect_err("closed").kind(), ErrorKind::Closed));
    assert!(matches!(stream.commit().wait().expect_err("closed").kind(), ErrorKind::Closed));
}
