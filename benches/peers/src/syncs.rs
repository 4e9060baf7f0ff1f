//! Counts the system calls of a commit, to check that all contestants have the same durability.
//!
//! `strace` follows a process that commits, once with a few commits and once with many; the
//! difference is the cost of the commits, without opening. A contestant that does not sync every
//! commit shows.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::contestant::{Contestant, Work};
use crate::race::Plan;
use crate::results::Syncs;

const FEW: u64 = 50;
const TRACED: &str = "trace=fsync,fdatasync,sync_file_range,msync,syncfs,sync,openat,write,pwrite64,writev,\
                      pwritev,pwritev2,io_uring_enter";

/// Traces all contestants that commit. Returns `None` without `strace`.
pub(crate) fn count(
    plan: &Plan,
    contestants: &[&dyn Contestant],
    commits: u64,
) -> Option<Vec<Syncs>> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("strace is not installed: syncs are NOT counted");
        return None;
    }
    let who = contestants.iter().filter(|contestant| contestant.refuses(Work::Commit).is_none());
    Some(who.map(|contestant| of(plan, contestant.name(), commits)).collect())
}

fn of(plan: &Plan, contestant: &str, commits: u64) -> Syncs {
    let few = trace(plan, contestant, FEW);
    let many = trace(plan, contestant, FEW + commits);
    let less = |(name, count): (String, u64)| {
        let before = few.get(&name).copied().unwrap_or_default();
        (name, count.saturating_sub(before))
    };
    let synced_files = many.contains_key(OPENED_SYNCED);
    let calls = many.into_iter().map(less).filter(|(_, count)| *count > 0).collect();
    Syncs { contestant: contestant.to_owned(), commits, calls, synced_files }
}

/// Counts files opened so that every write is synced.
const OPENED_SYNCED: &str = "openat with O_SYNC or O_DSYNC";

fn trace(plan: &Plan, contestant: &str, commits: u64) -> BTreeMap<String, u64> {
    let dir = plan.scratch();
    let (data, out) = (dir.path().join("data"), dir.path().join("trace"));
    fs::create_dir(&data).expect("writable");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", TRACED, "-e", "signal=none", "-o"])
        .arg(&out)
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["commit", contestant])
        .arg(&data)
        .arg(commits.to_string())
        .status()
        .expect("strace starts");
    assert!(status.success(), "{contestant} failed under strace");
    counts(&fs::read_to_string(out).expect("readable"))
}

/// Counts calls by name. A call that another thread interrupts takes two lines and counts once.
fn counts(trace: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if name.contains(' ') {
            continue;
        }
        let name = match name {
            "openat" if arguments.contains("O_SYNC") || arguments.contains("O_DSYNC") => {
                OPENED_SYNCED
            }
            "openat" => continue,
            "pwritev2" if arguments.contains("RWF_SYNC") || arguments.contains("RWF_DSYNC") => {
                "pwritev2, synced"
            }
            name => name,
        };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_count_once() {
        let trace = "12 fdatasync(3 <unfinished ...>\n\
                     13 pwrite64(3, \"x\", 1, 0) = 1\n\
                     12 <... fdatasync resumed>) = 0\n\
                     12 openat(AT_FDCWD, \"f\", O_RDWR|O_DSYNC) = 4\n\
                     12 openat(AT_FDCWD, \"g\", O_RDWR) = 5\n";
        let counts = counts(trace);
        assert_eq!(counts["fdatasync"], 1);
        assert_eq!(counts["pwrite64"], 1);
        assert_eq!(counts[OPENED_SYNCED], 1);
        assert_eq!(counts.len(), 3);
    }
}
