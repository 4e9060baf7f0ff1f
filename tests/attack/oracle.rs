//! What a log may hold: the oracle.
//!
//! It knows the commits that succeeded, in order, and those of which nobody can know whether they did,
//! because a write or a sync of theirs failed. After a crash the log must hold a beginning of that history,
//! and nothing else: no less than was acknowledged, and a commit whole or not at all.

use std::collections::BTreeMap;
use std::rc::Rc;

use amberlog::StreamId;

/// An event, or one that an overwriting ring dropped.
pub type Slot = Option<Rc<[u8]>>;

/// What a stream holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Content {
    pub slots: Vec<Slot>,
    pub name: Option<String>,
}

/// What a log holds.
pub type State = BTreeMap<StreamId, Content>;

/// One stream's share of a commit.
#[derive(Clone, Debug)]
pub struct Change {
    pub stream: StreamId,
    /// The seq of the first slot.
    pub at: u64,
    pub slots: Vec<Slot>,
    pub name: Option<String>,
}

/// A commit.
pub type Changes = Vec<Change>;

/// The history of one life of a log, from one opening to the next.
#[derive(Default)]
pub struct Oracle {
    /// What it held when it was opened.
    base: State,
    /// The commits since, in order, and how many of them are known to be synced.
    log: Vec<Changes>,
    synced: usize,
    /// Groups that failed since the last commit that succeeded: each may be there behind all of `log`,
    /// from its first commit up to any.
    maybe: Vec<Vec<Changes>>,
    /// What it held at other times. Who only reads may be shown one of these again: nothing on the disk
    /// proves yet that the last group was acknowledged.
    earlier: Vec<State>,
}

/// What may be found at the least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtLeast {
    /// All that was acknowledged: the machine did not lose its memory.
    Acknowledged,
    /// All that was acknowledged as synced.
    Synced,
}

fn apply(state: &mut State, changes: &Changes) {
    for change in changes {
        let content = state.entry(change.stream).or_default();
        // What stands behind something that never happened cannot be there either.
        if content.slots.len() as u64 == change.at {
            content.slots.extend(change.slots.iter().cloned());
            content.name = content.name.take().or_else(|| change.name.clone());
        }
    }
}

impl Oracle {
    /// What is committed now.
    pub fn now(&self) -> State {
        let mut state = self.base.clone();
        self.log.iter().for_each(|changes| apply(&mut state, changes));
        state
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

    /// A group failed when it was written or synced: what of it is on the disk, nobody knows.
    pub fn failed(&mut self, group: Vec<Changes>) {
        if !group.is_empty() {
            self.maybe.push(group);
        }
    }

    fn histories(&self, at_least: AtLeast) -> Vec<State> {
        let from = match at_least {
            AtLeast::Acknowledged => self.log.len(),
            AtLeast::Synced => self.synced,
        };
        let mut state = self.base.clone();
        self.log[..from].iter().for_each(|changes| apply(&mut state, changes));
        let mut all = vec![state.clone()];
        for changes in &self.log[from..] {
            apply(&mut state, changes);
            all.push(state.clone());
        }
        for group in &self.maybe {
            let mut behind = state.clone();
            for changes in group {
                apply(&mut behind, changes);
                all.push(behind.clone());
            }
        }
        all
    }

    /// Whether this may be found after a crash.
    pub fn may_be_found(&self, found: &State, at_least: AtLeast) -> Result<(), String> {
        let all = self.histories(at_least);
        if all.contains(found) {
            return Ok(());
        }
        let expected: Vec<_> = all.iter().map(brief).collect();
        Err(format!("found {:?}\nexpected one of {expected:?}", brief(found)))
    }

    /// Whether this may be shown to somebody who only reads.
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
    pub fn reborn(self, found: State) -> Self {
        let mut earlier = self.earlier.clone();
        let mut state = self.base.clone();
        earlier.push(state.clone());
        for changes in &self.log {
            apply(&mut state, changes);
            earlier.push(state.clone());
        }
        earlier.dedup();
        Self { base: found, earlier, ..Self::default() }
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
            format!("{}:{:04x}{name}", content.slots.len(), hash(content) & 0xFFFF)
        })
        .collect()
}
