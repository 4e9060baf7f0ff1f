//! What a whole stream goes through: forks, rewinds, trims, states, labels, expectations, ids.

use amberlog::{
    AppendError, CommitId, CommitOptions, Durability, ErrorKind, Expect, StreamId, Ticket,
};

use super::ops::Then;
use super::oracle::{Change, Life, Slot};
use super::run::{Attack, HANDLES_MAX, Handle, Queued};
use super::script::RingKind;

impl Handle {
    /// Returns what a trim makes the start as long as the stream ends at `end`, and started at `taken` without it.
    pub(super) fn start_up_to(&self, end: u64, taken: u64) -> Option<u64> {
        self.start.and_then(|start| match start > end {
            true => Some(end).filter(|end| *end > taken),
            false => Some(start),
        })
    }

    /// Returns the start that the next commit gives the stream.
    pub(super) fn next_start(&self, taken: u64) -> Option<u64> {
        match self.has_events() {
            true => self.start,
            false => self.start_up_to(self.first() + self.flying.len() as u64, taken),
        }
    }

    /// Takes the content of the next commit.
    pub(super) fn change(&mut self, taken: u64) -> Change {
        let first = self.first() + self.flying.len() as u64;
        let start = self.next_start(taken);
        // What of a trim is beyond what the commit takes waits for the next one.
        self.start = self.start.filter(|asked| start.is_none_or(|start| start < *asked));
        let rewind = self.rewound.map(|_| first);
        let slots = if self.has_events() { std::mem::take(&mut self.ring) } else { Vec::new() };
        self.flying.extend(slots.iter().cloned());
        let change = Change {
            at: self.rewound.take().unwrap_or(first),
            base: self.base.take(),
            rewind,
            slots,
            start,
            ..self.metadata()
        };
        self.generation += u32::from(change.rewind.is_some());
        change
    }

    /// Takes what goes with another state: a rewind and a trim wait for the events that they go with.
    fn metadata(&mut self) -> Change {
        Change {
            stream: Some(self.id),
            at: self.rewound.unwrap_or(self.first() + self.flying.len() as u64),
            generation: self.generation,
            name: self.name.take(),
            label: self.label.take(),
            ..Change::default()
        }
    }

    /// Applies a commit that succeeded.
    pub(super) fn land(&mut self, change: &Change) {
        self.view.extend(self.flying.drain(..change.slots.len()));
        if let Some(start) = change.start {
            self.view[..start as usize].fill(None);
        }
    }

    /// Takes back a commit that failed, except the events, which come back together.
    pub(super) fn take_back(&mut self, change: &Change) {
        self.name = change.name.clone().or(self.name.take());
        // Labels are numbers: of several commits that failed the last one counts.
        let number = |label: &String| label.parse::<u64>().ok();
        let labels = [self.label.take(), change.label.clone()].into_iter().flatten();
        self.label = labels.max_by_key(number);
        self.base = change.base.clone().or(self.base.take());
        self.start = self.start.max(change.start);
        if change.rewind.is_some() {
            self.rewound = Some(change.at);
            self.generation -= 1;
        }
    }
}

impl Attack {
    pub(super) fn start(&self, at: usize) -> u64 {
        let handle = &self.handles[at];
        let base = handle.base.as_ref().map_or(0, |(_, _, start)| *start);
        // Another handle may have trimmed more than this one has seen.
        let durable = self.durable_start(at).min(handle.first());
        self.start_in_flight(at).max(durable).max(base).max(handle.start.unwrap_or(0))
    }

    /// The start that is committed or in flight.
    pub(super) fn taken_start(&self, at: usize) -> u64 {
        self.durable_start(at).max(self.start_in_flight(at))
    }

    fn durable_start(&self, at: usize) -> u64 {
        self.oracle.now().get(&self.handles[at].id).map_or(0, |content| content.start)
    }

    fn start_in_flight(&self, at: usize) -> u64 {
        let handle = &self.handles[at];
        let in_flight = self.queued.iter().flat_map(|one| one.owners.iter().zip(&one.changes));
        let own = in_flight.filter(|(owner, _)| **owner == handle.number);
        // A fork begins where its parent did, also while its first commit is in flight.
        let base = |change: &Change| change.base.as_ref().map(|(_, _, start)| *start);
        own.filter_map(|(_, change)| change.start.max(base(change))).max().unwrap_or(0)
    }

    fn life(&self, id: StreamId) -> Option<Life> {
        self.oracle.now().get(&id).map(|content| content.state)
    }

