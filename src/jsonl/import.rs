//! From lines to a log: once only looking, then writing.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::{Arc, PoisonError};

use super::check::{Checker, Fork, Wrong};
use super::lines::{EventLine, Line, Said, StreamLine, from_base64};
use super::there::There;
use super::{ImportOptions, Imported};
use crate::commit::{Pending, Ticket};
use crate::core::Core;
use crate::error::{Error, ErrorKind, RefusedReason, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Expect, StreamOptions};
use crate::sabotage::{Sabotage, broken};
use crate::stream::Stream;
use crate::types::{CodecId, EventKind, Seq, StreamId, StreamState, Timestamp};

/// No line is longer, in bytes.
const LINE_BYTES_MAX: u64 = 6 << 30;
/// A commit is made whenever so much is buffered.
const COMMIT_BYTES: u64 = 4 << 20;
/// So much may be under way.
const FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// And so many commits.
const FLIGHT_COMMITS_MAX: usize = 256;

/// Looks at all lines, and then makes what they say.
pub(super) fn all(
    core: &Arc<Core>,
    options: &ImportOptions,
    mut from: impl BufRead + Seek,
) -> Result<Imported> {
    core.check_open("import")?;
    let start = from.stream_position().map_err(unreadable)?;
    // What is rewound again before the forks are there that show it is not to be collected meanwhile.
    let _alone = core.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
    let mut look = Importer::new(core, Mode::Look, options.resumes);
    look.read(&mut from)?;
    drop(look);
    from.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let mut write = Importer::new(core, Mode::Write, options.resumes);
    write.read(&mut from)?;
    write.land()?;
    write.end_lives()?;
    let Checker { streams, events, lost, .. } = write.checker;
    Ok(Imported { streams, events, lost, commits: write.commits })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Look,
    Write,
}

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A line.
    Event,
    /// It stands for what nobody sees.
    Nothing,
}

struct Importer<'a> {
    core: &'a Arc<Core>,
    mode: Mode,
    /// An import of these lines may have been cut off.
    resumes: bool,
    checker: Checker,
    number: u64,
    stream: Option<Current>,
    flight: VecDeque<(u64, Ticket)>,
    /// The commit that the next one stands behind.
    last: Option<Arc<Pending>>,
    flight_bytes: u64,
    commits: u64,
    /// What becomes of streams once all others are there, which may share with them.
    later: Vec<(StreamId, u64, StreamState)>,
}

/// The stream that the lines are in.
struct Current {
    stream: Stream,
    start: u64,
    state: StreamState,
    /// Events are in it, or were.
    has_events: bool,
    buffered: u64,
    is_committed: bool,
    /// Where the lines have got to; what is skipped lies behind it.
    generation: u32,
    next: u64,
    /// So many seqs come next that were dropped, or could not be read when they were exported: a gap, with the event
    /// that stands behind them.
    skipped: u64,
    /// What the log has of it, as long as the lines say nothing more.
    there: Option<There>,
    /// The state that the log has it in.
    is: StreamState,
}

impl<'a> Importer<'a> {
    fn new(core: &'a Arc<Core>, mode: Mode, resumes: bool) -> Self {
        Self {
            core,
            mode,
            resumes,
            checker: Checker::default(),
            number: 0,
            stream: None,
            flight: VecDeque::new(),
            last: None,
            flight_bytes: 0,
            commits: 0,
            later: Vec::new(),
        }
    }

