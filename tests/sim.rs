//! Does anything that was acknowledged get lost, or anything appear that never was, whatever the disk does?
//!
//! Scripts of commits run on a simulated disk that is stopped at some call. What chance leaves of it is opened
//! again and compared with an oracle: a list of what each stream held after each commit. The oracle shares no
//! code with the engine. A failure prints the seeds; `AMBERLOG_SIM_SEED` starts from another one, and
//! `AMBERLOG_SIM_RUNS` makes it longer.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;

use amberlog::{CommitOptions, Durability, Fault, Log, SimDisk, Snapshot, Stream, StreamId};

/// What every stream holds.
type State = BTreeMap<StreamId, Vec<Vec<u8>>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 1) % bound
    }
}

/// The states that a log went through, and how far they were acknowledged.
struct Oracle {
    states: Vec<State>,
    /// What it held in earlier lives. Who only reads may be shown one of them again: nothing on disk
    /// proves yet that the last group was acknowledged.
    older: Vec<State>,
    /// The last state that was acknowledged, and the last that was acknowledged as synced.
    acked: usize,
    synced: usize,
}

impl Oracle {
    fn new(start: State) -> Self {
        Self { states: vec![start], older: Vec::new(), acked: 0, synced: 0 }
    }

    /// Which of the states this is.
    fn recognise(&self, found: &State, at_least: usize) -> Result<usize, String> {
        match (at_least..self.states.len()).rev().find(|at| self.states[*at] == *found) {
            Some(at) => Ok(at),
            None => {
                let lengths = |state: &State| state.values().map(Vec::len).collect::<Vec<_>>();
                Err(format!(
                    "found {:?}, expected one of {:?} from {at_least} on",
                    lengths(found),
                    self.states.iter().map(lengths).collect::<Vec<_>>()
                ))
            }
        }
    }
}

fn options() -> amberlog::Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

fn read(snapshot: &Snapshot) -> Result<State, String> {
    let mut state = State::new();
    for info in snapshot.streams() {
        let mut payloads = Vec::new();
        for event in snapshot.events(info.id).map_err(|error| error.to_string())? {
            let event = event.map_err(|error| format!("reading {}: {error}", info.id))?;
            if event.seq().get() != payloads.len() as u64 {
                return Err(format!("seq {} at {}", event.seq(), payloads.len()));
            }
            payloads.push(event.payload().to_vec());
        }
        let backwards: Result<Vec<_>, _> = snapshot
            .events(info.id)
            .map_err(|error| error.to_string())?
            .rev()
            .map(|event| event.map(|event| event.payload().to_vec()))
            .collect();
        let mut backwards = backwards.map_err(|error| format!("backwards: {error}"))?;
        backwards.reverse();
        if backwards != payloads {
            return Err("backwards reads something else".into());
        }
        state.insert(info.id, payloads);
    }
    Ok(state)
}

/// What a script is like.
#[derive(Clone, Copy)]
enum Style {
    /// Events of all sizes, over several streams.
    Mixed,
    /// Commits of one event of one size, so that what an earlier life left behind lies where a record may
    /// start.
    Uniform,
}

impl Style {
    fn of(random: &mut Random) -> Self {
        if random.below(3) == 0 { Self::Uniform } else { Self::Mixed }
    }

    fn payload(self, random: &mut Random) -> Vec<u8> {
        let size = match (self, random.below(20)) {
            (Self::Uniform, _) => 600,
            (Self::Mixed, 0) => 9_000,
            (Self::Mixed, _) => random.below(700),
        };
        vec![random.below(256) as u8; size as usize]
    }
}

