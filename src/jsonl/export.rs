//! From a snapshot to lines.
//!
//! A whole log is written branch by branch, of each what any stream shows, so that what is shared is written once.
//! A stream alone is written as if it shared nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::ops::Range;

use super::lines::{
    DamageLine, EndLine, EventLine, Header, Line, LostLine, Parent, RewindLine, Said, Shares,
    StreamLine, VERSION,
};
use super::{Exported, LostSeqs};
use crate::catalog::{History, Shown, Snapshot, Stretch};
use crate::error::{Error, ErrorKind, Result};
use crate::index::At;
use crate::reader::{Event, Events};
use crate::recovery::Damage;
use crate::types::{Seq, StreamId, StreamState};

/// How much is handed on at once.
const OUT_BYTES: usize = 256 << 10;

/// What of each branch is written down.
#[derive(Default)]
struct Wanted {
    /// Seqs that are shown, in order.
    shown: Vec<Shown>,
    /// Forks begin before this, whether or not anybody shows what is in front of them.
    end: u64,
    /// Somebody shows seqs from here on in front of the branch, and nobody knows where they are.
    lost_from: Option<u64>,
}

type Branches = HashMap<At, Wanted>;

/// Everything.
pub(super) fn all(
    snapshot: &Snapshot,
    damages: Option<&[Damage]>,
    to: impl Write,
) -> Result<Exported> {
    let ids = snapshot.ids();
    let branches = branches(snapshot, &ids);
    let mut out = Exporter::new(snapshot, damages, to)?;
    for id in ids {
        let Some(history) = snapshot.history(id) else { continue };
        out.stream(&history, &history.own, &branches, Base::Shared)?;
    }
    out.finish()
}

/// What is written of each branch: what streams that live show, and what they share with those that do not.
fn branches(snapshot: &Snapshot, ids: &[StreamId]) -> Branches {
    let lives =
        |id: &StreamId| snapshot.view(*id).is_some_and(|view| view.state() != StreamState::Deleted);
    let mut left: Vec<StreamId> = ids.iter().copied().filter(lives).collect();
    let mut known: HashSet<StreamId> = left.iter().copied().collect();
    let mut branches = Branches::new();
    while let Some(history) = left.pop().and_then(|id| snapshot.history(id)) {
        let mut owners = Vec::new();
        note_lost(&mut branches, &history);
        if let Some(first) = history.own.first()
            && let Some((base, owner, _)) = first.base
        {
            let end = &mut branches.entry(base).or_default().end;
            *end = first.start.max(*end);
            owners.push(owner);
        }
        for (stretch, shown) in history.shown {
            branches.entry(stretch.branch).or_default().shown.push(shown);
            owners.push(stretch.stream);
        }
        left.extend(owners.into_iter().filter(|owner| known.insert(*owner)));
    }
    branches.values_mut().for_each(|wanted| merge(&mut wanted.shown));
    branches
}

/// Notes what a stream should show in front of everything that it does.
fn note_lost(branches: &mut Branches, history: &History) {
    let (start, head) = (history.info.start.get(), history.info.head.get());
    let first = history.shown.first();
    let known = first.map_or(head, |(_, shown)| shown.seqs.start);
    let first = first.map(|(stretch, _)| stretch).or(history.own.first());
    if let Some(first) = first.filter(|_| start < known) {
        let lost_from = &mut branches.entry(first.branch).or_default().lost_from;
        *lost_from = Some(lost_from.map_or(start, |from| from.min(start)));
    }
}

