//! Bugs in what a whole stream goes through: states, ids, forks, lists, collecting.

use amberlog::{
    CollectOptions, CommitId, CommitOptions, ErrorKind, Expect, Fault, Log, Order, Query, SimDisk,
    Snapshot, Status, Stream,
};

use super::small;

/// Fills segments with streams that are deleted at once, so that there is something to collect.
fn churn(log: &Log, streams: usize) {
    for _ in 0..streams {
        let mut stream = log.stream().expect("a stream");
        stream.append([1; 2_000]).expect("room");
        stream.commit().wait().expect("committed");
        stream.delete().wait().expect("deleted");
    }
}

fn collect(log: &Log) {
    let report = log.collect(CollectOptions::new().dead_percent_min(0)).expect("open");
    assert!(!report.runs.is_empty() && report.refused.is_empty(), "{report:?}");
}

/// What a handle reads: seqs, or why not.
fn read(stream: &Stream) -> Vec<Result<u64, ErrorKind>> {
    let events = stream.events().expect("readable");
    events.map(|one| one.map(|event| event.seq().get()).map_err(|e| e.kind().clone())).collect()
}

/// A stream's first commit was under way when it was deleted (archived), and failed. The ticket of the deletion failed
/// with it, but the handle took it for a volatile stream that is deleted: it refused everything from then on, and
/// the events could never be committed. Now only what was true before the first commit is taken back with it. P5.
#[test]
fn p5_a_deletion_that_failed_behind_the_first_commit_is_forgotten() {
    for verb in [Stream::delete, Stream::archive] {
        let disk = SimDisk::new(1);
        let log = small().open_on(&disk).expect("opens");
        churn(&log, 1);
        let mut stream = log.stream().expect("a stream");
        stream.append("precious").expect("room");
        disk.fail_at(disk.calls(), Fault::Io);
        let first = stream.commit();
        let second = verb(&mut stream);
        assert!(first.wait().is_err() && second.wait().is_err());
        assert_eq!((stream.status(), stream.buffered()), (Status::Volatile, 1));
        stream.append("more").expect("it is not archived");
        stream.commit().wait().expect("committed");
        assert_eq!(log.status(stream.id()), Status::Durable);
        assert_eq!(read(&stream), [Ok(0), Ok(1)]);
    }
}

/// The id of a commit stood with the first of its streams. When that one was deleted and collected, the id went with
/// it; after a restart a retry of the commit was made a second time, in the streams that were left. Now the ids that
/// are remembered outlive their streams. P6.
#[test]
fn p6_the_id_of_a_commit_outlives_its_streams() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let id = |n: u128| CommitOptions::new().id(CommitId::from(n));
    let (mut gone, mut kept) = (log.stream().expect("a stream"), log.stream().expect("a stream"));
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
    collect(&log);
    let (deleted, kept_id) = (gone.id(), kept.id());
    drop((gone, kept));
    log.close().expect("closes");
    let log = small().open_on(&disk).expect("opens");
    assert!(log.survey().is_sound());
    assert_eq!(log.status(deleted), Status::Deleted);
    let mut kept = log.resume(kept_id).expect("there");
    kept.append("both").expect("room");
    for n in 0..3 {
        let error = kept.commit_with(id(n)).wait().expect_err("made before");
        let position = u64::try_from(n + 1).expect("small").into();
        assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position });
    }
    churn(&log, 30);
    collect(&log);
    assert_eq!(read(&kept), [Ok(0), Ok(1), Ok(2)]);
}

