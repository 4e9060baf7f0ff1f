//! Does collecting change anything that somebody can see?
//!
//! P4, P6, P7, P12; F24, F25, F30. Streams are written, forked, rewound, trimmed, archived and deleted at random, and
//! collected in between: what a snapshot shows is the same before and after, at once, when the log is opened again,
//! and wherever the machine stops. What nobody can see any more is gone from the disk.
#![cfg(feature = "sim")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amberlog::{
    Collect, CollectOptions, CollectReport, CommitId, CommitOptions, ErrorKind, Fault, Log,
    Options, Position, SimDisk, Snapshot, Status, Stream, StreamId, StreamInfo, StreamState,
    survey_on,
};
use support::{Rng, env_or, read_dir};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// What a snapshot shows of a stream: what is said of it, and its events forwards, by seq.
type Shown = BTreeMap<StreamId, (StreamInfo, Vec<(u64, u64, u8, usize)>)>;

fn shown(snapshot: &Snapshot) -> Shown {
    let mut all = Shown::new();
    for mut info in snapshot.streams() {
        let events = || snapshot.events(info.id).expect("known");
        let one = |event: amberlog::Result<amberlog::Event>| {
            let event = event.unwrap_or_else(|error| panic!("{error}: {info:?}"));
            let position = event.position().map_or(0, Position::get);
            let payload = event.payload();
            (event.seq().get(), position, payload[0], payload.len())
        };
        let forwards: Vec<_> = events().map(one).collect();
        let mut backwards: Vec<_> = events().rev().map(one).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        // How many segments there are is what collecting is about.
        (info.segments, info.moved) = (0, None);
        all.insert(info.id, (info, forwards));
    }
    all
}

/// By position nothing may be missed that a stream shows.
fn by_position(snapshot: &Snapshot) -> usize {
    let all = snapshot.read_all(Position::START).expect("there");
    let mut last = 0;
    all.map(|event| {
        let position = event.expect("whole").position().map_or(0, Position::get);
        assert!(position >= last);
        last = position;
    })
    .count()
}

/// Streams and what was done to them.
struct Play {
    log: Log,
    streams: Vec<Stream>,
    rng: Rng,
}

impl Play {
    fn new(disk: &SimDisk, seed: u64) -> Self {
        let log = options().open_on(disk).expect("opens");
        Self { log, streams: Vec::new(), rng: Rng::new(seed) }
    }

    fn reopen(self, disk: &SimDisk) -> Self {
        let Self { log, mut streams, rng } = self;
        streams.clear();
        log.close().expect("closes");
        let log = options().open_on(disk).expect("opens");
        for info in log.snapshot().streams() {
            streams.extend(log.resume(info.id));
        }
        Self { log, streams, rng }
    }

    fn turn(&mut self) {
        let (roll, pick) = (self.rng.below(40), self.rng.next());
        let Some(at) = (pick as usize).checked_rem(self.streams.len()) else {
            return self.streams.push(self.log.stream().expect("a stream"));
        };
        let seq = |stream: &Stream| {
            let info = stream.id();
            let start = self.log.snapshot().stream(info).map_or(0, |info| info.start.get());
            start + pick / 7 % (stream.head().get() - start + 1)
        };
        match roll {
            0..3 => self.streams.push(self.log.stream().expect("a stream")),
            3..5 if self.streams.len() < 24 => {
                let child = self.streams[at].fork_at(seq(&self.streams[at]));
                self.streams.extend(child.ok());
            }
            5..7 => {
                let to = seq(&self.streams[at]);
                let _ = self.streams[at].rewind(to);
                let _ = self.streams[at].commit().wait();
            }
            7 => {
                let to = seq(&self.streams[at]);
                let _ = self.streams[at].trim(to).wait();
            }
            8 => drop(self.streams[at].archive().wait()),
            9 => drop(self.streams[at].unarchive().wait()),
            10..13 => {
                let mut gone = self.streams.remove(at);
                gone.delete().wait().expect("deleted");
            }
            13 => drop(self.streams[at].set_label("turn", &pick.to_string())),
            14 => {
                let _ = self.streams[at].archive().wait();
                self.move_archived();
            }
            _ => {
                for n in 0..1 + pick % 4 {
                    let _ = self.streams[at].append(vec![pick as u8; 100 + (n * 97) as usize]);
                }
                if roll % 3 == 0 {
                    self.log.commit_all(&mut self.streams).wait().expect("committed");
                } else {
                    let _ = self.streams[at].commit().wait();
                }
            }
        }
    }

