//! Is a stream in a file of its own all of the stream, wherever the file lies?
//!
//! P6, P7, P13, P14; F26, F30, F36.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;

use amberlog::{
    CollectOptions, ErrorKind, Fault, Log, Options, Overflow, Position, SimDisk, Snapshot, Stream,
    StreamId, StreamOptions, StreamState, survey, survey_on,
};

/// Seq, position, generation, what was dropped before, payload.
type Events = Vec<(u64, u64, u32, u64, Vec<u8>)>;

fn events(snapshot: &Snapshot, id: StreamId) -> Events {
    let one = |event: amberlog::Result<amberlog::Event>| {
        let event = event.expect("whole");
        let position = event.position().map_or(0, Position::get);
        let (seq, generation) = (event.seq().get(), event.generation());
        (seq, position, generation, event.dropped_before(), event.payload().to_vec())
    };
    snapshot.events(id).expect("known").map(one).collect()
}

/// A parent, a fork of it that was rewound and trimmed, a flight recorder, and one of which only metadata is known.
fn streams(log: &Log) -> Vec<StreamId> {
    let commit = |stream: &mut Stream| {
        stream.commit().wait().expect("committed");
    };
    let mut parent = log.stream_with(&StreamOptions::new().name("parent")).expect("a stream");
    for turn in 0..60_u8 {
        parent.append([turn; 700]).expect("room");
        parent.set_label("turn", &turn.to_string()).expect("room");
        commit(&mut parent);
    }
    let mut child = parent.fork_at(40).expect("forked");
    child.append("own").expect("room");
    commit(&mut child);
    child.rewind(30).expect("rewound");
    child.append("again").expect("room");
    child.set_data(b"a little data").expect("room");
    commit(&mut child);
    child.trim(7).wait().expect("trimmed");
    let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(900);
    let mut recorder = log.stream_with(&recorder).expect("a stream");
    for turn in 0..30_u8 {
        recorder.append([turn; 200]).expect("room");
        if turn % 10 == 9 {
            commit(&mut recorder);
        }
    }
    let mut said = log.stream_with(&StreamOptions::new().name("said")).expect("a stream");
    said.append("gone").expect("room");
    commit(&mut said);
    said.trim(1).wait().expect("trimmed");
    vec![parent.id(), child.id(), recorder.id(), said.id()]
}

#[test]
fn p6_p7_p14_f36_an_archive_file_is_read_alone_and_is_all_of_the_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let log =
        Log::options().segment_bytes_first(16 << 10).open(dir.path().join("log")).expect("opens");
    let ids = streams(&log);
    let snapshot = log.snapshot();
    for id in ids {
        let report = log.write_archive(id).expect("written");
        assert_eq!(report.path, id.archive_path());
        let path = dir.path().join("log").join(&report.path);
        let elsewhere = dir.path().join("elsewhere.seg");
        std::fs::rename(&path, &elsewhere).expect("moved");
        let found = survey(&elsewhere).expect("an archive");
        assert_eq!((found.damages.len(), found.streams), (0, 1), "{:?}", found.damages);
        let (alone, _) = Snapshot::open(&elsewhere).expect("opens");
        assert_eq!(events(&alone, id), events(&snapshot, id));
        let backwards = |shown: &Snapshot| -> Vec<u64> {
            let all = shown.events(id).expect("known").rev();
            all.map(|event| event.expect("whole").seq().get()).collect()
        };
        assert_eq!(backwards(&alone), backwards(&snapshot));
        let (mut here, mut there) =
            (alone.stream(id).expect("known"), snapshot.stream(id).expect("known"));
        (here.segments, there.segments) = (0, 0);
        assert_eq!(here, there, "what is said of it");
        let by_position = alone.read_all(Position::START).expect("there");
        let by_position: Vec<_> =
            by_position.map(|event| event.map(|e| (e.seq(), e.position()))).collect();
        assert_eq!(by_position.len(), events(&snapshot, id).len(), "{by_position:?}");
        // Again, in place of the first.
        let again = log.write_archive(id).expect("written");
        assert_eq!((again.bytes, again.seqs), (report.bytes, report.seqs));
        is_told_when_damaged(&elsewhere, &alone, id);
    }
    let unknown = log.write_archive(StreamId::new()).expect_err("unknown");
    assert!(matches!(unknown.kind(), ErrorKind::UnknownStream(_)));
}

