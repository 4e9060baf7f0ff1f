//! Does every promise hold in whatever order threads take their steps?
//!
//! The whole engine on a simulated disk, its own threads included, under a scheduler that decides at every lock,
//! atomic and disk call which thread goes on. Writers wait for, await, drop and keep tickets; a close, a failing sync
//! or a stopped machine cuts them off. What is then found is compared with a [`History`] of requests and answers.
//!
//! ```sh
//! RUSTFLAGS="--cfg amberlog_shuttle" cargo test --release --features sim --test interleavings
//! ```
//!
//! `AMBERLOG_SHUTTLE_RUNS` multiplies the executions, `AMBERLOG_SHUTTLE_SEED` starts from another seed. A failure
//! prints its schedule: with that text in a file, `AMBERLOG_SHUTTLE_REPLAY=<file>` and the test's name run
//! nothing but that execution again.
#![cfg(all(feature = "sim", amberlog_shuttle))]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amberlog::sim::{Fault, SimDisk};
use amberlog::{
    CommitOptions, Durability, Error, ErrorKind, Log, ReadView, Sabotage, Stream, StreamId, Ticket,
    sabotage,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Runner, thread};

/// Steps in a row that no other thread interrupts are what bugs hide behind: number of changes of priority.
const PCT_DEPTH: usize = 4;
/// Executions of each scenario, by each scheduler.
const RUNS: u64 = 2_000;

/// Part of one stream in a commit: its end, with this event.
#[derive(Clone, Copy, Debug)]
struct Part {
    stream: StreamId,
    head: usize,
    last: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Unknown: its ticket was dropped, or is still out.
    Open,
    /// Answered `Ok`, at this time.
    Acked(u64),
    /// Refused: nothing of it may ever be found.
    Refused,
    /// The disk failed: all of it may be found, or nothing.
    Failed,
}

#[derive(Clone, Debug)]
struct Asked {
    parts: Vec<Part>,
    durability: Durability,
    at: u64,
    outcome: Outcome,
}

/// Requests in their order, with their outcomes. Nothing in here waits.
#[derive(Clone, Debug, Default)]
struct History {
    clock: u64,
    /// Of every event that was appended, the stream and the seq that it got.
    events: Vec<(StreamId, usize)>,
    commits: Vec<Asked>,
    /// When a caller first learned that the log is poisoned.
    poisoned: Option<u64>,
    /// First violation.
    wrong: Option<String>,
}

/// The events of every stream, by number.
type Found = BTreeMap<StreamId, Vec<u64>>;

impl History {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn answered(&mut self, commit: usize, answer: Result<(), &Error>) -> Verdict {
        let now = self.tick();
        let asked = &mut self.commits[commit];
        asked.outcome = match answer.map_err(Error::kind) {
            Ok(()) => {
                let late = self.poisoned.is_some_and(|told| told < asked.at);
                ensure(!late, || format!("F8: acknowledged by a poisoned log: {asked:?}"))?;
                Outcome::Acked(now)
            }
            Err(ErrorKind::Conflict { .. } | ErrorKind::Closed) => Outcome::Refused,
            Err(ErrorKind::Poisoned) => {
                self.poisoned.get_or_insert(now);
                Outcome::Failed
            }
            Err(_) => Outcome::Failed,
        };
        Ok(())
    }

    /// Checks the rules that hold for everything found or shown.
    fn check(&self, found: &Found, what: &str) -> Verdict {
        for (stream, events) in found {
            for (seq, event) in events.iter().enumerate() {
                let was = self.events.get(*event as usize) == Some(&(*stream, seq));
                ensure(was, || format!("{what}: an event that never was, at {seq} of {stream}"))?;
            }
            let ends = |part: &Part| part.stream == *stream && part.head == events.len();
            let whole = self.commits.iter().flat_map(|commit| &commit.parts).any(ends);
            let whole = whole || events.is_empty();
            ensure(whole, || format!("P4, {what}: {stream} ends within a commit"))?;
        }
        for commit in &self.commits {
            let there = commit.parts.iter().filter(|part| is_there(part, found)).count();
            let whole = there == 0 || there == commit.parts.len();
            ensure(whole, || format!("P4, {what}: a part of {commit:?}"))?;
            let refused = there > 0 && commit.outcome == Outcome::Refused;
            ensure(!refused, || format!("P8, {what}: refused, and there: {commit:?}"))?;
            let Outcome::Acked(acked) = commit.outcome else { continue };
            let later = self.commits.iter().filter(|later| acked < later.at);
            let later = later.flat_map(|later| &later.parts).any(|part| is_there(part, found));
            let hole = there == 0 && later;
            ensure(!hole, || format!("F4, {what}: missing, and a later one is there: {commit:?}"))?;
        }
        Ok(())
    }

