//! Running a script: every operation is done twice, on the log and in the oracle, and compared.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use amberlog::options::Retention;
use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    AppendError, Commit, CommitOptions, Durability, ErrorKind, Log, Options, ReadView, Rejected,
    Stream, StreamId, StreamOptions, Ticket,
};

use super::ops::{Op, Then};
use super::oracle::{Changes, Life, Oracle, Slot, State};
use super::reading::{self, Unread};
use super::script::RingKind;

pub(super) const HANDLES_MAX: usize = 8;
const PINNED_MAX: usize = 3;
/// Number of events of a stream that retention keeps.
pub(super) const EVENTS_MAX: u64 = 5;
const SMALL_RING_BYTES: usize = 2_000;
/// Maximum number of bytes of an event in a ring beside its payload.
const FRAME_BYTES_MAX: usize = 16;
const NAMES: [&str; 4] = ["", "one", "two", "three"];

/// Summary of an attack.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Power cuts and kills after which the log was opened and compared.
    pub crashes: u64,
    /// States of the disk among them that differ.
    pub states: HashSet<u64>,
    pub operations: u64,
    pub commits: u64,
    pub faults: u64,
}

impl Stats {
    /// Counts what another attack amounted to.
    pub fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.states.extend(other.states);
        self.operations += other.operations;
        self.commits += other.commits;
        self.faults += other.faults;
    }
}

/// A handle, and what it should hold.
pub(super) struct Handle {
    pub(super) number: u64,
    pub(super) stream: Stream,
    pub(super) id: StreamId,
    pub(super) ring_kind: RingKind,
    /// The name that the next commit gives the stream.
    pub(super) name: Option<String>,
    /// Committed events that it sees.
    pub(super) view: Vec<Slot>,
    /// The generation that it saw.
    pub(super) generation: u32,
    /// Events that a fork without a commit started with.
    pub(super) base: Option<(Vec<Slot>, u32, u64)>,
    /// The head that was seen when what is behind was dropped, and not committed yet.
    pub(super) rewound: Option<u64>,
    /// The start that a trim gives the stream, and no commit yet.
    pub(super) start: Option<u64>,
    /// The label that the next commit gives the stream.
    pub(super) label: Option<String>,
    /// A commit that was to write the name failed.
    pub(super) tried: bool,
    /// Events in commits whose tickets are kept, oldest first.
    pub(super) flying: Vec<Slot>,
    pub(super) ring: Vec<Slot>,
}

/// A commit whose ticket is kept.
pub(super) struct Queued {
    /// `None`: it was dropped, and its handles tell how it went.
    pub(super) ticket: Option<Ticket>,
    pub(super) durability: Durability,
    pub(super) changes: Changes,
    /// The handles that took part, also with nothing to commit.
    pub(super) handles: Vec<u64>,
    /// Ids of the changes.
    pub(super) owners: Vec<u64>,
}

/// A log under attack.
pub struct Attack {
    pub(super) disk: SimDisk,
    pub(super) log: Option<Log>,
    pub(super) oracle: Oracle,
    pub(super) handles: Vec<Handle>,
    pub(super) queued: Vec<Queued>,
    pinned: Vec<(ReadView, State)>,
    pub(super) stats: Stats,
    /// Names of dropped streams whose commit failed: another stream of that commit, which has not been used since,
    /// may still keep them from being free.
    pub(super) lingering: BTreeSet<String>,
    /// Number of outcomes tried of every power cut.
    pub(super) cuts: u64,
    /// Commits before this life.
    pub(super) position: u64,
    numbers: u64,
    /// The id of the commit that is being made.
    pub(super) id: Option<u8>,
    pub(super) full: bool,
    pub(super) poisoned: bool,
    /// Calls that went wrong before this life.
    pub(super) fired: u64,
    /// Last export.
    #[cfg(feature = "json")]
    pub(super) carried: Option<super::carry::Carried>,
    /// Faults by the number of the call, in this life or a later one.
    pub(super) planned: BTreeMap<u64, Fault>,
}

/// Small segments, so that there are many.
pub fn options() -> Options {
    let retention = Retention::new().events_max(EVENTS_MAX);
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10).retain(retention)
}

