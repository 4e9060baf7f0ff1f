//! Imports lines into a log in two passes: the first checks them, the second writes.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::resume::ExistingStream;
use super::schema::{EncodedBytes, EventLine, Line, StreamLine, from_base64};
use super::validate::{Checker, ForkBase, Wrong};
use super::{ImportOptions, Imported};
use crate::commit::{Pending, Ticket};
use crate::engine::Handle;
use crate::error::{AppendError, Error, ErrorKind, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Expect, StreamOptions};
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
    write.wait_for_commits()?;
    write.end_lives()?;
    let Checker { streams, deleted_streams, events, lost, .. } = write.checker;
    Ok(Imported { streams, deleted_streams, events, lost, commits: write.commits })
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
    mode: Mode,
    /// The import may continue an interrupted one.
    resumes: bool,
    checker: Checker,
    /// Number of the current line.
    number: u64,
    stream: Option<ImportedStream>,
    /// Commits in flight, with their sizes in bytes.
    flight: VecDeque<(u64, Ticket)>,
    /// Commit that the next one has to follow.
    last: Option<Arc<Pending>>,
    flight_bytes: u64,
    commits: u64,
    /// Start and state that streams get once all others exist, which may share their events.
    later: Vec<(StreamId, u64, StreamState)>,
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
            Line::Gap(seqs) => {
                self.checker.gap(seqs).map_err(wrong)?;
                self.skip(seqs);
                self.end_in_gap()
            }
            Line::Forgotten(seqs) => {
                self.checker.forgotten(seqs).map_err(wrong)?;
                self.forgotten(seqs)
            }
            Line::Lost(line) => {
                self.checker.lost(&line).map_err(wrong)?;
                self.skip(line.seqs.saturating_add(line.dropped_before));
                Ok(())
            }
            Line::Damage(_) | Line::Unconfirmed(_) => self.checker.damage().map_err(wrong),
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

    /// Starts a stream. The checking pass creates it too: a volatile stream costs nothing and
    /// validates its metadata.
    fn stream(&mut self, id: StreamId, line: &StreamLine, fork: Option<ForkBase>) -> Result<()> {
        let existing = ExistingStream::find(self.engine, id).filter(|_| self.resumes);
        if existing.as_ref().is_some_and(|existing| !existing.begins_as(line, fork)) {
            return Err(Error::new(ErrorKind::StreamExists(id), "import"));
        }
        let is_committed = existing.is_some();
        let existing_state = existing.as_ref().map_or(StreamState::Active, ExistingStream::state);
        self.stream = Some(ImportedStream {
            stream: self.handle(id, line, fork, existing.as_ref())?,
            start: line.start,
            state: StreamState::from(line.state),
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

    fn handle(
        &self,
        id: StreamId,
        line: &StreamLine,
        fork: Option<ForkBase>,
        existing: Option<&ExistingStream>,
    ) -> Result<Stream> {
        let options = StreamOptions::new().ring_bytes_max(self.engine.options.memory_bytes_max);
        let options = options.event_bytes_max(self.engine.options.memory_bytes_max);
        match existing.map(ExistingStream::state) {
            Some(StreamState::Deleted) => return Stream::gone(self.engine, id, &options),
            Some(_) => return Stream::open(self.engine, id, &options),
            None => {}
        }
        let mut stream = Stream::of_id(self.engine, id, &options)?;
        if let Some(fork) = fork {
            stream.share(fork.base, fork.generation, fork.seq);
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
            let parent_id = id(&parent.id).map_err(|what| self.wrong(what))?;
            stream.descend(parent_id, Seq::from(parent.seq));
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
                let data = from_base64(base64).ok_or_else(|| self.wrong("invalid base 64"))?;
                stream.set_data(&data)
            }
            (Some(_), Some(_)) => {
                Err(self.wrong("a stream has data_text or data_base64, not both"))
            }
        }
    }

    fn event(&mut self, line: EventLine<'_>) -> Result<()> {
        let payload = EncodedBytes { text: line.text, json: line.json, base64: line.base64 };
        let Some(payload) = payload.bytes() else {
            let what = "an event has exactly one of text, json and base64";
            return Err(self.wrong(what));
        };
        let head = FrameHead {
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            kind: EventKind(line.kind),
            codec: CodecId(line.codec),
            time: Timestamp::from_micros(line.time_us),
        };
        self.skip(line.dropped_before);
        self.put(&head, &payload, Origin::Line)
    }

    /// Adds seqs to the gap before the next event. The checker has bounded the stream's length.
    fn skip(&mut self, seqs: u64) {
        if let Some(current) = &mut self.stream {
            current.skipped = current.skipped.saturating_add(seqs);
        }
    }

    /// Skips seqs without known events. The last of them gets a placeholder, so that they are not
    /// a gap.
    fn forgotten(&mut self, seqs: u64) -> Result<()> {
        self.skip(seqs.saturating_sub(1));
        self.put_placeholder()
    }

    /// Ends the stream or generation in a gap, if seqs were skipped after the last event.
    fn end_in_gap(&mut self) -> Result<()> {
        let Some(current) = &mut self.stream else { return Ok(()) };
        if current.skipped == 0 {
            return Ok(());
        }
        current.has_events = true;
        let (generation, from, end) = (current.generation, current.next, current.seq());
        match &mut current.existing {
            Some(existing) if existing.is_past(generation, end.saturating_sub(1)) => {
                if self.mode == Mode::Check && !existing.is_gap(generation, from..end)? {
                    return Err(current.differs());
                }
            }
            _ => {
                current.leave_existing()?;
                self.commit()?;
                if let Some(current) = self.stream.as_mut().filter(|_| self.mode == Mode::Write) {
                    current.stream.skip(current.skipped);
                }
                self.commit()?;
            }
        }
        self.move_to(end);
        Ok(())
    }

    /// Puts an empty event that no stream will show.
    fn put_placeholder(&mut self) -> Result<()> {
        let head = FrameHead {
            payload_bytes: 0,
            kind: EventKind::default(),
            codec: CodecId::RAW,
            time: Timestamp::default(),
        };
        self.put(&head, &[], Origin::Placeholder)
    }

    /// Appends the next event, or compares it if the log has it.
    fn put(&mut self, head: &FrameHead, payload: &[u8], origin: Origin) -> Result<()> {
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.has_events = true;
        let seq = current.seq();
        let generation = current.generation;
        match &mut current.existing {
            Some(existing) if existing.is_past(generation, seq) => {
                let compares = self.mode == Mode::Check && origin == Origin::Line;
                if compares && !existing.holds((generation, current.next), seq, head, payload)? {
                    return Err(current.differs());
                }
            }
            _ => {
                current.leave_existing()?;
                self.append(head, payload)?;
            }
        }
        self.move_to(seq.saturating_add(1));
        Ok(())
    }

    fn move_to(&mut self, seq: u64) {
        if let Some(current) = &mut self.stream {
            current.next = seq;
            current.skipped = 0;
        }
    }

    fn append(&mut self, head: &FrameHead, payload: &[u8]) -> Result<()> {
        let refused = |reason| Error::new(ErrorKind::Refused(reason), "import");
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.stream.admits(payload.len()).map_err(refused)?;
        if self.mode == Mode::Check {
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
        if let Err(AppendError::RingFull { .. } | AppendError::MemoryFull { .. }) = appended {
            self.commit()?;
            self.wait_for_commits()?;
            let Some(current) = &mut self.stream else { return Ok(()) };
            appended = current.stream.append_at(head, payload);
        }
        appended.map_err(refused)?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        current.buffered = current.buffered.saturating_add(head.frame_bytes() as u64);
        let is_much = current.buffered >= COMMIT_BYTES || broken(Sabotage::ImportApart);
        if is_much { self.commit() } else { Ok(()) }
    }

    fn rewind(&mut self, to: u64) -> Result<()> {
        self.end_in_gap()?;
        let Some(current) = &mut self.stream else { return Ok(()) };
        let generation = current.generation;
        let existing = current.existing.as_ref();
        let is_done = existing.is_some_and(|existing| existing.is_past(generation, u64::MAX));
        if !is_done {
            current.leave_existing()?;
        }
        (current.generation, current.next) = (generation.saturating_add(1), to);
        if self.mode == Mode::Check || is_done {
            return Ok(());
        }
        self.commit()?;
        // The events of a failed commit would return after the rewind.
        self.wait_for_commits()?;
        match &mut self.stream {
            Some(current) => {
                current.stream.rewind_as(to);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Starts a commit of the buffered events, if any.
    fn commit(&mut self) -> Result<()> {
        let Some(current) = self.stream.as_mut().filter(|current| current.stream.has_news()) else {
            return Ok(());
        };
        if self.mode == Mode::Check {
            return Ok(());
        }
        let expect = if current.is_committed { Expect::Seen } else { Expect::NoStream };
        let options = CommitOptions::new().expect(expect);
        let ticket = current.stream.commit_behind(&mut self.last, options);
        ticket.start();
        current.is_committed = true;
        let bytes = std::mem::take(&mut current.buffered);
        self.flight.push_back((bytes, ticket));
        self.flight_bytes = self.flight_bytes.saturating_add(bytes);
        while self.flight_bytes > FLIGHT_BYTES_MAX || self.flight.len() > FLIGHT_COMMITS_MAX {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn finish_stream(&mut self) -> Result<()> {
        self.end_in_gap()?;
        let Some(current) = &mut self.stream else { return Ok(()) };
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
        if ends_later && self.mode == Mode::Write {
            self.later.push((id, start, state));
        }
        self.commit()?;
        self.stream = None;
        Ok(())
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
                self.commits = self.commits.saturating_add(1);
                stream.trim(start)?;
                stream.commit().wait()?;
            }
            let ticket = match state {
                _ if state == existing.state() => continue,
                StreamState::Active => continue,
                StreamState::Archived => stream.archive(),
                StreamState::Deleted => stream.delete(),
            };
            self.commits = self.commits.saturating_add(1);
            ticket.wait()?;
        }
        Ok(())
    }

    /// Waits for the oldest commit in flight. Returns `Ok(false)` if there is none.
    fn wait_for_oldest(&mut self) -> Result<bool> {
        let Some((bytes, ticket)) = self.flight.pop_front() else { return Ok(false) };
        self.flight_bytes = self.flight_bytes.saturating_sub(bytes);
        ticket.wait()?;
        self.commits = self.commits.saturating_add(1);
        Ok(true)
    }

    fn wait_for_commits(&mut self) -> Result<()> {
        while self.wait_for_oldest()? {}
        Ok(())
    }
}

impl ImportedStream {
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

fn id(text: &str) -> std::result::Result<StreamId, Wrong> {
    text.parse().map_err(|_| "invalid stream id")
}

fn fork(line: &StreamLine) -> std::result::Result<Option<ForkBase>, Wrong> {
    let Some(shares) = &line.shares else { return Ok(None) };
    let base = id(&shares.id)?;
    Ok(Some(ForkBase { base, generation: shares.generation, seq: shares.seq }))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "import").because(error)
}
