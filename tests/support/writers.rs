//! Threads that write one log until they die, what they report, and what such reports promise.
//!
//! A writer says after each commit what was acknowledged: stream, first seq and count of each part. Every
//! event says in its payload where it belongs, so that a reader of the log needs nothing else to judge it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use amberlog::{
    Commit, CommitOptions, Durability, Error, Log, Options, Position, ReadView, Stream, StreamId,
    Ticket,
};

use super::Rng;
use super::waiting::let_chance_pass;

const THREADS: u64 = 4;
const STREAMS_MAX: usize = 24;

/// Small segments, so that every life rolls.
pub(crate) fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(64 << 10)
}

/// When a writer reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// After its ticket resolved, with the durability that it asked for.
    Honest,
    /// Before the sync: it asks for `Os` and says `Disk`.
    BeforeSync,
    /// Before its ticket resolved.
    BeforeWait,
}

impl Mode {
    /// All of them.
    const ALL: [Self; 3] = [Self::Honest, Self::BeforeSync, Self::BeforeWait];

    /// In a word, for an environment variable.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::BeforeSync => "before-sync",
            Self::BeforeWait => "before-wait",
        }
    }

    /// From that word.
    pub(crate) fn parse(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|mode| mode.as_str() == word);
        known.unwrap_or_else(|| panic!("no mode is called {word:?}"))
    }
}

// ---------------------------------------------------------------- writers

/// Several threads on all streams of the log and on new ones, until the process dies or the disk fails.
/// `on_error` sees the first failure of each thread.
pub(crate) fn write(log: &Log, mode: Mode, seed: u64, on_error: impl Fn(&Error) + Sync) {
    let mut known: Vec<Stream> = log
        .read_view()
        .streams()
        .iter()
        .map(|info| log.open_stream(info.id).expect("known"))
        .collect();
    let groups = AtomicU64::new(seed << 24 | 1);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let share = known.len().div_ceil((THREADS - index) as usize);
            let own: Vec<Stream> = known.drain(..share).collect();
            let (groups, on_error) = (&groups, &on_error);
            let rng = Rng::new(seed * THREADS + index);
            scope.spawn(move || {
                let Err(error) = write_own(log, own, mode, groups, rng);
                on_error(&error);
            });
        }
    });
}

/// One thread: commits until it cannot.
fn write_own(
    log: &Log,
    mut own: Vec<Stream>,
    mode: Mode,
    groups: &AtomicU64,
    mut rng: Rng,
) -> Result<std::convert::Infallible, Error> {
    // In some lives a sync is rare, so that much is acknowledged that a power cut may take.
    let disk_one_in =
        if groups.load(Ordering::Relaxed).wrapping_shr(24).is_multiple_of(4) { 16 } else { 2 };
    loop {
        if own.len() * (THREADS as usize) < STREAMS_MAX && rng.one_in(4) || own.is_empty() {
            own.push(log.create_stream().expect("a stream"));
        }
        let many = if rng.one_in(3) { 1 + rng.below(own.len().min(4) as u64) as usize } else { 1 };
        let from = rng.below((own.len() - many + 1) as u64) as usize;
        let members = &mut own[from..from + many];
        let counts: Vec<u64> = members.iter().map(|_| 1 + rng.below(4)).collect();
        let group = groups.fetch_add(1, Ordering::Relaxed);
        let line = fill(members, &counts, group, &mut rng);
        let asked = if rng.one_in(disk_one_in) { Durability::Disk } else { Durability::Os };
        let said = asked;
        let asked = if mode == Mode::BeforeSync { Durability::Os } else { asked };
        let options = CommitOptions::new().durability(asked);
        let ticket = if many == 1 && rng.one_in(2) {
            members[0].commit_with(options)
        } else {
            log.commit_all_with(members, options)
        };
        acknowledge(ticket, said, &line, mode)?;
    }
}

/// Appends this number of events to each stream, and returns what is to be reported of them.
pub(crate) fn fill(members: &mut [Stream], counts: &[u64], group: u64, rng: &mut Rng) -> String {
    let total: u64 = counts.iter().sum();
    let mut line = format!("{group}");
    for (stream, count) in members.iter_mut().zip(counts) {
        line += &format!(" {} {} {count}", stream.id(), stream.head());
        for _ in 0..*count {
            let text = format!("{}/{}/{group}/{total}/", stream.id(), stream.head());
            let pad_max = if rng.one_in(20) { 9_000 } else { 300 };
            let pad = "x".repeat(rng.below(pad_max) as usize);
            stream.append(text + &pad).expect("room");
        }
    }
    line
}

