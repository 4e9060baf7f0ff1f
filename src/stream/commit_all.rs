//! Commits of several streams: one marker, and an expectation for each stream.

use super::Stream;
use crate::commit::{Part, Pending, Placement, Ticket};
use crate::engine::Handle;
use crate::error::{Error, ErrorKind};
use crate::options::{CommitOptions, Expect};
use crate::types::StreamState;

/// Streams of a commit that have nothing to commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// They are left out.
    LeftOut,
    /// They must meet their expectations.
    Checked,
}

impl Stream {
    /// Commits several streams.
    pub(crate) fn commit_all<'a>(
        core: &Handle,
        streams: impl IntoIterator<Item = (&'a mut Self, Expect)>,
        mut options: CommitOptions,
        idle: Idle,
    ) -> Ticket {
        options.durability = options.durability.or(Some(core.options.durability));
        let mut streams: Vec<_> = streams.into_iter().collect();
        if core.is_elsewhere() {
            return Ticket::failed(Error::new(ErrorKind::OtherProcess, "commit"));
        }
        let foreign = streams.iter().any(|(stream, _)| !stream.core.is_of_same_log(core));
        let twice = {
            let mut ids: Vec<_> = streams.iter().map(|(stream, _)| stream.id).collect();
            ids.sort_unstable();
            ids.windows(2).any(|pair| pair[0] == pair[1])
        };
        if foreign || twice {
            let what = if foreign {
                "all streams of a commit must belong to the same log"
            } else {
                "a commit takes only one handle of each stream"
            };
            return core.queue.refuse(Error::new(ErrorKind::InvalidOption(what), "commit"));
        }
        streams.iter_mut().for_each(|(stream, _)| stream.reap());
        let mut states = streams.iter().map(|(stream, _)| (stream, stream.state));
        if let Some((gone, _)) = states.find(|(_, state)| *state == StreamState::Deleted) {
            return gone.failed(ErrorKind::Deleted(gone.id), "commit");
        }
        let (mut parts, mut checks) = (Vec::new(), Vec::new());
        let (mut behind, mut members) = (Vec::new(), Vec::new());
        for (index, (stream, expect)) in streams.iter_mut().enumerate() {
            behind.extend(stream.in_flight.last());
            if let Some(part) = stream.take_part() {
                parts.push(Part { expect: *expect, ..part });
                members.push(index);
            } else if idle == Idle::Checked {
                checks.push(Part { expect: *expect, ..stream.nothing() });
            }
        }
        let pending = Pending::with_checks(parts, checks, options, behind);
        for (nth, index) in members.into_iter().enumerate() {
            let (stream, expect) = &mut streams[index];
            stream.in_flight.push(&pending, nth);
            stream.may_move |= *expect != Expect::Seen;
        }
        core.queue.submit(pending)
    }

    /// Returns a part that holds nothing: the stream as this handle sees it.
    pub(super) fn nothing(&self) -> Part {
        let filled = self.ring.nothing();
        Part {
            stream: self.id,
            root: self.root,
            crc: filled.crc(),
            filled,
            placement: Placement::new(self.ring_start(), self.generation),
            change: None,
            expect: Expect::Seen,
        }
    }
}
