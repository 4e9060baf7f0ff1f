//! What a log may hold: the oracle.
//!
//! It knows the commits that succeeded, in order, and those whose outcome is unknown,
//! because a write or a sync of theirs failed. After a crash the log must hold a beginning of that history,
//! and nothing else: no less than was acknowledged, and a commit whole or not at all.

use std::collections::BTreeMap;
use std::rc::Rc;

use amberlog::StreamId;

/// An event, or one that an overwriting ring dropped.
pub type Slot = Option<Rc<[u8]>>;

/// Content of a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Content {
    /// Events; trimmed ones are like dropped ones.
    pub slots: Vec<Slot>,
    pub name: Option<String>,
    pub label: Option<String>,
    pub generation: u32,
    pub start: u64,
    pub state: Life,
    pub is_fork: bool,
}

/// State of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Life {
    #[default]
    Active,
    Archived,
    Deleted,
}

/// Content of a log.
pub type State = BTreeMap<StreamId, Content>;

/// One stream's share of a commit.
#[derive(Clone, Default, Debug)]
pub struct Change {
    pub stream: Option<StreamId>,
    /// The head, and the generation, that the stream has before.
    pub at: u64,
    pub generation: u32,
    /// Events that a fork starts with.
    pub base: Option<(Vec<Slot>, u32, u64)>,
    pub rewind: Option<u64>,
    pub slots: Vec<Slot>,
    pub name: Option<String>,
    pub label: Option<String>,
    pub start: Option<u64>,
    /// The handle has followed another one into a new generation since it was asked to trim.
    pub regrown: bool,
    pub state: Option<Life>,
    /// Of the whole commit; in the first of its changes.
    pub id: Option<u8>,
}

impl Change {
    pub fn id(&self) -> StreamId {
        self.stream.expect("every change is of a stream")
    }

    /// The seq of the first slot.
    pub fn first(&self) -> u64 {
        self.rewind.unwrap_or(self.at)
    }

    /// Returns whether it adds or drops events.
    pub fn writes(&self) -> bool {
        !self.slots.is_empty() || self.rewind.is_some()
    }
}

/// A commit.
pub type Changes = Vec<Change>;

/// The history of one life of a log, from one opening to the next.
#[derive(Default)]
pub struct Oracle {
    /// Content when it was opened.
    base: State,
    /// The commits since, in order, and how many of them are known to be synced.
    log: Vec<Changes>,
    synced: usize,
    /// Groups that failed since the last commit that succeeded: each may be there behind all of `log`,
    /// from its first commit up to any.
    maybe: Vec<Vec<Changes>>,
    /// The commits of earlier lives that have an id.
    ids: Ids,
    /// Commits before this life.
    positions: u64,
    /// What it held at other times. A read-only opening may show one of these again: nothing on the disk
    /// proves yet that the last group was acknowledged.
    earlier: Vec<State>,
}

/// Least content that may be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtLeast {
    /// All that was acknowledged: the machine did not lose its memory.
    Acknowledged,
    /// All that was acknowledged as synced.
    Synced,
}

/// Commits by id.
pub type Ids = BTreeMap<u8, u64>;

pub fn apply(state: &mut State, changes: &Changes) {
    for change in changes {
        let base = change.base.clone().map(|(slots, generation, start)| Content {
            slots,
            generation,
            start,
            is_fork: true,
            ..Content::default()
        });
        let content = state.entry(change.id()).or_insert_with(|| base.unwrap_or_default());
        // What stands behind something that never happened cannot be there either.
        let is_same = content.slots.len() as u64 == change.at
            && content.generation == change.generation
            && content.state != Life::Deleted
            && change.rewind.is_none_or(|to| to >= content.start);
        if !is_same {
            continue;
        }
        if let Some(to) = change.rewind {
            content.slots.truncate(to as usize);
            content.generation += 1;
        }
        content.slots.extend(change.slots.iter().cloned());
        content.name = content.name.take().or_else(|| change.name.clone());
        content.label = change.label.clone().or(content.label.take());
        content.start = content.start.max(change.start.unwrap_or(0));
        content.slots[..content.start as usize].fill(None);
        content.state = change.state.unwrap_or(content.state);
        if content.state == Life::Deleted {
            *content = Content { state: Life::Deleted, ..Content::default() };
        }
    }
}

fn note_id(ids: &mut Ids, position: u64, changes: &Changes) {
    if let Some(id) = changes.iter().find_map(|change| change.id) {
        ids.entry(id).or_insert(position);
    }
}

