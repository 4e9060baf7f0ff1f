//! Imports lines into a log in two passes: the first checks them, the second writes.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::resume::{ExistingStream, PLACEHOLDER};
use super::schema::{EncodedBytes, Line, StreamLine, Wrong};
use super::validate::Checker;
use super::{ImportOptions, Imported};
use crate::commit::{Pending, Ticket};
use crate::engine::Handle;
use crate::error::{AppendError, Error, ErrorKind, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Expect, Overflow, StreamOptions};
use crate::sabotage::{Sabotage, broken};
use crate::stream::Stream;
use crate::types::{CodecId, EventKind, Seq, StreamId, StreamState, Timestamp};

/// Maximum length of a line, in bytes.
const LINE_BYTES_MAX: u64 = 6 << 30;
/// Number of buffered bytes that triggers a commit.
const COMMIT_BYTES: u64 = 4 << 20;
/// Maximum size of the commits in flight, in bytes.
const FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of commits in flight.
const FLIGHT_COMMITS_MAX: usize = 256;

/// Checks all lines, then writes them.
pub(super) fn all(
    engine: &Handle,
    options: &ImportOptions,
    mut from: impl BufRead + Seek,
) -> Result<Imported> {
    engine.check_open("import")?;
    let start = from.stream_position().map_err(unreadable)?;
    // Keeps compaction from removing rewound events before the forks exist that show them.
    let _alone = engine.alone("import")?;
    let mut check = Importer::new(engine, Mode::Check, options.resumes);
    check.read(&mut from)?;
    drop(check);
    from.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let mut write = Importer::new(engine, Mode::Write, options.resumes);
    write.read(&mut from)?;
    write.flight.wait_for_all()?;
    write.end_lives()?;
    let Checker { streams, deleted_streams, events, lost, .. } = write.checker;
    Ok(Imported { streams, deleted_streams, events, lost, commits: write.flight.commits })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Check,
    Write,
}

/// Origin of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A line.
    Line,
    /// Seqs that no stream shows.
    Placeholder,
}

struct Importer<'a> {
    engine: &'a Handle,
    /// The import may continue an interrupted one.
    resumes: bool,
    checker: Checker,
    /// Number of the current line.
    number: u64,
    stream: Option<ImportedStream>,
    flight: ImportFlight,
    /// Start and state that streams get once all others exist, which may share their events.
    later: Vec<(StreamId, u64, StreamState)>,
}

/// Commits of an import. A checking pass makes none.
struct ImportFlight {
    mode: Mode,
    /// Commits in flight, with their sizes in bytes.
    tickets: VecDeque<(u64, Ticket)>,
    bytes: u64,
    /// Commit that the next one has to follow.
    last: Option<Arc<Pending>>,
    /// Number of commits made.
    commits: u64,
}

/// The stream of the current line.
struct ImportedStream {
    stream: Stream,
    start: u64,
    state: StreamState,
    /// The stream has events, or had some.
    has_events: bool,
    buffered: u64,
    is_committed: bool,
    /// Generation and seq of the next event, before the skipped seqs.
    generation: u32,
    next: u64,
    /// Number of seqs to skip: dropped, or unreadable at the export. They become the gap before the
    /// next event.
    skipped: u64,
    /// The stream in the log, until the lines go beyond it.
    existing: Option<ExistingStream>,
    /// State of the stream in the log.
    existing_state: StreamState,
}

impl<'a> Importer<'a> {
    fn new(engine: &'a Handle, mode: Mode, resumes: bool) -> Self {
        Self {
            engine,
            resumes,
            checker: Checker::default(),
            number: 0,
            stream: None,
            flight: ImportFlight {
                mode,
                tickets: VecDeque::new(),
                bytes: 0,
                last: None,
                commits: 0,
            },
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
            self.number = self.number.saturating_add(1);
            let text = std::str::from_utf8(&line)
                .map_err(|error| self.wrong("the line is not UTF-8").because(error))?;
            let parsed = serde_json::from_str(text)
                .map_err(|error| self.wrong("the line is not one of an export").because(error))?;
            self.line(parsed)?;
        }
        self.checker.finish().map_err(|(line, what)| {
            let line = line.unwrap_or(self.number.saturating_add(1));
            Error::new(ErrorKind::InvalidLine { line, what }, "import")
        })
    }