    /// Commits under way, and what cannot be written meanwhile, are no reason to refuse.
    fn move_archived(&self) {
        let report = self.log.move_archived().expect("open");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }

    fn collect(&self) -> CollectReport {
        let report = self.log.collect(CollectOptions::new().dead_percent_min(0)).expect("open");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        report
    }

    /// Collects, and compares what was shown before with what is shown now, by old snapshots and handles too.
    fn collect_and_compare(&self) -> CollectReport {
        let pinned = self.log.snapshot();
        let before = shown(&pinned);
        let read = |stream: &Stream| -> Vec<_> {
            let events = stream.events().expect("readable");
            events.map(|event| event.expect("whole").payload().to_vec()).collect()
        };
        let handles: Vec<_> = self.streams.iter().map(read).collect();
        let report = self.collect();
        assert_eq!(shown(&pinned), before, "a snapshot that was taken before (P12)");
        assert_eq!(shown(&self.log.snapshot()), before, "a snapshot that is taken now");
        assert_eq!(self.streams.iter().map(read).collect::<Vec<_>>(), handles, "handles (P9)");
        by_position(&self.log.snapshot());
        report
    }
}

fn same_when_opened_again(disk: &SimDisk, before: &Shown) {
    let found = survey_on(disk).expect("a log");
    assert_eq!(found.damages, []);
    let (snapshot, _) = Snapshot::open_on(disk).expect("opens");
    let now = shown(&snapshot);
    for (id, one) in before {
        assert_eq!(now.get(id), Some(one), "another process sees {id}");
    }
    assert_eq!(now.len(), before.len());
    by_position(&snapshot);
}

#[test]
fn p6_p7_p12_collecting_changes_nothing_that_is_shown() {
    let seeds = env_or("AMBERLOG_SEEDS", 30);
    let (mut runs, mut dropped) = (0, 0);
    for seed in 0..seeds {
        let disk = SimDisk::new(seed);
        let mut play = Play::new(&disk, seed);
        for round in 0..6 {
            for _ in 0..60 {
                play.turn();
            }
            let report = play.collect_and_compare();
            runs += report.runs.len();
            dropped += report.runs.iter().map(|run| run.events_dropped).sum::<u64>();
            let before = shown(&play.log.snapshot());
            same_when_opened_again(&disk, &before);
            if round % 2 == 1 {
                play = play.reopen(&disk);
                assert_eq!(shown(&play.log.snapshot()), before, "seed {seed}, opened again (F24)");
            }
        }
    }
    assert!(runs as u64 > seeds && dropped > seeds * 20, "{runs} runs, {dropped} events");
}

