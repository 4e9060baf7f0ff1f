//! `amberlog import`: makes a stream of each text file, and an event of each line.
//!
//! A file whose stream exists is compared first: an incomplete import is finished, an equal stream
//! is left alone, and a different one stays untouched.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amberlog::{AppendError, Log, Stream, StreamId, StreamOptions};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::compare::{Compared, Difference, SEEN_LABEL, compare};
use crate::export;
use crate::flight::{Crash, Flight};
use crate::lines::LineReader;
use crate::output::{ExitVerdict, Out, Outcome, close, in_log, note, progress};
use crate::reading::{open_to_write, options};
use crate::sources::{LINE_BYTES_MAX, Source, Sources, open};
use crate::units::{count, parse_age};

/// Number of buffered bytes that triggers a commit by default.
const COMMIT_BYTES: u64 = 1 << 20;
/// Size of the ring: a few of the longest lines. A ring takes memory only as it fills.
const RING_BYTES: usize = 4 * LINE_BYTES_MAX;
/// Number of bytes between two moves of the progress bar.
const PROGRESS_BYTES: u64 = 1 << 20;

const DETAILS: &str = "\
A stream is named by the file's path relative to the given folder, or by the
file's name. Skipped, with a note: hidden files, symbolic links, the log itself,
and files with a NUL byte in their first 8 KiB unless their name ends in .jsonl.
A file without lines creates no stream. .gz and .zst files are decompressed, and
the suffix is not part of the stream's name: a file that was compressed
since continues its stream. Files written by `amberlog export` are recreated as
streams with --jsonl, and imported as text without.

A file whose stream exists is compared with it. If they are equal, nothing
happens; if the file has more lines, those are imported; a last line that was
incomplete is replaced by its new content. Events that were trimmed since
(`amberlog retain`) stay trimmed: the label amberlog.source records how much of
the file the stream represents. If they differ, the stream stays as it is, the
change to the file is reported (emptied, shortened, replaced or changed) with
advice, and the exit code is 1. A file that cannot be read, or has a line above
64 MiB, is reported; the others are imported, and the exit code is 2.

With --jsonl an export may also come from standard input (-) or a pipe, or be
compressed.";

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct ImportArgs {
    /// Directory of the log; the first commit creates it
    log: PathBuf,
    /// Files to import, and folders to walk
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Commit every N lines, and at the end of each file [default: whenever 1 MiB is buffered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// Skip files without a stream that were last changed longer ago than this: 12h, 30d or 8w.
    /// Keeps streams deleted by `retain --max-idle` from coming back
    #[arg(long, value_name = "AGE", value_parser = parse_age, conflicts_with = "jsonl")]
    max_idle: Option<Duration>,
    /// Read the files as exports and recreate their streams. Never imports part of a file
    #[arg(long, conflicts_with = "commit_every")]
    jsonl: bool,
    /// Finish an interrupted import of the same exports: compare existing streams, add missing ones
    #[arg(long, requires = "jsonl")]
    resume: bool,
}

/// Outcome for a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum FileStatus {
    #[default]
    Imported,
    Already,
    Resumed,
    Differs,
    Skipped,
    Empty,
    Failed,
}

/// Words for the outcome of one file and for that of several, in the order of the summary.
const STATUSES: [(FileStatus, &str, &str); 7] = [
    (FileStatus::Imported, "imported", "imported"),
    (FileStatus::Resumed, "resumed", "resumed"),
    (FileStatus::Already, "already there", "already there"),
    (FileStatus::Empty, "empty", "empty"),
    (FileStatus::Skipped, "skipped", "skipped"),
    (FileStatus::Differs, "differs", "different"),
    (FileStatus::Failed, "failed", "failed"),
];

