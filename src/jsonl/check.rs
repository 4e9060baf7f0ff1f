//! Whether lines are those of an export: each in its place, each seq behind the one before, each fork of something
//! that is there.

use std::collections::{HashMap, HashSet};

use super::lines::{EndLine, EventLine, LostLine, RewindLine, StreamLine, VERSION};
use crate::format::GENERATION_MAX;
use crate::types::StreamId;

/// Why a line is not right.
pub(super) type Wrong = &'static str;

/// Seqs are below this, and so are sums of two of them.
const SEQ_MAX: u64 = u64::MAX / 2;

/// What was said so far.
#[derive(Default)]
pub(super) struct Checker {
    begun: bool,
    ended: bool,
    stream: Option<Current>,
    /// Where each generation of each stream ended.
    ends: HashMap<StreamId, HashMap<u32, u64>>,
    /// Which stream starts with what of which other, and the line that says so.
    forks: Vec<(u64, StreamId, Fork)>,
    names: HashSet<String>,
    pub(super) streams: u64,
    pub(super) events: u64,
    /// Seqs.
    pub(super) lost: u64,
}

/// Where a stream begins to have events of its own.
#[derive(Clone, Copy)]
pub(super) struct Fork {
    pub(super) base: StreamId,
    pub(super) generation: u32,
    pub(super) seq: u64,
}

/// The stream that the lines are in.
struct Current {
    id: StreamId,
    next: u64,
    generation: u32,
    head: Option<u64>,
    /// Something can be gone back behind.
    has_past: bool,
}

impl Checker {
    pub(super) fn header(&mut self, version: u32) -> Result<(), Wrong> {
        if self.begun {
            return Err("only the first line begins an export");
        }
        if version != VERSION {
            return Err("an export of a version that is not known here");
        }
        self.begun = true;
        Ok(())
    }

    pub(super) fn stream(
        &mut self,
        number: u64,
        id: StreamId,
        line: &StreamLine,
        fork: Option<Fork>,
    ) -> Result<(), Wrong> {
        self.leave_stream()?;
        if self.ends.insert(id, HashMap::new()).is_some() {
            return Err("the stream is in the export already");
        }
        if line.name.as_ref().is_some_and(|name| !self.names.insert(name.clone())) {
            return Err("another stream of the export has this name");
        }
        if line.head.is_some_and(|head| head > SEQ_MAX || head < line.start) {
            return Err("the stream ends before it starts");
        }
        if let Some(fork) = fork {
            if fork.seq > SEQ_MAX || fork.generation > GENERATION_MAX {
                return Err("no stream is so long");
            }
            self.forks.push((number, id, fork));
        }
        self.stream = Some(Current {
            id,
            next: fork.map_or(0, |fork| fork.seq),
            generation: fork.map_or(0, |fork| fork.generation),
            head: line.head,
            has_past: fork.is_some(),
        });
        self.streams += 1;
        Ok(())
    }

    pub(super) fn event(&mut self, line: &EventLine<'_>) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("an event without a stream")?;
        if line.seq >= SEQ_MAX || line.dropped_before > line.seq {
            return Err("no stream has such a seq");
        }
        if line.seq - line.dropped_before != stream.next {
            return Err("its seq is not the next one of the stream");
        }
        if line.generation != stream.generation {
            return Err("its generation is not that of the stream");
        }
        (stream.next, stream.has_past) = (line.seq + 1, true);
        self.events += 1;
        Ok(())
    }

    pub(super) fn forgotten(&mut self, seqs: u64) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("seqs without a stream")?;
        if seqs == 0 || seqs > SEQ_MAX - stream.next {
            return Err("no stream forgets so many seqs");
        }
        (stream.next, stream.has_past) = (stream.next + seqs, true);
        Ok(())
    }

    pub(super) fn lost(&mut self, line: &LostLine<'_>) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("seqs without a stream")?;
        let seqs = line.seqs.checked_add(line.dropped_before);
        let Some(seqs) = seqs.filter(|seqs| line.seqs > 0 && *seqs <= SEQ_MAX - stream.next) else {
            return Err("no stream loses so many seqs");
        };
        let Some(lost) = self.lost.checked_add(line.seqs) else {
            return Err("no log loses so many seqs");
        };
        (stream.next, stream.has_past) = (stream.next + seqs, true);
        self.lost = lost;
        Ok(())
    }

    /// What is damaged is said before all streams: nobody knows of which it was.
    pub(super) fn damage(&self) -> Result<(), Wrong> {
        if self.streams == 0 { Ok(()) } else { Err("damage is told in front of the streams") }
    }

    pub(super) fn rewind(&mut self, line: &RewindLine) -> Result<(), Wrong> {
        let stream = self.stream.as_mut().ok_or("a rewind without a stream")?;
        if !stream.has_past || line.to > stream.next {
            return Err("a rewind to what was not there");
        }
        if line.generation != stream.generation + 1 || line.generation > GENERATION_MAX {
            return Err("its generation is not the next one of the stream");
        }
        self.ends.entry(stream.id).or_default().insert(stream.generation, stream.next);
        (stream.next, stream.generation) = (line.to, line.generation);
        Ok(())
    }

    pub(super) fn end(&mut self, line: &EndLine) -> Result<(), Wrong> {
        self.leave_stream()?;
        if (line.streams, line.events, line.lost) != (self.streams, self.events, self.lost) {
            return Err("the export had another number of streams, events or lost seqs");
        }
        self.ended = true;
        Ok(())
    }

    /// Whether another line may come.
    pub(super) fn more(&self, is_header: bool) -> Result<(), Wrong> {
        match (self.begun || is_header, self.ended) {
            (false, _) => Err("an export begins with {\"amberlog\":{\"export\":1}}"),
            (true, true) => Err("nothing comes behind the end of an export"),
            (true, false) => Ok(()),
        }
    }

    fn leave_stream(&mut self) -> Result<(), Wrong> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        if stream.head.is_some_and(|head| head != stream.next) {
            return Err("the stream before this line is not all there");
        }
        self.ends.entry(stream.id).or_default().insert(stream.generation, stream.next);
        Ok(())
    }

    /// Whether that was all, and every fork is one of something; otherwise the line, if it is one, and why not.
    pub(super) fn finish(&self) -> Result<(), (Option<u64>, Wrong)> {
        if !self.ended {
            return Err((None, "the export is cut off: its last line is missing"));
        }
        let bases: HashMap<StreamId, StreamId> =
            self.forks.iter().map(|(_, id, fork)| (*id, fork.base)).collect();
        let mut fine = HashSet::new();
        for (number, id, fork) in &self.forks {
            let end = self.ends.get(&fork.base).and_then(|ends| ends.get(&fork.generation));
            if end.is_none_or(|end| *end < fork.seq) {
                return Err((Some(*number), "what the stream shares is not in the export"));
            }
            if is_circular(*id, &bases, &mut fine) {
                return Err((Some(*number), "the stream shares what it has with itself"));
            }
        }
        Ok(())
    }
}

/// Whether who goes from base to base comes back. What is fine is noted, so that nobody goes twice.
fn is_circular(
    from: StreamId,
    bases: &HashMap<StreamId, StreamId>,
    fine: &mut HashSet<StreamId>,
) -> bool {
    let mut way = HashSet::new();
    let mut next = Some(&from);
    while let Some(at) = next.filter(|at| !fine.contains(at)) {
        if !way.insert(*at) {
            return true;
        }
        next = bases.get(at);
    }
    fine.extend(way);
    false
}
