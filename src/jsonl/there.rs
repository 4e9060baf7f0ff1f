//! What an import that was cut off left in the log: is it what the lines say, and how far did it get?

use std::sync::Arc;

use super::check::Fork;
use super::export::lost_seqs;
use super::lines::{StreamLine, from_base64};
use crate::catalog::{History, Shown, Snapshot, Stretch};
use crate::core::Core;
use crate::error::Result;
use crate::format::FrameHead;
use crate::index::At;
use crate::reader::{EventRef, Events};
use crate::types::{CodecId, EventKind, StreamId, StreamState, Timestamp};

/// A stream that the log has already.
pub(super) struct There {
    snapshot: Snapshot,
    history: History,
    /// The events that come next, of this generation.
    events: Option<(u32, Events)>,
}

impl There {
    /// Nothing if the log shows nothing of it.
    pub(super) fn find(core: &Arc<Core>, id: StreamId) -> Option<Self> {
        let snapshot = Snapshot::new(Arc::clone(&core.catalog));
        let history = snapshot.history(id)?;
        Some(Self { snapshot, history, events: None })
    }

    pub(super) fn state(&self) -> StreamState {
        self.history.info.state
    }

    pub(super) fn start(&self) -> u64 {
        self.history.info.start.get()
    }

    /// Whether it begins where this line says, and nothing else was said of it.
    pub(super) fn begins_as(&self, line: &StreamLine, fork: Option<Fork>) -> bool {
        let info = &self.history.info;
        let first = self.history.own.first();
        let base = first.and_then(|first| first.base.map(|(_, id, generation)| (id, generation)));
        let start = first.map_or(0, |first| first.start);
        if base != fork.map(|fork| (fork.base, fork.generation))
            || start != fork.map_or(0, |fork| fork.seq)
        {
            return false;
        }
        let wanted = StreamState::from(line.state);
        if info.state == StreamState::Deleted {
            return wanted == info.state;
        }
        let text = line.data_text.as_ref().map(|text| text.clone().into_bytes());
        let data = text.or_else(|| line.data_base64.as_deref().and_then(from_base64));
        let parent = info.parent.map(|(id, seq)| (id.to_string(), seq.get()));
        info.name == line.name
            && info.labels == line.labels
            && info.data.as_deref() == data.as_deref().filter(|data| !data.is_empty())
            && parent == line.parent.as_ref().map(|parent| (parent.id.clone(), parent.seq))
            && info.start.get() <= line.start
            && (info.state == StreamState::Active || info.state == wanted)
    }

    /// Whether it went on behind this place, in this or a later generation.
    pub(super) fn is_past(&self, generation: u32, next: u64) -> bool {
        let info = &self.history.info;
        generation < info.generation || (generation == info.generation && next < info.head.get())
    }

    /// Whether it got exactly here.
    pub(super) fn ends_at(&self, generation: u32, next: u64) -> bool {
        let info = &self.history.info;
        (generation, next) == (info.generation, info.head.get())
    }

    /// Whether this event is the next one that it has in this generation, from this seq on, but for what stands for seqs
    /// that nobody sees.
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
                    Err(error) if lost_seqs(&error).is_some_and(|(_, end)| end <= seq) => {}
                    // What nobody shows may have been collected since.
                    Err(error) => return if is_shown { Err(error) } else { Ok(false) },
                    Ok(event) if event.seq().get() < seq && is_nothing(&event) => {}
                    Ok(event) => {
                        let said = (event.seq().get(), event.kind(), event.codec(), event.time());
                        return Ok(said == (seq, head.kind, head.codec, head.time)
                            && event.payload() == payload);
                    }
                }
            }
            if !is_last {
                // What stands behind what is shown is there for those that share it, or for the gap in front of it.
                self.events = self.events_from(generation, from, seq);
            }
        }
        Ok(false)
    }

    /// The part of what it shows that this seq of its own is in.
    fn shown(&self, generation: u32, seq: u64) -> Option<&Shown> {
        let id = self.history.info.id;
        let own = |stretch: &Stretch| stretch.stream == id && stretch.generation == generation;
        let mut shown = self.history.shown.iter().filter(|(stretch, _)| own(stretch));
        shown.find_map(|(_, shown)| shown.seqs.contains(&seq).then_some(shown))
    }

    /// What it has of its own in this generation: what it shows, wherever that is now, if `seq` is a part of it.
    fn events_from(&self, generation: u32, from: u64, seq: u64) -> Option<(u32, Events)> {
        let id = self.history.info.id;
        let (by, from, end): (At, u64, u64) = match self.shown(generation, seq) {
            Some(shown) => (shown.by, from.max(shown.seqs.start), shown.seqs.end),
            None => {
                let own = self.history.own.iter().find(|own| own.generation == generation)?;
                (own.branch, from, self.snapshot.head(own.branch)?)
            }
        };
        let lineage = self.snapshot.catalog.lineage(by, end, self.snapshot.mark.end);
        Some((generation, Events::durable(self.snapshot.clone(), id, lineage, from..end)))
    }
}

/// What an import puts where nobody sees it.
fn is_nothing(event: &EventRef<'_>) -> bool {
    let said = (event.kind(), event.codec(), event.time());
    said == (EventKind::default(), CodecId::RAW, Timestamp::default()) && event.payload().is_empty()
}
