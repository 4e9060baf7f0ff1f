//! Turns of the contestants.
//!
//! A run opens a fresh store for every contestant, then gives each a short slice of time in turn,
//! in an order that rotates by one every round, until each has had its time. So a slow minute of
//! the machine affects all contestants. The run is repeated, and the page shows the median of the
//! runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::contestant::{Contestant, Purpose, Store};
use crate::measure::{Figures, Tally};

/// Settings from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) runs: usize,
    pub(crate) seconds: f64,
    /// Less data and time, to check that everything works. The figures mean nothing.
    pub(crate) quick: bool,
}

impl Plan {
    /// Returns the full or the quick size.
    pub(crate) fn size(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// Creates a directory on the measured disk, removed with the value.
    pub(crate) fn scratch(&self) -> TempDir {
        std::fs::create_dir_all(&self.dir).expect("the directory can be made");
        TempDir::new_in(&self.dir).expect("the directory is writable")
    }
}

/// Contestant with its open store during one run.
pub(crate) struct Open {
    pub(crate) store: Box<dyn Store>,
    /// Number of streams used up: each slice takes new ones.
    pub(crate) streams: u64,
    _dir: TempDir,
}

impl Open {
    fn new(plan: &Plan, contestant: &dyn Contestant, purpose: Purpose) -> Self {
        let dir = plan.scratch();
        let store = contestant.open(dir.path(), purpose);
        sync_files(dir.path());
        Self { store, streams: 1, _dir: dir }
    }
}

/// Figures of every run of every contestant.
pub(crate) type Outcome = Vec<Vec<Figures>>;

/// Races in slices of time. `slice` works for about the given time.
pub(crate) fn in_slices(
    plan: &Plan,
    contestants: &[&dyn Contestant],
    slice_time: Duration,
    slice: impl Fn(&mut Open, Duration) -> Tally,
    figures: impl Fn(&Tally) -> Figures,
) -> Outcome {
    let mut outcome: Outcome = vec![Vec::new(); contestants.len()];
    let total = Duration::from_secs_f64(plan.seconds);
    let slice_time = slice_time.min(total);
    let rounds = (total.as_secs_f64() / slice_time.as_secs_f64()).round().max(1.0) as usize;
    for run in 0..plan.runs {
        let open = |contestant: &&dyn Contestant| Open::new(plan, *contestant, Purpose::Commits);
        let mut stores: Vec<Open> = contestants.iter().map(open).collect();
        for store in &mut stores {
            slice(store, slice_time / 4);
        }
        let mut tallies: Vec<Tally> = contestants.iter().map(|_| Tally::default()).collect();
        for round in 0..rounds {
            for at in order(contestants.len(), run + round) {
                tallies[at].then(slice(&mut stores[at], slice_time));
            }
        }
        for (at, store) in stores.into_iter().enumerate() {
            store.store.close();
            outcome[at].push(figures(&tallies[at]));
        }
    }
    outcome
}

/// Races in whole turns: each contestant does all of its work of a run at once.
pub(crate) fn in_turns(
    plan: &Plan,
    contestants: &[&dyn Contestant],
    mut turn: impl FnMut(usize, &dyn Contestant) -> Figures,
) -> Outcome {
    let mut outcome: Outcome = vec![Vec::new(); contestants.len()];
    for run in 0..plan.runs {
        for at in order(contestants.len(), run) {
            outcome[at].push(turn(at, contestants[at]));
        }
    }
    outcome
}

fn order(contestants: usize, first: usize) -> impl Iterator<Item = usize> {
    (0..contestants).map(move |at| (at + first) % contestants)
}

/// Syncs every file below `dir`, so that the preparations of one contestant are not written back in
/// the time of another.
pub(crate) fn sync_files(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sync_files(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            let _ = file.sync_all();
        }
    }
}

/// Copies a tree of files and syncs the copy.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("room on the disk");
        }
    }
    sync_files(to);
}

/// Returns the number of bytes that the blocks of the files below `dir` take on disk.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.path().is_dir() {
        true => disk_bytes(&entry.path()),
        false => entry.metadata().map_or(0, |metadata| metadata.blocks() * 512),
    };
    entries.map(bytes).sum()
}