    fn wrong(&self, what: Wrong) -> Error {
        Error::new(ErrorKind::InvalidLine { line: self.number, what }, "import")
    }

    fn line(&mut self, line: Line<'_>) -> Result<()> {
        self.checker.line(self.number, &line).map_err(|what| self.wrong(what))?;
        match line {
            Line::Stream(line) => {
                self.finish_stream()?;
                return self.stream(&line);
            }
            Line::End { .. } => return self.finish_stream(),
            _ => {}
        }
        let Some(current) = &mut self.stream else { return Ok(()) };
        match line {
            Line::Event(line) => {
                let payload =
                    EncodedBytes { text: line.text, json: line.json, base64: line.base64 };
                let Some(payload) = payload.bytes() else {
                    let what = "an event has exactly one of text, json and base64";
                    return Err(self.wrong(what));
                };
                let head = FrameHead {
                    payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                    kind: EventKind(line.kind),
                    schema_version: line.schema_version,
                    codec: CodecId(line.codec),
                    time: Timestamp::from_micros(line.time_us),
                };
                current.skip(line.dropped_before);
                current.put(&mut self.flight, &head, &payload, Origin::Line)
            }
            Line::Gap(seqs) => {
                current.skip(seqs);
                current.end_in_gap(&mut self.flight)
            }
            Line::Forgotten(seqs) => current.forgotten(&mut self.flight, seqs),
            Line::Lost { seqs, dropped_before, .. } => {
                current.skip(seqs.saturating_add(dropped_before));
                Ok(())
            }
            Line::Rewind { to, .. } => current.rewind(&mut self.flight, to),
            _ => Ok(()),
        }
    }

    /// Starts a stream. The checking pass creates it too: a volatile stream costs nothing and
    /// validates its metadata.
    fn stream(&mut self, line: &StreamLine) -> Result<()> {
        let fork = line.shares;
        let existing = ExistingStream::find(self.engine, line.id).filter(|_| self.resumes);
        if existing.as_ref().is_some_and(|existing| !existing.begins_as(line)) {
            return Err(Error::new(ErrorKind::StreamExists(line.id), "import"));
        }
        let is_committed = existing.is_some();
        let existing_state = existing.as_ref().map_or(StreamState::Active, ExistingStream::state);
        self.stream = Some(ImportedStream {
            stream: self.handle(line, existing.as_ref())?,
            start: line.start,
            state: line.state,
            has_events: fork.is_some_and(|fork| fork.seq > 0),
            buffered: 0,
            is_committed,
            generation: fork.map_or(0, |fork| fork.generation),
            next: fork.map_or(0, |fork| fork.seq),
            skipped: 0,
            existing,
            existing_state,
        });
        Ok(())
    }

    fn handle(&self, line: &StreamLine, existing: Option<&ExistingStream>) -> Result<Stream> {
        let options = StreamOptions::new().ring_bytes_max(self.engine.options.memory_bytes_max);
        let options = options.event_bytes_max(self.engine.options.memory_bytes_max);
        // An import loses nothing, whatever the log's own rings do.
        let options = options.overflow(Overflow::Reject);
        match existing.map(ExistingStream::state) {
            Some(StreamState::Deleted) => return Stream::gone(self.engine, line.id, &options),
            Some(_) => return Stream::open(self.engine, line.id, &options),
            None => {}
        }
        let stream = Stream::of_id(self.engine, line.id, &options, "import");
        let mut stream = stream.map_err(|error| match error.kind() {
            ErrorKind::Deleted(id) => Error::new(ErrorKind::StreamExists(*id), "import"),
            _ => error,
        })?;
        if let Some(fork) = &line.shares {
            stream.share(fork.id, fork.generation, fork.seq);
        }
        self.metadata(&mut stream, line).map_err(|error| match error.kind() {
            ErrorKind::InvalidName
            | ErrorKind::NameIsAnId(_)
            | ErrorKind::NameReserved
            | ErrorKind::InvalidMetadata(_) => {
                self.wrong("the stream's name, labels or data are invalid").because(error)
            }
            _ => error,
        })?;
        Ok(stream)
    }