impl Attack {
    /// Starts on an empty disk. Every power cut is tried with this number of outcomes.
    ///
    /// # Errors
    ///
    /// A finding, as from every function here.
    pub fn new(disk: SimDisk, cuts: u64) -> Result<Self, String> {
        let mut attack = Self {
            disk,
            log: None,
            oracle: Oracle::default(),
            handles: Vec::new(),
            queued: Vec::new(),
            pinned: Vec::new(),
            stats: Stats::default(),
            lingering: BTreeSet::new(),
            cuts,
            position: 0,
            numbers: 0,
            id: None,
            full: false,
            poisoned: false,
            fired: 0,
            #[cfg(feature = "json")]
            carried: None,
            planned: BTreeMap::new(),
        };
        attack.log = Some(options().open_on(&attack.disk).map_err(|error| error.to_string())?);
        Ok(attack)
    }

    /// Runs a script on an empty disk, ends with a power cut, and says what it amounted to.
    pub fn script(disk: SimDisk, cuts: u64, ops: &[Op]) -> Result<Stats, String> {
        let mut attack = Self::new(disk, cuts)?;
        for (at, op) in ops.iter().enumerate() {
            attack.step(*op).map_err(|what| format!("operation {at}, {op:?}: {what}"))?;
        }
        attack.step(Op::PowerCut { seed: 0 }).map_err(|what| format!("at the end: {what}"))?;
        Ok(attack.stats)
    }

    /// The calls that the disk has seen.
    pub fn calls(&self) -> u64 {
        self.disk.calls()
    }

    /// The disk as it is.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The machine has stopped; only a crash leads on.
    pub fn is_stopped(&self) -> bool {
        let calls = self.disk.calls();
        self.planned.iter().any(|(call, fault)| *call < calls && *fault == Fault::Crash)
    }

    /// Returns the summary so far.
    pub fn stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    /// Does one operation. A machine that stops is switched on again after a power cut.
    pub fn step(&mut self, op: Op) -> Result<(), String> {
        let calls = self.disk.calls();
        self.apply(op)?;
        if self.is_stopped() {
            return self.crash(Some(calls));
        }
        self.look_at_handles()
    }

