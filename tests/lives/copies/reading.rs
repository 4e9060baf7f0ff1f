//! Whether what is read is what a copy holds, in every way of reading.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use amberlog::{ErrorKind, Event, Events, Position, ReadView, StreamId, StreamInfo, StreamState};

/// An event: its seq, its generation, and its bytes.
pub(super) type Kept = (u64, u32, Rc<[u8]>);

/// All of a stream. What is not an event between start and head was dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Copy {
    pub(super) events: Vec<Kept>,
    pub(super) start: u64,
    pub(super) head: u64,
    pub(super) generation: u32,
    pub(super) state: StreamState,
}

impl Copy {
    pub(super) fn new() -> Self {
        let state = StreamState::Active;
        Self { events: Vec::new(), start: 0, head: 0, generation: 0, state }
    }

    /// Ends in front of this seq.
    pub(super) fn cut(&mut self, end: u64) {
        self.events.retain(|event| event.0 < end);
        self.head = end;
    }

    /// Starts at this seq.
    pub(super) fn trim(&mut self, start: u64) {
        self.events.retain(|event| event.0 >= start);
        self.start = self.start.max(start);
    }

    /// The gaps, also one at the end.
    fn gaps(&self) -> Vec<Range<u64>> {
        let mut next = self.start;
        let ends = self.events.iter().map(|event| event.0).chain([self.head]);
        let gap = |seq: u64| std::mem::replace(&mut next, seq + 1)..seq;
        ends.map(gap).filter(|gap| !gap.is_empty()).collect()
    }

    /// The seqs around gaps, and in them.
    pub(super) fn seqs_of_gaps(&self) -> Vec<u64> {
        let around = |gap: Range<u64>| {
            let middle = gap.start + (gap.end - gap.start) / 2;
            [gap.start, gap.start + 1, middle, gap.end - 1, gap.end]
        };
        self.gaps().into_iter().flat_map(around).collect()
    }

    /// The seqs that matter: where events, gaps and the stream itself begin and end, and the middle of gaps.
    pub(super) fn seqs(&self) -> Vec<u64> {
        let mut seqs = self.seqs_of_gaps();
        seqs.extend([self.start, self.head]);
        seqs.extend(self.events.iter().flat_map(|event| [event.0, event.0 + 1]));
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    }

    /// Returns the events that a reader sees.
    fn shown(&self) -> Vec<Shown> {
        let mut next = self.start;
        let one = |(seq, generation, bytes): &Kept| {
            let dropped = seq - std::mem::replace(&mut next, seq + 1);
            (*seq, *generation, dropped, bytes.to_vec())
        };
        self.events.iter().map(one).collect()
    }

    pub(super) fn check_info(&self, info: &StreamInfo, what: &str) {
        let is = (info.start.get(), info.head.get(), info.generation, info.state);
        assert_eq!(is, (self.start, self.head, self.generation, self.state), "{what}");
    }
}

/// Seq, generation, dropped in front, bytes.
type Shown = (u64, u32, u64, Vec<u8>);

/// Reads all of it.
fn read(events: impl Iterator<Item = amberlog::Result<Event>>, what: &str) -> Vec<Shown> {
    let shown = |event: amberlog::Result<Event>| {
        let event = event.unwrap_or_else(|error| panic!("{what}: {error}"));
        let dropped = event.dropped_before();
        (event.seq().get(), event.generation(), dropped, event.payload().to_vec())
    };
    events.map(shown).collect()
}

fn read_back(events: Events, what: &str) -> Vec<Shown> {
    let mut back = read(events.rev(), what);
    back.reverse();
    back
}

/// All of it, both ways.
pub(super) fn is_copy(events: impl Fn() -> Events, copy: &Copy, what: &str) {
    let expected = copy.shown();
    let (there, back) = (format!("{what}, forwards"), format!("{what}, backwards"));
    same(&read(events(), &there), &expected, &there);
    same(&read_back(events(), &back), &expected, &back);
}

