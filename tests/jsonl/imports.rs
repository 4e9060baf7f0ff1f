//! Is an import that is cut off anywhere a beginning of what it was to be, and does the next one finish it?
//!
//! P3, P4, P6; F25. Logs of chance are exported and imported on a disk that stops at some call; what is left is
//! opened, and the same lines are imported once more.

#![cfg(all(feature = "json", feature = "sim"))]

use std::io::Cursor;

use crate::support::{Rng, env_or};
use amberlog::jsonl::{ImportOptions, Imported};
use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    ErrorKind, Log, NewEvent, Options, Overflow, Stream, StreamId, StreamOptions, StreamState,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn open(disk: &SimDisk) -> Log {
    options().open_on(disk).expect("opens")
}

fn export(log: &Log) -> String {
    let mut bytes = Vec::new();
    log.read_view().export_jsonl(&mut bytes).expect("whole");
    String::from_utf8(bytes).expect("JSON is text")
}

fn import(log: &Log, text: &str) -> amberlog::Result<Imported> {
    log.import_jsonl(Cursor::new(text))
}

fn resume(log: &Log, text: &str) -> amberlog::Result<Imported> {
    log.import_jsonl_with(&ImportOptions::new().resume(), Cursor::new(text))
}

fn commit(stream: &mut Stream) {
    stream.commit().wait().expect("committed");
}

fn fill(stream: &mut Stream, events: u64) {
    for _ in 0..events {
        stream.append(format!("{} of {}", stream.head(), stream.id())).expect("room");
    }
}

/// The export of a log in which streams went through whatever there is.
fn lives(seed: u64) -> String {
    let log = open(&SimDisk::new(seed));
    let mut rng = Rng::new(seed);
    let mut streams: Vec<Stream> = Vec::new();
    for turn in 0..50 {
        let nth = rng.below(streams.len().min(5) as u64 + 1) as usize;
        let Some(stream) = streams.get_mut(nth) else {
            let small = StreamOptions::new().ring_bytes_max(200);
            let mut stream = log
                .create_stream_with(&small.overflow(Overflow::OverwriteOldest))
                .expect("a stream");
            stream.rename(&format!("name {turn}")).expect("free");
            stream.set_data(&[turn; 3]).expect("fine");
            fill(&mut stream, 1 + rng.below(12));
            commit(&mut stream);
            streams.push(stream);
            continue;
        };
        let head = stream.head().get();
        match rng.below(9) {
            0 => {
                if let Ok(mut fork) = stream.fork_at(rng.below(head + 1)) {
                    fill(&mut fork, rng.below(3));
                    streams.push(fork);
                }
            }
            1 => drop(stream.rewind(rng.below(head + 1))),
            2 if stream.is_durable() && stream.state() == StreamState::Active => {
                drop(stream.trim(rng.below(head + 1)));
            }
            3 => drop(stream.set_label("l", &rng.next().to_string())),
            4 if rng.one_in(2) => {
                drop(stream.archive().wait());
                drop(streams.swap_remove(nth));
            }
            5 if rng.one_in(2) => {
                drop(stream.delete().wait());
                drop(streams.swap_remove(nth));
            }
            _ => fill(stream, rng.below(10)),
        }
        streams.get_mut(nth).into_iter().for_each(commit);
    }
    export(&log)
}

/// Finishes an import of this text that was stopped, killed or cut off, and returns its outcome.
fn is_finished(disk: &SimDisk, text: &str, context: &str) -> Imported {
    let log = open(disk);
    assert!(log.recovery_report().is_sound(), "{context}: {:?}", log.recovery_report());
    let there = log.read_view().position().get();
    let imported = resume(&log, text).unwrap_or_else(|error| panic!("{context}: {error}\n{text}"));
    assert_eq!(export(&log), text, "{context}");
    assert_eq!(log.read_view().position().get(), there + imported.commits, "{context}");
    let again = resume(&log, text).expect("nothing is left to do");
    assert_eq!((again.commits, again.events), (0, imported.events), "{context}");
    imported
}

