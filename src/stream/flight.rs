//! The commits of a stream that are under way: a pointer, since most of very many streams never commit.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::commit::Pending;

/// Nothing is under way.
static NONE: VecDeque<Arc<Pending>> = VecDeque::new();

/// Commits whose buffers have not come back yet, oldest first.
#[derive(Default, Debug)]
#[expect(
    clippy::box_collection,
    reason = "a queue is four words, which most streams would have for nothing"
)]
pub(super) struct InFlight(Option<Box<VecDeque<Arc<Pending>>>>);

impl Deref for InFlight {
    type Target = VecDeque<Arc<Pending>>;

    fn deref(&self) -> &VecDeque<Arc<Pending>> {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for InFlight {
    fn deref_mut(&mut self) -> &mut VecDeque<Arc<Pending>> {
        self.0.get_or_insert_default()
    }
}
