//! Does a failing disk ever make the log promise too much, or lose what it has?
//!
//! P3, P5; F5, F7, F8, F9, F10, F11, F12, F13, F22, F25, F27, F39, F45. One short script of everything that a writer
//! does, on a simulated disk that fails at any one of its calls: with an error, with a sync that forgets, with
//! too little space, interrupted, by halves. What had failed is asked for once more, as a program would; then
//! the process is killed or the power cut, and what is left is compared with what was acknowledged.
#![cfg(feature = "sim")]

use std::collections::BTreeMap;
use std::error::Error as _;

use amberlog::sim::{Defect, Fault, SimDisk};
use amberlog::{
    CommitOptions, Durability, Error, ErrorKind, Log, Options, ReadView, Stream, StreamId,
};

/// Events of every stream, in order.
type State = BTreeMap<StreamId, Vec<Vec<u8>>>;

/// Power cuts of each state; `AMBERLOG_FAULT_CUTS` asks for more.
const CUTS: u64 = 2;

fn cuts() -> u64 {
    crate::support::env_or("AMBERLOG_FAULT_CUTS", CUTS)
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn try_read(view: &ReadView) -> Result<State, Error> {
    let mut state = State::new();
    for info in view.streams() {
        let payload = |event: amberlog::Event| event.payload().to_vec();
        let payloads = view.events(info.id)?.map(|event| event.map(payload));
        state.insert(info.id, payloads.collect::<Result<_, _>>()?);
    }
    Ok(state)
}

/// F22: a read that fails is an error, never the end; the next one may go well.
fn read(view: &ReadView) -> State {
    try_read(view).unwrap_or_else(|error| {
        assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
        try_read(view).expect("only one call fails")
    })
}

fn open_and_read(disk: &SimDisk) -> State {
    let log = options().open_on(disk).expect("opens by itself");
    assert!(
        log.recovery_report().is_sound(),
        "damage where there is none: {:?}",
        log.recovery_report().damages
    );
    read(&log.read_view())
}

/// Step of the script. The numbers are streams.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    /// Events of this size in these streams, and one commit of them.
    Commit(&'static [usize], usize, Durability),
    /// A commit of each of these streams, in one group.
    Group(&'static [usize], usize),
    /// A commit of nothing.
    Nothing,
    Close,
}

use Durability::{Disk, Os};
/// A first commit, several streams, groups, both durabilities, rolls, a clean end, and all that once more.
const SCRIPT: [Step; 20] = [
    Step::Open,
    Step::Commit(&[0], 100, Disk),
    Step::Commit(&[0, 1], 700, Disk),
    Step::Nothing,
    Step::Group(&[0, 1, 2], 300),
    Step::Commit(&[1], 400, Os),
    Step::Commit(&[2], 5_000, Disk),
    Step::Commit(&[0, 1, 2], 2_000, Disk),
    Step::Commit(&[1], 300, Os),
    Step::Group(&[0, 2], 4_000),
    Step::Commit(&[2], 20_000, Disk),
    // A segment that has room left when the log is opened again.
    Step::Commit(&[1], 300, Disk),
    Step::Nothing,
    Step::Close,
    Step::Open,
    Step::Commit(&[0], 600, Disk),
    Step::Commit(&[0, 1], 3_000, Disk),
    Step::Group(&[1, 2], 3_500),
    Step::Commit(&[2], 800, Disk),
    Step::Close,
];

/// A program that goes through the script.
struct Program {
    disk: SimDisk,
    log: Option<Log>,
    streams: Vec<Stream>,
    ids: Vec<StreamId>,
    /// Acknowledged events, at any durability.
    acked: State,
    /// And of that, what is synced.
    synced: State,
    /// Acknowledged and buffered events.
    whole: State,
}

/// Outcome of one step.
type Outcome = Result<(), Error>;

impl Program {
    fn new(disk: &SimDisk) -> Self {
        Self {
            disk: disk.clone(),
            log: None,
            streams: Vec::new(),
            ids: Vec::new(),
            acked: State::new(),
            synced: State::new(),
            whole: State::new(),
        }
    }

    /// Runs a step. A commit that failed is asked for once more by [`Program::again`].
    fn run(&mut self, step: Step) -> Outcome {
        match step {
            Step::Open => self.open(),
            Step::Commit(streams, bytes, durability) => {
                self.append(streams, bytes);
                self.commit(durability)
            }
            Step::Group(streams, bytes) => {
                self.append(streams, bytes);
                self.group(streams)
            }
            Step::Nothing => {
                self.streams[0].commit().wait()?;
                Ok(())
            }
            Step::Close => {
                self.streams.clear();
                let outcome = self.log.take().map_or(Ok(()), Log::close);
                if outcome.is_ok() {
                    self.synced = self.acked.clone();
                }
                outcome
            }
        }
    }

    fn open(&mut self) -> Outcome {
        let log = options().open_on(&self.disk)?;
        assert!(log.recovery_report().is_sound(), "{:?}", log.recovery_report());
        assert_eq!(read(&log.read_view()), self.acked, "what is there after opening");
        if self.ids.is_empty() {
            self.streams = (0..3).map(|_| log.create_stream().expect("a stream")).collect();
            self.ids = self.streams.iter().map(Stream::id).collect();
        } else {
            // A stream of which nothing was ever committed is not known any more.
            let open = |id: &StreamId| {
                log.open_stream(*id).or_else(|_| log.create_stream()).expect("a stream")
            };
            self.streams = self.ids.iter().map(open).collect();
            self.ids = self.streams.iter().map(Stream::id).collect();
        }
        self.whole = self.acked.clone();
        self.log = Some(log);
        Ok(())
    }

    fn append(&mut self, streams: &[usize], bytes: usize) {
        for at in streams {
            let stream = &mut self.streams[*at];
            for part in 0..2 {
                let payload = vec![(stream.head().get() + 3) as u8; bytes / 2 + part];
                stream.append(&payload).expect("room");
                self.whole.entry(stream.id()).or_default().push(payload);
            }
        }
    }

    /// One commit of everything that is buffered.
    fn commit(&mut self, durability: Durability) -> Outcome {
        let with = CommitOptions::new().durability(durability);
        let log = self.log.as_ref().expect("open");
        log.commit_all_with(&mut self.streams, with).wait()?;
        self.note_acked(durability);
        Ok(())
    }

    /// A commit of each stream. Kept tickets form one group, which the first to be waited for leads.
    fn group(&mut self, streams: &[usize]) -> Outcome {
        let some = self.streams.iter_mut().enumerate().filter(|(at, _)| streams.contains(at));
        let tickets: Vec<_> = some.map(|(_, stream)| stream.commit()).collect();
        let outcomes: Vec<_> = tickets.into_iter().map(amberlog::Ticket::wait).collect();
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(failed == 0 || failed == outcomes.len(), "F5: a group fails as a whole");
        for outcome in outcomes {
            outcome?;
        }
        self.note_acked(Disk);
        Ok(())
    }

    fn note_acked(&mut self, durability: Durability) {
        self.acked = self.whole.clone();
        if durability == Disk {
            self.synced = self.acked.clone();
        }
    }

    /// P5, F12: nothing is lost and nothing is shown that was not acknowledged, whatever failed.
    fn check_after_failure(&self) {
        let Some(log) = &self.log else { return };
        assert_eq!(read(&log.read_view()), self.acked, "F12: what was there is readable");
        for stream in &self.streams {
            let held = |state: &State| state.get(&stream.id()).cloned().unwrap_or_default();
            let (acked, whole) = (held(&self.acked), held(&self.whole));
            assert_eq!(stream.buffered(), (whole.len() - acked.len()) as u64, "P5: they are back");
            let seen: Vec<_> =
                stream.events().expect("open").map(|event| event.expect("whole")).collect();
            let payloads: Vec<_> = seen.iter().map(|event| event.payload().to_vec()).collect();
            assert_eq!(payloads, whole, "P5: in order");
            for (seq, event) in seen.iter().enumerate() {
                assert_eq!(event.is_durable(), seq < acked.len(), "F6: which are durable");
            }
        }
    }

    /// Does what failed once more.
    fn again(&mut self, step: Step) -> Outcome {
        match step {
            Step::Open | Step::Nothing => self.run(step),
            Step::Commit(_, _, durability) => self.commit(durability),
            Step::Group(..) => self.commit(Disk),
            Step::Close => Ok(()),
        }
    }

    /// F7, F8: a log whose sync failed says so, and why, whatever it is asked for; its end says so too.
    fn check_poisoned(&mut self) {
        let log = self.log.take().expect("open");
        let mut fresh = log.create_stream().expect("a stream");
        fresh.append(b"more").expect("room");
        let mut empty = log.create_stream().expect("a stream");
        let tickets = [
            log.commit_all(&mut self.streams),
            fresh.commit(),
            self.streams[0].commit(),
            empty.commit(),
            log.commit_all([&mut empty]),
            fresh.commit_with(CommitOptions::new().durability(Os)),
        ];
        for ticket in tickets {
            is_poisoned(&ticket.wait().expect_err("F8: nothing is acknowledged any more"));
        }
        assert_eq!(fresh.buffered(), 1);
        assert_eq!(read(&log.read_view()), self.acked, "what was acknowledged stays readable");
        self.streams.clear();
        drop((fresh, empty));
        is_poisoned(&log.close().expect_err("F8: closing tells it too"));
    }
}

/// A poisoned log names its cause: the call that failed, and where.
fn is_poisoned(error: &Error) {
    assert_eq!(*error.kind(), ErrorKind::Poisoned, "{error}");
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Error>());
    let cause = cause.unwrap_or_else(|| panic!("{error} has no cause"));
    assert!(matches!(cause.kind(), ErrorKind::Io | ErrorKind::StorageFull), "{cause}");
    assert!(cause.place().is_some() && cause.source().is_some(), "{cause}");
}

/// Returns the number of calls that the script makes when nothing fails.
fn calls_of_script() -> u64 {
    let disk = SimDisk::new(1);
    let mut program = Program::new(&disk);
    for step in SCRIPT {
        program.run(step).expect("nothing fails");
    }
    assert_eq!(open_and_read(&disk.after_power_cut(1)), program.synced);
    disk.calls()
}

/// What is left of a program is what it may be: all that was synced, and of what came after a whole commit or
/// none. What one recovery returned, every later one returns, after a power cut too (F9, F27).
fn check_left(disk: &SimDisk, at_least: &State, at_most: &State) {
    if let Ok((view, report)) = ReadView::open_on(disk) {
        assert!(report.is_sound(), "{report:?}");
        is_between(&read(&view), &State::new(), at_most);
    }
    let log = options().open_on(disk).expect("opens by itself");
    assert!(log.recovery_report().is_sound(), "{:?}", log.recovery_report());
    let found = read(&log.read_view());
    is_between(&found, at_least, at_most);
    for seed in 0..cuts() / 2 {
        assert_eq!(open_and_read(&disk.after_power_cut(seed)), found, "F9, F27, cut {seed}");
    }
    drop(log);
    assert_eq!(open_and_read(&disk.after_power_cut(99)), found, "F27, after a clean end");
}

fn is_between(found: &State, at_least: &State, at_most: &State) {
    let nothing = Vec::new();
    for (id, events) in at_least {
        let found = found.get(id).unwrap_or(&nothing);
        assert!(found.starts_with(events), "{} of {} events of {id}", found.len(), events.len());
    }
    for (id, events) in found {
        let most = at_most.get(id).unwrap_or(&nothing);
        assert!(
            most.starts_with(events),
            "{} events, at most {}, of {id}",
            events.len(),
            most.len()
        );
    }
}

/// Faults that mean that there is no space.
const NO_SPACE: [Fault; 3] = [Fault::Full, Fault::OverQuota, Fault::FileTooLarge];

/// Runs the script with one fault at one call, and with what a program does about it.
fn survive(call: u64, fault: Fault, seed: u64) {
    let disk = SimDisk::new(seed);
    disk.fail_at(call, fault);
    survive_on(&disk, fault);
}

/// Runs the script on a disk that will fail. Returns whether it did.
fn survive_on(disk: &SimDisk, fault: Fault) -> bool {
    survive_where(disk, fault, |_| {})
}

/// Runs [`survive_on`]; `before` gets the index of each step.
fn survive_where(disk: &SimDisk, fault: Fault, before: impl Fn(usize)) -> bool {
    let (mut program, mut failed) = (Program::new(disk), false);
    for (index, step) in SCRIPT.into_iter().enumerate() {
        before(index);
        let Err(error) = program.run(step) else { continue };
        failed = true;
        let ends_life = matches!(error.kind(), ErrorKind::Poisoned);
        if ends_life {
            is_poisoned(&error);
        } else {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Io | ErrorKind::StorageFull), "F10: {error:?}");
            assert!(error.place().is_some() && error.source().is_some(), "F10: {error:?}");
        }
        program.check_after_failure();
        disk.set_capacity(u64::MAX);
        disk.set_file_bytes_max(u64::MAX);
        let again = program.again(step);
        if let Err(again) = &again {
            // Only a sync that failed, or a write that cannot be made harmless, ends the log's life.
            is_poisoned(again);
            assert!(ends_life, "P5: the first failure says that it ends the log's life: {error:?}");
            assert!(!NO_SPACE.contains(&fault), "F12, F45: space is back, but {again}");
            program.check_poisoned();
            break;
        }
        assert!(!ends_life, "F8: acknowledged after a failed sync");
    }
    assert!(program.log.is_none(), "the script ends with a close");
    check_left(&disk.after_kill(), &program.synced, &program.whole);
    for chance in 0..cuts() {
        check_left(&disk.after_power_cut(chance), &program.synced, &program.whole);
    }
    failed
}

