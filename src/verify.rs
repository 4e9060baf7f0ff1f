//! Verifies a log by reading it the way its users do.
//!
//! A quick verification proves that the bytes are those that were written, but not that readers
//! find all events in them. So a full verification uses the public interface: it reads every
//! stream, forks included, from both ends, reads the log by position, and writes an export to
//! nowhere. It reports the errors that readers get, and also those that they would not notice: seqs
//! that are skipped without an error, and differences between the two directions.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::Path;

use crate::catalog::{ReadView, StreamInfo};
use crate::error::{Error, ErrorKind, Result};
pub use crate::inspect::{Record, RecordBody, RecordDump};
#[cfg(feature = "json")]
use crate::jsonl::ExportOptions;
use crate::reader::{EventRef, Events};
pub use crate::recovery::{
    Damage, DamageKind, NewSegment, RecoveryReport, RepairReport, SegmentReport, SegmentState,
    TornTail, Unreadable, repair, verify_quick,
};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Position, Seq, StreamId};

/// Maximum number of passes over the log. A read error is reported only if it persists, because
/// writers may change the log during a pass.
const PASSES_MAX: usize = 3;

/// Report of [`verify`], which changes nothing.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Report on the bytes of the files.
    pub recovery: RecoveryReport,
    /// Events that readers miss. Empty for a sound log. Does not list damage that costs no events,
    /// nor events of which no trace is left.
    pub unread: Vec<MissedEvents>,
    /// Number of events read, summed over the streams.
    pub events: u64,
}

impl VerifyReport {
    /// Returns whether nothing is damaged and all events are readable. A torn tail is not damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.recovery.is_sound() && self.unread.is_empty()
    }
}

/// Events that one way of reading misses.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MissedEvents {
    /// Way of reading that misses the events.
    pub way: ReadMethod,
    /// Stream of the events, if known.
    pub stream: Option<StreamId>,
    /// Seqs of the events, if known.
    pub seqs: Option<Range<Seq>>,
    /// Error that the reader gets.
    pub error: Error,
}

/// Way of reading a log.
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ReadMethod {
    /// Reads a stream from its first event to its last.
    Forwards,
    /// Reads a stream from its last event to its first. Events that both directions miss are listed
    /// under [`ReadMethod::Forwards`] only.
    Backwards,
    /// Reads the whole log, commit by commit.
    ByPosition,
    /// Exports the whole log, skipping damage if there is any.
    Export,
}

impl ReadMethod {
    /// Returns the name, for messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwards => "forwards",
            Self::Backwards => "backwards",
            Self::ByPosition => "by position",
            Self::Export => "export",
        }
    }
}

/// Checks every byte of a log, as [`verify_quick`] does, and then reads the log in every way: each
/// stream from both ends, the log by position, and, with feature `json`, an export to nowhere.
/// Changes nothing and takes no lock. Also verifies archive files.
///
/// Blocks for the time of about five reads of the whole log.
///
/// # Errors
///
/// The errors of [`verify_quick`]. Damage is not an error: it is in the report.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport> {
    let path = path.as_ref();
    complete(verify_quick(path)?, || Ok(ReadView::open_unconfirmed(path)?.0))
}

/// Verifies a log on a simulated disk, like [`verify`].
///
/// # Errors
///
/// The errors of [`verify`].
#[cfg(feature = "sim")]
pub fn verify_on(disk: &crate::disk::SimDisk) -> Result<VerifyReport> {
    let recovery = crate::recovery::verify_quick_on(disk)?;
    complete(recovery, || Ok(ReadView::open_unconfirmed_on(disk)?.0))
}

/// Completes the report on the bytes by reading the views that `open` returns.
fn complete(recovery: RecoveryReport, open: impl Fn() -> Result<ReadView>) -> Result<VerifyReport> {
    let mut report = VerifyReport { recovery, ..VerifyReport::default() };
    if broken(Sabotage::VerifyBytesOnly) {
        return Ok(report);
    }
    for _ in 0..PASSES_MAX {
        let view = open()?;
        (report.unread, report.events) = (Vec::new(), 0);
        for info in view.streams() {
            match read_stream(&view, &info, &mut report.unread) {
                Ok(events) => report.events = report.events.saturating_add(events),
                Err(error) if matches!(error.kind(), ErrorKind::Io) => return Err(error),
                Err(error) => report.unread.push(MissedEvents {
                    way: ReadMethod::Forwards,
                    stream: Some(info.id),
                    seqs: None,
                    error,
                }),
            }
        }
        read_by_position(&view, &mut report.unread)?;
        #[cfg(feature = "json")]
        read_for_export(&view, &report.recovery, &mut report.unread)?;
        // Damaged bytes give the same result in every pass.
        if report.is_sound() || !report.recovery.is_sound() {
            break;
        }
    }
    Ok(report)
}