#[derive(Debug, Default, Serialize)]
struct FileReport {
    file: String,
    name: Option<String>,
    id: Option<StreamId>,
    status: FileStatus,
    /// Number of events in the stream.
    events: u64,
    /// Number of events that this import added.
    new_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl FileReport {
    fn new(file: &Path, name: Option<&str>) -> Self {
        Self { file: file.display().to_string(), name: name.map(str::to_owned), ..Self::default() }
    }

    fn set(&mut self, status: FileStatus, reason: impl Into<String>) {
        self.status = status;
        self.reason = Some(reason.into());
    }

    /// Sets the stream's number of events.
    fn reach(&mut self, events: u64) {
        let before = self.events.saturating_sub(self.new_events);
        self.events = events.max(before);
        self.new_events = self.events.saturating_sub(before);
    }
}

#[derive(Debug, Serialize)]
struct Totals {
    files: u64,
    #[serde(flatten)]
    by_status: BTreeMap<FileStatus, u64>,
    new_events: u64,
    commits: u64,
}

impl Totals {
    fn of(reports: &[FileReport], commits: u64) -> Self {
        let with = |status| reports.iter().filter(|report| report.status == status).count() as u64;
        Self {
            files: reports.len() as u64,
            by_status: STATUSES.map(|(status, ..)| (status, with(status))).into(),
            new_events: reports.iter().map(|report| report.new_events).sum(),
            commits,
        }
    }
}

#[derive(Debug, Serialize)]
struct ImportSummary<'a> {
    files: &'a [FileReport],
    totals: Totals,
}

/// Reason for giving up a file.
enum Stop {
    /// Fault of the file itself: the next one may succeed.
    File(String),
    /// The log accepts no more.
    Log(Crash),
}

/// Imports the files into the log, and reports the outcome for each.
pub(crate) fn run(args: &ImportArgs, out: &mut Out) -> Outcome {
    if args.jsonl {
        return export::import(&args.log, &args.paths, args.resume, out);
    }
    let sources = Sources::find(&args.paths, &args.log)?;
    let (log, sound) = open_to_write(options().ring_bytes_max(RING_BYTES), &args.log)?;
    let mut import = Import::new(&log, args, &sources);
    let crashed = import.all(&sources.files);
    import.bar.finish_and_clear();
    let reports = import.reports;
    let commits = import.flight.commits();
    let verdict = print(&reports, commits, out)?;
    let closed = close(log, &args.log);
    crashed.map_or(closed, |error| Err(in_log(&args.log)(error)))?;
    Ok(verdict.max(ExitVerdict::of_log(sound)))
}

struct Import<'a> {
    log: &'a Log,
    args: &'a ImportArgs,
    flight: Flight,
    bar: ProgressBar,
    reports: Vec<FileReport>,
    /// Lines and bytes that were appended but not committed.
    buffered_lines: u64,
    buffered_bytes: u64,
}

