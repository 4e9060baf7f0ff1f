//! Walking ahead of the fold, on threads that help.
//!
//! The fold takes commits in their order, one segment after the other. What takes the time is to read and checksum
//! them, and what is found in a segment depends on its own bytes and on what is expected of it: so other threads walk
//! the segments meanwhile, each with what will be expected if nothing is missing before it, and the fold takes what
//! they found, in its order. Where it expects something else it walks itself, and so the answer is the same with any
//! number of threads. What was found and not folded yet is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::discover::{Candidate, Role, scanner};
use super::load::Depth;
use super::scan::Scanner;
use super::sealed::{self, Verdict};
use super::walk::{End, Expectation, Item, walk};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchHead, COMMITS_AT, POSITION_MAX};
use crate::segment::Segment;
use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::{Condvar, Mutex, MutexGuard, hands, scope, spawn_scoped};

/// No more threads than this help, so that what they have found stays small.
const HANDS_MAX: usize = 8;
/// A log with less to read is read in a few milliseconds, and starts no thread.
const SHARED_BYTES_MIN: u64 = 16 << 20;
/// What is found is handed over in parcels of about so many bytes, and so many of each segment may lie ready.
const PARCEL_BYTES: usize = 128 << 10;
const PARCELS_MAX: usize = 64;
/// One thread looks at so much of a spare.
const PIECE_BYTES: u64 = 8 << 20;

/// How many threads there are beside the one that folds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hands {
    /// None: everything is done in its turn.
    One,
    /// As many as can work at once, where there is enough to do.
    AsMany,
    /// So many, whatever there is to do.
    #[cfg(test)]
    Exactly(usize),
}

/// What can be done in any order.
pub(super) struct Work {
    /// In the order of the fold.
    walks: Vec<Job>,
    /// Pieces of files that are presumed to be spares.
    pieces: Vec<(Scanner, u64)>,
    bytes: u64,
}

/// A look at one segment.
enum Job {
    /// At one that is not sealed.
    Walk(Arc<Segment>, Expectation),
    /// At all commits of a sealed one.
    Check(Arc<Segment>),
}

impl Job {
    fn number(&self) -> u32 {
        match self {
            Self::Walk(segment, _) | Self::Check(segment) => segment.number(),
        }
    }
}

/// What a thread has to say of a segment.
enum Told {
    Found(Vec<Item>),
    Ended(Result<End>),
    Checked(Result<Verdict>),
}

impl Work {
    pub(super) fn plan(candidates: &[Candidate], depth: Depth) -> Self {
        let mut work = Self { walks: Vec::new(), pieces: Vec::new(), bytes: 0 };
        let is_used = |one: &Candidate| matches!(one.role, Role::Segment(_));
        let last = candidates.iter().rposition(is_used);
        for (index, one) in candidates.iter().enumerate() {
            let start = match &one.role {
                Role::Segment(start) => start,
                Role::Spare(spare) => {
                    let mut at = COMMITS_AT;
                    while at < one.bytes {
                        let end = one.bytes.min(at + PIECE_BYTES);
                        work.pieces.push((scanner(&spare.header, &spare.file, end), at));
                        at = end;
                    }
                    work.bytes += one.bytes;
                    continue;
                }
                Role::Unusable(_) => continue,
            };
            match (&start.sealed, start.first) {
                (Some(segment), _) if depth == Depth::Full => {
                    work.walks.push(Job::Check(Arc::clone(segment)));
                }
                // One that says at which position it starts, as all do but damaged ones.
                (None, Some(first)) if start.header.covers.is_none() => {
                    let durable =
                        if Some(index) == last { first.saturating_sub(1) } else { POSITION_MAX };
                    let expect = Expectation { first, durable, limit: one.bytes };
                    let segment = Segment::active(start.header, first, Arc::clone(&start.file));
                    work.walks.push(Job::Walk(Arc::new(segment), expect));
                }
                // A sparse one without its footer, which there never should be, is left to the fold.
                _ => continue,
            }
            work.bytes += one.bytes;
        }
        work
    }

