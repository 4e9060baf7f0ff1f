//! `amberlog export` and `amberlog import --jsonl`: a log as JSON Lines, and back.

use std::error::Error as _;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use amberlog::jsonl::{ExportOptions, Exported, ImportOptions, Imported, LostSeqs};
use amberlog::verify::RecoveryReport;
use amberlog::{Error, ReadView, Seq, StreamId};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::output::{
    ExitVerdict, Out, Outcome, VerbFailure, close, in_log, note, progress, waiting,
};
use crate::packed::{READ_BYTES, open_twice};
use crate::reading::{Reading, TailShown, open, open_to_write, resolve};
use crate::signals::Signals;
use crate::units::{count, streams_text};

const DETAILS: &str = "\
An export of the whole log can be imported without loss: ids, seqs, times, gaps,
names, labels, data, states, forks that share, rewinds. Positions and commits
belong to the log and are not exported. docs/jsonl.md describes every line. A
damaged event ends the export with exit code 2: nothing is left out silently.

With --skip-damaged everything that is whole is exported, and lines report what
is missing: the findings of a verification, which runs first and reads every
byte, and, in their place, the seqs that cannot be read. Losses are reported on
standard error as well, and the exit code is 1; an import turns them into gaps
and ends with exit code 1, too. Whole commits that are not known to have been
acknowledged are exported as well, and a line names their events.

Streams given by name are exported whole and separately. A file gets its name
once it is whole and durable: an export that fails, or is stopped by SIGINT or
SIGTERM, leaves no file.";

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct ExportArgs {
    /// Directory of the log
    log: PathBuf,
    /// Streams: their ids, prefixes of their ids, or their names [default: all]
    #[arg(value_name = "STREAM")]
    streams: Vec<String>,
    /// File to write instead of standard output; must not exist
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Skip damage, and report it in the lines
    #[arg(long)]
    skip_damaged: bool,
}

#[derive(Debug, Default, Serialize)]
struct ExportSummary {
    file: String,
    streams: u64,
    deleted_streams: u64,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<u64>,
    /// Number of lost seqs.
    lost: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_seqs: Vec<LostFields>,
    /// First and last position of the commits that are not known to have been acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<[u64; 2]>,
    /// Number of places that a verification finds damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    damages: Option<u64>,
}

impl ExportSummary {
    /// Summarizes the export to `path`. `report` is that of a verification that preceded it.
    fn of_export(path: &Path, exported: &Exported, report: Option<&RecoveryReport>) -> Self {
        let unconfirmed = report.filter(|report| report.acknowledged < report.position);
        let seqs = |lost: &LostSeqs| lost.seqs.end.get().saturating_sub(lost.seqs.start.get());
        let lost_seqs = exported.lost.iter().map(|lost| LostFields {
            stream: lost.stream,
            seqs: [lost.seqs.start, lost.seqs.end],
            why: lost.error.to_string(),
        });
        Self {
            file: path.display().to_string(),
            streams: exported.streams.saturating_sub(exported.deleted_streams),
            deleted_streams: exported.deleted_streams,
            events: exported.events,
            lost: exported.lost.iter().map(seqs).sum(),
            lost_seqs: lost_seqs.collect(),
            unconfirmed: unconfirmed
                .map(|report| [report.acknowledged.get().saturating_add(1), report.position.get()]),
            damages: report.map(|report| report.damages.len() as u64),
            ..Self::default()
        }
    }

    /// Summarizes the import of `path`.
    fn of_import(path: &Path, imported: &Imported) -> Self {
        Self {
            file: path.display().to_string(),
            streams: imported.streams.saturating_sub(imported.deleted_streams),
            deleted_streams: imported.deleted_streams,
            events: imported.events,
            commits: Some(imported.commits),
            lost: imported.lost,
            ..Self::default()
        }
    }
}

#[derive(Debug, Serialize)]
struct LostFields {
    stream: StreamId,
    seqs: [Seq; 2],
    why: String,
}

/// Writes streams as JSON Lines.
pub(crate) fn run(args: &ExportArgs, out: &mut Out) -> Outcome {
    let tail = if args.skip_damaged { TailShown::Whole } else { TailShown::Confirmed };
    let Reading { view, mut report, .. } = open(&args.log, tail)?;
    let id_of = |text: &String| Ok(resolve(&view, &args.log, text)?.id);
    let found = args.streams.iter().map(id_of);
    let ids = found.collect::<Result<Vec<_>, VerbFailure>>()?;
    let mut options = ExportOptions::new();
    if !ids.is_empty() {
        options = options.streams(ids);
    }
    if args.skip_damaged {
        let verified = waiting("verifying", || amberlog::verify::verify_quick(&args.log));
        report = verified.map_err(in_log(&args.log))?;
        options = options.skip_damaged(&report);
    }
    let exported = match &args.output {
        Some(path) => to_file(args, path, &view, &options)?,
        None => {
            let exported = view.export_jsonl_with(&options, out.writer());
            exported.map_err(|error| of_output(args, error))?
        }
    };
    exported.lost.iter().for_each(|lost| note(&lost.error));
    if let Some(path) = &args.output {
        let found = args.skip_damaged.then_some(&report);
        out.result(&ExportSummary::of_export(path, &exported, found), print)?;
    }
    Ok(ExitVerdict::of_log(report.is_sound() && exported.lost.is_empty()))
}

