//! Bugs in what a whole stream goes through: states, ids, forks, lists, compacting.

use amberlog::maintenance::CompactOptions;
use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    CommitId, CommitOptions, ErrorKind, Expect, Log, Order, Query, ReadView, Seq, Stream,
    StreamState,
};

use super::small;

/// Fills segments with streams that are deleted at once, so that there is something to compact.
fn churn(log: &Log, streams: usize) {
    for _ in 0..streams {
        let mut stream = log.create_stream().expect("a stream");
        stream.append([1; 2_000]).expect("room");
        stream.commit().wait().expect("committed");
        stream.delete().wait().expect("deleted");
    }
}

fn compact(log: &Log) {
    let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("open");
    assert!(!report.runs.is_empty() && report.refused.is_empty(), "{report:?}");
}

/// Seqs that a handle reads, or the error.
fn read(stream: &Stream) -> Vec<Result<u64, ErrorKind>> {
    let events = stream.events().expect("readable");
    events.map(|one| one.map(|event| event.seq().get()).map_err(|e| e.kind().clone())).collect()
}

/// A stream's first commit was in flight when it was deleted (archived), and failed. The ticket of the deletion failed
/// with it, but the handle took it for a volatile stream that is deleted: it refused everything from then on, and
/// the events could never be committed. Now only what was true before the first commit is taken back with it. P5.
#[test]
fn p5_a_deletion_that_failed_behind_the_first_commit_is_forgotten() {
    for verb in [Stream::delete, Stream::archive] {
        let disk = SimDisk::new(1);
        let log = small().open_on(&disk).expect("opens");
        churn(&log, 1);
        let mut stream = log.create_stream().expect("a stream");
        stream.append("precious").expect("room");
        disk.fail_at(disk.calls(), Fault::Io);
        let first = stream.commit();
        let second = verb(&mut stream);
        assert!(first.wait().is_err() && second.wait().is_err());
        assert_eq!((stream.is_durable(), stream.buffered()), (false, 1));
        stream.append("more").expect("it is not archived");
        stream.commit().wait().expect("committed");
        assert!(log.read_view().info(stream.id()).is_some());
        assert_eq!(read(&stream), [Ok(0), Ok(1)]);
    }
}

/// The id of a commit stood with the first of its streams. When that one was deleted and compacted, the id went with
/// it; after a restart a retry of the commit was made a second time, in the streams that were left. Now the ids that
/// are remembered outlive their streams. P6.
#[test]
fn p6_the_id_of_a_commit_outlives_its_streams() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let id = |n: u128| CommitOptions::new().id(CommitId::from(n));
    let (mut gone, mut kept) =
        (log.create_stream().expect("a stream"), log.create_stream().expect("a stream"));
    for (n, stream) in [&mut gone, &mut kept].into_iter().enumerate() {
        stream.append("first").expect("room");
        stream.commit_with(id(n as u128)).wait().expect("committed");
    }
    gone.append("both").expect("room");
    gone.rewind(0).expect("in range");
    gone.append("again").expect("room");
    kept.append("both").expect("room");
    log.commit_all_with([&mut gone, &mut kept], id(2)).wait().expect("committed");
    gone.delete().wait().expect("deleted");
    churn(&log, 30);
    compact(&log);
    let (deleted, kept_id) = (gone.id(), kept.id());
    drop((gone, kept));
    log.close().expect("closes");
    let log = small().open_on(&disk).expect("opens");
    assert!(log.recovery_report().is_sound());
    assert_eq!(log.state(deleted), Some(StreamState::Deleted));
    let mut kept = log.open_stream(kept_id).expect("there");
    kept.append("both").expect("room");
    for n in 0..3 {
        let error = kept.commit_with(id(n)).wait().expect_err("made before");
        let position = u64::try_from(n + 1).expect("small").into();
        assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position });
    }
    churn(&log, 30);
    compact(&log);
    assert_eq!(read(&kept), [Ok(0), Ok(1), Ok(2)]);
}