    /// Checks that all commits acknowledged by now at `durability` or better exist.
    fn check_acked(&self, found: &Found, durability: Durability, what: &str) -> Verdict {
        for commit in &self.commits {
            let kept = durability == Durability::Os || commit.durability == Durability::Disk;
            let acked = matches!(commit.outcome, Outcome::Acked(_));
            let there = commit.parts.iter().all(|part| is_there(part, found));
            let lost = kept && acked && !there;
            ensure(!lost, || format!("P3, {what}: acknowledged and lost: {commit:?}"))?;
        }
        Ok(())
    }

    /// Checks that everything readers saw as durable exists (F6).
    fn check_shown(&self, shown: &Found, found: &Found) -> Verdict {
        for commit in self.commits.iter().filter(|one| one.durability == Durability::Disk) {
            let early = |part: &Part| is_there(part, shown) && !is_there(part, found);
            let early = commit.parts.iter().any(early);
            ensure(!early, || format!("F6: shown before it was durable: {commit:?}"))?;
        }
        Ok(())
    }
}

/// What is wrong, if anything. It is told when all threads are done: one that panics among others that hold locks
/// would end the whole process.
type Verdict<T = ()> = Result<T, String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn is_there(part: &Part, found: &Found) -> bool {
    let events = found.get(&part.stream);
    events.and_then(|events| events.get(part.head - 1)) == Some(&part.last)
}

/// State shared by the threads of one execution.
#[derive(Clone)]
struct Stage {
    disk: SimDisk,
    history: Arc<Mutex<History>>,
}

impl Stage {
    fn new() -> Self {
        let disk = SimDisk::new(thread_rng().gen_range(0..1 << 20));
        disk.allow_threads();
        Self { disk, history: Arc::default() }
    }

    fn open(&self) -> Option<Log> {
        options().open_on(&self.disk).ok()
    }

    /// Runs `with` over the history; it must not wait for anybody.
    fn history<R>(&self, with: impl FnOnce(&mut History) -> R) -> R {
        with(&mut self.history.lock().expect("no panic"))
    }

    fn now(&self) -> History {
        self.history(|history| history.clone())
    }

    fn judge(&self, verdict: Verdict) {
        if let Err(what) = verdict {
            self.history(|history| history.wrong.get_or_insert(what).len());
        }
    }
}

fn options() -> amberlog::Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn one_in(n: u32) -> bool {
    thread_rng().gen_range(0..n) == 0
}

/// Everything that a read view shows.
fn read(view: &ReadView) -> Verdict<Found> {
    let failed = |error: Error| format!("reading: {error}");
    let mut found = Found::new();
    for info in view.streams() {
        let mut events = Vec::new();
        for event in view.events(info.id).map_err(failed)? {
            let event = event.map_err(failed)?;
            let dense = event.seq().get() == events.len() as u64;
            ensure(dense, || format!("P7: a hole in {}", info.id))?;
            let number = event.payload().first_chunk().ok_or("an event without its number")?;
            events.push(u64::from_le_bytes(*number));
        }
        let whole = info.head.get() == events.len() as u64;
        ensure(whole, || format!("P7: {} ends before its head", info.id))?;
        found.insert(info.id, events);
    }
    Ok(found)
}

/// Returns the content of a disk, opened for writing.
fn recovered(disk: &SimDisk) -> Verdict<Found> {
    let log = options().open_on(disk).map_err(|error| format!("opening: {error}"))?;
    ensure(log.recovery_report().is_sound(), || {
        format!("no damage was done: {:?}", log.recovery_report())
    })?;
    read(&log.read_view())
}

/// A handle, and the last event that it appended.
struct Pen {
    stream: Stream,
    last: u64,
}

impl Pen {
    fn new(stream: Stream) -> Self {
        Self { stream, last: 0 }
    }

    fn append(&mut self, stage: &Stage) {
        let size = if one_in(3) { 3_500 } else { 40 };
        let place = (self.stream.id(), self.stream.head().get() as usize);
        let number = stage.history(|history| {
            history.events.push(place);
            history.events.len() as u64 - 1
        });
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(size, 7);
        if self.stream.append(&payload).is_ok() {
            self.last = number;
        }
    }

