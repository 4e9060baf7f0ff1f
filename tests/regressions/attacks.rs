//! Bugs that scripts of chance found on the simulated disk (tests/crashes.rs).

use std::collections::HashSet;

use amberlog::sim::{Fault, SimDisk};
use amberlog::{AppendError, Durability, ErrorKind, Log, Overflow, Stream, StreamOptions};

use super::{os, small};

fn commit(stream: &mut Stream, bytes: usize) -> bool {
    stream.append(vec![7; bytes]).is_ok() && stream.commit().wait().is_ok()
}

/// Opens every state in which a power cut can leave this disk, or `most` of them; none may be damaged or refused.
fn all_open(disk: &SimDisk, most: u128, what: &str) {
    for way in 0..disk.power_cuts().min(most) {
        let log = small().open_on(&disk.power_cut(way));
        let log = log.unwrap_or_else(|error| panic!("{what}, way {way}: {error}"));
        assert!(
            log.recovery_report().is_sound(),
            "{what}, way {way}: {:?}",
            log.recovery_report().damages
        );
    }
}

/// Reading over what an overwriting ring had dropped, the record that says how much was looked for. When the disk
/// refused just that read, the seqs were told as damaged (forwards), or the gap as not there (backwards): an
/// error of the disk says nothing about the bytes. F22.
#[test]
fn f22_a_read_that_fails_is_no_damage() {
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let how = StreamOptions::new().ring_bytes_max(2_000).overflow(Overflow::OverwriteOldest);
    let mut stream = log.create_stream_with(&how).expect("a stream");
    for _ in 0..3 {
        for _ in 0..6 {
            stream.append([7; 600]).expect("drops the oldest");
        }
        stream.commit().wait().expect("committed");
    }
    let view = log.read_view();
    let (mut away, mut failed) = (0, 0);
    loop {
        let before = disk.faults_fired();
        disk.fail_at(disk.calls() + away, Fault::Io);
        let events = || view.events(stream.id()).expect("known");
        let forwards: Vec<_> = events().collect();
        let backwards: Vec<_> = events().rev().collect();
        disk.forget_faults();
        for event in forwards.iter().chain(&backwards) {
            match event {
                Ok(event) => {
                    let first = event.seq().get() % 6 == 3;
                    assert_eq!(event.dropped_before(), if first { 3 } else { 0 }, "{event:?}");
                }
                Err(error) => {
                    failed += 1;
                    assert_eq!(*error.kind(), ErrorKind::Io, "call {away}: {error}");
                }
            }
        }
        if disk.faults_fired() == before {
            break;
        }
        away += 1;
    }
    assert!(failed > 1, "the disk refused {failed} reads");
}

/// An event that did not fit in a ring any more was refused with "the log's memory is full" when the ring's buffer
/// had not grown to its bound yet. P10: the program would have freed memory elsewhere, in vain.
#[test]
fn p10_a_full_ring_is_no_full_memory() {
    let log = small().open_on(&SimDisk::new(1)).expect("opens");
    let mut stream =
        log.create_stream_with(&StreamOptions::new().ring_bytes_max(2_000)).expect("a stream");
    stream.append([1; 900]).expect("room");
    let refused = stream.append([2; 1_200]).expect_err("no room");
    assert_eq!(refused, AppendError::RingFull { ring_bytes_max: 2_000, in_flight_bytes: 0 });
}

/// Two commits of a flight recorder were in flight, so its ring was small. When they had succeeded their memory
/// was free again, but the ring had not checked: the next event overwrote one that there was room for. P10.
#[test]
fn p10_what_commits_have_finished_with_is_room_before_anything_is_dropped() {
    let log = small().open_on(&SimDisk::new(1)).expect("opens");
    let how = StreamOptions::new().ring_bytes_max(2_000).overflow(Overflow::OverwriteOldest);
    let mut stream = log.create_stream_with(&how).expect("a stream");
    for _ in 0..3 {
        stream.append([1; 600]).expect("room");
    }
    let first = stream.commit();
    stream.append([2; 600]).expect("room");
    let second = stream.commit();
    stream.append([3; 600]).expect("room");
    first.wait().expect("committed");
    second.wait().expect("committed");
    stream.append([4; 600]).expect("room");
    assert_eq!(stream.buffered(), 2, "nothing had to be dropped");
}