#[test]
fn p6_what_nobody_can_see_is_gone_and_a_deleted_stream_stays_deleted() {
    let disk = SimDisk::new(3);
    let log = options().open_on(&disk).expect("opens");
    let mut kept = log.stream().expect("a stream");
    let mut gone = Vec::new();
    for turn in 0..120_u8 {
        let mut stream = log.stream().expect("a stream");
        stream.append([turn; 2_000]).expect("room");
        stream.commit().wait().expect("committed");
        if turn % 10 == 0 {
            kept.append([turn; 50]).expect("room");
            kept.commit().wait().expect("committed");
        }
        gone.push(stream);
    }
    let ids: Vec<StreamId> = gone.iter().map(Stream::id).collect();
    for stream in &mut gone {
        stream.delete().wait().expect("deleted");
    }
    let bytes = |disk: &SimDisk| disk.files().values().map(Vec::len).sum::<usize>();
    let before = bytes(&disk);
    let plan = log.collect(CollectOptions::new().dry_run()).expect("planned");
    assert_eq!(bytes(&disk), before);
    let report = log.collect(CollectOptions::new()).expect("collected");
    assert_eq!(plan.runs, report.runs);
    assert_eq!((before - bytes(&disk)) as u64, report.freed_bytes());
    assert!(bytes(&disk) < before / 2, "{} of {before} bytes are left", bytes(&disk));
    for disk in [None, Some(&disk)] {
        let (snapshot, _) = match disk {
            None => (log.snapshot(), ()),
            Some(disk) => (Snapshot::open_on(disk).expect("opens").0, ()),
        };
        assert_eq!(snapshot.events(kept.id()).expect("known").count(), 12);
        for id in &ids {
            let error = snapshot.events(*id).expect_err("deleted");
            assert_eq!(*error.kind(), ErrorKind::Deleted(*id));
        }
    }
    assert!(ids.iter().all(|id| log.status(*id) == Status::Deleted));
}

#[test]
fn p9_what_a_fork_shares_is_not_collected_also_before_the_fork_is_committed() {
    let disk = SimDisk::new(4);
    let log = options().open_on(&disk).expect("opens");
    let mut parent = log.stream().expect("a stream");
    for turn in 0..60_u8 {
        parent.append([turn; 1_000]).expect("room");
        parent.commit().wait().expect("committed");
    }
    let mut child = parent.fork_at(20).expect("forked");
    parent.delete().wait().expect("deleted");
    let report = log.collect(CollectOptions::new()).expect("collected");
    assert!(report.runs.iter().map(|run| run.events_dropped).sum::<u64>() > 5, "{report:?}");
    let read =
        |child: &Stream| child.events().expect("readable").map(|event| event.is_ok()).collect();
    let whole: Vec<bool> = read(&child);
    assert_eq!(whole, [true; 20]);
    child.append("own").expect("room");
    child.commit().wait().expect("committed");
    log.collect(CollectOptions::new().dead_percent_min(0)).expect("collected");
    let whole: Vec<bool> = read(&child);
    assert_eq!(whole, [true; 21]);
    let id = child.id();
    drop((child, parent));
    log.close().expect("closes");
    let (snapshot, _) = Snapshot::open_on(&disk).expect("opens");
    assert!(snapshot.events(id).expect("known").all(|event| event.is_ok()));
}

#[test]
fn p6_f25_f30_stopped_at_every_call_of_a_move_and_a_collection() {
    for seed in 0..env_or("AMBERLOG_SEEDS", 4) {
        let disk = SimDisk::new(seed);
        let mut play = Play::new(&disk, seed + 100);
        (0..150).for_each(|_| play.turn());
        play.log.commit_all(&mut play.streams).wait().expect("committed");
        play.streams.clear();
        let expected = shown(&play.log.snapshot());
        play.log.close().expect("closes");
        let start = disk.after_kill();
        let run = |disk: &SimDisk| {
            let log = options().open_on(disk).expect("opens");
            let first = disk.calls();
            let _ = log.move_archived();
            let _ = log.collect(CollectOptions::new().dead_percent_min(0));
            (first, disk.calls(), disk.after_kill())
        };
        let (first, last, _) = run(&start.copy());
        for fault in [Fault::Crash, Fault::LostSync, Fault::Io] {
            for call in first..last {
                let failing = start.copy();
                failing.fail_at(call, fault);
                let (_, _, killed) = run(&failing);
                let mut ways = vec![killed];
                ways.extend((0..4).map(|way| failing.after_power_cut(way)));
                for left in ways {
                    same_when_opened_again(&left, &expected);
                    let log = options().open_on(&left).expect("opens for writing");
                    assert_eq!(shown(&log.snapshot()), expected, "{fault:?} at call {call}");
                    log.move_archived().expect("moved");
                    log.collect(CollectOptions::new().dead_percent_min(0)).expect("collected");
                    drop(log);
                    same_when_opened_again(&left.after_power_cut(9), &expected);
                }
            }
        }
    }
}