    fn part(&self) -> Option<Part> {
        (self.stream.buffered() > 0).then(|| Part {
            stream: self.stream.id(),
            head: self.stream.head().get() as usize,
            last: self.last,
        })
    }
}

/// Asks for a commit of these. Its number in the history, and its ticket.
fn ask(stage: &Stage, log: &Log, pens: &mut [&mut Pen]) -> Option<(usize, Ticket)> {
    let parts: Vec<_> = pens.iter().filter_map(|pen| pen.part()).collect();
    if parts.is_empty() {
        return None;
    }
    let durability = if one_in(4) { Durability::Os } else { Durability::Disk };
    let commit = stage.history(|history| {
        let at = history.tick();
        history.commits.push(Asked { parts, durability, at, outcome: Outcome::Open });
        history.commits.len() - 1
    });
    let how = CommitOptions::new().durability(durability);
    let ticket = match pens {
        [alone] => alone.stream.commit_with(how),
        several => log.commit_all_with(several.iter_mut().map(|pen| &mut pen.stream), how),
    };
    Some((commit, ticket))
}

/// Waits for a ticket, or awaits it. `Ok`: it was acknowledged.
fn answer(stage: &Stage, commit: usize, ticket: Ticket) -> Result<(), Error> {
    if one_in(3) {
        ticket.start();
    }
    let answer = if one_in(2) { ticket.wait() } else { shuttle::future::block_on(ticket) };
    stage.judge(stage.history(|history| history.answered(commit, answer.as_ref().map(|_| ()))));
    answer.map(|_| ())
}

/// Use of tickets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tickets {
    /// They are waited for, awaited, kept or dropped.
    Any,
    /// Each is answered before the next is asked for: so that nothing that failed is committed again unnoticed.
    Answered,
}

/// A handle shows everything that was appended with it, whatever settles meanwhile (P9), unless the disk fails.
fn sees_all(stream: &Stream) -> Verdict {
    for (seen, event) in stream.events().into_iter().flatten().enumerate() {
        let Ok(seq) = event.map(|event| event.seq().get()) else { break };
        ensure(seq == seen as u64, || format!("P9: a handle shows {seq} behind {seen} events"))?;
    }
    Ok(())
}

/// Commits over two streams of its own, in one of them or both. Stops at the first failure: what comes back
/// would be committed again.
fn write_own(stage: &Stage, log: &Log, commits: u32, tickets: Tickets) {
    let (Ok(one), Ok(two)) = (log.create_stream(), log.create_stream()) else { return };
    let (mut one, mut two) = (Pen::new(one), Pen::new(two));
    let mut kept = Vec::new();
    for _ in 0..commits {
        one.append(stage);
        let asked = if one_in(2) {
            two.append(stage);
            ask(stage, log, &mut [&mut one, &mut two])
        } else {
            ask(stage, log, &mut [&mut one])
        };
        let Some((commit, ticket)) = asked else { return };
        stage.judge(sees_all(&one.stream));
        match thread_rng().gen_range(0..4) {
            0 if tickets == Tickets::Any => drop(ticket),
            1 if tickets == Tickets::Any => kept.push((commit, ticket)),
            _ if answer(stage, commit, ticket).is_err() => break,
            _ => {}
        }
    }
    for (commit, ticket) in kept {
        let _ = answer(stage, commit, ticket);
    }
}

/// Commits to a stream that others write as well, from the head that it sees (P8).
fn write_shared(stage: &Stage, log: &Log, id: StreamId, commits: u32) {
    for _ in 0..commits {
        let Ok(stream) = log.open_stream(id) else { return };
        let mut pen = Pen::new(stream);
        pen.append(stage);
        let Some((commit, ticket)) = ask(stage, log, &mut [&mut pen]) else { return };
        match answer(stage, commit, ticket) {
            Err(error) if !matches!(error.kind(), ErrorKind::Conflict { .. }) => return,
            _ => {}
        }
    }
}