/// A clean close cuts the active file; the first commit afterwards makes it long again, and syncs that before it
/// writes over the clean tail record. A process that was killed in between left a long file whose length was in
/// memory only; the next one took it for durable. A power cut then left a short file without its clean tail record:
/// it seemed to have lost its end, and the log refused to be written. F9, F16.
#[test]
fn f9_f16_a_length_that_a_killed_process_left_is_synced_before_it_counts() {
    let closed = SimDisk::new(1);
    let log = small().open_on(&closed).expect("opens");
    assert!(commit(&mut log.create_stream().expect("a stream"), 600));
    log.close().expect("closes");
    closed.write_back();
    let whole = closed.copy();
    assert!(commit(
        &mut small().open_on(&whole).expect("opens").create_stream().expect("one"),
        600
    ));
    for stop in closed.calls()..whole.calls() {
        let disk = closed.copy();
        disk.fail_at(stop, Fault::Crash);
        if let Ok(log) = small().open_on(&disk) {
            commit(&mut log.create_stream().expect("a stream"), 600);
        }
        let disk = disk.after_kill();
        let log = small().open_on(&disk).expect("opens after a kill");
        let mut stream = log.create_stream().expect("a stream");
        stream.append("not synced").expect("room");
        let told = stream.commit_with(os()).wait().expect("committed");
        assert_eq!(told.durability, Durability::Os);
        all_open(&disk, 64, &format!("killed at call {stop}"));
    }
}

/// The first group of a segment was torn. Recovery cleared it and wrote a tail record, and was killed before that was
/// synced. The next recovery found the tail record in the cache, held it for proof that the segment was begun, and
/// sealed the one before. A power cut took the tail record: behind a sealed segment nothing but zeros, as if its
/// commits had been lost, and the log refused to be written. F9, F25.
#[test]
fn f9_f25_no_segment_is_sealed_on_the_word_of_a_tail_record_in_memory() {
    let script = |log: &Log| {
        let Ok(mut stream) = log.create_stream() else { return };
        // The second one does not fit behind the first.
        let _ = commit(&mut stream, 9_000) && commit(&mut stream, 9_000);
    };
    let whole = SimDisk::new(1);
    script(&small().open_on(&whole).expect("opens"));
    for (stop, chance) in (0..whole.calls()).flat_map(|stop| (0..3).map(move |one| (stop, one))) {
        let disk = SimDisk::new(1);
        disk.fail_at(stop, Fault::Crash);
        if let Ok(log) = small().open_on(&disk) {
            script(&log);
        }
        let cut = disk.after_power_cut(chance);
        let recovered = cut.copy();
        drop(small().open_on(&recovered).expect("opens"));
        for call in cut.calls()..recovered.calls() {
            let killed = cut.copy();
            killed.fail_at(call, Fault::Crash);
            drop(small().open_on(&killed));
            let next = killed.after_kill();
            drop(small().open_on(&next).expect("opens after a kill"));
            all_open(&next, 8, &format!("call {stop}, chance {chance}, recovery's call {call}"));
        }
    }
}

