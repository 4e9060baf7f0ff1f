//! Verbs that change streams: fork, rewind, trim, archive, unarchive, delete, name, label. Each
//! makes a commit and prints its position.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amberlog::{Commit, Log, ReadView, Stream, StreamId, StreamInfo, StreamOptions};
use serde::Serialize;

use crate::compare::SEEN_LABEL;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, close, in_log, note, progress};
use crate::reading::{
    Prefix, Reading, TailShown, open, open_to_change, resolve, resolve_to_delete, tell_damage,
};
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
pub(crate) struct RmArgs {
    /// Directory of the log
    log: PathBuf,
    /// Streams: their ids or their names; prefixes of their ids with --yes, or after a question on
    /// a terminal
    #[arg(required = true, value_name = "STREAM")]
    streams: Vec<String>,
    /// Act only if the head of the stream, which must be the only one, is still this seq
    #[arg(long, value_name = "SEQ")]
    expect_head: Option<u64>,
    /// Accept the prefix of an id, without a question
    #[arg(long)]
    yes: bool,
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
    /// Accept the prefix of an id, without a question
    #[arg(long)]
    yes: bool,
}

/// Arguments of `fork`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    /// Directory of the log
    log: PathBuf,
    /// Stream to fork: its id, a prefix of its id, or its name
    stream: String,
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
    /// Directory of the log
    log: PathBuf,
    /// Stream: its id, a prefix of its id, or its name
    stream: String,
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
    /// Directory of the log
    log: PathBuf,
    /// Stream: its id, a prefix of its id, or its name
    stream: String,
    /// Labels to set
    #[arg(value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Label to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// Fate of whole streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Readable, but no longer listed or written.
    Archive,
    /// Listed and written again.
    Unarchive,
    /// Gone for good.
    Delete,
}

impl Fate {
    fn done(self) -> &'static str {
        match self {
            Self::Archive => "archived",
            Self::Unarchive => "active",
            Self::Delete => "deleted",
        }
    }
}

#[derive(Debug, Serialize)]
struct Done {
    id: String,
    name: Option<String>,
    what: &'static str,
    start: u64,
    head: u64,
    position: u64,
}

#[derive(Debug, Serialize)]
struct LabelFields<'a> {
    id: String,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct FateSummary {
    streams: Vec<Done>,
    failed: usize,
}

/// Opens the log, changes one stream, and closes the log.
pub(crate) fn change(
    log: &Path,
    stream: &str,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&Log, StreamId) -> amberlog::Result<(Stream, Commit)>,
) -> Outcome {
    let which = |view: &ReadView| resolve(view, log, stream);
    change_one(log, which, what, out, with)
}

/// Changes a stream like `change`, for verbs that delete events: the stream must be named exactly,
/// and its head must be that of `--expect-head`.
fn cut(
    args: &CutArgs,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&Log, StreamId) -> amberlog::Result<(Stream, Commit)>,
) -> Outcome {
    let which = |view: &ReadView| {
        let id = resolve_to_delete(view, &args.log, &args.stream, prefix(args.yes))?;
        check_head(view, id, args.expect_head)?;
        Ok(id)
    };
    change_one(&args.log, which, what, out, with)
}

fn prefix(yes: bool) -> Prefix {
    if yes { Prefix::Taken } else { Prefix::Asked }
}

fn change_one(
    log: &Path,
    which: impl FnOnce(&ReadView) -> Result<StreamId, VerbFailure>,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&Log, StreamId) -> amberlog::Result<(Stream, Commit)>,
) -> Outcome {
    let failed = in_log(log);
    let opened = open_to_change(log)?;
    let sound = tell_damage(opened.recovery_report(), log);
    let view = opened.read_view();
    let id = which(&view)?;
    let (stream, commit) = with(&opened, id).map_err(&failed)?;
    let is_unchanged = view.info(id).is_some_and(|before| is_as(&before, &stream.info()));
    let done = done(&stream, if is_unchanged { "unchanged" } else { what }, &commit);
    drop(stream);
    close(opened).map_err(&failed)?;
    print_one(&done, out)?;
    Ok(ExitVerdict::of_log(sound))
}