fn acknowledge(ticket: Ticket, said: Durability, line: &str, mode: Mode) -> Result<Commit, Error> {
    let say = |position: u64| {
        // One write per line: the pipe keeps it whole whatever happens to this process.
        let text = format!("@{said:?} {position} {line}\n");
        std::io::stdout().lock().write_all(text.as_bytes()).expect("the parent listens");
    };
    if mode == Mode::BeforeWait {
        say(0);
        let_chance_pass(3_000);
        return ticket.wait();
    }
    let commit = ticket.wait()?;
    say(commit.position.get());
    Ok(commit)
}

// ---------------------------------------------------------------- what was promised

/// One acknowledgement: stream, first seq and count of each part.
pub(crate) struct Ack {
    pub(crate) durability: Durability,
    pub(crate) position: u64,
    group: u64,
    parts: Vec<(StreamId, u64, u64)>,
}

impl Ack {
    /// From a line of a writer; `None` for any other line, or a part of one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        // The test harness may have begun the line.
        let (_, words) = line.split_once('@')?;
        let mut words = words.split(' ');
        let durability = match words.next()? {
            "Disk" => Durability::Disk,
            _ => Durability::Os,
        };
        let position = words.next()?.parse().ok()?;
        let group = words.next()?.parse().ok()?;
        let mut parts = Vec::new();
        while let Some(stream) = words.next() {
            let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            parts.push((stream.parse().ok()?, first, count));
        }
        Some(Self { durability, position, group, parts })
    }
}

/// Of each stream the group of every event, by seq.
pub(crate) type Content = BTreeMap<StreamId, Vec<u64>>;

/// Required content of one log.
#[derive(Default)]
pub(crate) struct Model {
    /// Content that the last recovery returned, so that every later one must return it (F27).
    pub(crate) recovered: Content,
    pub(crate) acks: Vec<Ack>,
}

impl Model {
    /// The last position that was acknowledged at `Disk`: it and all before it are synced.
    pub(crate) fn synced(&self) -> u64 {
        let disk = self.acks.iter().filter(|ack| ack.durability == Durability::Disk);
        disk.map(|ack| ack.position).max().unwrap_or(0)
    }

    /// Returns the promises that `found` breaks. Acknowledgements up to `last` count.
    pub(crate) fn missing(&self, found: &Content, last: u64) -> Vec<String> {
        let mut missing = Vec::new();
        let mut expect = |stream: &StreamId, seq: u64, group: u64| {
            let there = found.get(stream).and_then(|groups| groups.get(seq as usize));
            if there != Some(&group) {
                missing.push(format!("{stream} {seq} of group {group}: {there:?} is there"));
            }
        };
        for (stream, groups) in &self.recovered {
            for (seq, group) in groups.iter().enumerate() {
                expect(stream, seq as u64, *group);
            }
        }
        for ack in self.acks.iter().filter(|ack| ack.position <= last) {
            for (stream, first, count) in &ack.parts {
                for seq in *first..first + count {
                    expect(stream, seq, ack.group);
                }
            }
        }
        missing
    }
}

/// Reads everything, in both ways, and panics over anything that is not as some writer wrote it.
pub(crate) fn read_all(view: &ReadView) -> Content {
    let mut content = Content::new();
    let mut groups: HashMap<u64, (u64, u64, BTreeSet<u64>)> = HashMap::new();
    for info in view.streams() {
        let mut events = Vec::new();
        for event in view.events(info.id).expect("listed") {
            let event = event.expect("readable");
            let text = String::from_utf8_lossy(event.payload());
            let mut words = text.split('/');
            let mut word = || words.next().expect("four words");
            assert_eq!(word(), info.id.to_string(), "an event of another stream");
            assert_eq!(word(), event.seq().to_string(), "an event of another seq");
            assert_eq!(event.seq().get(), events.len() as u64, "out of order");
            let group = word().parse().expect("a number");
            let of = groups.entry(group).or_insert((0, 0, BTreeSet::new()));
            of.0 += 1;
            of.1 = word().parse().expect("a number");
            of.2.insert(event.position().expect("durable").get());
            events.push(group);
        }
        assert_eq!(events.len() as u64, info.head.get(), "the head of {}", info.id);
        content.insert(info.id, events);
    }
    for (group, (seen, total, positions)) in &groups {
        assert_eq!(seen, total, "P4: a part of group {group}");
        assert_eq!(positions.len(), 1, "P4: group {group} in several commits");
    }
    let mut last = 0;
    let mut events = 0;
    for event in view.all_events(Position::START).expect("in range") {
        let position = event.expect("readable").position().expect("durable").get();
        assert!(position == last || position == last + 1, "P7: {position} behind {last}");
        (last, events) = (position, events + 1);
    }
    assert_eq!(last, view.position().get(), "P7: the last position");
    assert_eq!(events, content.values().map(Vec::len).sum::<usize>());
    content
}
