//! Results in one JSON file. A race adds to it, scenario by scenario; the page is made from it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::{Figures, median};

/// All results.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) scenarios: BTreeMap<String, Raced>,
    pub(crate) syncs: Vec<Syncs>,
}

/// Results of one scenario.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Raced {
    pub(crate) date: String,
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) seconds: f64,
    pub(crate) quick: bool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) refusals: Vec<Refusal>,
}

/// Results of one contestant in a scenario.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Entry {
    pub(crate) contestant: String,
    pub(crate) runs: Vec<Figures>,
}

/// Contestant that took no part, with the reason.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Refusal {
    pub(crate) contestant: String,
    pub(crate) reason: String,
}

/// System calls of commits of one event.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Syncs {
    pub(crate) contestant: String,
    pub(crate) commits: u64,
    pub(crate) calls: BTreeMap<String, u64>,
    pub(crate) synced_files: bool,
}

impl Entry {
    /// Returns the median, the least and the greatest of a figure over the runs.
    pub(crate) fn figure(&self, name: &str) -> Option<(f64, f64, f64)> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| run.get(name).copied()).collect();
        median(&values)
    }
}

impl Results {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Reads the file if it is of this machine: results of two machines are not mixed.
    pub(crate) fn to_add_to(path: &Path, machine: Machine) -> Self {
        let (versions, scenarios, syncs) = Default::default();
        match Self::load(path) {
            Some(found) if found.machine == machine => return found,
            Some(_) => eprintln!("the results so far are of another machine or compiler: replaced"),
            None => {}
        }
        Self { machine, versions, scenarios, syncs }
    }

    /// Writes the file.
    pub(crate) fn save(&self, path: &Path) {
        let parent = path.parent().expect("it is in a directory");
        std::fs::create_dir_all(parent).expect("writable");
        let text = serde_json::to_string_pretty(self).expect("numbers and texts");
        std::fs::write(path, text + "\n").expect("writable");
    }
}
