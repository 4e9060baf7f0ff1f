//! Is a gap the same gap to every reader, wherever in it a stream is forked, rewound or trimmed?
//!
//! P7, P9: seq by seq a stream shows either an event or that it was dropped, forwards and
//! backwards, through its handle and in a read view, before and after its commit, after a
//! reopening, and after a compaction of all that no stream shows.
#![cfg(feature = "sim")]

use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{
    ErrorKind, Event, Events, Log, Options, Overflow, ReadView, Seq, Stream, StreamOptions,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// Events that a stream shows from its start on; `None` was dropped.
type Slots = Vec<Option<Vec<u8>>>;

fn slots(events: impl Fn() -> Events, start: u64) -> Slots {
    let one = |event: amberlog::Result<Event>| {
        let event = event.expect("whole");
        (event.seq().get(), event.dropped_before(), event.payload().to_vec())
    };
    let there: Vec<_> = events().map(one).collect();
    let mut back: Vec<_> = events().rev().map(one).collect();
    back.reverse();
    assert_eq!(there, back, "backwards");
    let mut slots = Slots::new();
    for (seq, dropped, payload) in there {
        let alone = events().range(seq..=seq).map(one).collect::<Vec<_>>();
        assert_eq!(alone, [(seq, dropped, payload.clone())], "alone");
        slots.extend((0..dropped).map(|_| None));
        assert_eq!(start + slots.len() as u64, seq, "{dropped} dropped in front (P7)");
        slots.push(Some(payload));
    }
    slots
}

fn of_handle(stream: &Stream) -> Slots {
    slots(|| stream.events().expect("readable"), stream.info().start.get())
}

fn of_view(view: &ReadView, stream: &Stream) -> Slots {
    let start = view.info(stream.id()).expect("known").start.get();
    slots(|| view.events(stream.id()).expect("known"), start)
}

fn recorder(log: &Log) -> Stream {
    let how = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(400);
    log.create_stream_with(&how).expect("a stream")
}

/// Some events, a gap, and some more; half of it committed if so asked.
fn with_gap(log: &Log, commits: bool) -> Stream {
    let mut stream = recorder(log);
    for n in 0..3_u8 {
        stream.append([n; 90]).expect("room");
    }
    if commits {
        stream.commit().wait().expect("committed");
    }
    for n in 3..12_u8 {
        stream.append([n; 90]).expect("drops the oldest");
    }
    if commits {
        stream.commit().wait().expect("committed");
    }
    stream
}

/// Shows the same in every way there is; `others` are deleted, and what only they show is compacted.
fn is_everywhere(
    disk: &SimDisk,
    log: &Log,
    mut stream: Stream,
    expected: &Slots,
    others: Vec<Stream>,
) {
    assert_eq!(of_handle(&stream), *expected, "volatile");
    stream.commit().wait().expect("committed");
    assert_eq!(of_handle(&stream), *expected, "committed");
    for mut other in others {
        other.delete().wait().expect("deleted");
    }
    for (n, filler) in (0..20_u8).map(|n| (n, log.create_stream().expect("a stream"))) {
        let mut filler = filler;
        filler.append([n; 2_000]).expect("room");
        filler.commit().wait().expect("committed");
        filler.delete().wait().expect("deleted");
    }
    let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
    assert!(report.refused.is_empty() && !report.runs.is_empty());
    assert_eq!(of_view(&log.read_view(), &stream), *expected, "compacted");
    let (view, recovery) = ReadView::open_on(disk).expect("opens");
    assert!(recovery.is_sound());
    assert_eq!(of_view(&view, &stream), *expected, "opened again");
}

#[test]
fn p7_p9_a_fork_anywhere_in_a_gap_shows_what_is_left_of_it() {
    for commits in [true, false] {
        for at in 0..=12_u64 {
            for again in [None, Some(at), Some(at.saturating_sub(2)), Some(at + 2)] {
                let disk = SimDisk::new(1);
                let log = options().open_on(&disk).expect("opens");
                let parent = with_gap(&log, commits);
                let whole = of_handle(&parent);
                assert!(whole.contains(&None) && whole.len() == 12);
                let mut child = parent.fork_at(at).expect("forked");
                assert_eq!(child.head(), Seq::from(at));
                let mut expected = whole[..at as usize].to_vec();
                let mut others = vec![parent];
                if let Some(again) = again {
                    // A fork of the fork, in the same gap perhaps, behind events of its own or before them.
                    child.append("middle").expect("room");
                    expected.push(Some(b"middle".to_vec()));
                    child.append("end").expect("room");
                    expected.push(Some(b"end".to_vec()));
                    if commits {
                        child.commit().wait().expect("committed");
                    }
                    let grandchild = child.fork_at(again).expect("forked");
                    expected.truncate(again as usize);
                    others.push(std::mem::replace(&mut child, grandchild));
                }
                child.append("own").expect("room");
                expected.push(Some(b"own".to_vec()));
                is_everywhere(&disk, &log, child, &expected, others);
            }
        }
    }
}

#[test]
fn p7_p9_a_rewind_anywhere_in_a_gap_leaves_what_is_left_of_it() {
    for commits in [true, false] {
        for to in 0..=12_u64 {
            let disk = SimDisk::new(1);
            let log = options().open_on(&disk).expect("opens");
            let mut stream = with_gap(&log, commits);
            let mut expected = of_handle(&stream)[..to as usize].to_vec();
            stream.rewind(to).expect("rewound");
            stream.append("own").expect("room");
            expected.push(Some(b"own".to_vec()));
            is_everywhere(&disk, &log, stream, &expected, Vec::new());
        }
    }
}

/// Also as JSON Lines, when what stood behind the gap is not on the disk any more.
#[cfg(feature = "json")]
#[test]
fn p7_a_gap_that_was_rewound_into_is_exported_as_it_is() {
    for to in 0..=12_u64 {
        let disk = SimDisk::new(1);
        let log = options().open_on(&disk).expect("opens");
        let mut stream = with_gap(&log, true);
        let mut expected = of_handle(&stream)[..to as usize].to_vec();
        stream.rewind(to).expect("rewound");
        stream.append("own").expect("room");
        expected.push(Some(b"own".to_vec()));
        stream.commit().wait().expect("committed");
        let mut filler = log.create_stream().expect("a stream");
        for n in 0..20_u8 {
            filler.append([n; 2_000]).expect("room");
            filler.commit().wait().expect("committed");
        }
        filler.delete().wait().expect("deleted");
        let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
        assert!(!report.runs.is_empty());
        let mut lines = Vec::new();
        log.read_view().export_jsonl(&mut lines).expect("exported");
        let other = options().open_on(&SimDisk::new(2)).expect("opens");
        other.import_jsonl(std::io::Cursor::new(&lines)).expect("imported");
        assert_eq!(of_view(&other.read_view(), &stream), expected, "rewound to {to}");
    }
}

#[test]
fn p7_p9_a_trim_anywhere_in_a_gap_leaves_what_is_left_of_it() {
    for commits in [true, false] {
        for to in 0..=12_u64 {
            let disk = SimDisk::new(1);
            let log = options().open_on(&disk).expect("opens");
            let mut stream = with_gap(&log, commits);
            let whole = of_handle(&stream);
            stream.trim(to).expect("staged");
            stream.append("own").expect("room");
            // A volatile ring may have dropped more for that.
            let mut expected = whole[to as usize..].to_vec();
            expected.push(Some(b"own".to_vec()));
            let now = of_handle(&stream);
            for (slot, now) in expected.iter_mut().zip(&now).filter(|(_, now)| now.is_none()) {
                slot.clone_from(now);
            }
            is_everywhere(&disk, &log, stream, &expected, Vec::new());
        }
    }
}

/// A gap that nothing stands behind yet is not committed, whatever is said of the stream meanwhile: on the disk the stream
/// never starts behind where it ends.
#[test]
fn p5_p7_what_is_said_of_a_stream_that_ends_in_a_gap() {
    for (fork, trim) in [(true, 0), (true, 4), (true, 5), (false, 0), (false, 4), (false, 5)] {
        let disk = SimDisk::new(1);
        let log = options().open_on(&disk).expect("opens");
        let mut stream = with_gap(&log, false);
        let gone = of_handle(&stream).iter().filter(|slot| slot.is_none()).count() as u64;
        assert!(gone > 5);
        let mut stream = if fork {
            stream.fork_at(5).expect("forked")
        } else {
            stream.rewind(5).expect("rewound");
            stream
        };
        stream.trim(trim).expect("staged");
        stream.set_label("is", "said").expect("set");
        stream.commit().wait().expect("committed");
        let durable = log.read_view().info(stream.id()).expect("known");
        assert_eq!((durable.start, durable.head), (Seq::from(0), Seq::from(0)));
        assert_eq!((stream.info().start, stream.head()), (Seq::from(trim), Seq::from(5)));
        assert!(stream.commit().wait().expect("nothing to say").seqs.is_empty());
        let position = log.read_view().position();
        assert_eq!(stream.append("own").expect("room"), Seq::from(5));
        stream.commit().wait().expect("committed");
        assert_eq!(log.read_view().position().get(), position.get() + 1);
        let durable = log.read_view().info(stream.id()).expect("known");
        assert_eq!((durable.start, durable.head), (Seq::from(trim), Seq::from(6)));
        stream.trim(6).expect("staged");
        stream.commit().wait().expect("trimmed");
        let (opened, _) = ReadView::open_on(&disk).expect("opens");
        let opened = opened.info(stream.id()).expect("known");
        assert_eq!((opened.start, opened.head), (Seq::from(6), Seq::from(6)));
    }
}

/// Of a trim into a gap that nothing follows yet, what is committed is trimmed at once, and the rest with the next event.
#[test]
fn p4_p9_a_trim_into_a_gap_at_the_end_of_a_ring_goes_on_waiting() {
    for trim in 2..=5_u64 {
        let disk = SimDisk::new(1);
        let log = options().open_on(&disk).expect("opens");
        let mut stream = recorder(&log);
        (0..3).for_each(|_| assert!(stream.append([1; 90]).is_ok()));
        stream.commit().wait().expect("committed");
        (0..9).for_each(|_| assert!(stream.append([2; 90]).is_ok(), "drops the oldest"));
        stream.rewind(5).expect("in the gap");
        stream.trim(trim).expect("staged");
        stream.commit().wait().expect("committed");
        let durable = log.read_view().info(stream.id()).expect("known");
        assert_eq!((durable.start, durable.head), (Seq::from(trim.min(3)), Seq::from(3)));
        let position = log.read_view().position();
        stream.commit().wait().expect("nothing to say");
        assert_eq!(log.read_view().position(), position);
        assert_eq!(stream.info().start, Seq::from(trim));
        assert_eq!(stream.append("own").expect("room"), Seq::from(5));
        stream.commit().wait().expect("committed");
        let opened = options().open_on(&disk.after_power_cut(3)).expect("opens");
        let opened = opened.read_view().info(stream.id()).expect("known");
        assert_eq!((opened.start, opened.head), (Seq::from(trim), Seq::from(6)));
    }
}

/// Events that were to be trimmed and are discarded instead leave nothing to trim.
#[test]
fn p9_who_discards_what_was_trimmed_begins_anew() {
    let disk = SimDisk::new(1);
    let log = options().open_on(&disk).expect("opens");
    for way in 0..2 {
        let mut stream = log.create_stream().expect("a stream");
        let savepoint = stream.savepoint();
        for n in 0..6_u8 {
            stream.append([n; 9]).expect("room");
        }
        stream.trim(4).expect("staged");
        match way {
            0 => assert_eq!(stream.discard(), 6),
            _ => assert_eq!(stream.discard_to(savepoint).expect("discarded"), 6),
        }
        assert_eq!((stream.info().start, stream.head()), (Seq::from(0), Seq::from(0)));
        stream.append("own").expect("room");
        assert_eq!(of_handle(&stream), [Some(b"own".to_vec())]);
        stream.commit().wait().expect("committed");
        assert_eq!(of_view(&log.read_view(), &stream), [Some(b"own".to_vec())]);
    }
}

/// A rewind that failed, because another handle was quicker, shows nothing of what that handle has begun.
#[test]
fn p5_p9_who_rewinds_too_late_goes_on_seeing_what_it_saw() {
    let disk = SimDisk::new(1);
    let log = options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..4_u8 {
        stream.append([n; 9]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let mut late = log.open_stream(stream.id()).expect("opened");
    late.rewind(2).expect("rewound");
    late.append("late").expect("room");
    let expected = of_handle(&late);
    stream.rewind(0).expect("rewound");
    stream.append("other").expect("room");
    stream.commit().wait().expect("committed");
    let ticket = late.commit();
    assert_eq!(of_handle(&late), expected, "in flight");
    ticket.wait().expect_err("a conflict");
    assert_eq!(of_handle(&late), expected, "failed");
    let forked = late.fork_at(1).map_err(|error| error.kind().clone());
    assert!(matches!(forked, Err(ErrorKind::Conflict { .. })), "what it saw may be compacted");
    assert_eq!(late.discard(), 1);
    assert_eq!(of_handle(&late), expected[..2], "and taken back");
}

/// A handle that does not know that another handle has rewound its stream forks what is still there, and is told when it
/// is not.
#[test]
fn p8_a_fork_of_what_somebody_else_has_rewound() {
    let disk = SimDisk::new(1);
    let log = options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..6_u8 {
        stream.append([n; 9]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let stale = log.open_stream(stream.id()).expect("opened");
    stream.rewind(4).expect("rewound");
    stream.append("other").expect("room");
    stream.commit().wait().expect("committed");
    for at in 0..=6 {
        match stale.fork_at(at) {
            Ok(child) => {
                assert!(at <= 4, "{at}");
                assert_eq!(of_handle(&child), of_handle(&stale)[..at as usize]);
            }
            Err(error) => {
                assert!(at > 4, "{at}: {error}");
                assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}");
            }
        }
    }
}
