//! `amberlog repair`: what `verify` only tells is made good, as far as that can be done without losing bytes.

use std::path::Path;

use serde::Serialize;

use crate::output::{Out, Outcome, Verdict, in_log};
use crate::units::bytes_text;

#[derive(Debug, Serialize)]
struct Report {
    damages_before: usize,
    cleared_bytes: u64,
    set_aside: Vec<String>,
    removed: Vec<String>,
    went_on: bool,
    changed: bool,
}

/// Repairs the log and reports. Exit code 1 when there is damage that no repair can undo.
pub(crate) fn run(log: &Path, out: &mut Out) -> Outcome {
    let repair = amberlog::repair(log).map_err(in_log(log))?;
    let paths = |places: &[amberlog::Place]| -> Vec<String> {
        places.iter().map(|place| place.path.display().to_string()).collect()
    };
    let report = Report {
        damages_before: repair.before.damages.len(),
        cleared_bytes: repair.cleared_bytes,
        set_aside: paths(&repair.set_aside),
        removed: paths(&repair.removed),
        went_on: repair.went_on,
        changed: !repair.changed_nothing(),
    };
    if out.is_json() {
        out.json(&report)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.damages_before == 0 { Verdict::Done } else { Verdict::Found })
}

fn print(report: &Report, out: &mut Out) -> std::io::Result<()> {
    if report.cleared_bytes > 0 {
        out.line(format_args!("cleared: a torn tail of {}", bytes_text(report.cleared_bytes)))?;
    }
    for path in &report.set_aside {
        out.line(format_args!("set aside: {path}"))?;
    }
    for path in &report.removed {
        out.line(format_args!("removed: {path}, which held nothing"))?;
    }
    if report.went_on {
        out.line("went on: in a new segment, behind every position that may have been given")?;
    }
    if !report.changed {
        out.line("nothing to do")?;
    }
    if report.damages_before > 0 {
        out.line("what was damaged stays as it is and is told by `verify`; the rest can be used")?;
    }
    Ok(())
}
