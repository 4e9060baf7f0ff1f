//! Is every verb of a stream's life what a few maps in memory say that it is?
//!
//! P1, P2, P4 to P9. Streams are named, labelled, forked, rewound, trimmed, archived and deleted at random by several
//! handles each, with expectations and ids of commits; in between the log is listed, compacted, backed up, exported,
//! closed, and its machine switched off. After every step read views, old and new, handles, lists and names
//! are compared with the model, which knows nothing of segments, rings or branches.
#![cfg(all(feature = "sim", feature = "json"))]

mod check;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use amberlog::maintenance::CompactOptions;
use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    Commit, CommitId, CommitOptions, ErrorKind, Expect, Log, Options, ReadView, Stream, StreamId,
    StreamState, Ticket,
};
use support::{Rng, env_or};

const NAMES: [&str; 5] = ["a", "ab", "b", "ba", "c"];
const HANDLES_MAX: usize = 14;

/// A stream, as it is committed.
#[derive(Clone, PartialEq, Default, Debug)]
struct Model {
    /// Payloads, and the position of their commits.
    slots: Vec<(Rc<[u8]>, u64)>,
    start: usize,
    generation: u32,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    data: Option<Vec<u8>>,
    state: StreamState,
    parent: Option<(StreamId, u64)>,
    /// The position of its last commit.
    last: u64,
}

type State = BTreeMap<StreamId, Model>;

/// Changes in the next commit of a handle.
#[derive(Clone, Default, Debug)]
struct Said {
    rewind: Option<usize>,
    start: Option<usize>,
    name: Option<Option<String>>,
    labels: BTreeMap<String, Option<String>>,
    data: Option<Vec<u8>>,
    /// Of a fork, or of a stream that was archived before its first commit.
    first: Option<Model>,
}

impl Said {
    fn is_empty(&self) -> bool {
        let Self { rewind, start, name, labels, data, first } = self;
        let plain = first.as_ref().is_none_or(|first| *first == Model::default());
        let cuts = rewind.is_some() || start.is_some();
        !cuts && name.is_none() && labels.is_empty() && data.is_none() && plain
    }
}

/// A handle, and what it should know.
struct Hand {
    stream: Stream,
    id: StreamId,
    /// What it takes for committed; what is to be rewound is not in it any more.
    view: Vec<(Rc<[u8]>, u64)>,
    /// The head and the generation that it saw; `None`: never committed.
    seen: Option<(usize, u32)>,
    ring: Vec<Rc<[u8]>>,
    said: Said,
}

