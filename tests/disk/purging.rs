//! Is what was deleted gone from the log's files once a purge returns, and does its report name what still holds it?
//!
//! P4, P6, P7, P12; F25, F30, F45, F46. A secret is committed and its stream deleted; then every byte of every file is
//! searched for it. The machine stops, and the disk fails, at every call of a purge.
#![cfg(feature = "sim")]

use std::collections::HashSet;
use std::path::Path;

use super::deleting::{self, Shown, by_position, delete, options, stopped_at_every_call};
use crate::support::read_dir;
use crate::support::verified::{checked, checked_on};
use amberlog::maintenance::{CompactOptions, CompactReport, Holder, HolderKind};
use amberlog::sim::{Fault, SimDisk};
use amberlog::{Error, ErrorKind, Log, ReadView, Result, StreamId, StreamOptions, StreamState};

pub(crate) const SECRET: &[u8] = b"the-launch-code-is-0000";
/// Of the name, the label and the data of the stream, and of an event that was never committed.
const RELATED: &[u8] = b"launch-code";

pub(crate) fn purge(log: &Log) -> Result<CompactReport> {
    log.compact(CompactOptions::new().purge())
}

/// Number of places in the log's own files where something of the secret stands.
pub(crate) fn hits(disk: &SimDisk) -> usize {
    let files = disk.files();
    let own = files.iter().filter(|(path, _)| !path.starts_with("copy"));
    own.map(|(_, bytes)| count(bytes)).sum()
}

fn count(bytes: &[u8]) -> usize {
    bytes.windows(RELATED.len()).filter(|window| *window == RELATED).count()
}

/// Contents of each stream that is not deleted. By position a reader also finds rewound and deleted
/// events until they are compacted.
fn shown(view: &ReadView) -> Shown {
    let (all, there) = (deleting::shown(view), by_position(view));
    let there: HashSet<_> = there.into_iter().collect();
    for (id, events) in &all {
        assert!(events.iter().all(|event| there.contains(&(*id, event.clone()))));
    }
    all
}

/// A log in which the secret lies in sealed segments and in the active one, beside events of another stream.
pub(crate) struct Layout {
    pub(crate) secret: StreamId,
    pub(crate) kept: Shown,
}

/// The number of commits decides how many segments there are, and where in the active one the last stands.
pub(crate) fn write(log: &Log, commits: usize) -> Layout {
    let mut other = log.create_stream().expect("a stream");
    let name = StreamOptions::new().name("launch-code of all rockets");
    let mut secret = log.create_stream_with(&name).expect("a stream");
    secret.set_label("launch-code", "launch-code").expect("room");
    secret.set_data(b"launch-code 1").expect("room");
    for turn in 0..commits {
        other.append(vec![turn as u8; 1_000]).expect("room");
        secret.append(SECRET.repeat(20)).expect("room");
        match turn % 3 {
            0 => drop(log.commit_all([&mut other, &mut secret]).wait().expect("committed")),
            _ => {
                secret.commit().wait().expect("committed");
                other.commit().wait().expect("committed");
            }
        }
    }
    secret.append(SECRET).expect("room");
    let (id, mut kept) = (secret.id(), shown(&log.read_view()));
    kept.remove(&id);
    Layout { secret: id, kept }
}

fn holder(path: &str, kind: HolderKind) -> (String, HolderKind) {
    (path.to_owned(), kind)
}

fn held(report: &CompactReport) -> Vec<(String, HolderKind)> {
    let named = |one: &Holder| (one.path.display().to_string(), one.kind);
    report.held.iter().map(named).collect()
}

fn is_sound(disk: &SimDisk, layout: &Layout) {
    let found = checked_on(disk).expect("a log");
    assert!(found.is_sound(), "{:?}", found.damages);
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert_eq!(shown(&view), layout.kept);
}

