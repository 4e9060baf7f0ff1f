//! Commits: what becomes of a group is said before it is led, and compared with what did.

use std::collections::BTreeMap;

use amberlog::{Commit, ErrorKind, Expect, StreamId, Ticket};

use super::hand::Hand;
use super::life::Life;
use super::oracle::{Change, Changes, Content, Life as Lives, State, apply};

/// A commit whose ticket is kept.
pub struct Queued {
    pub ticket: Ticket,
    pub expect: Expect,
    /// The handles that take part, also with nothing to commit, in order.
    pub members: Vec<u64>,
    /// Their shares, each with its handle.
    pub shares: Vec<(u64, Change)>,
    /// What a commit of nothing only compares.
    pub check: Option<Change>,
    /// Handles whose share names events that were not durable: it fails where these went elsewhere.
    pub relies: Vec<u64>,
}

/// Expected outcome of a commit on a sound disk: its changes and their places, or one of these refusals.
type Plan = Result<Changes, Vec<ErrorKind>>;

/// Plans the commits of a group, one behind the other.
struct Planner {
    state: State,
    /// Handles whose last commit fails, and as what.
    failed: BTreeMap<u64, ErrorKind>,
}

impl Planner {
    fn plan(&mut self, one: &Queued) -> Plan {
        let behind: Vec<_> =
            one.members.iter().filter_map(|member| self.failed.get(member).cloned()).collect();
        let refusals = match behind.is_empty() {
            true => {
                let shares = one.shares.iter().map(|(hand, change)| (Some(hand), change));
                let mut checked = shares.chain(one.check.iter().map(|check| (None, check)));
                checked.find_map(|(hand, change)| {
                    let relies = hand.is_some_and(|hand| one.relies.contains(hand));
                    self.refusal(change, one.expect, relies)
                })
            }
            false => None,
        };
        let refusals = if behind.is_empty() { refusals.into_iter().collect() } else { behind };
        if let Some(first) = refusals.first() {
            let shares = one.shares.iter().map(|(hand, _)| (*hand, first.clone()));
            self.failed.extend(shares);
            return Err(refusals);
        }
        let changes = one.shares.iter().map(|(_, change)| self.placed(change)).collect();
        apply(&mut self.state, &changes);
        Ok(changes)
    }

    /// Returns the state of the stream of a share.
    fn standing(&self, change: &Change) -> (u64, u32) {
        let base = || change.base.as_ref().map(|(slots, generation, _)| (slots.len(), *generation));
        let there = self.state.get(&change.id());
        let there = there.map(|content| (content.slots.len(), content.generation));
        there.or_else(base).map_or((0, 0), |(head, generation)| (head as u64, generation))
    }

    fn refusal(&self, change: &Change, expect: Expect, relies: bool) -> Option<ErrorKind> {
        let (stream, content) = (change.id(), self.state.get(&change.id()));
        if content.is_some_and(|content| content.state == Lives::Deleted) {
            return Some(ErrorKind::Deleted(stream));
        }
        let start = content.map_or(0, |content| content.start);
        if change.rewind.is_some_and(|to| to < start) {
            return Some(ErrorKind::Trimmed { stream, start: start.into() });
        }
        let (head, generation) = self.standing(change);
        let (holds, expected) = match expect {
            Expect::Any => (true, change.at),
            Expect::NoStream => (content.is_none(), 0),
            Expect::Exists => (content.is_some(), change.at),
            Expect::At(seq) => (head == seq.get(), seq.get()),
            _ => ((head, generation) == (change.at, change.generation), change.at),
        };
        let is_moved = (head, generation) != (change.at, change.generation);
        let is_regrown = change.regrown || generation != change.generation;
        let is_unseen = relies && is_moved || change.start.is_some() && is_regrown;
        let (holds, expected) = if is_unseen { (false, change.at) } else { (holds, expected) };
        let is_fine = holds && change.rewind.is_none_or(|to| to <= head);
        let conflict =
            ErrorKind::Conflict { stream, expected: expected.into(), actual: head.into() };
        (!is_fine).then_some(conflict)
    }

