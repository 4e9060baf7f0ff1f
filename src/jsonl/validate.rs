//! Checks that lines form an export: their order, the seqs of each stream, and that the base of
//! each fork exists.

use std::collections::{HashMap, HashSet};

use super::schema::{EventLine, ForkBase, Line, StreamLine, VERSION, Wrong};
use crate::format::{GENERATION_MAX, SEQ_MAX, frame_header::TIME_MAX};
use crate::types::{StreamId, StreamState};

/// State of the check after the lines so far.
#[derive(Default)]
pub(super) struct Checker {
    begun: bool,
    ended: bool,
    stream: Option<CheckedStream>,
    /// End of each generation of each stream.
    ends: HashMap<StreamId, HashMap<u32, u64>>,
    /// Forks: number of the line, the stream, and its base.
    forks: Vec<(u64, StreamId, ForkBase)>,
    names: HashSet<String>,
    pub(super) streams: u64,
    pub(super) deleted_streams: u64,
    pub(super) events: u64,
    /// Number of lost seqs.
    pub(super) lost: u64,
}

/// The current stream.
struct CheckedStream {
    id: StreamId,
    next: u64,
    generation: u32,
    head: Option<u64>,
    /// Some seqs precede `next`, so the stream can be rewound.
    has_past: bool,
}

impl CheckedStream {
    /// Advances by a number of seqs. Returns `None` for 0, or beyond the maximum of a stream.
    fn pass(&mut self, seqs: u64) -> Option<()> {
        let next = self.next.checked_add(seqs).filter(|next| seqs > 0 && *next <= SEQ_MAX)?;
        (self.next, self.has_past) = (next, true);
        Some(())
    }
}

impl Checker {
    /// Checks the next line, which has this number.
    pub(super) fn line(&mut self, number: u64, line: &Line<'_>) -> Result<(), Wrong> {
        let is_header = matches!(line, Line::Amberlog { .. });
        match (self.begun || is_header, self.ended) {
            (false, _) => return Err("an export starts with {\"amberlog\":{\"export\":1}}"),
            (true, true) => return Err("no line may follow the end of an export"),
            (true, false) => {}
        }
        match line {
            Line::Amberlog { .. } if self.begun => Err("a header must be the first line"),
            Line::Amberlog { export } if *export != VERSION => {
                Err("unknown version of the export format")
            }
            Line::Amberlog { .. } => {
                self.begun = true;
                Ok(())
            }
            Line::Stream(line) => self.stream(number, line),
            Line::Event(line) => self.event(line),
            Line::Rewind { to, generation } => self.rewind(*to, *generation),
            Line::Gap(seqs) => {
                let passed = self.forgotten(*seqs);
                passed.map_err(|_| "the gap is empty or exceeds the length of a stream")
            }
            Line::Forgotten(seqs) => self.forgotten(*seqs),
            Line::Lost { seqs, dropped_before, .. } => self.lost(*seqs, *dropped_before),
            Line::Damage(_) | Line::Unconfirmed { .. } if self.streams > 0 => {
                Err("damage and unconfirmed commits must come before all streams")
            }
            Line::Damage(_) | Line::Unconfirmed { .. } => Ok(()),
            Line::End { streams, events, lost } => self.end((*streams, *events, *lost)),
        }
    }

    fn stream(&mut self, number: u64, line: &StreamLine) -> Result<(), Wrong> {
        let (id, fork) = (line.id, line.shares);
        self.leave_stream()?;
        if self.ends.insert(id, HashMap::new()).is_some() {
            return Err("the export contains the stream twice");
        }
        if line.name.as_ref().is_some_and(|name| !self.names.insert(name.clone())) {
            return Err("the export contains the stream's name twice");
        }
        if line.head.is_some_and(|head| head > SEQ_MAX || head < line.start) {
            return Err("the stream ends before it starts");
        }
        if line.start > SEQ_MAX || line.parent.as_ref().is_some_and(|parent| parent.seq > SEQ_MAX) {
            return Err("a seq exceeds the maximum length of a stream");
        }
        if let Some(fork) = fork {
            if fork.seq > SEQ_MAX || fork.generation > GENERATION_MAX {
                return Err("the fork point exceeds the maximum length of a stream");
            }
            self.forks.push((number, id, fork));
        }
        self.stream = Some(CheckedStream {
            id,
            next: fork.map_or(0, |fork| fork.seq),
            generation: fork.map_or(0, |fork| fork.generation),
            head: line.head,
            has_past: fork.is_some(),
        });
        self.streams = self.streams.saturating_add(1);
        let deleted = u64::from(line.state == StreamState::Deleted);
        self.deleted_streams = self.deleted_streams.saturating_add(deleted);
        Ok(())
    }