    /// Whether the stream still has the first `shared` events that this handle saw: another one may have rewound
    /// it. `None`: the last of them was dropped by a ring or trimmed, and such events cannot be told apart.
    fn is_kept(&self, at: usize, shared: usize) -> Option<bool> {
        let handle = &self.handles[at];
        let now = self.oracle.now();
        let content = now.get(&handle.id).filter(|now| now.generation > handle.generation);
        let (Some(content), Some(last)) = (content, shared.checked_sub(1)) else {
            return Some(true);
        };
        let seen = handle.view[last].as_ref().filter(|_| content.start <= last as u64)?;
        Some(content.slots.get(last).is_some_and(|slot| slot.as_ref() == Some(seen)))
    }

    pub(super) fn fork(&mut self, handle: u8, seq: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        if self.handles.len() == HANDLES_MAX {
            return Ok(());
        }
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let (start, parent) = (self.start(at), &self.handles[at]);
        if parent.first() < start {
            // Another handle has trimmed what this one never saw.
            return Ok(());
        }
        let all: Vec<Slot> = parent.view.iter().chain(&parent.ring).cloned().collect();
        let seq = u64::from(seq) % (parent.head() + 1);
        let shared = (seq as usize).min(parent.view.len());
        let is_kept = self.is_kept(at, shared);
        let child = match parent.stream.fork_at(seq) {
            Ok(child) if seq >= start && is_kept != Some(false) => child,
            Err(error)
                if is_kept != Some(true) && matches!(error.kind(), ErrorKind::Conflict { .. }) =>
            {
                return Ok(());
            }
            Ok(_) if is_kept == Some(false) => return Err("a fork of what was rewound".into()),
            Err(error) if seq < start && matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                return Ok(());
            }
            Ok(_) => return Err("a fork before the start".into()),
            Err(error) => return Err(format!("forking at {seq}: {error}")),
        };
        let mut view = all[..shared].to_vec();
        view[..start as usize].fill(None);
        // Of what is shared it is the generation of the newest event that counts; in the events all know theirs.
        let generation = child.info().generation;
        let ring = all[shared..seq as usize].to_vec();
        let (number, id) = (self.number(), child.id());
        let base = Some((view.clone(), generation, start));
        let child = Handle { view, generation, base, ring, ..Handle::new(number, child, id) };
        self.handles.push(child);
        Ok(())
    }

    pub(super) fn rewind(&mut self, handle: u8, to: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let start = self.start(at);
        let archived = self.life(self.handles[at].id) == Some(Life::Archived);
        let handle = &mut self.handles[at];
        let to = u64::from(to) % (handle.head() + 1);
        match handle.stream.rewind(to) {
            Err(error) => {
                let expected = match error.kind() {
                    ErrorKind::Archived(_) => archived,
                    ErrorKind::Trimmed { .. } => to < start,
                    _ => false,
                };
                return if expected { Ok(()) } else { Err(format!("rewinding: {error}")) };
            }
            Ok(()) if archived => return Err("an archived stream was rewound".into()),
            Ok(()) if to < start => return Err("a stream was rewound before its start".into()),
            Ok(()) => {}
        }
        if let Some(buffered) = to.checked_sub(handle.first()) {
            handle.ring.truncate(buffered as usize);
            return Ok(());
        }
        handle.ring.clear();
        let seen = handle.first();
        handle.view.truncate(to as usize);
        match &mut handle.base {
            Some((slots, generation, _)) => {
                slots.truncate(to as usize);
                *generation = handle.stream.info().generation;
                handle.generation = *generation;
            }
            None => handle.rewound = handle.rewound.or(Some(seen)),
        }
        Ok(())
    }

    /// Asks for something that has a ticket of its own, and waits.
    fn ask(&mut self, at: usize, ticket: Ticket, life: Life) -> Result<(), String> {
        let fired = self.disk.faults_fired();
        let handle = &mut self.handles[at];
        let change = Change { state: Some(life), ..handle.metadata() };
        let (handles, owners) = (vec![handle.number], vec![handle.number]);
        let durability = Durability::Disk;
        let ticket = Some(ticket);
        let changes = vec![change];
        self.queued.push(Queued { ticket, durability, changes, handles, owners });
        self.settle_since(fired)
    }

    /// Returns whether the stream has a commit, with nothing in flight.
    fn is_settled(&mut self, at: usize) -> Result<bool, String> {
        self.settle()?;
        Ok(!self.is_stopped() && self.life(self.handles[at].id).is_some())
    }

    pub(super) fn trim(&mut self, handle: u8, to: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        let start = self.start(at);
        let handle = &mut self.handles[at];
        // What a flight recorder drops is told by what it shows.
        let end = match handle.ring_kind {
            RingKind::Overwriting => handle.first(),
            _ => handle.head(),
        };
        let to = u64::from(to) % (end + 1);
        handle.stream.trim(to).map_err(|error| format!("trimming: {error}"))?;
        if to > start {
            handle.start = Some(to);
        }
        Ok(())
    }

    pub(super) fn state(&mut self, handle: u8, state: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        if !self.is_settled(at)? || self.poisoned {
            return Ok(());
        }
        let id = self.handles[at].id;
        let before = self.life(id);
        let (wanted, stream) = (state % 5, &mut self.handles[at].stream);
        let (ticket, life) = match wanted {
            0 | 1 if before == Some(Life::Active) => (stream.archive(), Life::Archived),
            2 | 3 if before == Some(Life::Archived) => (stream.unarchive(), Life::Active),
            4 => (stream.delete(), Life::Deleted),
            _ => return Ok(()),
        };
        self.ask(at, ticket, life)?;
        if self.is_stopped() || self.life(id) != Some(life) {
            return Ok(());
        }
        // What other handles do not know is asked elsewhere.
        let number = self.handles[at].number;
        let others = |one: &Handle| one.id == id && one.number != number;
        while let Some(other) = self.handles.iter().position(others) {
            self.drop_handle(other);
        }
        if life == Life::Deleted
            && let Some(at) = self.handles.iter().position(|one| one.id == id)
        {
            let refused = self.handles[at].stream.append("late");
            if refused != Err(AppendError::Deleted) {
                return Err(format!("a deleted stream says {refused:?}"));
            }
            self.drop_handle(at);
        }
        Ok(())
    }

    pub(super) fn label(&mut self, handle: u8) -> Result<(), String> {
        let number = self.number();
        let Some(at) = self.handle(handle) else { return Ok(()) };
        let handle = &mut self.handles[at];
        let value = number.to_string();
        handle.stream.set_label("k", &value).map_err(|error| error.to_string())?;
        handle.label = Some(value);
        Ok(())
    }

    pub(super) fn expect(&mut self, handle: u8, what: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        self.settle()?;
        // What a rewind and a trim become where the stream moved is told by the tests of several handles.
        let Handle { rewound, start, .. } = &self.handles[at];
        if self.is_stopped() || rewound.is_some() || start.is_some() {
            return Ok(());
        }
        let id = self.handles[at].id;
        let content = self.oracle.now().get(&id).cloned();
        let is_fork = self.handles[at].base.is_some();
        let head = content.as_ref().map(|content| content.slots.len() as u64);
        let (expect, holds) = match what % 4 {
            0 => (Expect::Any, true),
            1 => (Expect::NoStream, head.is_none()),
            2 => (Expect::Exists, head.is_some()),
            _ if is_fork => return Ok(()),
            _ => (Expect::At(u64::from(what / 4).into()), head.unwrap_or(0) == u64::from(what / 4)),
        };
        let handle = &mut self.handles[at];
        let is_stale =
            content.as_ref().is_some_and(|content| content.slots.len() != handle.view.len());
        if is_stale && handle.ring_kind == RingKind::Overwriting {
            // What it drops is told by seqs that are not those that it will get.
            return Ok(());
        }
        let (number, before) = (handle.number, (handle.view.clone(), handle.generation));
        if let Some(content) = content.filter(|_| holds) {
            // It goes behind what is there, wherever the handle thought that was.
            handle.view = content.slots;
            handle.generation = content.generation;
        } else if !holds {
            let outcome = handle.stream.commit_with(CommitOptions::new().expect(expect)).wait();
            let error = outcome.err().ok_or("it was not as expected (P8)")?;
            let conflict = matches!(error.kind(), ErrorKind::Conflict { .. });
            let poisoned = matches!(error.kind(), ErrorKind::Poisoned);
            self.poisoned |= poisoned && self.disk.faults_fired() > self.fired;
            let locked = matches!(error.kind(), ErrorKind::Archived(_) | ErrorKind::Deleted(_));
            let fine = conflict || self.poisoned || locked;
            return if fine { Ok(()) } else { Err(format!("{error}, not a conflict (P8)")) };
        }
        let is_empty = !handle.has_events() && !handle.has_changes();
        self.commit_how(&[at], false, CommitOptions::new().expect(expect), Then::Wait)?;
        let failed = |one: &&mut Handle| {
            one.number == number && (is_empty || one.has_events() || one.has_changes())
        };
        if let Some(handle) = self.handles.iter_mut().find(failed) {
            (handle.view, handle.generation) = before;
        }
        Ok(())
    }

    pub(super) fn commit_id(&mut self, handle: u8, id: u8) -> Result<(), String> {
        let Some(at) = self.handle(handle) else { return Ok(()) };
        self.settle()?;
        if self.is_stopped() || !self.handles[at].has_events() {
            return Ok(());
        }
        let id = id % 8;
        self.id = Some(id);
        let how = CommitOptions::new().id(CommitId::from(u128::from(id)));
        let done = self.commit_how(&[at], false, how, Then::Wait);
        self.id = None;
        done
    }
}
