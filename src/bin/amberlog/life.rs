//! What becomes of streams: forked, rewound, trimmed, archived and back, deleted, named, labelled. Each verb is a
//! commit of the log, and the position is printed that made it so.

use std::path::{Path, PathBuf};

use amberlog::{Commit, Log, Snapshot, Stream, StreamId, StreamOptions};
use serde::Serialize;

use crate::output::{Failure, Out, Outcome, Verdict, in_log, note, progress, waiting};
use crate::reading::{resolve, tell_damage};
use crate::units::{bytes_text, parse_label, printable};

/// A log and streams of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Streams {
    /// The log's directory
    log: PathBuf,
    /// Streams: their ids, the beginnings of their ids, or their names
    #[arg(required = true, value_name = "STREAM")]
    streams: Vec<String>,
    /// Only if the stream, of which there is one then, still ends at this seq: nothing was added since somebody looked
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

/// What can be asked of `archive`.
#[derive(Debug, clap::Args)]
pub(crate) struct ArchiveArgs {
    #[command(flatten)]
    streams: Streams,
    /// Move everything that is archived to files of its own, which can be read alone; `collect` then gives the space in
    /// the segments back
    #[arg(long = "move")]
    moves: bool,
}

/// A log, a stream and a place in it.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The log's directory
    log: PathBuf,
    /// The stream: its id, the beginning of its id, or its name
    stream: String,
    /// The seq, counted from 0
    seq: u64,
    /// Only if the stream still ends at this seq: nothing was added since somebody looked
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

/// What can be asked of `fork`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForkArgs {
    /// The log's directory
    log: PathBuf,
    /// The stream to fork: its id, the beginning of its id, or its name
    stream: String,
    /// The first seq that the fork does not share [default: the end]
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
    /// The fork's name
    #[arg(long)]
    name: Option<String>,
    /// A label of the fork; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

/// What can be asked of `name`.
#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// The log's directory
    log: PathBuf,
    /// The stream: its id, the beginning of its id, or its name
    stream: String,
    /// Its name from now on
    #[arg(required_unless_present = "remove")]
    name: Option<String>,
    /// Take its name away
    #[arg(long, conflicts_with = "name")]
    remove: bool,
}

/// What can be asked of `label`.
#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    /// The log's directory
    log: PathBuf,
    /// The stream: its id, the beginning of its id, or its name
    stream: String,
    /// Labels to set
    #[arg(value_name = "KEY=VALUE", value_parser = parse_label, required_unless_present = "remove")]
    labels: Vec<(String, String)>,
    /// A label to take away; may be given several times
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// What is done to whole streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Read as before, listed no more, written no more.
    Archive,
    /// All of that again.
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
    head: u64,
    position: u64,
}

#[derive(Debug, Serialize)]
struct Summary {
    streams: Vec<Done>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved: Vec<Moved>,
    failed: usize,
}

/// A file that a stream moved to.
#[derive(Debug, Serialize)]
struct Moved {
    path: PathBuf,
    bytes: u64,
    seqs: [u64; 2],
}

/// Opens the log, does one thing to one stream, and closes the log. `Ok(None)`: nothing had to be done.
pub(crate) fn change(
    log: &Path,
    stream: &str,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&Log, StreamId) -> amberlog::Result<(Stream, Commit)>,
) -> Outcome {
    change_at(log, stream, None, what, out, with)
}

/// The same, if the stream ends where it is said to.
fn change_at(
    log: &Path,
    stream: &str,
    at: Option<u64>,
    what: &'static str,
    out: &mut Out,
    with: impl FnOnce(&Log, StreamId) -> amberlog::Result<(Stream, Commit)>,
) -> Outcome {
    let failed = in_log(log);
    let opened = Log::open(log).map_err(&failed)?;
    let sound = tell_damage(opened.survey(), log);
    let snapshot = opened.snapshot();
    let id = resolve(&snapshot, log, stream)?;
    check_end(&snapshot, id, at)?;
    let (stream, commit) = with(&opened, id).map_err(&failed)?;
    let done = done(&stream, what, &commit);
    drop(stream);
    opened.close().map_err(&failed)?;
    print_one(&done, out)?;
    Ok(if sound { Verdict::Done } else { Verdict::Found })
}

/// Whoever has opened the log is alone in writing it: what is true here stays so.
fn check_end(snapshot: &Snapshot, id: StreamId, at: Option<u64>) -> Result<(), Failure> {
    let head = snapshot.stream(id).map_or(0, |info| info.head.get());
    match at.filter(|at| *at != head) {
        Some(at) => {
            Err(Failure::Said(format!("{id} ends at {head}, not at {at}; nothing was done")))
        }
        None => Ok(()),
    }
}

fn done(stream: &Stream, what: &'static str, commit: &Commit) -> Done {
    let info = stream.info();
    let (head, position) = (info.head.get(), commit.position.get());
    Done { id: info.id.to_string(), name: info.name, what, head, position }
}

