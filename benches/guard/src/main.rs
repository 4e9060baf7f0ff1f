//! The guard: counts the cost of amberlog's paths and compares it with the record.
//!
//! Nothing is timed, so a busy machine changes nothing. Valgrind counts instructions, strace counts
//! system calls, an allocator counts allocations, and the simulated disk counts its calls. Each
//! path runs n times in one process and 2 n times in another; the difference is the cost of n
//! repetitions.
//!
//! `guard check` compares, `guard record` writes a new record, and `guard control` makes every path
//! slightly more expensive and fails unless each comparison notices.

#[path = "../../../tests/support/counting.rs"]
mod counting;
mod outside;
mod record;
mod work;

use std::process::ExitCode;

use self::outside::Tool;
use self::record::{Figures, Record};
use self::work::{ALL, Work};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["check"] => check(),
        ["record"] => record(),
        ["control"] => control(),
        ["run", name, times, regressed] => return run(name, times, regressed == "regressed"),
        _ => Err("usage: guard check | record | control".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one path on a real disk in this process, for the tools that count from outside.
fn run(name: &str, times: &str, regressed: bool) -> ExitCode {
    let work = ALL.iter().find(|work| work.name == name).expect("a path of that name");
    work.allocations(times.parse().expect("a number"), regressed);
    ExitCode::SUCCESS
}

/// Returns the available tools and prints the names of the others.
fn tools() -> Vec<Tool> {
    let here = |tool: &Tool| match tool.works() {
        Ok(()) => true,
        Err(reason) => {
            println!("SKIPPED: {} are not counted: {reason}", tool.counts());
            false
        }
    };
    Tool::ALL.into_iter().filter(here).collect()
}

fn measure(work: &Work, tools: &[Tool], regressed: bool) -> Result<Figures, String> {
    // The first run does the work that a process does only once.
    let (n, _) = (work.times, work.allocations(1, false));
    let each = |once: u64, twice: u64| (twice as f64 - once as f64) / n as f64;
    let calls = each(work.disk_calls(n, regressed), work.disk_calls(2 * n, regressed));
    let mut figures = Figures::from([("disk calls".into(), calls)]);
    if !work.is_simulated {
        let count = each(work.allocations(n, regressed), work.allocations(2 * n, regressed));
        figures.insert("allocations".into(), count);
    }
    for tool in tools.iter().filter(|_| !work.is_simulated) {
        let once = tool.count(work.name, n, regressed)?;
        let twice = tool.count(work.name, 2 * n, regressed)?;
        for (name, twice) in twice {
            let once = once.get(&name).copied().unwrap_or_default();
            figures.insert(name, each(once, twice));
        }
    }
    figures.retain(|_, value| *value != 0.0);
    figures.values_mut().for_each(|value| *value = (*value * 1e3).round() / 1e3);
    Ok(figures)
}

fn check() -> Result<(), String> {
    let record = Record::read()?;
    record.compare_toolchain();
    let tools = tools();
    let mut worse = 0;
    for work in &ALL {
        let figures = measure(work, &tools, false)?;
        println!("{} ({}):", work.name, work.unit);
        for line in record.compare(work.name, &figures, &tools) {
            println!("  {line}");
            worse += usize::from(line.is_worse());
        }
    }
    match worse {
        0 => Ok(()),
        _ => Err(format!(
            "{worse} figures are worse than on record. If that is meant, record them anew and say why:\n  \
             cargo run --release --manifest-path benches/guard/Cargo.toml -- record"
        )),
    }
}

fn record() -> Result<(), String> {
    let tools = tools();
    if tools.len() < Tool::ALL.len() {
        return Err("a record needs all tools".into());
    }
    let mut record = Record::new();
    for work in &ALL {
        let figures = measure(work, &tools, false)?;
        println!("{}: {figures:?}", work.name);
        record.insert(work.name, work.unit, figures);
    }
    record.write()
}

/// Figures in which each regression must show.
const NOTICED: [(&str, &[&str]); 5] = [
    ("append", &["allocations", "instructions"]),
    ("commit-1", &["allocations", "disk calls", "instructions", "call pwrite64", "call fdatasync"]),
    ("roll", &["disk calls"]),
    ("open", &["allocations", "disk calls", "instructions", "call pread64"]),
    ("scan", &["allocations", "instructions"]),
];

fn control() -> Result<(), String> {
    let record = Record::read()?;
    let tools = tools();
    for (name, wanted) in NOTICED {
        let work = ALL.iter().find(|work| work.name == name).expect("a path of that name");
        let figures = measure(work, &tools, true)?;
        let lines = record.compare(name, &figures, &tools);
        for figure in wanted.iter().filter(|figure| record.counts(figure, &tools)) {
            match lines.iter().find(|line| line.name == **figure) {
                Some(line) if line.is_worse() => println!("noticed in {name}: {line}"),
                Some(line) => return Err(format!("a dearer {name} was not noticed: {line}")),
                None => return Err(format!("{name} has no figure {figure:?}")),
            }
        }
    }
    Ok(())
}
