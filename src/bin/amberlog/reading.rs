//! Opening a log to read it, and reporting its condition.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use amberlog::options::{ReadOptions, Reads};
use amberlog::verify::RecoveryReport;
use amberlog::{Event, Log, Options, ReadView, StreamId, StreamInfo};

use crate::output::{VerbFailure, in_log, note};
use crate::units::count;

/// Log opened for reading.
pub(crate) struct Reading {
    /// View of the log.
    pub(crate) view: ReadView,
    /// Findings of the opening.
    pub(crate) report: RecoveryReport,
    /// View of the acknowledged part, if `view` shows more.
    confirmed: Option<ReadView>,
}

/// Selects the commits shown of a log whose writer did not close it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailShown {
    /// Commits that are known to have been acknowledged.
    Confirmed,
    /// Like `Confirmed`; but all whole commits of a log that needs a repair, since no writer can
    /// have it open.
    Settled,
    /// All whole commits.
    Whole,
}

impl Reading {
    /// Returns the seq after the last confirmed event of a stream, if the view shows later ones.
    pub(crate) fn confirmed_head(&self, info: &StreamInfo) -> Option<u64> {
        let confirmed = self.confirmed.as_ref()?.info(info.id);
        let head = confirmed.map_or(0, |confirmed| confirmed.head.min(info.head).get());
        (head < info.head.get()).then_some(head)
    }

    /// Returns whether the event is known to have been acknowledged.
    pub(crate) fn confirms(&self, event: &Event) -> bool {
        self.confirmed.is_none()
            || event.position().is_none_or(|position| position <= self.report.acknowledged)
    }
}

/// Opens the log at `path` without a lock, and prints its condition on standard error.
pub(crate) fn open(path: &Path, tail: TailShown) -> Result<Reading, VerbFailure> {
    let reading = open_quietly(path, tail)?;
    tell_tail(&reading.report, reading.confirmed.is_some());
    tell_damage(&reading.report, path);
    Ok(reading)
}

/// Opens the log at `path` without a lock, for a verb that prints its condition itself.
pub(crate) fn open_quietly(path: &Path, tail: TailShown) -> Result<Reading, VerbFailure> {
    let how = ReadOptions::new().reads(Reads::Positional);
    let failed = in_log(path);
    let (mut view, mut report) = how.open(path).map_err(&failed)?;
    let mut confirmed = None;
    let is_settled = report.needs_repair && tail == TailShown::Settled;
    if report.acknowledged < report.position && (is_settled || tail == TailShown::Whole) {
        let (whole, found) = how.unconfirmed(true).open(path).map_err(&failed)?;
        (confirmed, view, report) = (Some(view), whole, found);
    }
    Ok(Reading { view, report, confirmed })
}

/// Refuses an archive file, for verbs that look at the files of a log.
///
/// # Errors
///
/// When `path` is a file.
pub(crate) fn refuse_file(path: &Path) -> Result<(), VerbFailure> {
    if path.is_file() {
        let why = "is an archive file; use ls, cat, export or verify";
        return Err(VerbFailure::Said(format!("{}: {why}", path.display())));
    }
    Ok(())
}

/// Reports on standard error the commits after the last acknowledged one, and what happens to them
/// next.
fn tell_tail(report: &RecoveryReport, is_shown: bool) {
    let first = report.acknowledged.get().saturating_add(1);
    let last = report.position.get();
    if first > last {
        return;
    }
    let what = match first == last {
        true => format!(
            "the commit at position {first} is complete, but not known to have been acknowledged"
        ),
        false => format!(
            "the commits at positions {first} to {last} are not known to have been acknowledged"
        ),
    };
    let shown = if is_shown { "shown as unconfirmed" } else { "not shown" };
    let (it, whole) = if first == last { ("it", "it") } else { ("them", "the complete ones") };
    let next = match report.needs_repair {
        true => format!("`amberlog repair` keeps {whole}; until then the log cannot be written"),
        false => format!(
            "a writer may be committing {it} now; otherwise the next opening for writing keeps {whole}"
        ),
    };
    note(format_args!("{what}; {shown}; {next}"));
}

/// Returns the options for verbs that write. They map no file: an unreadable sector must become an
/// error, not end the process.
pub(crate) fn options() -> Options {
    Options::new().reads(Reads::Positional)
}