    /// Folds while other threads work ahead. Returns what came of that, and whether all that was presumed to be spare
    /// holds nothing.
    pub(super) fn share<R>(
        self,
        wanted: Hands,
        fold: impl FnOnce(Ahead) -> R,
    ) -> (R, Result<bool>) {
        let jobs = self.walks.len() + self.pieces.len();
        let most = match wanted {
            Hands::One => 0,
            Hands::AsMany if self.bytes < SHARED_BYTES_MIN || jobs == 0 || hands() == 1 => 0,
            Hands::AsMany => hands().min(HANDS_MAX).min(jobs),
            #[cfg(test)]
            Hands::Exactly(hands) => hands,
        };
        let (senders, lanes) = lanes(&self.walks);
        let jobs = self.walks.into_iter().zip(senders).collect();
        let state = State { jobs, pieces: self.pieces, ..State::default() };
        let shared = Arc::new(Shared {
            window: most + 1,
            state: Mutex::new(state),
            changed: Condvar::default(),
        });
        let folded = scope(|scope| {
            let work = || shared.work();
            let help = |_: &usize| spawn_scoped(scope, "amberlog-open", work).is_ok();
            let helpers = (0..most).take_while(help).count();
            let lanes = if helpers == 0 { Vec::new() } else { lanes };
            let folded = fold(Ahead { lanes, shared: Some(Arc::clone(&shared)) });
            // What is left is pieces of spares: there this thread helps.
            shared.work();
            folded
        });
        let empty = std::mem::replace(&mut shared.lock().empty, Ok(true));
        (folded, empty)
    }
}

/// A channel for each of these.
fn lanes(walks: &[Job]) -> (Vec<SyncSender<Told>>, Vec<Lane>) {
    let lane = |(at, job): (usize, &Job)| {
        let (sender, told) = sync_channel(PARCELS_MAX);
        let expect = match job {
            Job::Walk(_, expect) => Some(*expect),
            Job::Check(_) => None,
        };
        (sender, Lane { at, number: job.number(), expect, told })
    };
    walks.iter().enumerate().map(lane).unzip()
}

/// What was found of one segment.
struct Lane {
    /// Its place among all.
    at: usize,
    number: u32,
    /// What was expected, for one that is walked.
    expect: Option<Expectation>,
    told: Receiver<Told>,
}

/// What was found ahead of the fold. The default has found nothing.
#[derive(Default)]
pub(super) struct Ahead {
    lanes: Vec<Lane>,
    shared: Option<Arc<Shared>>,
}

impl Ahead {
    /// Walks a segment, or takes over what another thread found that did.
    pub(super) fn walk(
        &mut self,
        segment: &Arc<Segment>,
        expect: Expectation,
        mut told: impl FnMut(Item) -> Result<()>,
    ) -> Result<End> {
        let Some(lane) = self.lane(segment.number(), Some(expect)) else {
            return walk(segment, expect, told);
        };
        loop {
            match lane.told.recv() {
                Ok(Told::Found(items)) => items.into_iter().try_for_each(&mut told)?,
                Ok(Told::Ended(end)) => return end,
                _ => return Err(died(segment)),
            }
        }
    }

    /// Looks at every commit of a sealed segment, or takes over what another thread found that did.
    pub(super) fn check(&mut self, segment: &Arc<Segment>) -> Result<Verdict> {
        let Some(lane) = self.lane(segment.number(), None) else { return sealed::check(segment) };
        match lane.told.recv() {
            Ok(Told::Checked(verdict)) => verdict,
            _ => Err(died(segment)),
        }
    }

    /// The lane of this segment, if it was looked at as is wanted now. Those in front of it are not wanted any more.
    fn lane(&mut self, number: u32, expect: Option<Expectation>) -> Option<Lane> {
        let at = self.lanes.iter().position(|lane| lane.number == number)?;
        let lane = self.lanes.drain(..=at).next_back()?;
        self.move_on(lane.at);
        Some(lane).filter(|lane| lane.expect == expect)
    }

