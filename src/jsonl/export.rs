//! Writes a read view as lines.
//!
//! An export of the whole log writes every branch once, with the seqs that any stream shows of it.
//! An export of single streams writes each as if it shared nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Serializer;

use super::portable::EscapingFormatter;
use super::schema::{
    DamageLine, EncodedBytes, EventLine, ForkBase, ForkPoint, Line, StreamLine, StreamSeqs, VERSION,
};
use super::{Exported, LostSeqs};
use crate::catalog::{History, Lineage, ReadView, Stretch};
use crate::error::{Error, ErrorKind, Result};
use crate::index::ArenaId;
use crate::reader::{Event, Events};
use crate::recovery::RecoveryReport;
use crate::types::{Position, Seq, StreamId, StreamState, range_len};

/// Size of the output buffer.
const OUT_BYTES: usize = 256 << 10;

/// Part of a branch that is written.
#[derive(Default)]
struct BranchPart {
    /// Seqs shown by some stream, in order.
    shown: Vec<Range<u64>>,
    /// Last fork point of the branch. Its lines reach at least this seq.
    end: u64,
    /// First of the seqs before the branch that a stream shows and that are lost.
    lost_from: Option<u64>,
}

type Branches = HashMap<ArenaId, BranchPart>;

/// Exports the whole read view.
pub(super) fn all(
    view: &ReadView,
    salvage: Option<&RecoveryReport>,
    to: impl Write,
) -> Result<Exported> {
    let ids = view.ids();
    let branches = branches(view, &ids);
    let mut out = Exporter::new(view, salvage, to)?;
    for id in ids {
        let Some(history) = view.history(id) else { continue };
        out.stream(&history, &history.own, &branches)?;
    }
    out.finish()
}

/// Collects the part of each branch to write: the seqs that streams show which are not deleted,
/// including those they share with deleted streams.
fn branches(view: &ReadView, ids: &[StreamId]) -> Branches {
    let is_alive = |id: &StreamId| {
        view.view(*id).is_some_and(|stream_view| stream_view.state() != StreamState::Deleted)
    };
    let mut left: Vec<StreamId> = ids.iter().copied().filter(is_alive).collect();
    let mut known: HashSet<StreamId> = left.iter().copied().collect();
    let mut branches = Branches::new();
    for (at, shown) in view.shown_to(&left).into_iter().filter(|(_, shown)| !shown.is_empty()) {
        let owner = view.catalog.branch(at).map(|branch| branch.stream);
        left.extend(owner.filter(|owner| known.insert(*owner)));
        branches.entry(at).or_default().shown = shown;
    }
    while let Some(history) = left.pop().and_then(|id| view.history(id)) {
        note_lost(view, &mut branches, &history);
        if let Some(first) = history.own.first()
            && let Some((base, owner, _)) = first.base
        {
            let end = &mut branches.entry(base).or_default().end;
            *end = first.start.max(*end);
            left.extend(Some(owner).filter(|owner| known.insert(*owner)));
        }
    }
    branches
}

/// Records the seqs that a stream should show before the first one that it does.
fn note_lost(view: &ReadView, branches: &mut Branches, history: &History) {
    let (start, known) = (history.info.start.get(), view.first_shown(history));
    if start < known {
        let first = view.shown_at(history, known).map(|(stretch, _)| stretch.branch);
        let first = first.or_else(|| history.own.first().map(|first| first.branch));
        if let Some(first) = first {
            let lost_from = &mut branches.entry(first).or_default().lost_from;
            *lost_from = Some(lost_from.map_or(start, |from| from.min(start)));
        }
    }
}

