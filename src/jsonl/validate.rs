//! Checks that lines form an export: their order, the seqs of each stream, and that the base of
//! each fork exists.

use std::collections::{HashMap, HashSet};

use super::schema::{EndLine, EventLine, LostLine, RewindLine, StateWord, StreamLine, VERSION};
use crate::format::{GENERATION_MAX, SEQ_MAX, frame_header::TIME_MAX};
use crate::types::StreamId;

/// Reason that a line is invalid.
pub(super) type Wrong = &'static str;

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

/// Point in another stream at which a fork's own events start.
#[derive(Clone, Copy)]
pub(super) struct ForkBase {
    pub(super) base: StreamId,
    pub(super) generation: u32,
    pub(super) seq: u64,
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
    pub(super) fn header(&mut self, version: u32) -> Result<(), Wrong> {
        if self.begun {
            return Err("a header must be the first line");
        }
        if version != VERSION {
            return Err("unknown version of the export format");
        }
        self.begun = true;
        Ok(())
    }

    pub(super) fn stream(
        &mut self,
        number: u64,
        id: StreamId,
        line: &StreamLine,
        fork: Option<ForkBase>,
    ) -> Result<(), Wrong> {
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
        let deleted = u64::from(line.state == StateWord::Deleted);
        self.deleted_streams = self.deleted_streams.saturating_add(deleted);
        Ok(())
    }

    pub(super) fn event(&mut self, line: &EventLine<'_>) -> Result<(), Wrong> {
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

    pub(super) fn gap(&mut self, seqs: u64) -> Result<(), Wrong> {
        self.forgotten(seqs).map_err(|_| "the gap is empty or exceeds the length of a stream")
    }

    pub(super) fn forgotten(&mut self, seqs: u64) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the seqs belong to no stream")?;
        stream.pass(seqs).ok_or("the number of seqs is 0 or exceeds the length of a stream")
    }

    pub(super) fn lost(&mut self, line: &LostLine<'_>) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the seqs belong to no stream")?;
        let seqs = line.seqs.checked_add(line.dropped_before).filter(|_| line.seqs > 0);
        let passed = seqs.and_then(|seqs| stream.pass(seqs));
        passed.ok_or("the number of lost seqs is 0 or exceeds the length of a stream")?;
        let lost = self.lost.checked_add(line.seqs);
        self.lost = lost.ok_or("the total number of lost seqs is too large")?;
        Ok(())
    }

    /// Accepts a line about damage or unconfirmed commits, which must come before all streams.
    pub(super) fn damage(&self) -> Result<(), Wrong> {
        if self.streams == 0 {
            Ok(())
        } else {
            Err("damage and unconfirmed commits must come before all streams")
        }
    }

    pub(super) fn rewind(&mut self, line: &RewindLine) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("the rewind belongs to no stream")?;
        if !stream.has_past || line.to > stream.next {
            return Err("the rewind goes to a seq that the stream never reached");
        }
        let is_next = stream.generation.checked_add(1) == Some(line.generation);
        if !is_next || line.generation > GENERATION_MAX {
            return Err("the rewind's generation is not the next one of the stream");
        }
        self.ends.entry(stream.id).or_default().insert(stream.generation, stream.next);
        (stream.next, stream.generation) = (line.to, line.generation);
        Ok(())
    }

    pub(super) fn end(&mut self, line: &EndLine) -> Result<(), Wrong> {
        self.leave_stream()?;
        if (line.streams, line.events, line.lost) != (self.streams, self.events, self.lost) {
            return Err("the number of streams, events or lost seqs does not match the lines");
        }
        self.ended = true;
        Ok(())
    }

    /// Checks that another line may follow.
    pub(super) fn more(&self, is_header: bool) -> Result<(), Wrong> {
        match (self.begun || is_header, self.ended) {
            (false, _) => Err("an export starts with {\"amberlog\":{\"export\":1}}"),
            (true, true) => Err("no line may follow the end of an export"),
            (true, false) => Ok(()),
        }
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
            self.forks.iter().map(|(_, id, fork)| (*id, fork.base)).collect();
        let mut fine = HashSet::new();
        for (number, id, fork) in &self.forks {
            let end = self.ends.get(&fork.base).and_then(|ends| ends.get(&fork.generation));
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
