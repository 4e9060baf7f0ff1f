//! A log and its handles, each operation done on them and in their models.

use std::rc::Rc;

use amberlog::sim::{Fault, SimDisk};
use amberlog::{AppendError, ErrorKind, Event, Expect, Log, Options, Savepoint, StreamId};

use super::hand::{Hand, one_gap, options};
use super::ops::{Expected, Op, Then};
use super::oracle::{AtLeast, Life as Lives, Oracle, State, brief};
use super::reading::{self, Unread};
use super::script::RingKind;
use super::settle::{Queued, is_deleted};
use super::tally::Tally;

const HANDS_MAX: usize = 6;
/// Maximum number of streams that have handles.
const STREAMS_MAX: usize = 3;
const SAVED_MAX: usize = 4;
/// Operations that a poisoned log is used for, before it is opened again.
const POISONED_OPS_MAX: u32 = 6;

/// A log, and what should be in it.
pub struct Life {
    pub(super) disk: SimDisk,
    log: Option<Log>,
    pub(super) oracle: Oracle,
    pub(super) hands: Vec<Hand>,
    pub(super) queued: Vec<Queued>,
    pub(super) tally: Tally,
    /// Position at the last opening.
    pub(super) position: u64,
    /// A fault for the next group: the number of calls before it.
    pub(super) armed: Option<(u64, Fault)>,
    /// Faults before the last opening.
    pub(super) fired: u64,
    pub(super) poisoned: bool,
    poisoned_ops: u32,
    numbers: u64,
}

fn log_options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

impl Life {
    pub fn new(seed: u64) -> Result<Self, String> {
        let disk = SimDisk::new(seed);
        let log = Some(log_options().open_on(&disk).map_err(|error| error.to_string())?);
        Ok(Self {
            disk,
            log,
            oracle: Oracle::default(),
            hands: Vec::new(),
            queued: Vec::new(),
            tally: Tally::default(),
            position: 0,
            armed: None,
            fired: 0,
            poisoned: false,
            poisoned_ops: 0,
            numbers: 0,
        })
    }

