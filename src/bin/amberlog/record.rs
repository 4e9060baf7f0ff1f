//! `amberlog record`: records the lines of standard input, committed as the caller's policy says.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use amberlog::{
    AppendError, Error, ErrorKind, Log, Options, Overflow, Stream, StreamId, StreamOptions,
};
use regex::bytes::Regex;
use serde::Serialize;

use crate::flight::Flight;
use crate::lines::{Content, LineReader};
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, close, in_log, note};
use crate::reading::open_to_write;
use crate::signals::{Signals, StoppableInput};
use crate::sources::LINE_BYTES_MAX;
use crate::units::{count, parse_bytes};

/// Default size of a flight recorder's ring.
const RING_BYTES: usize = 1 << 20;
/// Size of the read buffer.
const READ_BYTES: usize = 64 << 10;
/// Pause between two attempts to commit on a full disk.
const RETRY: Duration = Duration::from_secs(1);

const DETAILS: &str = "\
Lines wait in memory until a commit. Without --commit-every and --commit-on the
only commit is at the end. With --commit-every the rest is committed at the end
too; with --commit-on lines after the last match are not committed, and a note
reports their number.

SIGINT and SIGTERM end the input: everything written to it before the signal is
read and committed as at the end of a file; the exit code is 0. A second signal
ends the process at once.

When the ring is full before a commit: with --keep-last the oldest lines are
dropped, and the next commit records their number; with --commit-on recording
ends with exit code 2; otherwise the buffered lines are committed early. A line
that cannot be recorded (above 64 MiB, or larger than the ring) ends recording
with exit code 2, and the lines before it are committed as at the end of the
input. On a full disk recording reports that, waits, and continues when there is
space; a signal ends the wait with exit code 2.";

/// Arguments of `record`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct RecordArgs {
    /// Directory of the log; the first commit creates it
    log: PathBuf,
    /// Name of the stream; an existing stream of this name is continued
    #[arg(long)]
    name: Option<String>,
    /// Commit every N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// Commit when a line matches this pattern
    #[arg(long, value_name = "REGEX", conflicts_with = "commit_every")]
    commit_on: Option<Regex>,
    /// Maximum size of the buffered lines, with an optional k, M or G [default: 64M; 1M with
    /// --keep-last]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    ring: Option<usize>,
    /// Act as a flight recorder: keep only the newest lines that fit in the ring
    #[arg(long)]
    keep_last: bool,
}

#[derive(Debug, Serialize)]
struct RecordSummary {
    id: Option<StreamId>,
    name: Option<String>,
    ended: &'static str,
    lines: u64,
    committed: u64,
    commits: u64,
    dropped: u64,
    not_committed: u64,
}