    /// A share where it really goes.
    fn placed(&self, change: &Change) -> Change {
        let (at, generation) = self.standing(change);
        Change { at, generation, ..change.clone() }
    }
}

impl Life {
    /// Waits for all tickets, compares every outcome with what it must be, and lets failed commits give back.
    pub fn settle(&mut self) -> Result<(), String> {
        let queued = std::mem::take(&mut self.queued);
        let mut planner = Planner { state: self.oracle.now(), failed: BTreeMap::new() };
        let plans: Vec<_> = queued.iter().map(|one| planner.plan(one)).collect();
        let fired = self.disk.faults_fired();
        if let Some((calls, fault)) = self.armed.take_if(|_| !queued.is_empty()) {
            self.disk.fail_at(self.disk.calls() + calls, fault);
        }
        let outcomes: Vec<_> =
            queued.into_iter().map(|one| (one.ticket.wait(), one.members, one.shares)).collect();
        self.disk.forget_faults();
        let has_fired = self.disk.faults_fired() > fired;
        self.tally.note(if has_fired { "fault" } else { "no fault" });
        let excused = has_fired || self.is_full();
        let was_poisoned = self.poisoned;
        let (mut failed, mut group) = (Vec::new(), Vec::new());
        for (plan, (outcome, members, shares)) in plans.into_iter().zip(outcomes) {
            let is_behind = members.iter().any(|member| failed.contains(member));
            match outcome {
                Ok(_) if is_behind => return Err("a commit hides one that failed (F7)".into()),
                Ok(_) if self.poisoned => return Err("a poisoned log commits (F8)".into()),
                Ok(commit) => {
                    let changes = plan.map_err(|kinds| format!("no {kinds:?}, but {commit:?}"))?;
                    self.check_commit(&commit, &changes)?;
                    let places = shares.iter().zip(&changes);
                    if places.into_iter().any(|((_, share), change)| share.at != change.at) {
                        self.tally.note("moved");
                    }
                    self.land(&shares, changes);
                }
                Err(error) => {
                    failed.extend(shares.iter().map(|(hand, _)| *hand));
                    self.check_failure(error.kind(), &plan, excused, was_poisoned)?;
                    // What failed while it was written, or synced, may be on the disk.
                    let changes = plan.into_iter().filter(|changes| !changes.is_empty());
                    group.extend(changes.filter(|_| !was_poisoned));
                }
            }
        }
        self.oracle.failed(group);
        self.look(true).map_err(|what| format!("before anything is given back: {what}"))?;
        self.give_back()
    }

    fn check_commit(&self, commit: &Commit, changes: &Changes) -> Result<(), String> {
        let next = self.position + self.oracle.commits() + u64::from(!changes.is_empty());
        if commit.position.get() != next {
            return Err(format!("position {} where {next} is next (P7)", commit.position));
        }
        let first = changes.first();
        let Some(first) = first.filter(|change| !change.slots.is_empty()) else { return Ok(()) };
        let dropped = first.slots.iter().take_while(|slot| slot.is_none()).count();
        let seqs = first.first() + dropped as u64..first.first() + first.slots.len() as u64;
        if (commit.seqs.start.get(), commit.seqs.end.get()) != (seqs.start, seqs.end) {
            return Err(format!("{:?} where {seqs:?} is due", commit.seqs));
        }
        Ok(())
    }

    fn check_failure(
        &mut self,
        kind: &ErrorKind,
        plan: &Plan,
        excused: bool,
        was_poisoned: bool,
    ) -> Result<(), String> {
        let is_expected = match (kind, plan) {
            (ErrorKind::Poisoned, _) => {
                self.poisoned |= self.disk.faults_fired() > self.fired;
                self.poisoned
            }
            _ if was_poisoned => false,
            (kind, Err(kinds)) => kinds.contains(kind),
            (ErrorKind::Io | ErrorKind::StorageFull, Ok(_)) => excused,
            _ => false,
        };
        self.tally.note(match kind {
            ErrorKind::Conflict { .. } => "conflict",
            ErrorKind::StorageFull => "full",
            ErrorKind::Poisoned => "poisoned",
            _ => "failure",
        });
        if is_expected { Ok(()) } else { Err(format!("{kind:?}, where {plan:?} is due")) }
    }

