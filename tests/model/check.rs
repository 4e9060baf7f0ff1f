//! The other verbs, and the comparisons.

use std::io::Cursor;

use crate::support::verified::checked_on;
use amberlog::sim::backup_on;
use amberlog::{Order, Page, Query, StreamInfo};

use super::*;

impl World {
    pub(super) fn fork(&mut self, at: usize) -> &'static str {
        let (start, current) = (self.start(at), self.is_current(at));
        let hand = &self.hands[at];
        if self.hands.len() >= HANDLES_MAX || !current || hand.view.len() < start {
            return "no fork";
        }
        let known = hand.stream.state() == amberlog::StreamState::Deleted;
        let head = hand.view.len() + hand.ring.len();
        let seq = self.rng.below(head as u64 + 2) as usize;
        let child = match hand.stream.fork_at(seq as u64) {
            Ok(child) => child,
            Err(error) => {
                let fine = match error.kind() {
                    ErrorKind::SeqOutOfRange { .. } => seq > head,
                    ErrorKind::Trimmed { .. } => seq < start,
                    ErrorKind::Deleted(_) => known,
                    _ => false,
                };
                assert!(fine, "fork at {seq}: {error}");
                return "fork refused";
            }
        };
        assert!((start..=head).contains(&seq) && !known);
        let shared = seq.min(hand.view.len());
        let view = hand.view[..shared].to_vec();
        let ring = hand.ring[..seq - shared].to_vec();
        // A fork goes on counting from what it shares: which generation that is, only the engine knows.
        let generation = child.info().generation;
        let parent = Some((hand.id, seq as u64));
        let first = Some(Model { start, generation, parent, ..Model::default() });
        self.hold(child, view, None, Said { first, ..Said::default() });
        self.hands.last_mut().expect("held").ring = ring;
        "fork"
    }

    pub(super) fn rewind(&mut self, at: usize) -> &'static str {
        let (start, state) = (self.start(at), self.known_state(at));
        let volatile = self.is_volatile(at);
        let hand = &mut self.hands[at];
        let head = hand.view.len() + hand.ring.len();
        let to = self.rng.below(head as u64 + 2) as usize;
        if let Err(error) = hand.stream.rewind(to as u64) {
            let fine = match error.kind() {
                ErrorKind::SeqOutOfRange { .. } => to > head,
                ErrorKind::Trimmed { .. } => to < start,
                ErrorKind::Deleted(_) => state == StreamState::Deleted,
                ErrorKind::Archived(_) => state != StreamState::Active,
                _ => false,
            };
            assert!(fine, "rewind to {to} of {head}: {error}");
            return "rewind refused";
        }
        assert!(to <= head && to >= start, "{to} of {start}..{head}");
        if to >= hand.view.len() {
            hand.ring.truncate(to - hand.view.len());
            return "rewind";
        }
        hand.ring.clear();
        hand.view.truncate(to);
        match (volatile, &mut hand.said.first) {
            (true, Some(first)) => first.generation = hand.stream.info().generation,
            _ => hand.said.rewind = Some(to),
        }
        "rewind"
    }

    /// Settles an operation with a ticket of its own.
    fn ask(&mut self, at: usize, ticket: Ticket, share: Share) {
        let expected = self.outcome(at, Expect::Seen, share);
        if self.settle(ticket, &expected, true).is_some() {
            self.land(at, share, self.position);
        }
    }

    pub(super) fn trim(&mut self, at: usize) -> &'static str {
        let start = self.start(at);
        let gone = self.known_state(at) == StreamState::Deleted;
        let hand = &mut self.hands[at];
        let end = hand.view.len() + hand.ring.len();
        let to = self.rng.below(end as u64 + 2) as usize;
        let known = hand.stream.state() == amberlog::StreamState::Deleted;
        if gone && !known {
            // Where it started is not in the model any more.
            return "no trim";
        }
        let done = hand.stream.trim(to as u64).map_err(|error| error.kind().clone());
        if known {
            assert!(matches!(done, Err(ErrorKind::Deleted(_))));
        } else if to > end {
            assert!(matches!(done, Err(ErrorKind::SeqOutOfRange { .. })));
        } else {
            done.expect("in range");
            hand.said.start = Some(to).filter(|to| *to > start).or(hand.said.start);
        }
        "trim"
    }

    pub(super) fn state(&mut self, at: usize) -> &'static str {
        let state = match self.rng.below(5) {
            0 | 1 => StreamState::Archived,
            2 | 3 => StreamState::Active,
            _ => StreamState::Deleted,
        };
        let volatile = self.is_volatile(at);
        let hand = &mut self.hands[at];
        let known = hand.stream.state() == amberlog::StreamState::Deleted;
        let ticket = match state {
            StreamState::Archived => hand.stream.archive(),
            StreamState::Active => hand.stream.unarchive(),
            _ => hand.stream.delete(),
        };
        if known || volatile {
            assert_eq!(ticket.wait().is_ok(), !known);
            if !known && state != StreamState::Deleted {
                hand.said.first.get_or_insert_default().state = state;
            } else {
                drop(self.hands.swap_remove(at));
            }
        } else {
            self.ask(at, ticket, Share::State(state));
        }
        "state"
    }

    pub(super) fn rename(&mut self, at: usize) -> &'static str {
        let name = NAMES[self.rng.below(5) as usize];
        let id = self.hands[at].id;
        if self.known_state(at) == StreamState::Deleted {
            return "no name";
        }
        let durable = self.now.get(&id);
        let (is_durable, own) = (durable.is_some(), durable.and_then(|model| model.name.clone()));
        let wanted = |hand: &Hand| hand.said.name == Some(Some(name.into()));
        let taken = self.now.values().any(|model| model.name.as_deref() == Some(name))
            || self.hands.iter().any(|hand| {
                let model = self.now.get(&hand.id);
                wanted(hand) && model.is_none_or(|model| model.state != StreamState::Deleted)
            });
        let hand = &mut self.hands[at];
        if self.rng.one_in(4) {
            if hand.stream.clear_name().is_ok() {
                hand.said.name = is_durable.then_some(None);
            }
            return "clear name";
        }
        match hand.stream.rename(name) {
            Ok(()) if wanted(hand) => {}
            Ok(()) => {
                assert!(!taken || own.as_deref() == Some(name), "{name} is taken");
                hand.said.name = Some(Some(name.into()));
            }
            Err(error) => {
                let known = hand.stream.state() == amberlog::StreamState::Deleted;
                let is_taken = matches!(error.kind(), ErrorKind::NameTaken { .. });
                assert!(if known { !is_taken } else { is_taken && taken }, "{name}: {error}");
            }
        }
        "rename"
    }

    pub(super) fn label(&mut self, at: usize) -> &'static str {
        let key = ["k", "l"][self.rng.below(2) as usize];
        let value = self.rng.below(3).to_string();
        let removed = self.rng.one_in(3);
        let before = self.labels(at);
        let hand = &mut self.hands[at];
        let done = match removed {
            true => hand.stream.remove_label(key),
            false => hand.stream.set_label(key, &value),
        };
        if done.is_ok() && (!removed || before.contains_key(key)) {
            hand.said.labels.insert(key.into(), (!removed).then_some(value));
        }
        "label"
    }

    fn labels(&self, at: usize) -> BTreeMap<String, String> {
        let hand = &self.hands[at];
        let mut labels =
            self.now.get(&hand.id).map_or_else(BTreeMap::new, |now| now.labels.clone());
        for (key, value) in &hand.said.labels {
            match value {
                Some(value) => drop(labels.insert(key.clone(), value.clone())),
                None => drop(labels.remove(key)),
            }
        }
        labels
    }

    pub(super) fn data(&mut self, at: usize) -> &'static str {
        let data = vec![7; self.rng.below(4) as usize];
        let hand = &mut self.hands[at];
        if hand.stream.set_data(&data).is_ok() {
            hand.said.data = Some(data);
        }
        "data"
    }

    pub(super) fn discard(&mut self, at: usize) -> &'static str {
        let hand = &mut self.hands[at];
        assert_eq!(hand.stream.discard() as usize, hand.ring.len());
        hand.ring.clear();
        if let Some(first) = hand.said.first.as_mut().filter(|_| hand.seen.is_none()) {
            first.start = first.start.min(hand.view.len());
        }
        if let Some(start) = &mut hand.said.start {
            *start = (*start).min(hand.view.len());
        }
        let taken = self.taken_start(at);
        let said = &mut self.hands[at].said;
        said.start = said.start.filter(|start| *start > taken);
        "discard"
    }

    pub(super) fn open_stream(&mut self) -> &'static str {
        let Some(nth) = (self.now.len() as u64).checked_sub(1).map(|max| self.rng.below(max + 1))
        else {
            return "nothing to open";
        };
        let (id, model) = self.now.iter().nth(nth as usize).expect("there");
        let (id, model) = (*id, model.clone());
        match self.log.open_stream(id) {
            Ok(stream) if self.hands.len() < HANDLES_MAX => {
                assert_ne!(model.state, StreamState::Deleted);
                let seen = Some((model.slots.len(), model.generation));
                self.hold(stream, model.slots, seen, Said::default());
            }
            Ok(_) => {}
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Deleted(id));
                assert_eq!(model.state, StreamState::Deleted);
            }
        }
        "open stream"
    }

    pub(super) fn pin(&mut self) -> &'static str {
        if self.pinned.len() == 3 {
            self.pinned.remove(0);
        }
        self.pinned.push((self.log.read_view(), self.now.clone()));
        "pin"
    }

    pub(super) fn compact(&mut self) -> &'static str {
        let options = CompactOptions::new().dead_percent_min(0);
        // Forks that are gone count once more.
        self.log.compact(options.dry_run()).expect("planned");
        let plan = self.log.compact(options.dry_run()).expect("planned");
        let report = self.log.compact(options).expect("open");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        assert_eq!(plan.runs, report.runs);
        let gone: u64 = report.runs.iter().map(|run| run.events_dropped).sum();
        *self.tally.entry("dropped by compacting").or_default() += gone;
        "compact"
    }

    fn forget(&mut self) {
        self.hands.clear();
        self.pinned.clear();
    }

    pub(super) fn reopen(&mut self) -> &'static str {
        self.forget();
        let other = options().open_on(&SimDisk::new(0)).expect("opens");
        std::mem::replace(&mut self.log, other).close().expect("closes");
        self.open("reopen")
    }

    fn open(&mut self, what: &'static str) -> &'static str {
        self.log = options().open_on(&self.disk).expect("opens");
        assert!(self.log.recovery_report().is_sound(), "{:?}", self.log.recovery_report().damages);
        what
    }

    /// The power fails: everything was synced.
    pub(super) fn cut(&mut self) -> &'static str {
        self.forget();
        self.disk = self.disk.after_power_cut(self.rng.next());
        *self.tally.entry("power cuts").or_default() += 1;
        self.open("power cut")
    }

    /// The machine stops in the middle of compacting, or of a backup.
    pub(super) fn stopped(&mut self) -> &'static str {
        let calls = self.rng.below(60);
        self.disk.fail_at(self.disk.calls() + calls, Fault::Crash);
        if self.rng.one_in(3) {
            let _ = self.log.backup(format!("stopped{}", self.number));
        } else {
            let _ = self.log.compact(CompactOptions::new().dead_percent_min(0));
        }
        self.forget();
        self.disk = match self.rng.one_in(2) {
            true => self.disk.after_kill(),
            false => self.disk.after_power_cut(self.rng.next()),
        };
        *self.tally.entry("power cuts").or_default() += 1;
        let recovery = checked_on(&self.disk);
        assert!(self.now.is_empty() || recovery.expect("a log").is_sound());
        self.open("stopped")
    }

    /// Exported, imported elsewhere, and exported again.
    pub(super) fn around(&mut self) -> &'static str {
        let mut lines = Vec::new();
        self.log.read_view().export_jsonl(&mut lines).expect("exported");
        let disk = SimDisk::new(1);
        let log = options().open_on(&disk).expect("opens");
        log.import_jsonl(Cursor::new(&lines)).expect("imported");
        same(&log.read_view(), &self.now, Positions::Others, &mut self.rng);
        let mut again = Vec::new();
        log.read_view().export_jsonl(&mut again).expect("exported");
        let text = |lines| String::from_utf8(lines).expect("text");
        let (lines, again) = (text(lines), text(again));
        let mut pairs = lines.lines().zip(again.lines());
        if let Some((one, two)) = pairs.find(|(one, two)| one != two) {
            panic!("exported again, {one} is {two}");
        }
        assert_eq!(lines.len(), again.len());
        "around"
    }

    pub(super) fn backup(&mut self) -> &'static str {
        let target = format!("backup{}", self.number);
        if self.now.is_empty() || self.disk.files().keys().any(|path| path.starts_with(&target)) {
            return "no backup";
        }
        match self.rng.one_in(2) {
            true => drop(self.log.backup(&target).expect("backed up")),
            false => drop(backup_on(&self.disk, &target).expect("backed up")),
        }
        let disk = self.disk.dir(&target);
        let (read_view, recovery) = ReadView::open_on(&disk).expect("opens");
        assert!(recovery.is_sound());
        same(&read_view, &self.now, Positions::Same, &mut self.rng);
        "backup"
    }

    pub(super) fn compare(&mut self) {
        same(&self.log.read_view(), &self.now, Positions::Same, &mut self.rng);
        for (read_view, state) in &self.pinned {
            same(read_view, state, Positions::Same, &mut self.rng);
        }
        for at in 0..self.hands.len() {
            self.compare_handle(at);
        }
        if self.rng.one_in(8) && !self.now.is_empty() {
            let (read_view, recovery) = ReadView::open_on(&self.disk).expect("opens");
            assert!(recovery.is_sound(), "{:?}", recovery.damages);
            same(&read_view, &self.now, Positions::Same, &mut self.rng);
        }
    }

    fn compare_handle(&self, at: usize) {
        let hand = &self.hands[at];
        if self.known_state(at) == StreamState::Deleted {
            // What is buffered goes when the handle is used next.
            return;
        }
        let start = self.start(at);
        assert_eq!(hand.stream.buffered() as usize, hand.ring.len());
        assert_eq!(hand.stream.head().get() as usize, hand.view.len() + hand.ring.len());
        if !self.is_current(at) {
            return;
        }
        let volatile = hand.ring.iter().map(|payload| (Rc::clone(payload), 0));
        let all: Vec<_> = hand.view.iter().cloned().chain(volatile).collect();
        let events = hand.stream.events().expect("readable");
        let mut expected = all.iter().zip(0..).skip(start);
        for event in events {
            let event = event.expect("whole");
            let ((payload, position), seq) = expected.next().expect("one more");
            assert_eq!((event.payload(), event.seq().get()), (&**payload, seq));
            assert_eq!(event.position().map_or(0, |at| at.get()), *position);
        }
        assert!(expected.next().is_none());
        let info = hand.stream.info();
        assert_eq!(info.labels, self.labels(at));
        assert_eq!(info.start.get() as usize, start);
        let name = self.now.get(&hand.id).and_then(|model| model.name.clone());
        assert_eq!(info.name, hand.said.name.clone().unwrap_or(name));
    }
}

