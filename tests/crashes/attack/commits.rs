//! Commits: what is asked for, and whether each outcome is what it must be.

use std::collections::BTreeSet;

use amberlog::{Commit, CommitOptions, Durability, ErrorKind, Ticket};

use super::ops::Then;
use super::oracle::{Change, Changes, Life, State};
use super::run::{Attack, Handle, Queued};

impl Attack {
    pub(super) fn commit(
        &mut self,
        some: &[usize],
        together: bool,
        durability: Durability,
        then: Then,
    ) -> Result<(), String> {
        self.commit_how(some, together, CommitOptions::new().durability(durability), then)
    }

    pub(super) fn commit_how(
        &mut self,
        some: &[usize],
        together: bool,
        how: CommitOptions,
        then: Then,
    ) -> Result<(), String> {
        let fired = self.disk.faults_fired();
        let durability =
            if format!("{how:?}").contains("Os") { Durability::Os } else { Durability::Disk };
        let log = self.log.clone().ok_or("the log is not open")?;
        let ticket = if together {
            let members = self.handles.iter_mut().enumerate();
            let members = members.filter(|(at, _)| some.contains(at));
            log.commit_all_with(members.map(|(_, handle)| &mut handle.stream), how)
        } else {
            match some {
                [one] => self.handles[*one].stream.commit_with(how),
                _ => return Ok(()),
            }
        };
        let (mut changes, mut handles, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for at in some {
            // Events that came back from a failed commit were put in front just now, and the oldest may have had
            // to go.
            self.note_dropped(*at)?;
            let taken = self.taken_start(*at);
            let handle = &mut self.handles[*at];
            handles.push(handle.number);
            let trims = handle.next_start(taken).is_some();
            if !handle.has_events() && !handle.has_changes() && !trims {
                continue;
            }
            owners.push(handle.number);
            let id = self.id.take();
            changes.push(Change { id, ..handle.change(taken) });
        }
        // Whether events come back tells how a commit went whose ticket is dropped.
        let tells = !changes.iter().any(|change: &Change| change.slots.is_empty());
        let ticket = (then != Then::Drop || !tells).then_some(ticket);
        self.queued.push(Queued { ticket, durability, changes, handles, owners });
        if then == Then::Keep { Ok(()) } else { self.settle_since(fired) }
    }

    /// Waits for all tickets, and compares each outcome with what it must be.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.settle_since(self.disk.faults_fired())
    }

    /// `fired`: how many calls had gone wrong before the first of them may have been led for.
    pub(super) fn settle_since(&mut self, fired: u64) -> Result<(), String> {
        let queued = std::mem::take(&mut self.queued);
        let outcomes: Vec<_> = queued
            .into_iter()
            .map(|one| {
                let Queued { ticket, durability, changes, handles, owners } = one;
                (ticket.map(Ticket::wait), durability, changes, handles, owners)
            })
            .collect();
        self.full = self.disk.capacity() < u64::MAX;
        let excused = self.disk.faults_fired() > fired || self.full;
        let mut heads = self.oracle.now();
        let (mut failed, mut group) = (BTreeSet::new(), Vec::new());
        let was_poisoned = self.poisoned;
        for (outcome, durability, changes, handles, owners) in outcomes {
            let behind = handles.iter().any(|handle| failed.contains(handle));
            let moved = changes.iter().any(|change| has_moved(&heads, change));
            let locked = changes.iter().any(|change| is_locked(&heads, change));
            let known = changes.iter().find_map(|change| change.id);
            let again = known.and_then(|id| self.oracle.ids().get(&id).copied());
            let told = outcome.is_some();
            let succeeded = match &outcome {
                Some(outcome) => outcome.is_ok(),
                None => !self.is_back(&owners),
            };
            if succeeded && !changes.is_empty() && (behind || self.poisoned) {
                return Err("a commit succeeded behind one that failed (P5, F8)".into());
            }
            if succeeded && moved {
                return Err("a stream that had moved was written (P8)".into());
            }
            if succeeded && locked {
                return Err("a stream that is archived or deleted was written".into());
            }
            if succeeded && again.is_some() {
                return Err("a commit of the same id was made twice".into());
            }
            match outcome {
                Some(Ok(_)) if behind || self.poisoned => {
                    return Err("a commit of nothing hides a failure (F7)".into());
                }
                Some(Ok(_)) | None if succeeded => {
                    if let Some(Ok(commit)) = outcome {
                        self.check_commit(&commit, durability, &changes)?;
                    }
                    self.land(&changes, &owners);
                    if !changes.is_empty() {
                        self.stats.commits += 1;
                        self.oracle.succeeded(changes.clone());
                    }
                    if durability == Durability::Disk && told {
                        self.oracle.synced();
                    }
                    add(&mut heads, &changes);
                }
                outcome => {
                    self.return_names(&changes, &owners);
                    failed.extend(owners);
                    let refused = match &outcome {
                        Some(Err(error)) => {
                            let expected = match error.kind() {
                                ErrorKind::Archived(_) | ErrorKind::Trimmed { .. } => {
                                    locked || behind
                                }
                                ErrorKind::AlreadyCommitted { position } => {
                                    again == Some(position.get()) || behind
                                }
                                _ => false,
                            };
                            if !expected {
                                self.check_failure(error, (behind, moved), excused, was_poisoned)?;
                            }
                            let kind = error.kind();
                            // What failed while it was synced may be on the disk.
                            let is_refused = match kind {
                                ErrorKind::Conflict { .. } => true,
                                ErrorKind::Poisoned => was_poisoned,
                                _ => false,
                            };
                            expected || is_refused
                        }
                        _ => moved || locked || again.is_some(),
                    };
                    if !refused && !changes.is_empty() {
                        add(&mut heads, &changes);
                        group.push(changes);
                    }
                }
            }
        }
        self.oracle.failed(group);
        self.give_back();
        Ok(())
    }