#[test]
fn p4_p6_f30_what_was_deleted_is_in_no_file_once_a_purge_returns() {
    for (commits, seed) in [(0, 0), (1, 1), (2, 2), (12, 3), (40, 4)] {
        let disk = SimDisk::new(seed);
        let log = options().open_on(&disk).expect("opens");
        let layout = write(&log, commits);
        assert_eq!(hits(&disk) > 0, commits > 0);
        if commits > 0 {
            delete(&log, layout.secret);
            // What the log did before: the segment that commits go to stays.
            let any = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
            assert!(any.held.is_empty() && hits(&disk) > 0);
        }
        let report = purge(&log).expect("purged");
        assert!(report.refused.is_empty() && report.held.is_empty(), "{report:?}");
        assert_eq!(hits(&disk), 0, "{commits} commits");
        for cut in 0..8 {
            let left = disk.after_power_cut(cut);
            assert_eq!(hits(&left), 0, "{commits} commits, cut {cut}");
            if commits > 0 {
                is_sound(&left, &layout);
            }
        }
        if commits == 0 {
            assert!(disk.files().is_empty());
            continue;
        }
        is_sound(&disk, &layout);
        // A second one finds nothing, and begins no further segment.
        let files = disk.files();
        assert!(purge(&log).expect("purged").runs.is_empty());
        assert!(disk.files().keys().eq(files.keys()));
        let mut more = log.create_stream().expect("a stream");
        more.append("more").expect("room");
        more.commit().wait().expect("committed");
        log.close().expect("closes");
        let log = options().open_on(&disk).expect("opens");
        assert!(log.recovery_report().is_sound() && log.recovery_report().closed_cleanly);
        assert_eq!(log.state(layout.secret), Some(StreamState::Deleted));
        delete(&log, more.id());
        assert!(purge(&log).expect("purged").held.is_empty());
        assert_eq!(shown(&log.read_view()), layout.kept);
        log.close().expect("closes");
        is_sound(&disk, &layout);
    }
}

/// Events that trims and rewinds have taken go where nothing of their commit is left of the stream; those of commits that
/// failed are in no file either.
#[test]
fn p4_p9_f3_what_was_trimmed_rewound_or_never_committed_is_gone() {
    let disk = SimDisk::new(11);
    let log = options().open_on(&disk).expect("opens");
    let (mut trimmed, mut rewound) =
        (log.create_stream().expect("a stream"), log.create_stream().expect("a stream"));
    for turn in 0..12 {
        for stream in [&mut trimmed, &mut rewound] {
            stream
                .append(if turn == 0 { b"first".to_vec() } else { SECRET.repeat(40) })
                .expect("room");
            stream.commit().wait().expect("committed");
        }
    }
    trimmed.append("last").expect("room");
    trimmed.commit().wait().expect("committed");
    trimmed.trim(12).expect("staged");
    trimmed.commit().wait().expect("trimmed");
    rewound.rewind(1).expect("rewound");
    rewound.commit().wait().expect("committed");
    let kept = shown(&log.read_view());
    assert_eq!(kept.values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty() && report.held.is_empty(), "{report:?}");
    assert_eq!(hits(&disk), 0);
    log.close().expect("closes");
    let layout = Layout { secret: trimmed.id(), kept };
    is_sound(&disk, &layout);
    for call in 0..3 {
        let disk = disk.copy();
        let log = options().open_on(&disk).expect("opens");
        let mut failed = log.create_stream().expect("a stream");
        failed.append(SECRET.repeat(100)).expect("room");
        disk.fail_at(disk.calls() + call, Fault::Io);
        let is_made = failed.commit().wait().is_ok();
        drop((failed, log));
        let disk = disk.after_kill();
        let log = options().open_on(&disk).expect("opens");
        let mut shown_now = shown(&log.read_view());
        shown_now.retain(|id, _| !layout.kept.contains_key(id));
        shown_now.keys().for_each(|id| delete(&log, *id));
        assert!(!is_made || shown_now.len() == 1);
        let report = purge(&log).expect("purged");
        assert!(report.refused.is_empty() && report.held.is_empty(), "{report:?}");
        assert_eq!(hits(&disk), 0, "call {call}");
        drop(log);
    }
}

/// A little that is dead between very many small commits: what is left may take more than there was, since records are moved
/// to where their heads lie in one sector.
#[test]
fn p4_however_little_is_dead_it_is_gone() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let log = options().open_on(&disk).expect("opens");
        let mut other = log.create_stream().expect("a stream");
        let mut secret = log.create_stream().expect("a stream");
        for turn in 0..40 {
            other.append(vec![7; (seed as usize * 13 + turn * turn) % 90]).expect("room");
            if turn == 1 {
                secret.append(RELATED).expect("room");
                log.commit_all([&mut other, &mut secret]).wait().expect("committed");
            } else {
                other.commit().wait().expect("committed");
            }
        }
        // The delete record lies in another segment.
        assert!(purge(&log).expect("purged").runs.is_empty());
        delete(&log, secret.id());
        let kept = shown(&log.read_view());
        let report = purge(&log).expect("purged");
        assert!(report.refused.is_empty() && report.held.is_empty(), "{report:?}");
        assert_eq!(hits(&disk), 0, "seed {seed}");
        assert_eq!(shown(&log.read_view()), kept);
    }
}

