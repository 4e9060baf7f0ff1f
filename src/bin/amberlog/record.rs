//! `amberlog record`: the lines of standard input, committed when the caller's policy says so.

use std::io::{BufReader, Read};
use std::path::PathBuf;

use amberlog::{Log, Options, Overflow, RefusedReason, Status, Stream, StreamOptions};
use regex::bytes::Regex;
use serde::Serialize;

use crate::flight::Flight;
use crate::lines::{Content, Lines};
use crate::output::{Failure, Out, Outcome, Verdict, in_log, note};
use crate::reading::tell_damage;
use crate::sources::LINE_BYTES_MAX;
use crate::units::{count, parse_bytes};

/// The ring of a flight recorder that was not given one.
const RING_BYTES: usize = 1 << 20;
/// How much of standard input is read at once.
const READ_BYTES: usize = 64 << 10;

const DETAILS: &str = "\
Lines wait in memory until a commit. Without --commit-every and --commit-on
there is one commit, at the end. With --commit-every what is left at the end is
committed too; with --commit-on what comes behind the last match is not, and a
note says how much that was.

When the ring is full before a commit: with --keep-last the oldest lines are
dropped, and the next commit says how many; without it recording ends with exit
code 2, and what was committed stays. A line too large for the ring ends it in
either case.";

/// What can be asked of `record`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory; made by the first commit
    log: PathBuf,
    /// The stream's name; a stream that has it already is continued
    #[arg(long)]
    name: Option<String>,
    /// Commit every N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// Commit when a line matches
    #[arg(long, value_name = "REGEX", conflicts_with = "commit_every")]
    commit_on: Option<Regex>,
    /// How much may wait in memory; k, M and G are understood [default: 64M, with --keep-last 1M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    ring: Option<usize>,
    /// A flight recorder: keep only what was last, as much as fits in the ring
    #[arg(long)]
    keep_last: bool,
}

#[derive(Debug, Serialize)]
struct Summary {
    id: Option<String>,
    name: Option<String>,
    lines: u64,
    committed: u64,
    commits: u64,
    dropped: u64,
    not_committed: u64,
}

/// Records standard input.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let failed = in_log(&args.log);
    let log = options(args).open(&args.log).map_err(&failed)?;
    let sound = tell_damage(log.survey(), &args.log);
    let stream = stream(&log, args).map_err(&failed)?;
    let mut recorder = Recorder {
        args,
        stream,
        flight: Flight::default(),
        lines: 0,
        since_commit: 0,
        bytes_since_commit: 0,
    };
    let input = BufReader::with_capacity(READ_BYTES, std::io::stdin().lock());
    let recorded = recorder.all(input);
    let finished = recorder.finish(recorded.is_ok());
    print(&recorder.summary(finished.as_ref().ok().copied()), out)?;
    drop(recorder);
    let closed = log.close().map_err(&failed);
    recorded?;
    finished?;
    closed?;
    Ok(if sound { Verdict::Done } else { Verdict::Found })
}

fn options(args: &Args) -> Options {
    let mut options = Options::new();
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

fn stream(log: &Log, args: &Args) -> amberlog::Result<Stream> {
    let Some(name) = &args.name else {
        return log.stream();
    };
    match log.snapshot().find(name) {
        Some(id) => log.resume(id),
        None => log.stream_with(&StreamOptions::new().name(name)),
    }
}

struct Recorder<'a> {
    args: &'a Args,
    stream: Stream,
    flight: Flight,
    lines: u64,
    since_commit: u64,
    bytes_since_commit: u64,
}

impl Recorder<'_> {
    /// Takes lines until there are no more, committing as the policy says.
    fn all(&mut self, input: BufReader<impl Read>) -> Result<(), Failure> {
        let mut lines = Lines::new(input, Content::Text, LINE_BYTES_MAX);
        loop {
            let more = lines
                .advance()
                .map_err(|error| Failure::Input { what: "standard input".into(), error })?;
            if !more {
                return Ok(());
            }
            self.append(&lines)?;
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

    fn append<R: std::io::BufRead>(&mut self, lines: &Lines<R>) -> Result<(), Failure> {
        let mut refused = self.stream.append(lines.event()).err();
        if let Some(RefusedReason::RingFull { .. } | RefusedReason::MemoryFull { .. }) =
            refused.map(|refused| refused.reason)
        {
            // What is in flight counts, until it has landed.
            self.land()?;
            refused = self.stream.append(lines.event()).err();
        }
        if let Some(refused) = refused {
            let line = lines.number();
            let too_large = matches!(refused.reason, RefusedReason::EventTooLarge { .. });
            let or = if too_large { "" } else { ", commit earlier, or --keep-last" };
            return Err(Failure::Said(format!(
                "line {line}: {refused}; give more with --ring{or}. Recording ends here; what was \
                 committed is in the log"
            )));
        }
        self.lines += 1;
        self.since_commit += 1;
        self.bytes_since_commit += lines.bytes().len() as u64;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let bytes = std::mem::take(&mut self.bytes_since_commit);
        self.since_commit = 0;
        let ticket = self.stream.commit();
        let launched = self.flight.launch(0, bytes, ticket);
        launched.map_err(|crash| in_log(&self.args.log)(crash.error))
    }

    fn land(&mut self) -> Result<(), Failure> {
        let landed = self.flight.land();
        landed.map_err(|crash| in_log(&self.args.log)(crash.error))
    }

    /// Commits the rest if the policy says so, and waits for all commits. Returns how many events were left
    /// uncommitted.
    fn finish(&mut self, is_end_of_input: bool) -> Result<u64, Failure> {
        let promotes_rest = is_end_of_input && self.args.commit_on.is_none();
        if promotes_rest && self.since_commit > 0 {
            self.commit()?;
        }
        self.land()?;
        let left = self.stream.discard();
        if left > 0 {
            let why = if is_end_of_input && self.flight.commits() == 0 {
                "no line matched"
            } else if is_end_of_input {
                "nothing behind the last match is"
            } else {
                "no commit had been due"
            };
            note(format_args!("{} not committed: {why}", count(left, "event")));
        }
        Ok(left)
    }

    /// `left`: events that were there at the end and not committed, when everything went well.
    fn summary(&self, left: Option<u64>) -> Summary {
        let committed = self.flight.events();
        let rest = self.lines.saturating_sub(committed);
        // Only an overwriting ring drops anything; whatever else is missing was not committed.
        let not_committed = left.filter(|_| self.args.keep_last).unwrap_or(rest).min(rest);
        Summary {
            id: (self.stream.status() == Status::Durable).then(|| self.stream.id().to_string()),
            name: self.args.name.clone(),
            lines: self.lines,
            committed,
            commits: self.flight.commits(),
            dropped: rest - not_committed,
            not_committed,
        }
    }
}

fn print(summary: &Summary, out: &mut Out) -> std::io::Result<()> {
    if out.is_json() {
        return out.json(summary);
    }
    let lines = count(summary.lines, "line");
    let Some(id) = &summary.id else {
        return out.line(format_args!("-  {lines}, nothing committed"));
    };
    let (committed, commits) = (summary.committed, count(summary.commits, "commit"));
    let mut text = format!("{id}  {lines}, {committed} committed in {commits}");
    if summary.dropped > 0 {
        text += &format!(", {} dropped by the ring", summary.dropped);
    }
    if summary.not_committed > 0 {
        text += &format!(", {} not committed", summary.not_committed);
    }
    out.line(text)
}