/// Looks again and again, and pulls the plug behind its back: what was shown as durable is there, what had been
/// acknowledged is there, and of everything else all or nothing.
fn look(stage: &Stage, log: &Log, looks: u32) -> Verdict {
    let mut before = Found::new();
    for _ in 0..looks {
        let acked = stage.now();
        let shown = read(&log.read_view())?;
        let (cut, kept) = if one_in(3) {
            (stage.disk.after_kill(), Durability::Os)
        } else {
            (stage.disk.after_power_cut(thread_rng().gen_range(0..64)), Durability::Disk)
        };
        let now = stage.now();
        now.check(&shown, "shown")?;
        acked.check_acked(&shown, Durability::Os, "shown")?;
        let grew = |(id, events): (&StreamId, &Vec<u64>)| {
            shown.get(id).is_some_and(|later| later.starts_with(events))
        };
        ensure(before.iter().all(grew), || "P7: a later look shows less".into())?;
        let found = recovered(&cut)?;
        now.check(&found, "cut")?;
        acked.check_acked(&found, kept, "cut")?;
        now.check_shown(&shown, &found)?;
        before = shown;
    }
    Ok(())
}

/// A stream that exists, for several to write to.
fn shared_stream(stage: &Stage, log: &Log) -> Option<StreamId> {
    let mut pen = Pen::new(log.create_stream().ok()?);
    pen.append(stage);
    let (commit, ticket) = ask(stage, log, &mut [&mut pen])?;
    answer(stage, commit, ticket).ok()?;
    Some(pen.stream.id())
}

/// Opens what is left after all threads have ended: of what was acknowledged at `killed` or better, a mere kill takes
/// nothing. Tells what was wrong.
fn end(stage: &Stage, killed: Durability) {
    let history = stage.now();
    let look = |disk: &SimDisk, kept, what| {
        let found = recovered(disk)?;
        history.check(&found, what)?;
        history.check_acked(&found, kept, what)
    };
    stage.judge(look(&stage.disk.after_kill(), killed, "killed"));
    let cut = stage.disk.after_power_cut(thread_rng().gen_range(0..64));
    stage.judge(look(&cut, Durability::Disk, "cut at the end"));
    let history = stage.now();
    TALLY.with_borrow_mut(|tally| {
        tally[0] += u64::from(found_two_segments(&stage.disk));
        for commit in &history.commits {
            let which = match commit.outcome {
                Outcome::Acked(_) => 1,
                Outcome::Refused => 2,
                Outcome::Failed => 3,
                Outcome::Open => 4,
            };
            tally[which] += 1;
        }
    });
    if let Some(wrong) = history.wrong {
        panic!("{wrong}");
    }
}

thread_local! {
    /// Executions that went on to a second segment; commits acknowledged, refused, failed, and dropped.
    static TALLY: RefCell<[u64; 5]> = const { RefCell::new([0; 5]) };
}

fn found_two_segments(disk: &SimDisk) -> bool {
    disk.files().keys().any(|path| path.ends_with("2.seg"))
}

/// Starts a thread that plays a part on the stage.
fn play(
    stage: &Stage,
    log: &Log,
    part: impl FnOnce(&Stage, &Log) + Send + 'static,
) -> thread::JoinHandle<()> {
    let (stage, log) = (stage.clone(), log.clone());
    thread::spawn(move || part(&stage, &log))
}

/// Writers of their own streams, and a reader that pulls the plug.
fn writers_and_a_reader() {
    let stage = Stage::new();
    let log = stage.open().expect("an empty disk");
    let mut players = vec![play(&stage, &log, |stage, log| stage.judge(look(stage, log, 2)))];
    for _ in 0..2 {
        players.push(play(&stage, &log, |stage, log| write_own(stage, log, 3, Tickets::Any)));
    }
    drop(log);
    players.into_iter().for_each(|player| player.join().expect("no panic"));
    end(&stage, Durability::Os);
}

/// Writers of one stream: of those that saw the same head one wins, and the others leave no trace.
fn writers_of_one_stream() {
    let stage = Stage::new();
    let log = stage.open().expect("an empty disk");
    let id = shared_stream(&stage, &log).expect("committed");
    let mut players = vec![play(&stage, &log, |stage, log| write_own(stage, log, 2, Tickets::Any))];
    for _ in 0..2 {
        players.push(play(&stage, &log, move |stage, log| write_shared(stage, log, id, 3)));
    }
    drop(log);
    players.into_iter().for_each(|player| player.join().expect("no panic"));
    end(&stage, Durability::Os);
}

/// The log is closed under the writers' hands.
fn close_during_commits() {
    let stage = Stage::new();
    let log = stage.open().expect("an empty disk");
    let players: Vec<_> = (0..2)
        .map(|_| play(&stage, &log, |stage, log| write_own(stage, log, 3, Tickets::Any)))
        .collect();
    (0..thread_rng().gen_range(0..150)).for_each(|_| thread::yield_now());
    stage.judge(log.close().map_err(|error| format!("closing: {error}")));
    players.into_iter().for_each(|player| player.join().expect("no panic"));
    end(&stage, Durability::Os);
}