/// A repair had begun a new segment, and the first commit in it was torn. Opening overwrote it with
/// zeros and wrote a tail record; when it was cut in between, no record named the position at which
/// the segment starts. The segment was taken for a spare behind the damaged file, and the log,
/// repaired as it was, refused to be written again. The same happened when a first commit failed
/// and was made harmless. F25.
#[test]
fn f25_the_segment_of_a_repair_is_never_without_a_first_record() {
    let closed = SimDisk::new(1);
    let log = small().open_on(&closed).expect("opens");
    assert!(commit(&mut log.create_stream().expect("a stream"), 600));
    log.close().expect("closes");
    let repaired = SimDisk::new(1);
    for (name, mut bytes) in closed.files() {
        // Its end is lost, with the clean tail record.
        bytes.truncate(bytes.len().saturating_sub(48));
        repaired.write_file(&name, &bytes);
    }
    assert!(small().open_on(&repaired).is_err());
    assert!(amberlog::sim::repair_on(&repaired).expect("repaired").went_on.is_some());
    repaired.write_back();
    let opens = |disk: &SimDisk, what: String| {
        if let Err(error) = small().open_on(disk) {
            panic!("{what}: {error}");
        }
    };
    let go_on = |disk: &SimDisk| {
        let Ok(log) = small().open_on(disk) else { return };
        commit(&mut log.create_stream().expect("a stream"), 3_000);
    };
    let whole = repaired.copy();
    go_on(&whole);
    let faults = [Fault::DoneAndFailed, Fault::Io, Fault::Full];
    let mut states = HashSet::new();
    for stop in repaired.calls()..whole.calls() {
        for (fault, behind) in faults.into_iter().flat_map(|one| (0..5).map(move |n| (one, n))) {
            let disk = repaired.copy();
            disk.fail_at(stop, fault);
            disk.fail_at(stop + behind, Fault::Crash);
            go_on(&disk);
            opens(&disk.after_kill(), format!("{fault:?} at call {stop}, killed {behind} behind"));
            for way in 0..disk.power_cuts().min(32) {
                let what = format!("{fault:?} at call {stop}, cut {behind} behind, way {way}");
                let cut = disk.power_cut(way);
                if !states.insert(cut.fingerprint()) {
                    continue;
                }
                let recovered = cut.copy();
                opens(&recovered, what.clone());
                for call in cut.calls()..recovered.calls() {
                    let killed = cut.copy();
                    killed.fail_at(call, Fault::Crash);
                    drop(small().open_on(&killed));
                    opens(&killed.after_kill(), format!("{what}, recovery killed at call {call}"));
                }
            }
        }
    }
}

/// Of a torn tail a commit was lost and the one behind it was not. Recovery wrote zeros over both, the sync of that
/// failed, and the zeros were forgotten, though memory still showed them. The next recovery saw nothing to
/// clear; a commit that ended exactly where the old one began brought that back, after a power cut, as its
/// successor. Now the file is cut there, as it is at a clean close. F9, F20, F27.
#[test]
fn f9_f20_what_a_recovery_forgot_to_clear_never_comes_back() {
    // With header, directory and marker each of these takes exactly a sector.
    let commit = |log: &Log, how| {
        let mut stream = log.create_stream().expect("a stream");
        stream.append([7; 410]).expect("room");
        stream.commit_with(how).wait().expect("committed");
    };
    let disk = SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    commit(&log, amberlog::CommitOptions::new());
    commit(&log, os());
    commit(&log, os());
    for way in 0..disk.power_cuts().min(32) {
        let cut = disk.power_cut(way);
        let whole = cut.copy();
        drop(small().open_on(&whole).expect("opens"));
        for call in cut.calls()..whole.calls() {
            let failed = cut.copy();
            failed.fail_at(call, Fault::LostSync);
            drop(small().open_on(&failed));
            let next = failed.after_kill();
            let log = small().open_on(&next).expect("opens the second time");
            let before = log.read_view().streams().len();
            commit(&log, amberlog::CommitOptions::new());
            for cut in 0..next.power_cuts().min(16) {
                let log = small().open_on(&next.power_cut(cut)).expect("opens the third time");
                let found = log.read_view().streams().len();
                assert_eq!(found, before + 1, "way {way}, call {call}, cut {cut}");
            }
        }
    }
}