/// From each of the seqs that matter, both ways, alone, and from both ends in turns.
pub(super) fn is_copy_from_everywhere(events: impl Fn() -> Events, copy: &Copy, what: &str) {
    let expected = copy.shown();
    for seq in copy.seqs() {
        let at = expected.partition_point(|event| event.0 < seq);
        let from = format!("{what}, from {seq}");
        same(&read(events().range(seq..), &from), &expected[at..], &from);
        let back = format!("{what}, back from {seq}");
        same(&read_back(events().range(..seq), &back), &expected[..at], &back);
        let last = format!("{what}, last before {seq}");
        let shown = events().range(..seq).last();
        same(&read(shown.into_iter(), &last), &expected[at.saturating_sub(1)..at], &last);
        let is_there = expected.get(at).is_some_and(|event| event.0 == seq);
        let alone = format!("{what}, {seq} alone");
        let one = &expected[at..at + usize::from(is_there)];
        same(&read(events().range(seq..=seq), &alone), one, &alone);
    }
    let what = format!("{what}, from both ends");
    let (mut left, mut front, mut back) = (events(), Vec::new(), Vec::new());
    while let Some(first) = left.next() {
        front.push(first);
        back.extend(left.next_back());
    }
    front.extend(back.into_iter().rev());
    same(&read(front.into_iter(), &what), &expected, &what);
    if copy.start > 0 {
        let mut before = events().range(copy.start - 1..);
        let refused = before.next().expect("told").expect_err("it is trimmed");
        let ErrorKind::Trimmed { start, .. } = refused.kind() else { panic!("{what}: {refused}") };
        assert_eq!(start.get(), copy.start, "{what}");
        same(&read(before, &what), &expected, &what);
        let clamped = || events().range_clamped(..=copy.start).range_clamped(copy.start - 1..);
        let one = usize::from(expected.first().is_some_and(|event| event.0 == copy.start));
        same(&read(clamped(), &what), &expected[..one], &what);
        same(&read_back(clamped(), &what), &expected[..one], &what);
    }
}

fn same(is: &[Shown], expected: &[Shown], what: &str) {
    let brief = |all: &[Shown]| -> Vec<(u64, u32, u64)> {
        all.iter().map(|(seq, generation, dropped, _)| (*seq, *generation, *dropped)).collect()
    };
    assert_eq!(brief(is), brief(expected), "{what}: seq, generation, dropped");
    assert_eq!(is, expected, "{what}: bytes");
}

/// By position, all that streams show is there once, in the order of commits, and nothing that never was.
pub(super) fn by_position(
    view: &ReadView,
    copies: &BTreeMap<StreamId, Copy>,
    ever: &BTreeMap<(StreamId, u32, u64), Rc<[u8]>>,
) {
    let read = |from: Position| view.all_events(from).expect("there");
    let one = |event: amberlog::Result<Event>| {
        let event = event.unwrap_or_else(|error| panic!("by position: {error}"));
        let position = event.position().expect("committed").get();
        let key = (event.stream(), event.generation(), event.seq().get());
        assert_eq!(Some(event.payload()), ever.get(&key).map(|bytes| &**bytes), "{key:?}");
        (position, key)
    };
    let all: Vec<_> = read(Position::START).map(one).collect();
    assert!(all.is_sorted_by_key(|(position, _)| *position), "the order of commits (P7)");
    let mut seen = BTreeMap::new();
    for (position, key) in &all {
        assert_eq!(seen.insert(*key, *position), None, "{key:?} is there twice");
    }
    for (id, copy) in copies {
        for (seq, generation, bytes) in &copy.events {
            // A fork shows what another stream has committed.
            let is_own = seen.contains_key(&(*id, *generation, *seq));
            let is_shared = || {
                seen.keys().any(|key| (key.1, key.2) == (*generation, *seq) && ever[key] == *bytes)
            };
            assert!(is_own || is_shared(), "{id} {seq} is nowhere by position");
        }
    }
    let last = view.position().get();
    for from in [2.min(last), last / 2, last, last + 1] {
        let there: Vec<_> = read(Position::from(from)).map(one).collect();
        let first = all.partition_point(|(position, _)| *position < from);
        assert_eq!(there, all[first..], "from position {from}");
    }
}
