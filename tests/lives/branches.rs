//! Do forks and rewinds share what they should and nothing else?
//!
//! A read view keeps showing what it showed when it was taken, and (generation, seq) never means
//! two things. `copies.rs` does all of this in any order.

use crate::support::verified::checked;
use amberlog::{
    ErrorKind, Event, Events, Log, Options, Overflow, ReadView, Seq, Stream, StreamOptions,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn read(events: Events) -> Vec<String> {
    let text = |event: amberlog::Result<Event>| {
        let event = event.expect("readable");
        String::from_utf8_lossy(event.payload()).into_owned()
    };
    events.map(text).collect()
}

fn backwards(events: Events) -> Vec<String> {
    let mut all: Vec<_> = events
        .rev()
        .map(|event| String::from_utf8_lossy(event.expect("readable").payload()).into_owned())
        .collect();
    all.reverse();
    all
}

fn fill(stream: &mut Stream, what: &str, count: usize) {
    for _ in 0..count {
        let text = format!("{what}{}", stream.head());
        stream.append(text).expect("room");
    }
}

fn names(what: &str, seqs: std::ops::Range<u64>) -> Vec<String> {
    seqs.map(|seq| format!("{what}{seq}")).collect()
}

#[test]
fn a_fork_shares_what_is_committed_and_copies_what_is_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, "p", 10);
    parent.commit().wait().expect("committed");
    fill(&mut parent, "p", 5);
    let mut inside = parent.fork_at(6).expect("forked");
    let mut behind = parent.fork_at(12).expect("forked");
    assert_eq!((inside.head(), behind.head()), (Seq::from(6), Seq::from(12)));
    assert_eq!((inside.buffered(), behind.buffered()), (0, 2), "only what is volatile is copied");
    assert!(!behind.is_durable());
    fill(&mut inside, "i", 3);
    fill(&mut behind, "b", 3);
    let expected_inside = [names("p", 0..6), names("i", 6..9)].concat();
    let expected_behind = [names("p", 0..12), names("b", 12..15)].concat();
    for (stream, expected) in [(&inside, &expected_inside), (&behind, &expected_behind)] {
        assert_eq!(&read(stream.events().expect("readable")), expected, "P9: before the commit");
        assert_eq!(&backwards(stream.events().expect("readable")), expected);
    }
    log.commit_all([&mut inside, &mut behind]).wait().expect("committed");
    fill(&mut parent, "p", 1);
    parent.commit().wait().expect("committed");
    let ids = [parent.id(), inside.id(), behind.id()];
    drop((parent, inside, behind));
    log.close().expect("closes");
    let log = options().open(dir.path()).expect("opens again");
    let view = log.read_view();
    for (id, expected) in ids.iter().zip([names("p", 0..16), expected_inside, expected_behind]) {
        assert_eq!(read(view.events(*id).expect("known")), expected);
        assert_eq!(backwards(view.events(*id).expect("known")), expected);
        for seq in 0..expected.len() {
            let one = view.events(*id).expect("known").range(seq as u64..=seq as u64);
            assert_eq!(read(one), expected[seq..=seq]);
        }
    }
    let info = view.info(ids[1]).expect("known");
    assert_eq!(info.parent, Some((ids[0], Seq::from(6))));
    assert!(checked(dir.path()).expect("readable").is_sound());
}

#[test]
fn p2_a_fork_of_a_volatile_stream_costs_no_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = Log::open(&path).expect("opens");
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, "p", 4);
    let child = parent.fork_at(3).expect("forked");
    let mut grandchild = child.fork_at(2).expect("forked");
    drop(child);
    fill(&mut grandchild, "g", 1);
    assert!(!path.exists(), "P1");
    grandchild.commit().wait().expect("committed");
    let id = grandchild.id();
    let view = log.read_view();
    assert_eq!(view.streams().len(), 1);
    assert_eq!(read(view.events(id).expect("known")), ["p0", "p1", "g2"]);
}