#[test]
fn p5_f5_f7_f8_f9_f10_f27_every_call_fails_once() {
    let calls = calls_of_script();
    for call in 0..calls {
        survive(call, Fault::Io, call);
    }
    println!("{calls} calls");
}

#[test]
fn p5_f7_f8_f9_f27_every_sync_forgets_once() {
    for call in 0..calls_of_script() {
        survive(call, Fault::LostSync, call + 7);
    }
}

/// F12, F13, F45: there is no space from one call on, in whatever words the system says so, until a program has noticed
/// and made space.
#[test]
fn p5_f12_f13_f45_there_is_no_space_at_every_call() {
    for call in (0..calls_of_script()).step_by(crate::support::sparsely() as usize) {
        for (fault, seed) in NO_SPACE.into_iter().flat_map(|fault| [(fault, 0), (fault, 1)]) {
            survive(call, fault, call * 2 + seed);
        }
    }
}

/// F45: from any step on no file may become longer than this, and no byte be written behind it, until a program has
/// noticed and the bound is lifted.
#[test]
fn p5_f45_files_of_every_length_are_too_long() {
    for first in 0..SCRIPT.len() {
        let mut bound = 0;
        loop {
            let disk = SimDisk::new(bound / 512);
            let bind = |index| {
                if index == first {
                    disk.set_file_bytes_max(bound);
                }
            };
            if !survive_where(&disk, Fault::FileTooLarge, bind) {
                break;
            }
            bound += 512;
        }
        println!("from step {first} on files of {bound} bytes will do");
        assert!(first > 0 || bound > 20_000, "20,000 bytes went into a file of {bound}");
    }
}