/// Exports some streams, each on its own.
pub(super) fn some(
    view: &ReadView,
    ids: &[StreamId],
    salvage: Option<&RecoveryReport>,
    to: impl Write,
) -> Result<Exported> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut histories = Vec::new();
    for id in ids {
        let refused = |kind| Err(Error::new(kind, "export"));
        match view.history(id) {
            None => return refused(ErrorKind::UnknownStream(id)),
            Some(history) if history.info.state == StreamState::Deleted => {
                return refused(ErrorKind::Deleted(id));
            }
            Some(history) => histories.push(history),
        }
    }
    let mut out = Exporter::new(view, salvage, to)?;
    for history in histories {
        let mut branches = Branches::new();
        note_lost(view, &mut branches, &history);
        let is_whole = branches.is_empty();
        let mut stretches = Vec::new();
        for (stretch, seqs) in view.shown(&history) {
            branches.entry(stretch.branch).or_default().shown.push(seqs.clone());
            if stretch.stream != history.info.id {
                // Own branches are written in full, those of other streams only as far as shown.
                let first = stretches.is_empty() && is_whole;
                let start = if first { 0 } else { seqs.start };
                stretches.push(Stretch { start, base: None, ..stretch.clone() });
            }
        }
        stretches.extend(history.own.iter().map(|own| Stretch { base: None, ..own.clone() }));
        out.stream(&history, &stretches, &branches)?;
    }
    out.finish()
}

/// Progress of the lines of a stream.
struct Progress {
    id: StreamId,
    next: u64,
    /// End of the dropped seqs from `next` on that no line has recorded yet.
    gap_end: u64,
    generation: u32,
    /// Some seqs are written, so the stream can be rewound.
    is_begun: bool,
    /// Missing seqs before this one were trimmed; from here on they are lost.
    known_end: u64,
}

struct Exporter<'a, W: Write> {
    view: &'a ReadView,
    to: BufWriter<W>,
    /// Omits damage instead of failing.
    skips: bool,
    done: Exported,
}

impl<'a, W: Write> Exporter<'a, W> {
    fn new(view: &'a ReadView, salvage: Option<&RecoveryReport>, to: W) -> Result<Self> {
        let to = BufWriter::with_capacity(OUT_BYTES, to);
        let mut exporter = Self { view, to, skips: salvage.is_some(), done: Exported::default() };
        exporter.line(&Line::Amberlog { export: VERSION })?;
        let Some(salvage) = salvage else { return Ok(exporter) };
        for damage in &salvage.damages {
            exporter.line(&Line::Damage(DamageLine::from(damage)))?;
        }
        if salvage.acknowledged < view.position() {
            exporter.line(&unconfirmed(view, salvage.acknowledged)?)?;
        }
        Ok(exporter)
    }

    fn finish(mut self) -> Result<Exported> {
        let Exported { streams, events, .. } = self.done;
        let lost = self.done.lost.iter().map(|lost| &lost.seqs);
        let seqs = lost.map(|seqs| seqs.end.get().saturating_sub(seqs.start.get()));
        let lost = seqs.fold(0, u64::saturating_add);
        self.line(&Line::End { streams, events, lost })?;
        self.to.flush().map_err(refused)?;
        Ok(self.done)
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        line.serialize(&mut Serializer::with_formatter(&mut self.to, EscapingFormatter))
            .map_err(std::io::Error::from)
            .and_then(|()| self.to.write_all(b"\n"))
            .map_err(refused)
    }