struct World {
    disk: SimDisk,
    log: Log,
    rng: Rng,
    now: State,
    position: u64,
    hands: Vec<Hand>,
    pinned: Vec<(ReadView, State)>,
    ids: BTreeMap<u8, u64>,
    tally: BTreeMap<&'static str, u64>,
    number: u64,
    trace: Vec<&'static str>,
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let log = options().open_on(&disk).expect("opens");
        Self {
            disk,
            log,
            rng: Rng::new(seed),
            now: State::new(),
            position: 0,
            hands: Vec::new(),
            pinned: Vec::new(),
            ids: BTreeMap::new(),
            tally: BTreeMap::new(),
            number: 0,
            trace: Vec::new(),
        }
    }

    fn any(&mut self) -> Option<usize> {
        (!self.hands.is_empty()).then(|| self.rng.below(self.hands.len() as u64) as usize)
    }

    fn turn(&mut self) -> &'static str {
        let roll = self.rng.below(100);
        let Some(at) = self.any().filter(|_| roll >= 4) else {
            if self.hands.len() < HANDLES_MAX {
                let stream = self.log.create_stream().expect("a stream");
                self.hold(stream, Vec::new(), None, Said::default());
            }
            return "new";
        };
        match roll {
            4..24 => self.append(at),
            24..40 => self.commit(at),
            40..44 => self.commit_all(),
            44..50 => self.fork(at),
            50..56 => self.rewind(at),
            56..60 => self.trim(at),
            60..68 => self.state(at),
            68..72 => self.rename(at),
            72..76 => self.label(at),
            76..78 => self.data(at),
            78..80 => self.discard(at),
            80..84 => self.open_stream(),
            84..87 => {
                drop(self.hands.swap_remove(at));
                "drop"
            }
            87..91 => self.pin(),
            91..94 => self.compact(),
            94..96 => self.reopen(),
            96 => self.cut(),
            97 => self.stopped(),
            98 => self.around(),
            _ => self.backup(),
        }
    }

    fn hold(
        &mut self,
        stream: Stream,
        view: Vec<(Rc<[u8]>, u64)>,
        seen: Option<(usize, u32)>,
        said: Said,
    ) {
        let id = stream.id();
        self.hands.push(Hand { stream, id, view, seen, ring: Vec::new(), said });
    }

    fn append(&mut self, at: usize) -> &'static str {
        let state = self.known_state(at);
        for _ in 0..1 + self.rng.below(4) {
            self.number += 1;
            let mut payload = vec![b'.'; self.rng.below(2_500) as usize];
            payload.extend(self.number.to_string().as_bytes());
            let hand = &mut self.hands[at];
            match hand.stream.append(&payload) {
                Ok(seq) => {
                    assert_eq!(seq.get() as usize, hand.view.len() + hand.ring.len());
                    hand.ring.push(payload.into());
                }
                Err(refused) => assert_ne!(state, StreamState::Active, "{refused:?}"),
            }
        }
        "append"
    }

    /// What a handle says of the state may be old, but not newer than what is.
    fn known_state(&self, at: usize) -> StreamState {
        let hand = &self.hands[at];
        let first = hand.said.first.as_ref().map(|first| first.state);
        self.now.get(&hand.id).map_or(first.unwrap_or_default(), |model| model.state)
    }

    /// What the handle shows of the start: another one may have trimmed more than this one has seen.
    fn start(&self, at: usize) -> usize {
        let hand = &self.hands[at];
        let seen = if self.is_volatile(at) { usize::MAX } else { hand.view.len() };
        self.taken_start(at).min(seen).max(hand.said.start.unwrap_or(0))
    }

    /// Without a trim that is not committed.
    fn taken_start(&self, at: usize) -> usize {
        let hand = &self.hands[at];
        let first = hand.said.first.as_ref().map_or(0, |first| first.start);
        self.now.get(&hand.id).map_or(first, |model| model.start)
    }

    fn is_volatile(&self, at: usize) -> bool {
        self.hands[at].seen.is_none()
    }

    /// True while no other handle has removed what this one relies on.
    fn is_current(&self, at: usize) -> bool {
        let hand = &self.hands[at];
        let Some((_, generation)) = hand.seen else { return true };
        let model = &self.now[&hand.id];
        model.generation == generation && model.state != StreamState::Deleted
    }

    /// Returns the expected outcome of a commit of this handle.
    fn outcome(&self, at: usize, expect: Expect, share: Share) -> Result<(), Expected> {
        let hand = &self.hands[at];
        let now = self.now.get(&hand.id);
        let events = share == Share::All && !hand.ring.is_empty();
        let (rewind, start) = match share {
            Share::All => (hand.said.rewind, hand.said.start),
            Share::State(_) => (None, None),
        };
        if let Some(now) = now {
            if now.state == StreamState::Deleted {
                return Err(Expected::Deleted);
            }
            let writes = events || rewind.is_some();
            if now.state == StreamState::Archived && writes {
                return Err(Expected::Archived);
            }
            if now.state == StreamState::Active && rewind.is_some_and(|to| to < now.start) {
                return Err(Expected::Trimmed);
            }
        }
        let shared = || (hand.said.first.as_ref().map_or(0, |_| hand.view.len()), 0);
        let head = now.map_or_else(shared, |now| (now.slots.len(), now.generation));
        let seen = hand.seen.unwrap_or(head);
        let holds = match expect {
            Expect::Any => true,
            Expect::NoStream => now.is_none(),
            Expect::Exists => now.is_some(),
            Expect::At(seq) => seq.get() as usize == head.0,
            _ => head == seen,
        };
        let reaches = rewind.is_none_or(|to| to <= head.0);
        // A trim is of events that the handle saw; buffered ones may not go elsewhere.
        let is_of_ring = rewind.is_none() && start > Some(seen.0);
        let trims_seen = start.is_none() || head.1 == seen.1 && (head == seen || !is_of_ring);
        if holds && reaches && trims_seen { Ok(()) } else { Err(Expected::Conflict) }
    }

    /// Makes true what the handle's commit says.
    fn land(&mut self, at: usize, share: Share, position: u64) {
        let hand = &mut self.hands[at];
        let mut said = std::mem::take(&mut hand.said);
        if share != Share::All {
            (hand.said.rewind, hand.said.start) = (said.rewind.take(), said.start.take());
        }
        let model = self.now.entry(hand.id).or_insert_with(|| {
            let first = said.first.clone().unwrap_or_default();
            Model { slots: hand.view.clone(), ..first }
        });
        if let Some(to) = said.rewind {
            model.slots.truncate(to);
            model.generation += 1;
        }
        let ring = if share == Share::All { std::mem::take(&mut hand.ring) } else { Vec::new() };
        model.slots.extend(ring.into_iter().map(|payload| (payload, position)));
        model.name = said.name.unwrap_or(model.name.take());
        for (key, value) in said.labels {
            match value {
                Some(value) => drop(model.labels.insert(key, value)),
                None => drop(model.labels.remove(&key)),
            }
        }
        model.data = said.data.or(model.data.take()).filter(|data| !data.is_empty());
        match share {
            Share::State(state) => model.state = state,
            Share::All => {}
        }
        model.start = model.start.max(said.start.unwrap_or(0));
        model.last = position;
        if model.state == StreamState::Deleted {
            hand.ring.clear();
            *model = Model { state: StreamState::Deleted, last: position, ..Model::default() };
        }
        hand.view = model.slots.clone();
        hand.view.truncate(hand.said.rewind.unwrap_or(usize::MAX));
        hand.seen = Some((model.slots.len(), model.generation));
    }

    fn has_news(&self, at: usize) -> bool {
        let hand = &self.hands[at];
        !hand.ring.is_empty() || !hand.said.is_empty()
    }

    fn commit(&mut self, at: usize) -> &'static str {
        let mut how = CommitOptions::new();
        let mut expect = Expect::Seen;
        if self.rng.one_in(3) {
            expect = match self.rng.below(4) {
                0 => Expect::Any,
                1 => Expect::NoStream,
                2 => Expect::Exists,
                _ => Expect::At(self.rng.below(6).into()),
            };
            how = how.expect(expect);
        }
        let id = self.rng.one_in(4).then(|| self.rng.below(40) as u8);
        if let Some(id) = id {
            how = how.id(CommitId::from(u128::from(id)));
        }
        let known = self.hands[at].stream.state() == amberlog::StreamState::Deleted;
        let news = self.has_news(at);
        let ticket = self.hands[at].stream.commit_with(how);
        let mut expected = self.outcome(at, expect, Share::All);
        if known {
            expected = Err(Expected::Deleted);
        } else if let Some(position) = id.and_then(|id| self.ids.get(&id)) {
            expected = Err(Expected::Already(*position));
        } else if !news && expect == Expect::Seen {
            expected = Ok(());
        }
        let done = self.settle(ticket, &expected, news);
        if let (Some(commit), true) = (done, news) {
            let events = self.hands[at].ring.len();
            self.land(at, Share::All, commit.position.get());
            let head = self.now[&self.hands[at].id].slots.len();
            let seqs = commit.seqs.start.get() as usize..commit.seqs.end.get() as usize;
            assert_eq!(seqs, head - events..head);
            if let Some(id) = id {
                self.ids.insert(id, self.position);
            }
        }
        "commit"
    }

    /// Waits, and compares; a commit of something has the next position.
    fn settle(
        &mut self,
        ticket: Ticket,
        expected: &Result<(), Expected>,
        news: bool,
    ) -> Option<Commit> {
        let outcome = ticket.wait();
        match (&outcome, expected) {
            (Ok(commit), Ok(())) => {
                self.position += u64::from(news);
                assert!(!news || commit.position.get() == self.position);
            }
            (Err(error), Err(expected)) if expected.is(error.kind()) => {}
            _ => panic!("{outcome:?}, not {expected:?}"),
        }
        outcome.ok()
    }

    fn commit_all(&mut self) -> &'static str {
        let mut seen = BTreeSet::new();
        let some: Vec<usize> =
            (0..self.hands.len()).filter(|at| seen.insert(self.hands[*at].id)).collect();
        let known = |hand: &Hand| hand.stream.state() == amberlog::StreamState::Deleted;
        let some: Vec<usize> =
            some.into_iter().filter(|at| !known(&self.hands[*at]) && self.rng.one_in(2)).collect();
        let with: Vec<usize> = some.iter().copied().filter(|at| self.has_news(*at)).collect();
        let mut outcomes = with.iter().map(|at| self.outcome(*at, Expect::Seen, Share::All));
        let mut expected = outcomes.find(Result::is_err).unwrap_or(Ok(()));
        drop(outcomes);
        // Which of the streams is looked at first is not said.
        if let Err(first) = &mut expected {
            *first = Expected::Any;
        }
        let streams = self.hands.iter_mut().enumerate().filter(|(at, _)| some.contains(at));
        let ticket = self.log.commit_all(streams.map(|(_, hand)| &mut hand.stream));
        let news = !with.is_empty();
        if self.settle(ticket, &expected, news).is_some() && news {
            for at in with {
                self.land(at, Share::All, self.position);
            }
        }
        "commit all"
    }
}

