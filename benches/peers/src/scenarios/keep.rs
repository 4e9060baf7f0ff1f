//! Reopening a store: after a kill, and with very many small streams. Filling and opening each
//! happen in a separate process ([`crate::child`]), because a kill needs a process to end and
//! memory is counted by process.

use crate::child;
use crate::contestant::Contestant;
use crate::measure::Figures;
use crate::race::{Outcome, Plan, copy_dir, disk_bytes, in_turns, sync_files};

const SMALL_PAYLOAD_BYTES: u64 = 4 * 128;

/// Fills a store, kills the process, and opens copies of the remains.
pub(super) fn open_killed(plan: &Plan, contestants: &[&dyn Contestant]) -> Outcome {
    let fill = child::Fill {
        streams: plan.size(10_000, 1_000),
        commits: (plan.size(256, 8) << 20) / (8 * 256),
        events: 8,
        event_bytes: 256,
    };
    let prepared = contestants.iter().map(|contestant| {
        let dir = plan.scratch();
        child::fill_and_kill(contestant.name(), dir.path(), fill);
        dir
    });
    let dirs: Vec<_> = prepared.collect();
    in_turns(plan, contestants, |at, contestant| {
        let copy = plan.scratch();
        copy_dir(dirs[at].path(), copy.path());
        child::open(contestant.name(), copy.path())
    })
}

/// Fills a store with small streams, closes it, counts its blocks, and opens it again.
pub(super) fn many_streams(plan: &Plan, contestants: &[&dyn Contestant]) -> Outcome {
    let streams = plan.size(100_000, 2_000);
    let fill = child::Fill { streams, commits: streams, events: 4, event_bytes: 128 };
    let prepared = contestants.iter().map(|contestant| {
        let dir = plan.scratch();
        child::fill_and_close(contestant.name(), dir.path(), fill);
        sync_files(dir.path());
        let ratio = disk_bytes(dir.path()) as f64 / (streams * SMALL_PAYLOAD_BYTES) as f64;
        (dir, ratio)
    });
    let prepared: Vec<_> = prepared.collect();
    in_turns(plan, contestants, |at, contestant| {
        let (dir, ratio) = &prepared[at];
        let mut figures: Figures = child::open(contestant.name(), dir.path());
        figures.insert("disk_per_payload".to_owned(), *ratio);
        figures
    })
}