fn is_told_when_damaged(path: &std::path::Path, whole: &Snapshot, id: StreamId) {
    let (bytes, known) = (std::fs::read(path).expect("readable"), events(whole, id));
    let damaged = path.with_extension("damaged");
    for at in (0..bytes.len()).step_by(211) {
        for cut in [false, true] {
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x10;
            rotten.truncate(if cut { at } else { bytes.len() });
            std::fs::write(&damaged, rotten).expect("written");
            let Ok((shown, _)) = Snapshot::open(&damaged) else { continue };
            let found = survey(&damaged).expect("an archive");
            let Ok(read) = shown.events(id) else {
                assert!(!found.is_sound(), "byte {at}");
                continue;
            };
            let read: Vec<_> =
                read.filter_map(Result::ok).map(|event| event.payload().to_vec()).collect();
            assert!(read.len() == known.len() || !found.is_sound(), "byte {at}, cut {cut}");
            assert!(read.iter().all(|one| known.iter().any(|(.., payload)| payload == one)));
        }
    }
}

#[test]
fn p13_where_an_archive_lies_is_known_before_anything_is_there() {
    let log = Log::options().open_on(&SimDisk::new(1)).expect("opens");
    let stream = log.stream().expect("a stream");
    let path = stream.archive_path();
    assert_eq!(path, stream.id().archive_path());
    let text = path.to_str().expect("ascii");
    assert!(text.starts_with("archive/20") && text.ends_with(&format!("/{}.seg", stream.id())));
    let id: StreamId = "018fd0b2-7c00-7001-8000-000000000001".parse().expect("an id");
    assert_eq!(
        id.archive_path().to_str(),
        Some("archive/2024/05/018fd0b2-7c00-7001-8000-000000000001.seg")
    );
    let id: StreamId = "018ce5a7-0c00-7001-8000-000000000001".parse().expect("an id");
    assert!(
        id.archive_path().starts_with("archive/2024/01")
            || id.archive_path().starts_with("archive/2023/12")
    );
    assert!(StreamId::from_bytes([7; 16]).archive_path().starts_with("archive/0000/00"));
}