#[test]
fn p5_a_quota_refuses_events_and_lets_room_be_made() {
    let disk = SimDisk::new(6);
    let log = options().quota_bytes(100 << 10).open_on(&disk).expect("opens");
    let mut streams = Vec::new();
    let refused = loop {
        let mut stream = log.stream().expect("a stream");
        stream.append([7; 1_500]).expect("room");
        match stream.commit().wait() {
            Ok(_) => streams.push(stream),
            Err(error) => break (stream, error),
        }
    };
    let (mut waiting, error) = refused;
    assert!(
        matches!(error.kind(), ErrorKind::QuotaExceeded { quota_bytes: 102_400, .. }),
        "{error}"
    );
    assert_eq!(waiting.buffered(), 1, "the event is back");
    let before = log.snapshot().position();
    for stream in &mut streams {
        stream.delete().wait().expect("deleting makes room");
    }
    assert!(log.snapshot().position() > before);
    waiting.commit().wait().expect_err("nothing was collected yet");
    assert!(log.collect(CollectOptions::new()).expect("collected").freed_bytes() > 0);
    waiting.commit().wait().expect("there is room");
    assert_eq!(log.snapshot().stream(waiting.id()).expect("known").state, StreamState::Active);
}

/// It is the log that remembers what commits were called: a retry is told of the first, also when its stream was deleted,
/// collected, and the log opened again.
#[test]
fn p6_a_commit_that_was_made_is_not_made_again_when_its_stream_is_gone() {
    let disk = SimDisk::new(9);
    let log = options().open_on(&disk).expect("opens");
    let id = CommitOptions::new().id(CommitId::from(7));
    let mut gone = log.stream().expect("a stream");
    gone.append([1; 2_000]).expect("room");
    let first = gone.commit_with(id).wait().expect("committed").position;
    for turn in 0..40_u8 {
        gone.append([turn; 2_000]).expect("room");
        gone.commit().wait().expect("committed");
    }
    gone.delete().wait().expect("deleted");
    let report = log.collect(CollectOptions::new()).expect("collected");
    assert!(report.freed_bytes() > 40_000, "{report:?}");
    drop(gone);
    log.close().expect("closes");
    let log = options().open_on(&disk).expect("opens");
    let mut again = log.stream().expect("a stream");
    again.append("again").expect("room");
    let error = again.commit_with(id).wait().expect_err("it was made");
    assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position: first });
}

/// By itself, when it was chosen, and while commits go on.
#[test]
fn p6_p12_a_log_collects_in_the_background() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().collect(Collect::Background).open(dir.path()).expect("opens");
    let mut kept = log.stream().expect("a stream");
    let mut gone = log.stream().expect("a stream");
    for turn in 0..200_u8 {
        gone.append([turn; 2_000]).expect("room");
        kept.append([turn; 20]).expect("room");
        log.commit_all([&mut gone, &mut kept]).wait().expect("committed");
    }
    gone.delete().wait().expect("deleted");
    let bytes = || read_dir(dir.path()).values().map(Vec::len).sum::<usize>();
    let before = bytes();
    let started = Instant::now();
    while bytes() > before / 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {before} bytes", bytes());
        kept.append("on").expect("room");
        kept.commit().wait().expect("committed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let count = kept.head().get() as usize;
    assert_eq!(log.snapshot().events(kept.id()).expect("known").count(), count);
    let id = kept.id();
    drop((kept, gone));
    log.close().expect("closes");
    let (snapshot, found) = Snapshot::open(dir.path()).expect("opens");
    assert!(found.is_sound());
    assert!(snapshot.events(id).expect("known").all(|event| event.is_ok()));
}

