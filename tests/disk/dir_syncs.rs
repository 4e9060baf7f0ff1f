//! Is a sync of a directory that failed ever believed later?
//!
//! P3, P6; F10, F30, F46. Each call of a script fails once and forgets what it should have made durable, names included;
//! later syncs succeed. What was acknowledged is there after every power cut all the same.
#![cfg(feature = "sim")]

use amberlog::maintenance::CompactOptions;
use amberlog::sim::{Defect, Fault, SimDisk, repair_on};
use amberlog::{Log, Options, Stream, StreamId};

/// Power cuts of each state.
const CUTS: u64 = 4;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn commit(stream: &mut Stream, event: Vec<u8>) -> bool {
    stream.append(event).expect("room");
    stream.commit().wait().is_ok()
}

/// Events of the stream that can be read; `None` when there is no log, or not this stream.
fn events(disk: &SimDisk, id: StreamId) -> Option<usize> {
    let log = options().open_on(disk).ok()?;
    let view = log.read_view();
    Some(view.events(id).ok()?.filter(|event| event.is_ok()).count())
}

/// What was acknowledged is there after power cuts of the disk as it is, and after the process was killed, a new one has
/// opened the log and gone on, and then the power fails.
fn survives(disk: &SimDisk, id: StreamId, acked: usize, what: &str) {
    for seed in 0..CUTS {
        let found = events(&disk.after_power_cut(seed), id).unwrap_or(0);
        assert!(found >= acked, "{what}, cut {seed}: {found} of {acked} events");
        let killed = disk.after_kill();
        let Ok(log) = options().open_on(&killed) else { continue };
        let mut stream = log.open_stream(id).or_else(|_| log.create_stream()).expect("a stream");
        let (id, mut acked) = (stream.id(), if stream.id() == id { acked } else { 0 });
        for _ in 0..20 {
            acked += usize::from(commit(&mut stream, vec![7; 1500]));
        }
        let found = events(&killed.after_power_cut(seed), id).unwrap_or(0);
        assert!(found >= acked, "{what}, killed, cut {seed}: {found} of {acked} events");
    }
}

/// F46: commits, rolls and the first commit of a log.
fn every_call_of_a_writer(new_disk: &dyn Fn() -> SimDisk) {
    for call in 0.. {
        let disk = new_disk();
        let log = options().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        disk.fail_at(disk.calls() + call, Fault::LostSync);
        let (mut acked, mut buffered, mut fired) = (0, 0, 0);
        for n in 0..40_u8 {
            buffered += 1;
            if commit(&mut stream, vec![n; 1000]) {
                acked += buffered;
                buffered = 0;
            }
            if std::mem::replace(&mut fired, disk.faults_fired()) == 0 && fired == 1 {
                survives(&disk, stream.id(), acked, &format!("call {call}, at once"));
            }
        }
        if disk.faults_fired() == 0 {
            assert!(call > 20, "{call} calls");
            return;
        }
        survives(&disk, stream.id(), acked, &format!("call {call}"));
    }
}

/// F46: a compacted file takes the place of others.
fn every_call_of_a_compaction(new_disk: &dyn Fn() -> SimDisk) {
    for call in 0.. {
        let disk = new_disk();
        let log = options().open_on(&disk).expect("opens");
        let (mut dead, mut live) =
            (log.create_stream().expect("new"), log.create_stream().expect("new"));
        let mut acked = 0;
        for n in 0..40_u8 {
            assert!(commit(&mut dead, vec![n; 1500]));
            if n % 3 == 0 {
                assert!(commit(&mut live, vec![n; 4]));
                acked += 1;
            }
        }
        dead.delete().wait().expect("deleted");
        disk.fail_at(disk.calls() + call, Fault::LostSync);
        let _ = log.compact(CompactOptions::new());
        if disk.faults_fired() == 0 {
            assert!(call > 20, "{call} calls");
            return;
        }
        survives(&disk, live.id(), acked, &format!("call {call}"));
        // Compacted once more, by the same process and by another.
        let _ = log.compact(CompactOptions::new().dead_percent_min(0));
        survives(&disk, live.id(), acked, &format!("call {call}, compacted again"));
    }
}

#[test]
fn p3_f46_what_a_writer_acknowledged_survives_syncs_of_directories_that_failed() {
    every_call_of_a_writer(&|| SimDisk::new(2));
}

#[test]
fn p6_f46_what_was_compacted_survives_syncs_of_directories_that_failed() {
    every_call_of_a_compaction(&|| SimDisk::new(2));
}

/// F46: what a repair begins, and what it keeps.
#[test]
fn p6_f46_what_was_repaired_survives_syncs_of_directories_that_failed() {
    for call in 0.. {
        let disk = SimDisk::new(2);
        let log = options().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for n in 0..40_u8 {
            assert!(commit(&mut stream, vec![n; 1000]));
        }
        let last = disk.files().into_keys().filter(|path| path.ends_with(".seg")).max();
        let damaged = disk.after_kill();
        // A text in the place of the last segment: the log cannot go on behind it.
        damaged.write_file(&last.expect("some"), &[b'x'; 9000]);
        damaged.fail_at(damaged.calls() + call, Fault::LostSync);
        let repaired = repair_on(&damaged);
        if damaged.faults_fired() == 0 {
            repaired.expect("repaired");
            return;
        }
        damaged.forget_faults();
        repair_on(&damaged).expect("repaired");
        let log = options().open_on(&damaged).expect("opens");
        let mut next = log.create_stream().expect("a stream");
        for n in 0..4 {
            assert!(commit(&mut next, vec![n; 1000]));
        }
        for seed in 0..CUTS {
            let found = events(&damaged.after_power_cut(seed), next.id());
            assert_eq!(found, Some(4), "call {call}, cut {seed}");
        }
    }
}

/// F40: names that stay lost, although the engine gives them again, are noticed.
#[test]
fn control_a_disk_that_loses_names_for_good_is_noticed() {
    let loses = |pattern| {
        let disk = SimDisk::new(2);
        disk.set_defect(Defect::LostNames(pattern));
        disk
    };
    std::panic::catch_unwind(|| every_call_of_a_writer(&|| loses("segments")))
        .expect_err("the directory of the segments was lost, unnoticed");
    std::panic::catch_unwind(|| every_call_of_a_compaction(&|| loses("*.seg")))
        .expect_err("the name of a compacted segment was lost, unnoticed");
}