/// Reason for the end of a recording.
enum RecordEnd {
    /// End of the input.
    Input,
    /// A signal, by its name.
    Signal(&'static str),
    /// Reason why a line was refused.
    Refused(String),
    /// A failure of the log.
    Failed(VerbFailure),
}

impl RecordEnd {
    fn word(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Signal(signal) => signal,
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }
}

/// Records standard input.
pub(crate) fn run(args: &RecordArgs, out: &mut Out) -> Outcome {
    let signals = Signals::watch();
    let signals = signals.map_err(|error| VerbFailure::Input { what: "signals".into(), error })?;
    let (log, sound) = open_to_write(options(args), &args.log)?;
    let stream = stream(&log, args).map_err(in_log(&args.log))?;
    let mut recorder = Recorder {
        args,
        signals: &signals,
        stream,
        flight: Flight::default(),
        lines: 0,
        since_commit: 0,
        bytes_since_commit: 0,
    };
    let input = BufReader::with_capacity(READ_BYTES, StoppableInput::new(&signals));
    let end = recorder.all(input).unwrap_or_else(RecordEnd::Failed);
    let (end, left) = recorder.finish(end);
    out.result(&recorder.summary(&end, left), print)?;
    drop(recorder);
    let closed = close(log, &args.log);
    match end {
        RecordEnd::Failed(failure) => return Err(failure),
        RecordEnd::Refused(why) => return Err(VerbFailure::Said(why)),
        RecordEnd::Input | RecordEnd::Signal(_) => closed?,
    }
    Ok(ExitVerdict::of_log(sound))
}

fn options(args: &RecordArgs) -> Options {
    let mut options = crate::reading::options();
    if args.keep_last {
        options = options.overflow(Overflow::OverwriteOldest);
    }
    let ring = args.ring.or(args.keep_last.then_some(RING_BYTES));
    match ring {
        // One ring in memory, one in flight, and room to grow into the next size.
        Some(ring) => {
            options.ring_bytes_max(ring).memory_bytes_max(ring.saturating_mul(4).max(1 << 30))
        }
        None => options,
    }
}

fn stream(log: &Log, args: &RecordArgs) -> amberlog::Result<Stream> {
    let Some(name) = &args.name else {
        return log.create_stream();
    };
    match log.read_view().find(name) {
        Some(id) => log.open_stream(id),
        None => log.create_stream_with(&StreamOptions::new().name(name)),
    }
}

struct Recorder<'a> {
    args: &'a RecordArgs,
    signals: &'a Signals,
    stream: Stream,
    flight: Flight,
    lines: u64,
    since_commit: u64,
    bytes_since_commit: u64,
}