/// Relation of positions to those of the model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Positions {
    Same,
    Others,
}

fn same(read_view: &ReadView, state: &State, positions: Positions, rng: &mut Rng) {
    for (id, model) in state {
        let info = read_view.info(*id).expect("known");
        assert_eq!(info.state, model.state);
        if model.state == StreamState::Deleted {
            let error = read_view.events(*id).expect_err("deleted");
            assert_eq!(*error.kind(), ErrorKind::Deleted(*id));
            continue;
        }
        describes(&info, model);
        let all = model.slots.iter().zip(0..).skip(model.start);
        let mut expected: Vec<_> = all.collect();
        let backwards = rng.one_in(2);
        let events = read_view.events(*id).expect("known");
        let events: Vec<_> = match backwards {
            true => events.rev().collect(),
            false => events.collect(),
        };
        if backwards {
            expected.reverse();
        }
        assert_eq!(events.len(), expected.len(), "{id} {model:?}");
        for (event, ((payload, position), seq)) in events.into_iter().zip(expected) {
            let event = event.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((event.payload(), event.seq().get()), (&**payload, seq));
            if positions == Positions::Same {
                assert_eq!(event.position().map_or(0, |at| at.get()), *position);
            }
        }
    }
    let living = state.values().filter(|model| model.state != StreamState::Deleted).count();
    assert_eq!(read_view.streams().len(), living);
    for name in NAMES {
        let holder = state.iter().find(|(_, model)| model.name.as_deref() == Some(name));
        assert_eq!(read_view.find(name), holder.map(|(id, _)| *id), "who is named {name}");
    }
    lists(read_view, state, positions, rng);
}

