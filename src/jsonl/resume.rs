//! Compares the streams that an interrupted import left in the log with the lines.

use std::ops::Range;
use std::sync::Arc;

use super::schema::StreamLine;
use crate::catalog::{History, Lineage, ReadView};
use crate::engine::Engine;
use crate::error::Result;
use crate::format::FrameHead;
use crate::index::ArenaId;
use crate::reader::{EventRef, Events};
use crate::types::{CodecId, EventKind, StreamId, StreamState, Timestamp};

/// Head of a placeholder, the empty event that an import writes for unknown seqs.
pub(super) const PLACEHOLDER: FrameHead = FrameHead {
    payload_bytes: 0,
    kind: EventKind(0),
    schema_version: 0,
    codec: CodecId::RAW,
    time: Timestamp::from_micros(0),
};

/// A stream that exists in the log already.
pub(super) struct ExistingStream {
    view: ReadView,
    history: History,
    /// A generation, and its events from the next one to compare.
    events: Option<(u32, Events)>,
}

impl ExistingStream {
    /// Finds a stream, or returns `None` if the log does not show it.
    pub(super) fn find(engine: &Engine, id: StreamId) -> Option<Self> {
        let view = ReadView::new(Arc::clone(&engine.catalog));
        let history = view.history(id)?;
        Some(Self { view, history, events: None })
    }

    pub(super) fn state(&self) -> StreamState {
        self.history.info.state
    }

    pub(super) fn start(&self) -> u64 {
        self.history.info.start.get()
    }

    /// Returns whether the stream starts where this line says and has its metadata.
    pub(super) fn begins_as(&self, line: &StreamLine) -> bool {
        let fork = line.shares;
        let info = &self.history.info;
        let first = self.history.own.first();
        let base = first.and_then(|first| first.base.map(|(_, id, generation)| (id, generation)));
        let start = first.map_or(0, |first| first.start);
        if base != fork.map(|fork| (fork.id, fork.generation))
            || start != fork.map_or(0, |fork| fork.seq)
        {
            return false;
        }
        if info.state == StreamState::Deleted {
            return line.state == info.state;
        }
        let Ok(data) = line.data() else { return false };
        let parent = info.parent.map(|(id, seq)| (id, seq.get()));
        info.name == line.name
            && info.labels == line.labels
            && info.data.as_deref() == data.as_deref().filter(|data| !data.is_empty())
            && parent == line.parent.as_ref().map(|parent| (parent.id, parent.seq))
            && info.start.get() <= line.start
            && (info.state == StreamState::Active || info.state == line.state)
    }

    /// Returns whether the stream continues after this place, in this or a later generation.
    pub(super) fn is_past(&self, generation: u32, next: u64) -> bool {
        let info = &self.history.info;
        (generation, next) < (info.generation, info.head.get())
    }

    /// Returns whether the stream ends exactly here.
    pub(super) fn ends_at(&self, generation: u32, next: u64) -> bool {
        let info = &self.history.info;
        (generation, next) == (info.generation, info.head.get())
    }

    /// Returns whether this event is the next one of the stream in this generation, from this seq
    /// on, not counting placeholders.
    pub(super) fn holds(
        &mut self,
        (generation, from): (u32, u64),
        seq: u64,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<bool> {
        if self.events.as_ref().is_none_or(|(of, _)| *of != generation) {
            self.events = self.events_from(generation, from, seq);
        }
        let is_shown = self.shown(generation, seq).is_some();
        for is_last in [false, true] {
            let Some((_, events)) = &mut self.events else { return Ok(false) };
            while let Some(event) = events.lend() {
                match event {
                    Err(error) if error.lost_seqs().is_some_and(|lost| lost.end.get() <= seq) => {}
                    // Events that no stream shows may be compacted.
                    Err(error) => return if is_shown { Err(error) } else { Ok(false) },
                    Ok(event) if event.seq().get() < seq && is_placeholder(&event) => {}
                    Ok(event) => {
                        let is_same = event.seq().get() == seq && is_headed(&event, head);
                        return Ok(is_same && event.payload() == payload);
                    }
                }
            }
            if !is_last {
                // After the shown part, the branch holds events that forks share, and gaps.
                self.events = self.events_from(generation, from, seq);
            }
        }
        Ok(false)
    }

    /// Returns whether the stream has no event in these seqs of this generation.
    pub(super) fn is_gap(&self, generation: u32, seqs: Range<u64>) -> Result<bool> {
        let last = seqs.end.saturating_sub(1);
        let is_shown = self.shown(generation, last).is_some();
        let Some((_, events)) = self.events_from(generation, seqs.start, last) else {
            return Ok(false);
        };
        let mut events = events.range(seqs);
        while let Some(event) = events.lend() {
            match event {
                Ok(event) if is_placeholder(&event) => {}
                Ok(_) => return Ok(false),
                Err(error) if is_shown => return Err(error),
                // Events that no stream shows may be compacted.
                Err(_) => {}
            }
        }
        Ok(true)
    }

    /// Returns the shown part of the stream's own events that contains a seq.
    fn shown(&self, generation: u32, seq: u64) -> Option<(ArenaId, Range<u64>)> {
        let (stretch, seqs) = self.view.shown_at(&self.history, seq)?;
        let is_own = stretch.stream == self.history.info.id && stretch.generation == generation;
        is_own.then_some((stretch.branch, seqs))
    }

    /// Returns the stream's own events in this generation: the shown part if it contains `seq`,
    /// otherwise the whole branch.
    fn events_from(&self, generation: u32, from: u64, seq: u64) -> Option<(u32, Events)> {
        let id = self.history.info.id;
        let (branch, from, end) = match self.shown(generation, seq) {
            Some((branch, seqs)) => (branch, from.max(seqs.start), seqs.end),
            None => {
                let own = &self.history.own;
                let at = own.binary_search_by_key(&generation, |own| own.generation).ok()?;
                (own[at].branch, from, self.view.head(own[at].branch)?)
            }
        };
        let lineage = Lineage::new(branch, end);
        Some((generation, Events::durable(self.view.clone(), id, lineage, from..end)))
    }
}

/// Returns whether an event is a placeholder.
fn is_placeholder(event: &EventRef<'_>) -> bool {
    is_headed(event, &PLACEHOLDER) && event.payload().is_empty()
}

/// Returns whether an event has the kind, schema version, codec and time of this head.
fn is_headed(event: &EventRef<'_>, head: &FrameHead) -> bool {
    let shape = (event.kind(), event.schema_version(), event.codec());
    shape == (head.kind, head.schema_version, head.codec) && event.time() == head.time
}