/// Checks the stream's head. No other process can move it: the caller has the log open for writing.
fn check_head(view: &ReadView, id: StreamId, expected: Option<u64>) -> Result<(), VerbFailure> {
    let head = view.info(id).map_or(0, |info| info.head.get());
    match expected.filter(|expected| *expected != head) {
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

fn done(stream: &Stream, what: &'static str, commit: &Commit) -> Done {
    let info = stream.info();
    Done {
        id: info.id.to_string(),
        name: info.name,
        what,
        start: info.start.get(),
        head: info.head.get(),
        position: commit.position.get(),
    }
}

fn print_one(done: &Done, out: &mut Out) -> std::io::Result<()> {
    if out.is_json() {
        return out.json(done);
    }
    let name = done.name.as_deref().unwrap_or_default();
    let id = &done.id;
    let what = done.what;
    let head = done.head;
    let start = if done.start > 0 { format!(", starts at {}", done.start) } else { String::new() };
    out.line(format!("{id}  {what}{start}, ends at {head}  {name}").trim_end())
}

/// Forks a stream.
pub(crate) fn fork(args: &ForkArgs, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, "forked", out, |log, id| {
        let parent = log.open_stream(id)?;
        let at = args.at.map_or(parent.head(), Into::into);
        let mut options = StreamOptions::new();
        if let Some(name) = &args.name {
            options = options.name(name);
        }
        let mut child = parent.fork_with(at, &options)?;
        for (key, value) in &args.labels {
            child.set_label(key, value)?;
        }
        let commit = child.commit().wait()?;
        Ok((child, commit))
    })
}

/// Drops the events from a seq on.
pub(crate) fn rewind(args: &CutArgs, out: &mut Out) -> Outcome {
    cut(args, "rewound", out, |log, id| {
        let mut stream = log.open_stream(id)?;
        stream.rewind(args.seq)?;
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// Drops the events before a seq.
pub(crate) fn trim(args: &CutArgs, out: &mut Out) -> Outcome {
    cut(args, "trimmed", out, |log, id| {
        let mut stream = log.open_stream(id)?;
        stream.trim(args.seq)?;
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// Names a stream, or removes its name.
pub(crate) fn name(args: &NameArgs, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, "named", out, |log, id| {
        let mut stream = log.open_stream(id)?;
        match &args.name {
            Some(name) => stream.rename(name)?,
            None => stream.clear_name()?,
        }
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// Sets and removes labels, or prints them.
pub(crate) fn label(args: &LabelArgs, out: &mut Out) -> Outcome {
    if args.labels.is_empty() && args.remove.is_empty() {
        return print_labels(args, out);
    }
    change(&args.log, &args.stream, "labelled", out, |log, id| {
        let mut stream = log.open_stream(id)?;
        for key in &args.remove {
            stream.remove_label(key)?;
        }
        for (key, value) in &args.labels {
            stream.set_label(key, value)?;
        }
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

fn print_labels(args: &LabelArgs, out: &mut Out) -> Outcome {
    let Reading { view, report, .. } = open(&args.log, TailShown::Settled)?;
    let id = resolve(&view, &args.log, &args.stream)?;
    let info = view.info(id);
    let labels = info.as_ref().map(|info| info.labels.clone()).unwrap_or_default();
    if out.is_json() {
        let name = info.as_ref().and_then(|info| info.name.as_deref());
        out.json(&LabelFields { id: id.to_string(), name, labels: &labels })?;
    } else {
        // The label of an import is shown in JSON only, as by `ls`.
        let mut shown = labels.iter().filter(|(key, _)| *key != SEEN_LABEL);
        shown.try_for_each(|(key, value)| out.line(format_args!("{key}={value}")))?;
    }
    Ok(ExitVerdict::of_log(report.is_sound()))
}

/// Archives streams, or makes them active again.
pub(crate) fn decide(args: &StreamsArgs, fate: Fate, out: &mut Out) -> Outcome {
    decide_by(args, fate, |view, text| resolve(view, &args.log, text), out)
}

/// Deletes streams that are named exactly.
pub(crate) fn delete(args: &RmArgs, out: &mut Out) -> Outcome {
    let prefix = prefix(args.yes);
    let which = |view: &ReadView, text: &str| resolve_to_delete(view, &args.log, text, prefix);
    let streams = StreamsArgs {
        log: args.log.clone(),
        streams: args.streams.clone(),
        expect_head: args.expect_head,
    };
    decide_by(&streams, Fate::Delete, which, out)
}

/// Changes the fate of streams. Resolves all of them before it changes any.
fn decide_by(
    args: &StreamsArgs,
    fate: Fate,
    which: impl Fn(&ReadView, &str) -> Result<StreamId, VerbFailure>,
    out: &mut Out,
) -> Outcome {
    let failed = in_log(&args.log);
    let log = open_to_change(&args.log)?;
    let sound = tell_damage(log.recovery_report(), &args.log);
    let view = log.read_view();
    let found = args.streams.iter().map(|text| which(&view, text));
    let mut ids = found.collect::<Result<Vec<_>, VerbFailure>>()?;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    match ids[..] {
        [id] => check_head(&view, id, args.expect_head)?,
        _ if args.expect_head.is_some() => {
            return Err(VerbFailure::Said("--expect-head needs exactly one stream".into()));
        }
        _ => {}
    }
    let bar = progress(ids.len() as u64, "{wide_bar} {pos}/{len} {eta}");
    let mut summary = FateSummary { streams: Vec::new(), failed: 0 };
    for id in ids {
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
    close(log).map_err(&failed)?;
    if out.is_json() {
        out.json(&summary)?;
    } else {
        summary.streams.iter().try_for_each(|done| print_one(done, out))?;
    }
    Ok(match (summary.failed, sound) {
        (0, true) => ExitVerdict::Done,
        (0, false) => ExitVerdict::Found,
        _ => ExitVerdict::Incomplete,
    })
}

fn decide_one(log: &Log, id: StreamId, fate: Fate) -> amberlog::Result<Done> {
    let mut stream = log.open_stream(id)?;
    let before = stream.info();
    let ticket = match fate {
        Fate::Archive => stream.archive(),
        Fate::Unarchive => stream.unarchive(),
        Fate::Delete => stream.delete(),
    };
    let commit = ticket.wait()?;
    let done = done(&stream, fate.done(), &commit);
    // Deletion removes the name; the report still has it.
    Ok(Done { name: before.name, head: before.head.get(), ..done })
}