/// A handle of a stream that another handle had deleted or rewound reported damage once the rest
/// had been compacted, on a log without damage. Now it reports the delete or the rewind. P6.
#[test]
fn p6_what_was_compacted_under_an_old_handle_is_not_called_damaged() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    for rewound in [false, true] {
        let mut stream = log.create_stream().expect("a stream");
        for n in 0..10 {
            stream.append([n; 1_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
        let mut old = log.open_stream(stream.id()).expect("there");
        old.append("buffered").expect("room");
        match rewound {
            true => stream.rewind(2).expect("in range"),
            false => drop(stream.delete()),
        }
        stream.commit().wait().map(drop).unwrap_or_default();
        churn(&log, 30);
        compact(&log);
        let (expected, actual) = (11.into(), 2.into());
        let gone = match rewound {
            true => ErrorKind::Conflict { stream: stream.id(), expected, actual },
            false => ErrorKind::Deleted(stream.id()),
        };
        let mut seen = read(&old);
        let kept = if rewound { 2 } else { 0 };
        assert_eq!(seen.split_off(kept), [Err(gone.clone()), Ok(10)]);
        assert_eq!(seen, [Ok(0), Ok(1)][..kept]);
        let backwards = old.events().expect("readable").rev().nth(1).expect("there");
        assert_eq!(*backwards.expect_err("gone").kind(), gone);
    }
    assert!(log.recovery_report().is_sound());
}

/// A handle whose commit was put behind a rewind that it had not seen, because it asked for that by name, was told of a
/// conflict when it forked right after: it compared generations with the one that it had before. P8.
#[test]
fn p8_a_fork_right_behind_a_commit_that_was_put_elsewhere() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..5 {
        stream.append([n]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let mut other = log.open_stream(stream.id()).expect("there");
    other.rewind(2).expect("in range");
    other.commit().wait().expect("committed");
    stream.append("behind").expect("room");
    stream.commit_with(CommitOptions::new().expect(Expect::Any)).wait().expect("committed");
    let child = stream.fork_at(3).expect("nobody has rewound it since");
    assert_eq!(read(&child), [Ok(0), Ok(1), Ok(2)]);
}

/// A program that asked for a page of `usize::MAX` streams got a panic, and without checks for overflows an
/// empty page.
#[test]
fn a_page_may_be_as_large_as_one_likes() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    churn(&log, 3);
    let mut stream = log.create_stream().expect("a stream");
    stream.append("one").expect("room");
    stream.commit().wait().expect("committed");
    for max in [usize::MAX, usize::MAX - 1, 1, 0] {
        let page = log.list(&Query::new().limit(max)).expect("listed");
        assert_eq!((page.streams.len(), page.next), (1, None), "{max}");
    }
}

/// A stream was trimmed to its end before it was ever committed. The commit that recorded the trim
/// held its events, too, and a compaction removed both. The rest recorded the length before that
/// commit: after a restart the stream was empty, and gave seqs again, in front of its start, so
/// that no reader saw what was appended. P6, P7.
#[test]
fn p6_p7_a_stream_that_was_trimmed_before_its_first_commit_keeps_its_length() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut streams =
        [log.create_stream().expect("a stream"), log.create_stream().expect("a stream")];
    for (n, stream) in (0_u64..).zip(&mut streams) {
        (0..6).for_each(|_| assert!(stream.append([9; 100]).is_ok()));
        stream.trim(6).expect("staged");
        stream.commit().wait().expect("committed");
        // What is said later tells the length as well.
        (0..n).for_each(|_| stream.set_label("k", "v").expect("fine"));
        stream.commit().wait().expect("committed");
    }
    let ids = streams.each_ref().map(Stream::id);
    churn(&log, 30);
    for _ in 0..2 {
        compact(&log);
        churn(&log, 30);
    }
    drop(streams);
    log.close().expect("closes");
    let payloads = |file: &Vec<u8>| file.windows(100).filter(|bytes| *bytes == [9; 100]).count();
    assert_eq!(
        disk.files().values().map(payloads).sum::<usize>(),
        6,
        "of one of them, where they are needed"
    );
    let log = small().open_on(&disk).expect("opens");
    for id in ids {
        let mut stream = log.open_stream(id).expect("there");
        assert_eq!(stream.append("seen").expect("room").get(), 6);
        stream.commit().wait().expect("committed");
        assert_eq!(read(&stream), [Ok(6)]);
    }
}

/// What was trimmed in memory was discarded, or came back from a commit that failed and was discarded then: the stream
/// went on to start behind its end. What was appended next got seqs before the start, was committed, and nobody
/// could ever read it. P6, P9.
#[test]
fn p6_p9_a_stream_does_not_start_behind_its_end() {
    type Way = fn(&mut Stream, amberlog::Savepoint) -> u64;
    let ways: [Way; 2] =
        [|stream, _| stream.discard(), |stream, at| stream.discard_to(at).expect("buffered")];
    for (way, fails) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let disk = SimDisk::new(1);
        let log = small().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        stream.append("a").expect("room");
        let savepoint = stream.savepoint();
        (0..3).for_each(|_| assert!(stream.append("gone").is_ok()));
        stream.trim(3).expect("staged");
        if fails {
            disk.fail_at(disk.calls(), Fault::Io);
            stream.commit().wait().expect_err("the disk refuses");
        }
        assert!(way(&mut stream, savepoint) >= 3);
        if way(&mut stream, savepoint) == 0 && stream.head().get() == 0 {
            stream.commit().wait().expect("of nothing");
            assert!(log.read_view().info(stream.id()).is_none(), "nothing is left to say");
        }
        let head = stream.append("seen").expect("room").get();
        assert_eq!(read(&stream), [Ok(head)]);
        stream.commit().wait().expect("committed");
        assert_eq!(read(&stream), [Ok(head)]);
        assert_eq!(log.read_view().events(stream.id()).expect("known").count(), 1);
    }
}

