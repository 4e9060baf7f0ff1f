//! Does a purge leave anything of what streams were called, of forks that are gone, or a log that does not open?
//!
//! P4, P6, P7; F25: the secret of `purging` in places that only some streams have.
#![cfg(feature = "sim")]

use super::deleting::options;
use super::purging::{SECRET, hits, purge, write};
use amberlog::sim::{Fault, SimDisk};
use amberlog::{ReadView, StreamState};

/// Names, labels and data that others replaced are gone too, from the segment that receives commits as well.
#[test]
fn p7_a_purge_removes_what_a_living_stream_was_called() {
    let disk = SimDisk::new(12);
    let log = options().open_on(&disk).expect("opens");
    let layout = write(&log, 40);
    let mut other = log.open_stream(*layout.kept.keys().next().expect("one")).expect("known");
    let mut secret = log.open_stream(layout.secret).expect("known");
    for turn in 0..3 {
        other.append([turn; 4_000]).expect("room");
        other.commit().wait().expect("committed");
        secret.set_data(format!("launch-code {turn}").as_bytes()).expect("fits");
        secret.rename(&format!("launch-code no. {turn}")).expect("free");
        secret.commit().wait().expect("committed");
    }
    secret.rename("harmless").expect("free");
    secret.set_data(b"").expect("fits");
    secret.remove_label("launch-code").expect("there");
    secret.rewind(0_u64).expect("there");
    secret.commit().wait().expect("committed");
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty(), "{report:?}");
    assert_eq!(hits(&disk), 0);
    let name = log.read_view().info(layout.secret).expect("known").name;
    log.close().expect("closes");
    let again = ReadView::open_on(&disk).expect("opens").0.info(layout.secret).expect("known");
    assert_eq!((again.name.as_deref(), name.as_deref()), (Some("harmless"), Some("harmless")));
    assert_eq!((again.labels.len(), again.data), (0, None));
}

/// A fork that is gone, or committed and shows nothing that it shares, keeps nothing, even while its handle is idle.
#[test]
fn p7_a_purge_counts_no_fork_that_is_gone() {
    for case in 0..3 {
        let disk = SimDisk::new(case);
        let log = options().open_on(&disk).expect("opens");
        let mut secret = log.create_stream().expect("a stream");
        secret.append(SECRET).expect("room");
        secret.commit().wait().expect("committed");
        let mut fork = secret.fork_at(1_u64).expect("forked");
        let mut idle = None;
        match case {
            0 => drop(fork),
            1 => {
                fork.append("own").expect("room");
                fork.commit().wait().expect("committed");
                fork.delete().wait().expect("deleted");
            }
            _ => {
                fork.append("own").expect("room");
                fork.trim(1_u64).expect("there");
                fork.commit().wait().expect("committed");
                idle = Some(fork);
            }
        }
        secret.delete().wait().expect("deleted");
        let report = purge(&log).expect("purged");
        assert!(report.refused.is_empty(), "{report:?}");
        assert_eq!(hits(&disk), 0, "case {case}");
        if let Some(mut fork) = idle {
            fork.append("more").expect("room");
            fork.commit().wait().expect("committed");
            assert_eq!(fork.events().expect("readable").count(), 2);
        }
    }
}

/// A pending name, label or data that a deletion takes along goes too.
#[test]
fn p7_a_purge_removes_what_a_deletion_took_along() {
    let disk = SimDisk::new(13);
    let log = options().open_on(&disk).expect("opens");
    let mut secret = log.create_stream().expect("a stream");
    secret.append("harmless").expect("room");
    secret.commit().wait().expect("committed");
    secret.set_data(SECRET).expect("fits");
    secret.rename("launch-code").expect("free");
    secret.delete().wait().expect("deleted");
    let report = purge(&log).expect("purged");
    assert!(report.refused.is_empty(), "{report:?}");
    assert_eq!(hits(&disk), 0);
    log.close().expect("closes");
    let log = options().open_on(&disk).expect("opens");
    assert_eq!(log.state(secret.id()), Some(StreamState::Deleted));
}

/// A purge that follows one that failed leaves a log that opens, wherever its process is killed.
#[test]
fn p6_f25_a_purge_after_a_failed_one_leaves_a_log_that_opens() {
    let start = || {
        let disk = SimDisk::new(14);
        let log = options().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        stream.append("kept").expect("room");
        stream.commit().wait().expect("committed");
        (disk, log, stream.id())
    };
    let (disk, log, _) = start();
    let before = disk.calls();
    purge(&log).expect("purged");
    for fault in [Fault::Crash, Fault::Io, Fault::DoneAndFailed] {
        for call in 0..disk.calls() - before {
            let (disk, log, id) = start();
            disk.fail_at(disk.calls() + call, fault);
            let _ = purge(&log);
            let left = disk.after_kill();
            drop(log);
            let log = options().open_on(&left).expect("opens");
            purge(&log).expect("purged");
            let killed = left.after_kill();
            let context = format!("{fault:?} at call {call}");
            let again =
                options().open_on(&killed).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(again.read_view().events(id).expect("known").count(), 1, "{context}");
        }
    }
}
