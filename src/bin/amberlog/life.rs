//! Verbs that change streams: fork, rewind, trim, archive, unarchive, delete, name, label. Each
//! makes a commit and prints its position.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use amberlog::{
    Commit, Log, Position, ReadView, Seq, Stream, StreamId, StreamInfo, StreamOptions, Ticket,
};
use serde::Serialize;

use crate::compare::SEEN_LABEL;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, close, in_log, note, progress};
use crate::reading::{PrefixArgs, StreamArgs, open_to_change, options, resolve};
use crate::units::parse_label;

/// Arguments of verbs that take several streams.
#[derive(Debug, clap::Args)]
pub(crate) struct StreamsArgs {
    /// Directory of the log
    log: PathBuf,
    /// Streams: their ids, prefixes of their ids, or their names
    #[arg(required = true, value_name = "STREAM")]
    streams: Vec<String>,
    /// Act only if the head of the stream, which must be the only one, is still this seq
    #[arg(long, value_name = "SEQ")]
    expect_head: Option<u64>,
}

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("streams", |streams| {
    streams.help(
        "Streams: their ids or their names; prefixes of their ids with --yes, or after a question \
         on a terminal",
    )
}))]
pub(crate) struct RmArgs {
    #[command(flatten)]
    of: StreamsArgs,
    #[command(flatten)]
    prefix: PrefixArgs,
}

/// Arguments of verbs that cut a stream.
#[derive(Debug, clap::Args)]
pub(crate) struct CutArgs {
    /// Directory of the log
    log: PathBuf,
    /// Stream: its id or its name; a prefix of its id with --yes, or after a question on a terminal
    stream: String,
    /// Seq to cut at, counted from 0
    seq: u64,
    /// Act only if the head of the stream is still this seq
    #[arg(long, value_name = "SEQ")]
    expect_head: Option<u64>,
    #[command(flatten)]
    prefix: PrefixArgs,
}

/// Arguments of `fork`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("stream", |stream| {
    stream.help("Stream to fork: its id, a prefix of its id, or its name")
}))]
pub(crate) struct ForkArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// Seq to fork at: the first one that the fork does not share [default: the head]
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
    /// Name of the fork
    #[arg(long)]
    name: Option<String>,
    /// Label of the fork; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

/// Arguments of `name`.
#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// New name
    #[arg(required_unless_present = "remove")]
    name: Option<String>,
    /// Remove the name
    #[arg(long, conflicts_with = "name")]
    remove: bool,
}

const LABEL_DETAILS: &str = "\
Without KEY=VALUE and --remove the labels are printed, one per line; this takes
no lock and changes nothing.";

/// Arguments of `label`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = LABEL_DETAILS)]
pub(crate) struct LabelArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// Labels to set
    #[arg(value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Label to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// Fate of whole streams.
pub(crate) struct Fate {
    /// Description of a stream that has it.
    done: &'static str,
    decide: fn(&mut Stream) -> Ticket,
}

/// Readable, but no longer listed or written.
pub(crate) const ARCHIVED: Fate = Fate { done: "archived", decide: Stream::archive };
/// Listed and written again.
pub(crate) const ACTIVE: Fate = Fate { done: "active", decide: Stream::unarchive };
/// Gone for good.
const DELETED: Fate = Fate { done: "deleted", decide: Stream::delete };

#[derive(Debug, Serialize)]
struct Done {
    id: StreamId,
    name: Option<String>,
    what: &'static str,
    start: Seq,
    head: Seq,
    position: Position,
}