/// Runs a script of commits, several of them in a group, until it ends or the disk stops.
fn run(log: &Log, oracle: &mut Oracle, random: &mut Random, commits: u64, style: Style) {
    let mut current = oracle.states.last().cloned().unwrap_or_default();
    let mut streams: Vec<Stream> = current.keys().filter_map(|id| log.resume(*id).ok()).collect();
    let mut left = commits;
    while left > 0 {
        while streams.len() < 2 || (streams.len() < 5 && random.below(4) == 0) {
            let Ok(stream) = log.stream() else { return };
            streams.push(stream);
        }
        // Tickets that are merely kept form a group, which the first to be waited for leads.
        let usual = 1 + random.below(4);
        let group = left.min(if matches!(style, Style::Uniform) { 4 } else { usual });
        left -= group;
        let mut tickets = Vec::new();
        for _ in 0..group {
            let durability = if random.below(3) == 0 { Durability::Os } else { Durability::Disk };
            let ticket = commit(log, &mut streams, &mut current, random, style, durability);
            oracle.states.push(current.clone());
            tickets.push((ticket, durability, oracle.states.len() - 1));
        }
        for (ticket, durability, state) in tickets {
            if ticket.wait().is_err() {
                return;
            }
            oracle.acked = state;
            if durability == Durability::Disk {
                oracle.synced = state;
            }
        }
    }
}

fn commit(
    log: &Log,
    streams: &mut [Stream],
    state: &mut State,
    random: &mut Random,
    style: Style,
    durability: Durability,
) -> amberlog::Ticket {
    let (some, events) = match style {
        Style::Uniform => (1, 1),
        Style::Mixed => (1 + random.below(3), 1 + random.below(3)),
    };
    let mut chosen: Vec<usize> = (0..streams.len()).collect();
    while chosen.len() as u64 > some {
        chosen.remove(random.below(chosen.len() as u64) as usize);
    }
    for at in &chosen {
        for _ in 0..events {
            let payload = style.payload(random);
            streams[*at].append(&payload).expect("there is room");
            state.entry(streams[*at].id()).or_default().push(payload);
        }
    }
    let taking = streams.iter_mut().enumerate().filter(|(at, _)| chosen.contains(at));
    let how = CommitOptions::new().durability(durability);
    log.commit_all_with(taking.map(|(_, stream)| stream), how)
}