/// Some streams, each for itself.
pub(super) fn some(
    snapshot: &Snapshot,
    ids: &[StreamId],
    damages: Option<&[Damage]>,
    to: impl Write,
) -> Result<Exported> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut histories = Vec::new();
    for id in ids {
        let refused = |kind| Err(Error::new(kind, "export"));
        match snapshot.history(id) {
            None => return refused(ErrorKind::UnknownStream(id)),
            Some(history) if history.info.state == StreamState::Deleted => {
                return refused(ErrorKind::Deleted(id));
            }
            Some(history) => histories.push(history),
        }
    }
    let mut out = Exporter::new(snapshot, damages, to)?;
    for history in histories {
        let mut branches = Branches::new();
        note_lost(&mut branches, &history);
        let is_whole = branches.is_empty();
        let mut stretches = Vec::new();
        for (stretch, shown) in &history.shown {
            branches.entry(stretch.branch).or_default().shown.push(shown.clone());
            if stretch.stream != history.info.id {
                // Its own branches are all written, of others only what it shows of them.
                let first = stretches.is_empty() && is_whole;
                let start = if first { 0 } else { shown.seqs.start };
                stretches.push(Stretch { start, base: None, ..stretch.clone() });
            }
        }
        stretches.extend(history.own.iter().cloned());
        out.stream(&history, &stretches, &branches, Base::None)?;
    }
    out.finish()
}

/// Puts ranges in order, each seq in one of them, and those together that touch and are read alike.
fn merge(ranges: &mut Vec<Shown>) {
    ranges.sort_unstable_by_key(|shown| shown.seqs.start);
    let mut merged: Vec<Shown> = Vec::new();
    for mut shown in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if shown.by == last.by && shown.seqs.start <= last.seqs.end => {
                last.seqs.end = last.seqs.end.max(shown.seqs.end);
            }
            last => {
                shown.seqs.start = last.map_or(0, |last| last.seqs.end).max(shown.seqs.start);
                merged.extend(Some(shown).filter(|shown| !shown.seqs.is_empty()));
            }
        }
    }
    *ranges = merged;
}

/// Whether a fork goes on sharing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Shared,
    None,
}

/// Where the lines of a stream have got to.
struct Pen {
    id: StreamId,
    next: u64,
    /// Seqs before this were dropped by the ring.
    gap_end: u64,
    generation: u32,
    /// Something was said behind which one can go back.
    is_begun: bool,
    /// Whatever the stream had from here on is not forgotten, but lost.
    known_end: u64,
}

struct Exporter<'a, W: Write> {
    snapshot: &'a Snapshot,
    to: BufWriter<W>,
    /// What is damaged is left out.
    skips: bool,
    done: Exported,
}

impl<'a, W: Write> Exporter<'a, W> {
    fn new(snapshot: &'a Snapshot, damages: Option<&[Damage]>, to: W) -> Result<Self> {
        let to = BufWriter::with_capacity(OUT_BYTES, to);
        let (skips, done) = (damages.is_some(), Exported::default());
        let mut exporter = Self { snapshot, to, skips, done };
        exporter.line(&Line::Amberlog(Header { export: VERSION }))?;
        for damage in damages.unwrap_or_default() {
            exporter.line(&Line::Damage(DamageLine::from(damage)))?;
        }
        Ok(exporter)
    }

    fn finish(mut self) -> Result<Exported> {
        let Exported { streams, events, lost } = &self.done;
        let seqs = lost.iter().map(|one| one.seqs.end.get() - one.seqs.start.get());
        let lost = seqs.fold(0, u64::saturating_add);
        let end = EndLine { streams: *streams, events: *events, lost };
        self.line(&Line::End(end))?;
        self.to.flush().map_err(refused)?;
        Ok(self.done)
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        serde_json::to_writer(&mut self.to, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.to.write_all(b"\n"))
            .map_err(refused)
    }

