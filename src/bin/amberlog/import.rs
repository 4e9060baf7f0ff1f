//! `amberlog import`: each text file becomes a stream, each of its lines an event.
//!
//! A name that is there already is compared first: what an earlier import began is finished, what is there is
//! left alone, and what differs is not touched.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use amberlog::{Events, Log, Options, RefusedReason, Stream, StreamOptions};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::export;
use crate::flight::{Crash, Flight};
use crate::lines::Lines;
use crate::output::{Out, Outcome, Verdict, in_log, note, progress};
use crate::reading::tell_damage;
use crate::sources::{LINE_BYTES_MAX, Source, Sources, open};
use crate::units::{count, printable};

/// A commit is made whenever so much is buffered, if nothing else was asked for.
const COMMIT_BYTES: u64 = 1 << 20;
/// Room for a few of the longest lines. A ring takes memory only as it fills.
const RING_BYTES: usize = 4 * LINE_BYTES_MAX;
/// How often the progress bar moves.
const PROGRESS_BYTES: u64 = 1 << 20;

const DETAILS: &str = "\
A stream is named by the file's path relative to the folder that was given, or
by the file's name. Left out, with a note: hidden files, symbolic links, the
log itself, and files with a NUL byte in their first 8 KiB unless they are
called .jsonl. A file without lines makes no stream. What `amberlog export`
wrote is taken as what it stands for with --jsonl, and as text without.

A file whose stream is there already is compared with it. If they are equal,
nothing happens; if the file has more lines, those are imported; if they
differ, the stream is left as it is and the exit code is 1. A file that cannot
be read, or has a line above 64 MiB, is reported, the others are imported, and
the exit code is 2.";

/// What can be asked of `import`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory; made by the first commit
    log: PathBuf,
    /// Files, and folders to walk
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Commit every N lines, and at the end of each file [default: whenever 1 MiB is buffered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// The files are exports: make the streams that they hold, as they were. No file is taken in part
    #[arg(long, conflicts_with = "commit_every")]
    jsonl: bool,
    /// Go on with an import of the same exports that was cut off: what is there is compared, what is missing added
    #[arg(long, requires = "jsonl")]
    resume: bool,
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Imported,
    Already,
    Resumed,
    Differs,
    Skipped,
    Empty,
    Failed,
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    name: Option<String>,
    id: Option<String>,
    status: Status,
    /// Events of the stream.
    events: u64,
    /// Those of them that this import brought.
    new_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Report {
    fn new(file: &Path, name: Option<&str>) -> Self {
        Self {
            file: file.display().to_string(),
            name: name.map(str::to_owned),
            id: None,
            status: Status::Imported,
            events: 0,
            new_events: 0,
            reason: None,
        }
    }

    fn set(&mut self, status: Status, reason: impl Into<String>) {
        self.status = status;
        self.reason = Some(reason.into());
    }

    /// The stream has so many events now.
    fn reach(&mut self, events: u64) {
        let before = self.events - self.new_events;
        self.events = events.max(before);
        self.new_events = self.events - before;
    }
}

#[derive(Debug, Default, Serialize)]
struct Totals {
    files: u64,
    imported: u64,
    already: u64,
    resumed: u64,
    differs: u64,
    skipped: u64,
    empty: u64,
    failed: u64,
    new_events: u64,
    commits: u64,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    files: &'a [Report],
    totals: Totals,
}

/// Why a file was given up.
enum Stop {
    /// The file's own fault: the next one may do better.
    File(String),
    /// The log takes no more.
    Log(Crash),
}

impl From<Crash> for Stop {
    fn from(crash: Crash) -> Self {
        Self::Log(crash)
    }
}

/// How a stream and a file compare.
enum Compared {
    Same,
    /// The lines from the current one on are new.
    Prefix,
    Differs(String),
}

/// Imports the files into the log, and says what became of each.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    if args.jsonl {
        return export::import(&args.log, &args.paths, args.resume, out);
    }
    let sources = Sources::find(&args.paths, &args.log)?;
    let options = Options::new().ring_bytes_max(RING_BYTES);
    let log = options.open(&args.log).map_err(in_log(&args.log))?;
    let sound = tell_damage(log.survey(), &args.log);
    let mut import = Import::new(&log, args.commit_every, &sources);
    let crashed = import.all(&sources.files);
    import.bar.finish_and_clear();
    let (reports, commits) = (import.reports, import.flight.commits());
    let verdict = print(&reports, commits, out)?;
    let closed = log.close();
    if let Some(error) = crashed.or(closed.err()) {
        return Err(in_log(&args.log)(error));
    }
    Ok(if sound || verdict != Verdict::Done { verdict } else { Verdict::Found })
}

struct Import<'a> {
    log: &'a Log,
    commit_every: Option<u64>,
    flight: Flight,
    bar: ProgressBar,
    reports: Vec<Report>,
    /// What is appended and not committed: lines and bytes.
    buffered_lines: u64,
    buffered_bytes: u64,
}

