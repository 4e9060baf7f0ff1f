//! Where among the last commits of streams a time begins: for lists that ask when streams were last committed.
//!
//! No stream carries the time of its last commit in memory, and none is opened. What stands in front of something
//! old is old, whatever the clock said, as for whoever forgets by age: so a few looks at heads of commits will do.

use super::{Branch, LogPlace, Snapshot};
use crate::format::{CommitHead, commit_header};
use crate::index::At;
use crate::types::Timestamp;

/// So many heads that cannot be read are looked at; then what is not known yet is left open.
const UNREADABLE_MAX: usize = 64;

/// Which places stand in front of a time, and which do not. Between the two nobody knows: there the heads of commits
/// cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Begin {
    /// Here and in front of it everything was committed before the time.
    old: Option<LogPlace>,
    /// Here and behind it everything was committed at the time or later.
    new: Option<LogPlace>,
}

impl Begin {
    /// Whether this may have been committed at the time or later.
    pub(super) fn may_be_from(&self, place: LogPlace) -> bool {
        self.old.is_none_or(|old| place > old)
    }

    /// Whether this may have been committed before the time.
    pub(super) fn may_be_before(&self, place: LogPlace) -> bool {
        self.new.is_none_or(|new| place < new)
    }

    /// Searches by halves. `time_at` tells when the commit at a place was made; `None`: it cannot be read.
    fn search(
        places: &mut [LogPlace],
        time: Timestamp,
        mut time_at: impl FnMut(LogPlace) -> Option<Timestamp>,
    ) -> Self {
        let (mut begin, mut rest, mut unreadable) = (Self::default(), places, 0);
        while !rest.is_empty() {
            let middle = rest.len() / 2;
            let (front, here, behind) = rest.select_nth_unstable(middle);
            let (mut here, mut behind) = (*here, behind);
            let mut found = time_at(here);
            // What cannot be read is passed over: the next one behind it tells as much.
            while found.is_none() && !behind.is_empty() && unreadable < UNREADABLE_MAX {
                unreadable += 1;
                let (_, next, others) = behind.select_nth_unstable(0);
                (here, behind) = (*next, others);
                found = time_at(here);
            }
            match found {
                Some(at) if at < time => (begin.old, rest) = (Some(here), behind),
                Some(_) => (begin.new, rest) = (Some(here), front),
                None if unreadable >= UNREADABLE_MAX => break,
                None => rest = front,
            }
        }
        begin
    }
}

impl Snapshot {
    /// Where these times begin among the last commits of all streams.
    pub(super) fn begins_of<const N: usize>(
        &self,
        times: [Option<Timestamp>; N],
    ) -> [Option<Begin>; N] {
        let mut places = Vec::new();
        if times.iter().any(Option::is_some) {
            places.extend(self.firsts().filter_map(|(root, first)| self.place_of(root, first)));
        }
        times.map(|time| Some(Begin::search(&mut places, time?, |place| self.time_at(place))))
    }

    /// Where the last commit starts that holds a part of the stream and is visible; `None` when none is.
    pub(super) fn place_of(&self, root: At, first: &Branch) -> Option<LogPlace> {
        self.place_at_once(first).or_else(|| self.last_place(&self.view_of(root, first)?))
    }

    /// The same, if the stream's first branch alone tells it: unless the stream was rewound, or committed to since.
    pub(super) fn place_at_once(&self, first: &Branch) -> Option<LogPlace> {
        let last = first.last();
        let is_shown = last < self.mark.end && last != LogPlace::default();
        (is_shown && !first.is_rewound()).then_some(last)
    }

    /// When the commit at this place was made; `None` when it cannot be read.
    fn time_at(&self, place: LogPlace) -> Option<Timestamp> {
        let segment = self.segments.get(place.segment())?;
        let (offset, end) = (segment.offset_of(place.0)?, self.end_in(segment));
        let head = offset..offset.checked_add(commit_header::BYTES as u64)?;
        let window = segment.read(head.clone(), 0, end).ok()?;
        let commit = CommitHead::decode(window.get(head)?, segment.header.salt)?;
        Some(Timestamp::from_micros(commit.time_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found among commits at 1, 2, … with these times; 0: it cannot be read. And how many were looked at.
    fn search(times: &[u64], time: u64) -> ((u64, u64), usize) {
        let mut places: Vec<_> = (1..=times.len() as u64).map(LogPlace).collect();
        // In no order.
        places.reverse();
        let mut looks = 0;
        let begin = Begin::search(&mut places, Timestamp::from_micros(time), |place| {
            looks += 1;
            let at = times[place.0 as usize - 1];
            (at > 0).then(|| Timestamp::from_micros(at))
        });
        let behind = times.len() as u64 + 1;
        ((begin.old.map_or(0, |at| at.0), begin.new.map_or(behind, |at| at.0)), looks)
    }

    #[test]
    fn a_time_is_found_in_a_logarithm_of_looks() {
        let times: Vec<u64> = (1..=100_000).map(|n| n / 10 * 10 + 10).collect();
        for time in [0, 10, 11, 20, 50_000, 50_001, 100_009, 100_010, 100_011, u64::MAX] {
            let (found, looks) = search(&times, time);
            let old = times.iter().filter(|at| **at < time).count() as u64;
            assert_eq!(found, (old, old + 1), "{time}");
            assert!(looks <= 17, "{looks} looks");
        }
        assert_eq!(search(&[], 5), ((0, 1), 0));
    }

    #[test]
    fn a_clock_that_jumps_shifts_where_it_begins_and_breaks_nothing() {
        for jump in 0..40 {
            for back in [1, 7, 30] {
                let times: Vec<u64> =
                    (1..=40).map(|n| 100 + n - if n > jump { back } else { 0 }).collect();
                for time in 65..145 {
                    let ((old, new), _) = search(&times, time);
                    assert_eq!(old + 1, new, "everything is told");
                    let at = |place: u64| times[place as usize - 1];
                    assert!(old == 0 || at(old) < time, "an old one in front of it");
                    assert!(new == 41 || at(new) >= time, "a new one behind it");
                }
            }
        }
    }

    /// What cannot be read is never told to be on either side unless something that can be says so.
    #[test]
    fn what_cannot_be_read_is_left_open() {
        for from in 0..30_u64 {
            for to in from..=30 {
                let is_lost = |n: u64| (from..to).contains(&(n - 1));
                let times: Vec<u64> = (1..=30).map(|n| if is_lost(n) { 0 } else { n }).collect();
                for time in 0..=31 {
                    let ((old, new), _) = search(&times, time);
                    let readable = |n: &u64| !is_lost(*n);
                    let last_old = (1..=30).filter(|n| *n < time).rfind(readable);
                    let first_new = (1..=30).filter(|n| *n >= time).find(readable);
                    assert_eq!((old, new), (last_old.unwrap_or(0), first_new.unwrap_or(31)));
                }
            }
        }
        // Many of them do not make a search long, nor does it say what it does not know.
        let mut times = vec![0; 100_000];
        (times[0], times[99_999]) = (1, 9);
        let (found, looks) = search(&times, 5);
        assert!(
            found.0 <= 1 && found.1 >= 100_000 && looks <= UNREADABLE_MAX + 20,
            "{looks} looks"
        );
    }
}