impl Recorder<'_> {
    /// Takes lines until there are no more, committing as the policy says.
    fn all(&mut self, input: BufReader<impl Read>) -> Result<RecordEnd, VerbFailure> {
        let mut lines = LineReader::new(input, Content::Text, LINE_BYTES_MAX);
        loop {
            match lines.advance() {
                Ok(true) => {}
                Ok(false) => {
                    return Ok(self.signals.asked().map_or(RecordEnd::Input, RecordEnd::Signal));
                }
                Err(error) => return Ok(RecordEnd::Refused(format!("standard input: {error}"))),
            }
            if let Some(refused) = self.append(&lines)? {
                return Ok(RecordEnd::Refused(self.explain(lines.number(), &refused)));
            }
            let is_due = match (&self.args.commit_every, &self.args.commit_on) {
                (Some(every), _) => self.since_commit >= *every,
                (None, Some(pattern)) => pattern.is_match(lines.bytes()),
                (None, None) => false,
            };
            if is_due {
                self.commit()?;
            }
        }
    }

    /// Appends the current line, or returns the reason for its refusal.
    fn append<R: BufRead>(
        &mut self,
        lines: &LineReader<R>,
    ) -> Result<Option<AppendError>, VerbFailure> {
        let try_it = |stream: &mut Stream| stream.append(lines.event()).err();
        let mut refused = try_it(&mut self.stream);
        if refused.is_some_and(AppendError::is_retryable) {
            // Bytes in flight count until they have landed.
            self.land()?;
            refused = try_it(&mut self.stream);
        }
        if refused.is_some_and(AppendError::is_retryable) && self.args.commit_on.is_none() {
            self.commit()?;
            self.land()?;
            refused = try_it(&mut self.stream);
        }
        if refused.is_none() {
            let bytes = lines.bytes().len() as u64;
            self.lines = self.lines.saturating_add(1);
            self.since_commit = self.since_commit.saturating_add(1);
            self.bytes_since_commit = self.bytes_since_commit.saturating_add(bytes);
        }
        Ok(refused)
    }

    fn explain(&self, line: u64, refused: &AppendError) -> String {
        let or = if refused.is_retryable() { ", commit earlier, or use --keep-last" } else { "" };
        let kept = match &self.args.commit_on {
            Some(_) => "committed lines are in the log",
            None => "earlier lines are in the log",
        };
        format!("line {line}: {refused}; raise --ring{or}. Recording ends here; {kept}")
    }

    fn commit(&mut self) -> Result<(), VerbFailure> {
        let bytes = std::mem::take(&mut self.bytes_since_commit);
        self.since_commit = 0;
        let ticket = self.stream.commit();
        let launched = match self.flight.launch(0, bytes, ticket) {
            // A repeated commit would take along lines that were appended after the match.
            Ok(()) if self.args.commit_on.is_some() => self.flight.land(),
            launched => launched,
        };
        launched.or_else(|crash| self.recover(crash.error))
    }

    fn land(&mut self) -> Result<(), VerbFailure> {
        self.flight.land().or_else(|crash| self.recover(crash.error))
    }

    /// Handles a failed commit. On a full disk, its events are back in the ring: waits for space
    /// and commits them.
    fn recover(&mut self, mut error: Error) -> Result<(), VerbFailure> {
        // Later commits of the stream fail with it.
        while self.flight.land().is_err() {}
        if lacks_space(&error) {
            let waiting = count(self.stream.buffered(), "line");
            note(format_args!("{error}. {waiting} read but not committed; waiting for space"));
        }
        while lacks_space(&error) {
            let signal = self.signals.wait(RETRY);
            error = match self.stream.commit().wait() {
                Ok(commit) => {
                    self.flight.count(&commit);
                    (self.since_commit, self.bytes_since_commit) = (0, 0);
                    note("there is space again; everything read up to now is committed");
                    return Ok(());
                }
                Err(again) => again,
            };
            if signal.is_some() {
                break;
            }
        }
        Err(in_log(&self.args.log)(error))
    }

    /// Commits the rest if the policy says so, and waits for all commits. Returns the reason for
    /// the end, and the number of events left uncommitted.
    fn finish(&mut self, end: RecordEnd) -> (RecordEnd, u64) {
        let failed = matches!(end, RecordEnd::Failed(_));
        let promotes_rest = !failed && self.args.commit_on.is_none() && self.since_commit > 0;
        let rest = if promotes_rest { self.commit() } else { Ok(()) };
        let landed = rest.and_then(|()| if failed { Ok(()) } else { self.land() });
        let end = match landed {
            Ok(()) => end,
            Err(failure) => RecordEnd::Failed(failure),
        };
        if let RecordEnd::Signal(signal) = &end {
            note(format_args!("{signal} ended the input; everything read before it is recorded"));
        }
        let left = self.stream.discard();
        if left > 0 {
            let why = match &end {
                RecordEnd::Failed(_) => "the log accepts no more",
                _ if self.flight.commits() == 0 => "no line matched",
                _ => "nothing after the last match is committed",
            };
            note(format_args!("{} not committed: {why}", count(left, "event")));
        }
        (end, left)
    }

    /// Summarizes the recording; `left` is the number of events that were buffered at the end but
    /// not committed.
    fn summary(&self, end: &RecordEnd, left: u64) -> RecordSummary {
        let committed = self.flight.events();
        let rest = self.lines.saturating_sub(committed);
        // Only an overwriting ring drops events; all others were not committed.
        let not_committed = if self.args.keep_last { left.min(rest) } else { rest };
        RecordSummary {
            id: self.stream.is_durable().then(|| self.stream.id()),
            name: self.args.name.clone(),
            ended: end.word(),
            lines: self.lines,
            committed,
            commits: self.flight.commits(),
            dropped: rest.saturating_sub(not_committed),
            not_committed,
        }
    }
}

fn lacks_space(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded { .. })
}

fn print(summary: &RecordSummary, out: &mut Out) -> std::io::Result<()> {
    let lines = count(summary.lines, "line");
    let Some(id) = &summary.id else {
        return out.line(format_args!("-  {lines}, nothing committed"));
    };
    let committed = summary.committed;
    let commits = count(summary.commits, "commit");
    let mut text = format!("{id}  {lines}, {committed} committed in {commits}");
    if summary.dropped > 0 {
        text += &format!(", {} dropped by the ring", summary.dropped);
    }
    if summary.not_committed > 0 {
        text += &format!(", {} not committed", summary.not_committed);
    }
    out.line(text)
}