/// A handle of a stream that another handle had deleted, or rewound, was told of damaged bytes once the rest had been
/// collected: on a log in which nothing is damaged. Now it is told what happened. P6.
#[test]
fn p6_what_was_collected_under_an_old_handle_is_not_called_damaged() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    for rewound in [false, true] {
        let mut stream = log.stream().expect("a stream");
        for n in 0..10 {
            stream.append([n; 1_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
        let mut old = log.resume(stream.id()).expect("there");
        old.append("buffered").expect("room");
        match rewound {
            true => stream.rewind(2).expect("in range"),
            false => drop(stream.delete()),
        }
        stream.commit().wait().map(drop).unwrap_or_default();
        churn(&log, 30);
        collect(&log);
        let (expected, actual) = (11.into(), 2.into());
        let gone = match rewound {
            true => ErrorKind::Conflict { expected, actual },
            false => ErrorKind::Deleted(stream.id()),
        };
        let mut seen = read(&old);
        let kept = if rewound { 2 } else { 0 };
        assert_eq!(seen.split_off(kept), [Err(gone.clone()), Ok(10)]);
        assert_eq!(seen, [Ok(0), Ok(1)][..kept]);
        let backwards = old.events().expect("readable").rev().nth(1).expect("there");
        assert_eq!(*backwards.expect_err("gone").kind(), gone);
    }
    assert!(log.survey().is_sound());
}

/// A handle whose commit was put behind a rewind that it had not seen, because it asked for that by name, was told of a
/// conflict when it forked right after: it compared generations with the one that it had before. P8.
#[test]
fn p8_a_fork_right_behind_a_commit_that_was_put_elsewhere() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.stream().expect("a stream");
    for n in 0..5 {
        stream.append([n]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let mut other = log.resume(stream.id()).expect("there");
    other.rewind(2).expect("in range");
    other.commit().wait().expect("committed");
    stream.append("behind").expect("room");
    stream.commit_with(CommitOptions::new().expect(Expect::Any)).wait().expect("committed");
    let child = stream.fork_at(3).expect("nobody has rewound it since");
    assert_eq!(read(&child), [Ok(0), Ok(1), Ok(2)]);
}

/// Who asked for a page of `usize::MAX` streams, to have all of them, got a panic, and without checks for overflows an
/// empty page.
#[test]
fn a_page_may_be_as_large_as_one_likes() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    churn(&log, 3);
    let mut stream = log.stream().expect("a stream");
    stream.append("one").expect("room");
    stream.commit().wait().expect("committed");
    for max in [usize::MAX, usize::MAX - 1, 1, 0] {
        let page = log.list(&Query::new().streams_max(max));
        assert_eq!((page.streams.len(), page.next), (1, None), "{max}");
    }
}

/// A stream was trimmed to its end before it was ever committed. The commit that said so held its events, too, and
/// these were collected. What was left told the length before that commit: after a restart the stream had none, and
/// gave seqs again, in front of where it starts, so that nobody saw what was appended. P6, P7.
#[test]
fn p6_p7_a_stream_that_was_trimmed_before_its_first_commit_keeps_its_length() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut streams = [log.stream().expect("a stream"), log.stream().expect("a stream")];
    for (n, stream) in (0_u64..).zip(&mut streams) {
        (0..6).for_each(|_| assert!(stream.append([9; 100]).is_ok()));
        stream.trim(6).wait().expect("in memory");
        stream.commit().wait().expect("committed");
        // What is said later tells the length as well.
        (0..n).for_each(|_| stream.set_label("k", "v").expect("fine"));
        stream.commit().wait().expect("committed");
    }
    let ids = streams.each_ref().map(Stream::id);
    churn(&log, 30);
    for _ in 0..2 {
        collect(&log);
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
        let mut stream = log.resume(id).expect("there");
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
        let mut stream = log.stream().expect("a stream");
        stream.append("a").expect("room");
        let savepoint = stream.savepoint();
        (0..3).for_each(|_| assert!(stream.append("gone").is_ok()));
        stream.trim(3).wait().expect("in memory");
        if fails {
            disk.fail_at(disk.calls(), Fault::Io);
            stream.commit().wait().expect_err("the disk refuses");
        }
        assert!(way(&mut stream, savepoint) >= 3);
        if way(&mut stream, savepoint) == 0 && stream.head().get() == 0 {
            stream.commit().wait().expect("of nothing");
            assert_eq!(log.status(stream.id()), Status::Volatile, "nothing is left to say");
        }
        let head = stream.append("seen").expect("room").get();
        assert_eq!(read(&stream), [Ok(head)]);
        stream.commit().wait().expect("committed");
        assert_eq!(read(&stream), [Ok(head)]);
        assert_eq!(log.snapshot().events(stream.id()).expect("known").count(), 1);
    }
}

/// A handle that had named its stream kept the reservation of the name until it was used again, and let it go then if
/// the stream had another name by now: also when another handle of the stream had reserved it anew. A second stream
/// could take it, and both were committed. Now a reservation ends with the commit of the name. P8.
#[test]
fn p8_a_name_that_another_handle_has_reserved_stays_reserved() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut first = log.stream().expect("a stream");
    first.rename("b").expect("free");
    first.commit().wait().expect("committed");
    let mut second = log.resume(first.id()).expect("there");
    second.rename("c").expect("free");
    second.commit().wait().expect("committed");
    second.rename("b").expect("free again");
    first.commit().wait().expect("of nothing");
    let mut other = log.stream().expect("a stream");
    let error = other.rename("b").expect_err("reserved");
    assert!(matches!(error.kind(), ErrorKind::NameTaken { holder, .. } if *holder == first.id()));
    second.commit().wait().expect("committed");
    assert_eq!(log.snapshot().find("b"), Some(first.id()));
    second.unname().expect("it has one");
    second.commit().wait().expect("committed");
    other.rename("b").expect("free");
}

