//! Is exactly that forgotten which the log's options do not keep?
//!
//! P2, P4, P6, P12; F25. Streams are written, forked, rewound and trimmed at random; what is shown after forgetting is
//! what was shown before, without what is over a bound, told by the times and sizes of the commits that the test made
//! itself. Wherever the machine stops, the streams of one commit are all trimmed or none is.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::verified::checked_on;
use crate::support::waiting::wait_until;
use crate::support::{Rng, env_or};
use amberlog::maintenance::{Bound, CompactOptions, RetainOptions, RetainReport};
use amberlog::options::{Compaction, Retention};
use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    ErrorKind, Log, Options, Overflow, Position, ReadView, Seq, Stream, StreamId, StreamOptions,
    StreamState, Timestamp,
};

/// Number of bytes of an event on disk beside its payload.
const FRAME_HEAD_BYTES: u64 = 16;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// Seq, position, first byte and length.
type One = (u64, u64, u8, usize);
type Shown = BTreeMap<StreamId, Vec<One>>;

fn shown(view: &ReadView) -> Shown {
    let read = |id: StreamId| {
        let one = |event: amberlog::Result<amberlog::Event>| {
            let event = event.expect("whole");
            let position = event.position().map_or(0, Position::get);
            (event.seq().get(), position, event.payload()[0], event.payload().len())
        };
        view.events(id).expect("known").map(one).collect::<Vec<_>>()
    };
    view.streams().into_iter().map(|info| (info.id, read(info.id))).collect()
}

/// When each commit was made, and what it took. No two at the same time.
#[derive(Default)]
struct Times {
    commits: BTreeMap<u64, (Timestamp, u64)>,
    last: Timestamp,
}

impl Times {
    fn commit(&mut self, stream: &mut Stream, bytes: u64) {
        while Timestamp::now() <= self.last {}
        if let Ok(commit) = stream.commit().wait() {
            self.last = commit.time;
            self.commits.insert(commit.position.get(), (commit.time, bytes));
        }
    }

    fn of(&self, position: u64) -> Timestamp {
        self.commits[&position].0
    }

    fn bytes(&self, position: u64) -> u64 {
        self.commits[&position].1
    }
}

fn append(stream: &mut Stream, byte: u8, bytes: usize) -> u64 {
    stream.append(vec![byte; bytes]).expect("room");
    FRAME_HEAD_BYTES + bytes as u64
}

/// A log with streams that were written, forked, rewound and trimmed; no gaps but those in front of a batch.
fn play(disk: &SimDisk, options: Options, seed: u64) -> (Log, Times) {
    let log = options.open_on(disk).expect("opens");
    let (mut rng, mut times, mut streams) = (Rng::new(seed), Times::default(), Vec::new());
    let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(900);
    for turn in 0..120_u64 {
        let pick = rng.next() as usize;
        let at = pick % streams.len().max(1);
        match rng.below(16) {
            _ if streams.len() < 3 => streams.push(log.create_stream().expect("a stream")),
            0 => streams.push(log.create_stream_with(&recorder).expect("a stream")),
            1 | 2 if streams.len() < 12 => {
                let parent: &Stream = &streams[at];
                let info = parent.info();
                let seq = info.start.get() + rng.next() % (info.head.get() - info.start.get() + 1);
                streams.extend(parent.fork_at(seq).ok());
            }
            3 => {
                let stream = &mut streams[at];
                let info = stream.info();
                let seq = info.start.get() + rng.next() % (info.head.get() - info.start.get() + 1);
                if stream.rewind(seq).is_ok() {
                    let bytes = append(stream, turn as u8, 50);
                    times.commit(stream, bytes);
                }
            }
            4 => {
                let info = streams[at].info();
                let _ = streams[at].trim(info.start.get() + (info.head.get() / 8));
                let _ = streams[at].commit().wait();
            }
            _ => {
                // A ring that overwrites keeps four of these.
                let bytes = 40 + rng.below(160);
                for _ in 0..1 + rng.below(7) {
                    append(&mut streams[at], turn as u8, bytes as usize);
                }
                let kept = streams[at].buffered();
                times.commit(&mut streams[at], kept * (FRAME_HEAD_BYTES + bytes));
            }
        }
    }
    (log, times)
}

