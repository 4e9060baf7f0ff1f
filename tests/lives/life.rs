//! What a stream goes through: volatile, durable, read, reopened, opened again.

use crate::support::verified::checked;
use amberlog::maintenance::CompactOptions;
use amberlog::{
    CommitOptions, Durability, ErrorKind, EventKind, Log, NewEvent, Overflow, Position, ReadView,
    Stream, StreamId, StreamOptions, StreamState,
};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn payloads(events: amberlog::Events) -> Vec<Vec<u8>> {
    events.map(|event| event.expect("readable").payload().to_vec()).collect()
}

fn fill(stream: &mut Stream, from: u64, to: u64) {
    for n in from..to {
        stream.append(n.to_string().as_bytes()).expect("room");
    }
}

fn numbers(from: u64, to: u64) -> Vec<Vec<u8>> {
    (from..to).map(|n| n.to_string().into_bytes()).collect()
}

#[test]
fn p1_nothing_is_on_disk_before_the_first_commit() {
    let dir = dir();
    let path = dir.path().join("deep/log");
    let log = Log::open(&path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream, 0, 100);
    assert_eq!(log.state(stream.id()), Some(StreamState::Active));
    assert!(!stream.is_durable());
    assert_eq!(payloads(stream.events().expect("readable")), numbers(0, 100));
    drop(stream);
    log.close().expect("closes");
    assert!(!dir.path().join("deep").exists());
}

#[test]
fn p3_p7_p9_what_was_committed_is_there_after_reopening() {
    let dir = dir();
    let id: StreamId;
    {
        let log = Log::open(dir.path()).expect("opens");
        let mut stream =
            log.create_stream_with(&StreamOptions::new().name("a thread")).expect("stream");
        id = stream.id();
        fill(&mut stream, 0, 10);
        let commit = stream.commit().wait().expect("committed");
        assert_eq!(commit.position, Position::from(1));
        assert_eq!((commit.seqs.start.get(), commit.seqs.end.get()), (0, 10));
        assert_eq!(log.state(id), Some(StreamState::Active));
        assert!(log.read_view().info(id).is_some());
        fill(&mut stream, 10, 15);
        let before = payloads(stream.events().expect("readable"));
        assert_eq!(before, numbers(0, 15));
        stream.commit().wait().expect("committed");
        assert_eq!(payloads(stream.events().expect("readable")), before);
        log.close().expect("closes");
    }
    let found = checked(dir.path()).expect("readable");
    assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
    let log = Log::open(dir.path()).expect("opens again");
    assert!(log.recovery_report().is_sound());
    let view = log.read_view();
    assert_eq!(view.find("a thread"), Some(id));
    assert_eq!(payloads(view.events(id).expect("known")), numbers(0, 15));
    let mut backwards: Vec<_> = view
        .events(id)
        .expect("known")
        .rev()
        .map(|event| event.expect("readable").payload().to_vec())
        .collect();
    backwards.reverse();
    assert_eq!(backwards, numbers(0, 15));
    let mut again = log.open_stream(id).expect("known");
    fill(&mut again, 15, 20);
    again.commit().wait().expect("committed");
    let some = log.read_view().events(id).expect("known").range(7_u64..17);
    assert_eq!(payloads(some), numbers(7, 17));
}

#[test]
fn p4_several_streams_commit_at_once() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut streams: Vec<_> = (0..20).map(|_| log.create_stream().expect("a stream")).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        fill(stream, 0, n as u64);
    }
    let commit = log.commit_all(&mut streams).wait().expect("committed");
    assert_eq!(commit.position, Position::from(1));
    drop(log);
    let ids: Vec<_> = streams.iter().map(Stream::id).collect();
    drop(streams);
    let (view, _) = ReadView::open(dir.path()).expect("readable");
    assert_eq!(view.info(ids[0]), None, "nothing of it was committed");
    for (n, id) in ids.iter().enumerate().skip(1) {
        assert_eq!(payloads(view.events(*id).expect("known")), numbers(0, n as u64));
    }
    let all = view.all_events(Position::START).expect("in range");
    assert_eq!(all.filter(Result::is_ok).count(), (0..20).sum::<usize>());
}