    /// Writes a stream. If the first stretch has a base, the lines refer to the events in it.
    fn stream(
        &mut self,
        history: &History,
        stretches: &[Stretch],
        branches: &Branches,
    ) -> Result<()> {
        let id = history.info.id;
        let mut stretches = stretches;
        if history.info.state == StreamState::Deleted {
            // Stretches after the last shared one may be compacted in part.
            let is_shared = |stretch: &Stretch| branches.contains_key(&stretch.branch);
            let end =
                stretches.iter().rposition(is_shared).map_or(0, |last| last.saturating_add(1));
            stretches = &stretches[..end];
        }
        let shares = stretches.first().filter(|first| first.base.is_some());
        let mut line = stream_line(history, shares);
        // If the end of the stream is lost, its forks still prove how far it went.
        let tip = stretches.last().and_then(|tip| branches.get(&tip.branch));
        let end = tip.map_or(0, |part| part.end);
        line.head = line.head.map(|head| head.max(end));
        // If two streams have the same name, the record that renamed one of them is lost.
        line.name.take_if(|name| self.skips && self.view.find(name) != Some(id));
        let is_alive = line.head.is_some();
        self.line(&Line::Stream(Box::new(line)))?;
        self.done.streams = self.done.streams.saturating_add(1);
        let deleted = u64::from(history.info.state == StreamState::Deleted);
        self.done.deleted_streams = self.done.deleted_streams.saturating_add(deleted);
        let (next, generation) = shares.map_or((0, 0), |first| (first.start, first.generation));
        let is_begun = shares.is_some();
        let mut at = Progress { id, next, gap_end: 0, generation, is_begun, known_end: u64::MAX };
        let last = stretches.len().checked_sub(1);
        for (nth, stretch) in stretches.iter().enumerate() {
            let part = branches.get(&stretch.branch);
            if let Some(from) = part.and_then(|part| part.lost_from) {
                self.forget_to(&mut at, from.min(stretch.start))?;
                self.lose(&mut at, from..stretch.start, None)?;
            }
            self.go_to(&mut at, stretch)?;
            if is_alive && Some(nth) == last {
                at.known_end = history.info.head.get();
            }
            let Some(part) = part else { continue };
            for shown in &part.shown {
                self.events(&mut at, stretch, shown.start.max(stretch.start)..shown.end)?;
            }
            self.forget_to(&mut at, part.end)?;
        }
        self.end_gap(&mut at)?;
        match history.info.state {
            StreamState::Deleted => Ok(()),
            _ => self.forget_to(&mut at, history.info.head.get()),
        }
    }

    /// Moves to the start of a stretch, rewinding if necessary.
    fn go_to(&mut self, at: &mut Progress, stretch: &Stretch) -> Result<()> {
        self.forget_to(at, stretch.start)?;
        if at.generation < stretch.generation {
            self.end_gap(at)?;
        }
        let to = at.next.min(stretch.start);
        while at.generation < stretch.generation {
            if !at.is_begun {
                self.forget_to(at, 1)?;
            }
            (at.next, at.generation) = (to, at.generation.saturating_add(1));
            self.line(&Line::Rewind { to, generation: at.generation })?;
        }
        Ok(())
    }

    /// Writes the missing seqs before `seq` as trimmed, or as lost from `known_end` on.
    fn forget_to(&mut self, at: &mut Progress, seq: u64) -> Result<()> {
        let end = seq.min(at.known_end);
        if at.next.max(at.gap_end) < end {
            self.end_gap(at)?;
            self.line(&Line::Forgotten(range_len(&(at.next..end))))?;
            (at.next, at.is_begun) = (end, true);
        }
        self.lose(at, at.known_end..seq, None)
    }

    /// Writes a line for a gap with no event after it.
    fn end_gap(&mut self, at: &mut Progress) -> Result<()> {
        if at.next < at.gap_end {
            self.line(&Line::Gap(range_len(&(at.next..at.gap_end))))?;
            (at.next, at.is_begun) = (at.gap_end, true);
        }
        at.gap_end = 0;
        Ok(())
    }

    /// Writes the events of a branch in these seqs. The next line records a gap at their end.
    fn events(&mut self, at: &mut Progress, stretch: &Stretch, seqs: Range<u64>) -> Result<()> {
        self.forget_to(at, seqs.start)?;
        let seqs = at.next.min(seqs.end)..seqs.end;
        let lineage = Lineage::new(stretch.branch, seqs.end);
        for event in Events::durable(self.view.clone(), at.id, lineage, seqs.clone()) {
            match event {
                Ok(event) => self.event(at, stretch, &event)?,
                Err(error) => match error.lost_seqs().filter(|_| self.skips) {
                    Some(lost) => self.lose(at, lost.start.get()..lost.end.get(), Some(error))?,
                    None => return Err(error),
                },
            }
        }
        if at.next < seqs.end {
            at.gap_end = seqs.end;
        }
        Ok(())
    }