/// The first thing that a process does is to purge: a log that was closed cleanly, killed, or purged and closed.
#[test]
fn p3_p6_a_purge_is_the_first_thing_that_a_process_does() {
    let disk = SimDisk::new(5);
    let log = options().open_on(&disk).expect("opens");
    let layout = write(&log, 12);
    delete(&log, layout.secret);
    let killed = disk.after_kill();
    log.close().expect("closes");
    for disk in [disk, killed] {
        for round in 0..3 {
            let log = options().open_on(&disk).expect("opens");
            let report = purge(&log).expect("purged");
            assert_eq!(report.runs.is_empty(), round > 0, "{report:?}");
            assert_eq!((hits(&disk), report.held.len()), (0, 0));
            is_sound(&disk.after_kill(), &layout);
            is_sound(&disk.after_power_cut(round), &layout);
            if round < 2 {
                log.close().expect("closes");
            }
        }
        is_sound(&disk, &layout);
    }
}

#[test]
fn p7_the_report_names_what_still_holds_the_bytes() {
    let disk = SimDisk::new(6);
    let log = options().open_on(&disk).expect("opens");
    let layout = write(&log, 12);
    log.write_archive(layout.secret).expect("archived");
    log.backup("copy").expect("backed up");
    let pinned = log.read_view();
    let before = shown(&pinned);
    delete(&log, layout.secret);
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty(), "{report:?}");
    let named = held(&report);
    let archive = layout.secret.archive_path().display().to_string();
    assert!(named.contains(&holder(&archive, HolderKind::Archive)), "{named:?}");
    assert!(named.contains(&holder("segments/0000000001.seg", HolderKind::HardLinks(1))));
    let of = |kind| named.iter().filter(|one| one.1 == kind).count();
    assert!(of(HolderKind::ReadView) >= 2, "{named:?}");
    // Every file that holds something is named.
    let holding = |disk: &SimDisk| {
        let files = disk.files().into_iter().filter(|(_, bytes)| count(bytes) > 0);
        files.map(|(path, _)| path).collect::<Vec<_>>()
    };
    let own = |path: &&String| !path.starts_with("copy");
    for path in holding(&disk).iter().filter(own) {
        assert!(named.iter().any(|one| one.0 == *path), "{path}: {named:?}");
    }
    assert_eq!(shown(&pinned), before);
    drop(pinned);
    let report = purge(&log).expect("purged");
    assert_eq!(held(&report), [holder(&archive, HolderKind::Archive)]);
    disk.remove_file(&archive);
    assert!(purge(&log).expect("purged").held.is_empty());
    assert_eq!(hits(&disk), 0);
    assert!(holding(&disk).iter().all(|path| path.starts_with("copy")));
    assert!(!holding(&disk).is_empty(), "the backup has it");
    is_sound(&disk, &layout);
}

/// The report names files kept by a repair or left by an earlier compaction.
#[test]
fn p6_files_of_repairs_and_of_earlier_compaction_are_named() {
    let disk = SimDisk::new(7);
    let log = options().open_on(&disk).expect("opens");
    let layout = write(&log, 12);
    delete(&log, layout.secret);
    let kept = ["segments/0000000001.seg.4096.torn", "segments/0000000009.seg.aside.2"];
    kept.iter().for_each(|path| disk.write_file(path, SECRET));
    let left = "segments/0000000001.00000001.seg.new";
    disk.write_file(left, SECRET);
    disk.write_file("segments/notes.txt", b"somebody else's");
    let report = purge(&log).expect("purged");
    let expected = [
        holder(left, HolderKind::Leftover),
        holder(kept[0], HolderKind::Repair),
        holder(kept[1], HolderKind::Repair),
    ];
    assert_eq!(held(&report), expected);
}

