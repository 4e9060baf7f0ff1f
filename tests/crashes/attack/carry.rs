//! Streams carried over: exported, and imported into the same log under other ids, whatever goes wrong meanwhile. What
//! of an import is there is a beginning of the commits that its lines ask for, and the next one makes the rest.

use amberlog::jsonl::ImportOptions;
use amberlog::{ErrorKind, StreamId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::oracle::{Change, Changes, Content, Life, Slot, State, apply};
use super::run::Attack;

/// An export under other ids.
pub(super) struct Carried {
    text: String,
    ids: Vec<StreamId>,
    /// Commits of an import, in order.
    commits: Vec<Changes>,
    /// Events that no stream shows may be gone, and then the stream of this beginning is unknown.
    compacted: bool,
}

impl Carried {
    /// Returns the number of commits made; `None` if another writer continued differently.
    fn done(&self, now: &State) -> Option<usize> {
        let own = |state: &State| -> State {
            let own = state.iter().filter(|(id, _)| self.ids.contains(id));
            own.map(|(id, content)| (*id, content.clone())).collect()
        };
        let (mut state, now) = (State::new(), own(now));
        let mut found = now.is_empty().then_some(0);
        for (nth, changes) in self.commits.iter().enumerate() {
            apply(&mut state, changes);
            found = if state == now { Some(nth + 1) } else { found };
        }
        found
    }
}

/// The stream that the lines are in.
struct Current {
    id: StreamId,
    label: Option<String>,
    is_fork: bool,
    start: u64,
    state: Life,
    committed: bool,
    at: u64,
    generation: u32,
    slots: Vec<Slot>,
    rewind: Option<u64>,
}

/// From lines to commits, as docs/jsonl.md says.
#[derive(Default)]
struct Reading {
    text: String,
    ids: Vec<StreamId>,
    commits: Vec<Changes>,
    /// Commits after those of all streams.
    later: Vec<Changes>,
    current: Option<Current>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Option<()> {
        let mut parsed: Value = serde_json::from_str(line).ok()?;
        if let Some(stream) = parsed.get_mut("stream") {
            self.end_stream();
            self.stream(stream)?;
            self.text += &format!("{parsed}\n");
            return Some(());
        }
        self.text += &format!("{line}\n");
        if let Some(seqs) = parsed["gap"].as_u64() {
            self.cut(None);
            self.current.as_mut()?.slots.extend((0..seqs).map(|_| None));
            self.cut(None);
        } else if let Some(seqs) = parsed["forgotten"].as_u64() {
            self.put(seqs - 1, &[]);
        } else if let Some(to) = parsed["rewind"]["to"].as_u64() {
            self.cut(None);
            self.current.as_mut()?.rewind = Some(to);
        } else if let Some(event) = parsed.get("event") {
            let payload = match (&event["text"], &event["base64"]) {
                (Value::String(text), Value::Null) => text.clone().into_bytes(),
                (Value::Null, Value::String(base64)) => BASE64.decode(base64).ok()?,
                _ => return None,
            };
            self.put(event["dropped_before"].as_u64().unwrap_or(0), &payload);
        } else if parsed.get("end").is_some() {
            self.end_stream();
            self.commits.append(&mut self.later);
        }
        Some(())
    }

    fn stream(&mut self, line: &mut Value) -> Option<()> {
        let id = StreamId::new();
        line["id"] = id.to_string().into();
        line.as_object_mut()?.remove("name");
        self.ids.push(id);
        self.current = Some(Current {
            id,
            label: line["labels"]["k"].as_str().map(str::to_owned),
            is_fork: line.get("parent").is_some(),
            start: line["start"].as_u64().unwrap_or(0),
            state: if line["state"] == "archived" { Life::Archived } else { Life::Active },
            committed: false,
            at: 0,
            generation: 0,
            slots: Vec::new(),
            rewind: None,
        });
        Some(())
    }

    fn put(&mut self, dropped: u64, payload: &[u8]) {
        if dropped > 0 {
            self.cut(None);
        }
        let Some(current) = &mut self.current else { return };
        current.slots.extend((0..dropped).map(|_| None));
        current.slots.push(Some(payload.into()));
    }

    /// A commit ends here, if it holds anything.
    fn cut(&mut self, state: Option<Life>) {
        let Some(current) = &mut self.current else { return };
        let has_news = !current.slots.is_empty() || current.rewind.is_some() || state.is_some();
        let is_first = !current.committed;
        if !has_news && (!is_first || (current.label.is_none() && !current.is_fork)) {
            return;
        }
        let change = Change {
            stream: Some(current.id),
            at: current.at,
            generation: current.generation,
            base: (is_first && current.is_fork).then(|| (Vec::new(), 0, 0)),
            rewind: current.rewind.take(),
            slots: std::mem::take(&mut current.slots),
            label: current.label.take(),
            state,
            ..Change::default()
        };
        current.at = change.first() + change.slots.len() as u64;
        current.generation += u32::from(change.rewind.is_some());
        current.committed = true;
        self.commits.push(vec![change]);
    }

    fn end_stream(&mut self) {
        let Some(current) = &self.current else { return };
        let (start, state) = (current.start, current.state);
        let archives = state == Life::Archived && start == 0;
        self.cut(archives.then_some(state));
        if self.current.as_ref().is_some_and(|current| !current.committed) {
            self.cut(Some(Life::Active));
        }
        let Some(current) = self.current.take().filter(|_| start > 0) else { return };
        let (stream, at, generation) = (Some(current.id), current.at, current.generation);
        let bare = Change { stream, at, generation, ..Change::default() };
        self.later.push(vec![Change { start: Some(start), ..bare.clone() }]);
        if state == Life::Archived {
            self.later.push(vec![Change { state: Some(state), ..bare }]);
        }
    }
}

impl Attack {
    /// Exports some streams, by the bits of `streams`, and keeps that.
    pub(super) fn export(&mut self, streams: u8, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let mut now = self.oracle.now();
        now.retain(|_, content| content.state != Life::Deleted);
        let chosen = |nth: usize| nth < 8 && streams >> nth & 1 == 1;
        let ids = now.keys().enumerate().filter(|(nth, _)| chosen(*nth)).map(|(_, id)| *id);
        let ids: Vec<StreamId> = ids.collect();
        let mut text = Vec::new();
        match self.log()?.read_view().export_streams_jsonl(&ids, &mut text) {
            Ok(_) => {}
            Err(_) if self.disk.faults_fired() > fired => return Ok(()),
            Err(error) => return Err(format!("not exported: {error}")),
        }
        let mut reading = Reading::default();
        let text = String::from_utf8(text).map_err(|error| error.to_string())?;
        let read = text.lines().try_for_each(|line| reading.line(line));
        read.ok_or_else(|| format!("no export: {text}"))?;
        let Reading { text, ids: others, commits, .. } = reading;
        let mut carried = State::new();
        commits.iter().for_each(|changes| apply(&mut carried, changes));
        for (id, other) in ids.iter().zip(&others) {
            let seen = |content: &Content| {
                let Content { slots, label, start, state, is_fork, .. } = content.clone();
                (slots, label, start, state, is_fork)
            };
            if carried.get(other).map(seen) != now.get(id).map(seen) {
                return Err(format!("the lines say something else of stream {id}: {text}"));
            }
        }
        self.carried = Some(Carried { text, ids: others, commits, compacted: false });
        Ok(())
    }

    /// Events that no stream shows may be gone now.
    pub(super) fn note_compacted(&mut self) {
        self.carried.iter_mut().for_each(|carried| carried.compacted = true);
    }

    /// Imports what was exported last, or what is left to do of that.
    pub(super) fn import(&mut self, resumes: bool, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let Some(carried) = self.carried.take() else { return Ok(()) };
        let outcome = self.import_carried(&carried, resumes, fired);
        self.carried = Some(carried);
        outcome
    }

    fn import_carried(
        &mut self,
        carried: &Carried,
        resumes: bool,
        fired: u64,
    ) -> Result<(), String> {
        let now = self.oracle.now();
        let done = match carried.done(&now) {
            None if resumes => return Ok(()),
            done => done.filter(|done| *done == 0 || resumes),
        };
        let mut how = ImportOptions::new();
        if resumes {
            how = how.resume();
        }
        let outcome =
            self.log()?.import_jsonl_with(&how, std::io::Cursor::new(carried.text.as_bytes()));
        self.full = self.disk.capacity() < u64::MAX;
        let failed = self.disk.faults_fired() > self.fired;
        let kind = outcome.as_ref().err().map(|error| error.kind().clone());
        let is_poisoned = kind == Some(ErrorKind::Poisoned) && failed;
        let excused = self.disk.faults_fired() > fired || self.full || is_poisoned;
        let there = matches!(kind, Some(ErrorKind::StreamExists(_)));
        let may_differ = done.is_none() || (carried.compacted && resumes);
        match &outcome {
            Ok(_) if done.is_none() => return Err("streams that are there were imported".into()),
            Err(error) if !(excused || there && may_differ) => {
                return Err(format!("not imported: {error}"));
            }
            _ => {}
        }
        let rest = &carried.commits[done.unwrap_or(carried.commits.len())..];
        let view = self.log()?.read_view();
        let made = view.position().get() - self.position - self.oracle.commits();
        let made = usize::try_from(made).map_err(|error| error.to_string())?;
        if made > rest.len() || (outcome.is_ok() && made < rest.len()) {
            return Err(format!("an import made {made} commits of {} (P4)", rest.len()));
        }
        for changes in &rest[..made] {
            self.stats.commits += 1;
            self.oracle.succeeded(changes.clone());
            self.oracle.synced();
        }
        let was_poisoned = self.poisoned;
        self.poisoned |= is_poisoned;
        if outcome.is_err() && !there && !(was_poisoned && made == 0) {
            self.oracle.failed(rest[made..].to_vec());
        }
        if self.is_stopped() {
            return Ok(());
        }
        let expected = self.oracle.now();
        self.compare(&view, &expected, fired)
    }
}