    /// Runs a script as far as the machine lets it.
    pub fn until_stopped(&mut self, ops: &[Op]) -> Result<(), String> {
        for op in ops {
            self.apply(*op)?;
            if self.is_stopped() {
                return Ok(());
            }
            self.look_at_handles()?;
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), String> {
        self.stats.operations += 1;
        let (calls, before) = (self.disk.calls(), self.disk.faults_fired());
        match op {
            Op::Create { ring, name } => self.create(ring, name)?,
            Op::Append { handle, size } => self.append(handle, size)?,
            Op::Commit { handle, durability, then } => {
                if let Some(at) = self.handle(handle) {
                    self.commit(&[at], false, durability, then)?;
                }
            }
            Op::CommitAll { handles, durability, then } => {
                let some = (0..self.handles.len()).filter(|at| handles >> at & 1 == 1);
                let some = self.one_of_each_stream(some);
                self.commit(&some, true, durability, then)?;
            }
            Op::Settle => self.settle()?,
            Op::Discard { handle } => self.discard(handle)?,
            Op::Fork { handle, at } => self.fork(handle, at)?,
            Op::Rewind { handle, to } => self.rewind(handle, to)?,
            Op::Trim { handle, to } => self.trim(handle, to)?,
            Op::State { handle, state } => self.state(handle, state)?,
            Op::Label { handle } => self.label(handle)?,
            Op::Expect { handle, what } => self.expect(handle, what)?,
            Op::CommitId { handle, id } => self.commit_id(handle, id)?,
            Op::Drop { handle } => {
                if let Some(at) = self.handle(handle) {
                    self.drop_handle(at);
                }
            }
            Op::OpenStream { stream } => self.open_stream(stream)?,
            Op::Read { handle } => self.read(handle, before)?,
            Op::Look => self.look(before)?,
            Op::LookAgain => self.look_again(before)?,
            Op::ReadOnly => self.read_only()?,
            Op::Backup { cut } => self.backup(cut, before)?,
            Op::Compact { dry_run, percent } => self.compact(dry_run, percent, before)?,
            Op::Retain { dry_run } => self.retain(dry_run, before)?,
            #[cfg(feature = "json")]
            Op::Export { streams } => self.export(streams, before)?,
            #[cfg(feature = "json")]
            Op::Import { resumes } => self.import(resumes, before)?,
            #[cfg(not(feature = "json"))]
            Op::Export { .. } | Op::Import { .. } => {}
            Op::Fail { calls: away, fault } => self.fail(calls + u64::from(away), fault),
            Op::Space => self.space(),
            Op::WriteBack => self.disk.write_back(),
            Op::Close => self.close()?,
            Op::Kill => self.crash(None)?,
            Op::PowerCut { seed } => self.crash(Some(u64::from(seed)))?,
        }
        self.full = self.disk.capacity() < u64::MAX;
        Ok(())
    }

    pub(super) fn log(&self) -> Result<&Log, String> {
        self.log.as_ref().ok_or_else(|| "the log is not open".into())
    }

    pub(super) fn handle(&self, any: u8) -> Option<usize> {
        (!self.handles.is_empty()).then(|| usize::from(any) % self.handles.len())
    }

    fn one_of_each_stream(&self, some: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        some.filter(|at| seen.insert(self.handles[*at].id)).collect()
    }

    fn create(&mut self, ring_kind: RingKind, name: u8) -> Result<(), String> {
        if self.handles.len() == HANDLES_MAX {
            self.drop_handle(0);
        }
        let name = NAMES[usize::from(name) % NAMES.len()];
        let mut how = StreamOptions::new();
        if !name.is_empty() {
            how = how.name(name);
        }
        how = ring_kind.options(how, SMALL_RING_BYTES, SMALL_RING_BYTES);
        let durable = self.oracle.now();
        let taken = !name.is_empty()
            && (durable.values().any(|content| content.name.as_deref() == Some(name))
                || self.handles.iter().any(|handle| handle.name.as_deref() == Some(name))
                || self
                    .queued
                    .iter()
                    .flat_map(|one| &one.changes)
                    .any(|change| change.name.as_deref() == Some(name)));
        match self.log()?.create_stream_with(&how) {
            Ok(stream) if !taken => {
                let (number, id) = (self.number(), stream.id());
                let name = (!name.is_empty()).then(|| name.to_owned());
                let handle = Handle { name, ring_kind, ..Handle::new(number, stream, id) };
                self.handles.push(handle);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::NameTaken { .. }) => {
                let excused = taken || self.lingering.contains(name);
                if excused { Ok(()) } else { Err(format!("nobody has the name: {error}")) }
            }
            Ok(_) => Err(format!("a second stream is named {name}")),
            Err(error) => Err(format!("a stream could not be made: {error}")),
        }
    }

    pub(super) fn drop_handle(&mut self, at: usize) {
        let handle = self.handles.remove(at);
        if handle.tried {
            self.lingering.extend(handle.name);
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn append(&mut self, handle: u8, size: u8) -> Result<(), String> {
        if self.handles.is_empty() {
            self.create(RingKind::Usual, 0)?;
        }
        let number = self.number();
        let Some(at) = self.handle(handle) else { return Ok(()) };
        let payload = payload(number, size);
        let handle = &mut self.handles[at];
        let seq = handle.head();
        match handle.stream.try_append(&payload) {
            Ok(given) if given.get() == seq => handle.ring.push(Some(Rc::from(payload))),
            Ok(given) => return Err(format!("seq {given} was given where {seq} is next (P7)")),
            Err(Rejected { error: reason, event }) => {
                if reason == AppendError::Archived && event.payload == &payload {
                    let now = self.oracle.now();
                    let is_archived =
                        now.get(&handle.id).is_some_and(|content| content.state == Life::Archived);
                    return if is_archived { Ok(()) } else { Err("it is not archived".into()) };
                }
                let small = handle.ring_kind != RingKind::Usual;
                let alone = handle.ring.is_empty() && handle.flying.is_empty();
                let fits = payload.len() + FRAME_BYTES_MAX <= SMALL_RING_BYTES;
                let full = matches!(
                    reason,
                    AppendError::RingFull { .. } | AppendError::EventTooLarge { .. }
                );
                if event.payload != &payload || !full || !small || (alone && fits) {
                    return Err(format!("an event was refused: {reason:?} (P10)"));
                }
            }
        }
        self.note_dropped(at)
    }

    /// Learns from a flight recorder what it dropped, and whether it had to.
    pub(super) fn note_dropped(&mut self, at: usize) -> Result<(), String> {
        let handle = &mut self.handles[at];
        if handle.ring_kind != RingKind::Overwriting {
            return Ok(());
        }
        if handle.is_blind() {
            return Ok(());
        }
        let events = handle.stream.events().map_err(|error| error.to_string())?;
        let mut kept = BTreeSet::new();
        for event in events.range(handle.first()..) {
            let event = event.map_err(|error| error.to_string())?;
            kept.insert(event.seq().get());
        }
        let bytes: usize =
            handle.ring.iter().flatten().map(|bytes| bytes.len() + FRAME_BYTES_MAX).sum();
        // Commits in flight hold whole buffers, however little is in them.
        let had_room = handle.flying.is_empty()
            && bytes <= SMALL_RING_BYTES
            && handle.ring.iter().all(Option::is_some);
        let mut gone = 0;
        for (seq, slot) in (handle.first()..).zip(handle.flying.iter_mut().chain(&mut handle.ring))
        {
            if !kept.contains(&seq) {
                gone += u64::from(slot.is_some());
                *slot = None;
            }
        }
        if gone > 0 && had_room {
            return Err(format!("{gone} events were dropped though there was room (P10)"));
        }
        if handle.has_events() && handle.ring.last().is_some_and(Option::is_none) {
            return Err("the newest event was dropped (P10)".into());
        }
        Ok(())
    }

    fn look_at_handles(&mut self) -> Result<(), String> {
        for at in 0..self.handles.len() {
            self.note_dropped(at)?;
            let handle = &self.handles[at];
            let kept = handle.ring.iter().flatten().count() as u64;
            let knows = handle.stream.buffered() == kept || handle.is_blind();
            if handle.stream.head().get() != handle.head() || !knows {
                return Err(format!(
                    "a handle says head {}, {} buffered; it should say {}, {kept} (P5, P9)",
                    handle.stream.head(),
                    handle.stream.buffered(),
                    handle.head(),
                ));
            }
        }
        Ok(())
    }

    fn discard(&mut self, handle: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        let taken = self.taken_start(at);
        let handle = &mut self.handles[at];
        let gone = handle.stream.discard();
        let expected = handle.ring.len() as u64;
        handle.ring.clear();
        handle.start = handle.start_up_to(handle.head(), taken);
        if gone == expected { Ok(()) } else { Err(format!("{gone} discarded of {expected}")) }
    }

    fn open_stream(&mut self, stream: u8) -> Result<(), String> {
        let mut durable = self.oracle.now();
        durable.retain(|_, content| content.state != Life::Deleted);
        if durable.is_empty() || self.handles.len() == HANDLES_MAX {
            return Ok(());
        }
        let at = usize::from(stream) % durable.len();
        let Some((id, content)) = durable.iter().nth(at) else { return Ok(()) };
        let stream = self.log()?.open_stream(*id).map_err(|error| format!("opening: {error}"))?;
        let number = self.number();
        self.handles.push(Handle {
            view: content.slots.clone(),
            generation: content.generation,
            ..Handle::new(number, stream, *id)
        });
        Ok(())
    }

    fn read(&mut self, handle: u8, fired: u64) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        let (handle, start) = (&self.handles[at], self.start(at));
        let mut expected = handle.view.clone();
        expected.extend(handle.flying.iter().chain(&handle.ring).cloned());
        // Another handle may have trimmed what this one has dropped.
        let start = start.min(expected.len() as u64);
        expected.drain(..start as usize);
        let events = handle.stream.events().map_err(|error| error.to_string())?;
        // No record tells the end of a gap that nothing follows.
        let shown = expected.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        expected.truncate(shown);
        match reading::slots(events, start) {
            Ok(slots) if slots == expected => Ok(()),
            Ok(slots) => {
                let counts = (slots.len(), expected.len());
                Err(format!("a handle reads something else: {counts:?} events (P9)"))
            }
            Err(Unread::Disk(_)) if self.disk.faults_fired() > fired => Ok(()),
            Err(Unread::Disk(what) | Unread::Finding(what)) => Err(format!("reading: {what}")),
        }
    }

    fn look(&mut self, fired: u64) -> Result<(), String> {
        let read_view = self.log()?.read_view();
        let expected = self.oracle.now();
        self.compare(&read_view, &expected, fired)?;
        let position = self.position + self.oracle.commits();
        if read_view.position().get() != position {
            return Err(format!("position {} where {position} commits are", read_view.position()));
        }
        if self.pinned.len() == PINNED_MAX {
            self.pinned.remove(0);
        }
        self.pinned.push((read_view, expected));
        Ok(())
    }

    fn look_again(&mut self, fired: u64) -> Result<(), String> {
        for (read_view, expected) in &self.pinned {
            self.compare(read_view, expected, fired)?;
        }
        Ok(())
    }

    pub(super) fn compare(
        &self,
        read_view: &ReadView,
        expected: &State,
        fired: u64,
    ) -> Result<(), String> {
        match reading::state(read_view) {
            Ok(shown) if shown == *expected => Ok(()),
            Ok(shown) => {
                let (shown, expected) =
                    (super::oracle::brief(&shown), super::oracle::brief(expected));
                Err(format!("a read view shows {shown:?}, not {expected:?} (F6, P12)"))
            }
            Err(Unread::Disk(_)) if self.disk.faults_fired() > fired => Ok(()),
            Err(Unread::Disk(what) | Unread::Finding(what)) => Err(format!("reading: {what}")),
        }
    }

    /// Reads as another process would, on a copy, so that its calls are not counted.
    fn read_only(&mut self) -> Result<(), String> {
        let shown = self.read_only_on(&self.disk.copy())?;
        match shown {
            Some(shown) if self.disk.faults_fired() == self.fired && !self.full => {
                if shown == self.oracle.now() {
                    Ok(())
                } else {
                    Err("another process does not see what is acknowledged (P12)".into())
                }
            }
            _ => Ok(()),
        }
    }

    /// Lets the call of this number go wrong.
    pub fn fail(&mut self, call: u64, fault: Fault) {
        self.planned.insert(call, fault);
        self.disk.fail_at(call, fault);
    }

    fn space(&mut self) {
        self.disk.set_capacity(u64::MAX);
        self.full = false;
    }

    pub(super) fn forget_handles(&mut self) {
        self.handles.clear();
        self.queued.clear();
        self.pinned.clear();
        self.lingering.clear();
        self.log = None;
    }
}

impl Handle {
    pub(super) fn new(number: u64, stream: Stream, id: StreamId) -> Self {
        Self {
            number,
            stream,
            id,
            ring_kind: RingKind::Usual,
            name: None,
            view: Vec::new(),
            generation: 0,
            base: None,
            rewound: None,
            start: None,
            label: None,
            tried: false,
            flying: Vec::new(),
            ring: Vec::new(),
        }
    }

    /// The seq of the first event that is not committed.
    pub(super) fn first(&self) -> u64 {
        self.view.len() as u64
    }

    pub(super) fn head(&self) -> u64 {
        self.first() + (self.flying.len() + self.ring.len()) as u64
    }

    /// Another handle has trimmed what this flight recorder never saw: it does not show what it has, and so nobody knows
    /// what it drops; it cannot commit it either.
    fn is_blind(&self) -> bool {
        let start = self.stream.info().start.get();
        self.ring_kind == RingKind::Overwriting && start > self.first()
    }

    /// Returns whether a commit takes events: a gap at the end of the ring is not committed.
    pub(super) fn has_events(&self) -> bool {
        self.ring.iter().any(Option::is_some)
    }

    /// Returns whether a commit changes anything beside events.
    pub(super) fn has_changes(&self) -> bool {
        self.name.is_some() || self.label.is_some() || self.rewound.is_some() || self.base.is_some()
    }
}

/// Bytes that no other event has, if there is room for that.
fn payload(number: u64, size: u8) -> Vec<u8> {
    const SIZES: [usize; 16] =
        [0, 1, 7, 40, 100, 100, 250, 400, 500, 600, 600, 600, 700, 1_200, 9_000, 20_000];
    let size = SIZES[usize::from(size) % SIZES.len()];
    let number = number.to_le_bytes();
    (0..size).map(|at| number[at % 8] ^ (at / 8) as u8).collect()
}