/// Forgets, and compares: what `keeps` says of each stream's events before is what is shown after.
fn compare(log: &Log, now: Timestamp, keeps: impl Fn(&[One], u64) -> u64) {
    let pinned = log.read_view();
    let before = shown(&pinned);
    let with = RetainOptions::new().now(now);
    let plan = log.retain(with.dry_run()).expect("planned");
    assert_eq!(log.read_view().position(), pinned.position(), "a dry run commits nothing");
    let report = log.retain(with).expect("done");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    assert_eq!(plan.trimmed, report.trimmed, "it said what would go");
    assert_eq!(shown(&pinned), before, "a read view goes on showing what it showed (P12)");
    let mut after = Shown::new();
    for (id, events) in &before {
        let head = pinned.info(*id).expect("known").head.get();
        let first = keeps(events, head);
        let kept = events.iter().filter(|(seq, ..)| *seq >= first).copied().collect();
        after.insert(*id, kept);
    }
    let now = shown(&log.read_view());
    for (id, kept) in &after {
        let forgotten = report.trimmed.iter().find(|one| one.stream == *id);
        assert_eq!(now[id], *kept, "{forgotten:?}, of {:?}", before[id]);
    }
    let again = log.retain(with).expect("done");
    assert!(again.trimmed.is_empty(), "{again:?}");
    let known: u64 =
        report.trimmed.iter().map(|one| one.seqs.end.get() - one.seqs.start.get()).sum();
    assert_eq!(report.events_dropped(), known);
}

#[test]
fn p6_p12_what_is_over_a_bound_is_forgotten_and_nothing_else() {
    let mut forgotten = 0;
    for seed in 0..env_or("AMBERLOG_SEEDS", 40) {
        let age = Duration::from_secs(3600);
        let n = 1 + seed % 9;
        let retention = match seed % 3 {
            0 => Retention::new().age_max(age),
            1 => Retention::new().events_max(n),
            _ => Retention::new().bytes_max(n * 300),
        };
        let disk = SimDisk::new(seed);
        let (log, times) = play(&disk, options().retain(retention), seed);
        let all: Vec<Timestamp> = times.commits.values().map(|(time, _)| *time).collect();
        let before: usize = shown(&log.read_view()).values().map(Vec::len).sum();
        for part in 1..4 {
            let old = all[all.len() * part / 4];
            // Exactly as old as is kept, to the microsecond: that one stays.
            let now = Timestamp::from_micros(old.as_micros() + 3_600_000_000);
            compare(&log, now, |events, head| match seed % 3 {
                0 => {
                    let is_old = |(_, position, ..): &&One| times.of(*position) < old;
                    events.iter().rfind(is_old).map_or(0, |(seq, ..)| seq + 1)
                }
                1 => head.saturating_sub(n),
                _ => {
                    let mut bytes = 0;
                    let mut first = head;
                    for batch in events.chunk_by(|a, b| a.1 == b.1).rev() {
                        bytes += times.bytes(batch[0].1);
                        if bytes > n * 300 && first < head {
                            break;
                        }
                        first = batch[0].0;
                    }
                    first
                }
            });
            log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
        }
        let left = shown(&log.read_view());
        forgotten += before - left.values().map(Vec::len).sum::<usize>();
        log.close().expect("closes");
        let (opened, found) = ReadView::open_on(&disk).expect("opens");
        assert!(found.is_sound());
        assert_eq!(shown(&opened), left, "opened again");
    }
    assert!(forgotten > 1000, "{forgotten}");
}

fn filled(log: &Log, name: &str, commits: u8) -> Stream {
    let mut stream = log.create_stream_with(&StreamOptions::new().name(name)).expect("a stream");
    for turn in 0..commits {
        append(&mut stream, turn, 20);
        stream.commit().wait().expect("committed");
    }
    stream
}

fn later(seconds: u64) -> RetainOptions {
    let now = Timestamp::now().as_micros() + seconds * 1_000_000;
    RetainOptions::new().now(Timestamp::from_micros(now))
}