#[test]
fn p3_p4_p6_f25_an_import_that_is_stopped_anywhere_is_finished_by_the_next_one() {
    for seed in 1..=env_or("AMBERLOG_EFFORT", 1) * 3 {
        let text = lives(seed);
        let disk = SimDisk::new(seed);
        let calls_before = {
            drop(open(&disk));
            disk.calls()
        };
        let log = open(&disk);
        let whole = import(&log, &text).expect("imported");
        assert_eq!(export(&log), text);
        let calls = disk.calls();
        let mut found = Vec::new();
        for call in (calls_before..calls).step_by(7) {
            let disk = SimDisk::new(seed);
            disk.fail_at(call, Fault::Crash);
            let Ok(log) = options().open_on(&disk) else { continue };
            drop(import(&log, &text));
            drop(log);
            for (way, left) in [disk.after_kill(), disk.after_power_cut(call)].iter().enumerate() {
                let context = format!("seed {seed}, call {call}, way {way}");
                found.push(is_finished(left, &text, &context).commits);
            }
        }
        let (least, most) = (found.iter().min(), found.iter().max());
        assert!(
            least < Some(&(whole.commits / 4)) && most > Some(&(whole.commits / 2)),
            "{found:?}"
        );
    }
}

/// A stream of several commits of 4 MiB is the only one that may be there in part.
#[test]
fn p4_a_large_stream_that_is_there_in_part_is_finished() {
    let log = open(&SimDisk::new(1));
    let mut large = log.create_stream().expect("a stream");
    for n in 0..13 {
        large.append(vec![b'a' + n; 1_000_000]).expect("room");
    }
    commit(&mut large);
    let text = export(&log);
    let mut heads = Vec::new();
    let disk = SimDisk::new(1);
    assert_eq!(import(&open(&disk), &text).expect("imported").commits, 3);
    for call in (disk.calls() / 4..disk.calls()).step_by(3) {
        let disk = SimDisk::new(1);
        disk.fail_at(call, Fault::Crash);
        let log = open(&disk);
        drop(import(&log, &text));
        drop(log);
        let left = disk.after_power_cut(call);
        let head = open(&left).read_view().info(large.id()).map_or(0, |info| info.head.get());
        heads.push(head);
        is_finished(&left, &text, &format!("call {call}"));
    }
    assert!(heads.iter().any(|head| (1..13).contains(head)), "{heads:?}");
}

/// The same when a call fails and the process goes on, in this life if the log is not poisoned, or in the next one.
#[test]
fn p5_an_import_that_fails_anywhere_is_finished_by_the_next_one() {
    assert!(fails_at_every(13) > 20);
}

/// An import fails at every so manieth call, in every way. Returns how many were finished without opening the log again.
fn fails_at_every(step: usize) -> u64 {
    let (text, mut finished) = (lives(1), 0);
    for (nth, fault) in
        [Fault::Io, Fault::Full, Fault::LostSync, Fault::DoneAndFailed].iter().enumerate()
    {
        for call in (nth as u64..400).step_by(step) {
            let disk = SimDisk::new(call);
            disk.fail_at(call, *fault);
            let Ok(log) = options().open_on(&disk) else { continue };
            drop(import(&log, &text));
            if disk.faults_fired() == 0 {
                break;
            }
            disk.set_capacity(u64::MAX);
            match resume(&log, &text) {
                Ok(_) => {
                    assert_eq!(export(&log), text, "{fault:?} at call {call}");
                    finished += 1;
                }
                Err(error) => {
                    assert_eq!(*error.kind(), ErrorKind::Poisoned, "{fault:?} at call {call}");
                }
            }
            drop(log);
            let left = disk.after_kill();
            left.set_capacity(u64::MAX);
            is_finished(&left, &text, &format!("{fault:?} at call {call}"));
        }
    }
    finished
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_an_import_that_goes_on_behind_a_failure_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::ImportGoOn);
    std::panic::catch_unwind(|| fails_at_every(1))
        .expect_err("a fork without what it shares was there, unnoticed");
}