#[derive(Debug, Serialize)]
struct LabelFields {
    id: StreamId,
    name: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct FateSummary {
    streams: Vec<Done>,
    failed: usize,
}

/// Opens the log, changes one stream, commits it, and closes the log. `with` returns the stream to
/// commit.
pub(crate) fn change(
    of: &StreamArgs,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(Stream) -> amberlog::Result<Stream>,
) -> Outcome {
    change_one(&of.log, |view| resolve(view, &of.log, &of.stream), what, out, with)
}

/// Changes a stream like `change`, for verbs that delete events: the stream must be named exactly,
/// and its head must be that of `--expect-head`.
fn cut(
    args: &CutArgs,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&mut Stream) -> amberlog::Result<()>,
) -> Outcome {
    let which = |view: &ReadView| {
        let info = args.prefix.resolve(view, &args.log, &args.stream)?;
        check_head(&info, args.expect_head)?;
        Ok(info)
    };
    change_one(&args.log, which, what, out, |mut stream| with(&mut stream).map(|()| stream))
}

fn change_one(
    path: &Path,
    which: impl FnOnce(&ReadView) -> Result<StreamInfo, VerbFailure>,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(Stream) -> amberlog::Result<Stream>,
) -> Outcome {
    let (log, sound) = open_to_change(options(), path)?;
    let before = which(&log.read_view())?;
    let change = || {
        let mut stream = with(log.open_stream(before.id)?)?;
        let commit = stream.commit().wait()?;
        Ok((stream.info(), commit))
    };
    let (after, commit) = change().map_err(in_log(path))?;
    let what = if is_as(&before, &after) { "unchanged" } else { what };
    close(log, path)?;
    out.result(&done(after, what, &commit), print_one)?;
    Ok(ExitVerdict::of_log(sound))
}

/// Checks the stream's head. No other process can move it: the caller has the log open for writing.
fn check_head(info: &StreamInfo, expected: Option<u64>) -> Result<(), VerbFailure> {
    let StreamInfo { id, head, .. } = info;
    match expected.filter(|expected| *expected != head.get()) {
        Some(expected) => Err(VerbFailure::Said(format!(
            "the head of {id} is {head}, not {expected}; nothing was done"
        ))),
        None => Ok(()),
    }
}

/// Returns whether two descriptions show the same stream in the same condition.
fn is_as(before: &StreamInfo, after: &StreamInfo) -> bool {
    let facts = |info: &StreamInfo| (info.id, info.start, info.head, info.generation, info.state);
    facts(before) == facts(after)
        && (&before.name, &before.labels, &before.data) == (&after.name, &after.labels, &after.data)
}

fn done(info: StreamInfo, what: &'static str, commit: &Commit) -> Done {
    let StreamInfo { id, name, start, head, .. } = info;
    Done { id, name, what, start, head, position: commit.position }
}

fn print_one(done: &Done, out: &mut Out) -> std::io::Result<()> {
    let Done { id, name, what, start, head, .. } = done;
    let name = name.as_deref().unwrap_or_default();
    let start = if start.get() > 0 { format!(", starts at {start}") } else { String::new() };
    out.line(format!("{id}  {what}{start}, ends at {head}  {name}").trim_end())
}

/// Forks a stream.
pub(crate) fn fork(args: &ForkArgs, out: &mut Out) -> Outcome {
    change(&args.of, "forked", out, |parent| {
        let at = args.at.map_or(parent.head(), Into::into);
        let mut options = StreamOptions::new();
        if let Some(name) = &args.name {
            options = options.name(name);
        }
        let mut child = parent.fork_with(at, &options)?;
        for (key, value) in &args.labels {
            child.set_label(key, value)?;
        }
        Ok(child)
    })
}

/// Drops the events from a seq on.
pub(crate) fn rewind(args: &CutArgs, out: &mut Out) -> Outcome {
    cut(args, "rewound", out, |stream| stream.rewind(args.seq))
}

/// Drops the events before a seq.
pub(crate) fn trim(args: &CutArgs, out: &mut Out) -> Outcome {
    cut(args, "trimmed", out, |stream| stream.trim(args.seq))
}