/// Part of a handle that a commit takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Share {
    All,
    State(StreamState),
}

/// Why a commit should fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Conflict,
    Deleted,
    Archived,
    Trimmed,
    Already(u64),
    Any,
}

impl Expected {
    fn is(self, kind: &ErrorKind) -> bool {
        match kind {
            ErrorKind::Conflict { .. } => matches!(self, Self::Conflict | Self::Any),
            ErrorKind::Deleted(_) => matches!(self, Self::Deleted | Self::Any),
            ErrorKind::Archived(_) => matches!(self, Self::Archived | Self::Any),
            ErrorKind::Trimmed { .. } => matches!(self, Self::Trimmed | Self::Any),
            ErrorKind::AlreadyCommitted { position } => self == Self::Already(position.get()),
            _ => false,
        }
    }
}

#[test]
fn p4_p9_every_verb_is_what_the_model_says() {
    let first = env_or("AMBERLOG_SEED", 0);
    let mut tally = BTreeMap::new();
    for seed in first..first + env_or("AMBERLOG_SEEDS", 12) {
        let mut world = World::new(seed);
        for turn in 0..env_or("AMBERLOG_TURNS", 300) {
            let verb = std::panic::AssertUnwindSafe(|| {
                let verb = world.turn();
                world.trace.push(verb);
                world.compare();
                verb
            });
            match std::panic::catch_unwind(verb) {
                Ok(verb) => *tally.entry(verb).or_insert(0) += 1,
                Err(cause) => {
                    let tail = world.trace.len().saturating_sub(25);
                    eprintln!("seed {seed}, turn {turn}: {:?}", &world.trace[tail..]);
                    std::panic::resume_unwind(cause);
                }
            }
        }
        for (what, n) in world.tally {
            *tally.entry(what).or_insert(0) += n;
        }
    }
    println!("{tally:?}");
    assert!(tally["dropped by compacting"] > 0 && tally["power cuts"] > 0);
}
