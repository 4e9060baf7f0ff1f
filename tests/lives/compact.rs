//! Does a compaction change anything that a reader can see?
//!
//! P4, P6, P7, P12; F24, F25, F30. Streams live at random, with compactions in between: a read view
//! shows the same before and after, wherever the machine stops, and dead events leave the disk.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::verified::{checked, checked_on};
use crate::support::waiting::wait_until;
use crate::support::{Rng, env_or, read_dir, segment};
use amberlog::maintenance::{CompactOptions, CompactReport};
use amberlog::sim::{Fault, SimDisk};
use amberlog::verify::SegmentState;
use amberlog::{
    CommitId, CommitOptions, ErrorKind, Log, Options, Position, ReadView, Stream, StreamId,
    StreamInfo, StreamState, options::Compaction,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// Contents of a read view by stream: its metadata, and its events forwards, by seq.
pub(crate) type Shown = BTreeMap<StreamId, (StreamInfo, Vec<(u64, u64, u8, usize)>)>;

pub(crate) fn shown(view: &ReadView) -> Shown {
    let mut all = Shown::new();
    for mut info in view.streams() {
        let events = || view.events(info.id).expect("known");
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
        // How many segments there are is what compacting is about.
        info.segments = 0;
        all.insert(info.id, (info, forwards));
    }
    all
}

/// By position nothing may be missed that a stream shows.
fn by_position(view: &ReadView) -> usize {
    let all = view.all_events(Position::START).expect("there");
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
        for info in log.read_view().streams() {
            streams.extend(log.open_stream(info.id));
        }
        Self { log, streams, rng }
    }

    fn turn(&mut self) {
        let (roll, pick) = (self.rng.below(46), self.rng.next());
        let Some(at) = (pick as usize).checked_rem(self.streams.len()) else {
            return self.streams.push(self.log.create_stream().expect("a stream"));
        };
        let seq = |stream: &Stream| {
            let info = stream.id();
            let start = self.log.read_view().info(info).map_or(0, |info| info.start.get());
            start + pick / 7 % (stream.head().get() - start + 1)
        };
        match roll {
            0..3 => self.streams.push(self.log.create_stream().expect("a stream")),
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
                let _ = self.streams[at].trim(to);
            }
            8 => drop(self.streams[at].archive().wait()),
            9 => drop(self.streams[at].unarchive().wait()),
            10..13 => {
                let mut gone = self.streams.remove(at);
                gone.delete().wait().expect("deleted");
            }
            13 => drop(self.streams[at].set_label("turn", &pick.to_string())),
            14 => drop(self.streams[at].set_data(&vec![pick as u8; pick as usize % 3_000])),
            15 => drop(self.streams[at].remove_label("turn")),
            16 => drop(self.streams[at].rename(&format!("name {pick}"))),
            17 => drop(self.streams[at].clear_name()),
            18 => drop(self.streams[at].set_label(&format!("label {}", pick % 20), "set")),
            19 => drop(self.streams[at].remove_label(&format!("label {}", pick % 20))),
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

    /// A stream that takes some segments for itself.
    fn stream_in_its_own_segments(&mut self) -> StreamId {
        let mut stream = self.log.create_stream().expect("a stream");
        for turn in 0..40_u8 {
            stream.append([turn; 2_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
        stream.id()
    }

    fn compact(&self) -> CompactReport {
        let report = self.log.compact(CompactOptions::new().dead_percent_min(0)).expect("open");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        report
    }

    /// Compacts, and compares what was shown before with what is shown now, by old read views and handles too.
    fn compact_and_compare(&self) -> CompactReport {
        let pinned = self.log.read_view();
        let before = shown(&pinned);
        let read = |stream: &Stream| -> Vec<_> {
            let events = stream.events().expect("readable");
            events.map(|event| event.expect("whole").payload().to_vec()).collect()
        };
        let handles: Vec<_> = self.streams.iter().map(read).collect();
        let report = self.compact();
        assert_eq!(shown(&pinned), before, "a read view that was taken before (P12)");
        assert_eq!(shown(&self.log.read_view()), before, "a read view that is taken now");
        assert_eq!(self.streams.iter().map(read).collect::<Vec<_>>(), handles, "handles (P9)");
        by_position(&self.log.read_view());
        report
    }
}

pub(crate) fn same_when_opened_again(disk: &SimDisk, before: &Shown) {
    let found = amberlog::sim::verify_quick_on(disk).expect("a log");
    assert_eq!(found.damages, []);
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert_eq!(&shown(&view), before, "another process sees it");
    by_position(&view);
}

#[test]
fn p6_p7_p12_compacting_changes_nothing_that_is_shown() {
    let seeds = env_or("AMBERLOG_SEEDS", 30);
    let (mut runs, mut dropped) = (0, 0);
    for seed in 0..seeds {
        let disk = SimDisk::new(seed);
        let mut play = Play::new(&disk, seed);
        for round in 0..6 {
            for _ in 0..60 {
                play.turn();
            }
            let report = play.compact_and_compare();
            runs += report.runs.len();
            dropped += report.runs.iter().map(|run| run.events_dropped).sum::<u64>();
            let before = shown(&play.log.read_view());
            same_when_opened_again(&disk, &before);
            if round % 2 == 1 {
                assert!(checked_on(&disk).expect("a log").is_sound());
                play = play.reopen(&disk);
                assert_eq!(shown(&play.log.read_view()), before, "seed {seed}, opened again (F24)");
            }
        }
    }
    assert!(runs as u64 > seeds && dropped > seeds * 20, "{runs} runs, {dropped} events");
}

#[test]
fn p6_what_nobody_can_see_is_gone_and_a_deleted_stream_stays_deleted() {
    let disk = SimDisk::new(3);
    let log = options().open_on(&disk).expect("opens");
    let mut kept = log.create_stream().expect("a stream");
    let mut gone = Vec::new();
    for turn in 0..120_u8 {
        let mut stream = log.create_stream().expect("a stream");
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
    let plan = log.compact(CompactOptions::new().dry_run()).expect("planned");
    assert_eq!(bytes(&disk), before);
    let report = log.compact(CompactOptions::new()).expect("compacted");
    assert_eq!(plan.runs, report.runs);
    assert_eq!((before - bytes(&disk)) as u64, report.freed_bytes());
    assert!(bytes(&disk) < before / 2, "{} of {before} bytes are left", bytes(&disk));
    for view in [log.read_view(), ReadView::open_on(&disk).expect("opens").0] {
        assert_eq!(view.events(kept.id()).expect("known").count(), 12);
        for id in &ids {
            let error = view.events(*id).expect_err("deleted");
            assert_eq!(*error.kind(), ErrorKind::Deleted(*id));
        }
    }
    assert!(ids.iter().all(|id| log.state(*id) == Some(StreamState::Deleted)));
}

#[test]
fn p9_what_a_fork_shares_is_not_compacted_also_before_the_fork_is_committed() {
    let disk = SimDisk::new(4);
    let log = options().open_on(&disk).expect("opens");
    let mut parent = log.create_stream().expect("a stream");
    for turn in 0..60_u8 {
        parent.append([turn; 1_000]).expect("room");
        parent.commit().wait().expect("committed");
    }
    let mut child = parent.fork_at(20).expect("forked");
    parent.delete().wait().expect("deleted");
    let report = log.compact(CompactOptions::new()).expect("compacted");
    assert!(report.runs.iter().map(|run| run.events_dropped).sum::<u64>() > 5, "{report:?}");
    let read =
        |child: &Stream| child.events().expect("readable").map(|event| event.is_ok()).collect();
    let whole: Vec<bool> = read(&child);
    assert_eq!(whole, [true; 20]);
    child.append("own").expect("room");
    child.commit().wait().expect("committed");
    log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
    let whole: Vec<bool> = read(&child);
    assert_eq!(whole, [true; 21]);
    let id = child.id();
    drop((child, parent));
    log.close().expect("closes");
    let (view, _) = ReadView::open_on(&disk).expect("opens");
    assert!(view.events(id).expect("known").all(|event| event.is_ok()));
}

#[test]
fn p6_f25_f30_stopped_at_every_call_of_a_compaction() {
    for seed in 0..env_or("AMBERLOG_SEEDS", 4) {
        let disk = SimDisk::new(seed);
        let mut play = Play::new(&disk, seed + 100);
        (0..150).for_each(|_| play.turn());
        play.log.commit_all(&mut play.streams).wait().expect("committed");
        let gone = play.stream_in_its_own_segments();
        play.streams.clear();
        let kept = shown(&play.log.read_view());
        let mut deleted = kept.clone();
        deleted.remove(&gone);
        let either = |now: &Shown| if now.contains_key(&gone) { &kept } else { &deleted };
        play.log.close().expect("closes");
        let start = disk.after_kill();
        let run = |disk: &SimDisk| {
            let log = options().open_on(disk).expect("opens");
            let first = disk.calls();
            // The last commit before a compaction: only the compactor has a tail record synced behind it.
            let _ = log.open_stream(gone).expect("known").delete().wait();
            let _ = log.compact(CompactOptions::new().dead_percent_min(0));
            (first, disk.calls(), disk.after_kill())
        };
        let (first, last, _) = run(&start.copy());
        let mut states = HashSet::new();
        for fault in [Fault::Crash, Fault::LostSync, Fault::Io] {
            for call in first..last {
                let failing = start.copy();
                failing.fail_at(call, fault);
                let (_, _, killed) = run(&failing);
                let mut ways = vec![killed];
                let cuts = (0..4).map(|way| failing.after_power_cut(way));
                ways.extend(cuts.filter(|cut| states.insert(cut.fingerprint())));
                for left in ways {
                    let seen = shown(&ReadView::open_on(&left).expect("opens").0);
                    same_when_opened_again(&left, either(&seen));
                    let log = options().open_on(&left).expect("opens for writing");
                    let seen = shown(&log.read_view());
                    assert_eq!(&seen, either(&seen), "{fault:?} at call {call}");
                    log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
                    drop(log);
                    same_when_opened_again(&left.after_power_cut(9), &seen);
                }
            }
        }
    }
}

/// It is the log that remembers what commits were called: a retry is told of the first, also when its stream was deleted,
/// compacted, and the log opened again.
#[test]
fn p6_a_commit_that_was_made_is_not_made_again_when_its_stream_is_gone() {
    let disk = SimDisk::new(9);
    let log = options().open_on(&disk).expect("opens");
    let id = CommitOptions::new().id(CommitId::from(7));
    let mut gone = log.create_stream().expect("a stream");
    gone.append([1; 2_000]).expect("room");
    let first = gone.commit_with(id).wait().expect("committed").position;
    for turn in 0..40_u8 {
        gone.append([turn; 2_000]).expect("room");
        gone.commit().wait().expect("committed");
    }
    gone.delete().wait().expect("deleted");
    let report = log.compact(CompactOptions::new()).expect("compacted");
    assert!(report.freed_bytes() > 40_000, "{report:?}");
    drop(gone);
    log.close().expect("closes");
    let log = options().open_on(&disk).expect("opens");
    let mut again = log.create_stream().expect("a stream");
    again.append("again").expect("room");
    let error = again.commit_with(id).wait().expect_err("it was made");
    assert_eq!(*error.kind(), ErrorKind::AlreadyCommitted { position: first });
}

/// By itself, when it was chosen, and while commits go on.
#[test]
fn p6_p12_a_log_compacts_in_the_background() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().compaction(Compaction::Background).open(dir.path()).expect("opens");
    let mut kept = log.create_stream().expect("a stream");
    let mut gone = log.create_stream().expect("a stream");
    for turn in 0..200_u8 {
        gone.append([turn; 2_000]).expect("room");
        kept.append([turn; 20]).expect("room");
        log.commit_all([&mut gone, &mut kept]).wait().expect("committed");
    }
    gone.delete().wait().expect("deleted");
    let bytes = || read_dir(dir.path()).values().map(Vec::len).sum::<usize>();
    let before = bytes();
    wait_until("a log that compacts by itself", || {
        kept.append("on").expect("room");
        kept.commit().wait().expect("committed");
        bytes() <= before / 2
    });
    let count = kept.head().get() as usize;
    assert_eq!(log.read_view().events(kept.id()).expect("known").count(), count);
    let id = kept.id();
    drop((kept, gone));
    log.close().expect("closes");
    let (view, found) = ReadView::open(dir.path()).expect("opens");
    assert!(found.is_sound());
    assert!(view.events(id).expect("known").all(|event| event.is_ok()));
}

/// Streams are written, rewound, archived and unarchived while the log is compacted: nothing is lost.
#[test]
fn p6_p12_streams_are_compacted_while_they_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().open(dir.path()).expect("opens");
    let compaction = &AtomicU64::new(0);
    let writer = |log: &Log, mark: u8| {
        let mut stream = log.create_stream().expect("a stream");
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
                let seen = compaction.load(Ordering::SeqCst);
                wait_until("a compaction", || compaction.load(Ordering::SeqCst) > seen);
            }
            stream.unarchive().wait().expect("active");
        }
        stream.archive().wait().expect("archived");
        stream
    };
    let streams = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|mark| {
                let log = log.clone();
                scope.spawn(move || writer(&log, mark))
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("open");
            compaction.fetch_add(1, Ordering::SeqCst);
            assert!(report.refused.is_empty(), "{:?}", report.refused);
        }
        writers.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    log.compact(CompactOptions::new().dead_percent_min(0)).expect("open");
    let before = shown(&log.read_view());
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
    let found = crate::support::verified::checked(dir.path()).expect("a log");
    assert_eq!(found.damages, []);
    assert_eq!(shown(&ReadView::open(dir.path()).expect("opens").0), before);
}

/// A file that loses its name stays whole while an older read view, another opening of the log, or
/// a backup shares it. A file without readers is given back piece by piece, until it is empty.
#[test]
fn p7_what_somebody_reads_is_not_shortened() {
    for readers in 0..8 {
        let (has_view, has_other, has_backup) = (readers & 1 > 0, readers & 2 > 0, readers & 4 > 0);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, copy) = (dir.path().join("log"), dir.path().join("copy"));
        let log = options().open(&path).expect("opens");
        let mut streams: Vec<Stream> =
            (0..2).map(|_| log.create_stream().expect("a stream")).collect();
        for turn in 0..60 {
            for stream in &mut streams {
                stream.append(vec![turn; 1_000]).expect("room");
                stream.commit().wait().expect("committed");
            }
        }
        // A full segment loses its unused space when it is sealed, which is another matter.
        let in_state = |state: SegmentState| {
            let segments = checked(&path).expect("readable").segments;
            let found = segments.into_iter().filter(|one| one.state == state);
            found.map(|one| one.number).collect::<Vec<_>>()
        };
        wait_until("full segments that are sealed", || in_state(SegmentState::Unsealed).is_empty());
        let expected = shown(&log.read_view());
        let view = has_view.then(|| log.read_view());
        let other = has_other.then(|| ReadView::open(&path).expect("opens").0);
        let backup = has_backup.then(|| log.backup(&copy).expect("backed up"));
        let sealed = in_state(SegmentState::Sealed).into_iter();
        let files = sealed.map(|number| watch(&segment(&path, number)));
        let length = |file: &std::fs::File| file.metadata().expect("open").len();
        let watched: Vec<_> = files.map(|file| (length(&file), file)).collect();
        streams[0].delete().wait().expect("deleted");
        let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
        assert!(report.refused.is_empty() && report.runs.len() > 1, "{report:?}");
        let emptied = watched.iter().filter(|(_, file)| length(file) == 0).count();
        let changed = watched.iter().filter(|(before, file)| length(file) != *before).count();
        if has_view || has_other {
            assert_eq!(changed, 0, "what is read was shortened");
        } else if !has_backup {
            let compacted: usize = report.runs.iter().map(|run| run.segments.len()).sum();
            assert_eq!(emptied, if is_told_who_reads(dir.path()) { compacted } else { 0 });
        }
        for reader in view.iter().chain(&other) {
            assert_eq!(shown(reader), expected);
        }
        if backup.is_some() {
            assert_eq!(shown(&ReadView::open(&copy).expect("opens").0), expected);
        }
    }
}