/// A handle that had named its stream kept the reservation of the name until it was used again, and let it go then if
/// the stream had another name by now: also when another handle of the stream had reserved it anew. A second stream
/// could take it, and both were committed. Now a reservation ends with the commit of the name. P8.
#[test]
fn p8_a_name_that_another_handle_has_reserved_stays_reserved() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    first.rename("b").expect("free");
    first.commit().wait().expect("committed");
    let mut second = log.open_stream(first.id()).expect("there");
    second.rename("c").expect("free");
    second.commit().wait().expect("committed");
    second.rename("b").expect("free again");
    first.commit().wait().expect("of nothing");
    let mut other = log.create_stream().expect("a stream");
    let error = other.rename("b").expect_err("reserved");
    assert!(matches!(error.kind(), ErrorKind::NameTaken { holder, .. } if *holder == first.id()));
    second.commit().wait().expect("committed");
    assert_eq!(log.read_view().find("b"), Some(first.id()));
    second.clear_name().expect("it has one");
    second.commit().wait().expect("committed");
    other.rename("b").expect("free");
}

/// A handle that had archived its stream refused to rewind it when another handle had taken that back; appending it
/// did not.
#[test]
fn a_handle_notices_that_another_one_took_the_archive_back() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    first.append("a").expect("room");
    first.commit().wait().expect("committed");
    first.archive().wait().expect("archived");
    let mut second = log.open_stream(first.id()).expect("there");
    second.unarchive().wait().expect("active");
    first.rewind(0).expect("it is active");
    first.commit().wait().expect("committed");
    assert_eq!(log.read_view().info(first.id()).expect("there").generation, 1);
}

/// In the list of a read view that was taken after compacting, by commits, a stream that had moved on since stood in a
/// wrong place: where its last visible commit stands now, among places where those of others had stood before.
#[test]
fn an_old_view_lists_by_commits_in_the_order_of_commits() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut streams = Vec::new();
    for _ in 0..5 {
        churn(&log, 1);
        let mut stream = log.create_stream().expect("a stream");
        stream.append([1; 50]).expect("room");
        stream.commit().wait().expect("committed");
        streams.push(stream);
    }
    churn(&log, 20);
    let query = Query::new().order(Order::Committed);
    compact(&log);
    let old = log.read_view();
    let before: Vec<_> = streams.iter().map(Stream::id).collect();
    streams[1].append("moves on").expect("room");
    streams[1].commit().wait().expect("committed");
    let listed: Vec<_> =
        old.list(&query).expect("listed").streams.iter().map(|info| info.id).collect();
    assert_eq!(listed, before);
}