#[test]
fn what_is_not_a_beginning_of_the_lines_is_refused_and_left_alone() {
    let text = lives(2);
    let whole = open(&SimDisk::new(1));
    import(&whole, &text).expect("imported");
    let ids: Vec<_> = whole.read_view().streams().iter().map(|info| info.id).collect();
    let refused = import(&whole, &text).expect_err("they are there");
    assert!(matches!(refused.kind(), ErrorKind::StreamExists(_)));
    type Edit = fn(&mut Stream);
    let changes: [(&str, Edit); 6] = [
        ("an event more", |stream| assert!(stream.append("more").is_ok())),
        ("another name", |stream| stream.rename("other").expect("free")),
        ("a label", |stream| stream.set_label("more", "1").expect("fine")),
        ("other data", |stream| stream.set_data(b"other").expect("fine")),
        ("an event of another shape", |stream| {
            let last = stream.events().expect("known").last().expect("one").expect("whole");
            stream.rewind(last.seq()).expect("rewound");
            let event = NewEvent::new(last.kind(), last.payload()).codec(last.codec());
            stream.append(event.schema_version(last.schema_version() + 1)).expect("room");
        }),
        ("an event less", |stream| {
            let head = stream.head().get();
            stream.rewind(head - 1).expect("rewound");
        }),
    ];
    let mut tried = 0;
    for id in ids {
        for (what, change) in changes {
            let log = open(&SimDisk::new(1));
            import(&log, &text).expect("imported");
            let mut stream = log.open_stream(id).expect("there");
            let is_empty = stream.head() <= stream.info().start;
            if stream.state() != StreamState::Active || is_empty {
                continue;
            }
            change(&mut stream);
            commit(&mut stream);
            let before = log.read_view().position();
            let refused = resume(&log, &text).expect_err(what);
            assert_eq!(*refused.kind(), ErrorKind::StreamExists(id), "{what}");
            assert_eq!(log.read_view().position(), before, "{what}");
            tried += 1;
        }
    }
    assert!(tried >= 10, "{tried}");
}

/// An import commits before a ring is full, whatever the log's rings do when they are.
#[test]
fn p6_an_import_into_a_log_of_flight_recorders_loses_nothing() {
    let source = open(&SimDisk::new(1));
    let mut stream = source.create_stream().expect("a stream");
    for n in 0..2_000 {
        stream.append(format!("event {n} {}", "x".repeat(200))).expect("room");
    }
    commit(&mut stream);
    let text = export(&source);
    for memory in [40 << 10, 300 << 10, 9 << 20] {
        let options = options().overflow(Overflow::OverwriteOldest).memory_bytes_max(memory);
        let log = options.open_on(&SimDisk::new(2)).expect("opens");
        let imported = import(&log, &text).expect("imported");
        assert_eq!((imported.events, export(&log) == text), (2_000, true), "{memory} bytes");
    }
}

/// Ids do not tell which stream came first. The fork's own events are imported before those that it shares.
#[test]
fn p6_the_archive_file_of_a_fork_whose_id_comes_first_is_whole() {
    let of = |id| StreamOptions::new().id(StreamId::from_bytes([id; 16]));
    let source = open(&SimDisk::new(1));
    let mut base = source.create_stream_with(&of(9)).expect("a stream");
    for event in ["one", "two"] {
        base.append(event).expect("room");
    }
    commit(&mut base);
    let mut fork = base.fork_with(2_u64, &of(1)).expect("a fork");
    fork.append("three").expect("room");
    commit(&mut fork);
    let log = open(&SimDisk::new(2));
    import(&log, &export(&source)).expect("imported");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let on_disk = Log::open(dir.path().join("log")).expect("opens");
    on_disk.import_jsonl(Cursor::new(export(&log))).expect("imported");
    let report = on_disk.write_archive(fork.id()).expect("written");
    let file = on_disk.path().join(&report.path);
    assert_eq!((report.seqs.end.get(), report.positions.start < report.positions.end), (3, true));
    let found = amberlog::verify::verify(&file).expect("readable");
    assert!(found.is_sound(), "{found:?}");
    let (view, _) = amberlog::ReadView::open(&file).expect("readable");
    let payload =
        |event: amberlog::Result<amberlog::Event>| event.expect("whole").payload().to_vec();
    let by_stream: Vec<_> = view.events(fork.id()).expect("known").map(payload).collect();
    let by_position: Vec<_> = view.all_events(0).expect("in range").map(payload).collect();
    assert_eq!(
        (by_stream, by_position.len()),
        (vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()], 3)
    );
}