    /// Returns whether the events of a commit came back, all or none.
    fn is_back(&self, owners: &[u64]) -> bool {
        let mut owners = self.handles.iter().filter(|handle| owners.contains(&handle.number));
        owners.any(|handle| handle.stream.buffered() > 0 || !handle.stream.is_durable())
    }

    fn check_commit(
        &self,
        commit: &Commit,
        durability: Durability,
        changes: &Changes,
    ) -> Result<(), String> {
        let position = self.position + self.oracle.commits() + u64::from(!changes.is_empty());
        if commit.position.get() != position {
            return Err(format!("position {} where {position} is next (P7)", commit.position));
        }
        if commit.durability != durability {
            return Err("another durability than was asked for".into());
        }
        if let Some(first) = changes.first() {
            let dropped = first.slots.iter().filter(|slot| slot.is_none()).count() as u64;
            let (start, end) = (commit.seqs.start.get(), commit.seqs.end.get());
            let (at, count) = (first.first(), first.slots.len() as u64);
            let is_empty = first.slots.is_empty() && start == end;
            if !is_empty && (start != at + dropped || end != at + count) {
                return Err(format!("seqs {start}..{end}, but the commit began at {at}"));
            }
        }
        Ok(())
    }

    fn check_failure(
        &mut self,
        error: &amberlog::Error,
        (behind, moved): (bool, bool),
        excused: bool,
        was_poisoned: bool,
    ) -> Result<(), String> {
        match error.kind() {
            ErrorKind::Poisoned if self.disk.faults_fired() > self.fired => {
                self.poisoned = true;
                Ok(())
            }
            _ if was_poisoned => Err(format!("a poisoned log says {error} (F8)")),
            ErrorKind::Conflict { .. } if moved || behind => Ok(()),
            ErrorKind::Io | ErrorKind::StorageFull if excused || behind => Ok(()),
            _ => Err(format!("a commit failed for no reason: {error} ({:?})", error.kind())),
        }
    }

    /// Events of a commit that succeeded are not the handle's any more.
    fn land(&mut self, changes: &Changes, owners: &[u64]) {
        for change in changes {
            let theirs =
                |handle: &&mut Handle| handle.id == change.id() && owners.contains(&handle.number);
            if let Some(handle) = self.handles.iter_mut().find(theirs) {
                handle.land(change);
            }
        }
    }

    fn return_names(&mut self, changes: &Changes, owners: &[u64]) {
        for change in changes {
            let owner = self
                .handles
                .iter_mut()
                .find(|handle| handle.id == change.id() && owners.contains(&handle.number));
            if let Some(owner) = owner {
                owner.tried |= change.name.is_some();
                owner.take_back(change);
            }
        }
    }

    /// Events of commits that failed are back in their rings (P5).
    fn give_back(&mut self) {
        for handle in &mut self.handles {
            let newer = std::mem::take(&mut handle.ring);
            handle.ring = std::mem::take(&mut handle.flying);
            handle.ring.extend(newer);
        }
    }
}

fn add(heads: &mut State, changes: &Changes) {
    super::oracle::apply(heads, changes);
}

/// Returns whether the stream is not where the commit expects it (P8).
fn has_moved(heads: &State, change: &Change) -> bool {
    match heads.get(&change.id()) {
        None => change.at != change.base.as_ref().map_or(0, |(slots, ..)| slots.len() as u64),
        Some(content) => {
            content.slots.len() as u64 != change.at || content.generation != change.generation
        }
    }
}

/// Returns whether the stream's state forbids the commit.
fn is_locked(heads: &State, change: &Change) -> bool {
    let content = heads.get(&change.id());
    if change.rewind.is_some_and(|to| content.is_some_and(|content| to < content.start)) {
        return true;
    }
    match content.map(|content| content.state) {
        Some(Life::Deleted) => true,
        Some(Life::Archived) => change.writes() && change.state.is_none(),
        _ => false,
    }
}