    /// Writes these seqs, except those already written, as lost, and the seqs before them as
    /// dropped. Fails if the export does not skip damage.
    fn lose(&mut self, at: &mut Progress, seqs: Range<u64>, why: Option<Error>) -> Result<()> {
        let id = at.id;
        let seqs = seqs.start.max(at.next)..seqs.end;
        if seqs.is_empty() {
            return Ok(());
        }
        let lost = Seq(seqs.start)..Seq(seqs.end);
        let error = why.unwrap_or_else(|| {
            let kind = ErrorKind::Corrupt { stream: Some(id), seqs: Some(lost.clone()) };
            Error::new(kind, "export")
        });
        if !self.skips {
            return Err(error);
        }
        let why = error.to_string().into();
        let dropped_before = range_len(&(at.next..seqs.start));
        self.line(&Line::Lost { seqs: range_len(&seqs), dropped_before, why })?;
        self.done.lost.push(LostSeqs { stream: id, seqs: lost, error });
        (at.next, at.gap_end, at.is_begun) = (seqs.end, 0, true);
        Ok(())
    }

    fn event(&mut self, at: &mut Progress, stretch: &Stretch, event: &Event) -> Result<()> {
        let seq = event.seq().get();
        let payload = EncodedBytes::new(event.payload(), event.codec());
        self.line(&Line::Event(EventLine {
            seq,
            generation: stretch.generation,
            kind: event.kind().0,
            schema_version: event.schema_version(),
            codec: event.codec().0,
            time_us: event.time().as_micros(),
            // Excludes the part of the gap before the shown seqs.
            dropped_before: seq.saturating_sub(at.next),
            text: payload.text,
            json: payload.json,
            base64: payload.base64,
        }))?;
        self.done.events = self.done.events.saturating_add(1);
        (at.next, at.gap_end, at.is_begun) = (seq.saturating_add(1), 0, true);
        Ok(())
    }
}

/// Lists the events of the commits after the last one known to be acknowledged.
fn unconfirmed(view: &ReadView, acknowledged: Position) -> Result<Line<'static>> {
    let after = |position: Position| Position(position.get().saturating_add(1));
    let first = after(acknowledged);
    let mut of_streams: BTreeMap<StreamId, Range<Seq>> = BTreeMap::new();
    // Damage is recorded in lines of its own.
    for event in view.all_events(first)?.flatten() {
        let (seq, end) = (event.seq(), event.seq().next());
        let seqs = of_streams.entry(event.stream()).or_insert(seq..end);
        *seqs = seqs.start.min(seq)..seqs.end.max(end);
    }
    let events = of_streams.into_iter().map(|(stream, seqs)| StreamSeqs { stream, seqs });
    Ok(Line::Unconfirmed { positions: first..after(view.position()), events: events.collect() })
}

fn stream_line(history: &History, shares: Option<&Stretch>) -> StreamLine {
    let info = &history.info;
    let is_deleted = info.state == StreamState::Deleted;
    let data = info.data.as_deref().filter(|_| !is_deleted);
    let text = data.and_then(|data| std::str::from_utf8(data).ok());
    let base64 = data.filter(|_| text.is_none()).map(|data| BASE64.encode(data));
    StreamLine {
        id: info.id,
        name: info.name.clone(),
        labels: if is_deleted { BTreeMap::new() } else { info.labels.clone() },
        data_text: text.map(str::to_owned),
        data_base64: base64,
        state: info.state,
        parent: info.parent.map(|(id, seq)| ForkPoint { id, seq: seq.get() }),
        shares: shares.and_then(|first| {
            let (_, id, generation) = first.base?;
            Some(ForkBase { id, generation, seq: first.start })
        }),
        start: if is_deleted { 0 } else { info.start.min(info.head).get() },
        head: (!is_deleted).then(|| info.head.get()),
    }
}

fn refused(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "export").because(error)
}