/// Streams come and go while others move and collect: whoever loses the race writes nothing, and loses nothing.
#[test]
fn p6_p8_p12_streams_move_while_they_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().open(dir.path()).expect("opens");
    let writer = |log: &Log, mark: u8| {
        let mut stream = log.stream().expect("a stream");
        for turn in 0..60_u8 {
            for n in 0..4 {
                stream.append([&[mark, turn, n][..], &[7; 400]].concat()).expect("active");
            }
            stream.commit().wait().expect("committed");
            if turn % 7 == 6 {
                stream.rewind(stream.head().get() - 2).expect("rewound");
            }
            stream.archive().wait().expect("archived");
            if turn % 3 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            stream.unarchive().wait().expect("active");
        }
        stream.archive().wait().expect("archived");
        stream
    };
    let (mut moved, mut lost) = (0, 0);
    let streams = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|mark| {
                let log = log.clone();
                scope.spawn(move || writer(&log, mark))
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let report = log.move_archived().expect("open");
            let is_race = |error: &amberlog::Error| {
                matches!(error.kind(), ErrorKind::Conflict { .. } | ErrorKind::UnknownStream(_))
            };
            assert!(report.refused.iter().all(is_race), "{:?}", report.refused);
            (moved, lost) = (moved + report.moved.len(), lost + report.refused.len());
            let report = log.collect(CollectOptions::new().dead_percent_min(0)).expect("open");
            assert!(report.refused.is_empty(), "{:?}", report.refused);
        }
        writers.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    println!("{moved} moves, {lost} of them lost the race");
    log.move_archived().expect("open");
    log.collect(CollectOptions::new().dead_percent_min(0)).expect("open");
    let before = shown(&log.snapshot());
    for stream in &streams {
        let events = stream.events().expect("open").map(|event| event.expect("whole"));
        let known: Vec<_> = events.map(|event| event.payload()[1..3].to_vec()).collect();
        // Of every seventh turn the last two were dropped.
        let kept = |turn: u8| if turn % 7 == 6 { 0..2 } else { 0..4 };
        let expected = (0..60).flat_map(|turn| kept(turn).map(move |n| vec![turn, n]));
        assert!(expected.eq(known), "{}", stream.id());
    }
    drop(streams);
    log.close().expect("closes");
    let found = amberlog::survey(dir.path()).expect("a log");
    assert_eq!((found.damages, found.archive_files), (vec![], 3));
    assert_eq!(shown(&Snapshot::open(dir.path()).expect("opens").0), before);
}

/// Of a file that loses its name nothing goes while somebody reads it: an older snapshot, another opening of the log, a
/// backup that shares it. What nobody reads is given back piece by piece, until it is empty.
#[test]
fn p7_what_somebody_reads_is_not_shortened() {
    for readers in 0..8 {
        let (has_snapshot, has_other, has_backup) =
            (readers & 1 > 0, readers & 2 > 0, readers & 4 > 0);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, copy) = (dir.path().join("log"), dir.path().join("copy"));
        let log = options().open(&path).expect("opens");
        let mut streams: Vec<Stream> = (0..2).map(|_| log.stream().expect("a stream")).collect();
        for turn in 0..60 {
            for stream in &mut streams {
                stream.append(vec![turn; 1_000]).expect("room");
                stream.commit().wait().expect("committed");
            }
        }
        let expected = shown(&log.snapshot());
        let snapshot = has_snapshot.then(|| log.snapshot());
        let other = has_other.then(|| Snapshot::open(&path).expect("opens").0);
        let backup = has_backup.then(|| log.backup(&copy).expect("backed up"));
        let entries = std::fs::read_dir(path.join("segments")).expect("a directory");
        let files = entries.map(|entry| watch(&entry.expect("an entry").path()));
        let length = |file: &std::fs::File| file.metadata().expect("open").len();
        let watched: Vec<_> = files.map(|file| (length(&file), file)).collect();
        streams[0].delete().wait().expect("deleted");
        let report = log.collect(CollectOptions::new().dead_percent_min(0)).expect("collected");
        assert!(report.refused.is_empty() && report.runs.len() > 1, "{report:?}");
        let emptied = watched.iter().filter(|(_, file)| length(file) == 0).count();
        let changed = watched.iter().filter(|(before, file)| length(file) != *before).count();
        if has_snapshot || has_other {
            assert_eq!(changed, 0, "what is read was shortened");
        } else if !has_backup {
            let collected: usize = report.runs.iter().map(|run| run.segments.len()).sum();
            assert_eq!(emptied, if is_told_who_reads(dir.path()) { collected } else { 0 });
        }
        for reader in snapshot.iter().chain(&other) {
            assert_eq!(shown(reader), expected);
        }
        if backup.is_some() {
            assert_eq!(shown(&Snapshot::open(&copy).expect("opens").0), expected);
        }
    }
}

