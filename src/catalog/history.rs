//! How a stream came to be what it is: the branches that it went through, for whoever writes that down.

use std::ops::Range;

use super::{Snapshot, StreamInfo};
use crate::index::At;
use crate::types::{StreamId, StreamState};

/// A branch that a stream went through, or that one of its bases is in.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) branch: At,
    /// The stream that it was made by.
    pub(crate) stream: StreamId,
    pub(crate) generation: u32,
    /// Its first own seq.
    pub(crate) start: u64,
    /// The branch that has the events in front of `start`, of which stream, in which generation; `None` when there are
    /// none, or it cannot be found any more.
    pub(crate) base: Option<(At, StreamId, u32)>,
}

/// A stream, its branches, and which events of which branches it shows.
pub(crate) struct History {
    pub(crate) info: StreamInfo,
    /// Its own branches, oldest first.
    pub(crate) own: Vec<Stretch>,
    /// What it shows, oldest first: nothing once it is deleted.
    pub(crate) shown: Vec<(Stretch, Shown)>,
}

/// Events of a branch that a stream shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    pub(crate) seqs: Range<u64>,
    /// The branch by which they are read: that of the stream when they may be in its archive file.
    pub(crate) by: At,
}

impl Snapshot {
    /// Every stream of which something is visible, the deleted ones as well, in the order of their ids.
    pub(crate) fn ids(&self) -> Vec<StreamId> {
        let seen = self.firsts().filter(|(root, first)| self.view_of(*root, first).is_some());
        let mut ids: Vec<_> = seen.map(|(_, first)| first.stream).collect();
        ids.sort_unstable();
        ids
    }

    /// How this stream came to be; `None` when nothing of it is visible.
    pub(crate) fn history(&self, id: StreamId) -> Option<History> {
        let view = self.view(id)?;
        let mut own = Vec::new();
        let mut next = Some(view.tip);
        while let Some(at) = next {
            let branch = self.catalog.branch(at)?;
            own.push(self.stretch(at)?);
            next = branch.before();
        }
        own.reverse();
        let mut shown = Vec::new();
        if view.state() != StreamState::Deleted {
            let lineage = self.catalog.branches_below(view.tip, view.head);
            let places = self.catalog.lineage(view.tip, view.head, self.mark.end);
            let is_cold = places.pieces().any(|piece| piece.cold.is_some());
            for piece in lineage.pieces() {
                let seqs = piece.seqs.start.max(view.start())..piece.seqs.end;
                if !seqs.is_empty() {
                    let by = if is_cold { view.tip } else { piece.branch };
                    shown.push((self.stretch(piece.branch)?, Shown { seqs, by }));
                }
            }
            shown.reverse();
        }
        Some(History { info: self.describe(&view), own, shown })
    }

    fn stretch(&self, at: At) -> Option<Stretch> {
        let branch = self.catalog.branch(at)?;
        Some(Stretch {
            branch: at,
            stream: branch.stream,
            generation: branch.generation(),
            start: branch.start(),
            base: self.catalog.base(branch).and_then(|at| {
                let base = self.catalog.branch(at)?;
                Some((at, base.stream, base.generation()))
            }),
        })
    }
}