    fn metadata(&self, stream: &mut Stream, line: &StreamLine) -> Result<()> {
        if let Some(parent) = &line.parent {
            stream.descend(parent.id, Seq::from(parent.seq));
        }
        if let Some(name) = &line.name {
            stream.rename(name)?;
        }
        for (key, value) in &line.labels {
            stream.set_label(key, value)?;
        }
        if let Some(data) = line.data().map_err(|what| self.wrong(what))? {
            stream.set_data(&data)?;
        }
        Ok(())
    }

    fn finish_stream(&mut self) -> Result<()> {
        let Some(mut current) = self.stream.take() else { return Ok(()) };
        current.end_in_gap(&mut self.flight)?;
        let (generation, next) = (current.generation, current.next);
        if current.existing.as_ref().is_some_and(|existing| !existing.ends_at(generation, next)) {
            return Err(current.differs());
        }
        let (id, start, state) = (current.stream.id(), current.start, current.state);
        // Later streams may share events that this one will trim or delete.
        let ends_later = start > 0 || (state == StreamState::Deleted && current.has_events);
        let is_bare = !current.is_committed && !current.stream.has_news();
        if (state != current.existing_state && !ends_later) || is_bare {
            let now = if ends_later { StreamState::Active } else { state };
            current.stream.say_state(now);
        }
        if ends_later && self.flight.mode == Mode::Write {
            self.later.push((id, start, state));
        }
        current.commit(&mut self.flight)
    }

    /// Trims, archives and deletes the streams whose events others could share until now.
    fn end_lives(&mut self) -> Result<()> {
        for (id, start, state) in std::mem::take(&mut self.later) {
            let Some(existing) = ExistingStream::find(self.engine, id) else { continue };
            if existing.state() == StreamState::Deleted {
                continue;
            }
            let mut stream = Stream::open(self.engine, id, &StreamOptions::new())?;
            if existing.start() < start {
                self.flight.commits = self.flight.commits.saturating_add(1);
                stream.trim(start)?;
                stream.commit().wait()?;
            }
            let ticket = match state {
                _ if state == existing.state() => continue,
                StreamState::Active => continue,
                StreamState::Archived => stream.archive(),
                StreamState::Deleted => stream.delete(),
            };
            self.flight.commits = self.flight.commits.saturating_add(1);
            ticket.wait()?;
        }
        Ok(())
    }
}