#[test]
fn f25_f30_an_archive_is_whole_or_not_there_wherever_the_machine_stops() {
    let disk = SimDisk::new(2);
    let log = Log::options().segment_bytes_first(16 << 10).open_on(&disk).expect("opens");
    let id = streams(&log)[1];
    let path = id.archive_path().to_string_lossy().into_owned();
    log.close().expect("closes");
    let run = |disk: &SimDisk| {
        let log = Log::options().segment_bytes_first(16 << 10).open_on(disk).expect("opens");
        let from = disk.calls();
        (from, log.write_archive(id).map(|report| report.bytes), disk.calls())
    };
    let whole = disk.copy();
    let (first, bytes, last) = run(&whole);
    let bytes = bytes.expect("written");
    for seed in 0..20 {
        let left = whole.after_power_cut(seed).files();
        assert_eq!(
            left.get(&path).map_or(0, |file| file.len() as u64),
            bytes,
            "it was said to be there"
        );
    }
    for call in first..last {
        let failing = disk.copy();
        failing.fail_at(call, Fault::Crash);
        let _ = run(&failing);
        for seed in 0..4 {
            let left = failing.after_power_cut(seed);
            let file = left.files().get(&path).map_or(0, |file| file.len() as u64);
            assert!(file == 0 || file == bytes, "call {call}: {file} of {bytes}");
            let (_, survey) = Snapshot::open_on(&left).expect("the log itself");
            assert!(survey.is_sound());
        }
    }
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

fn path_of(id: StreamId) -> String {
    id.archive_path().to_string_lossy().into_owned()
}

fn commit(stream: &mut Stream, turn: u8, bytes: usize) {
    stream.append(vec![turn; bytes]).expect("room");
    stream.commit().wait().expect("committed");
}

fn archive(log: &Log, id: StreamId) {
    log.resume(id).expect("known").archive().wait().expect("archived");
}

fn move_all(log: &Log) -> usize {
    let report = log.move_archived().expect("open");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    report.moved.len()
}

fn collect(log: &Log) -> u64 {
    let report = log.collect(CollectOptions::new().dead_percent_min(0)).expect("open");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    report.freed_bytes()
}

fn segment_bytes(disk: &SimDisk) -> usize {
    let files = disk.files();
    files.iter().filter(|(path, _)| path.starts_with("segments/")).map(|(_, all)| all.len()).sum()
}

/// Everything that is shown of all streams, from both ends.
fn all(snapshot: &Snapshot) -> BTreeMap<StreamId, Events> {
    let one = |id: StreamId| {
        let there = events(snapshot, id);
        let back = snapshot.events(id).expect("known").rev();
        let back: Vec<u64> = back.map(|event| event.expect("whole").seq().get()).collect();
        assert!(there.iter().rev().map(|event| event.0).eq(back));
        // A seq in the middle is found from anywhere.
        for (seq, ..) in there.iter().step_by(7) {
            let found = snapshot.events(id).expect("known").range(*seq..=*seq).next();
            assert_eq!(found.expect("there").expect("whole").seq().get(), *seq);
        }
        (id, there)
    };
    snapshot.streams().into_iter().map(|info| one(info.id)).collect()
}

/// The streams of `streams`, all archived, and one that lives among them.
fn archived(log: &Log) -> Vec<StreamId> {
    let mut other = log.stream().expect("a stream");
    commit(&mut other, 1, 100);
    let ids = streams(log);
    for turn in 0..40 {
        commit(&mut other, turn, 500);
    }
    ids.iter().for_each(|id| archive(log, *id));
    commit(&mut other, 2, 100);
    ids
}

#[test]
fn p6_p7_p12_what_moved_reads_as_before_and_leaves_the_segments() {
    let disk = SimDisk::new(3);
    let log = options().open_on(&disk).expect("opens");
    let ids = archived(&log);
    let pinned = log.snapshot();
    let before = all(&pinned);
    assert!(collect(&log) < 1_000, "an archived stream is wanted, but for what was trimmed");
    let bytes = segment_bytes(&disk);
    // Of one nothing is left but what is said of it.
    assert_eq!(move_all(&log), ids.len() - 1);
    assert_eq!(move_all(&log), 0, "once is enough");
    assert_eq!(all(&log.snapshot()), before);
    assert!(collect(&log) > 40 << 10);
    let left = segment_bytes(&disk);
    assert!(left + (40 << 10) < bytes, "{left} of {bytes} bytes are left");
    assert_eq!(all(&log.snapshot()), before);
    assert_eq!(all(&pinned), before, "who looked before goes on with what there was");
    for id in &ids[..3] {
        assert_eq!(log.snapshot().stream(*id).expect("known").state, StreamState::Archived);
        assert!(disk.files().contains_key(&path_of(*id)));
        let error = log.resume(*id).expect("known").append("no").expect_err("archived");
        assert_eq!(error.reason, amberlog::RefusedReason::Archived);
    }
    drop(pinned);
    log.close().expect("closes");
    let (snapshot, found) = Snapshot::open_on(&disk).expect("opens");
    assert!(found.is_sound());
    assert_eq!(all(&snapshot), before);
    let found = survey_on(&disk).expect("a log");
    assert_eq!((found.damages, found.archive_files), (vec![], 3));
    let log = options().open_on(&disk).expect("opens");
    assert_eq!(all(&log.snapshot()), before);
    assert_eq!((move_all(&log), all(&log.snapshot())), (0, before));
}

#[test]
fn p6_p8_unarchiving_copies_nothing_and_archiving_again_takes_everything_along() {
    let disk = SimDisk::new(4);
    let log = options().open_on(&disk).expect("opens");
    let id = archived(&log)[0];
    assert_eq!((move_all(&log), collect(&log) > 0), (3, true));
    let file = disk.files()[&path_of(id)].clone();
    let pinned = log.snapshot();
    let before = all(&pinned);
    let mut stream = log.resume(id).expect("known");
    stream.unarchive().wait().expect("active");
    for turn in 100..130 {
        commit(&mut stream, turn, 600);
    }
    assert_eq!(disk.files()[&path_of(id)], file, "the file stays what it was");
    assert_eq!(events(&log.snapshot(), id)[..60], before[&id]);
    assert_eq!(events(&log.snapshot(), id).len(), 90);
    // Back behind the end of the file, and on.
    stream.rewind(50).expect("rewound");
    commit(&mut stream, 7, 10);
    let now = all(&log.snapshot());
    assert_eq!(now[&id][..50], before[&id][..50]);
    assert_eq!((now[&id].len(), now[&id][50].2), (51, 1));
    stream.trim(3).wait().expect("trimmed");
    stream.archive().wait().expect("archived");
    let now = all(&log.snapshot());
    assert_eq!((move_all(&log), collect(&log) > 0), (1, true));
    assert_eq!(all(&log.snapshot()), now);
    assert_eq!(all(&pinned), before, "who looked before reads on in the old file");
    let names = |disk: &SimDisk| {
        let files = disk.files();
        files.keys().filter(|path| path.contains(&id.to_string())).cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&disk).len(), 2, "the old file is still there for that");
    drop(pinned);
    assert_eq!((collect(&log) as usize, names(&disk)), (file.len(), vec![path_of(id)]));
    drop(stream);
    log.close().expect("closes");
    let log = options().open_on(&disk).expect("opens");
    assert_eq!(all(&log.snapshot()), now);
    assert_eq!((move_all(&log), collect(&log)), (0, 0));
    // Written as a copy, a stream that has moved moves to it.
    log.write_archive(id).expect("written");
    assert_eq!((collect(&log) > 0, names(&disk)), (true, vec![path_of(id)]));
    assert_eq!(all(&log.snapshot()), now);
    // Gone with its stream, but for who still looks.
    let pinned = log.snapshot();
    log.resume(id).expect("known").delete().wait().expect("deleted");
    collect(&log);
    assert_eq!(events(&pinned, id), now[&id]);
    drop(pinned);
    assert_eq!((collect(&log) > 0, names(&disk)), (true, vec![]));
}