    fn stream(
        &mut self,
        history: &History,
        stretches: &[Stretch],
        branches: &Branches,
        base: Base,
    ) -> Result<()> {
        let id = history.info.id;
        let mut stretches = stretches;
        if history.info.state == StreamState::Deleted {
            // What became of it behind what others share is nobody's any more, and may be collected in part.
            let shared = |one: &Stretch| branches.contains_key(&one.branch);
            let end = stretches.iter().rposition(shared).map_or(0, |last| last + 1);
            stretches = &stretches[..end];
        }
        let first = stretches.first().filter(|_| base == Base::Shared);
        let shares = first.filter(|first| first.base.is_some());
        let mut line = stream_line(history, shares);
        // Forks that share what is lost still know how far the stream went.
        let tip = stretches.last().and_then(|tip| branches.get(&tip.branch));
        let end = tip.map_or(0, |wanted| wanted.end);
        line.head = line.head.map(|head| head.max(end));
        // Of two that have a name one had another, and that is lost.
        line.name.take_if(|name| self.skips && self.snapshot.find(name) != Some(id));
        let is_alive = line.head.is_some();
        self.line(&Line::Stream(Box::new(line)))?;
        self.done.streams += 1;
        let (next, generation) = shares.map_or((0, 0), |first| (first.start, first.generation));
        let is_begun = shares.is_some();
        let mut at = Pen { id, next, gap_end: 0, generation, is_begun, known_end: u64::MAX };
        for (nth, stretch) in stretches.iter().enumerate() {
            let wanted = branches.get(&stretch.branch);
            if let Some(from) = wanted.and_then(|wanted| wanted.lost_from) {
                self.forget_to(&mut at, from.min(stretch.start))?;
                self.lose(&mut at, from..stretch.start, None)?;
            }
            self.go_to(&mut at, stretch)?;
            if is_alive && nth + 1 == stretches.len() {
                at.known_end = history.info.head.get();
            }
            let Some(wanted) = wanted else { continue };
            for shown in &wanted.shown {
                let own = shown.seqs.start.max(stretch.start)..shown.seqs.end;
                self.events(&mut at, stretch, Shown { seqs: own, by: shown.by })?;
            }
            self.forget_to(&mut at, wanted.end)?;
        }
        match history.info.state {
            StreamState::Deleted => Ok(()),
            _ if at.gap_end > at.next => {
                let what = "a fork that ends in a gap is exported with the whole log only";
                Err(Error::new(ErrorKind::InvalidOption(what), "export"))
            }
            _ => self.forget_to(&mut at, history.info.head.get()),
        }
    }

    /// Goes to where a stretch begins, back if need be.
    fn go_to(&mut self, at: &mut Pen, stretch: &Stretch) -> Result<()> {
        if at.gap_end < stretch.start {
            self.forget_to(at, stretch.start)?;
        }
        let to = at.next.min(stretch.start);
        while at.generation < stretch.generation {
            if !at.is_begun {
                self.forget_to(at, 1)?;
            }
            (at.next, at.generation) = (to, at.generation + 1);
            self.line(&Line::Rewind(RewindLine { to: at.next, generation: at.generation }))?;
        }
        Ok(())
    }

    fn forget_to(&mut self, at: &mut Pen, seq: u64) -> Result<()> {
        let end = seq.min(at.known_end);
        if at.next < end {
            self.line(&Line::Forgotten(end - at.next))?;
            (at.next, at.is_begun) = (end, true);
        }
        self.lose(at, at.known_end..seq, None)
    }