impl ImportFlight {
    fn push(&mut self, bytes: u64, ticket: Ticket) -> Result<()> {
        self.tickets.push_back((bytes, ticket));
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > FLIGHT_BYTES_MAX || self.tickets.len() > FLIGHT_COMMITS_MAX {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    /// Waits for the oldest commit in flight. Returns `Ok(false)` if there is none.
    fn wait_for_oldest(&mut self) -> Result<bool> {
        let Some((bytes, ticket)) = self.tickets.pop_front() else { return Ok(false) };
        self.bytes = self.bytes.saturating_sub(bytes);
        ticket.wait()?;
        self.commits = self.commits.saturating_add(1);
        Ok(true)
    }

    fn wait_for_all(&mut self) -> Result<()> {
        while self.wait_for_oldest()? {}
        Ok(())
    }
}

impl ImportedStream {
    /// Adds seqs to the gap before the next event. The checker has bounded the stream's length.
    fn skip(&mut self, seqs: u64) {
        self.skipped = self.skipped.saturating_add(seqs);
    }

    /// Skips seqs without known events. The last of them gets a placeholder, an empty event that no
    /// stream will show, so that they are not a gap.
    fn forgotten(&mut self, flight: &mut ImportFlight, seqs: u64) -> Result<()> {
        self.skip(seqs.saturating_sub(1));
        self.put(flight, &PLACEHOLDER, &[], Origin::Placeholder)
    }

    /// Ends the stream or generation in a gap, if seqs were skipped after the last event.
    fn end_in_gap(&mut self, flight: &mut ImportFlight) -> Result<()> {
        if self.skipped == 0 {
            return Ok(());
        }
        self.has_events = true;
        let (generation, from, end) = (self.generation, self.next, self.seq());
        match &self.existing {
            Some(existing) if existing.is_past(generation, end.saturating_sub(1)) => {
                if flight.mode == Mode::Check && !existing.is_gap(generation, from..end)? {
                    return Err(self.differs());
                }
            }
            _ => {
                self.leave_existing()?;
                self.commit(flight)?;
                if flight.mode == Mode::Write {
                    self.stream.skip(self.skipped);
                }
                self.commit(flight)?;
            }
        }
        (self.next, self.skipped) = (end, 0);
        Ok(())
    }

    /// Appends the next event, or compares it if the log has it.
    fn put(
        &mut self,
        flight: &mut ImportFlight,
        head: &FrameHead,
        payload: &[u8],
        origin: Origin,
    ) -> Result<()> {
        self.has_events = true;
        let seq = self.seq();
        let generation = self.generation;
        match &mut self.existing {
            Some(existing) if existing.is_past(generation, seq) => {
                let compares = flight.mode == Mode::Check && origin == Origin::Line;
                if compares && !existing.holds((generation, self.next), seq, head, payload)? {
                    return Err(self.differs());
                }
            }
            _ => {
                self.leave_existing()?;
                self.append(flight, head, payload)?;
            }
        }
        (self.next, self.skipped) = (seq.saturating_add(1), 0);
        Ok(())
    }

    fn append(
        &mut self,
        flight: &mut ImportFlight,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<()> {
        let refused = |reason| Error::new(ErrorKind::Refused(reason), "import");
        self.stream.admits(payload.len()).map_err(refused)?;
        if flight.mode == Mode::Check {
            return Ok(());
        }
        if self.skipped > 0 {
            self.commit(flight)?;
            self.stream.skip(self.skipped);
        }
        let mut appended = self.stream.append_at(head, payload);
        if appended.is_err_and(AppendError::is_retryable) {
            self.commit(flight)?;
            flight.wait_for_all()?;
            appended = self.stream.append_at(head, payload);
        }
        appended.map_err(refused)?;
        self.buffered = self.buffered.saturating_add(head.frame_bytes() as u64);
        let is_much = self.buffered >= COMMIT_BYTES || broken(Sabotage::ImportApart);
        if is_much { self.commit(flight) } else { Ok(()) }
    }

    fn rewind(&mut self, flight: &mut ImportFlight, to: u64) -> Result<()> {
        self.end_in_gap(flight)?;
        let generation = self.generation;
        let existing = self.existing.as_ref();
        let is_done = existing.is_some_and(|existing| existing.is_past(generation, u64::MAX));
        if !is_done {
            self.leave_existing()?;
        }
        (self.generation, self.next) = (generation.saturating_add(1), to);
        if flight.mode == Mode::Check || is_done {
            return Ok(());
        }
        self.commit(flight)?;
        // The events of a failed commit would return after the rewind.
        flight.wait_for_all()?;
        self.stream.rewind_as(to);
        Ok(())
    }

    /// Starts a commit of the buffered events, if any.
    fn commit(&mut self, flight: &mut ImportFlight) -> Result<()> {
        if !self.stream.has_news() || flight.mode == Mode::Check {
            return Ok(());
        }
        let expect = if self.is_committed { Expect::Seen } else { Expect::NoStream };
        let options = CommitOptions::new().expect(expect);
        let ticket = self.stream.commit_behind(&mut flight.last, options);
        ticket.start();
        self.is_committed = true;
        flight.push(std::mem::take(&mut self.buffered), ticket)
    }

    /// Returns the seq of the next event, after the gap.
    fn seq(&self) -> u64 {
        self.next.saturating_add(self.skipped)
    }

    /// Returns the error for a stream of this id that differs from the lines.
    fn differs(&self) -> Error {
        Error::new(ErrorKind::StreamExists(self.stream.id()), "import")
    }

    /// Leaves the existing stream, which must end here and be active.
    fn leave_existing(&mut self) -> Result<()> {
        match self.existing.take() {
            Some(existing) if !existing.ends_at(self.generation, self.next) => Err(self.differs()),
            Some(_) if self.existing_state != StreamState::Active => Err(self.differs()),
            _ => Ok(()),
        }
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "import").because(error)
}