    /// A commit succeeded: its handles have seen what is durable now.
    fn land(&mut self, shares: &[(u64, Change)], changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let firsts: Vec<u64> = changes.iter().map(Change::first).collect();
        self.oracle.succeeded(changes);
        self.oracle.synced();
        let now = self.oracle.now();
        for ((number, change), first) in shares.iter().zip(firsts) {
            let Some(hand) = self.hands.iter_mut().find(|hand| hand.number == *number) else {
                continue;
            };
            let content = &now[&change.id()];
            let share = hand.flying.remove(0);
            hand.landed(share.first(), first.wrapping_sub(share.first()));
            hand.view.clone_from(&content.slots);
            let rewinds = hand.flying.iter().filter(|change| change.rewind.is_some()).count();
            let generation = content.generation + rewinds as u32;
            hand.regrown |= hand.trimmed.is_some() && generation != hand.generation;
            hand.generation = generation;
        }
    }

    /// Has every handle take back what failed: its next use does.
    fn give_back(&mut self) -> Result<(), String> {
        let now = self.oracle.now();
        for hand in self.hands.iter_mut().filter(|hand| !is_deleted(&now, hand.id)) {
            if !hand.flying.is_empty() {
                self.tally.note("gave back");
            }
            let here = hand.stream.savepoint();
            let gone = hand.stream.discard_to(here).map_err(|error| error.to_string())?;
            if gone > 0 {
                return Err(format!("{gone} events stand behind a savepoint made just now"));
            }
            hand.take_back()?;
        }
        Ok(())
    }

    /// Queues a commit of these handles.
    pub fn queue(&mut self, hands: &[usize], expect: Expect) -> Result<(), String> {
        let how = amberlog::CommitOptions::new().expect(expect);
        let log = self.log()?.clone();
        let ticket = match hands {
            [one] => self.hands[*one].stream.commit_with(how),
            _ => {
                let members = self.hands.iter_mut().enumerate();
                let members = members.filter(|(at, _)| hands.contains(at));
                log.commit_all_with(members.map(|(_, hand)| &mut hand.stream), how)
            }
        };
        self.queue_share(ticket, hands, expect, None);
        Ok(())
    }

    /// Notes what a commit of these handles takes: everything, or the changes that go with a state.
    pub(super) fn queue_share(
        &mut self,
        ticket: Ticket,
        hands: &[usize],
        expect: Expect,
        state: Option<Lives>,
    ) {
        let members = hands.iter().map(|at| self.hands[*at].number).collect();
        let mut relies = Vec::new();
        let share = |at: &usize| {
            let durable = self.durable_start(*at);
            let hand: &mut Hand = &mut self.hands[*at];
            let (oldest, end) = (hand.flying.first().map(|oldest| oldest.at), hand.ring_start());
            let change = hand.take(state, durable)?;
            let names_volatile = match change.rewind {
                Some(to) => oldest.is_some_and(|oldest| to >= oldest),
                None => change.start > Some(oldest.unwrap_or(end)),
            };
            relies.extend(names_volatile.then_some(hand.number));
            Some((hand.number, change))
        };
        let shares: Vec<_> = hands.iter().filter_map(share).collect();
        let check = match hands {
            [one] if shares.is_empty() && expect != Expect::Seen => {
                Some(self.hands[*one].nothing())
            }
            _ => None,
        };
        if check.is_some() {
            self.tally.note("nothing, checked");
        }
        let mut combined = shares.iter().filter(|(_, change)| change.start.is_some());
        if combined.any(|(_, change)| change.writes()) {
            self.tally.note("trim and events");
        }
        let mut slots = shares.iter().flat_map(|(_, change)| &change.slots);
        if slots.any(Option::is_none) {
            self.tally.note("gap");
        }
        self.queued.push(Queued { ticket, expect, members, shares, check, relies });
    }
}

/// Returns whether the stream was deleted durably.
pub fn is_deleted(state: &State, id: StreamId) -> bool {
    state.get(&id).is_some_and(|content: &Content| content.state == Lives::Deleted)
}
