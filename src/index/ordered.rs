//! Sorted lists with shared nodes: a copy costs nothing, and a change to a list copies one path.
//!
//! The list is a B+ tree and knows no keys: the caller tells which entries come before a place, so
//! that an entry may be as small as the number of the item it represents.

use std::sync::Arc;

use crate::work::step;

/// Maximum number of entries in a leaf, and of children in an inner node.
const LEAF_ENTRIES: usize = 128;
const CHILDREN: usize = 64;

/// List in an order that its owner keeps.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<T> {
    root: Arc<Node<T>>,
}

#[derive(Clone, Debug)]
enum Node<T> {
    Leaf(Vec<T>),
    /// Children, each with an entry that is its first or comes before all of its entries.
    Inner(Vec<(T, Arc<Self>)>),
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())) }
    }
}

impl<T: Clone> Ordered<T> {
    /// Returns a list of these entries, which must be sorted.
    pub(crate) fn of(sorted: &[T]) -> Self {
        let leaves = sorted.chunks(LEAF_ENTRIES);
        let mut row: Vec<(T, Arc<Node<T>>)> =
            leaves.map(|leaf| (leaf[0].clone(), Arc::new(Node::Leaf(leaf.to_vec())))).collect();
        while row.len() > 1 {
            let above = row.chunks(CHILDREN);
            row = above
                .map(|some| (some[0].0.clone(), Arc::new(Node::Inner(some.to_vec()))))
                .collect();
        }
        row.pop().map_or_else(Self::default, |(_, root)| Self { root })
    }

    /// Adds an entry after the entries `up_to` it, which include equal ones.
    pub(crate) fn insert(&mut self, entry: T, up_to: impl Fn(&T) -> bool) {
        let Some(overflow) = insert(&mut self.root, entry, &up_to) else { return };
        let Some(first) = first(&self.root) else { return };
        let both = vec![(first, Arc::clone(&self.root)), overflow];
        self.root = Arc::new(Node::Inner(both));
    }

    /// Removes the last of the entries `up_to` it, if it `is` the intended one.
    pub(crate) fn remove(&mut self, up_to: impl Fn(&T) -> bool, is: impl Fn(&T) -> bool) {
        remove(&mut self.root, &up_to, &is);
        if self.root.is_empty() {
            *self = Self::default();
        }
        while let Node::Inner(children) = &*self.root
            && let [(_, only)] = children.as_slice()
        {
            self.root = Arc::clone(only);
        }
    }

    /// Iterates forwards over the entries after the first ones, those that are `skipped`.
    pub(crate) fn forwards(&self, skipped: impl Fn(&T) -> bool) -> Walk<'_, T> {
        let mut stack = Vec::new();
        let mut node = &*self.root;
        loop {
            let (at, child) = match node {
                Node::Leaf(entries) => (partition(entries, &skipped), None),
                Node::Inner(children) => {
                    let at = partition_of(children, &skipped).saturating_sub(1);
                    (at.saturating_add(1), children.get(at))
                }
            };
            stack.push((node, at));
            match child {
                Some((_, child)) => node = child,
                None => return Walk { stack, is_backwards: false },
            }
        }
    }

    /// Iterates backwards over the first entries, those that are `wanted`.
    pub(crate) fn backwards(&self, wanted: impl Fn(&T) -> bool) -> Walk<'_, T> {
        let mut stack = Vec::new();
        let mut node = &*self.root;
        loop {
            let (at, child) = match node {
                Node::Leaf(entries) => (partition(entries, &wanted), None),
                Node::Inner(children) => {
                    let at = partition_of(children, &wanted).saturating_sub(1);
                    (at, children.get(at))
                }
            };
            stack.push((node, at));
            match child {
                Some((_, child)) => node = child,
                None => return Walk { stack, is_backwards: true },
            }
        }
    }
}

fn partition<T>(entries: &[T], holds: &impl Fn(&T) -> bool) -> usize {
    entries.partition_point(|entry| {
        step();
        holds(entry)
    })
}

fn partition_of<T>(children: &[(T, Arc<Node<T>>)], holds: &impl Fn(&T) -> bool) -> usize {
    children.partition_point(|(first, _)| {
        step();
        holds(first)
    })
}

fn first<T: Clone>(node: &Node<T>) -> Option<T> {
    match node {
        Node::Leaf(entries) => entries.first().cloned(),
        Node::Inner(children) => children.first().map(|(first, _)| first.clone()),
    }
}

/// Adds an entry. Returns the overflow of the node, if any, with its first entry.
fn insert<T: Clone>(
    node: &mut Arc<Node<T>>,
    entry: T,
    up_to: &impl Fn(&T) -> bool,
) -> Option<(T, Arc<Node<T>>)> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            let at = partition(entries, up_to);
            entries.insert(at, entry);
            let overflow = split(entries, LEAF_ENTRIES, at)?;
            Some((overflow.first()?.clone(), Arc::new(Node::Leaf(overflow))))
        }
        Node::Inner(children) => {
            let at = partition_of(children, up_to).saturating_sub(1);
            let (least, child) = children.get_mut(at)?;
            if at == 0 && !up_to(least) {
                *least = entry.clone();
            }
            let overflow = insert(child, entry, up_to)?;
            let after = at.saturating_add(1);
            children.insert(after, overflow);
            let overflow = split(children, CHILDREN, after)?;
            Some((overflow.first()?.0.clone(), Arc::new(Node::Inner(overflow))))
        }
    }
}

