//! Position index of a segment: finds commits near which the commit of a position stands.
//!
//! The index has the place of the first commit that starts in each block of the segment: in the
//! footer once the segment is sealed, in memory before. A place is a hint, and nothing here has
//! verified the checksum of the footer, which would take longer the larger the segment is. The
//! scanner compares each place with the commit that stands there; it passes over a wrong one
//! (`p6_p13_a_forged_position_index_misleads_no_reader`).

use super::file::Segment;
use super::pool::FilePool;
use super::window::Window;
use crate::format::{
    CommitPlace, Footer, commit_place, commit_place_layout as layout, footer_head, trailer,
};
use crate::work::step;

/// Maximum number of places that one search returns. Where damage has hit more commits, the search
/// starts at the first commit of the segment.
const PLACES_MAX: usize = 16;

impl Segment {
    /// Returns the places of the index whose positions are at most this one, the nearest first,
    /// without the start of the segment. None of them is verified.
    pub(super) fn places_before<'a>(
        &'a self,
        pool: &'a FilePool,
        position: u64,
    ) -> impl Iterator<Item = CommitPlace> + 'a {
        let in_memory = self.commits.places_before(position);
        let footer = if in_memory.is_none() { FooterPlaces::of(self, pool) } else { None };
        let listed = footer.into_iter().flat_map(move |footer| footer.before(position));
        in_memory.into_iter().flatten().chain(listed).take(PLACES_MAX)
    }
}

/// Places in the footer of a sealed segment.
struct FooterPlaces<'a> {
    segment: &'a Segment,
    pool: &'a FilePool,
    /// Offset of the first one.
    start: u64,
    count: u32,
    /// Bytes that were read last.
    window: Option<Window>,
}

impl<'a> FooterPlaces<'a> {
    /// Finds the places; `None` if the segment has none, or its footer cannot be read.
    fn of(segment: &'a Segment, pool: &'a FilePool) -> Option<Self> {
        let sealed = segment.seal_state()?;
        let end = sealed.file_bytes.checked_sub(trailer::BYTES as u64)?;
        let mut found = Self { segment, pool, start: sealed.footer_at, count: 0, window: None };
        let head = found.bytes(sealed.footer_at, footer_head::BYTES)?;
        let footer = Footer::of_head(head, sealed.first_position)?;
        found.start = sealed.footer_at.checked_add(footer.places_at() as u64)?;
        found.count = footer.places;
        (sealed.footer_at.checked_add(footer.bytes()) == Some(end)).then_some(found)
    }

    /// Returns the places whose positions are at most this one, the nearest first, without the
    /// first place of the segment.
    fn before(mut self, position: u64) -> impl Iterator<Item = CommitPlace> + 'a {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle) {
                Some(place) if place.position <= position => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        let nearest = (1..low).rev().map_while(move |index| self.get(index));
        nearest.filter(move |place| place.position <= position)
    }

    fn get(&mut self, index: u32) -> Option<CommitPlace> {
        step();
        let within = u64::from(index).checked_mul(layout::BYTES as u64)?;
        let offset = self.start.checked_add(within)?;
        commit_place(self.bytes(offset, layout::BYTES)?, 0)
    }

    fn bytes(&mut self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let range = offset..offset.checked_add(bytes as u64)?;
        if !self.window.as_ref().is_some_and(|window| window.holds(&range)) {
            let (pool, used) = (self.pool, self.window.take());
            let window = self.segment.read_over(pool, used, range.clone(), 0, range.end);
            self.window = window.ok();
        }
        self.window.as_ref()?.get(range)
    }
}
