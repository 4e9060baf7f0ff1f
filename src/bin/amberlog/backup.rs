//! `amberlog backup`: a second log in another directory, while the first is written.

use std::path::Path;

use amberlog::maintenance::BackupReport;

use crate::output::{ExitVerdict, Out, Outcome, in_log, note, waiting};
use crate::reading::{TailShown, open_quietly, tell_damage};
use crate::units::{bytes_text, count};

/// Backs the log up into `target` and prints the backup's position.
pub(crate) fn run(log: &Path, target: &Path, out: &mut Out) -> Outcome {
    let copied = waiting("copying", || amberlog::maintenance::backup(log, target));
    let report = copied.map_err(in_log(log))?;
    // The backup has the damage of the log. The exit code keeps a rotation from replacing a sound
    // backup.
    let found = open_quietly(target, TailShown::Confirmed)?.report;
    out.result(&report, print)?;
    if report.unreadable_bytes > 0 {
        let bytes = bytes_text(report.unreadable_bytes);
        note(format_args!(
            "the disk cannot read {bytes} of the log: they are damage in the backup too"
        ));
        return Ok(ExitVerdict::Found);
    }
    Ok(ExitVerdict::of_log(tell_damage(&found, log)))
}

fn print(report: &BackupReport, out: &mut Out) -> std::io::Result<()> {
    out.line(format_args!(
        "backed up to position {}: {}, {} copied, {} shared with the log",
        report.position,
        count(report.segments.into(), "segment"),
        bytes_text(report.copied_bytes),
        bytes_text(report.shared_bytes),
    ))
}