    fn read(&mut self, from: &mut impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = from.by_ref().take(LINE_BYTES_MAX);
            if limited.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            self.number += 1;
            let text = std::str::from_utf8(&line)
                .map_err(|error| self.wrong("it is no UTF-8, and so no JSON").because(error))?;
            let parsed = serde_json::from_str(text)
                .map_err(|error| self.wrong("it is no line of an export").because(error))?;
            self.line(parsed)?;
        }
        self.checker.finish().map_err(|(line, what)| {
            let line = line.unwrap_or(self.number + 1);
            Error::new(ErrorKind::InvalidLine { line, what }, "import")
        })
    }

    fn wrong(&self, what: Wrong) -> Error {
        Error::new(ErrorKind::InvalidLine { line: self.number, what }, "import")
    }

    fn line(&mut self, line: Line<'_>) -> Result<()> {
        let number = self.number;
        let is_header = matches!(line, Line::Amberlog(_));
        let wrong = move |what| Error::new(ErrorKind::InvalidLine { line: number, what }, "import");
        self.checker.more(is_header).map_err(wrong)?;
        match line {
            Line::Amberlog(header) => self.checker.header(header.export).map_err(wrong),
            Line::Stream(line) => {
                let id = id(&line.id).map_err(wrong)?;
                let fork = fork(&line).map_err(wrong)?;
                self.checker.stream(number, id, &line, fork).map_err(wrong)?;
                self.finish_stream()?;
                self.stream(id, &line, fork)
            }
            Line::Event(line) => {
                self.checker.event(&line).map_err(wrong)?;
                self.event(line)
            }
            Line::Forgotten(seqs) => {
                self.checker.forgotten(seqs).map_err(wrong)?;
                self.forgotten(seqs)
            }
            Line::Lost(line) => {
                self.checker.lost(&line).map_err(wrong)?;
                self.skip(line.seqs + line.dropped_before);
                Ok(())
            }
            Line::Damage(_) => self.checker.damage().map_err(wrong),
            Line::Rewind(line) => {
                self.checker.rewind(&line).map_err(wrong)?;
                self.rewind(line.to)
            }
            Line::End(line) => {
                self.checker.end(&line).map_err(wrong)?;
                self.finish_stream()
            }
        }
    }

    /// Begins a stream. Looking makes it, too: a volatile one costs nothing and knows what it may be told.
    fn stream(&mut self, id: StreamId, line: &StreamLine, fork: Option<Fork>) -> Result<()> {
        let there = There::find(self.core, id).filter(|_| self.resumes);
        if there.as_ref().is_some_and(|there| !there.begins_as(line, fork)) {
            return Err(Error::new(ErrorKind::StreamExists(id), "import"));
        }
        let is_there = there.is_some();
        let is = there.as_ref().map_or(StreamState::Active, There::state);
        self.stream = Some(Current {
            stream: self.handle(id, line, fork, there.as_ref())?,
            start: line.start,
            state: StreamState::from(line.state),
            has_events: fork.is_some_and(|fork| fork.seq > 0),
            buffered: 0,
            is_committed: is_there,
            generation: fork.map_or(0, |fork| fork.generation),
            next: fork.map_or(0, |fork| fork.seq),
            skipped: 0,
            there,
            is,
        });
        Ok(())
    }

    fn handle(
        &self,
        id: StreamId,
        line: &StreamLine,
        fork: Option<Fork>,
        there: Option<&There>,
    ) -> Result<Stream> {
        let options = StreamOptions::new().ring_bytes_max(self.core.options.memory_bytes_max);
        let options = options.event_bytes_max(self.core.options.memory_bytes_max);
        match there.map(There::state) {
            Some(StreamState::Deleted) => return Stream::gone(self.core, id, &options),
            Some(_) => return Stream::resume(self.core, id, &options),
            None => {}
        }
        let mut stream = Stream::of_id(self.core, id, &options)?;
        if let Some(fork) = fork {
            stream.share(fork.base, fork.generation, fork.seq)?;
        }
        let said = self.metadata(&mut stream, line);
        said.map_err(|error| match error.kind() {
            ErrorKind::InvalidName | ErrorKind::InvalidMetadata(_) => {
                self.wrong("the stream's name, labels or data are not right").because(error)
            }
            _ => error,
        })?;
        Ok(stream)
    }

    fn metadata(&self, stream: &mut Stream, line: &StreamLine) -> Result<()> {
        if let Some(parent) = &line.parent {
            let parent_id = id(&parent.id).map_err(|what| self.wrong(what))?;
            stream.descend(parent_id, Seq::from(parent.seq))?;
        }
        if let Some(name) = &line.name {
            stream.rename(name)?;
        }
        for (key, value) in &line.labels {
            stream.set_label(key, value)?;
        }
        match (&line.data_text, &line.data_base64) {
            (None, None) => Ok(()),
            (Some(text), None) => stream.set_data(text.as_bytes()),
            (None, Some(base64)) => {
                let data = from_base64(base64).ok_or_else(|| self.wrong("no base 64"))?;
                stream.set_data(&data)
            }
            (Some(_), Some(_)) => Err(self.wrong("a stream has one data")),
        }
    }

    fn event(&mut self, line: EventLine<'_>) -> Result<()> {
        let said = Said { text: line.text, json: line.json, base64: line.base64 };
        let Some(payload) = said.bytes() else {
            let what = "an event has one of text, json and base64";
            return Err(self.wrong(what));
        };
        let head = FrameHead {
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            kind: EventKind(line.kind),
            codec: CodecId(line.codec),
            time: Timestamp::from_micros(line.time_us),
        };
        self.skip(line.dropped_before);
        self.put(&head, &payload, Told::Event)
    }

    /// So many seqs are a gap.
    fn skip(&mut self, seqs: u64) {
        self.stream.iter_mut().for_each(|current| current.skipped += seqs);
    }

    /// Seqs of which nothing is known: the last of them holds an event without bytes, so that there is no gap.
    fn forgotten(&mut self, seqs: u64) -> Result<()> {
        self.skip(seqs - 1);
        self.put_nothing()
    }

    /// What was lost, and nothing behind it that a gap could stand in front of.
    fn end_in_gap(&mut self) -> Result<()> {
        let has_gap = self.stream.as_ref().is_some_and(|current| current.skipped > 0);
        if has_gap { self.put_nothing() } else { Ok(()) }
    }

    /// An event without bytes, which nobody is to see.
    fn put_nothing(&mut self) -> Result<()> {
        let (kind, codec) = (EventKind::default(), CodecId::RAW);
        let time = Timestamp::default();
        let head = FrameHead { payload_bytes: 0, kind, codec, time };
        self.put(&head, &[], Told::Nothing)
    }

    /// The next event, unless the log has it.
    fn put(&mut self, head: &FrameHead, payload: &[u8], told: Told) -> Result<()> {
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.has_events = true;
        let seq = current.next + current.skipped;
        let generation = current.generation;
        match &mut current.there {
            Some(there) if there.is_past(generation, seq) => {
                let looks = self.mode == Mode::Look && told == Told::Event;
                if looks && !there.holds((generation, current.next), seq, head, payload)? {
                    return Err(current.differs());
                }
            }
            _ => {
                current.leave_there()?;
                self.append(head, payload)?;
            }
        }
        self.stream.iter_mut().for_each(|one| (one.next, one.skipped) = (seq + 1, 0));
        Ok(())
    }

    fn append(&mut self, head: &FrameHead, payload: &[u8]) -> Result<()> {
        let refused = |reason| Error::new(ErrorKind::Refused(reason), "import");
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.stream.admits(payload.len()).map_err(refused)?;
        if self.mode == Mode::Look {
            return Ok(());
        }
        if current.skipped > 0 {
            self.commit()?;
        }
        let Some(current) = &mut self.stream else { return Ok(()) };
        if current.skipped > 0 {
            current.stream.skip(current.skipped);
        }
        let mut appended = current.stream.append_at(head, payload);
        if let Err(RefusedReason::RingFull { .. } | RefusedReason::MemoryFull { .. }) = appended {
            self.commit()?;
            self.land()?;
            let Some(current) = &mut self.stream else { return Ok(()) };
            appended = current.stream.append_at(head, payload);
        }
        appended.map_err(refused)?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.buffered += head.frame_bytes() as u64;
        let is_much = current.buffered >= COMMIT_BYTES || broken(Sabotage::ImportApart);
        if is_much { self.commit() } else { Ok(()) }
    }

    fn rewind(&mut self, to: u64) -> Result<()> {
        self.end_in_gap()?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        let is_there =
            current.there.as_ref().is_some_and(|there| there.is_past(current.generation, u64::MAX));
        if !is_there {
            current.leave_there()?;
        }
        (current.generation, current.next) = (current.generation + 1, to);
        if self.mode == Mode::Look || is_there {
            return Ok(());
        }
        self.commit()?;
        self.land()?;
        match &mut self.stream {
            Some(current) => current.stream.rewind_as(to),
            None => Ok(()),
        }
    }

    /// Lets the commit of what is buffered start, if anything is.
    fn commit(&mut self) -> Result<()> {
        let Some(current) = self.stream.as_mut().filter(|one| one.stream.has_news()) else {
            return Ok(());
        };
        if self.mode == Mode::Look {
            return Ok(());
        }
        let expect = if current.is_committed { Expect::Seen } else { Expect::NoStream };
        let options = CommitOptions::new().expect(expect);
        let ticket = current.stream.commit_behind(&mut self.last, options);
        ticket.start();
        current.is_committed = true;
        let bytes = std::mem::take(&mut current.buffered);
        self.flight.push_back((bytes, ticket));
        self.flight_bytes += bytes;
        while self.flight_bytes > FLIGHT_BYTES_MAX || self.flight.len() > FLIGHT_COMMITS_MAX {
            self.land_one()?;
        }
        Ok(())
    }

    fn finish_stream(&mut self) -> Result<()> {
        // What stands behind the lost end of a stream is dropped again: it ends in a gap, in its next generation.
        let lost_end = |one: &Current| one.skipped > 0 && one.state != StreamState::Deleted;
        if let Some(current) = self.stream.as_ref().filter(|one| lost_end(one)) {
            self.rewind(current.next + current.skipped)?;
        }
        self.end_in_gap()?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        if current.there.as_ref().is_some_and(|one| !one.ends_at(current.generation, current.next))
        {
            return Err(current.differs());
        }
        let (id, start, state) = (current.stream.id(), current.start, current.state);
        // Others may share the events of a stream that is not to show them.
        let ends_later = start > 0 || (state == StreamState::Deleted && current.has_events);
        let is_bare = !current.is_committed && !current.stream.has_news();
        if (state != current.is && !ends_later) || is_bare {
            let now = if ends_later { StreamState::Active } else { state };
            current.stream.say_state(now)?;
        }
        if ends_later && self.mode == Mode::Write {
            self.later.push((id, start, state));
        }
        self.commit()?;
        self.stream = None;
        Ok(())
    }

    fn end_lives(&mut self) -> Result<()> {
        for (id, start, state) in std::mem::take(&mut self.later) {
            let Some(there) = There::find(self.core, id) else { continue };
            if there.state() == StreamState::Deleted {
                continue;
            }
            let mut stream = Stream::resume(self.core, id, &StreamOptions::new())?;
            if there.start() < start {
                self.commits += 1;
                stream.trim(start).wait()?;
            }
            let ticket = match state {
                _ if state == there.state() => continue,
                StreamState::Active => continue,
                StreamState::Archived => stream.archive(),
                StreamState::Deleted => stream.delete(),
            };
            self.commits += 1;
            ticket.wait()?;
        }
        Ok(())
    }

    fn land_one(&mut self) -> Result<bool> {
        let Some((bytes, ticket)) = self.flight.pop_front() else { return Ok(false) };
        self.flight_bytes -= bytes;
        ticket.wait()?;
        self.commits += 1;
        Ok(true)
    }

    fn land(&mut self) -> Result<()> {
        while self.land_one()? {}
        Ok(())
    }
}

impl Current {
    /// The log has, or had, a stream of this id, and it is another one.
    fn differs(&self) -> Error {
        Error::new(ErrorKind::StreamExists(self.stream.id()), "import")
    }

    /// Here the lines go on where what is there ends, if nobody else was at it.
    fn leave_there(&mut self) -> Result<()> {
        match self.there.take() {
            Some(there) if !there.ends_at(self.generation, self.next) => Err(self.differs()),
            Some(_) if self.is != StreamState::Active => Err(self.differs()),
            _ => Ok(()),
        }
    }
}

fn id(text: &str) -> std::result::Result<StreamId, Wrong> {
    text.parse().map_err(|_| "no id of a stream")
}

fn fork(line: &StreamLine) -> std::result::Result<Option<Fork>, Wrong> {
    let Some(shares) = &line.shares else { return Ok(None) };
    let (base, generation, seq) = (id(&shares.id)?, shares.generation, shares.seq);
    Ok(Some(Fork { base, generation, seq }))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "import").because(error)
}
