//! Does a process that dies at any moment lose anything that it was told is committed?
//!
//! P3, P4, P6, P7; F1, F2, F4, F24, F25, F27, F32. The child is this test binary once more: threads that write
//! many streams, alone and several at once, and report each acknowledgement on a pipe. The parent kills
//! it at a random moment, in some rounds drops what was never synced (as a power cut could), and compares
//! what the log shows with what was reported. Two children that lie show that the comparison can fail.
//!
//! `AMBERLOG_KILLS` sets the number of kills, `AMBERLOG_SEED` repeats a run.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use amberlog::{
    CommitOptions, Durability, Inspection, Item, Log, Options, Position, Snapshot, Stream,
    StreamId, Ticket, survey,
};
use support::{Rng, env_or, segment};

const CHILD: &str = "AMBERLOG_KILL_CHILD";
const THREADS: u64 = 4;
const STREAMS_MAX: usize = 24;
const SECTOR: usize = 512;

/// How a child reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// After its ticket resolved, with the durability that it asked for.
    Honest,
    /// Before the sync: it asks for `Os` and says `Disk`.
    BeforeSync,
    /// Before its ticket resolved.
    BeforeWait,
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(64 << 10)
}

// ---------------------------------------------------------------- the child

/// Does nothing, unless this process is a child of the tests below.
#[test]
fn child() {
    let Ok(role) = env::var(CHILD) else { return };
    let mut words = role.splitn(3, ';');
    let mut word = || words.next().expect("three words");
    let mode = match word() {
        "honest" => Mode::Honest,
        "before-sync" => Mode::BeforeSync,
        _ => Mode::BeforeWait,
    };
    let seed: u64 = word().parse().expect("a number");
    let log = options().open(word()).expect("opens");
    let mut known: Vec<Stream> =
        log.snapshot().streams().iter().map(|info| log.resume(info.id).expect("known")).collect();
    let groups = AtomicU64::new(seed << 24 | 1);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let share = known.len().div_ceil((THREADS - index) as usize);
            let own: Vec<Stream> = known.drain(..share).collect();
            let (log, groups) = (&log, &groups);
            scope.spawn(move || write(log, own, mode, groups, Rng::new(seed * THREADS + index)));
        }
    });
}

/// One thread: commits until it dies.
fn write(log: &Log, mut own: Vec<Stream>, mode: Mode, groups: &AtomicU64, mut rng: Rng) {
    loop {
        if own.len() * (THREADS as usize) < STREAMS_MAX && rng.one_in(4) || own.is_empty() {
            own.push(log.stream().expect("a stream"));
        }
        let many = if rng.one_in(3) { 1 + rng.below(own.len().min(4) as u64) as usize } else { 1 };
        let from = rng.below((own.len() - many + 1) as u64) as usize;
        let members = &mut own[from..from + many];
        let counts: Vec<u64> = members.iter().map(|_| 1 + rng.below(4)).collect();
        let (group, total) = (groups.fetch_add(1, Ordering::Relaxed), counts.iter().sum::<u64>());
        let mut line = format!("{group}");
        for (stream, count) in members.iter_mut().zip(&counts) {
            line += &format!(" {} {} {count}", stream.id(), stream.head());
            for _ in 0..*count {
                let text = format!("{}/{}/{group}/{total}/", stream.id(), stream.head());
                let pad_max = if rng.one_in(20) { 9_000 } else { 300 };
                let pad = "x".repeat(rng.below(pad_max) as usize);
                stream.append(text + &pad).expect("room");
            }
        }
        let asked = if rng.one_in(3) { Durability::Os } else { Durability::Disk };
        let said = asked;
        let asked = if mode == Mode::BeforeSync { Durability::Os } else { asked };
        let options = CommitOptions::new().durability(asked);
        let ticket = if many == 1 && rng.one_in(2) {
            members[0].commit_with(options)
        } else {
            log.commit_all_with(members, options)
        };
        acknowledge(ticket, said, &line, mode);
    }
}

fn acknowledge(ticket: Ticket, said: Durability, line: &str, mode: Mode) {
    let say = |position: u64| {
        // One write per line: the pipe keeps it whole whatever happens to this process.
        let text = format!("@{said:?} {position} {line}\n");
        std::io::stdout().lock().write_all(text.as_bytes()).expect("the parent listens");
    };
    if mode == Mode::BeforeWait {
        say(0);
        thread::sleep(Duration::from_millis(3));
        ticket.wait().expect("committed");
    } else {
        let commit = ticket.wait().expect("committed");
        say(commit.position.get());
    }
}

// ---------------------------------------------------------------- what the parent knows