    /// The events of a branch in these seqs. Where they end in a gap, the one behind it says so, which is one of the
    /// branch itself, or else of what a fork goes on with.
    fn events(&mut self, at: &mut Pen, stretch: &Stretch, Shown { seqs, by }: Shown) -> Result<()> {
        let id = at.id;
        if at.gap_end < seqs.start {
            self.forget_to(at, seqs.start)?;
        }
        let seqs = at.next.min(seqs.end)..seqs.end;
        // Which seqs an error costs is known when it says so, or by what comes behind it.
        let mut lost: Option<Error> = None;
        for event in self.read(id, by, seqs.clone())? {
            let (from, to) = match &event {
                Ok(event) => (at.next, event.seq().get() - event.dropped_before()),
                Err(error) => lost_seqs(error).unwrap_or((at.next, at.next)),
            };
            if let Some(error) = lost.take() {
                let end = if event.is_ok() { to } else { from };
                self.lose(at, at.next..end, Some(error))?;
            }
            match event {
                Ok(event) => self.event(at, stretch, &event)?,
                Err(error) if !self.skips || !is_damage(&error) => return Err(error),
                Err(error) if from < to => self.lose(at, from..to, Some(error))?,
                Err(error) => lost = Some(error),
            }
        }
        self.lose(at, at.next..if lost.is_some() { seqs.end } else { 0 }, lost)?;
        if at.next < seqs.end && stretch.stream != id {
            at.gap_end = seqs.end;
        } else if at.next < seqs.end {
            let head = self.snapshot.head(stretch.branch).unwrap_or(seqs.end);
            match self.read(id, stretch.branch, at.next..head)?.next() {
                Some(Ok(behind)) => self.event(at, stretch, &behind)?,
                Some(Err(error)) if !matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                    return Err(error);
                }
                // It was dropped since, and nobody shows it: what was collected is not told.
                _ => self.forget_to(at, seqs.end + 1)?,
            }
        }
        Ok(())
    }

    /// Says that these seqs, as far as they come next, are lost, and what is in front of them dropped; or ends it all.
    fn lose(&mut self, at: &mut Pen, seqs: Range<u64>, why: Option<Error>) -> Result<()> {
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
        let dropped_before = seqs.start - at.next;
        self.line(&Line::Lost(LostLine { seqs: seqs.end - seqs.start, dropped_before, why }))?;
        self.done.lost.push(LostSeqs { stream: id, seqs: lost, error });
        (at.next, at.gap_end, at.is_begun) = (seqs.end, 0, true);
        Ok(())
    }

    fn read(&self, id: StreamId, by: At, seqs: Range<u64>) -> Result<Events> {
        let lineage = self.snapshot.catalog.lineage(by, seqs.end, self.snapshot.mark.end);
        Ok(Events::durable(self.snapshot.clone(), id, lineage, seqs))
    }

    fn event(&mut self, at: &mut Pen, stretch: &Stretch, event: &Event) -> Result<()> {
        let seq = event.seq().get();
        let said = Said::new(event.payload(), event.codec());
        self.line(&Line::Event(EventLine {
            seq,
            generation: stretch.generation,
            kind: event.kind().0,
            codec: event.codec().0,
            time_us: event.time().as_micros(),
            // What lies before what is shown is no gap in it.
            dropped_before: seq.saturating_sub(at.next),
            text: said.text,
            json: said.json,
            base64: said.base64,
        }))?;
        self.done.events += 1;
        (at.next, at.gap_end, at.is_begun) = (seq + 1, 0, true);
        Ok(())
    }
}

fn stream_line(history: &History, shares: Option<&Stretch>) -> StreamLine {
    let info = &history.info;
    let is_deleted = info.state == StreamState::Deleted;
    let data = info.data.as_deref().filter(|_| !is_deleted);
    let text = data.and_then(|data| std::str::from_utf8(data).ok());
    let base64 = data.filter(|_| text.is_none()).map(super::lines::base64);
    StreamLine {
        id: info.id.to_string(),
        name: info.name.clone(),
        labels: if is_deleted { BTreeMap::new() } else { info.labels.clone() },
        data_text: text.map(str::to_owned),
        data_base64: base64,
        state: info.state.into(),
        parent: info.parent.map(|(id, seq)| Parent { id: id.to_string(), seq: seq.get() }),
        shares: shares.and_then(|first| {
            let (_, base, generation) = first.base?;
            Some(Shares { id: base.to_string(), generation, seq: first.start })
        }),
        start: if is_deleted { 0 } else { info.start.min(info.head).get() },
        head: (!is_deleted).then(|| info.head.get()),
    }
}

/// The seqs that a damage costs, if it says so.
pub(super) fn lost_seqs(error: &Error) -> Option<(u64, u64)> {
    match error.kind() {
        ErrorKind::Corrupt { seqs: Some(seqs), .. } => Some((seqs.start.get(), seqs.end.get())),
        _ => None,
    }
}

fn is_damage(error: &Error) -> bool {
    use ErrorKind::{ArchiveMissing, Corrupt, WrongArchive};
    matches!(error.kind(), Corrupt { .. } | ArchiveMissing(_) | WrongArchive(_))
}

fn refused(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "export").because(error)
}
