//! History of a stream: the branches that it went through, for exports.

use std::collections::HashMap;
use std::ops::Range;

use super::shown::Ranges;
use super::{Lineage, Piece, ReadView, StreamInfo};
use crate::index::ArenaId;
use crate::types::{StreamId, StreamState};

/// Branch that a stream went through, or that one of its bases is in.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) branch: ArenaId,
    /// Stream that created the branch.
    pub(crate) stream: StreamId,
    pub(crate) generation: u32,
    /// First seq of the branch's own.
    pub(crate) start: u64,
    /// Branch that holds the events before `start`, with its stream and generation; `None` when it
    /// has no base or the base is lost.
    pub(crate) base: Option<(ArenaId, StreamId, u32)>,
}

/// Stream with the branches that it went through.
pub(crate) struct History {
    pub(crate) info: StreamInfo,
    /// Branches of the stream itself, oldest first.
    pub(crate) own: Vec<Stretch>,
    /// Events that the stream shows; empty once it is deleted.
    lineage: Lineage,
}

impl ReadView {
    /// Returns every visible stream, including deleted ones, in the order of their ids.
    pub(crate) fn ids(&self) -> Vec<StreamId> {
        let seen = self.firsts().filter(|(root, first)| self.view_of(*root, first).is_some());
        let mut ids: Vec<_> = seen.map(|(_, first)| first.stream).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns the history of this stream; `None` when none of it is visible.
    pub(crate) fn history(&self, id: StreamId) -> Option<History> {
        let view = self.view(id)?;
        let mut own = Vec::new();
        let mut next = Some(view.tip);
        while let Some(at) = next {
            let branch = self.catalog.branch(at)?;
            own.push(self.stretch(at)?);
            next = branch.predecessor_link().map(|link| link.up);
        }
        own.reverse();
        let mut lineage = Lineage::new(view.tip, view.head);
        if view.state() == StreamState::Deleted {
            lineage = Lineage::default();
        }
        Some(History { info: self.describe(&view), own, lineage })
    }

    /// Returns the seqs that a stream shows, by branch, oldest first.
    pub(crate) fn shown(&self, of: &History) -> Vec<(Stretch, Range<u64>)> {
        let start = of.info.start.get();
        let own = |piece: Piece| (piece.branch, piece.seqs.start.max(start)..piece.seqs.end);
        let pieces = self.catalog.pieces(of.lineage).take_while(|piece| piece.seqs.end > start);
        let shown = pieces.map(own).filter(|(_, seqs)| !seqs.is_empty());
        let mut all: Vec<_> =
            shown.filter_map(|(at, seqs)| Some((self.stretch(at)?, seqs))).collect();
        all.reverse();
        all
    }

    /// Returns the branch in which a stream shows this seq, with all seqs that it shows there.
    pub(crate) fn shown_at(&self, of: &History, seq: u64) -> Option<(Stretch, Range<u64>)> {
        let piece = self.catalog.piece(of.lineage, seq)?;
        let seqs = piece.seqs.start.max(of.info.start.get())..piece.seqs.end;
        Some((self.stretch(piece.branch)?, seqs)).filter(|(_, seqs)| seqs.contains(&seq))
    }

    /// Returns the first seq that a stream shows and that can be found.
    pub(crate) fn first_shown(&self, of: &History) -> u64 {
        self.catalog.first_seq(of.lineage).max(of.info.start.get()).min(of.info.head.get())
    }

    /// Returns the own seqs that each branch shows to these streams, counting deleted streams as
    /// live.
    pub(crate) fn shown_to(&self, streams: &[StreamId]) -> HashMap<ArenaId, Ranges> {
        let views = streams.iter().filter_map(|id| self.view(*id));
        self.catalog.shown_seqs(views.map(|view| (view.tip, view.start()..view.head)))
    }

    fn stretch(&self, at: ArenaId) -> Option<Stretch> {
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