/// P7: by position, a commit shows its streams in the order in which the caller gave them: when it is fresh, reopened,
/// sealed, and rewritten by a compaction.
#[test]
fn p7_a_commit_keeps_the_order_of_its_streams() {
    let dir = dir();
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let open = || options.clone().open(dir.path()).expect("opens");
    let log = open();
    let mut streams: Vec<_> = (0..9).map(|_| log.create_stream().expect("a stream")).collect();
    // The order of ids is that of creation.
    streams.reverse();
    streams.swap(2, 6);
    let order: Vec<_> = streams.iter().map(Stream::id).collect();
    let mut dead = log.create_stream().expect("a stream");
    for round in 0..40_u64 {
        streams.iter_mut().for_each(|stream| fill(stream, round, round + 1));
        dead.append([7; 3_000]).expect("room");
        let all = streams.iter_mut().chain([&mut dead]);
        log.commit_all(all).wait().expect("committed");
    }
    let shows = |log: &Log, last: &[StreamId]| {
        let view = log.read_view();
        let all = view.all_events(Position::START).expect("in range");
        let ids: Vec<_> = all.map(|event| event.expect("readable").stream()).collect();
        let expected: Vec<_> = order.iter().chain(last).copied().collect();
        assert!(ids.chunks(expected.len()).all(|commit| commit == expected), "{ids:?}");
    };
    shows(&log, &[dead.id()]);
    dead.delete().wait().expect("deleted");
    log.close().expect("closes");
    let log = open();
    shows(&log, &[dead.id()]);
    let report = log.compact(CompactOptions::new().purge()).expect("compacted");
    assert!(report.freed_bytes() > 100_000, "{report:?}");
    shows(&log, &[]);
    drop(log);
    shows(&open(), &[]);
}

#[test]
fn p8_the_second_handle_gets_a_conflict_and_keeps_its_events() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut first = log.create_stream().expect("a stream");
    fill(&mut first, 0, 3);
    first.commit().wait().expect("committed");
    let mut second = log.open_stream(first.id()).expect("known");
    fill(&mut second, 3, 5);
    fill(&mut first, 3, 4);
    first.commit().wait().expect("committed");
    let error = second.commit().wait().expect_err("someone else moved the stream");
    let expected = ErrorKind::Conflict { stream: first.id(), expected: 3.into(), actual: 4.into() };
    assert_eq!(*error.kind(), expected);
    let error = second.commit().wait().expect_err("still");
    assert_eq!(*error.kind(), expected);
    assert_eq!(second.buffered(), 2, "they came back");
    assert_eq!(second.discard(), 2);
    assert_eq!(payloads(log.read_view().events(first.id()).expect("known")), numbers(0, 4));
}

#[test]
fn p10_an_overwriting_ring_keeps_the_newest_and_says_what_it_dropped() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let options = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(1000);
    let mut stream = log.create_stream_with(&options).expect("a stream");
    fill(&mut stream, 0, 1000);
    let kept = stream.buffered();
    let volatile = payloads(stream.events().expect("readable").range(1000 - kept..));
    stream.commit().wait().expect("committed");
    fill(&mut stream, 1000, 1001);
    stream.commit().wait().expect("committed");
    let durable: Vec<_> = log
        .read_view()
        .events(stream.id())
        .expect("known")
        .map(|event| event.expect("readable"))
        .collect();
    assert_eq!(durable.len() as u64, kept + 1);
    assert_eq!(durable[0].dropped_before(), 1000 - kept);
    assert_eq!(durable[0].seq().get(), 1000 - kept);
    assert_eq!(volatile, numbers(1000 - kept, 1000));
    let back: Vec<_> = log
        .read_view()
        .events(stream.id())
        .expect("known")
        .rev()
        .map(|event| event.expect("readable").seq().get())
        .collect();
    assert_eq!(back, (1000 - kept..=1000).rev().collect::<Vec<_>>());
}