/// A handle that had archived its stream refused to rewind it when another handle had taken that back; appending it
/// did not.
#[test]
fn a_handle_notices_that_another_one_took_the_archive_back() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut first = log.stream().expect("a stream");
    first.append("a").expect("room");
    first.commit().wait().expect("committed");
    first.archive().wait().expect("archived");
    let mut second = log.resume(first.id()).expect("there");
    second.unarchive().wait().expect("active");
    first.rewind(0).expect("it is active");
    first.commit().wait().expect("committed");
    assert_eq!(log.snapshot().stream(first.id()).expect("there").generation, 1);
}

/// In the list of a snapshot that was taken after collecting, by commits, a stream that had moved on since stood in a
/// wrong place: where its last visible commit stands now, among places where those of others had stood before.
#[test]
fn an_old_snapshot_lists_by_commits_in_the_order_of_commits() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut streams = Vec::new();
    for _ in 0..5 {
        churn(&log, 1);
        let mut stream = log.stream().expect("a stream");
        stream.append([1; 50]).expect("room");
        stream.commit().wait().expect("committed");
        streams.push(stream);
    }
    churn(&log, 20);
    let query = Query::new().order(Order::Committed);
    collect(&log);
    let old = log.snapshot();
    let before: Vec<_> = streams.iter().map(Stream::id).collect();
    streams[1].append("moves on").expect("room");
    streams[1].commit().wait().expect("committed");
    let listed: Vec<_> = old.list(&query).streams.iter().map(|info| info.id).collect();
    assert_eq!(listed, before);
}

/// Everything in front of a rewind had been trimmed and collected. After a restart the stream's first branch was
/// taken for one of the generation that the rewind began, and two branches had the same generation. P7.
#[test]
#[cfg(feature = "json")]
fn p7_a_stream_whose_beginning_was_collected_has_the_generations_that_it_had() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.stream().expect("a stream");
    stream.append([1; 50]).expect("room");
    stream.append([1; 50]).expect("room");
    stream.commit().wait().expect("committed");
    stream.rewind(1).expect("in range");
    (0..3).for_each(|_| assert!(stream.append([2; 50]).is_ok()));
    stream.commit().wait().expect("committed");
    stream.trim(3).wait().expect("trimmed");
    churn(&log, 30);
    collect(&log);
    let export = |snapshot: Snapshot| {
        let mut lines = Vec::new();
        snapshot.export_jsonl(&mut lines).expect("exported");
        String::from_utf8(lines).expect("text").lines().take(6).collect::<Vec<_>>().join("\n")
    };
    let before = export(log.snapshot());
    drop(stream);
    log.close().expect("closes");
    assert_eq!(export(Snapshot::open_on(&disk).expect("opens").0), before);
}