#[test]
fn p6_p9_forks_made_before_need_no_file_and_those_made_later_keep_it() {
    let disk = SimDisk::new(5);
    let log = options().open_on(&disk).expect("opens");
    let mut parent = log.stream().expect("a stream");
    for turn in 0..60 {
        commit(&mut parent, turn, 700);
    }
    let mut early = parent.fork_at(20).expect("forked");
    commit(&mut early, 200, 10);
    let mut late = parent.fork_at(30).expect("forked, and not committed yet");
    parent.archive().wait().expect("archived");
    assert_eq!((move_all(&log), collect(&log) > 10 << 10), (1, true));
    let mut later = parent.fork_at(40).expect("forked");
    for (fork, byte) in [(&mut late, 201), (&mut later, 202)] {
        commit(fork, byte, 10);
    }
    collect(&log);
    let before = all(&log.snapshot());
    let lengths = [&early, &late, &later].map(|fork| before[&fork.id()].len());
    assert_eq!(lengths, [21, 31, 41]);
    let (early, late, later) = (early.id(), late.id(), later.id());
    parent.delete().wait().expect("deleted");
    let id = parent.id();
    drop(parent);
    collect(&log);
    let check = |log: &Log| {
        let now = all(&log.snapshot());
        [early, late, later].iter().for_each(|fork| assert_eq!(now[fork], before[fork]));
    };
    check(&log);
    assert!(disk.files().contains_key(&path_of(id)), "it is shared");
    log.close().expect("closes");
    let log = options().open_on(&disk).expect("opens");
    collect(&log);
    check(&log);
    let file = disk.files()[&path_of(id)].clone();
    drop(log);
    disk.remove_file(&path_of(id));
    let log = options().open_on(&disk).expect("opens");
    assert_eq!(events(&log.snapshot(), early), before[&early]);
    let first = log.snapshot().events(later).expect("known").next().expect("something");
    assert_eq!(*first.expect_err("lost").kind(), ErrorKind::ArchiveMissing(id));
    disk.write_file(&path_of(id), &file);
    check(&log);
    for fork in [late, later] {
        log.resume(fork).expect("known").delete().wait().expect("deleted");
    }
    collect(&log);
    assert!(!disk.files().contains_key(&path_of(id)), "nobody shares it any more");
    assert_eq!(events(&log.snapshot(), early), before[&early]);
}

