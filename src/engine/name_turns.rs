//! Turns on names: threads that open or create a stream of the same name do so one after another.
//!
//! Threads with different names do not wait for each other, so that their commits share groups.

use std::collections::HashSet;

use crate::sync::{Condvar, Mutex};

/// Names that threads are working on.
#[derive(Debug, Default)]
pub(crate) struct NameTurns {
    names: Mutex<HashSet<Box<str>>>,
    changed: Condvar,
}

/// Guard of a name's turn.
#[derive(Debug)]
pub(crate) struct NameTurn<'a> {
    turns: &'a NameTurns,
    name: Box<str>,
}

impl NameTurns {
    /// Waits until no other thread works on the name.
    pub(crate) fn wait_for(&self, name: &str) -> NameTurn<'_> {
        let name: Box<str> = name.into();
        let mut names = self.names.lock();
        while !names.insert(name.clone()) {
            names = self.changed.wait(names);
        }
        NameTurn { turns: self, name }
    }
}

impl Drop for NameTurn<'_> {
    fn drop(&mut self) {
        self.turns.names.lock().remove(&self.name);
        self.turns.changed.notify_all();
    }
}
