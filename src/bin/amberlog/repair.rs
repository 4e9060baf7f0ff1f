//! `amberlog repair`: makes a damaged log writable again, as far as possible without losing bytes.

use std::path::Path;

use amberlog::Position;
use serde::Serialize;

use crate::output::{ExitVerdict, Out, Outcome, in_log};
use crate::units::bytes_text;

#[derive(Debug, Serialize)]
struct RepairSummary {
    damages_before: usize,
    damages_after: usize,
    cleared_bytes: u64,
    set_aside: Vec<String>,
    went_on: Option<WentOn>,
    changed: bool,
}

#[derive(Debug, Serialize)]
struct WentOn {
    path: String,
    first: Position,
}

/// Repairs the log and reports. Returns exit code 1 if the log was damaged: lost events stay lost.
pub(crate) fn run(log: &Path, out: &mut Out) -> Outcome {
    let repair = amberlog::verify::repair(log).map_err(in_log(log))?;
    let report = RepairSummary {
        damages_before: repair.before.damages.len(),
        damages_after: repair.after.damages.len(),
        cleared_bytes: repair.cleared_bytes,
        set_aside: repair.set_aside.iter().map(|file| file.path.display().to_string()).collect(),
        went_on: repair
            .went_on
            .as_ref()
            .map(|new| WentOn { path: new.place.path.display().to_string(), first: new.first }),
        changed: !repair.changed_nothing(),
    };
    out.result(&report, print)?;
    Ok(ExitVerdict::of_log(repair.before.is_sound()))
}

fn print(report: &RepairSummary, out: &mut Out) -> std::io::Result<()> {
    if report.cleared_bytes > 0 {
        out.line(format_args!("cleared: a torn tail of {}", bytes_text(report.cleared_bytes)))?;
    }
    for path in &report.set_aside {
        out.line(format_args!("quarantined: {path}"))?;
    }
    if let Some(new) = &report.went_on {
        out.line(format_args!(
            "continued: in {}, from position {}, after every position that may have been assigned",
            new.path, new.first
        ))?;
    }
    if !report.changed {
        out.line("nothing to do")?;
    }
    if report.damages_after > 0 {
        out.line("damage stays where it is, and `verify` reports it; the rest is usable")?;
    }
    Ok(())
}