/// Result of reading a stream in one direction.
#[derive(Default, PartialEq, Eq)]
struct StreamPass {
    /// Sum of the digests of the events, independent of their order.
    digest: u64,
    events: u64,
    lost: BTreeSet<(Seq, Seq)>,
}

impl StreamPass {
    /// Reads until `next` returns `None`, and adds the read errors to `unread`.
    fn read(
        mut next: impl FnMut(&mut Self) -> Option<Result<Range<Seq>>>,
        unread: &mut Vec<(Range<Seq>, Error)>,
    ) -> Result<Self> {
        let mut pass = Self::default();
        while let Some(found) = next(&mut pass) {
            let Err(error) = found else { continue };
            let Some(seqs) = error.lost_seqs() else { return Err(error) };
            pass.lost.insert((seqs.start, seqs.end));
            unread.push((seqs, error));
        }
        Ok(pass)
    }

    /// Adds an event to the digest. Returns the seqs it covers, with the gap before it.
    fn take(&mut self, event: &EventRef<'_>) -> Range<Seq> {
        let mut hasher = DefaultHasher::new();
        let seq = event.seq().get();
        let place = (seq, event.generation(), event.position().map(Position::get));
        let shape = (event.kind().0, event.schema_version(), event.codec().0);
        let head = (shape, event.time().as_micros());
        (place, head, event.dropped_before(), event.payload()).hash(&mut hasher);
        self.digest = self.digest.wrapping_add(hasher.finish());
        self.events = self.events.saturating_add(1);
        Seq(seq.saturating_sub(event.dropped_before()))..event.seq().next()
    }
}

/// Reads a stream from both ends. Returns its number of events.
fn read_stream(view: &ReadView, info: &StreamInfo, unread: &mut Vec<MissedEvents>) -> Result<u64> {
    let id = info.id;
    let mut add = |way, seqs, error| {
        unread.push(MissedEvents { way, stream: Some(id), seqs: Some(seqs), error });
    };
    let unnoticed = |seqs: &Range<Seq>, what| {
        let kind = ErrorKind::Corrupt { stream: Some(id), seqs: Some(seqs.clone()) };
        Error::new(kind, "verify").because(what)
    };
    let (mut lost, mut lost_back, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let mut events = view.events(id)?;
    let mut next = info.start;
    let forwards = |pass: &mut StreamPass| {
        let found = events.lend()?.map(|event| pass.take(&event));
        let seqs = match &found {
            Ok(seqs) => seqs.clone(),
            Err(error) => error.lost_seqs().unwrap_or(next..next),
        };
        // A gap before lost seqs is reported by no event.
        let is_odd = if found.is_ok() { seqs.start != next } else { seqs.start < next };
        if is_odd {
            skipped.push(next.min(seqs.start)..seqs.start.max(next));
        }
        next = seqs.end;
        Some(found)
    };
    let forth = StreamPass::read(forwards, &mut lost)?;
    let mut events: Events = view.events(id)?;
    let backwards =
        |pass: &mut StreamPass| Some(events.lend_back()?.map(|event| pass.take(&event)));
    let back = StreamPass::read(backwards, &mut lost_back)?;
    for (seqs, error) in lost {
        add(ReadMethod::Forwards, seqs, error);
    }
    for seqs in skipped {
        let error = unnoticed(&seqs, "seqs are skipped or read twice without an error");
        add(ReadMethod::Forwards, seqs, error);
    }
    for (seqs, error) in lost_back {
        if !forth.lost.contains(&(seqs.start, seqs.end)) {
            add(ReadMethod::Backwards, seqs, error);
        }
    }
    if forth != back {
        let seqs = info.start..info.head;
        let error =
            unnoticed(&seqs, "reading backwards and reading forwards give different events");
        add(ReadMethod::Backwards, seqs, error);
    }
    Ok(forth.events)
}

fn read_by_position(view: &ReadView, unread: &mut Vec<MissedEvents>) -> Result<()> {
    let mut all = view.all_events(Position::START)?;
    while let Some(event) = all.lend() {
        let Err(error) = event else { continue };
        let ErrorKind::Corrupt { stream, seqs } = error.kind() else { return Err(error) };
        let (stream, seqs) = (*stream, seqs.clone());
        unread.push(MissedEvents { way: ReadMethod::ByPosition, stream, seqs, error });
    }
    Ok(())
}

/// Exports the log to nowhere, skipping damage if there is any.
#[cfg(feature = "json")]
fn read_for_export(
    view: &ReadView,
    recovery: &RecoveryReport,
    unread: &mut Vec<MissedEvents>,
) -> Result<()> {
    let mut options = ExportOptions::new();
    if !recovery.is_sound() || !unread.is_empty() {
        options = options.skip_damaged(recovery);
    }
    match view.export_jsonl_with(&options, std::io::sink()) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::Io) => Err(error),
        Err(error) => {
            unread.push(MissedEvents { way: ReadMethod::Export, stream: None, seqs: None, error });
            Ok(())
        }
    }
}