impl<'a> Import<'a> {
    fn new(log: &'a Log, args: &'a ImportArgs, sources: &Sources) -> Self {
        let total = sources.files.iter().map(|file| file.bytes).sum();
        let mut import = Self {
            log,
            args,
            flight: Flight::default(),
            bar: progress(total, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
            reports: Vec::new(),
            buffered_lines: 0,
            buffered_bytes: 0,
        };
        let skipped = sources.left_out.iter().map(|(path, why)| (path, FileStatus::Skipped, *why));
        let failed = sources.failed.iter();
        let failed = failed.map(|(path, why)| (path, FileStatus::Failed, why.as_str()));
        for (path, status, why) in skipped.chain(failed) {
            let mut report = FileReport::new(path, None);
            report.set(status, why);
            import.push(report);
        }
        import
    }

    /// Keeps a report, and prints a note at once unless all is well.
    fn push(&mut self, report: FileReport) {
        let why = report.reason.as_deref().unwrap_or_default();
        let word = match report.status {
            FileStatus::Skipped => "skipped: ",
            FileStatus::Differs => "differs: ",
            FileStatus::Failed => "",
            _ => return self.reports.push(report),
        };
        let file = &report.file;
        self.bar.suspend(|| note(format_args!("{file}: {word}{why}")));
        self.reports.push(report);
    }

    /// Imports the files in turn. Returns the error after which the log accepts no more.
    fn all(&mut self, files: &[Source]) -> Option<amberlog::Error> {
        let mut begun = 0;
        let mut error = None;
        for source in files {
            let mut report = FileReport::new(&source.path, Some(&source.name));
            match self.file(source, begun, &mut report) {
                Ok(()) => {}
                Err(Stop::File(why)) => report.set(FileStatus::Failed, why),
                Err(Stop::Log(crash)) => {
                    report.status = FileStatus::Failed;
                    self.reports.push(report);
                    error = Some(self.crash(crash));
                    break;
                }
            }
            begun = begun.saturating_add(source.bytes);
            self.bar.set_position(begun);
            self.push(report);
        }
        if let Err(crash) = self.flight.land() {
            error = error.or(Some(self.crash(crash)));
        }
        self.recount_failed();
        error
    }

    /// Handles a failed commit: marks every file with a part in it, or in a later commit, as
    /// failed.
    fn crash(&mut self, first: Crash) -> amberlog::Error {
        let error = first.error.clone();
        let mut next = Some(first);
        while let Some(crash) = next {
            if let Some(report) = self.reports.get_mut(crash.owner) {
                report.set(FileStatus::Failed, crash.error.to_string());
            }
            next = self.flight.land().err();
        }
        error
    }

    /// Corrects the reports of failed files: part of a file may have been committed, so the log's
    /// state counts.
    fn recount_failed(&mut self) {
        let view = self.log.read_view();
        let failed = self.reports.iter_mut();
        for report in failed.filter(|report| report.status == FileStatus::Failed) {
            let name = report.name.as_deref();
            let id = name.and_then(|name| view.find(name));
            let info = id.and_then(|id| view.info(id));
            report.id = info.as_ref().map(|info| info.id);
            report.reach(info.map_or(0, |info| info.head.get()));
        }
    }

    fn file(&mut self, source: &Source, begun: u64, report: &mut FileReport) -> Result<(), Stop> {
        let unreadable = |error: std::io::Error| Stop::File(error.to_string());
        let of_log = |error: amberlog::Error| Stop::File(error.to_string());
        let name = source.name.as_str();
        let view = self.log.read_view();
        let known = view.find(name).and_then(|id| view.info(id));
        if let Some(info) = &known {
            report.id = Some(info.id);
            report.events = info.head.get();
        }
        let mut lines = match open(&source.path).map_err(unreadable)? {
            Ok(lines) => lines,
            Err(why) => {
                report.set(FileStatus::Skipped, why);
                return Ok(());
            }
        };
        let mut stream = if let Some(info) = known {
            let events = view.events(info.id).map_err(of_log)?;
            let compared = compare(&info, events, &mut lines).map_err(unreadable)?;
            let line = lines.number();
            let mut reason = format!("resumed at line {line}");
            match &compared {
                Compared::Same => {
                    report.status = FileStatus::Already;
                    return Ok(());
                }
                Compared::Differs(difference, why) => {
                    report.set(FileStatus::Differs, format!("{why}: {}", difference.advice()));
                    report.difference = Some(*difference);
                    return Ok(());
                }
                Compared::Prefix => {}
                Compared::Half => reason += ", which was incomplete",
            }
            report.set(FileStatus::Resumed, reason);
            let mut stream = self.log.open_stream(info.id).map_err(of_log)?;
            if let Compared::Half = compared {
                stream.rewind(line.saturating_sub(1)).map_err(of_log)?;
                report.events = report.events.saturating_sub(1);
            }
            stream
        } else if self.args.max_idle.is_some_and(|idle_max| source.is_idle(idle_max)) {
            report.set(FileStatus::Skipped, "last changed longer ago than --max-idle");
            return Ok(());
        } else if lines.advance().map_err(unreadable)? {
            let options = StreamOptions::new().name(name);
            self.log.create_stream_with(&options).map_err(of_log)?
        } else {
            report.set(FileStatus::Empty, "no lines, so no stream");
            return Ok(());
        };
        report.id = Some(stream.id());
        self.rest(&mut stream, source, &mut lines, begun)?;
        report.reach(lines.number());
        Ok(())
    }

    /// Appends the current line and all that follow, and commits them.
    fn rest<R: BufRead>(
        &mut self,
        stream: &mut Stream,
        source: &Source,
        lines: &mut LineReader<R>,
        begun: u64,
    ) -> Result<(), Stop> {
        (self.buffered_lines, self.buffered_bytes) = (0, 0);
        let mut shown = 0;
        loop {
            self.append(stream, lines)?;
            match lines.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // Earlier lines are whole; a later import continues after them.
                    self.commit(stream)?;
                    let done = stream.head();
                    return Err(Stop::File(format!("{error}; {done} lines are imported")));
                }
            }
            let is_due = match self.args.commit_every {
                Some(every) => self.buffered_lines >= every,
                None => self.buffered_bytes >= COMMIT_BYTES,
            };
            if is_due {
                self.commit(stream)?;
            }
            if lines.bytes_read().saturating_sub(shown) >= PROGRESS_BYTES {
                shown = lines.bytes_read();
                // The content of a compressed file is larger than the file.
                self.bar.set_position(begun.saturating_add(shown.min(source.bytes)));
            }
        }
        // Fails when the stream has too many labels: then trimmed events cannot be compared later.
        let _ = stream.set_label(SEEN_LABEL, &lines.seen().to_string());
        self.commit(stream)
    }

    fn append<R: BufRead>(
        &mut self,
        stream: &mut Stream,
        lines: &LineReader<R>,
    ) -> Result<(), Stop> {
        let mut refused = stream.append(lines.event()).err();
        if refused.is_some_and(AppendError::is_retryable) {
            self.commit(stream)?;
            self.flight.land().map_err(Stop::Log)?;
            refused = stream.append(lines.event()).err();
        }
        if let Some(refused) = refused {
            let line = lines.number();
            return Err(Stop::File(format!("line {line}: {refused}")));
        }
        self.buffered_lines = self.buffered_lines.saturating_add(1);
        self.buffered_bytes = self.buffered_bytes.saturating_add(lines.bytes().len() as u64);
        Ok(())
    }

    fn commit(&mut self, stream: &mut Stream) -> Result<(), Stop> {
        // The next report is that of this file.
        let owner = self.reports.len();
        let launched = self.flight.launch(owner, self.buffered_bytes, stream.commit());
        launched.map_err(Stop::Log)?;
        (self.buffered_lines, self.buffered_bytes) = (0, 0);
        Ok(())
    }
}