#[test]
fn p6_f26_a_file_that_is_lost_or_another_costs_its_stream_alone_until_it_is_back() {
    let disk = SimDisk::new(6);
    let log = options().open_on(&disk).expect("opens");
    let ids = archived(&log);
    move_all(&log);
    let mut parent = log.resume(ids[0]).expect("known");
    parent.unarchive().wait().expect("active");
    commit(&mut parent, 9, 10);
    collect(&log);
    let before = all(&log.snapshot());
    drop(parent);
    log.close().expect("closes");
    let (id, path) = (ids[0], path_of(ids[0]));
    let files = disk.files();
    let (right, other) = (files[&path].clone(), files[&path_of(ids[2])].clone());
    let log = options().open_on(&disk).expect("opens");
    let is_hurt = |expected: &ErrorKind| {
        for backwards in [false, true] {
            let shown = log.snapshot().events(id).expect("known");
            let read: Vec<_> = if backwards { shown.rev().collect() } else { shown.collect() };
            let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
            assert_eq!((good.len(), bad.len()), (1, 1), "what is not in the file is there");
            let error = bad.into_iter().find_map(Result::err).expect("an error");
            assert_eq!(error.kind(), expected);
            assert_eq!(error.place().expect("a place").path, id.archive_path());
        }
        let damages = survey_on(&disk).expect("a log").damages;
        assert!(damages.iter().all(|one| one.place.path == id.archive_path()), "{damages:?}");
        assert_eq!(damages.len(), 1, "{damages:?}");
        let now = log.snapshot();
        ids[1..3].iter().for_each(|id| assert_eq!(events(&now, *id), before[id]));
    };
    disk.remove_file(&path);
    is_hurt(&ErrorKind::ArchiveMissing(id));
    let refused = log.write_archive(id).expect_err("it cannot be read");
    assert_eq!(*refused.kind(), ErrorKind::ArchiveMissing(id));
    collect(&log);
    disk.write_file(&path, &other);
    is_hurt(&ErrorKind::WrongArchive(id));
    let corrupt = ErrorKind::Corrupt { stream: Some(id), seqs: Some(0.into()..60.into()) };
    disk.write_file(&path, b"nothing that anybody could read");
    is_hurt(&corrupt);
    disk.write_file(&path, &right);
    assert_eq!(all(&log.snapshot()), before, "without opening the log again");
    drop(log);
    // Rotten inside: what is hit is told, the rest is there.
    let mut rotten = right.clone();
    rotten[20_000] ^= 1;
    disk.write_file(&path, &rotten);
    let log = options().open_on(&disk).expect("opens");
    let read: Vec<_> = log.snapshot().events(id).expect("known").collect();
    assert_eq!(read.iter().filter(|event| event.is_err()).count(), 1);
    assert_eq!(read.len(), 61);
    assert!(!survey_on(&disk).expect("a log").is_sound());
    disk.write_file(&path, &right[..right.len() - 100]);
    drop(log);
    assert!(!survey_on(&disk).expect("a log").is_sound(), "it was cut");
}

#[test]
fn p6_p14_a_backup_has_the_files_and_brings_them_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (at, to) = (dir.path().join("log"), dir.path().join("backup"));
    let log = options().open(&at).expect("opens");
    let ids = archived(&log);
    move_all(&log);
    collect(&log);
    let before = all(&log.snapshot());
    let report = log.backup(&to).expect("backed up");
    assert_eq!(report.archive_files, 3);
    drop(log);
    let closed = dir.path().join("closed");
    assert_eq!(amberlog::backup(&at, &closed).expect("backed up").archive_files, 3);
    // Lost here, and put back from there, while the log is open.
    std::fs::remove_dir_all(at.join("archive")).expect("removed");
    let log = options().open(&at).expect("opens");
    let lost = log.snapshot().events(ids[1]).expect("known").next().expect("something");
    assert_eq!(*lost.expect_err("lost").kind(), ErrorKind::ArchiveMissing(ids[1]));
    for id in &ids[..3] {
        std::fs::create_dir_all(at.join(id.archive_path()).parent().expect("one")).expect("made");
        std::fs::copy(to.join(id.archive_path()), at.join(id.archive_path())).expect("copied");
    }
    assert_eq!(all(&log.snapshot()), before);
    drop(log);
    std::fs::remove_dir_all(&at).expect("removed");
    for backup in [to, closed] {
        assert_eq!(survey(&backup).expect("a log").damages, []);
        let log = options().open(&backup).expect("opens");
        assert_eq!(all(&log.snapshot()), before);
        // And a stream comes back from it.
        let mut stream = log.resume(ids[1]).expect("known");
        stream.unarchive().wait().expect("active");
        commit(&mut stream, 3, 10);
        assert_eq!(events(&log.snapshot(), ids[1]).len(), before[&ids[1]].len() + 1);
    }
}