fn over(report: &RetainReport, stream: &Stream) -> Option<(Seq, Seq, Bound)> {
    let one = report.trimmed.iter().find(|one| one.stream == stream.id())?;
    Some((one.seqs.start, one.seqs.end, one.over))
}

#[test]
fn p2_labels_and_archives_are_kept_as_the_options_say() {
    let disk = SimDisk::new(1);
    let rules = options()
        .retain(Retention::new().events_max(2))
        .retain_label("kind", "audit", Retention::new())
        .retain_label("user", "7", Retention::new().events_max(4).archived());
    let log = rules.clone().open_on(&disk).expect("opens");
    let [mut plain, mut audit, mut user, mut kept] =
        ["plain", "audit", "user", "kept"].map(|name| filled(&log, name, 6));
    audit.set_label("user", "7").expect("set");
    audit.set_label("kind", "audit").expect("set");
    user.set_label("user", "7").expect("set");
    log.commit_all([&mut audit, &mut user]).wait().expect("committed");
    for stream in [&mut user, &mut kept] {
        stream.archive().wait().expect("archived");
    }
    drop((audit, plain.append("not committed").expect("room")));
    let report = log.retain(RetainOptions::new()).expect("done");
    assert_eq!(over(&report, &plain), Some((Seq::from(0), Seq::from(4), Bound::Events)));
    assert_eq!(over(&report, &user), Some((Seq::from(0), Seq::from(2), Bound::Events)));
    assert_eq!((report.streams_trimmed(), report.streams_deleted()), (2, 0));
    // Handles go on, and see what was forgotten.
    assert_eq!((plain.info().start, plain.buffered()), (Seq::from(4), 1));
    plain.commit().wait().expect("still the stream that it was");
    assert_eq!(log.state(kept.id()), Some(StreamState::Archived));
    drop((plain, user, kept));
    log.close().expect("closes");
    // A log that is told to keep everything keeps everything.
    let log = options().open_on(&disk).expect("opens");
    assert!(log.retain(later(1 << 40)).expect("done").trimmed.is_empty());
}

#[test]
fn p9_idle_streams_are_deleted_and_forks_keep_what_they_share() {
    let disk = SimDisk::new(2);
    let idle = Retention::new().idle_max(Duration::from_secs(60)).age_max(Duration::from_secs(600));
    let log = options().retain(idle).open_on(&disk).expect("opens");
    let parent = filled(&log, "parent", 30);
    let archived = filled(&log, "archived", 3).archive().wait().expect("archived");
    let mut child = parent.fork_at(20).expect("forked");
    assert!(log.retain(later(59)).expect("done").trimmed.is_empty());
    let report = log.retain(later(61)).expect("done");
    assert_eq!(over(&report, &parent), Some((Seq::from(0), Seq::from(30), Bound::Idle)));
    assert_eq!((report.streams_deleted(), report.events_dropped()), (1, 30));
    assert_eq!(log.state(parent.id()), Some(StreamState::Deleted));
    assert_eq!(log.read_view().find("parent"), None, "the name is free");
    assert!(log.read_view().find("archived").is_some() && archived.position.get() > 0);
    log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
    assert_eq!(child.events().expect("readable").filter(|event| event.is_ok()).count(), 20);
    append(&mut child, 9, 5);
    child.commit().wait().expect("committed");
    // Now it is a stream of the log, and was not idle. What it shares is old all the same.
    let report = log.retain(later(59)).expect("done");
    assert!(report.trimmed.is_empty(), "{report:?}");
    let mut late = parent;
    let refused = late.append("late").and_then(|_| late.append("later"));
    let error = late.commit().wait().err().map(|error| error.kind().clone());
    assert!(refused.is_err() || error == Some(ErrorKind::Deleted(late.id())));
}