/// Whatever happens at whichever call: the log is sound, what others wrote is there, and the next purge ends it.
#[test]
fn p4_p5_p6_f25_f30_f45_f46_a_purge_may_be_stopped_at_every_call() {
    let disk = SimDisk::new(8);
    let log = options().open_on(&disk).expect("opens");
    let layout = write(&log, 12);
    delete(&log, layout.secret);
    log.close().expect("closes");
    let purged = |disk: &SimDisk| {
        let log = options().open_on(disk)?;
        let purged = purge(&log);
        let left = hits(disk);
        let _ = log.close();
        purged.map(|report| (report, left))
    };
    let run = |disk: &SimDisk, fault: Option<Fault>, context: &str| match (purged(disk), fault) {
        (Ok((report, left)), Some(_)) => {
            let is_told = !report.refused.is_empty() || !report.held.is_empty();
            assert!(left == 0 || is_told, "{context}: {report:?}");
        }
        (Ok((_, left)), None) => assert_eq!(left, 0),
        (Err(error), Some(Fault::Full | Fault::OverQuota)) => {
            assert_eq!(*error.kind(), ErrorKind::StorageFull, "{context}: {error}");
        }
        (Err(_), Some(_)) => {}
        (Err(error), None) => panic!("purged: {error}"),
    };
    stopped_at_every_call(&disk, run, |left, context| check(left, &layout, context));
}

fn check(disk: &SimDisk, layout: &Layout, context: &str) {
    let found = amberlog::sim::verify_quick_on(disk).expect("a log");
    assert_eq!(found.damages, [], "{context}");
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert_eq!(shown(&view), layout.kept, "{context}");
    let log = options().open_on(disk).expect("opens for writing");
    assert!(log.recovery_report().is_sound(), "{context}");
    assert_eq!(shown(&log.read_view()), layout.kept, "{context}");
    let mut more = log.create_stream().expect("a stream");
    more.append(SECRET).expect("room");
    more.commit().wait().expect("committed");
    delete(&log, more.id());
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty() && report.held.is_empty(), "{context}: {report:?}");
    assert_eq!(hits(disk), 0, "{context}");
    assert_eq!(shown(&log.read_view()), layout.kept, "{context}");
    log.close().expect("closes");
    let (view, found) = ReadView::open_on(&disk.after_power_cut(7)).expect("opens");
    assert_eq!(found.damages, [], "{context}");
    assert_eq!(shown(&view), layout.kept, "{context}");
}

/// On a full disk a purge says so, and the log goes on as it was; a compaction still drops what is wholly dead.
#[test]
fn p5_f45_a_purge_on_a_full_disk_is_refused_and_loses_nothing() {
    let (mut failed, mut refused) = (0, 0);
    // In the larger segments no next one lies ready yet.
    for (fault, bytes, commits) in [
        (Fault::Full, 16 << 10, 12),
        (Fault::OverQuota, 16 << 10, 12),
        (Fault::Full, 64 << 10, 2),
        (Fault::OverQuota, 64 << 10, 2),
    ] {
        for seed in 0..4 {
            let disk = SimDisk::new(seed);
            let options = options().segment_bytes_first(bytes).segment_bytes_max(bytes);
            let log = options.open_on(&disk).expect("opens");
            let layout = write(&log, commits);
            delete(&log, layout.secret);
            disk.fail_at(disk.calls(), fault);
            let is_full = |error: &Error| *error.kind() == ErrorKind::StorageFull;
            match purge(&log) {
                Err(error) => {
                    assert!(is_full(&error), "{error}");
                    failed += 1;
                }
                Ok(report) => {
                    assert!(report.refused.iter().all(is_full), "{report:?}");
                    assert!(hits(&disk) == 0 || !report.refused.is_empty(), "{report:?}");
                    refused += usize::from(!report.refused.is_empty());
                }
            }
            assert_eq!(shown(&log.read_view()), layout.kept);
            is_sound(&disk.after_kill(), &layout);
            disk.forget_faults();
            disk.set_capacity(u64::MAX);
            let report = purge(&log).expect("purged");
            assert!(report.refused.is_empty() && report.held.is_empty(), "{report:?}");
            assert_eq!(hits(&disk), 0);
            log.close().expect("closes");
            is_sound(&disk, &layout);
        }
    }
    assert!(failed > 0 && refused > 0, "{failed} failed, {refused} refused");
}

