//! Is a stream in a file of its own all of the stream, wherever the file lies?
//!
//! P6, P7, P13, P14; F26, F30, F36.
#![cfg(feature = "sim")]

use crate::support::verified::checked;
use amberlog::sim::{Defect, Fault, SimDisk};
use amberlog::{ErrorKind, Log, Overflow, Position, ReadView, Stream, StreamId, StreamOptions};

/// Seq, position, generation, what was dropped before, payload.
type Events = Vec<(u64, u64, u32, u64, Vec<u8>)>;

fn events(view: &ReadView, id: StreamId) -> Events {
    let one = |event: amberlog::Result<amberlog::Event>| {
        let event = event.expect("whole");
        let position = event.position().map_or(0, Position::get);
        let (seq, generation) = (event.seq().get(), event.generation());
        (seq, position, generation, event.dropped_before(), event.payload().to_vec())
    };
    view.events(id).expect("known").map(one).collect()
}

/// A parent, a fork of it that was rewound and trimmed, a flight recorder, and one of which only metadata is known.
fn streams(log: &Log) -> Vec<StreamId> {
    let commit = |stream: &mut Stream| {
        stream.commit().wait().expect("committed");
    };
    let mut parent =
        log.create_stream_with(&StreamOptions::new().name("parent")).expect("a stream");
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
    child.trim(7).expect("staged");
    child.commit().wait().expect("trimmed");
    let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(900);
    let mut recorder = log.create_stream_with(&recorder).expect("a stream");
    for turn in 0..30_u8 {
        recorder.append([turn; 200]).expect("room");
        if turn % 10 == 9 {
            commit(&mut recorder);
        }
    }
    let mut said = log.create_stream_with(&StreamOptions::new().name("said")).expect("a stream");
    said.append("gone").expect("room");
    commit(&mut said);
    said.trim(1).expect("staged");
    said.commit().wait().expect("trimmed");
    vec![parent.id(), child.id(), recorder.id(), said.id()]
}

#[test]
fn p6_p7_p14_f36_an_archive_file_is_read_alone_and_is_all_of_the_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let log =
        Log::options().segment_bytes_first(16 << 10).open(dir.path().join("log")).expect("opens");
    let ids = streams(&log);
    let view = log.read_view();
    for id in ids {
        let report = log.write_archive(id).expect("written");
        assert_eq!(report.path, id.archive_path());
        let path = dir.path().join("log").join(&report.path);
        let elsewhere = dir.path().join("elsewhere.seg");
        std::fs::rename(&path, &elsewhere).expect("moved");
        let found = checked(&elsewhere).expect("an archive");
        assert_eq!((found.damages.len(), found.streams), (0, 1), "{:?}", found.damages);
        let (alone, _) = ReadView::open(&elsewhere).expect("opens");
        assert_eq!(events(&alone, id), events(&view, id));
        let backwards = |shown: &ReadView| -> Vec<u64> {
            let all = shown.events(id).expect("known").rev();
            all.map(|event| event.expect("whole").seq().get()).collect()
        };
        assert_eq!(backwards(&alone), backwards(&view));
        let (mut here, mut there) = (alone.info(id).expect("known"), view.info(id).expect("known"));
        (here.segments, there.segments) = (0, 0);
        assert_eq!(here, there, "what is said of it");
        let by_position = alone.all_events(Position::START).expect("there");
        let by_position: Vec<_> =
            by_position.map(|event| event.map(|e| (e.seq(), e.position()))).collect();
        assert_eq!(by_position.len(), events(&view, id).len(), "{by_position:?}");
        // Again, in place of the first.
        let again = log.write_archive(id).expect("written");
        assert_eq!((again.bytes, again.seqs), (report.bytes, report.seqs));
        is_told_when_damaged(&elsewhere, &alone, id);
    }
    let unknown = log.write_archive(StreamId::new()).expect_err("unknown");
    assert!(matches!(unknown.kind(), ErrorKind::UnknownStream(_)));
}

fn is_told_when_damaged(path: &std::path::Path, whole: &ReadView, id: StreamId) {
    let (bytes, known) = (std::fs::read(path).expect("readable"), events(whole, id));
    let damaged = path.with_extension("damaged");
    for at in (0..bytes.len()).step_by(211) {
        for cut in [false, true] {
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x10;
            rotten.truncate(if cut { at } else { bytes.len() });
            std::fs::write(&damaged, rotten).expect("written");
            let Ok((shown, _)) = ReadView::open(&damaged) else { continue };
            let found = checked(&damaged).expect("an archive");
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
    let stream = log.create_stream().expect("a stream");
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
    stopped_anywhere(&SimDisk::new(2));
}

fn stopped_anywhere(disk: &SimDisk) {
    let log = Log::options().segment_bytes_first(16 << 10).open_on(disk).expect("opens");
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
            let (_, recovery) = ReadView::open_on(&left).expect("the log itself");
            assert!(recovery.is_sound());
        }
    }
}

/// A file that was said to be written and is not synced is noticed.
#[test]
fn control_an_archive_that_is_not_synced_is_noticed() {
    let disk = SimDisk::new(2);
    disk.set_defect(Defect::UnsyncedBytes("archive/*"));
    std::panic::catch_unwind(|| stopped_anywhere(&disk))
        .expect_err("a file was said to be there that a power cut takes away, unnoticed");
}
