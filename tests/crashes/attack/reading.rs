//! What is read, in the oracle's terms; and whether every way of reading says the same.

use std::rc::Rc;

use amberlog::{ErrorKind, Event, Events, Position, Query, ReadView, StreamId, StreamState};

use super::oracle::{Content, Life, Slot, State};

/// Something could not be read; the error says whether that may be.
pub enum Unread {
    /// The disk refused.
    Disk(String),
    /// Never allowed.
    Finding(String),
}

impl Unread {
    fn of(error: &amberlog::Error) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::Disk(error.to_string()),
            _ => Self::Finding(format!("{error} ({:?})", error.kind())),
        }
    }
}

/// The slots of these events, which begin at `from`.
pub fn slots(events: Events, from: u64) -> Result<Vec<Slot>, Unread> {
    let mut slots: Vec<Slot> = Vec::new();
    for event in events {
        let event = event.map_err(|error| Unread::of(&error))?;
        put(&mut slots, &event, from)?;
    }
    Ok(slots)
}

fn put(slots: &mut Vec<Slot>, event: &Event, from: u64) -> Result<(), Unread> {
    let next = from + slots.len() as u64;
    if next + event.dropped_before() != event.seq().get() {
        let (seq, dropped) = (event.seq(), event.dropped_before());
        return Err(Unread::Finding(format!("seq {seq} ({dropped} dropped) where {next} is next")));
    }
    slots.extend((0..event.dropped_before()).map(|_| None));
    slots.push(Some(Rc::from(event.payload())));
    Ok(())
}

/// Everything that a read view shows: by stream forwards, backwards, and by position.
pub fn state(view: &ReadView) -> Result<State, Unread> {
    let mut state = State::new();
    let all = Query::new()
        .state(StreamState::Active)
        .state(StreamState::Archived)
        .state(StreamState::Deleted)
        .limit(usize::MAX - 1);
    for info in view.list(&all).expect("listed").streams {
        let life = match info.state {
            StreamState::Archived => Life::Archived,
            StreamState::Deleted => Life::Deleted,
            _ => Life::Active,
        };
        if life == Life::Deleted {
            let gone = view.events(info.id).map_err(|error| error.kind().clone());
            if !matches!(gone, Err(ErrorKind::Deleted(_))) || info.name.is_some() {
                return Err(Unread::Finding("a deleted stream can be read, or has a name".into()));
            }
            state.insert(info.id, Content { state: life, ..Content::default() });
            continue;
        }
        let start = info.start.get();
        let events = || view.events(info.id).map_err(|error| Unread::of(&error));
        let mut slots = slots(events()?, start)?;
        slots.splice(0..0, (0..start).map(|_| None));
        // A rewind may have left a part of a gap, and nothing behind it.
        if slots.len() as u64 > info.head.get() {
            let what = format!("head {} of a stream of {}", info.head, slots.len());
            return Err(Unread::Finding(what));
        }
        slots.resize(info.head.get() as usize, None);
        let mut backwards = Vec::new();
        for event in events()?.rev() {
            let event = event.map_err(|error| Unread::of(&error))?;
            backwards.push(Rc::<[u8]>::from(event.payload()));
        }
        backwards.reverse();
        if !backwards.iter().eq(slots.iter().flatten()) {
            return Err(Unread::Finding("backwards reads something else (P7)".into()));
        }
        let label = info.labels.get("k").cloned();
        state.insert(
            info.id,
            Content {
                slots,
                name: info.name,
                label,
                generation: info.generation,
                start,
                state: life,
                is_fork: info.parent.is_some(),
            },
        );
    }
    by_position(view, &state)?;
    Ok(state)
}

/// Returns whether the stream has all events ever committed to it, and no others.
fn is_plain(content: &Content) -> bool {
    content.generation == 0
        && content.start == 0
        && !content.is_fork
        && content.state != Life::Deleted
}

fn by_position(view: &ReadView, state: &State) -> Result<(), Unread> {
    let mut seen = State::new();
    let mut last = 0;
    let all = view.all_events(Position::START).map_err(|error| Unread::of(&error))?;
    for event in all {
        let event = event.map_err(|error| Unread::of(&error))?;
        let position = event.position().map_or(0, Position::get);
        if position < last || position > view.position().get() {
            return Err(Unread::Finding(format!("position {position} behind {last} (P7)")));
        }
        last = position;
        // It shows what was committed, also of what was rewound or deleted since.
        let id = event.stream();
        if state.get(&id).is_none_or(|content| !is_plain(content)) {
            continue;
        }
        put(&mut seen.entry(id).or_default().slots, &event, 0)?;
    }
    let has_events =
        |(_, content): &(&StreamId, &Content)| is_plain(content) && !content.slots.is_empty();
    let with_events = || state.iter().filter(has_events);
    let same = seen.len() == with_events().count()
        && seen.iter().zip(with_events()).all(|(a, b)| a.0 == b.0 && a.1.slots == b.1.slots);
    if same {
        Ok(())
    } else {
        Err(Unread::Finding("by position it reads something else than by stream (P7)".into()))
    }
}