fn describes(info: &StreamInfo, model: &Model) {
    assert_eq!(info.name, model.name);
    assert_eq!(info.labels, model.labels);
    assert_eq!(info.data.as_deref(), model.data.as_deref());
    assert_eq!(info.generation, model.generation);
    assert_eq!(info.parent.map(|(id, seq)| (id, seq.get())), model.parent);
    let seqs = (info.start.get() as usize, info.head.get() as usize);
    assert_eq!(seqs, (model.start, model.slots.len()), "{info:?}");
}

/// A query of chance, page by page.
fn lists(read_view: &ReadView, state: &State, positions: Positions, rng: &mut Rng) {
    let mut query = Query::new().limit(1 + rng.below(5) as usize);
    let mut all: Vec<(&StreamId, &Model)> = state.iter().collect();
    match rng.below(4) {
        0 => all.retain(|(_, model)| model.state == StreamState::Active),
        1 => {
            query = query.state(StreamState::Archived);
            all.retain(|(_, model)| model.state == StreamState::Archived);
        }
        2 => {
            query = query.state(StreamState::Active).state(StreamState::Archived);
            all.retain(|(_, model)| model.state != StreamState::Deleted);
        }
        _ => {
            query = query.state(StreamState::Deleted);
            all.retain(|(_, model)| model.state == StreamState::Deleted);
        }
    }
    let deleted = all.iter().any(|(_, model)| model.state == StreamState::Deleted);
    match rng.below(6) {
        0 if !deleted => {
            query = query.has_label("k");
            all.retain(|(_, model)| model.labels.contains_key("k"));
        }
        1 if !deleted => {
            query = query.label("k", "1").has_label("l");
            let is = |model: &Model| model.labels.get("k").is_some_and(|value| value == "1");
            all.retain(|(_, model)| is(model) && model.labels.contains_key("l"));
        }
        2 if !deleted => {
            query = query.name_prefix("a");
            all.retain(|(_, model)| model.name.as_ref().is_some_and(|name| name.starts_with('a')));
        }
        3 if !deleted => {
            let parent = state.keys().nth(rng.below(state.len() as u64 + 1) as usize);
            let Some(parent) = parent else { return };
            query = query.parent(*parent);
            all.retain(|(_, model)| model.parent.is_some_and(|(id, _)| id == *parent));
        }
        _ => {}
    }
    if positions == Positions::Same && rng.one_in(2) {
        query = query.order(Order::Committed);
        all.sort_by_key(|(id, model)| (model.last, **id));
    } else if !deleted && rng.one_in(2) {
        query = query.order(Order::Label("k".into()));
        all.retain(|(_, model)| model.labels.contains_key("k"));
        all.sort_by_key(|(id, model)| (&model.labels["k"], **id));
    }
    if rng.one_in(2) {
        query = query.descending();
        all.reverse();
    }
    let mut listed = Vec::new();
    let mut asked = query.clone();
    loop {
        let Page { streams, next, .. } = read_view.list(&asked).expect("listed");
        listed.extend(streams.iter().map(|info| info.id));
        let Some(next) = next else { break };
        let next = next.to_string().parse().expect("its own text");
        asked = query.clone().after(next);
    }
    let wanted: Vec<StreamId> = all.iter().map(|(id, _)| **id).collect();
    let place = |id: &StreamId| (*id, state[id].last);
    assert_eq!(
        listed.iter().map(place).collect::<Vec<_>>(),
        wanted.iter().map(place).collect::<Vec<_>>(),
        "{query:?}"
    );
}