impl<'a> Import<'a> {
    fn new(log: &'a Log, commit_every: Option<u64>, sources: &Sources) -> Self {
        let total = sources.files.iter().map(|file| file.bytes).sum();
        let mut import = Self {
            log,
            commit_every,
            flight: Flight::default(),
            bar: progress(total, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
            reports: Vec::new(),
            buffered_lines: 0,
            buffered_bytes: 0,
        };
        for (path, why) in &sources.left_out {
            let mut report = Report::new(path, None);
            report.set(Status::Skipped, *why);
            import.push(report);
        }
        for (path, why) in &sources.failed {
            let mut report = Report::new(path, None);
            report.set(Status::Failed, why);
            import.push(report);
        }
        import
    }

    /// Keeps a report, and says at once what is not as it should be.
    fn push(&mut self, report: Report) {
        let why = report.reason.as_deref().unwrap_or_default();
        let word = match report.status {
            Status::Skipped => "skipped: ",
            Status::Differs => "differs: ",
            Status::Failed => "",
            _ => return self.reports.push(report),
        };
        let file = &report.file;
        self.bar.suspend(|| note(format_args!("{file}: {word}{why}")));
        self.reports.push(report);
    }

    /// Takes one file after the other. `Some`: the log takes no more, and why.
    fn all(&mut self, files: &[Source]) -> Option<amberlog::Error> {
        let mut begun = 0;
        let mut error = None;
        for source in files {
            let mut report = Report::new(&source.path, Some(&source.name));
            let ended = self.file(source, begun, &mut report);
            if let Err(Stop::File(why)) = &ended {
                report.set(Status::Failed, why);
            }
            begun += source.bytes;
            self.bar.set_position(begun);
            if let Err(Stop::Log(crash)) = ended {
                report.status = Status::Failed;
                self.reports.push(report);
                error = Some(self.crash(crash));
                break;
            }
            self.push(report);
        }
        if let Err(crash) = self.flight.land() {
            error = error.or(Some(self.crash(crash)));
        }
        self.recount_failed();
        error
    }

    /// A commit failed: every file that had a part in it, or in one behind it, is told apart.
    fn crash(&mut self, first: Crash) -> amberlog::Error {
        let error = first.error.clone();
        let mut next = Some(first);
        while let Some(crash) = next {
            if let Some(report) = self.reports.get_mut(crash.owner) {
                report.set(Status::Failed, crash.error.to_string());
            }
            next = self.flight.land().err();
        }
        error
    }

    /// Of files that failed, a part may be there: what the log shows is what counts.
    fn recount_failed(&mut self) {
        let snapshot = self.log.snapshot();
        let failed = self.reports.iter_mut();
        for report in failed.filter(|report| report.status == Status::Failed) {
            let name = report.name.as_deref();
            let id = name.and_then(|name| snapshot.find(name));
            let info = id.and_then(|id| snapshot.stream(id));
            report.id = info.as_ref().map(|info| info.id.to_string());
            report.reach(info.map_or(0, |info| info.head.get()));
        }
    }

    fn file(&mut self, source: &Source, begun: u64, report: &mut Report) -> Result<(), Stop> {
        let unreadable = |error: std::io::Error| Stop::File(error.to_string());
        let of_log = |error: amberlog::Error| Stop::File(error.to_string());
        let name = source.name.as_str();
        let snapshot = self.log.snapshot();
        let known = snapshot.find(name).and_then(|id| snapshot.stream(id));
        if let Some(info) = &known {
            report.id = Some(info.id.to_string());
            report.events = info.head.get();
        }
        let Some(mut lines) = open(&source.path).map_err(unreadable)? else {
            report.set(Status::Skipped, "no text");
            return Ok(());
        };
        let mut stream = if let Some(id) = known.map(|info| info.id) {
            let events = snapshot.events(id).map_err(of_log)?;
            match compare(events, &mut lines).map_err(unreadable)? {
                Compared::Same => {
                    report.status = Status::Already;
                    return Ok(());
                }
                Compared::Differs(why) => {
                    report.set(Status::Differs, why);
                    return Ok(());
                }
                Compared::Prefix => {}
            }
            let line = lines.number();
            report.set(Status::Resumed, format!("resumed at line {line}"));
            self.log.resume(id).map_err(of_log)?
        } else if lines.advance().map_err(unreadable)? {
            let options = StreamOptions::new().name(name);
            self.log.stream_with(&options).map_err(of_log)?
        } else {
            let why = "no lines, so no events and no stream";
            report.set(Status::Empty, why);
            return Ok(());
        };
        report.id = Some(stream.id().to_string());
        self.rest(&mut stream, &mut lines, begun)?;
        report.reach(lines.number());
        Ok(())
    }

    /// Appends the current line and all that follow, and commits them.
    fn rest<R: BufRead>(
        &mut self,
        stream: &mut Stream,
        lines: &mut Lines<R>,
        begun: u64,
    ) -> Result<(), Stop> {
        (self.buffered_lines, self.buffered_bytes) = (0, 0);
        let mut shown = 0;
        loop {
            self.append(stream, lines)?;
            let is_due = match self.commit_every {
                Some(every) => self.buffered_lines >= every,
                None => self.buffered_bytes >= COMMIT_BYTES,
            };
            if is_due {
                self.commit(stream)?;
            }
            if lines.bytes_read() - shown >= PROGRESS_BYTES {
                shown = lines.bytes_read();
                self.bar.set_position(begun + shown);
            }
            match lines.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // What came before is whole lines; a later import goes on behind them.
                    self.commit(stream)?;
                    let done = stream.head();
                    return Err(Stop::File(format!("{error}; {done} lines are imported")));
                }
            }
        }
        self.commit(stream)
    }

    fn append<R: BufRead>(&mut self, stream: &mut Stream, lines: &Lines<R>) -> Result<(), Stop> {
        let mut refused = stream.append(lines.event()).err();
        if let Some(RefusedReason::RingFull { .. } | RefusedReason::MemoryFull { .. }) =
            refused.map(|refused| refused.reason)
        {
            self.commit(stream)?;
            self.flight.land()?;
            refused = stream.append(lines.event()).err();
        }
        if let Some(refused) = refused {
            let line = lines.number();
            return Err(Stop::File(format!("line {line}: {refused}")));
        }
        self.buffered_lines += 1;
        self.buffered_bytes += lines.bytes().len() as u64;
        Ok(())
    }

    fn commit(&mut self, stream: &mut Stream) -> Result<(), Stop> {
        if self.buffered_lines > 0 {
            // The file's report comes behind those that are there.
            let owner = self.reports.len();
            self.flight.launch(owner, self.buffered_bytes, stream.commit())?;
            (self.buffered_lines, self.buffered_bytes) = (0, 0);
        }
        Ok(())
    }
}