/// A compaction of very many segments holds only some of their files: a program may not open many.
#[cfg(target_os = "linux")]
#[test]
fn a_compaction_opens_few_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Only those of this log: other tests of this process have files of their own.
    let open_files = || {
        let open = std::fs::read_dir("/proc/self/fd").expect("there").flatten();
        let paths = open.filter_map(|file| std::fs::read_link(file.path()).ok());
        paths.filter(|path| path.starts_with(dir.path())).count()
    };
    let log = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = log.open(dir.path().join("log")).expect("opens");
    let (mut kept, mut gone) =
        (log.create_stream().expect("a stream"), log.create_stream().expect("a stream"));
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
        let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let compacted: usize = report.runs.iter().map(|run| run.segments.len()).sum();
        assert!(report.refused.is_empty() && compacted > 100, "{report:?}");
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

/// Reports whether this file system knows which files are open: ext2 to ext4, XFS, Btrfs, F2FS.
fn is_told_who_reads(dir: &std::path::Path) -> bool {
    #[cfg(target_os = "linux")]
    let kind = rustix::fs::statfs(dir).expect("there").f_type as i64;
    #[cfg(not(target_os = "linux"))]
    let kind = 0;
    [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010].contains(&kind)
}

/// Control: a compactor that shortens a file with readers is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_shortening_what_somebody_reads_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::ShortenShared);
    std::panic::catch_unwind(p7_what_somebody_reads_is_not_shortened).expect_err("unnoticed");
}

/// Control: a compactor that forgets what forks share is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_compactor_that_forgets_what_is_shared_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    use std::panic::catch_unwind;
    let broken = sabotage(Sabotage::ForgetForks);
    catch_unwind(p9_what_a_fork_shares_is_not_compacted_also_before_the_fork_is_committed)
        .expect_err("what a fork shares was compacted, unnoticed");
    drop(broken);
    for what in [
        Sabotage::ForgetShared,
        Sabotage::RemoveEarly,
        Sabotage::CompactUnproven,
        Sabotage::ShortenEarly,
    ] {
        let broken = sabotage(what);
        let found = catch_unwind(p6_p7_p12_compacting_changes_nothing_that_is_shown)
            .and_then(|()| catch_unwind(p6_f25_f30_stopped_at_every_call_of_a_compaction));
        drop(broken);
        assert!(found.is_err(), "{what:?} went unnoticed");
    }
}