/// F25, F30: what was said to have moved is there after any power cut, and so is everything else.
#[test]
fn p3_p6_f25_f30_what_has_moved_survives_every_power_cut() {
    let disk = SimDisk::new(7);
    let log = options().open_on(&disk).expect("opens");
    archived(&log);
    let before = all(&log.snapshot());
    move_all(&log);
    for seed in 0..40 {
        let left = disk.after_power_cut(seed);
        assert_eq!(survey_on(&left).expect("a log").damages, []);
        let log = options().open_on(&left).expect("opens");
        assert_eq!(all(&log.snapshot()), before);
        assert_eq!(move_all(&log), 0, "it is known to have moved");
    }
}

#[test]
fn p5_p12_a_quota_counts_the_files_and_what_lives_is_written_meanwhile() {
    let disk = SimDisk::new(8);
    let log = options().quota_bytes(160 << 10).open_on(&disk).expect("opens");
    let mut stream = log.stream().expect("a stream");
    for turn in 0..100 {
        commit(&mut stream, turn, 900);
    }
    stream.archive().wait().expect("archived");
    move_all(&log);
    let mut other = log.stream().expect("a stream");
    other.append(vec![0; 2_000]).expect("room");
    let error = other.commit().wait().expect_err("both are there");
    assert!(matches!(error.kind(), ErrorKind::QuotaExceeded { .. }), "{error}");
    collect(&log);
    other.commit().wait().expect("there is room");
    // A handle that was there before knows what became of its stream.
    stream.unarchive().wait().expect("active");
    commit(&mut stream, 100, 10);
    let all: Vec<_> = stream.events().expect("open").collect::<Result<_, _>>().expect("whole");
    assert_eq!(all.len(), 101);
}

/// By itself, when it was chosen: what is large enough for a file.
#[test]
fn p6_p12_a_log_moves_in_the_background() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().collect(amberlog::Collect::Background).open(dir.path()).expect("opens");
    let (mut large, mut small) = (log.stream().expect("a stream"), log.stream().expect("one"));
    for turn in 0..100 {
        commit(&mut large, turn, 1_000);
        commit(&mut small, turn, 10);
    }
    let before = all(&log.snapshot());
    large.archive().wait().expect("archived");
    small.archive().wait().expect("archived");
    let started = std::time::Instant::now();
    let segments = || std::fs::read_dir(dir.path().join("segments")).expect("there").count();
    let most = segments();
    while segments() + 3 > most {
        assert!(started.elapsed().as_secs() < 60, "{} of {most} segments", segments());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(dir.path().join(large.archive_path()).exists());
    assert!(!dir.path().join(small.archive_path()).exists());
    assert_eq!(all(&log.snapshot()), before);
}

#[cfg(feature = "json")]
#[test]
fn p6_an_export_has_what_moved() {
    let disk = SimDisk::new(9);
    let log = options().open_on(&disk).expect("opens");
    let ids = archived(&log);
    let export = |log: &Log| {
        let mut lines = Vec::new();
        log.snapshot().export_jsonl(&mut lines).expect("exported");
        String::from_utf8(lines).expect("JSON")
    };
    let before = export(&log);
    move_all(&log);
    collect(&log);
    assert_eq!(export(&log), before);
    // The fork shares what its parent does not have any more.
    log.resume(ids[0]).expect("known").delete().wait().expect("deleted");
    collect(&log);
    let copy = options().open_on(&SimDisk::new(10)).expect("opens");
    copy.import_jsonl(std::io::Cursor::new(export(&log))).expect("imported");
    let (there, here) = (all(&copy.snapshot()), all(&log.snapshot()));
    let plain = |all: &Events| -> Vec<_> {
        all.iter()
            .map(|(seq, _, generation, _, payload)| (*seq, *generation, payload.clone()))
            .collect()
    };
    for (id, events) in &here {
        assert_eq!(plain(&there[id]), plain(events));
    }
}

/// A commit that names a file which is not synced is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_move_to_a_file_that_is_not_synced_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::MoveUnsynced);
    std::panic::catch_unwind(p3_p6_f25_f30_what_has_moved_survives_every_power_cut)
        .expect_err("a file that was not there was read, unnoticed");
}