/// Something goes wrong at some call of the disk.
fn failing_disk(fault: Fault) {
    let stage = Stage::new();
    stage.disk.fail_at(thread_rng().gen_range(0..90), fault);
    let Some(log) = stage.open() else { return };
    // A failed sync may forget what was acknowledged at `Os`, and a call that merely failed is tried again.
    let (tickets, killed) = match fault {
        Fault::Crash => (Tickets::Any, Durability::Os),
        _ => (Tickets::Answered, Durability::Disk),
    };
    let mut players = vec![play(&stage, &log, |stage, log| {
        let acked = stage.now();
        let Ok(shown) = read(&log.read_view()) else { return };
        stage.judge(stage.now().check(&shown, "shown"));
        stage.judge(acked.check_acked(&shown, Durability::Os, "shown"));
    })];
    for _ in 0..2 {
        players.push(play(&stage, &log, move |stage, log| write_own(stage, log, 3, tickets)));
    }
    drop(log);
    players.into_iter().for_each(|player| player.join().expect("no panic"));
    end(&stage, killed);
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs a scenario under a scheduler that picks at random, and under one that seldom changes its mind
/// (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010).
fn explore(runs: u64, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    if let Ok(path) = std::env::var("AMBERLOG_SHUTTLE_REPLAY") {
        let schedule = std::fs::read_to_string(path).expect("a schedule");
        let scheduler = ReplayScheduler::new_from_encoded(schedule.trim());
        Runner::new(scheduler, config).run(scenario);
        return;
    }
    let runs = (runs * from_environment("AMBERLOG_SHUTTLE_RUNS", 1)) as usize;
    let seed = from_environment("AMBERLOG_SHUTTLE_SEED", 1);
    println!("seed {seed}, {runs} executions at random and as many by priority");
    let random = RandomScheduler::new_from_seed(seed, runs);
    Runner::new(random, config.clone()).run(scenario.clone());
    let by_priority = PctScheduler::new_from_seed(seed, PCT_DEPTH, runs);
    Runner::new(by_priority, config).run(scenario);
    let [rolled, acked, refused, failed, dropped] = TALLY.take();
    println!(
        "{acked} commits acknowledged, {refused} refused, {failed} failed, {dropped} tickets dropped; \
         a second segment in {rolled}"
    );
}

#[test]
fn p3_p4_p7_f4_f6_writers_and_a_reader() {
    explore(RUNS, writers_and_a_reader);
}

#[test]
fn p8_writers_of_one_stream() {
    explore(RUNS, writers_of_one_stream);
}

#[test]
fn f37_close_during_commits() {
    explore(RUNS, close_during_commits);
}

#[test]
fn p3_p4_f32_the_machine_stops_at_some_call() {
    explore(RUNS, || failing_disk(Fault::Crash));
}

#[test]
fn p5_f8_a_sync_fails_at_some_call() {
    explore(RUNS, || failing_disk(Fault::LostSync));
}

#[test]
fn p3_p5_without_threads_of_its_own() {
    let _machine = sabotage(Sabotage::NoThread);
    explore(RUNS / 2, writers_and_a_reader);
}

#[test]
#[should_panic(expected = "acknowledged and lost")]
fn control_an_ack_before_the_sync_is_noticed() {
    let _broken = sabotage(Sabotage::AckEarly);
    explore(RUNS, writers_and_a_reader);
}

/// A reader sees what a power cut then takes, or a tail record stands for it: which of the two is seen first is by chance.
#[test]
fn control_a_reader_before_the_sync_is_noticed() {
    let _broken = sabotage(Sabotage::ShowEarly);
    let explored = std::panic::catch_unwind(|| explore(6 * RUNS, writers_and_a_reader));
    let text = *explored.expect_err("nothing was noticed").downcast::<String>().expect("a verdict");
    assert!(text.contains("no damage was done") || text.contains("F6: "));
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_a_lost_wake_up_is_noticed() {
    let _broken = sabotage(Sabotage::TellNobody);
    explore(RUNS, writers_and_a_reader);
}

#[test]
#[should_panic(expected = "F4, ")]
fn control_two_winners_of_one_head_are_noticed() {
    let _broken = sabotage(Sabotage::SkipConflict);
    explore(RUNS, writers_of_one_stream);
}
