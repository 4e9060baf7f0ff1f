//! Opening a log to read it, and reporting its condition.

use std::io::{self, IsTerminal};
use std::path::Path;

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
    match path.is_file() {
        true => Err(VerbFailure::Said(format!(
            "{}: is an archive file; use ls, cat, export or verify",
            path.display()
        ))),
        false => Ok(()),
    }
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
    let next = if report.needs_repair {
        "`amberlog repair` keeps the whole ones; until then the log cannot be written"
    } else {
        "a writer may be committing them now; otherwise the next opening for writing keeps them"
    };
    note(format_args!("{what}; {shown}; {next}"));
}

/// Returns the options for verbs that write. They map no file: an unreadable sector must become an
/// error, not end the process.
pub(crate) fn options() -> Options {
    Options::new().reads(Reads::Positional)
}

/// Opens a log for writing, for a verb that needs one of its streams.
///
/// # Errors
///
/// Fails like [`Options::open`], and if there is no log.
pub(crate) fn open_to_change(path: &Path) -> Result<Log, VerbFailure> {
    let failed = in_log(path);
    let log = options().open(path).map_err(&failed)?;
    if log.read_view().position().get() == 0 {
        open_quietly(path, TailShown::Confirmed)?;
    }
    Ok(log)
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

/// Fails if the log, opened for writing, does not exist: the verb must not create it.
pub(crate) fn check_is_there(log: &Log, path: &Path) -> Result<(), VerbFailure> {
    if log.recovery_report().segments.is_empty() {
        open(path, TailShown::Confirmed)?;
    }
    Ok(())
}

/// Finds the stream that `text` names: by its id, its name, or the beginning of its id.
pub(crate) fn resolve(view: &ReadView, path: &Path, text: &str) -> Result<StreamId, VerbFailure> {
    view.resolve(text).map_err(in_log(path))
}

/// Treatment of the beginning of an id by a verb that deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prefix {
    /// Accepted in place of the id.
    Taken,
    /// Accepted only after a question on the terminal.
    Asked,
}

/// Finds the stream that `text` names for a verb that deletes.
pub(crate) fn resolve_to_delete(
    view: &ReadView,
    path: &Path,
    text: &str,
    prefix: Prefix,
) -> Result<StreamId, VerbFailure> {
    let id = resolve(view, path, text)?;
    let is_exact = text.parse::<StreamId>().is_ok() || view.find(text) == Some(id);
    if is_exact || prefix == Prefix::Taken {
        return Ok(id);
    }
    let info = view.info(id);
    let name = info.as_ref().and_then(|info| info.name.as_deref());
    let name = name.map(|name| format!(", named {name:?}")).unwrap_or_default();
    let events = count(info.map_or(0, |info| info.head.get()), "event");
    let meant = format!("{text:?} is a prefix of the id {id}{name}, with {events}");
    if confirm(&meant) {
        return Ok(id);
    }
    Err(VerbFailure::Said(format!(
        "{meant}; nothing was done. Give the whole id or the name, or --yes to accept the prefix"
    )))
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