/// Splits off the second half of an overlong node, or only the last element if that was just added:
/// a list that grows at its end then has full nodes.
fn split<E>(all: &mut Vec<E>, most: usize, added: usize) -> Option<Vec<E>> {
    if all.len() <= most {
        return None;
    }
    let last = all.len().checked_sub(1)?;
    Some(all.split_off(if added == last { last } else { all.len() / 2 }))
}

fn remove<T: Clone>(
    node: &mut Arc<Node<T>>,
    up_to: &impl Fn(&T) -> bool,
    is: &impl Fn(&T) -> bool,
) {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            let last = partition(entries, up_to).checked_sub(1);
            if let Some(at) = last.filter(|at| entries.get(*at).is_some_and(is)) {
                entries.remove(at);
            }
        }
        Node::Inner(children) => {
            let at = partition_of(children, up_to).saturating_sub(1);
            let Some((_, child)) = children.get_mut(at) else { return };
            remove(child, up_to, is);
            if child.is_empty() {
                children.remove(at);
            } else {
                join(children, at);
                join(children, at.saturating_sub(1));
            }
        }
    }
}

/// Joins a child and the next one if both are small.
fn join<T: Clone>(children: &mut Vec<(T, Arc<Node<T>>)>, at: usize) {
    let Some([(_, left), (_, right), ..]) = children.get(at..) else { return };
    let len = left.len().saturating_add(right.len());
    let joined = match (&**left, &**right) {
        (Node::Leaf(left), Node::Leaf(right)) if len <= LEAF_ENTRIES / 2 => {
            Node::Leaf(left.iter().chain(right).cloned().collect())
        }
        (Node::Inner(left), Node::Inner(right)) if len <= CHILDREN / 2 => {
            Node::Inner(left.iter().chain(right).cloned().collect())
        }
        _ => return,
    };
    children.remove(at.saturating_add(1));
    if let Some((_, child)) = children.get_mut(at) {
        *child = Arc::new(joined);
    }
}

impl<T> Node<T> {
    /// Returns the number of entries of a leaf, or of children of an inner node.
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Iterator over a list in one direction.
pub(crate) struct Walk<'a, T> {
    /// Path from the root, with an index in each node: forwards the next element, backwards the one
    /// after the next.
    stack: Vec<(&'a Node<T>, usize)>,
    is_backwards: bool,
}

impl<T: Clone> Iterator for Walk<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            let (node, at) = self.stack.last_mut()?;
            step();
            let len = node.len();
            let next = if self.is_backwards { at.checked_sub(1) } else { Some(*at) };
            let Some(next) = next.filter(|next| *next < len) else {
                self.stack.pop();
                continue;
            };
            *at = if self.is_backwards { next } else { next.saturating_add(1) };
            match node {
                Node::Leaf(entries) => return entries.get(next).cloned(),
                Node::Inner(children) => {
                    let (_, child) = children.get(next)?;
                    let end = child.len();
                    self.stack.push((child, if self.is_backwards { end } else { 0 }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(list: &Ordered<u32>) -> Vec<u32> {
        let forwards: Vec<u32> = list.forwards(|_| false).collect();
        let mut backwards: Vec<u32> = list.backwards(|_| true).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        forwards
    }

    fn put(list: &mut Ordered<u32>, n: u32) {
        list.insert(n, |other| *other <= n);
    }

    fn take(list: &mut Ordered<u32>, n: u32) {
        list.remove(|other| *other <= n, |other| *other == n);
    }

    /// A list equals a set whatever is added and removed, and copies do not change.
    #[test]
    fn a_list_is_a_set_in_order() {
        let mut list = Ordered::default();
        let mut set = BTreeSet::new();
        let mut random = 1_u32;
        let mut copies = Vec::new();
        for turn in 0..60_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = random >> 16;
            // The list grows, and then shrinks to almost nothing.
            if (random >> 8) % 10 < if turn < 30_000 { 7 } else { 2 } {
                if set.insert(n) {
                    put(&mut list, n);
                }
            } else {
                // An existing entry, if one exists.
                let n = set.range(n..).next().copied().unwrap_or(n);
                set.remove(&n);
                take(&mut list, n);
            }
            if turn % 5_000 == 0 {
                copies.push((list.clone(), set.clone()));
            }
            if turn % 1_000 == 0 {
                assert!(list.forwards(|other| *other <= n).eq(set.range(n + 1..).copied()));
                assert!(list.backwards(|other| *other < n).eq(set.range(..n).rev().copied()));
            }
        }
        copies.push((list, set));
        for (list, set) in copies {
            assert!(all(&list).iter().eq(&set));
        }
    }

    #[test]
    fn a_list_is_made_of_what_is_in_order() {
        for len in [0, 1, 127, 128, 129, 10_000, 1_000_000] {
            let sorted: Vec<u32> = (0..len).collect();
            assert_eq!(all(&Ordered::of(&sorted)), sorted);
            let mut grown = Ordered::default();
            sorted.iter().take(10_000).for_each(|n| put(&mut grown, *n));
            assert!(all(&grown).iter().eq(sorted.iter().take(10_000)));
        }
    }

    /// An emptied list is small again, even if entries are removed one by one everywhere.
    #[test]
    fn nodes_that_empty_are_joined() {
        let mut list = Ordered::of(&(0..100_000).collect::<Vec<u32>>());
        (0..100_000).filter(|n| n % 100 != 0).for_each(|n| take(&mut list, n));
        fn leaves(node: &Node<u32>) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Inner(children) => children.iter().map(|(_, child)| leaves(child)).sum(),
            }
        }
        assert_eq!(all(&list).len(), 1_000);
        assert!(leaves(&list.root) < 100, "{} leaves", leaves(&list.root));
    }
}