impl Oracle {
    /// Returns the content committed now.
    pub fn now(&self) -> State {
        let mut state = self.base.clone();
        self.log.iter().for_each(|changes| apply(&mut state, changes));
        state
    }

    /// Returns the ids of commits now.
    pub fn ids(&self) -> Ids {
        let mut ids = self.ids.clone();
        for (position, changes) in (self.positions + 1..).zip(&self.log) {
            note_id(&mut ids, position, changes);
        }
        ids
    }

    /// Commits of this life.
    pub fn commits(&self) -> u64 {
        self.log.len() as u64
    }

    /// A commit succeeded: what had failed before it is gone for good.
    pub fn succeeded(&mut self, changes: Changes) {
        self.maybe.clear();
        self.log.push(changes);
    }

    /// Everything that succeeded is synced.
    pub fn synced(&mut self) {
        self.synced = self.log.len();
    }

    /// A group failed when it was written or synced: its state on the disk is unknown.
    pub fn failed(&mut self, group: Vec<Changes>) {
        if !group.is_empty() {
            self.maybe.push(group);
        }
    }

    fn histories(&self, at_least: AtLeast) -> Vec<(State, Ids)> {
        let from = match at_least {
            AtLeast::Acknowledged => self.log.len(),
            AtLeast::Synced => self.synced,
        };
        let (mut state, mut ids, mut position) =
            (self.base.clone(), self.ids.clone(), self.positions);
        let step = |state: &mut State, ids: &mut Ids, position: &mut u64, changes: &Changes| {
            apply(state, changes);
            *position += 1;
            note_id(ids, *position, changes);
        };
        for changes in &self.log[..from] {
            step(&mut state, &mut ids, &mut position, changes);
        }
        let mut all = vec![(state.clone(), ids.clone())];
        for changes in &self.log[from..] {
            step(&mut state, &mut ids, &mut position, changes);
            all.push((state.clone(), ids.clone()));
        }
        for group in &self.maybe {
            let (mut behind, mut ids, mut position) = (state.clone(), ids.clone(), position);
            for changes in group {
                step(&mut behind, &mut ids, &mut position, changes);
                all.push((behind.clone(), ids.clone()));
            }
        }
        all
    }

    /// Checks that this may be found after a crash.
    pub fn may_be_found(&self, found: &State, at_least: AtLeast) -> Result<(), String> {
        let all = self.histories(at_least);
        if all.iter().any(|(state, _)| state == found) {
            return Ok(());
        }
        let expected: Vec<_> = all.iter().map(|(state, _)| brief(state)).collect();
        Err(format!("found {:?}\nexpected one of {expected:?}", brief(found)))
    }

    /// Reports whether a read-only opening may show this.
    pub fn may_be_shown(&self, shown: &State) -> Result<(), String> {
        let mut state = self.base.clone();
        let mut known = self.earlier.contains(shown) || state == *shown;
        for changes in &self.log {
            apply(&mut state, changes);
            known |= state == *shown;
        }
        if known || self.may_be_found(shown, AtLeast::Acknowledged).is_ok() {
            return Ok(());
        }
        Err(format!("{:?} was never what the log held", brief(shown)))
    }

    /// The next life begins with what was found.
    pub fn reborn(self, found: State, at_least: AtLeast, positions: u64) -> Self {
        let histories = self.histories(at_least);
        let ids = histories.into_iter().find(|(state, _)| *state == found);
        let ids = ids.map_or_else(Ids::new, |(_, ids)| ids);
        let mut earlier = self.earlier.clone();
        let mut state = self.base.clone();
        earlier.push(state.clone());
        for changes in &self.log {
            apply(&mut state, changes);
            earlier.push(state.clone());
        }
        earlier.dedup();
        Self { base: found, earlier, ids, positions, ..Self::default() }
    }
}

/// A state in a few words: how long each stream is, and a hash of what it holds.
pub fn brief(state: &State) -> Vec<String> {
    let hash = |content: &Content| {
        content
            .slots
            .iter()
            .flatten()
            .flat_map(|bytes| bytes.iter())
            .fold(17_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)))
    };
    state
        .values()
        .map(|content| {
            let name = content.name.as_deref().unwrap_or_default();
            let state = match content.state {
                Life::Active => "",
                Life::Archived => "a",
                Life::Deleted => "d",
            };
            let (slots, hash) = (content.slots.len(), hash(content) & 0xFFFF);
            let label = content.label.as_deref().unwrap_or_default();
            let Content { generation, start, .. } = content;
            format!("{slots}:{hash:04x}{name}/{label}/g{generation}/s{start}{state}")
        })
        .collect()
}