/// Commits go on beside a purge, and none of them is lost or held up for good.
#[test]
fn p3_p7_commits_go_on_beside_purges() {
    let disk = SimDisk::new(10);
    disk.allow_threads();
    let log = options().open_on(&disk).expect("opens");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let log = log.clone();
                scope.spawn(move || {
                    let mut stream = log.create_stream().expect("a stream");
                    for turn in 0..60 {
                        stream.append([writer.wrapping_add(turn); 700]).expect("room");
                        stream.commit().wait().expect("committed");
                    }
                    stream.id()
                })
            })
            .collect();
        for _ in 0..12 {
            let mut secret = log.create_stream().expect("a stream");
            secret.append(SECRET).expect("room");
            secret.commit().wait().expect("committed");
            secret.delete().wait().expect("deleted");
            let report = purge(&log).expect("purged");
            assert!(report.refused.is_empty(), "{report:?}");
            // A writer may just look at the segments as they were.
            assert!(report.held.iter().all(|one| one.kind == HolderKind::ReadView), "{report:?}");
            assert!(hits(&disk) == 0 || !report.held.is_empty());
        }
        for writer in writers {
            let id = writer.join().expect("no panic");
            assert_eq!(shown(&log.read_view())[&id].len(), 60);
        }
    });
    assert!(purge(&log).expect("purged").refused.is_empty());
    log.close().expect("closes");
    assert_eq!(hits(&disk), 0);
    assert!(checked_on(&disk).expect("a log").is_sound());
}

/// As above, in a directory of the real system.
#[test]
fn p4_p6_f30_in_a_real_directory_nothing_of_it_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let in_files = |path: &Path| read_dir(path).values().map(|bytes| count(bytes)).sum::<usize>();
    let log = options().open(&path).expect("opens");
    let layout = write(&log, 12);
    let copy = dir.path().join("copy");
    log.backup(&copy).expect("backed up");
    let pinned = log.read_view();
    delete(&log, layout.secret);
    assert!(in_files(&path) > 0);
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty(), "{report:?}");
    let named = held(&report);
    assert!(named.iter().any(|one| one.1 == HolderKind::ReadView), "{named:?}");
    let segments = path.join("segments");
    for (name, _) in read_dir(&segments).iter().filter(|(_, bytes)| count(bytes) > 0) {
        let name = name.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(named.iter().any(|one| one.0.ends_with(&name)), "{name}: {named:?}");
    }
    drop(pinned);
    let report = purge(&log).expect("purged");
    assert!(report.held.is_empty(), "{report:?}");
    assert_eq!(in_files(&path), 0);
    assert!(in_files(&copy) > 0);
    log.close().expect("closes");
    assert!(checked(&path).expect("a log").is_sound());
    let (view, _) = ReadView::open(&path).expect("opens");
    assert_eq!(shown(&view), layout.kept);
    assert_eq!(in_files(&path), 0);
}

/// Controls: a purge that leaves the segment that commits go to as it is, and one that looks at sizes.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_purge_that_leaves_something_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    use std::panic::catch_unwind;
    let controls: [(_, fn()); 2] = [
        (Sabotage::PurgeSealed, p4_p6_f30_what_was_deleted_is_in_no_file_once_a_purge_returns),
        (Sabotage::PurgeBySize, p4_however_little_is_dead_it_is_gone),
    ];
    for (what, test) in controls {
        let broken = sabotage(what);
        let found = catch_unwind(test);
        drop(broken);
        assert!(found.is_err(), "{what:?} went unnoticed");
    }
}

/// A quota that is used up by what is dead in the active segment: a purge makes room again.
#[test]
fn p5_a_purge_gives_back_a_quota_that_the_active_segment_uses_up() {
    let disk = SimDisk::new(1);
    let log = Log::options().quota_bytes(200_000).open_on(&disk).expect("opens");
    for _ in 0..4 {
        let mut stream = log.create_stream().expect("a stream");
        let mut commits = 0;
        let refused = loop {
            stream.append([7; 5_000]).expect("room");
            match stream.commit().wait() {
                Ok(_) => commits += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused.kind(), ErrorKind::QuotaExceeded { .. }), "{refused}");
        assert!(commits > 20, "{commits}");
        stream.discard();
        stream.delete().wait().expect("deleted");
        log.compact(CompactOptions::new().purge()).expect("purged");
    }
}
