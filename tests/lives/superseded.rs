//! Does space come back that superseded metadata and rewinds took?
//!
//! P6, P7, P9: a compaction leaves one batch of metadata for each stream of a run, and of rewinds only those that
//! divide events that are still shown. What a stream shows stays the same, now and after the next opening.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;

use super::compact::{same_when_opened_again, shown};
use crate::support::env_or;
use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{CommitOptions, Durability, Log, ReadView, Seq, Stream, StreamState};

const OS: fn() -> CommitOptions = || CommitOptions::new().durability(Durability::Os);

fn open(disk: &SimDisk) -> Log {
    Log::options().segment_bytes_max(1 << 20).open_on(disk).expect("opens")
}

/// Bytes of all files, but for the zeros that a segment has to spare.
fn bytes(disk: &SimDisk) -> usize {
    let used = |file: &Vec<u8>| file.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    disk.files().values().map(used).sum()
}

fn commit(stream: &mut Stream) {
    stream.commit_with(OS()).wait().expect("committed");
}

/// Compacts, and checks that every stream shows the same before and after, here and in another process.
fn compact(disk: &SimDisk, log: &Log) {
    let before = shown(&log.read_view());
    let report = log.compact(CompactOptions::new()).expect("compacted");
    assert!(report.refused.is_empty(), "{report:?}");
    assert_eq!(shown(&log.read_view()), before);
    same_when_opened_again(disk, &before);
}

#[test]
fn p6_data_that_was_set_again_and_again_ends_as_one() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..300_u16 {
        stream.set_data(&vec![n as u8; 60_000]).expect("fits");
        commit(&mut stream);
    }
    assert!(bytes(&disk) > 300 * 60_000);
    compact(&disk, &log);
    assert!(bytes(&disk) < 3 * 60_000, "{} bytes", bytes(&disk));
    assert_eq!(
        log.read_view().info(stream.id()).expect("known").data.as_deref(),
        Some(&[43; 60_000][..])
    );
}

/// The votes of a raft group, beside its entries, which are trimmed and rewound.
#[test]
fn p6_a_vote_that_was_stored_many_times_takes_little() {
    let votes = env_or("AMBERLOG_VOTES", 20_000);
    let disk = SimDisk::new(2);
    let log = open(&disk);
    let mut group = log.create_stream().expect("a stream");
    group.rename("draft").expect("fits");
    commit(&mut group);
    group.rename("group").expect("fits");
    for vote in 0..votes {
        group.set_data(&vote.to_le_bytes()).expect("fits");
        if vote % 10 == 0 {
            group.append(vote.to_le_bytes()).expect("room");
        }
        if vote % 100 == 99 {
            group.trim(group.head().saturating_sub(5)).expect("there");
        }
        if vote % 500 == 499 {
            group.rewind(group.head().saturating_sub(2)).expect("there");
        }
        commit(&mut group);
    }
    // The segment that commits go to stays as it is, and with it the group's newest label.
    let used = bytes(&disk);
    assert!(used > votes as usize * 100);
    let mut other = log.create_stream().expect("a stream");
    for _ in 0..300 {
        other.append([1; 4_000]).expect("room");
        commit(&mut other);
    }
    group.set_label("term", "1").expect("fits");
    commit(&mut group);
    compact(&disk, &log);
    let left = bytes(&disk).saturating_sub(300 * 4_150);
    assert!(left < 32 << 10, "{left} bytes of {used} are left");
    let info = log.read_view().info(group.id()).expect("known");
    assert_eq!(info.data.as_deref(), Some(&(votes - 1).to_le_bytes()[..]));
    assert_eq!(info.name.as_deref(), Some("group"));
}