/// Streams of one round go in one commit: all of them, or none.
fn p4_p6_f25_stopped_at_every_call(seeds: u64) {
    for seed in 0..seeds {
        let disk = SimDisk::new(seed);
        let log = options().open_on(&disk).expect("opens");
        let streams: Vec<_> = ["a", "b", "c", "d"].map(|name| filled(&log, name, 5)).into();
        drop(streams);
        log.close().expect("closes");
        let rules = || options().retain(Retention::new().events_max(2));
        let run = |disk: &SimDisk| {
            let log = rules().open_on(disk).expect("opens");
            let before = shown(&log.read_view());
            let first = disk.calls();
            let report = log.retain(RetainOptions::new()).expect("open");
            // A machine that has stopped reads nothing more.
            let (last, left) = (disk.calls(), disk.after_kill());
            left.set_capacity(u64::MAX);
            let now = rules().open_on(&left.copy()).map(|log| shown(&log.read_view()));
            (first, last, report, before, now.expect("opens"), left)
        };
        let (first, last, report, before, after, _) = run(&disk.copy());
        assert_eq!((report.streams_trimmed(), report.refused.len()), (4, 0));
        for fault in [Fault::Crash, Fault::LostSync, Fault::Io, Fault::Full] {
            for call in first..last {
                let failing = disk.copy();
                failing.fail_at(call, fault);
                let (.., report, _, now, killed) = run(&failing);
                let done = !report.trimmed.is_empty();
                let context = format!("{fault:?} at call {call}, told: {report:?}");
                assert!(now == after || now == before && !done, "{context}");
                let mut ways = vec![killed];
                ways.extend((0..8).map(|way| failing.after_power_cut(way)));
                for left in ways {
                    left.set_capacity(u64::MAX);
                    let log = rules().open_on(&left).expect("opens");
                    let found = shown(&log.read_view());
                    assert!(found == before && !done || found == after, "{context}");
                    log.retain(RetainOptions::new()).expect("done");
                    assert_eq!(shown(&log.read_view()), after, "{context}, again");
                }
            }
        }
    }
}

#[test]
fn p4_p6_f25_what_goes_together_goes_together() {
    p4_p6_f25_stopped_at_every_call(env_or("AMBERLOG_SEEDS", 2));
}

/// One that commits stream by stream is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_forgetting_stream_by_stream_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::RetainApart);
    std::panic::catch_unwind(|| p4_p6_f25_stopped_at_every_call(1))
        .expect_err("some streams were trimmed and others not, unnoticed");
}

#[test]
fn p6_of_a_damaged_log_nothing_is_forgotten() {
    let disk = SimDisk::new(4);
    let rules = options().retain(Retention::new().events_max(1));
    let log = rules.clone().open_on(&disk).expect("opens");
    drop(filled(&log, "a", 20));
    log.close().expect("closes");
    let first = "segments/0000000001.seg";
    let mut bytes = disk.files()[first].clone();
    bytes[5000] ^= 1;
    disk.write_file(first, &bytes);
    assert!(!checked_on(&disk).expect("a log").is_sound());
    let log = rules.open_on(&disk).expect("opens");
    let report = log.retain(RetainOptions::new()).expect("open");
    assert!(report.trimmed.is_empty());
    assert!(matches!(report.refused[0].kind(), ErrorKind::Corrupt { .. }), "{report:?}");
}

/// By itself, when it was chosen, also when nothing is committed any more.
#[test]
fn p2_a_log_forgets_in_the_background() {
    let dir = tempfile::tempdir().expect("a directory");
    let rule = Retention::new().age_max(Duration::from_millis(300));
    let rules = || options().retain_label("kind", "trace", rule);
    let log = rules().compaction(Compaction::Background).open(dir.path()).expect("opens");
    let (mut trace, kept) = (filled(&log, "trace", 20), filled(&log, "kept", 20));
    trace.set_label("kind", "trace").expect("set");
    trace.commit().wait().expect("committed");
    wait_until("a log that forgets by itself", || {
        log.read_view().info(trace.id()).expect("known").start >= Seq::from(20)
    });
    assert_eq!(log.read_view().info(kept.id()).expect("known").start, Seq::from(0));
    drop((trace, kept));
    log.close().expect("closes");
    let log = rules().open(dir.path()).expect("opens");
    assert!(log.retain(RetainOptions::new()).expect("done").trimmed.is_empty());
}