/// F12, F13: for every size of a disk, until all of the script fits.
#[test]
fn p5_f12_f13_disks_of_every_size_fill_up() {
    let mut sectors = 0;
    loop {
        let disk = SimDisk::new(sectors / 2);
        disk.set_capacity(sectors * 512);
        if !survive_on(&disk, Fault::Full) {
            break;
        }
        sectors += 1;
    }
    println!("{sectors} sectors are enough");
    assert!(sectors > 5 * 32, "five segments did not fit in {sectors} sectors");
}

/// F11: nothing of this is an error, and nothing is lost.
#[test]
fn f11_interrupted_and_short_calls_are_nobodys_business() {
    for call in 0..calls_of_script() {
        for fault in [Fault::Interrupted, Fault::Short] {
            let disk = SimDisk::new(call);
            disk.fail_at(call, fault);
            let mut program = Program::new(&disk);
            for step in SCRIPT {
                let outcome = program.run(step);
                outcome.unwrap_or_else(|error| panic!("{fault:?} at call {call}: {error}"));
            }
            assert_eq!(open_and_read(&disk.after_power_cut(call)), program.whole);
        }
    }
}

/// F40: a disk that keeps a failure to itself, or a sync, is noticed.
#[test]
fn control_a_disk_that_lies_about_failures_is_noticed() {
    for (defect, fault) in [
        (Defect::ZerosForErrors, Fault::Io),
        (Defect::UnsyncedBytes("*.seg"), Fault::Io),
        (Defect::SkippedRewrites, Fault::LostSync),
    ] {
        let notices = |call| {
            let disk = SimDisk::new(call);
            disk.set_defect(defect);
            disk.fail_at(call, fault);
            std::panic::catch_unwind(|| survive_on(&disk, fault)).is_err()
        };
        let noticed = (0..calls_of_script()).find(|call| notices(*call));
        println!("{defect:?}: noticed at call {noticed:?}");
        assert!(noticed.is_some(), "{defect:?} was not noticed");
    }
}

/// F40: each of these breaks what the tests above are about, and they notice.
#[cfg(amberlog_sabotage)]
#[test]
fn control_an_engine_that_mistreats_failures_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    for (what, faults) in [
        (Sabotage::GoOnAfterFailedSync, &[Fault::LostSync][..]),
        (Sabotage::LoseFailedEvents, &[Fault::Full]),
        (Sabotage::OnlyFullIsFull, &[Fault::OverQuota]),
        (Sabotage::OnlyFullIsFull, &[Fault::FileTooLarge]),
    ] {
        let notices = |call, fault, seed| {
            let broken = std::panic::catch_unwind(|| {
                let _broken = sabotage(what);
                survive(call, fault, seed);
            });
            broken.is_err()
        };
        let mut tries = (0..8).flat_map(|seed| (0..200).map(move |call| (call, seed)));
        let noticed =
            tries.find(|(call, seed)| faults.iter().any(|f| notices(*call, *f, call + 100 * seed)));
        assert!(noticed.is_some(), "{what:?} was not noticed");
        println!("{what:?}: noticed at call and seed {noticed:?}");
    }
}