/// A collection of very many segments holds only some of their files: a program may not open many.
#[cfg(target_os = "linux")]
#[test]
fn a_collection_opens_few_files() {
    let open_files = || std::fs::read_dir("/proc/self/fd").expect("there").count();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = log.open(dir.path().join("log")).expect("opens");
    let (mut kept, mut gone) = (log.stream().expect("a stream"), log.stream().expect("a stream"));
    for turn in 0..1_500_u64 {
        gone.append([turn as u8; 1_000]).expect("room");
        let os = CommitOptions::new().durability(amberlog::Durability::Os);
        gone.commit_with(os).wait().expect("committed");
        if turn % 3 == 0 {
            kept.append([turn as u8; 1_000]).expect("room");
            kept.commit_with(os).wait().expect("committed");
        }
    }
    gone.delete().wait().expect("deleted");
    // Two for each segment that is left, while the new one is made, and those that are held.
    let (before, most) = (open_files(), std::sync::atomic::AtomicUsize::new(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                most.fetch_max(open_files(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        let report = log.collect(CollectOptions::new().dead_percent_min(0)).expect("collected");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let collected: usize = report.runs.iter().map(|run| run.segments.len()).sum();
        assert!(report.refused.is_empty() && collected > 100, "{report:?}");
    });
    let most = most.into_inner();
    assert!(most < before + 100, "{before} files were open, and then {most}");
}

/// A file that is not open, and can be asked for its length when it has no name any more.
fn watch(path: &std::path::Path) -> std::fs::File {
    let mut options = std::fs::File::options();
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_PATH);
    options.read(true).open(path).expect("there")
}

/// Whether this file system tells who has a file open: ext2 to ext4, XFS, Btrfs, F2FS.
fn is_told_who_reads(dir: &std::path::Path) -> bool {
    #[cfg(target_os = "linux")]
    let kind = rustix::fs::statfs(dir).expect("there").f_type as i64;
    #[cfg(not(target_os = "linux"))]
    let kind = 0;
    [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010].contains(&kind)
}

/// Whoever shortens what is read is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_shortening_what_somebody_reads_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::ShortenShared);
    std::panic::catch_unwind(p7_what_somebody_reads_is_not_shortened).expect_err("unnoticed");
}

/// A collector that does not know who shares what is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_collector_that_forgets_what_is_shared_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    use std::panic::catch_unwind;
    let broken = sabotage(Sabotage::ForgetForks);
    catch_unwind(p9_what_a_fork_shares_is_not_collected_also_before_the_fork_is_committed)
        .expect_err("what a fork shares was collected, unnoticed");
    drop(broken);
    for what in [
        Sabotage::ForgetShared,
        Sabotage::RemoveEarly,
        Sabotage::CollectUnproven,
        Sabotage::ShortenEarly,
    ] {
        let broken = sabotage(what);
        let found =
            catch_unwind(p6_p7_p12_collecting_changes_nothing_that_is_shown).and_then(|()| {
                catch_unwind(p6_f25_f30_stopped_at_every_call_of_a_move_and_a_collection)
            });
        drop(broken);
        found.expect_err("unnoticed");
    }
}