#[test]
fn many_segments_are_rolled_sealed_and_read() {
    let dir = dir();
    let open = || {
        Log::options().segment_bytes_first(16 << 10).segment_bytes_max(64 << 10).open(dir.path())
    };
    let mut ids = Vec::new();
    let payload =
        |stream: usize, n: u64| format!("{stream}/{n}/{}", "x".repeat((n % 300) as usize));
    for round in 0..3_u64 {
        let log = open().expect("opens");
        assert!(log.recovery_report().is_sound(), "{:?}", log.recovery_report());
        let mut streams: Vec<Stream> = if ids.is_empty() {
            (0..7).map(|_| log.create_stream().expect("a stream")).collect()
        } else {
            ids.iter().map(|id| log.open_stream(*id).expect("known")).collect()
        };
        ids = streams.iter().map(Stream::id).collect();
        for n in round * 300..(round + 1) * 300 {
            for (at, stream) in streams.iter_mut().enumerate() {
                let event = NewEvent::new(EventKind(at as u16), payload(at, n));
                stream.append(event).expect("room");
                if n % 5 == 0 {
                    let os = CommitOptions::new().durability(Durability::Os);
                    stream.commit_with(os).wait().expect("committed");
                }
            }
            if n % 7 == 0 {
                log.commit_all(&mut streams).wait().expect("committed");
            }
        }
        log.commit_all(&mut streams).wait().expect("committed");
        let view = log.read_view();
        drop((log, streams));
        for (at, id) in ids.iter().enumerate() {
            let forward = view.events(*id).expect("known").map(|event| event.expect("fine"));
            let mut n = 0;
            for event in forward {
                assert_eq!(event.seq().get(), n);
                assert_eq!(event.payload(), payload(at, n).as_bytes());
                assert_eq!(event.kind(), EventKind(at as u16));
                n += 1;
            }
            assert_eq!(n, (round + 1) * 300);
            let backward = view.events(*id).expect("known").rev();
            for (back, event) in backward.enumerate() {
                let event = event.expect("fine");
                assert_eq!(event.seq().get(), n - 1 - back as u64);
                assert_eq!(event.payload(), payload(at, event.seq().get()).as_bytes());
            }
        }
        let found = checked(dir.path()).expect("readable");
        assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
    }
}

#[test]
fn a_commit_larger_than_a_segment_gets_one_made_to_fit() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let large: Vec<u8> = (0..30_000_000_u32).map(|n| (n >> 3) as u8).collect();
    stream.append(&large).expect("room");
    stream.commit().wait().expect("committed");
    stream.append(b"small").expect("room");
    stream.commit().wait().expect("committed");
    drop((log, stream.id()));
    drop(stream);
    let (view, _) = ReadView::open(dir.path()).expect("readable");
    let id = view.streams()[0].id;
    assert!(payloads(view.events(id).expect("known")) == [large, b"small".to_vec()]);
}

#[test]
fn p14_files_are_private_and_the_directory_can_be_moved() {
    use std::os::unix::fs::PermissionsExt;
    let dir = dir();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let log = Log::open(&old).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream, 0, 3);
    stream.commit().wait().expect("committed");
    let mode =
        |path: &str| std::fs::metadata(old.join(path)).expect("there").permissions().mode() & 0o777;
    let modes = ["", "segments", "segments/0000000001.seg", "LOCK"].map(mode);
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    std::fs::rename(&old, &new).expect("moved");
    let log = Log::open(&new).expect("opens where it is now");
    assert_eq!(payloads(log.read_view().events(id).expect("known")), numbers(0, 3));
}

#[test]
fn p11_event_time_is_append_time() {
    let dir = dir();
    let log =
        Log::options().clock(amberlog::options::Clock::Precise).open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let before = amberlog::Timestamp::now();
    fill(&mut stream, 0, 1);
    let after = crate::support::waiting::a_time_apart();
    let commit = stream.commit().wait().expect("committed");
    let mut events = log.read_view().events(stream.id()).expect("known");
    let event = events.next().expect("one").expect("readable");
    assert!(before <= event.time() && event.time() <= after && after < commit.time);
}

/// Three commits of ten events, in a segment that is sealed with what follows and in one that is not, and five
/// events in memory.
fn mixed(log: &Log) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    for turn in 0..3 {
        fill(&mut stream, turn * 10, turn * 10 + 10);
        stream.commit().wait().expect("committed");
        let mut other = log.create_stream().expect("a stream");
        other.append(vec![7; 6_000]).expect("room");
        other.commit().wait().expect("committed");
    }
    fill(&mut stream, 30, 35);
    stream
}

#[test]
fn p9_what_is_lent_is_what_is_handed_out_from_both_ends() {
    let dir = dir();
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = options.open(dir.path()).expect("opens");
    let stream = mixed(&log);
    let all: Vec<_> = stream.events().expect("readable").collect::<Result<_, _>>().expect("sound");
    assert_eq!(all.len(), 35);
    let (mut front, mut back) =
        (stream.events().expect("readable"), stream.events().expect("readable"));
    for event in &all {
        let lent = front.lend().expect("there").expect("sound");
        assert_eq!(format!("{:?}", lent.hold()), format!("{event:?}"));
        assert_eq!(lent.payload(), event.payload());
        assert_eq!((lent.position(), lent.is_durable()), (event.position(), event.is_durable()));
    }
    for event in all.iter().rev() {
        let lent = back.lend_back().expect("there").expect("sound");
        assert_eq!((lent.seq(), lent.payload()), (event.seq(), event.payload()));
    }
    assert!(front.lend().is_none() && back.lend_back().is_none());
    let by_position = || log.read_view().all_events(Position::START).expect("in range");
    let (mut lent, mut count) = (by_position(), 0);
    for event in by_position() {
        let (event, lent) = (event.expect("sound"), lent.lend().expect("there").expect("sound"));
        assert_eq!((lent.stream(), lent.seq(), lent.payload().len()), {
            (event.stream(), event.seq(), event.payload().len())
        });
        count += 1;
    }
    assert_eq!((count, lent.lend().is_none()), (33, true));
}