/// One acknowledgement: stream, first seq and count of each part.
struct Ack {
    durability: Durability,
    position: u64,
    group: u64,
    parts: Vec<(StreamId, u64, u64)>,
}

fn parse(line: &str) -> Option<Ack> {
    let mut words = line.strip_prefix('@')?.split(' ');
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
    Some(Ack { durability, position, group, parts })
}

/// Of each stream the group of every event, by seq.
type Content = BTreeMap<StreamId, Vec<u64>>;

/// What must be in one log.
#[derive(Default)]
struct Model {
    /// What the last recovery returned, and so every later one must (F27).
    recovered: Content,
    acks: Vec<Ack>,
}

impl Model {
    /// The last position that was acknowledged at `Disk`: it and all before it are synced.
    fn synced(&self) -> u64 {
        let disk = self.acks.iter().filter(|ack| ack.durability == Durability::Disk);
        disk.map(|ack| ack.position).max().unwrap_or(0)
    }

    /// What of all that was promised is not in `found`. `last`: acknowledgements up to there count.
    fn missing(&self, found: &Content, last: u64) -> Vec<String> {
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

/// Reads everything, in both ways, and panics over anything that is not as some child wrote it.
fn read_all(snapshot: &Snapshot) -> Content {
    let mut content = Content::new();
    let mut groups: HashMap<u64, (u64, u64, BTreeSet<u64>)> = HashMap::new();
    for info in snapshot.streams() {
        let mut events = Vec::new();
        for event in snapshot.events(info.id).expect("listed") {
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
    for event in snapshot.read_all(Position::START).expect("in range") {
        let position = event.expect("readable").position().expect("durable").get();
        assert!(position == last || position == last + 1, "P7: {position} behind {last}");
        (last, events) = (position, events + 1);
    }
    assert_eq!(last, snapshot.position().get(), "P7: the last position");
    assert_eq!(events, content.values().map(Vec::len).sum::<usize>());
    content
}

// ---------------------------------------------------------------- the parent

/// Lets a child write for a while, kills it, and returns what it reported.
fn run_child(dir: &Path, mode: Mode, rng: &mut Rng) -> Vec<Ack> {
    let mode = match mode {
        Mode::Honest => "honest",
        Mode::BeforeSync => "before-sync",
        Mode::BeforeWait => "before-wait",
    };
    let seed = rng.below(1 << 30);
    let mut child = Command::new(env::current_exe().expect("this binary"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{mode};{seed};{}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let reader = thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut err = child.stderr.take().expect("piped");
    // Most children die while they write, some while they open.
    let micros = if rng.one_in(6) { rng.below(8_000) } else { 8_000 + rng.below(110_000) };
    thread::sleep(Duration::from_micros(micros));
    child.kill().expect("killed");
    child.wait().expect("dead");
    let mut last_words = String::new();
    let _ = std::io::Read::read_to_string(&mut err, &mut last_words);
    assert_eq!(last_words, "", "the child failed by itself (seed {seed})");
    let lines = reader.join().expect("read");
    lines.iter().filter_map(|line| parse(line)).collect()
}

/// Where what was never synced starts: in the last segment with commits, behind the last one that was
/// synced. A segment gets its first byte only after the one before it, and its own header, are synced.
fn unsynced_from(dir: &Path, durable: u64) -> Option<(u32, u64)> {
    const COMMITS_AT: u64 = 4096;
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    for item in Inspection::open(dir).ok()?.flatten() {
        if let Item::Commit { segment, offset, bytes, position, .. } = item {
            let end = ends.entry(segment).or_insert(COMMITS_AT);
            if position.get() <= durable {
                *end = offset + bytes;
            }
        }
    }
    ends.into_iter().next_back()
}

/// Does to the unsynced end of the log what a power cut may do: any of its sectors are gone.
fn cut_power(dir: &Path, durable: u64, rng: &mut Rng) {
    let Some((number, from)) = unsynced_from(dir, durable) else { return };
    let path = segment(dir, number);
    let mut bytes = fs::read(&path).expect("readable");
    let keep_one_in = [0, 2, 4][rng.below(3) as usize];
    // At the start of a segment a synced witness may have stood: of that sector either it or what was
    // written over it is left, and never zeros.
    let first = if from == 4096 { from as usize + SECTOR } else { from as usize };
    let mut at = first;
    while at < bytes.len() {
        let end = ((at / SECTOR + 1) * SECTOR).min(bytes.len());
        if keep_one_in == 0 || !rng.one_in(keep_one_in) {
            bytes[at..end].fill(0);
        }
        at = end;
    }
    fs::write(&path, bytes).expect("written");
}

/// One life and death of a child, and what is left. Returns what is missing.
fn round(dir: &Path, model: &mut Model, mode: Mode, cut: bool, rng: &mut Rng) -> Vec<String> {
    model.acks.extend(run_child(dir, mode, rng));
    if dir.join("segments").exists() {
        look(dir, model, mode, cut, rng);
    }
    let last = if cut { model.synced() } else { u64::MAX };
    let log = options().open(dir).expect("P6: opens by itself");
    assert!(log.survey().is_sound(), "P6: {:?}", log.survey());
    let found = read_all(&log.snapshot());
    let missing = model.missing(&found, last);
    drop(log);
    let again = Snapshot::open(dir);
    if let Ok((snapshot, survey)) = &again {
        assert!(survey.is_sound() && survey.torn_tail.is_none(), "F24: {survey:?}");
        assert_eq!(read_all(snapshot), found, "F27: the second look");
    }
    assert!(again.is_ok() || found.is_empty());
    model.recovered = found;
    model.acks.clear();
    missing
}

/// Looks at what the child left, without changing it; then cuts the power, if this is the round for it.
fn look(dir: &Path, model: &Model, mode: Mode, cut: bool, rng: &mut Rng) {
    let seen = survey(dir).expect("readable");
    assert!(seen.is_sound(), "P6: a kill is no damage: {seen:?}");
    let (snapshot, _) = Snapshot::open(dir).expect("readable");
    let content = read_all(&snapshot);
    if mode == Mode::Honest {
        let missing = model.missing(&content, u64::MAX);
        assert!(missing.is_empty(), "P3: read-only, of {seen:?}: {missing:#?}");
    }
    if cut {
        let mut durable = seen.durable.get();
        if mode == Mode::Honest && seen.torn_tail.is_some() {
            // The torn write may have gone over the witness of what was synced before it.
            durable = durable.max(model.synced());
        }
        cut_power(dir, durable, rng);
        let seen = survey(dir).expect("readable");
        assert!(seen.is_sound(), "P6: a power cut is no damage: {seen:?}");
        read_all(&Snapshot::open(dir).expect("readable").0);
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    env_or("AMBERLOG_SEED", u64::from(now.subsec_nanos()))
}

/// Kills `kills` children; a new log after every `logs_of` of them.
fn kill_many(kills: u64, logs_of: u64, cut_one_in: u64, salt: u64) {
    let seed = seed() ^ salt;
    let mut rng = Rng::new(seed);
    let (mut dir, mut model) = (tempfile::tempdir().expect("a directory"), Model::default());
    let mut acks = 0;
    for n in 0..kills {
        if n % logs_of == 0 && n > 0 {
            (dir, model) = (tempfile::tempdir().expect("a directory"), Model::default());
        }
        let cut = cut_one_in > 0 && rng.one_in(cut_one_in);
        let before = model.recovered.values().map(Vec::len).sum::<usize>();
        let missing = round(dir.path(), &mut model, Mode::Honest, cut, &mut rng);
        assert!(missing.is_empty(), "seed {seed}, round {n}, cut {cut}: {missing:#?}");
        acks += model.recovered.values().map(Vec::len).sum::<usize>() - before;
    }
    println!("seed {seed}: {kills} kills, {acks} events survived");
    assert!(acks > 0, "the children wrote nothing");
}

/// F32: SIGKILL at any instant loses nothing acknowledged, in one log that goes on and on.
#[test]
fn p3_p4_p7_f32_a_killed_writer_loses_nothing_that_was_acknowledged() {
    kill_many(env_or("AMBERLOG_KILLS", 60) / 2, 15, 0, 0x517);
}

/// F2, F4: a power cut takes any sectors that were not synced; commits acknowledged at `Disk` stay.
#[test]
fn p3_p6_f2_f4_a_power_cut_takes_only_what_was_not_synced() {
    kill_many(env_or("AMBERLOG_KILLS", 60) / 2, 6, 2, 0xC47);
}

/// The negative controls: the comparison above finds the loss when an acknowledgement is a lie.
fn control(mode: Mode, cut: bool) {
    let seed = seed();
    let mut rng = Rng::new(seed);
    for _ in 0..8 {
        let (dir, mut model) = (tempfile::tempdir().expect("a directory"), Model::default());
        if !round(dir.path(), &mut model, mode, cut, &mut rng).is_empty() {
            return;
        }
    }
    panic!("seed {seed}: {mode:?} was not noticed");
}

#[test]
fn control_an_acknowledgement_before_the_sync_is_noticed() {
    control(Mode::BeforeSync, true);
}

#[test]
fn control_an_acknowledgement_before_the_ticket_resolves_is_noticed() {
    control(Mode::BeforeWait, false);
}
