//! The record of figures, and the comparison with it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::outside::Tool;

/// Named figures of one repetition of a path.
pub type Figures = BTreeMap<String, f64>;

/// Costs of all paths.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Compiler that the instructions were counted with, and its target.
    rustc: String,
    arch: String,
    paths: BTreeMap<String, Recorded>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    unit: String,
    figures: Figures,
}

/// Tolerated increase of instructions. Counts of calls may increase only by rounding.
const INSTRUCTIONS_MORE: f64 = 0.05;
/// Tolerated increase with another compiler than that of the record.
const INSTRUCTIONS_MORE_ELSEWHERE: f64 = 0.15;
const COUNTS_MORE: f64 = 0.02;
/// Rounding: smaller differences come from work that does not happen in each repetition.
const LEAST: f64 = 0.02;

/// Comparison of one figure.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    recorded: f64,
    now: f64,
    more: f64,
}

impl Line {
    pub fn is_worse(&self) -> bool {
        self.now > self.recorded * (1.0 + self.more) + LEAST
    }

    fn is_better(&self) -> bool {
        self.now < self.recorded * (1.0 - self.more) - LEAST
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.is_worse(), self.is_better()) {
            (true, _) => "  WORSE",
            (_, true) => "  better: record it",
            _ => "",
        };
        write!(f, "{:18} {:>14.3}, on record {:>14.3}{verdict}", self.name, self.now, self.recorded)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("record.json")
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}

impl Record {
    pub fn new() -> Self {
        Self { rustc: rustc(), arch: ARCH.to_owned(), paths: BTreeMap::new() }
    }

    pub fn read() -> Result<Self, String> {
        let failed = |error: &dyn fmt::Display| format!("{}: {error}", path().display());
        let text = std::fs::read_to_string(path()).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }

    pub fn write(&self) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path(), text + "\n").map_err(|error| error.to_string())
    }

    pub fn insert(&mut self, name: &str, unit: &str, figures: Figures) {
        self.paths.insert(name.to_owned(), Recorded { unit: unit.to_owned(), figures });
    }

    /// Prints a note if the compiler is not that of the record.
    pub fn compare_toolchain(&self) {
        if self.arch != ARCH {
            println!(
                "SKIPPED: instructions are on record for {} only, and this is {ARCH}",
                self.arch
            );
        } else if self.is_elsewhere() {
            println!("on record: {}; here: {}; instructions may differ more", self.rustc, rustc());
        }
    }

    fn is_elsewhere(&self) -> bool {
        self.rustc != rustc()
    }

    /// Returns true if the figure with this name is counted here and comparable.
    pub fn counts(&self, name: &str, tools: &[Tool]) -> bool {
        Tool::is_counted(name, tools) && (self.arch == ARCH || name != "instructions")
    }

    /// Returns every figure that was counted here or is on record. A figure without a record counts
    /// as 0.
    pub fn compare(&self, path: &str, figures: &Figures, tools: &[Tool]) -> Vec<Line> {
        let empty = Figures::new();
        let recorded = self.paths.get(path).map_or(&empty, |recorded| &recorded.figures);
        let mut names: Vec<&String> = recorded.keys().chain(figures.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let line = |name: &String| Line {
            name: name.clone(),
            recorded: recorded.get(name).copied().unwrap_or_default(),
            now: figures.get(name).copied().unwrap_or_default(),
            more: match (name.as_str(), self.is_elsewhere()) {
                ("instructions", true) => INSTRUCTIONS_MORE_ELSEWHERE,
                ("instructions", false) => INSTRUCTIONS_MORE,
                _ => COUNTS_MORE,
            },
        };
        names.into_iter().filter(|name| self.counts(name, tools)).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_call_is_worse_and_a_little_noise_is_not() {
        let line = |name: &str, recorded, now| {
            let mut record = Record::new();
            record.insert("path", "one", [(name.to_owned(), recorded)].into());
            let figures = [(name.to_owned(), now)].into();
            record.compare("path", &figures, &Tool::ALL).remove(0)
        };
        assert!(line("call fdatasync", 1.0, 2.0).is_worse());
        assert!(!line("call fdatasync", 1.0, 1.01).is_worse());
        assert!(line("allocations", 0.0, 1.0).is_worse());
        assert!(line("instructions", 1000.0, 1100.0).is_worse());
        assert!(!line("instructions", 1000.0, 1040.0).is_worse());
        assert!(line("instructions", 1000.0, 500.0).is_better());
        let figures = [("call fsync".to_owned(), 1.0)].into();
        assert!(Record::new().compare("path", &figures, &Tool::ALL)[0].is_worse(), "not on record");
    }
}