/// A look-up trusts a batch that was verified before; a read of the whole batch verifies it each time.
#[test]
fn p6_reading_on_verifies_what_a_look_up_had_verified_before() {
    let dir = dir();
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = options.open(dir.path()).expect("opens");
    let id = mixed(&log).id();
    log.close().expect("closes");
    let (view, report) = ReadView::open(dir.path()).expect("readable");
    assert!(report.segments.len() > 1, "the first one is sealed");
    let look_up = || view.events(id).expect("known").range(3_u64..=3).next().expect("there");
    let payload = look_up().expect("sound").payload().to_vec();
    assert_eq!(payload, b"3");
    let path = dir.path().join("segments/0000000001.seg");
    let mut bytes = std::fs::read(&path).expect("readable");
    // Behind the segment's header, those of the commit and its batch, nine frames and the head of the tenth.
    let at = 4096 + 88 + 9 * 17 + 16;
    assert_eq!(bytes[at], b'9');
    bytes[at] ^= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
    assert_eq!(look_up().expect("known to be sound").payload(), payload);
    let read: Vec<_> = view.events(id).expect("known").collect();
    let lost = read.iter().filter_map(|event| event.as_ref().err());
    let kinds: Vec<_> = lost.map(amberlog::Error::kind).collect();
    assert!(matches!(kinds[..], [ErrorKind::Corrupt { .. }]), "all of it is verified: {kinds:?}");
    assert_eq!(read.iter().filter(|event| event.is_ok()).count(), 20);
}

/// The next segment is made in pieces, each synced by itself, so that no commit's sync waits for all of it.
#[cfg(feature = "sim")]
#[test]
fn a_spare_is_synced_piece_by_piece() {
    let disk = amberlog::sim::SimDisk::new(1);
    let options = Log::options().segment_bytes_first(1 << 20).segment_bytes_max(2 << 20);
    let log = options.open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut syncs = Vec::new();
    for _ in 0..3 {
        stream.append(vec![7; 200 << 10]).expect("room");
        let before = disk.syncs();
        stream.commit().wait().expect("committed");
        syncs.push(disk.syncs() - before);
    }
    // The first segment, and a commit; a commit, which fills a quarter, and a spare of eight pieces; a commit.
    assert_eq!(syncs, [2, 1 + 8, 1]);
}

/// Behind a clean close the file is cut. The first commit makes it as long as it was, durably, and so costs a second
/// sync; and from then on blocks are written ahead in pieces, with the syncs that are made anyway.
#[cfg(feature = "sim")]
#[test]
fn behind_a_clean_close_blocks_are_written_ahead() {
    let disk = amberlog::sim::SimDisk::new(1);
    let open = || Log::options().segment_bytes_first(2 << 20).open_on(&disk).expect("opens");
    let commit = |log: &Log, bytes: usize| {
        let mut stream = log.create_stream().expect("a stream");
        stream.append(vec![7; bytes]).expect("room");
        let (calls, syncs) = (disk.calls(), disk.syncs());
        stream.commit().wait().expect("committed");
        (disk.calls() - calls, disk.syncs() - syncs)
    };
    let log = open();
    commit(&log, 100);
    assert_eq!(commit(&log, 100), (3, 1), "the group, a sync, the tail record");
    log.close().expect("closes");
    let log = open();
    assert_eq!(commit(&log, 100), (6, 2), "and the length, zeros, a sync");
    let six: Vec<_> = (0..6).map(|_| commit(&log, 20 << 10)).collect();
    // 32 KiB were written ahead, and then 64: with the sync of the commit that needs them.
    assert_eq!(six, [(3, 1), (4, 1), (3, 1), (3, 1), (3, 1), (4, 1)]);
    assert_eq!(commit(&log, 100), (3, 1));
}