fn print_one(done: &Done, out: &mut Out) -> std::io::Result<()> {
    if out.is_json() {
        return out.json(done);
    }
    let name = done.name.as_deref().map(printable).unwrap_or_default();
    let (id, what, head) = (&done.id, done.what, done.head);
    out.line(format!("{id}  {what}, ends at {head}  {name}").trim_end())
}

/// Makes a stream that begins as another one does.
pub(crate) fn fork(args: &ForkArgs, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, "forked", out, |log, id| {
        let parent = log.resume(id)?;
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
pub(crate) fn rewind(args: &Place, out: &mut Out) -> Outcome {
    change_at(&args.log, &args.stream, args.at, "rewound", out, |log, id| {
        let mut stream = log.resume(id)?;
        stream.rewind(args.seq)?;
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// Forgets the events before a seq.
pub(crate) fn trim(args: &Place, out: &mut Out) -> Outcome {
    change_at(&args.log, &args.stream, args.at, "trimmed", out, |log, id| {
        let mut stream = log.resume(id)?;
        let commit = stream.trim(args.seq).wait()?;
        Ok((stream, commit))
    })
}

/// Gives a stream a name, or takes it away.
pub(crate) fn name(args: &NameArgs, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, "named", out, |log, id| {
        let mut stream = log.resume(id)?;
        match &args.name {
            Some(name) => stream.rename(name)?,
            None => stream.unname()?,
        }
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// Sets labels and takes them away.
pub(crate) fn label(args: &LabelArgs, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, "labelled", out, |log, id| {
        let mut stream = log.resume(id)?;
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

/// Archives streams, and moves what is archived if that was asked for.
pub(crate) fn archive(args: &ArchiveArgs, out: &mut Out) -> Outcome {
    let after = |log: &Log, summary: &mut Summary| {
        if !args.moves {
            return Ok(());
        }
        let waiting = waiting("moving");
        let report = log.move_archived()?;
        waiting.finish_and_clear();
        report.refused.iter().for_each(note);
        summary.failed += report.refused.len();
        summary.moved.extend(report.moved.into_iter().map(|one| Moved {
            path: one.path,
            bytes: one.bytes,
            seqs: [one.seqs.start.get(), one.seqs.end.get()],
        }));
        Ok(())
    };
    decide_and(&args.streams, Fate::Archive, after, out)
}

/// Takes back that streams were archived, or deletes them.
pub(crate) fn decide(args: &Streams, fate: Fate, out: &mut Out) -> Outcome {
    decide_and(args, fate, |_, _| Ok(()), out)
}

/// All of the streams are looked up before anything is done.
fn decide_and(
    args: &Streams,
    fate: Fate,
    after: impl FnOnce(&Log, &mut Summary) -> amberlog::Result<()>,
    out: &mut Out,
) -> Outcome {
    let failed = in_log(&args.log);
    let log = Log::open(&args.log).map_err(&failed)?;
    let sound = tell_damage(log.survey(), &args.log);
    let snapshot = log.snapshot();
    let found = args.streams.iter().map(|text| resolve(&snapshot, &args.log, text));
    let mut ids = found.collect::<Result<Vec<_>, Failure>>()?;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    match ids[..] {
        [id] => check_end(&snapshot, id, args.at)?,
        _ if args.at.is_some() => return Err(Failure::Said("--at is about one stream".into())),
        _ => {}
    }
    let bar = progress(ids.len() as u64, "{wide_bar} {pos}/{len} {eta}");
    let mut summary = Summary { streams: Vec::new(), moved: Vec::new(), failed: 0 };
    for id in ids {
        match decide_one(&log, id, fate) {
            Ok(done) => summary.streams.push(done),
            Err(error) => {
                summary.failed += 1;
                bar.suspend(|| note(format_args!("{id}: {error}")));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    after(&log, &mut summary).map_err(&failed)?;
    log.close().map_err(&failed)?;
    if out.is_json() {
        out.json(&summary)?;
    } else {
        summary.streams.iter().try_for_each(|done| print_one(done, out))?;
        for Moved { path, bytes, seqs: [start, end] } in &summary.moved {
            let (path, bytes) = (path.display(), bytes_text(*bytes));
            out.line(format_args!("{path}  {bytes}, events {start} to {end}"))?;
        }
    }
    Ok(match (summary.failed, sound) {
        (0, true) => Verdict::Done,
        (0, false) => Verdict::Found,
        _ => Verdict::Incomplete,
    })
}

fn decide_one(log: &Log, id: StreamId, fate: Fate) -> amberlog::Result<Done> {
    let mut stream = log.resume(id)?;
    let before = stream.info();
    let ticket = match fate {
        Fate::Archive => stream.archive(),
        Fate::Unarchive => stream.unarchive(),
        Fate::Delete => stream.delete(),
    };
    let commit = ticket.wait()?;
    let done = done(&stream, fate.done(), &commit);
    // A deleted stream has no name any more; whoever asked for it wants to see which it was.
    Ok(Done { name: before.name, head: before.head.get(), ..done })
}
