//! The machine and the versions that were measured, so that a reader can judge a figure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::contestant::Contestant;

const LOCKED: &str = include_str!("../Cargo.lock");

/// Facts about a machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) is_virtual: bool,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) rustc: String,
}

impl Machine {
    /// Describes this machine, with the file system below `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        let processors = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = processors.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
        };
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        Self {
            processor: field("model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            is_virtual: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            memory_gib: kib.unwrap_or_default().div_ceil(1 << 20),
            kernel: numbers_of(&read("/proc/sys/kernel/osrelease")),
            file_system: file_system(dir),
            rustc: output("rustc", &["--version"]),
        }
    }
}

/// Returns the version without a distribution's suffix.
fn numbers_of(release: &str) -> String {
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn output(program: &str, words: &[&str]) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let done = Command::new(program).args(words).current_dir(root).output();
    let text = done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// Returns the type of the file system that holds `dir`.
fn file_system(dir: &Path) -> String {
    let mounts = read("/proc/mounts");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        dir.starts_with(place).then_some((place.len(), kind))
    });
    holding.max_by_key(|(length, _)| *length).map_or("", |(_, kind)| kind).to_owned()
}

/// Returns the load average over one minute.
pub(crate) fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Returns the versions of contestants, from the lock file that this program was built with.
pub(crate) fn versions(contestants: &[&dyn Contestant]) -> BTreeMap<String, String> {
    let packages = contestants.iter().filter_map(|contestant| contestant.package());
    let mut versions: BTreeMap<String, String> =
        packages.filter_map(|name| Some((name.to_owned(), locked(name)?))).collect();
    if let Some(version) = option_env!("AMBERLOG_ROCKSDB") {
        versions.insert("librocksdb-sys".into(), version.into());
    }
    if let Some(amberlog) = versions.get_mut("amberlog") {
        let commit = output("git", &["describe", "--always", "--dirty"]);
        if !commit.is_empty() {
            amberlog.push_str(&format!(", {commit}"));
        }
    }
    versions
}

fn locked(package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"\nversion = \"");
    let start = LOCKED.find(&name)? + name.len();
    LOCKED[start..].split('"').next().map(str::to_owned)
}

/// Returns the day in UTC as year-month-day.
pub(crate) fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    day(since.as_secs() / 86_400)
}

/// Returns the day that is `days` days after 1970-01-01.
fn day(days: u64) -> String {
    let mut left = days;
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(59), "1970-03-01");
        assert_eq!(day(19_782), "2024-02-29");
        assert_eq!(day(20_088), "2024-12-31");
    }

    #[test]
    fn every_package_is_locked() {
        for contestant in crate::contestants::all() {
            if let Some(package) = contestant.package() {
                assert!(locked(package).is_some(), "{package}");
            }
        }
    }
}