fn compare<R: BufRead>(mut events: Events, lines: &mut Lines<R>) -> std::io::Result<Compared> {
    loop {
        let has_line = lines.advance()?;
        let event = match events.next() {
            None if has_line => return Ok(Compared::Prefix),
            None => return Ok(Compared::Same),
            Some(Err(error)) => return Ok(Compared::Differs(error.to_string())),
            Some(Ok(event)) => event,
        };
        let why = if !has_line {
            format!("the stream has more than the file's {}", lines.number())
        } else if event.dropped_before() > 0 {
            format!("the stream has a gap before event {}", event.seq())
        } else if event.kind() != lines.kind() || event.payload() != lines.bytes() {
            format!("line {} is not event {}", lines.number(), event.seq())
        } else {
            continue;
        };
        return Ok(Compared::Differs(why));
    }
}

fn print(reports: &[Report], commits: u64, out: &mut Out) -> Outcome {
    let totals = add_up(reports, commits);
    let verdict = if totals.failed > 0 {
        Verdict::Incomplete
    } else if totals.differs > 0 {
        Verdict::Found
    } else {
        Verdict::Done
    };
    if out.is_json() {
        out.json(&Summary { files: reports, totals })?;
        return Ok(verdict);
    }
    for report in reports {
        out.line(line(report).trim_end())?;
    }
    let parts = [
        (totals.imported, "imported"),
        (totals.resumed, "resumed"),
        (totals.already, "already there"),
        (totals.empty, "empty"),
        (totals.skipped, "skipped"),
        (totals.differs, "different"),
        (totals.failed, "failed"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, word)| format!("{number} {word}")).collect();
    let (files, events) = (count(totals.files, "file"), count(totals.new_events, "new event"));
    let commits = count(totals.commits, "commit");
    let parts = parts.join(", ");
    let colon = if parts.is_empty() { "" } else { ": " };
    out.line(format_args!("{files}{colon}{parts}; {events} in {commits}"))?;
    Ok(verdict)
}

fn line(report: &Report) -> String {
    let word = match report.status {
        Status::Imported => "imported",
        Status::Already => "already there",
        Status::Resumed => "resumed",
        Status::Differs => "differs",
        Status::Skipped => "skipped",
        Status::Empty => "empty",
        Status::Failed => "failed",
    };
    let id = report.id.as_deref().unwrap_or("-");
    let name = report.name.as_deref().unwrap_or(&report.file);
    let name = printable(name);
    let why = report.reason.as_deref();
    let why = why.map(|why| format!("  ({why})")).unwrap_or_default();
    let events = count(report.events, "event");
    format!("{word:<13}  {id:<36}  {events:>12}  {name}{why}")
}

fn add_up(reports: &[Report], commits: u64) -> Totals {
    let mut totals = Totals { files: reports.len() as u64, commits, ..Totals::default() };
    for report in reports {
        let counter = match report.status {
            Status::Imported => &mut totals.imported,
            Status::Already => &mut totals.already,
            Status::Resumed => &mut totals.resumed,
            Status::Differs => &mut totals.differs,
            Status::Skipped => &mut totals.skipped,
            Status::Empty => &mut totals.empty,
            Status::Failed => &mut totals.failed,
        };
        *counter += 1;
        totals.new_events += report.new_events;
    }
    totals
}
