//! From a snapshot to lines.
//!
//! A whole log is written branch by branch, of each what any stream shows, so that what is shared is written once.
//! A stream alone is written as if it shared nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::ops::Range;

use super::Exported;
use super::lines::{
    EndLine, EventLine, Header, Line, Parent, RewindLine, Said, Shares, StreamLine, VERSION,
};
use crate::catalog::{History, Shown, Snapshot, Stretch};
use crate::error::{Error, ErrorKind, Result};
use crate::index::At;
use crate::reader::{Event, Events};
use crate::types::{StreamId, StreamState};

/// How much is handed on at once.
const OUT_BYTES: usize = 256 << 10;

/// What of each branch is written down.
#[derive(Default)]
struct Wanted {
    /// Seqs that are shown, in order.
    shown: Vec<Shown>,
    /// Forks begin before this, whether or not anybody shows what is in front of them.
    end: u64,
}

type Branches = HashMap<At, Wanted>;

/// Everything.
pub(super) fn all(snapshot: &Snapshot, to: impl Write) -> Result<Exported> {
    let ids = snapshot.ids();
    let branches = branches(snapshot, &ids);
    let mut out = Exporter::new(snapshot, to)?;
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

/// Some streams, each for itself.
pub(super) fn some(snapshot: &Snapshot, ids: &[StreamId], to: impl Write) -> Result<Exported> {
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
    let mut out = Exporter::new(snapshot, to)?;
    for history in histories {
        let mut branches = Branches::new();
        let mut stretches = Vec::new();
        for (stretch, shown) in &history.shown {
            branches.entry(stretch.branch).or_default().shown.push(shown.clone());
            if stretch.stream != history.info.id {
                // Its own branches are all written, of others only what it shows of them.
                let first = stretches.is_empty();
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
    next: u64,
    /// Seqs before this were dropped by the ring.
    gap_end: u64,
    generation: u32,
    /// Something was said behind which one can go back.
    is_begun: bool,
}

impl Pen {
    fn at(next: u64, generation: u32, is_begun: bool) -> Self {
        Self { next, gap_end: 0, generation, is_begun }
    }
}

struct Exporter<'a, W: Write> {
    snapshot: &'a Snapshot,
    to: BufWriter<W>,
    done: Exported,
}

impl<'a, W: Write> Exporter<'a, W> {
    fn new(snapshot: &'a Snapshot, to: W) -> Result<Self> {
        let to = BufWriter::with_capacity(OUT_BYTES, to);
        let mut exporter = Self { snapshot, to, done: Exported::default() };
        exporter.line(&Line::Amberlog(Header { export: VERSION }))?;
        Ok(exporter)
    }

    fn finish(mut self) -> Result<Exported> {
        let Exported { streams, events } = self.done;
        self.line(&Line::End(EndLine { streams, events }))?;
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
        self.line(&Line::Stream(Box::new(stream_line(history, shares))))?;
        self.done.streams += 1;
        let mut at = match shares {
            Some(first) => Pen::at(first.start, first.generation, true),
            None => Pen::at(0, 0, false),
        };
        for stretch in stretches {
            self.go_to(&mut at, stretch)?;
            let Some(wanted) = branches.get(&stretch.branch) else { continue };
            for shown in &wanted.shown {
                let own = shown.seqs.start.max(stretch.start)..shown.seqs.end;
                self.events(id, &mut at, stretch, Shown { seqs: own, by: shown.by })?;
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
        if at.next >= seq {
            return Ok(());
        }
        self.line(&Line::Forgotten(seq - at.next))?;
        (at.next, at.is_begun) = (seq, true);
        Ok(())
    }

    /// The events of a branch in these seqs. Where they end in a gap, the one behind it says so, which is one of the
    /// branch itself, or else of what a fork goes on with.
    fn events(
        &mut self,
        id: StreamId,
        at: &mut Pen,
        stretch: &Stretch,
        Shown { seqs, by }: Shown,
    ) -> Result<()> {
        if at.gap_end < seqs.start {
            self.forget_to(at, seqs.start)?;
        }
        let seqs = at.next.min(seqs.end)..seqs.end;
        for event in self.read(id, by, seqs.clone())? {
            self.event(at, stretch, &event?)?;
        }
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

fn refused(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "export").because(error)
}
