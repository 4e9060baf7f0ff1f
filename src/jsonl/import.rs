//! From lines to a log: once only looking, then writing.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::Imported;
use super::check::{Checker, Fork, Wrong};
use super::lines::{EventLine, Line, Said, StreamLine, from_base64};
use crate::commit::Ticket;
use crate::core::Core;
use crate::error::{Error, ErrorKind, RefusedReason, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Expect, StreamOptions};
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
pub(super) fn all(core: &Arc<Core>, mut from: impl BufRead + Seek) -> Result<Imported> {
    core.check_open("import")?;
    let start = from.stream_position().map_err(unreadable)?;
    let mut look = Importer::new(core, Mode::Look);
    look.read(&mut from)?;
    drop(look);
    from.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let mut write = Importer::new(core, Mode::Write);
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

struct Importer<'a> {
    core: &'a Arc<Core>,
    mode: Mode,
    checker: Checker,
    number: u64,
    stream: Option<Current>,
    flight: VecDeque<(u64, Ticket)>,
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
    /// So many seqs up to here could not be read when they were exported, or were dropped in front of such.
    lost: u64,
}

impl<'a> Importer<'a> {
    fn new(core: &'a Arc<Core>, mode: Mode) -> Self {
        Self {
            core,
            mode,
            checker: Checker::default(),
            number: 0,
            stream: None,
            flight: VecDeque::new(),
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
                let lost = line.seqs + line.dropped_before;
                self.stream.iter_mut().for_each(|current| current.lost += lost);
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
        let options = StreamOptions::new().ring_bytes_max(self.core.options.memory_bytes_max);
        let options = options.event_bytes_max(self.core.options.memory_bytes_max);
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
        let state = StreamState::from(line.state);
        let (has_events, start) = (fork.is_some_and(|fork| fork.seq > 0), line.start);
        let (buffered, is_committed, lost) = (0, false, 0);
        let current = Current { stream, start, state, has_events, buffered, is_committed, lost };
        self.stream = Some(current);
        Ok(())
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
        self.skip(line.dropped_before)?;
        self.append(&head, &payload)
    }

    /// A gap: of so many seqs, and of those in front of them that were lost.
    fn skip(&mut self, seqs: u64) -> Result<()> {
        let lost = self.stream.as_mut().map_or(0, |current| std::mem::take(&mut current.lost));
        if lost + seqs > 0 {
            self.commit()?;
            if let Some(current) = &mut self.stream {
                current.stream.skip(lost + seqs);
            }
        }
        Ok(())
    }

    /// Seqs of which nothing is known: the last of them holds an event without bytes, so that there is no gap.
    fn forgotten(&mut self, seqs: u64) -> Result<()> {
        self.skip(seqs - 1)?;
        self.put_nothing()
    }

    /// What was lost, and nothing behind it that a gap could stand in front of.
    fn end_in_gap(&mut self) -> Result<()> {
        if self.stream.as_ref().is_some_and(|current| current.lost > 0) {
            self.skip(0)?;
            self.put_nothing()?;
        }
        Ok(())
    }

    /// An event without bytes, which nobody is to see.
    fn put_nothing(&mut self) -> Result<()> {
        let (kind, codec) = (EventKind::default(), CodecId::RAW);
        let time = Timestamp::default();
        self.append(&FrameHead { payload_bytes: 0, kind, codec, time }, &[])
    }

    fn append(&mut self, head: &FrameHead, payload: &[u8]) -> Result<()> {
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.has_events = true;
        let refused = |reason| Error::new(ErrorKind::Refused(reason), "import");
        current.stream.admits(payload.len()).map_err(refused)?;
        if self.mode == Mode::Look {
            return Ok(());
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
        if current.buffered >= COMMIT_BYTES { self.commit() } else { Ok(()) }
    }

    fn rewind(&mut self, to: u64) -> Result<()> {
        self.end_in_gap()?;
        if self.mode == Mode::Look {
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
        let ticket = current.stream.commit_with(CommitOptions::new().expect(expect));
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
        let lost_end = |one: &Current| one.lost > 0 && one.state != StreamState::Deleted;
        if let Some(current) = self.stream.as_ref().filter(|one| lost_end(one)) {
            let head = current.stream.head().get() + current.lost;
            self.rewind(head)?;
        }
        self.end_in_gap()?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        let (id, start, state) = (current.stream.id(), current.start, current.state);
        // Others may share the events of a stream that is not to show them.
        let ends_later = start > 0 || (state == StreamState::Deleted && current.has_events);
        let is_bare = !current.is_committed && !current.stream.has_news();
        if (state != StreamState::Active && !ends_later) || is_bare {
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
            let mut stream = Stream::resume(self.core, id, &StreamOptions::new())?;
            if start > 0 {
                self.commits += 1;
                stream.trim(start).wait()?;
            }
            let ticket = match state {
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