/// Nothing is shown of most branches: the log forgets that there were rewinds.
#[test]
fn p6_p9_rewinds_that_divide_nothing_are_forgotten() {
    let rewinds = env_or("AMBERLOG_REWINDS", 10_000);
    let disk = SimDisk::new(3);
    let log = open(&disk);
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..5_u64 {
        stream.append(n.to_le_bytes()).expect("room");
    }
    commit(&mut stream);
    let mut forks = Vec::new();
    for n in 0..rewinds {
        stream.append(n.to_le_bytes()).expect("room");
        commit(&mut stream);
        if n == rewinds / 2 {
            let mut fork = stream.fork_at(stream.head()).expect("forked");
            fork.append("of its own").expect("room");
            commit(&mut fork);
            forks.push(fork);
        }
        stream.rewind(5_u64).expect("there");
    }
    for n in 5..9_u64 {
        stream.append(n.to_le_bytes()).expect("room");
    }
    commit(&mut stream);
    // The branch before this rewind shows two events.
    stream.rewind(7_u64).expect("there");
    for n in 7..10_u64 {
        stream.append(n.to_le_bytes()).expect("room");
    }
    commit(&mut stream);
    // Nothing follows the last rewind of this one.
    let mut cut = log.create_stream().expect("a stream");
    for n in 0..10_u64 {
        cut.append(n.to_le_bytes()).expect("room");
    }
    commit(&mut cut);
    cut.rewind(3_u64).expect("there");
    commit(&mut cut);
    compact(&disk, &log);
    assert!(bytes(&disk) < 16 << 10, "{} bytes", bytes(&disk));
    log.close().expect("closes");
    let log = open(&disk);
    assert_eq!(log.read_view().info(cut.id()).expect("known").head, Seq::from(3));
    let memory = log.stats().memory;
    assert!(memory.catalog_bytes < 10 * memory.costs.durable_stream, "{memory:?}");
    let info = log.read_view().info(stream.id()).expect("known");
    assert_eq!((info.head, u64::from(info.generation)), (Seq::from(10), rewinds + 1));
    let read = |stream: &Stream| {
        let events = log.read_view().events(stream.id()).expect("known");
        events.map(|event| event.expect("whole").payload().to_vec()).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (0..10_u64).map(|n| n.to_le_bytes().to_vec()).collect();
    assert_eq!(read(&stream), expected);
    let of_fork =
        [&expected[..5], &[(rewinds / 2).to_le_bytes().to_vec()], &[b"of its own".to_vec()]]
            .concat();
    assert_eq!(read(&forks[0]), of_fork);
}

/// What was removed stays removed, whichever segments are compacted first.
#[test]
fn p6_labels_that_come_and_go_leave_nothing() {
    let disk = SimDisk::new(4);
    let mut log = open(&disk);
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    stream.rename("first").expect("fits");
    stream.set_label("stays", "always").expect("fits");
    for round in 0..4 {
        for n in 0..5_000_u32 {
            let key = format!("run {round} {n}");
            stream.set_label(&key, "yes").expect("fits");
            commit(&mut stream);
            stream.remove_label(&key).expect("known");
            match n % 50 {
                0 => stream.clear_name().expect("known"),
                1 => stream.rename(&format!("name {round} {n}")).expect("fits"),
                2 => drop(stream.archive().wait().expect("archived")),
                3 => drop(stream.unarchive().wait().expect("unarchived")),
                _ => {}
            }
            if n % 50 != 2 {
                commit(&mut stream);
            }
        }
        compact(&disk, &log);
        drop(stream);
        log.close().expect("closes");
        log = open(&disk);
        stream = log.open_stream(id).expect("known");
    }
    compact(&disk, &log);
    assert!(bytes(&disk) < 320 << 10, "{} bytes", bytes(&disk));
    assert!(log.compact(CompactOptions::new().purge()).expect("purged").refused.is_empty());
    assert!(bytes(&disk) < 64 << 10, "{} bytes", bytes(&disk));
    let info = ReadView::open_on(&disk).expect("opens").0.info(id).expect("known");
    assert_eq!(info.labels, BTreeMap::from([("stays".to_owned(), "always".to_owned())]));
    assert_eq!(info.state, StreamState::Active);
    assert_eq!(info.name.as_deref(), Some("name 3 4951"));
}

/// A stream that was archived and made active again is active after every opening, although only the later segment was
/// compacted.
#[test]
fn p6_an_unarchived_stream_stays_active() {
    let disk = SimDisk::new(7);
    let log = open(&disk);
    let mut stream = log.create_stream().expect("a stream");
    stream.append("first").expect("room");
    stream.set_label("a", "1").expect("fits");
    commit(&mut stream);
    stream.archive().wait().expect("archived");
    let fill = |live: bool| {
        let mut filler = log.create_stream().expect("a stream");
        for _ in 0..400 {
            filler.append([9; 4_000]).expect("room");
            commit(&mut filler);
        }
        if !live {
            filler.delete().wait().expect("deleted");
        }
    };
    fill(true);
    fill(false);
    stream.unarchive().wait().expect("unarchived");
    stream.set_label("a", "2").expect("fits");
    commit(&mut stream);
    fill(false);
    compact(&disk, &log);
    log.close().expect("closes");
    let log = open(&disk);
    assert_eq!(log.state(stream.id()), Some(StreamState::Active));
}

/// The base that a fork names is there after a compaction and an opening, although nothing of it is shown.
#[test]
fn p9_a_base_keeps_its_generation() {
    let disk = SimDisk::new(8);
    let log = open(&disk);
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..4_u64 {
        stream.append(n.to_le_bytes()).expect("room");
    }
    commit(&mut stream);
    let mut fork = stream.fork_at(3_u64).expect("forked");
    fork.trim(3_u64).expect("there");
    commit(&mut fork);
    for n in 0..3_u64 {
        stream.rewind(0_u64).expect("there");
        stream.append(n.to_le_bytes()).expect("room");
        commit(&mut stream);
    }
    let export = |log: &Log| {
        let mut lines = Vec::new();
        log.read_view().export_jsonl(&mut lines).expect("exported");
        String::from_utf8(lines).expect("text")
    };
    let before = export(&log);
    assert!(before.contains("shares"), "{before}");
    let shares = before.matches("\"shares\"").count();
    assert!(log.compact(CompactOptions::new().purge()).expect("purged").refused.is_empty());
    log.close().expect("closes");
    let after = export(&open(&disk));
    assert_eq!(after.matches("\"shares\"").count(), shares, "{before}\n{after}");
}

/// A compaction with nothing to do reads no segment again.
#[test]
fn p6_a_compaction_with_nothing_to_do_reads_nothing() {
    let disk = SimDisk::new(5);
    let log = open(&disk);
    let mut streams: Vec<Stream> =
        (0..200).map(|_| log.create_stream().expect("a stream")).collect();
    for round in 0..15 {
        for stream in &mut streams {
            stream.append([1; 2_000]).expect("room");
            stream.set_label("round", &format!("{round}")).expect("fits");
            commit(stream);
        }
    }
    let calls = || {
        let before = disk.calls();
        let report = log.compact(CompactOptions::new()).expect("compacted");
        assert!(report.refused.is_empty() && report.runs.is_empty(), "{report:?}");
        disk.calls() - before
    };
    let (first, second, third) = (calls(), calls(), calls());
    assert!(second + 5 < first && third == second, "{first}, {second} and {third} disk calls");
}

/// Controls: batches that are merged in the wrong order, and rewinds that are dropped although they divide events.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_compactor_that_drops_what_still_holds_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    use std::panic::catch_unwind;
    for (what, test) in [
        (Sabotage::MergeBackwards, p6_a_vote_that_was_stored_many_times_takes_little as fn()),
        (Sabotage::DropRewinds, p6_p9_rewinds_that_divide_nothing_are_forgotten),
    ] {
        let broken = sabotage(what);
        assert!(catch_unwind(test).is_err(), "{what:?} went unnoticed");
        drop(broken);
    }
}
