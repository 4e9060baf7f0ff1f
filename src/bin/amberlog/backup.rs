//! `amberlog backup`: a second log in another directory, while the first is written.

use std::path::Path;

use serde::Serialize;

use crate::output::{Out, Outcome, Verdict, in_log, waiting};
use crate::units::{bytes_text, count};

#[derive(Debug, Serialize)]
struct Report {
    position: u64,
    segments: u32,
    archive_files: u64,
    shared_bytes: u64,
    copied_bytes: u64,
}

/// Backs the log up into `target` and tells at which position.
pub(crate) fn run(log: &Path, target: &Path, out: &mut Out) -> Outcome {
    let waiting = waiting("copying");
    let done = amberlog::backup(log, target).map_err(in_log(log))?;
    waiting.finish_and_clear();
    let report = Report {
        position: done.position.get(),
        segments: done.segments,
        archive_files: done.archive_files,
        shared_bytes: done.shared_bytes,
        copied_bytes: done.copied_bytes,
    };
    if out.is_json() {
        out.json(&report)?;
    } else {
        out.line(format_args!(
            "backed up to position {}: {}, {} copied, {} shared with the log",
            report.position,
            count(report.segments.into(), "segment"),
            bytes_text(report.copied_bytes),
            bytes_text(report.shared_bytes),
        ))?;
    }
    Ok(Verdict::Done)
}
