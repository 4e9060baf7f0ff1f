//! Would the attacks notice a disk that lies?
//!
//! F40. Each of these disks reports success for a call that did something else ([`Defect`]), and the attack that is
//! about that call has to find it, in one script. The same attacks find nothing on a disk without a defect.

use amberlog::sim::{Defect, SimDisk};

use crate::attack::{Op, options, short};

/// One of the attacks of this directory, on a short script.
type Finds = fn(short::Disks<'_>, &[Op]) -> Result<(), String>;

fn crash(disks: short::Disks<'_>, script: &[Op]) -> Result<(), String> {
    short::every_crash(disks, script, 64).map(drop)
}

fn kill(disks: short::Disks<'_>, script: &[Op]) -> Result<(), String> {
    short::every_kill(disks, script, 1, 4, 64).map(drop)
}

fn fault(disks: short::Disks<'_>, script: &[Op]) -> Result<(), String> {
    short::every_fault(disks, script, 1, 4, 16).map(drop)
}

/// The defects, each with the attack and the script that find it.
const LIES: [(Defect, Finds, &str); 8] = [
    (Defect::UnsyncedBytes("*.seg"), crash, "a first commit"),
    // The headers and zeros of new segments.
    (Defect::UnsyncedBytes("*.seg.new"), crash, "a first commit"),
    (Defect::UnsyncedNames("*.seg"), crash, "a first commit"),
    (Defect::UnsyncedLength, crash, "a life after a clean close that was written back"),
    (Defect::LostNames("*.seg"), kill, "a segment made ready"),
    (Defect::SkippedRewrites, fault, "a life after a kill"),
    (Defect::ZerosForErrors, fault, "a life after a kill"),
    (Defect::ShortWrites, fault, "a first commit"),
];

#[test]
fn control_disks_that_lie_are_noticed() {
    for (defect, attack, name) in LIES {
        let disks = |seed| {
            let disk = SimDisk::new(seed);
            disk.set_defect(defect);
            disk
        };
        let (_, script) = short::scripts().into_iter().find(|(what, _)| *what == name).expect(name);
        match attack(&disks, &script) {
            Err(found) => println!("{defect:?} is found: {found}"),
            Ok(()) => panic!("{defect:?} went unnoticed"),
        }
    }
}

/// F31: a second writer is let in where locks are shared, and refused where they are not.
#[test]
fn control_a_disk_that_shares_locks_is_noticed() {
    let second = |disk: &SimDisk| {
        let log = options().open_on(disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        stream.append("so that there is a log").expect("room");
        stream.commit().wait().expect("committed");
        options().open_on(disk).map(drop)
    };
    let disk = SimDisk::new(1);
    second(&disk).expect_err("there is a writer");
    disk.set_defect(Defect::SharedLocks("*"));
    second(&disk).expect("the lock was shared");
}