    pub fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Create { ring } => self.create(ring)?,
            Op::OpenStream { stream, ring } => self.open_stream(stream, ring)?,
            Op::CommitAll { handles, expected, then } => {
                let mut some: Vec<usize> = Vec::new();
                for at in (0..self.hands.len()).filter(|at| handles >> at & 1 == 1) {
                    if some.iter().all(|other| self.hands[*other].id != self.hands[at].id) {
                        some.push(at);
                    }
                }
                self.commit(&some, expected, then)?;
            }
            Op::Settle => self.settle()?,
            Op::Fail { calls, fault } => self.armed = Some((u64::from(calls), fault)),
            Op::Space => self.disk.set_capacity(u64::MAX),
            Op::Reopen => self.reopen()?,
            Op::PowerCut { seed } => self.power_cut(seed)?,
            _ => self.of_hand(op)?,
        }
        self.poisoned_ops = if self.poisoned { self.poisoned_ops + 1 } else { 0 };
        if self.poisoned_ops > POISONED_OPS_MAX {
            self.reopen()?;
        }
        self.look(false)
    }

    fn of_hand(&mut self, op: Op) -> Result<(), String> {
        if self.hands.is_empty() {
            self.create(RingKind::Overwriting)?;
        }
        let some = |number: u8| usize::from(number) % self.hands.len();
        match op {
            Op::Append { handle, events, bytes } => self.append(some(handle), events, bytes),
            Op::Commit { handle, expected, then } => self.commit(&[some(handle)], expected, then),
            Op::Save { handle } => {
                let at = some(handle);
                self.save(at);
                Ok(())
            }
            Op::GoBack { handle, nth } => self.go_back(some(handle), nth),
            Op::GoBackElsewhere { handle, other } => {
                let (at, other) = (some(handle), some(other));
                self.go_back_elsewhere(at, other)
            }
            Op::Discard { handle } => self.discard(some(handle)),
            Op::Rewind { handle, to } => self.rewind(some(handle), to),
            Op::Fork { handle, at, ring } => self.fork(some(handle), at, ring),
            Op::Trim { handle, to } => self.trim(some(handle), to),
            Op::Delete { handle } => self.delete(some(handle)),
            Op::Drop { handle } => {
                let at = some(handle);
                self.hands.remove(at);
                Ok(())
            }
            _ => Err("an operation of the log".into()),
        }
    }

    pub fn end(mut self) -> Result<Tally, String> {
        self.reopen()?;
        self.power_cut(0)?;
        self.look(false)?;
        Ok(self.tally)
    }

    pub(super) fn log(&self) -> Result<&Log, String> {
        self.log.as_ref().ok_or_else(|| "the log is not open".into())
    }

    pub(super) fn is_full(&self) -> bool {
        self.disk.capacity() < u64::MAX
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The oldest handle goes where there are too many, and all of a stream where there are too many streams.
    fn make_room(&mut self, id: Option<StreamId>) {
        let mut ids: Vec<_> = self.hands.iter().map(|hand| hand.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if let Some(first) = self.hands.first().map(|hand| hand.id)
            && ids.len() >= STREAMS_MAX
            && id.is_none_or(|id| !ids.contains(&id))
        {
            self.hands.retain(|hand| hand.id != first);
        }
        if self.hands.len() >= HANDS_MAX {
            self.hands.remove(0);
        }
    }

    fn create(&mut self, ring: RingKind) -> Result<(), String> {
        self.make_room(None);
        let number = self.number();
        let stream =
            self.log()?.create_stream_with(&options(ring)).map_err(|error| error.to_string())?;
        self.hands.push(Hand::new(stream, number, ring));
        Ok(())
    }

    fn open_stream(&mut self, stream: u8, ring: RingKind) -> Result<(), String> {
        let now = self.oracle.now();
        // Mostly a stream that another handle writes.
        let held = self.hands.iter().filter_map(|hand| now.get_key_value(&hand.id));
        let mut some: Vec<_> = held.chain(now.iter().next_back()).collect();
        if stream >= 224 || some.is_empty() {
            some = now.iter().collect();
        }
        let Some(nth) = usize::from(stream).checked_rem(some.len()) else { return Ok(()) };
        let (id, content) = some[nth];
        let is_deleted = content.state == Lives::Deleted;
        match self.log()?.open_stream_with(*id, &options(ring)) {
            Err(error) if is_deleted && *error.kind() == ErrorKind::Deleted(*id) => Ok(()),
            Ok(stream) if !is_deleted => {
                let number = self.number();
                let (view, generation) = (content.slots.clone(), content.generation);
                self.make_room(Some(*id));
                self.hands.push(Hand { view, generation, ..Hand::new(stream, number, ring) });
                Ok(())
            }
            other => Err(format!("opening where deleted is {is_deleted}: {other:?}")),
        }
    }

    fn append(&mut self, at: usize, events: u8, bytes: u8) -> Result<(), String> {
        for nth in 0..events {
            let mut payload = format!("{}:", self.number()).into_bytes();
            let bytes = usize::from(bytes.wrapping_mul(nth + 1) % 64);
            payload.resize(payload.len().max(bytes), b'.');
            let hand = &mut self.hands[at];
            let (head, (may_refuse, has_to)) = (hand.head(), hand.refuses(payload.len()));
            match hand.stream.append(&payload) {
                Ok(seq) if seq.get() == head && !has_to => {
                    hand.buffered.push(Some(Rc::from(payload)));
                    hand.mark = hand.mark.wrapping_add(1);
                    let overwrites = hand.ring == RingKind::Overwriting;
                    hand.note_dropped(if overwrites { hand.buffered.len() - 1 } else { 0 })?;
                    one_gap(&mut hand.buffered);
                }
                Ok(seq) => return Err(format!("seq {seq} where {head} is next, {has_to}")),
                Err(refused) => {
                    let is_full = matches!(refused, AppendError::RingFull { .. });
                    if !is_full || !may_refuse {
                        return Err(refused.to_string());
                    }
                    self.tally.note("refused");
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, some: &[usize], expected: Expected, then: Then) -> Result<(), String> {
        let Some(first) = some.first() else { return Ok(()) };
        let head = || self.oracle.now().get(&self.hands[*first].id).map(|now| now.slots.len());
        let expect = match expected {
            Expected::Seen => Expect::Seen,
            Expected::Any => Expect::Any,
            Expected::NoStream => Expect::NoStream,
            Expected::Exists => Expect::Exists,
            Expected::Head => Expect::At((head().unwrap_or(0) as u64).into()),
            Expected::Seq(seq) => Expect::At(u64::from(seq).into()),
        };
        self.queue(some, expect)?;
        if then == Then::Wait { self.settle() } else { Ok(()) }
    }

    fn save(&mut self, at: usize) {
        let hand = &mut self.hands[at];
        if hand.saved.len() == SAVED_MAX {
            hand.saved.remove(0);
        }
        hand.saved.push((hand.stream.savepoint(), hand.mark));
    }

    fn go_back(&mut self, at: usize, nth: u8) -> Result<(), String> {
        let durable = self.durable_start(at);
        let hand = &mut self.hands[at];
        let Some(nth) = usize::from(nth).checked_rem(hand.saved.len()) else { return Ok(()) };
        let (savepoint, mark) = hand.saved[nth];
        let gone = hand.mark.wrapping_sub(mark);
        let keep = (hand.buffered.len() as u64).checked_sub(gone);
        match (hand.stream.discard_to(savepoint), keep) {
            (Ok(count), Some(keep)) if count == gone => {
                hand.cut(keep);
                hand.cap_start(hand.head(), durable);
                self.tally.note("went back");
                Ok(())
            }
            (Err(error), None) if matches!(error.kind(), ErrorKind::SeqOutOfRange { .. }) => {
                self.tally.note("too late");
                Ok(())
            }
            (outcome, _) => Err(format!("{outcome:?}, where {gone} are to go and {keep:?} stay")),
        }
    }

    fn go_back_elsewhere(&mut self, at: usize, other: usize) -> Result<(), String> {
        let saved: Option<Savepoint> = self.hands[other].saved.last().map(|(saved, _)| *saved);
        let Some(saved) = saved.filter(|_| at != other) else { return Ok(()) };
        match self.hands[at].stream.discard_to(saved) {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidOption(_)) => Ok(()),
            outcome => Err(format!("a savepoint of another handle: {outcome:?}")),
        }
    }

    fn discard(&mut self, at: usize) -> Result<(), String> {
        let durable = self.durable_start(at);
        let hand = &mut self.hands[at];
        let (gone, due) = (hand.stream.discard(), hand.buffered.len() as u64);
        hand.cut(0);
        hand.cap_start(hand.head(), durable);
        if gone == due { Ok(()) } else { Err(format!("{gone} of {due} were discarded")) }
    }

    /// The first seq that a handle shows.
    pub(super) fn start(&self, now: &State, hand: &Hand) -> u64 {
        let durable = now.get(&hand.id).map_or(0, |content| content.start);
        // A trim by another handle goes no further than what this one has seen.
        let durable = durable.min(hand.durable_end());
        let taken = hand.taken_start(durable).max(hand.base_start());
        taken.max(hand.trimmed.unwrap_or(0))
    }

    pub(super) fn durable_start(&self, at: usize) -> u64 {
        self.oracle.now().get(&self.hands[at].id).map_or(0, |content| content.start)
    }

    fn rewind(&mut self, at: usize, to: u8) -> Result<(), String> {
        let now = self.oracle.now();
        let start = self.start(&now, &self.hands[at]);
        let hand = &mut self.hands[at];
        let head = hand.head();
        // Another handle may have trimmed what this one never saw.
        let Some(length) = head.checked_sub(start) else { return Ok(()) };
        let to = start + u64::from(to) % (length + 1);
        let outcome = hand.stream.rewind(to);
        if let Some(keep) = (hand.buffered.len() as u64).checked_sub(head - to) {
            hand.cut(keep);
            return outcome.map_err(|error| error.to_string());
        }
        outcome.map_err(|error| error.to_string())?;
        let is_in_flight = !hand.flying.is_empty();
        hand.rewind(to);
        let relies = hand.relies_on_flying();
        self.tally.note("rewind");
        if is_in_flight {
            self.tally.note(if relies { "rewind in flight" } else { "rewind behind" });
        }
        Ok(())
    }

    /// Whether the stream still has the first events that this handle saw. `None`: the last of them was dropped or trimmed,
    /// and such cannot be told from each other.
    fn is_kept(now: &State, hand: &Hand, shared: usize) -> Option<bool> {
        let content = now.get(&hand.id);
        let content = content.filter(|content| content.generation > hand.seen_generation());
        let (Some(content), Some(last)) = (content, shared.checked_sub(1)) else {
            return Some(true);
        };
        let seen = hand.view[last].as_ref().filter(|_| last as u64 >= content.start)?;
        Some(content.slots.get(last).is_some_and(|slot| slot.as_ref() == Some(seen)))
    }

    fn fork(&mut self, at: usize, seq: u8, ring: RingKind) -> Result<(), String> {
        let (now, number) = (self.oracle.now(), self.number());
        let parent = &self.hands[at];
        let start = self.start(&now, parent);
        if parent.durable_end() < start {
            return Ok(());
        }
        let seq = start + u64::from(seq) % (parent.head() - start + 1);
        let shared = seq.min(parent.durable_end()) as usize;
        let kept = Self::is_kept(&now, parent, shared);
        let mut buffered = parent.volatile();
        buffered.truncate(seq as usize - shared);
        one_gap(&mut buffered);
        let mut view = parent.view[..shared].to_vec();
        view[..(start as usize).min(shared)].fill(None);
        let stream = match parent.stream.fork_with(seq, &options(ring)) {
            Ok(stream) if kept != Some(false) => stream,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::Conflict { .. } if kept != Some(true) => Ok(()),
                    ErrorKind::Refused(AppendError::RingFull { .. }) if ring != RingKind::Usual => {
                        Ok(())
                    }
                    _ => Err(format!("forking at {seq}: {error}")),
                };
            }
            Ok(_) => return Err("a fork of what was rewound".into()),
        };
        let generation = stream.info().generation;
        let base = Some((view.clone(), generation, start));
        let mut child =
            Hand { view, generation, base, buffered, ..Hand::new(stream, number, ring) };
        child.mark = child.buffered.len() as u64;
        child.note_dropped(0)?;
        one_gap(&mut child.buffered);
        self.make_room(Some(child.id));
        self.hands.push(child);
        self.tally.note("fork");
        Ok(())
    }

    fn trim(&mut self, at: usize, to: u8) -> Result<(), String> {
        let start = self.start(&self.oracle.now(), &self.hands[at]);
        let durable = self.durable_start(at);
        let hand = &mut self.hands[at];
        let Some(length) = hand.head().checked_sub(start) else { return Ok(()) };
        let to = start + u64::from(to) % (length + 1);
        hand.stream.trim(to).map_err(|error| error.to_string())?;
        hand.trim(to, durable);
        if hand.rewound.is_some() {
            self.tally.note("rewind and trim");
        }
        self.tally.note(if to > hand.durable_end() { "trim of volatile events" } else { "trim" });
        Ok(())
    }

    fn delete(&mut self, at: usize) -> Result<(), String> {
        self.settle()?;
        let (hand, now) = (&mut self.hands[at], self.oracle.now());
        let (id, ticket) = (hand.id, hand.stream.delete());
        if !now.contains_key(&id) {
            self.hands.remove(at);
            return ticket.wait().map(drop).map_err(|error| error.to_string());
        }
        let number = hand.number;
        self.queue_share(ticket, &[at], Expect::Seen, Some(Lives::Deleted));
        self.settle()?;
        if !is_deleted(&self.oracle.now(), id) {
            return Ok(());
        }
        self.tally.note("deletion");
        self.hands.retain(|hand| hand.number != number);
        let others = (0..self.hands.len()).filter(|at| self.hands[*at].id == id);
        for at in others.collect::<Vec<_>>() {
            self.append(at, 1, 0)?;
            self.queue(&[at], Expect::Any)?;
        }
        self.settle()?;
        self.hands.retain(|hand| hand.id != id);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.settle()?;
        self.hands.clear();
        let closed = self.log.take().ok_or("the log is not open")?.close();
        match closed {
            Ok(()) if self.poisoned => return Err("a poisoned log closed in peace (P5)".into()),
            Err(error) if self.disk.faults_fired() == self.fired && !self.is_full() => {
                return Err(format!("closing: {error}"));
            }
            _ => {}
        }
        let next = self.disk.after_kill();
        self.go_on(next, AtLeast::Acknowledged)
    }

    fn power_cut(&mut self, seed: u8) -> Result<(), String> {
        let next = self.disk.after_power_cut(u64::from(seed));
        // What becomes of these now becomes of a machine that is gone.
        self.queued.clear();
        self.hands.clear();
        drop(self.log.take());
        self.go_on(next, AtLeast::Synced)
    }

    fn go_on(&mut self, disk: SimDisk, at_least: AtLeast) -> Result<(), String> {
        disk.forget_faults();
        disk.set_capacity(u64::MAX);
        let log = log_options().open_on(&disk).map_err(|error| format!("opening: {error}"))?;
        (self.disk, self.armed, self.poisoned) = (disk, None, false);
        self.fired = self.disk.faults_fired();
        let read_view = log.read_view();
        let found = reading::state(&read_view).map_err(told)?;
        self.oracle.may_be_found(&found, at_least)?;
        self.position = read_view.position().get();
        let before = std::mem::take(&mut self.oracle);
        self.oracle = before.reborn(found, at_least, self.position);
        self.log = Some(log);
        self.tally.note("opening");
        Ok(())
    }

    /// Every stream in a read view, and every handle, is what it should be. `settled`: nothing is in flight.
    pub(super) fn look(&self, settled: bool) -> Result<(), String> {
        let now = self.oracle.now();
        let found = reading::state(&self.log()?.read_view()).map_err(told)?;
        if found != now {
            return Err(format!("a read view shows {:?}, not {:?}", brief(&found), brief(&now)));
        }
        for hand in self.hands.iter().filter(|hand| !is_deleted(&now, hand.id)) {
            let start = self.start(&now, hand);
            let nth = hand.number;
            look_at(hand, start, settled).map_err(|what| format!("handle {nth}: {what}"))?;
        }
        Ok(())
    }
}

fn told(unread: Unread) -> String {
    let (Unread::Disk(what) | Unread::Finding(what)) = unread;
    what
}

/// Seq, number of events dropped before it, whether it is durable, payload.
type Shown = (u64, u64, bool, Vec<u8>);

fn look_at(hand: &Hand, start: u64, settled: bool) -> Result<(), String> {
    let (head, buffered) = (hand.stream.head().get(), hand.stream.buffered());
    let back = hand.flying.iter().filter(|_| settled).flat_map(|change| &change.slots);
    let due = back.chain(&hand.buffered).flatten().count() as u64;
    if (head, buffered) != (hand.head(), due) {
        return Err(format!(
            "head {head}, {buffered} buffered, where {}, {due} are due",
            hand.head()
        ));
    }
    let end = hand.durable_end();
    let slots = hand.shown();
    let (mut next, mut due) = (start, Vec::<Shown>::new());
    for (seq, slot) in (0..).zip(&slots).skip(start as usize) {
        if let Some(bytes) = slot {
            due.push((seq, seq - next, seq < end, bytes.to_vec()));
            next = seq + 1;
        }
    }
    let shown = |event: amberlog::Result<Event>| {
        let event = event.map_err(|error| error.to_string())?;
        let is_durable = event.position().is_some();
        let dropped = event.dropped_before();
        Ok((event.seq().get(), dropped, is_durable, event.payload().to_vec()))
    };
    let events = || hand.stream.events().map_err(|error| error.to_string());
    let there: Vec<Shown> = events()?.map(shown).collect::<Result<_, String>>()?;
    let mut back: Vec<Shown> = events()?.rev().map(shown).collect::<Result<_, String>>()?;
    back.reverse();
    for (way, read) in [("forwards", there), ("backwards", back)] {
        if read != due {
            return Err(format!("{way} it reads {:?}\nnot {:?}", texts(&read), texts(&due)));
        }
    }
    Ok(())
}

fn texts(shown: &[Shown]) -> Vec<String> {
    let one = |(seq, dropped, is_durable, bytes): &Shown| {
        let place = if *is_durable { "" } else { "~" };
        format!("{place}{seq}-{dropped} {}", String::from_utf8_lossy(bytes).trim_end_matches('.'))
    };
    shown.iter().map(one).collect()
}
