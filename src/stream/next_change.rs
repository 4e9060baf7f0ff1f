//! Changes that the next commit makes to the stream besides adding events. They count toward the
//! log's memory until they are committed (P10).

use std::ops::Deref;
use std::sync::Arc;

use super::Stream;
use crate::change::Change;
use crate::commit::{Draft, Encoded, Precondition};
use crate::engine::VolatileInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::ring::{Budget, Charge};

/// Change that no commit has taken, and its charge in memory, which includes the copy that lists of
/// volatile streams show.
#[derive(Debug)]
pub(super) struct NextChange {
    draft: Draft,
    charge: Charge,
}

impl NextChange {
    fn none(budget: &Arc<Budget>) -> Self {
        Self { draft: Draft::default(), charge: Charge::none(budget) }
    }

    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(super) fn charge_bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Returns the change, ready to be written.
    pub(super) fn encoded(self, precondition: Precondition) -> Encoded {
        Encoded::new(self.draft, precondition, self.charge)
    }
}

impl Deref for NextChange {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl Stream {
    pub(super) fn next_change(&self) -> Option<&Change> {
        self.change.as_ref().map(|next| &next.draft.change)
    }

    /// Edits the next change regardless of the memory bound, for changes that the host did not ask
    /// for: the place of the stream, or parts of a failed commit.
    pub(super) fn note(&mut self, with: impl FnOnce(&mut Draft)) {
        self.edit(with);
        let card = self.card();
        let bytes = self.change_bytes(card.as_ref());
        if let Some(next) = &mut self.change {
            next.charge.set(bytes);
        }
        self.show(card);
    }

    /// Edits the next change at the host's request. Fails and changes nothing if the log's memory
    /// is full.
    pub(super) fn ask(
        &mut self,
        operation: &'static str,
        with: impl FnOnce(&mut Draft),
    ) -> Result<()> {
        let before = self.change.as_ref().map(|next| next.draft.clone());
        self.edit(with);
        let card = self.card();
        let bytes = self.change_bytes(card.as_ref());
        if let Some(next) = &mut self.change
            && let Err(reason) = next.charge.try_set(bytes)
        {
            self.edit(|draft| *draft = before.unwrap_or_default());
            return Err(Error::new(ErrorKind::Refused(reason), operation));
        }
        self.show(card);
        Ok(())
    }

    fn edit(&mut self, with: impl FnOnce(&mut Draft)) {
        let next = self.change.take();
        let mut next = next.unwrap_or_else(|| Box::new(NextChange::none(&self.core.budget)));
        with(&mut next.draft);
        self.change = Some(next).filter(|next| !next.is_empty());
    }

    /// Returns the entry of this stream in lists of volatile streams; `None` once it is durable.
    pub(super) fn card(&self) -> Option<VolatileInfo> {
        self.root().is_none().then(|| VolatileInfo { meta: self.meta(), state: self.state })
    }

    fn show(&self, card: Option<VolatileInfo>) {
        if let Some(card) = card {
            self.core.volatile.show(self.id, card);
        }
    }

    /// Returns the bytes of the next change and of the card of a volatile stream, which share the
    /// data.
    pub(super) fn change_bytes(&self, card: Option<&VolatileInfo>) -> usize {
        let card_bytes = card.map_or(0, |card| size_of::<VolatileInfo>() + card.meta.own_bytes());
        let change = |next: &NextChange| size_of::<NextChange>() + next.memory_bytes();
        self.change.as_deref().map_or(0, change) + card_bytes
    }
}