/// Opens a log for writing, and prints its condition. Returns whether it is sound.
pub(crate) fn open_to_write(options: Options, path: &Path) -> Result<(Log, bool), VerbFailure> {
    let log = options.open(path).map_err(in_log(path))?;
    let sound = tell_damage(log.recovery_report(), path);
    Ok((log, sound))
}

/// Opens a log like [`open_to_write`], for a verb that must not create it: fails if it does not
/// exist.
pub(crate) fn open_to_change(options: Options, path: &Path) -> Result<(Log, bool), VerbFailure> {
    let (log, sound) = open_to_write(options, path)?;
    if log.recovery_report().segments.is_empty() {
        open_quietly(path, TailShown::Confirmed)?;
    }
    Ok((log, sound))
}

/// Prints a note if the log is damaged, and returns whether it is sound.
pub(crate) fn tell_damage(report: &RecoveryReport, path: &Path) -> bool {
    if !report.is_sound() {
        note(format_args!(
            "the log is damaged in {}; `amberlog verify {}` reports where",
            count(report.damages.len() as u64, "place"),
            path.display()
        ));
    }
    report.is_sound()
}

/// Arguments of verbs about one stream.
#[derive(Debug, clap::Args)]
pub(crate) struct StreamArgs {
    /// Directory of the log
    pub(crate) log: PathBuf,
    /// Stream: its id, a prefix of its id, or its name
    pub(crate) stream: String,
}

impl StreamArgs {
    /// Opens the log without a lock, and finds the stream.
    pub(crate) fn open(&self) -> Result<(Reading, StreamInfo), VerbFailure> {
        let reading = open(&self.log, TailShown::Settled)?;
        let info = resolve(&reading.view, &self.log, &self.stream)?;
        Ok((reading, info))
    }
}

/// Finds the stream that `text` names: by its id, its name, or the beginning of its id.
pub(crate) fn resolve(view: &ReadView, path: &Path, text: &str) -> Result<StreamInfo, VerbFailure> {
    let id = view.resolve(text).map_err(in_log(path))?;
    view.info(id).ok_or_else(|| VerbFailure::Said(format!("the view does not show stream {id}")))
}

/// Arguments of verbs that delete.
#[derive(Debug, clap::Args)]
pub(crate) struct PrefixArgs {
    /// Accept the prefix of an id, without a question
    #[arg(long)]
    yes: bool,
}

impl PrefixArgs {
    /// Finds the stream that `text` names. A prefix of its id is accepted only with `--yes`, or
    /// after a question on the terminal.
    pub(crate) fn resolve(
        &self,
        view: &ReadView,
        path: &Path,
        text: &str,
    ) -> Result<StreamInfo, VerbFailure> {
        let info = resolve(view, path, text)?;
        let is_exact = text.parse::<StreamId>().is_ok() || info.name.as_deref() == Some(text);
        if is_exact || self.yes {
            return Ok(info);
        }
        let name = info.name.as_ref().map(|name| format!(", named {name:?}")).unwrap_or_default();
        let (id, events) = (info.id, count(info.head.get(), "event"));
        let meant = format!("{text:?} is a prefix of the id {id}{name}, with {events}");
        if confirm(&meant) {
            return Ok(info);
        }
        Err(VerbFailure::Said(format!(
            "{meant}; nothing was done. Give the whole id or the name, or --yes to accept the prefix"
        )))
    }
}

/// Asks on the terminal. Without a terminal the answer is no.
fn confirm(meant: &str) -> bool {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return false;
    }
    note(format_args!("{meant}. Use it? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use amberlog::sim::SimDisk;
    use amberlog::{Log, Position};

    use super::*;

    /// Number of files that a log maps for a reader of all that is in it.
    fn maps(options: Options) -> u64 {
        let disk = SimDisk::new(1);
        let small = || Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
        let log = small().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for _ in 0..8 {
            stream.append([7; 5_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
        drop((stream, log));
        let before = disk.maps();
        let log = options.open_on(&disk).expect("opens");
        let events = log.read_view().all_events(Position::START).expect("there");
        assert_eq!(events.filter(Result::is_ok).count(), 8);
        disk.maps() - before
    }

    #[test]
    fn f44_a_log_that_a_verb_writes_maps_no_file() {
        assert_eq!(maps(options()), 0);
        // Control: another one does.
        assert!(maps(Options::new()) > 0);
    }
}