/// Writes the export to a temporary file in the same directory, and renames it once it is whole and
/// durable.
fn to_file(
    args: &ExportArgs,
    path: &Path,
    view: &ReadView,
    options: &ExportOptions,
) -> Result<Exported, VerbFailure> {
    let unwritable = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists if path.symlink_metadata().is_ok() => {
            let path = path.display();
            VerbFailure::Said(format!("{path} exists already; remove it, or choose another name"))
        }
        _ => VerbFailure::Input { what: path.display().to_string(), error },
    };
    if amberlog::maintenance::is_inside(&args.log, path).map_err(in_log(&args.log))? {
        let path = path.display();
        return Err(VerbFailure::Said(format!(
            "{path} is inside the log's own directory; nothing was written"
        )));
    }
    let signals = Signals::watch().map_err(unwritable)?;
    let unfinished = Unfinished::create(path).map_err(unwritable)?;
    let to = Stoppable { to: &unfinished.file, signals: &signals };
    let exported = waiting("exporting", || view.export_jsonl_with(options, to));
    let exported = exported.map_err(|error| match signals.asked() {
        Some(signal) => {
            VerbFailure::Said(format!("stopped by {signal}; {} was not created", path.display()))
        }
        None => in_log(&args.log)(error),
    })?;
    unfinished.finish(path).map_err(unwritable)?;
    Ok(exported)
}

/// Temporary file of an export; dropping it removes the file, unless it was renamed.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    /// Creates the file, unless `path` exists.
    fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        Ok(Self { file, path: unfinished })
    }

    /// Renames the file to `path`, unless that exists by now.
    fn finish(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        match std::fs::hard_link(&self.path, path) {
            // Some file systems have no hard links.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                std::fs::rename(&self.path, path)?;
            }
            linked => linked?,
        }
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Fails when the file was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// File that refuses writes after a signal.
struct Stoppable<'a> {
    to: &'a File,
    signals: &'a Signals,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.signals.asked() {
            Some(signal) => Err(io::Error::other(signal)),
            None => self.to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn print(summary: &ExportSummary, out: &mut Out) -> io::Result<()> {
    let streams = streams_text(summary.streams, summary.deleted_streams);
    let mut line = format!("{}: {streams}, {}", summary.file, count(summary.events, "event"));
    if let Some(commits) = summary.commits {
        line += &format!(" in {}", count(commits, "commit"));
    }
    if summary.lost > 0 {
        line += &format!(", {} lost", count(summary.lost, "event"));
    }
    if let Some([first, last]) = summary.unconfirmed {
        line += &format!(", positions {first} to {last} unconfirmed");
    }
    out.line(line)
}

/// Converts an error of an export to standard output. A reader that closed the output is not a
/// failure of the log.
fn of_output(args: &ExportArgs, error: Error) -> VerbFailure {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(kind) if error.place().is_none() => VerbFailure::Output(kind.into()),
        _ => in_log(&args.log)(error),
    }
}

/// Imports exports. Losses that they report become gaps, and count as damage found. The first
/// invalid file ends the import, and nothing of it is written.
pub(crate) fn import(log: &Path, files: &[PathBuf], resumes: bool, out: &mut Out) -> Outcome {
    let mut options = ImportOptions::new();
    if resumes {
        options = options.resume();
    }
    let mut opened = Vec::new();
    for path in files {
        let file = open_twice(path);
        let unreadable = |error| VerbFailure::Input { what: path.display().to_string(), error };
        opened.push((path, file.map_err(unreadable)?));
    }
    let (into, sound) = open_to_write(crate::reading::options(), log)?;
    let mut summaries = Vec::new();
    for (path, (bytes, file)) in opened {
        // Every byte is read twice.
        let bar = progress(bytes.saturating_mul(2), "{wide_bar} {bytes}/{total_bytes} {eta}");
        let watched = Watched { from: file, bar: bar.clone() };
        let from = BufReader::with_capacity(READ_BYTES, watched);
        let imported = into.import_jsonl_with(&options, from).map_err(in_log(path))?;
        bar.finish_and_clear();
        summaries.push(ExportSummary::of_import(path, &imported));
    }
    close(into, log)?;
    summaries.iter().try_for_each(|summary| out.result(summary, print))?;
    Ok(ExitVerdict::of_log(sound && summaries.iter().all(|summary| summary.lost == 0)))
}

/// File that moves a progress bar as it is read.
struct Watched {
    from: File,
    bar: ProgressBar,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bar.inc(read as u64);
        Ok(read)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.from.seek(to)
    }
}