#[test]
fn a_rewind_drops_a_suffix_and_old_view_keep_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream, "a", 10);
    stream.commit().wait().expect("committed");
    let child = stream.fork_at(8).expect("forked");
    let pinned = log.read_view();
    fill(&mut stream, "x", 5);
    stream.rewind(12).expect("within what is buffered");
    assert_eq!(stream.buffered(), 2);
    stream.rewind(4).expect("behind the commit");
    assert_eq!((stream.head(), stream.buffered()), (Seq::from(4), 0));
    assert_eq!(read(stream.events().expect("readable")), names("a", 0..4), "P9");
    assert_eq!(read(log.read_view().events(stream.id()).expect("known")).len(), 10, "P2");
    fill(&mut stream, "b", 3);
    stream.commit().wait().expect("committed");
    let expected = [names("a", 0..4), names("b", 4..7)].concat();
    let id = stream.id();
    let check = |view: &ReadView| {
        assert_eq!(read(view.events(id).expect("known")), expected);
        assert_eq!(backwards(view.events(id).expect("known")), expected);
        let generations = view.events(id).expect("known");
        let generations: Vec<_> =
            generations.map(|event| event.expect("readable").generation()).collect();
        assert_eq!(generations, [0, 0, 0, 0, 1, 1, 1]);
        let info = view.info(id).expect("known");
        assert_eq!((info.head, info.generation), (Seq::from(7), 1));
    };
    check(&log.read_view());
    assert_eq!(read(pinned.events(id).expect("known")), names("a", 0..10), "as it was");
    assert_eq!(pinned.info(id).expect("known").head, Seq::from(10));
    assert_eq!(read(child.events().expect("readable")), names("a", 0..8));
    drop((stream, child, pinned));
    log.close().expect("closes");
    check(&ReadView::open(dir.path()).expect("readable").0);
    let log = options().open(dir.path()).expect("opens again");
    check(&log.read_view());
    let mut stream = log.open_stream(id).expect("known");
    stream.rewind(0).expect("all of it");
    let commit = stream.commit().wait().expect("a rewind alone is something to commit");
    assert_eq!(commit.position, log.read_view().position());
    assert_eq!(log.read_view().info(id).expect("known").head, Seq::from(0));
}

#[test]
fn p8_a_handle_that_missed_a_rewind_gets_a_conflict() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    fill(&mut first, "a", 5);
    first.commit().wait().expect("committed");
    let mut second = log.open_stream(first.id()).expect("known");
    first.rewind(3).expect("rewound");
    fill(&mut first, "b", 2);
    first.commit().wait().expect("committed");
    // The head is where it was, but what is before it is not.
    fill(&mut second, "c", 1);
    let error = second.commit().wait().expect_err("it saw something else");
    assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}");
    assert_eq!(read(second.events().expect("readable")).last().expect("kept"), "c5");
}

#[test]
fn a_rewind_of_a_flight_recorder_may_end_in_its_gap() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let ring = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(200);
    let mut stream = log.create_stream_with(&ring).expect("a stream");
    fill(&mut stream, "a", 3);
    stream.commit().wait().expect("committed");
    fill(&mut stream, "a", 50);
    let dropped = 50 - stream.buffered();
    assert!(dropped > 10);
    let mut child = stream.fork_at(3 + 5).expect("within the gap");
    let twin = stream.fork_at(stream.head()).expect("at the end");
    assert_eq!(twin.buffered(), stream.buffered());
    assert_eq!(read(child.events().expect("readable")), names("a", 0..3));
    fill(&mut child, "c", 1);
    child.commit().wait().expect("committed");
    assert_eq!(read(child.events().expect("readable")), ["a0", "a1", "a2", "c8"]);
    stream.commit().wait().expect("committed");
    // A fork of what is now committed, within the gap as well.
    let late = stream.fork_at(3 + 5).expect("forked");
    assert_eq!(read(late.events().expect("readable")), names("a", 0..3));
    assert_eq!(backwards(late.events().expect("readable")), names("a", 0..3));
    stream.rewind(3 + 7).expect("within the gap");
    assert_eq!(read(stream.events().expect("readable")), names("a", 0..3));
    fill(&mut stream, "b", 1);
    stream.commit().wait().expect("committed");
    let view = log.read_view();
    assert_eq!(read(view.events(stream.id()).expect("known")), ["a0", "a1", "a2", "b10"]);
    assert_eq!(backwards(view.events(stream.id()).expect("known")), ["a0", "a1", "a2", "b10"]);
}

/// A chain of forks, each of the one before.
#[test]
fn forks_of_forks_stay_usable() {
    const DEPTH: u64 = 1_500;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::options().durability(amberlog::Durability::Os).open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream, "e", 1);
    stream.commit().wait().expect("committed");
    for _ in 1..DEPTH {
        stream = stream.fork_at(stream.head()).expect("forked");
        fill(&mut stream, "e", 1);
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    let log = Log::open(dir.path()).expect("opens again");
    let view = log.read_view();
    assert_eq!(read(view.events(id).expect("known")), names("e", 0..DEPTH));
    assert_eq!(backwards(view.events(id).expect("known")), names("e", 0..DEPTH));
    for seq in (0..DEPTH).step_by(100) {
        let one = view.events(id).expect("known").range(seq..=seq);
        assert_eq!(read(one), names("e", seq..seq + 1));
    }
}