/// Everything in front of a rewind had been trimmed and compacted. After a restart the stream's first branch was
/// taken for one of the generation that the rewind began, and two branches had the same generation. P7.
#[test]
#[cfg(feature = "json")]
fn p7_a_stream_whose_beginning_was_compacted_has_the_generations_that_it_had() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append([1; 50]).expect("room");
    stream.append([1; 50]).expect("room");
    stream.commit().wait().expect("committed");
    stream.rewind(1).expect("in range");
    (0..3).for_each(|_| assert!(stream.append([2; 50]).is_ok()));
    stream.commit().wait().expect("committed");
    stream.trim(3).expect("staged");
    stream.commit().wait().expect("trimmed");
    churn(&log, 30);
    compact(&log);
    let export = |view: ReadView| {
        let mut lines = Vec::new();
        view.export_jsonl(&mut lines).expect("exported");
        String::from_utf8(lines).expect("text").lines().take(6).collect::<Vec<_>>().join("\n")
    };
    let before = export(log.read_view());
    drop(stream);
    log.close().expect("closes");
    assert_eq!(export(ReadView::open_on(&disk).expect("opens").0), before);
}

/// A commit landed in a generation that its handle had not seen, while a later one of the handle was in flight or had just
/// failed: until the handle was used again it went on in the old generation, and read events that were rewound, or a
/// conflict. P9.
#[test]
fn p9_a_handle_reads_the_generation_that_its_commit_went_to() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let append = |stream: &mut Stream, payloads: &[u8]| {
        payloads.iter().for_each(|payload| assert!(stream.append([*payload]).is_ok()));
    };
    let mut first = log.create_stream().expect("a stream");
    append(&mut first, &[0, 1, 2]);
    first.commit().wait().expect("committed");
    let mut second = log.open_stream(first.id()).expect("there");
    first.rewind(1).expect("rewound");
    append(&mut first, &[3, 4]);
    first.commit().wait().expect("committed");
    append(&mut second, &[5]);
    let moved = second.commit_with(CommitOptions::new().expect(Expect::Any));
    append(&mut second, &[6]);
    let refused = second.commit();
    append(&mut second, &[7]);
    assert_eq!(moved.wait().expect("anything goes").seqs, Seq::from(3)..Seq::from(4));
    refused.wait().expect_err("it saw the old generation");
    for round in 0..2 {
        let events = second.events().expect("readable");
        let events: Vec<_> = events.map(|event| event.expect("readable")).collect();
        let payloads: Vec<u8> = events.iter().map(|event| event.payload()[0]).collect();
        assert_eq!(payloads, [0, 3, 4, 5, 6, 7], "round {round}");
        assert_eq!((second.info().generation, second.head()), (1, Seq::from(6)));
        // The second time the events of the commit that failed have come back.
        assert_eq!(second.discard_to(second.savepoint()).expect("buffered"), 0);
    }
}

#[cfg(amberlog_sabotage)]
#[test]
#[should_panic(expected = "readable")]
fn control_a_handle_that_stays_in_its_old_generation_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::KeepGeneration);
    p9_a_handle_reads_the_generation_that_its_commit_went_to();
}

/// `events.last()` read the stream from its first event on: the iterator's own `last` goes forward.
#[test]
fn the_last_event_is_read_from_the_end() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..16 {
        stream.append([n; 5_000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    let maps = |last: fn(amberlog::Events) -> Option<amberlog::Result<amberlog::Event>>| {
        let log = small().open_on(&disk).expect("opens again");
        let before = disk.maps();
        let events = log.read_view().events(id).expect("known");
        let last = last(events).expect("there").expect("whole");
        assert_eq!(last.payload()[0], 15);
        disk.maps() - before
    };
    assert!(maps(|events| events.last()) <= 1);
    // Control: a walk maps every sealed segment.
    assert!(maps(|events| events.fold(None, |_, event| Some(event))) > 3);
}