    fn event(&mut self, line: &EventLine<'_>) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the event belongs to no stream")?;
        let first = line.seq.checked_sub(line.dropped_before).filter(|_| line.seq < SEQ_MAX);
        let first = first.ok_or("the event's seq is out of range")?;
        if line.time_us > TIME_MAX {
            return Err(
                "the event's time is after the year 4253, the latest that an event can hold",
            );
        }
        if first != stream.next {
            return Err("the event's seq is not the next one of the stream");
        }
        if line.generation != stream.generation {
            return Err("the event's generation is not that of the stream");
        }
        (stream.next, stream.has_past) = (line.seq.saturating_add(1), true);
        self.events = self.events.saturating_add(1);
        Ok(())
    }

    fn forgotten(&mut self, seqs: u64) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the seqs belong to no stream")?;
        stream.pass(seqs).ok_or("the number of seqs is 0 or exceeds the length of a stream")
    }

    fn lost(&mut self, seqs: u64, dropped_before: u64) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the seqs belong to no stream")?;
        let all = seqs.checked_add(dropped_before).filter(|_| seqs > 0);
        let passed = all.and_then(|seqs| stream.pass(seqs));
        passed.ok_or("the number of lost seqs is 0 or exceeds the length of a stream")?;
        let lost = self.lost.checked_add(seqs);
        self.lost = lost.ok_or("the total number of lost seqs is too large")?;
        Ok(())
    }

    fn rewind(&mut self, to: u64, generation: u32) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the rewind belongs to no stream")?;
        if !stream.has_past || to > stream.next {
            return Err("the rewind goes to a seq that the stream never reached");
        }
        let is_next = stream.generation.checked_add(1) == Some(generation);
        if !is_next || generation > GENERATION_MAX {
            return Err("the rewind's generation is not the next one of the stream");
        }
        self.ends.entry(stream.id).or_default().insert(stream.generation, stream.next);
        (stream.next, stream.generation) = (to, generation);
        Ok(())
    }

    /// Checks the numbers of streams, events and lost seqs.
    fn end(&mut self, numbers: (u64, u64, u64)) -> Result<(), Wrong> {
        self.leave_stream()?;
        if numbers != (self.streams, self.events, self.lost) {
            return Err("the number of streams, events or lost seqs does not match the lines");
        }
        self.ended = true;
        Ok(())
    }

    fn leave_stream(&mut self) -> Result<(), Wrong> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        if stream.head.is_some_and(|head| head != stream.next) {
            return Err("the stream before this line is incomplete");
        }
        self.ends.entry(stream.id).or_default().insert(stream.generation, stream.next);
        Ok(())
    }

    /// Checks that the export is complete and that the base of every fork exists. An error names
    /// the line, if one is to blame.
    pub(super) fn finish(&self) -> Result<(), (Option<u64>, Wrong)> {
        if !self.ended {
            return Err((None, "the export is truncated: its last line is missing"));
        }
        let bases: HashMap<StreamId, StreamId> =
            self.forks.iter().map(|(_, id, fork)| (*id, fork.id)).collect();
        let mut fine = HashSet::new();
        for (number, id, fork) in &self.forks {
            let end = self.ends.get(&fork.id).and_then(|ends| ends.get(&fork.generation));
            if end.is_none_or(|end| *end < fork.seq) {
                return Err((
                    Some(*number),
                    "the events that the stream shares are not in the export",
                ));
            }
            if is_circular(*id, &bases, &mut fine) {
                return Err((Some(*number), "the stream shares events with itself"));
            }
        }
        Ok(())
    }
}

/// Returns whether the chain of bases returns to a stream. Adds the streams of a chain that ends to
/// `fine`, so each is visited once.
fn is_circular(
    from: StreamId,
    bases: &HashMap<StreamId, StreamId>,
    fine: &mut HashSet<StreamId>,
) -> bool {
    let mut visited = HashSet::new();
    let mut next = Some(&from);
    while let Some(at) = next.filter(|at| !fine.contains(at)) {
        if !visited.insert(*at) {
            return true;
        }
        next = bases.get(at);
    }
    fine.extend(visited);
    false
}