/// Names a stream, or removes its name.
pub(crate) fn name(args: &NameArgs, out: &mut Out) -> Outcome {
    change(&args.of, "named", out, |mut stream| {
        match &args.name {
            Some(name) => stream.rename(name)?,
            None => stream.clear_name()?,
        }
        Ok(stream)
    })
}

/// Sets and removes labels, or prints them.
pub(crate) fn label(args: &LabelArgs, out: &mut Out) -> Outcome {
    if args.labels.is_empty() && args.remove.is_empty() {
        return print_labels(&args.of, out);
    }
    change(&args.of, "labelled", out, |mut stream| {
        for key in &args.remove {
            stream.remove_label(key)?;
        }
        for (key, value) in &args.labels {
            stream.set_label(key, value)?;
        }
        Ok(stream)
    })
}

fn print_labels(of: &StreamArgs, out: &mut Out) -> Outcome {
    let (reading, info) = of.open()?;
    let StreamInfo { id, name, labels, .. } = info;
    out.result(&LabelFields { id, name, labels }, |fields, out| {
        // The label of an import is shown in JSON only, as by `ls`.
        let mut shown = fields.labels.iter().filter(|(key, _)| *key != SEEN_LABEL);
        shown.try_for_each(|(key, value)| out.line(format_args!("{key}={value}")))
    })?;
    Ok(ExitVerdict::of_log(reading.report.is_sound()))
}

/// Archives streams, or makes them active again.
pub(crate) fn decide(args: &StreamsArgs, fate: &Fate, out: &mut Out) -> Outcome {
    let which = |view: &ReadView, text: &str| resolve(view, &args.log, text);
    decide_by(args, fate, which, out)
}

/// Deletes streams that are named exactly.
pub(crate) fn delete(args: &RmArgs, out: &mut Out) -> Outcome {
    let which = |view: &ReadView, text: &str| args.prefix.resolve(view, &args.of.log, text);
    decide_by(&args.of, &DELETED, which, out)
}

/// Changes the fate of streams. Resolves all of them before it changes any.
fn decide_by(
    args: &StreamsArgs,
    fate: &Fate,
    which: impl Fn(&ReadView, &str) -> Result<StreamInfo, VerbFailure>,
    out: &mut Out,
) -> Outcome {
    let (log, sound) = open_to_change(options(), &args.log)?;
    let view = log.read_view();
    let found = args.streams.iter().map(|text| which(&view, text));
    let mut found = found.collect::<Result<Vec<_>, VerbFailure>>()?;
    let mut seen = HashSet::new();
    found.retain(|info| seen.insert(info.id));
    match &found[..] {
        [info] => check_head(info, args.expect_head)?,
        _ if args.expect_head.is_some() => {
            return Err(VerbFailure::Said("--expect-head needs exactly one stream".into()));
        }
        _ => {}
    }
    let bar = progress(found.len() as u64, "{wide_bar} {pos}/{len} {eta}");
    let mut summary = FateSummary { streams: Vec::new(), failed: 0 };
    for StreamInfo { id, .. } in found {
        match decide_one(&log, id, fate) {
            Ok(done) => summary.streams.push(done),
            Err(error) => {
                summary.failed = summary.failed.saturating_add(1);
                bar.suspend(|| note(format_args!("{id}: {error}")));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    close(log, &args.log)?;
    out.result(&summary, |summary, out| {
        summary.streams.iter().try_for_each(|done| print_one(done, out))
    })?;
    let failed = if summary.failed > 0 { ExitVerdict::Incomplete } else { ExitVerdict::Done };
    Ok(ExitVerdict::of_log(sound).max(failed))
}

fn decide_one(log: &Log, id: StreamId, fate: &Fate) -> amberlog::Result<Done> {
    let mut stream = log.open_stream(id)?;
    let before = stream.info();
    let commit = (fate.decide)(&mut stream).wait()?;
    let done = done(stream.info(), fate.done, &commit);
    // Deletion removes the name; the report still has it.
    Ok(Done { name: before.name, head: before.head, ..done })
}