    /// Lets the others go on so far from here.
    fn move_on(&self, at: usize) {
        if let Some(shared) = &self.shared {
            shared.lock().folded = at;
            shared.changed.notify_all();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Whoever still walks is told so when it hands something over; the others need not begin.
        self.lanes.clear();
        if let Some(shared) = &self.shared {
            shared.lock().jobs.clear();
            shared.changed.notify_all();
        }
    }
}

/// Nobody sees it: whoever started the thread that died dies of it too.
fn died(segment: &Segment) -> Error {
    segment.error("open", 0)
}

struct Shared {
    /// So many segments from the one that is being folded may be walked.
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Those that nobody has begun, the first one first, each with where to tell.
    jobs: VecDeque<(Job, SyncSender<Told>)>,
    /// How many were begun.
    begun: usize,
    /// The one that is being folded.
    folded: usize,
    pieces: Vec<(Scanner, u64)>,
    /// Nothing was found in what is presumed to be spare, so far.
    empty: Result<bool>,
}

impl Default for State {
    fn default() -> Self {
        let jobs = VecDeque::new();
        Self { jobs, begun: 0, folded: 0, pieces: Vec::new(), empty: Ok(true) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do, until nothing is left.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.begun < state.folded + self.window
                && let Some((job, to)) = state.jobs.pop_front()
            {
                state.begun += 1;
                drop(state);
                run(job, &to);
                state = self.lock();
            } else if let Some((scanner, from)) = state.pieces.pop() {
                drop(state);
                let written = scanner.last_written(from);
                state = self.lock();
                state.note_piece(written);
            } else if state.jobs.is_empty() {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl State {
    fn note_piece(&mut self, written: Result<Option<u64>>) {
        self.empty = match (std::mem::replace(&mut self.empty, Ok(true)), written) {
            (Ok(true), Ok(None)) => return,
            (Ok(true), written) => written.map(|_| false),
            (known, _) => known,
        };
        // One is enough.
        self.pieces.clear();
    }
}

fn run(job: Job, to: &SyncSender<Told>) {
    match job {
        Job::Check(segment) => drop(to.send(Told::Checked(sealed::check(&segment)))),
        Job::Walk(segment, expect) => {
            let mut parcel = Parcel { items: Vec::new(), bytes: 0, to };
            let end = walk(&segment, expect, |item| parcel.put(item));
            // If nobody wants to know any more, nobody wants to know this either.
            let _ = parcel.send().and_then(|()| {
                to.send(Told::Ended(end)).map_err(|_| Error::new(ErrorKind::Closed, "open"))
            });
        }
    }
}

/// What is handed over next.
struct Parcel<'a> {
    items: Vec<Item>,
    bytes: usize,
    to: &'a SyncSender<Told>,
}

impl Parcel<'_> {
    fn put(&mut self, item: Item) -> Result<()> {
        self.bytes += size_of::<Item>();
        if let Item::Commit(found) = &item {
            self.bytes += found.batches.len() * size_of::<BatchHead>();
            // What is said of streams: its names and labels are not counted.
            self.bytes += size_of_val(found.changes.as_slice());
        }
        self.items.push(item);
        if self.bytes < PARCEL_BYTES { Ok(()) } else { self.send() }
    }

    /// Waits as long as too much lies ready.
    fn send(&mut self) -> Result<()> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        let gone = |_| Error::new(ErrorKind::Closed, "open");
        self.to.send(Told::Found(items)).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::catalog::Snapshot;
    use crate::disk::RealDisk;
    use crate::format::{decode_header, decode_trailer, header, trailer};
    use crate::log::Log;
    use crate::options::CommitOptions;
    use crate::recovery::discover::Access;
    use crate::recovery::load::{Loaded, load_with};
    use crate::segment::{Spare, Zero};
    use crate::types::{CommitId, Durability, Position};

    const SEGMENT_BYTES: u64 = 32 << 10;

    fn file(log: &Path, number: u32) -> PathBuf {
        log.join(crate::segment::path(number))
    }

    /// Makes a log of several segments, with all that streams can do, and leaves it as a kill does.
    fn write(path: &Path) -> u32 {
        let sizes = Log::options().segment_bytes_first(SEGMENT_BYTES);
        let log = sizes.segment_bytes_max(SEGMENT_BYTES).open(path).expect("opens");
        let mut streams: Vec<_> = (0..7).map(|_| log.stream().expect("open")).collect();
        for n in 0..700_usize {
            let stream = &mut streams[n % 7];
            for _ in 0..=n % 4 {
                stream.append(&[n as u8; 90][..]).expect("room");
            }
            if n % 41 == 3 {
                stream.set_label("n", &n.to_string()).expect("short");
            }
            let os = CommitOptions::new().durability(Durability::Os);
            let id = CommitId([n as u8; 16]);
            let options = if n % 9 == 0 { CommitOptions::new().id(id) } else { os };
            stream.commit_with(options).wait().expect("committed");
            if n % 97 == 50 {
                stream.rewind(n as u64 / 9).expect("there");
                let child = streams[n % 5].fork_at(1_u64).expect("there");
                streams[(n + 3) % 7] = child;
            }
        }
        let segments = log.snapshot().segments.iter().count() as u32;
        std::mem::forget((log, streams));
        segments
    }

    fn log_id(log: &Path) -> [u8; 16] {
        let bytes = fs::read(file(log, 1)).expect("readable");
        decode_header(&bytes[..header::BLOCK_BYTES]).expect("a header").0.log_id
    }

    /// A copy as of a process that was killed before a segment was sealed.
    fn unsealed(from: &Path, to: &Path, segments: u32) {
        fs::create_dir_all(to.join(crate::segment::DIR)).expect("writable");
        for number in 1..=segments {
            let mut bytes = fs::read(file(from, number)).expect("readable");
            let (found, _) = decode_header(&bytes[..header::BLOCK_BYTES]).expect("a header");
            let last = bytes.split_at(bytes.len() - trailer::BYTES).1;
            if let Some(end) = decode_trailer(last, &found) {
                bytes.truncate(end.footer_at as usize);
                bytes.resize(found.reserved_bytes as usize, 0);
            }
            fs::write(file(to, number), bytes).expect("writable");
        }
    }

    /// All that was found.
    fn told(loaded: Result<Option<Loaded>>) -> String {
        let Ok(Some(loaded)) = loaded else { return format!("{:?}", loaded.err()) };
        let ids = (0..u8::MAX).map(|n| loaded.ids.position(CommitId([n; 16])));
        let mut text = format!("{:#?}\n{:?}\n", loaded.survey, ids.collect::<Vec<_>>());
        let last = loaded.last.as_ref().map(|(segment, end)| (segment.number(), end));
        let full = loaded.unsealed.iter().map(|(one, end, last)| (one.number(), *end, *last));
        let full: Vec<_> = full.collect();
        let spares: Vec<_> = loaded.spares.iter().map(|one| one.header.number).collect();
        let rest = (last, full, spares, &loaded.worn, &loaded.superseded, &loaded.in_the_way);
        writeln!(text, "{rest:?}").expect("memory");
        let snapshot = Snapshot::new(Arc::new(loaded.catalog));
        let mut streams = snapshot.streams();
        streams.sort_by_key(|stream| stream.id);
        for stream in streams {
            writeln!(text, "{stream:?}").expect("memory");
            for event in snapshot.events(stream.id).expect("known") {
                writeln!(text, "{event:?}").expect("memory");
            }
        }
        for event in snapshot.read_all(Position(1)).expect("readable") {
            writeln!(text, "{event:?}").expect("memory");
        }
        text
    }

    /// Whatever the number of threads, the same is found. Returns it.
    fn same(log: &Path, what: &str) -> String {
        let disk = RealDisk::new(log, false);
        let mut all = String::new();
        for depth in [Depth::Quick, Depth::Full] {
            let look = |hands| told(load_with(&disk, Access::Write, depth, hands));
            let one = look(Hands::One);
            for hands in [Hands::AsMany, Hands::Exactly(1), Hands::Exactly(2), Hands::Exactly(5)] {
                let many = look(hands);
                let apart = many.lines().zip(one.lines()).find(|(many, one)| many != one);
                assert!(many == one, "{what}, {depth:?}, {hands:?}: {apart:#?}");
            }
            all += &one;
        }
        all
    }

    fn change(log: &Path, number: u32, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(file(log, number)).expect("there");
        file.write_all_at(bytes, at).expect("writable");
    }

    #[test]
    fn p6_threads_find_what_one_finds() {
        let dir = tempfile::tempdir().expect("writable");
        let living = dir.path().join("living");
        let segments = write(&living);
        assert!(segments >= 8, "{segments}");
        let fresh = |name: &str| {
            let path = dir.path().join(name);
            unsealed(&living, &path, segments);
            path
        };
        let sound = fresh("sound");
        let whole = same(&sound, "sound");
        assert!(whole.contains("state: Unsealed") && !whole.contains("Damage {"), "{whole}");
        // With a spare behind it, and with one that is none.
        let disk = RealDisk::new(&sound, false);
        let number = segments + 1;
        let spare = Spare::create(&disk, log_id(&sound), number, SEGMENT_BYTES, Zero::Written);
        spare.expect("writable");
        assert!(same(&sound, "a spare").contains("state: Spare"));
        change(&sound, number, SEGMENT_BYTES - 1, &[1]);
        assert!(!same(&sound, "no spare").contains("state: Spare"));
        let wrong = [[0xa5; 64], [0; 64]];
        for (round, at) in (0..24_u64).map(|round| (round, 4096 + round * 1187 % 26_000)) {
            let path = fresh(&format!("hurt-{round}"));
            let number = 2 + round as u32 % (segments - 1);
            change(&path, number, at, &wrong[round as usize % 2]);
            if round % 3 == 0 {
                // In two, and in a row: what is expected of the second depends on the first.
                change(&path, number % segments + 1, 4096, &wrong[round as usize % 2]);
            }
            let found = same(&path, &format!("round {round}"));
            let last = number == segments || number % segments + 1 == segments;
            assert!(last || found.contains("Damage {"), "round {round}");
        }
        let lost = fresh("lost");
        fs::remove_file(file(&lost, 3)).expect("there");
        same(&lost, "a segment is lost");
        fs::copy(file(&lost, 4), file(&lost, 3)).expect("there");
        same(&lost, "a segment is there twice");
        // What seems to be the last one repeats positions: so the one before is the last, and may be torn.
        let torn = fresh("torn");
        let mut bytes = fs::read(file(&torn, 2)).expect("readable");
        let (mut found, _) = decode_header(&bytes[..header::BLOCK_BYTES]).expect("a header");
        found.number = segments + 1;
        bytes[..header::BLOCK_BYTES].copy_from_slice(&found.encode());
        fs::write(file(&torn, segments + 1), bytes).expect("writable");
        let disk = RealDisk::new(&torn, false);
        let last = load_with(&disk, Access::Read, Depth::Quick, Hands::One).expect("readable");
        let (_, end) = last.and_then(|loaded| loaded.last).expect("a last one");
        change(&torn, segments, end.offset - 20, &wrong[0]);
        assert!(same(&torn, "the last but one is the last").contains("torn_tail: Some("));
        same(&living, "sealed");
        change(&living, 4, 5000, &[0xa5; 64]);
        assert!(same(&living, "sealed, and hurt").contains("Damage {"));
        for number in [2, 5, 6] {
            let bytes = fs::metadata(file(&living, number)).expect("there").len();
            change(&living, number, bytes - 9, &[1]);
        }
        assert!(same(&living, "damaged footers").contains("state: Unsealed"));
    }
}