fn print(reports: &[FileReport], commits: u64, out: &mut Out) -> Outcome {
    let summary = ImportSummary { files: reports, totals: Totals::of(reports, commits) };
    out.result(&summary, print_text)?;
    let verdicts = reports.iter().map(|report| match report.status {
        FileStatus::Failed => ExitVerdict::Incomplete,
        FileStatus::Differs => ExitVerdict::Found,
        _ => ExitVerdict::Done,
    });
    Ok(verdicts.max().unwrap_or(ExitVerdict::Done))
}

fn print_text(summary: &ImportSummary<'_>, out: &mut Out) -> std::io::Result<()> {
    let ImportSummary { files, totals } = summary;
    for report in *files {
        out.line(line(report).trim_end())?;
    }
    let parts = STATUSES.iter().map(|(status, _, word)| (totals.by_status[status], word));
    let parts = parts.filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, word)| format!("{number} {word}")).collect();
    let (files, events) = (count(totals.files, "file"), count(totals.new_events, "new event"));
    let commits = count(totals.commits, "commit");
    let parts = parts.join(", ");
    let colon = if parts.is_empty() { "" } else { ": " };
    out.line(format_args!("{files}{colon}{parts}; {events} in {commits}"))
}

fn line(report: &FileReport) -> String {
    let of_file = STATUSES.iter().find(|(status, ..)| *status == report.status);
    let word = of_file.map_or("", |(_, word, _)| word);
    let id = report.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let name = report.name.as_deref().unwrap_or(&report.file);
    let why = report.reason.as_deref();
    let why = why.map(|why| format!("  ({why})")).unwrap_or_default();
    let events = count(report.events, "event");
    format!("{word:<13}  {id:<36}  {events:>12}  {name}{why}")
}
