//! Work in a separate process. The program calls itself with a hidden command.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::contestant::{Purpose, Sink};
use crate::contestants;
use crate::measure::{Figures, payload};

/// Commits to streams in turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) streams: u64,
    pub(crate) commits: u64,
    pub(crate) events: usize,
    pub(crate) event_bytes: usize,
}

impl Fill {
    fn to_words(self) -> [String; 4] {
        let Self { streams, commits, events, event_bytes } = self;
        [streams.to_string(), commits.to_string(), events.to_string(), event_bytes.to_string()]
    }
}

/// End of a child that filled a store.
const CLOSE: &str = "close";
const WAIT: &str = "wait-for-the-kill";

fn this_program(command: &str, contestant: &str, dir: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"));
    child.arg(command).arg(contestant).arg(dir);
    child
}

/// Fills a store in a child, syncs the last commit, and kills the child with the store open.
pub(crate) fn fill_and_kill(contestant: &str, dir: &Path, fill: Fill) {
    let mut child = this_program("fill", contestant, dir)
        .arg(WAIT)
        .args(fill.to_words())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("it was piped");
    BufReader::new(out).read_line(&mut line).expect("readable");
    assert_eq!(line.trim(), "filled", "{contestant} could not fill its store");
    child.kill().expect("it is running");
    child.wait().expect("it is dead");
}

/// Fills a store in a child and closes it.
pub(crate) fn fill_and_close(contestant: &str, dir: &Path, fill: Fill) {
    let done = this_program("fill", contestant, dir)
        .arg(CLOSE)
        .args(fill.to_words())
        .stdout(Stdio::null())
        .status()
        .expect("a child starts");
    assert!(done.success(), "{contestant} could not fill its store");
}

/// Opens a store in a child. Returns the time of opening and the memory used afterwards.
pub(crate) fn open(contestant: &str, dir: &Path) -> Figures {
    let done = this_program("open", contestant, dir).output().expect("a child starts");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{contestant} did not open: {error}");
    serde_json::from_slice(&done.stdout).expect("figures")
}

/// In the child: fills a store.
pub(crate) fn be_filler(contestant: &str, dir: &Path, end: &str, fill: Fill) {
    let contestant = contestants::by_name(contestant).expect("known");
    let store = contestant.open(dir, Purpose::Keep);
    let payload = payload(fill.event_bytes);
    {
        let mut writers: Vec<_> = (0..fill.streams).map(|stream| store.writer(stream)).collect();
        for commit in 0..fill.commits {
            let writer = &mut writers[(commit % fill.streams) as usize];
            writer.append_many(&payload, fill.events);
            if commit + 1 == fill.commits {
                writer.commit();
            } else {
                writer.commit_unsynced();
            }
        }
        if end == WAIT {
            println!("filled");
            loop {
                std::thread::park();
            }
        }
    }
    store.close();
}

/// In the child: opens a store and prints the figures.
pub(crate) fn be_opener(contestant: &str, dir: &Path) {
    let contestant = contestants::by_name(contestant).expect("known");
    let before = resident_bytes();
    let started = Instant::now();
    let store = contestant.open(dir, Purpose::Keep);
    let opened = started.elapsed();
    let memory = resident_bytes().saturating_sub(before);
    let mut sink = Sink::default();
    store.read_any(&mut sink);
    let read = started.elapsed();
    assert!(sink.events > 0, "there was something to read");
    let figures: Figures = [
        ("open_ms".to_owned(), opened.as_secs_f64() * 1e3),
        ("first_read_ms".to_owned(), read.as_secs_f64() * 1e3),
        ("memory_mib".to_owned(), memory as f64 / f64::from(1 << 20)),
    ]
    .into();
    println!("{}", serde_json::to_string(&figures).expect("numbers"));
    std::process::exit(0);
}

/// In the child: makes commits of one event after a warm-up, for counting system calls.
pub(crate) fn be_committer(contestant: &str, dir: &Path, commits: u64) {
    const WARM_UP: u64 = 16;
    let contestant = contestants::by_name(contestant).expect("known");
    let store = contestant.open(dir, Purpose::Commits);
    let payload = payload(256);
    {
        let mut writer = store.writer(1);
        for _ in 0..WARM_UP + commits {
            writer.append(&payload);
            writer.commit();
        }
    }
    // No close: its calls are not part of a commit.
    std::process::exit(0);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
