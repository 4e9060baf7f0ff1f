//! The page of results.

use std::fmt::Write as _;

use super::plots::Plot;
use super::table::{FLOOR, OURS, Verdict, calls_per_commit, number, ranked, table_text};
use crate::contestant::Work;
use crate::contestants;
use crate::results::{Raced, Results};
use crate::scenarios::{self, Better, Scenario};

/// Returns the page in Markdown.
pub(super) fn text(results: &Results, plots: &[Plot]) -> String {
    let all = scenarios::all();
    let raced: Vec<(&Scenario, &Raced)> =
        all.iter().filter_map(|s| Some((s, results.scenarios.get(s.name)?))).collect();
    let mut text = String::from(
        "# amberlog and its peers\n\n\
         Made by the program in [benches/peers](../../benches/peers/README.md), numbers and all; not \
         edited by hand.\n\n",
    );
    conditions(&mut text, results, &raced);
    summary(&mut text, results, &raced);
    for plot in plots.iter().filter(|plot| plot.scenario.is_none()) {
        let _ = writeln!(text, "![{}]({})\n", plot.title, plot.file);
    }
    for (scenario, raced) in &raced {
        section(&mut text, scenario, raced, plots);
    }
    syncs(&mut text, results);
    setups(&mut text, results);
    text
}

fn conditions(text: &mut String, results: &Results, raced: &[(&Scenario, &Raced)]) {
    let machine = &results.machine;
    let dates: Vec<&str> = raced.iter().map(|(_, raced)| raced.date.as_str()).collect();
    let (first, last) = (dates.iter().min(), dates.iter().max());
    let dates = match (first, last) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (Some(first), _) => (*first).to_owned(),
        _ => "never".to_owned(),
    };
    let kind = if machine.is_virtual { "a virtual machine with" } else { "a machine with" };
    let _ = writeln!(
        text,
        "Measured on {dates}, on {kind} {} cores ({}), {} GiB of memory, {}, Linux {}, {}. Read the \
         ratios, not the figures: contestants took turns, but the disk is that of one machine. Gaps under \
         a tenth are noise.\n",
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.file_system,
        machine.kernel,
        machine.rustc,
    );
    if raced.iter().any(|(_, raced)| raced.quick) {
        text.push_str(
            "**This was a quick run, to see that all of it works. Its figures mean nothing.**\n\n",
        );
    }
    text.push_str(
        "The rule: a commit returns after its data was synced to the device, or its owner takes no part \
         ([counted](#system-calls-of-a-commit)). Each has its defaults, but files as large as they get with time, \
         and the cheapest use of its interface that we found ([how](#how-each-is-used)). A cell is the median \
         of the runs, in brackets the least and the greatest. Floors, in italics, do the least that the \
         same work can cost, and are no stores.\n\n",
    );
}

/// Writes one line for each scenario: amberlog, the best peer, the floor.
fn summary(text: &mut String, results: &Results, raced: &[(&Scenario, &Raced)]) {
    text.push_str(
        "| What | | amberlog | Best peer | Floor | Ahead |\n|---|---|---:|---:|---:|---|\n",
    );
    for (scenario, raced) in raced {
        let column = scenario.columns[0];
        let verdict = Verdict::of(scenario, raced).or_else(|| by_threads(results, scenario, raced));
        let ours = ranked(scenario, raced).into_iter().find(|(e, _)| e.contestant == OURS);
        let floor = ranked(scenario, raced).into_iter().find(|(e, _)| e.contestant == FLOOR);
        let peer = verdict.as_ref().map_or("–".to_owned(), |verdict| {
            format!("{}: {}", verdict.peer, number(verdict.theirs))
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {peer} | {} | {} |",
            scenario.title,
            column.heading,
            ours.map_or("–".to_owned(), |(_, value)| number(value)),
            floor.map_or("–".to_owned(), |(_, value)| number(value)),
            verdict.map_or("–".to_owned(), |verdict| verdict.words()),
        );
    }
    text.push('\n');
}

/// Compares tasks with the best figure of any peer with threads, at its best number of them.
fn by_threads(results: &Results, scenario: &Scenario, raced: &Raced) -> Option<Verdict> {
    if scenario.work != Work::Tasks {
        return None;
    }
    let (_, ours) = ranked(scenario, raced).into_iter().find(|(e, _)| e.contestant == OURS)?;
    let all = scenarios::all();
    let groups = all.iter().filter(|scenario| scenario.work == Work::Group);
    let best = groups
        .filter_map(|group| {
            let verdict = Verdict::of(group, results.scenarios.get(group.name)?)?;
            let threads = group.name.rsplit('-').next()?;
            Some((format!("{} with {threads} threads", verdict.peer), verdict.theirs))
        })
        .max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some(Verdict::new(Better::More, ours, best.0, best.1))
}

fn section(text: &mut String, scenario: &Scenario, raced: &Raced, plots: &[Plot]) {
    let _ = writeln!(text, "## {}\n", scenario.title);
    let runs = raced.entries.iter().map(|entry| entry.runs.len()).max().unwrap_or_default();
    let _ = writeln!(
        text,
        "`{}`, {}, {runs} {}; load average {} before and {} after.\n",
        scenario.name,
        raced.date,
        if runs == 1 { "run" } else { "runs" },
        raced.load_before,
        raced.load_after,
    );
    text.push_str(&table_text(scenario, raced));
    text.push('\n');
    if let Some(verdict) = Verdict::of(scenario, raced) {
        let (ours, theirs) = (number(verdict.ours), number(verdict.theirs));
        let _ = writeln!(text, "Ahead: {} ({ours} and {theirs}).\n", verdict.words());
    }
    for plot in plots.iter().filter(|plot| plot.scenario == Some(scenario.name)) {
        let _ = writeln!(text, "![{}]({})\n", plot.title, plot.file);
    }
    if !raced.refusals.is_empty() {
        let refusal = |r: &crate::results::Refusal| format!("{} ({})", r.contestant, r.reason);
        let refusals: Vec<String> = raced.refusals.iter().map(refusal).collect();
        let _ = writeln!(text, "Without {}.\n", refusals.join("; "));
    }
}

fn syncs(text: &mut String, results: &Results) {
    text.push_str("## System calls of a commit\n\n");
    if results.syncs.is_empty() {
        text.push_str("Not counted: `strace` was not there.\n\n");
        return;
    }
    text.push_str(
        "Counted with `strace`: one writer, commits of one event of 256 bytes, opening and warming up \
         taken off. What is written in the background counts too.\n\n\
         | | For each commit |\n|---|---|\n",
    );
    for line in &results.syncs {
        let synced = if line.synced_files { "; files opened for synced writes" } else { "" };
        let _ = writeln!(text, "| {} | {}{synced} |", line.contestant, calls_per_commit(line));
    }
    text.push('\n');
}

fn setups(text: &mut String, results: &Results) {
    text.push_str("## How each is used\n\n| | Version | |\n|---|---|---|\n");
    for contestant in contestants::all() {
        let version = contestant.package().and_then(|package| {
            let version = results.versions.get(package)?;
            Some(if package.ends_with("-sys") {
                format!("{package} {version}")
            } else {
                version.clone()
            })
        });
        let name = contestant.name();
        let _ =
            writeln!(text, "| {name} | {} | {} |", version.unwrap_or_default(), contestant.setup());
    }
    if cfg!(not(feature = "rocksdb")) {
        text.push_str("\nRocksDB takes part only when built with `--features rocksdb`.\n");
    }
}