/// Opens what is left, compares it with the oracle, and returns what the log holds now.
fn check(disk: &SimDisk, oracle: &Oracle, at_least: usize) -> Result<State, String> {
    if let Ok((snapshot, survey)) = Snapshot::open_on(disk) {
        if !survey.is_sound() {
            return Err(format!("damage where there is none: {:?}", survey.damages));
        }
        let shown = read(&snapshot)?;
        if !oracle.older.contains(&shown) {
            oracle.recognise(&shown, 0).map_err(|what| format!("read-only: {what}"))?;
        }
    }
    let log = options().open_on(disk).map_err(|error| format!("opening: {error}"))?;
    if !log.survey().is_sound() {
        return Err(format!("damage where there is none: {:?}", log.survey().damages));
    }
    let found = read(&log.snapshot())?;
    oracle.recognise(&found, at_least)?;
    // What recovery returned once, every later one returns, also after another power cut (F27).
    let calls = disk.calls();
    for seed in 0..3 {
        let again = options()
            .open_on(&disk.after_power_cut(calls + seed))
            .map_err(|error| format!("opening again: {error}"))?;
        if read(&again.snapshot())? != found {
            return Err("a second recovery found something else".into());
        }
    }
    drop(log);
    Ok(found)
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn p3_p4_p6_what_is_acknowledged_survives_every_crash() {
    let first = from_environment("AMBERLOG_SIM_SEED", 1);
    let runs = from_environment("AMBERLOG_SIM_RUNS", 120);
    let (mut crashes, mut seen) = (0_u64, std::collections::HashSet::new());
    for seed in first..first + runs {
        let mut random = Random(seed);
        let mut disk = SimDisk::new(seed);
        let mut before = Oracle::new(State::new());
        let mut start = State::new();
        // One life after another on what the last one left.
        for life in 0..4 {
            let older = [before.older.clone(), before.states.clone()].concat();
            let mut oracle = Oracle { older, ..Oracle::new(start.clone()) };
            let stop = disk.calls() + 1 + random.below(160);
            disk.fail_at(stop, Fault::Crash);
            match options().open_on(&disk) {
                Ok(log) => {
                    let style = Style::of(&mut random);
                    run(&log, &mut oracle, &mut random, 1 + seed % 30, style);
                }
                // Stopped while it opened: what may be there is what might have been there before.
                Err(_) => oracle = before,
            }
            let context = |what: String| format!("seed {seed}, life {life}, call {stop}: {what}");
            let killed = disk.after_kill();
            check(&killed, &oracle, oracle.acked).map_err(context).expect("after a kill");
            for chance in 0..6 {
                let cut = disk.after_power_cut(chance);
                seen.insert(cut.fingerprint());
                check(&cut, &oracle, oracle.synced).map_err(context).expect("after a power cut");
                crashes += 1;
            }
            // The next life follows a power cut, or a mere kill: then nothing was settled on the disk yet.
            let killed = random.below(2) == 0;
            disk = if killed { disk.after_kill() } else { disk.after_power_cut(random.below(99)) };
            let at_least = if killed { oracle.acked } else { oracle.synced };
            let look = if killed { disk.after_kill() } else { disk.clone() };
            start = check(&look, &oracle, at_least).map_err(context).expect("the next life");
            if !killed {
                disk = disk.after_kill();
            }
            if !killed {
                let older = [oracle.older, oracle.states].concat();
                oracle = Oracle { older, ..Oracle::new(start.clone()) };
            }
            before = oracle;
        }
    }
    println!("{crashes} crashes, {} distinct states", seen.len());
}

#[test]
fn every_call_of_a_short_script_is_a_crash_point() {
    let script = |disk: &SimDisk| {
        let mut oracle = Oracle::new(State::new());
        if let Ok(log) = options().open_on(disk) {
            run(&log, &mut oracle, &mut Random(7), 20, Style::Mixed);
        }
        oracle
    };
    let whole = SimDisk::new(7);
    script(&whole);
    let calls = whole.calls();
    for stop in 0..calls {
        let disk = SimDisk::new(7);
        disk.fail_at(stop, Fault::Crash);
        let oracle = script(&disk);
        for chance in 0..20 {
            let cut = disk.after_power_cut(chance);
            check(&cut, &oracle, oracle.synced)
                .map_err(|what| format!("call {stop}, chance {chance}: {what}"))
                .expect("after a power cut");
        }
    }
}

#[test]
fn p5_what_failed_is_never_acknowledged_later_and_never_comes_back() {
    let script = |log: &Log, oracle: &mut Oracle| {
        run(log, oracle, &mut Random(3), 16, Style::Uniform);
    };
    let whole = SimDisk::new(3);
    {
        let log = options().open_on(&whole).expect("opens");
        script(&log, &mut Oracle::new(State::new()));
    }
    for (call, seed) in (0..whole.calls()).flat_map(|call| (0..6).map(move |seed| (call, seed))) {
        for fault in [Fault::LostSync, Fault::Io] {
            let disk = SimDisk::new(3 + seed);
            disk.fail_at(call, fault);
            let mut oracle = Oracle::new(State::new());
            let Ok(log) = options().open_on(&disk) else { continue };
            script(&log, &mut oracle);
            // Whatever failed is over: go on as the engine allows, with commits of the same size.
            go_on(&log, &mut oracle);
            let context = |what: String| format!("{fault:?} at call {call}, seed {seed}: {what}");
            check(&disk.after_kill(), &oracle, oracle.acked).map_err(context).expect("a kill");
            for chance in 0..3 {
                let cut = disk.after_power_cut(chance);
                check(&cut, &oracle, oracle.synced).map_err(context).expect("a power cut");
            }
        }
    }
}

/// Two more commits. When they succeed, what had failed is gone for good: its handles are dropped.
fn go_on(log: &Log, oracle: &mut Oracle) {
    for _ in 0..2 {
        let Ok(mut stream) = log.stream() else { return };
        let payload = vec![b'm'; 600];
        stream.append(&payload).expect("room");
        let acked = stream.commit().wait().is_ok();
        let mut next = oracle.states[oracle.acked].clone();
        next.insert(stream.id(), vec![payload]);
        if acked {
            // What came before and failed can be seen no more.
            oracle.states.truncate(oracle.acked + 1);
            oracle.states.push(next);
            oracle.acked = oracle.states.len() - 1;
            oracle.synced = oracle.acked;
        } else {
            let mut with_failed = oracle.states.last().cloned().unwrap_or_default();
            with_failed.insert(stream.id(), vec![vec![b'm'; 600]]);
            oracle.states.push(with_failed);
        }
    }
}
