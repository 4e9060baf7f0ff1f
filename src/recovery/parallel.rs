//! Parallel reads for recovery: helper threads walk segments ahead of the loader.
//!
//! The loader applies commits in log order, one segment after the other. Most of the time goes into
//! reading and checksumming, and the result depends only on the segment's bytes and the expectation
//! about them. Helpers therefore walk each segment with the expectation that holds if nothing
//! before it is missing, and the loader takes their findings in its order. If its expectation
//! differs, the loader walks the segment itself, so the result is the same with any number of
//! threads. Queues of findings are bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use super::access::LoadDepth;
use super::discover::{Candidate, Role, scanner};
use super::replay::{End, Expectation, ReplayItem, TailRule, walk};
use super::sealed::{self, FooterCheck};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{COMMITS_AT, POSITION_MAX};
use crate::segment::scan::Scanner;
use crate::segment::{FilePool, Segment};
use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::{Condvar, Mutex, MutexGuard, hands, scope, spawn_scoped};

/// Maximum number of helper threads; bounds the memory of their findings.
const HANDS_MAX: usize = 8;
/// Minimum number of bytes to read before threads are started; fewer take only milliseconds.
const SHARED_BYTES_MIN: u64 = 16 << 20;
/// Approximate size of a parcel of findings.
const PARCEL_BYTES: usize = 128 << 10;
/// Maximum number of queued parcels per segment.
const PARCELS_MAX: usize = 64;
/// Number of bytes of a spare that a thread searches at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// Number of helper threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hands {
    /// No helper; the loader reads everything itself.
    One,
    /// One helper per spare processor, if there is enough to read.
    AsMany,
    /// Exactly this number of helpers.
    #[cfg(test)]
    Exactly(usize),
}

/// Reads that can be done in any order.
pub(super) struct Work {
    /// Jobs in log order.
    walks: Vec<Job>,
    /// Pieces of files that are presumed to be spares.
    pieces: Vec<(Scanner, u64)>,
    bytes: u64,
}

/// Read of one segment.
enum Job {
    /// Walks an unsealed segment.
    Walk(Arc<Segment>, Expectation),
    /// Checks all commits of a sealed segment.
    Check(Arc<Segment>),
}

impl Job {
    fn number(&self) -> u32 {
        match self {
            Self::Walk(segment, _) | Self::Check(segment) => segment.number(),
        }
    }
}

/// Message of a helper about its segment.
enum Finding {
    Found(Vec<ReplayItem>),
    Ended(Result<End>),
    Checked(Result<FooterCheck>),
}

impl Work {
    pub(super) fn plan(candidates: &[Candidate], depth: LoadDepth, files: &Arc<FilePool>) -> Self {
        let mut work = Self { walks: Vec::new(), pieces: Vec::new(), bytes: 0 };
        let is_used = |candidate: &Candidate| matches!(candidate.role, Role::Segment(_));
        let last = candidates.iter().rposition(is_used);
        for (index, candidate) in candidates.iter().enumerate() {
            let start = match &candidate.role {
                Role::Segment(start) => start,
                Role::Spare(header) => {
                    let mut at = COMMITS_AT;
                    while at < candidate.bytes {
                        let end = candidate.bytes.min(at.saturating_add(PIECE_BYTES));
                        work.pieces.push((scanner(header, end, files), at));
                        at = end;
                    }
                    work.bytes = work.bytes.saturating_add(candidate.bytes);
                    continue;
                }
                Role::Unusable(_) => continue,
            };
            match (&start.sealed, start.first) {
                (Some(segment), _) if depth == LoadDepth::Full && !segment.is_gone() => {
                    work.walks.push(Job::Check(Arc::clone(segment)));
                }
                // Only a damaged segment lacks its first position.
                (None, Some(first)) if start.header.covers.is_none() => {
                    let durable =
                        if Some(index) == last { first.saturating_sub(1) } else { POSITION_MAX };
                    let (limit, tail) = (candidate.bytes, TailRule::Cut);
                    let expect = Expectation { first, durable, limit, tail };
                    let segment = Segment::active(start.header, first);
                    work.walks.push(Job::Walk(Arc::new(segment), expect));
                }
                // A sparse segment without its footer is damaged; the loader reads it.
                _ => continue,
            }
            work.bytes = work.bytes.saturating_add(candidate.bytes);
        }
        work
    }

    /// Runs `fold` while helpers work ahead. Returns its result, and true if all presumed spares
    /// hold only zeros.
    pub(super) fn share<R>(
        self,
        wanted: Hands,
        files: &Arc<FilePool>,
        fold: impl FnOnce(Ahead) -> R,
    ) -> (R, Result<bool>) {
        let jobs = self.walks.len().saturating_add(self.pieces.len());
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
        let shared = Arc::new(SharedWork {
            files: Arc::clone(files),
            window: most.saturating_add(1),
            state: Mutex::new(state),
            changed: Condvar::default(),
        });
        let folded = scope(|scope| {
            let work = || shared.work();
            let help = |_: &usize| spawn_scoped(scope, "amberlog-open", work).is_ok();
            let helpers = (0..most).take_while(help).count();
            let lanes = if helpers == 0 { VecDeque::new() } else { lanes };
            let shared_too = Some(Arc::clone(&shared));
            let folded = fold(Ahead { files: Arc::clone(files), lanes, shared: shared_too });
            // Only pieces of spares are left; this thread helps with them.
            shared.work();
            folded
        });
        let empty = std::mem::replace(&mut shared.lock().empty, Ok(true));
        (folded, empty)
    }
}

/// Creates a channel for each job.
fn lanes(walks: &[Job]) -> (Vec<SyncSender<Finding>>, VecDeque<Lane>) {
    let lane = |(at, job): (usize, &Job)| {
        let (expect, parcels) = match job {
            Job::Walk(_, expect) => (Some(*expect), PARCELS_MAX),
            Job::Check(_) => (None, 1),
        };
        let (sender, findings) = sync_channel(parcels);
        (sender, Lane { at, number: job.number(), expect, findings })
    };
    walks.iter().enumerate().map(lane).unzip()
}

/// Receiver of the findings about one segment.
struct Lane {
    /// Index among all jobs.
    at: usize,
    number: u32,
    /// Expectation of the walk; `None` for a check.
    expect: Option<Expectation>,
    findings: Receiver<Finding>,
}

/// Findings of the helpers, as the loader sees them.
pub(super) struct Ahead {
    files: Arc<FilePool>,
    lanes: VecDeque<Lane>,
    shared: Option<Arc<SharedWork>>,
}

impl Ahead {
    /// Creates an instance without helpers.
    pub(super) fn new(files: &Arc<FilePool>) -> Self {
        Self { files: Arc::clone(files), lanes: VecDeque::new(), shared: None }
    }

    /// Walks a segment, or returns the findings of the helper that did.
    pub(super) fn walk(
        &mut self,
        segment: &Arc<Segment>,
        expect: Expectation,
        mut take: impl FnMut(ReplayItem) -> Result<()>,
    ) -> Result<End> {
        let Some(lane) = self.lane(segment.number(), Some(expect)) else {
            return walk(segment, &self.files, expect, take);
        };
        loop {
            match lane.findings.recv() {
                Ok(Finding::Found(items)) => items.into_iter().try_for_each(&mut take)?,
                Ok(Finding::Ended(end)) => return end,
                _ => return Err(panicked(segment)),
            }
        }
    }

    /// Checks every commit of a sealed segment, or returns the result of the helper that did.
    pub(super) fn check(&mut self, segment: &Arc<Segment>) -> Result<FooterCheck> {
        let Some(lane) = self.lane(segment.number(), None) else {
            return sealed::check(segment, &self.files);
        };
        match lane.findings.recv() {
            Ok(Finding::Checked(check)) => check,
            _ => Err(panicked(segment)),
        }
    }

    /// Returns the lane of this segment if a helper read it with this expectation. Drops the lanes
    /// before it.
    fn lane(&mut self, number: u32, expect: Option<Expectation>) -> Option<Lane> {
        let at = self.lanes.iter().position(|lane| lane.number == number)?;
        let lane = self.lanes.drain(..=at).next_back()?;
        self.move_window(lane.at);
        Some(lane).filter(|lane| lane.expect == expect)
    }

    /// Moves the window of the helpers to this job.
    fn move_window(&self, at: usize) {
        if let Some(shared) = &self.shared {
            shared.lock().current = at;
            shared.changed.notify_all();
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // A helper that still walks fails when it sends its next finding; the other jobs never
        // start.
        self.lanes.clear();
        if let Some(shared) = &self.shared {
            shared.lock().jobs.clear();
            shared.changed.notify_all();
        }
    }
}

/// Returns the error for a helper that panicked. The panic also ends the scope that started it, so
/// no caller receives this error.
fn panicked(segment: &Segment) -> Error {
    segment.error("open", 0)
}

struct SharedWork {
    files: Arc<FilePool>,
    /// Maximum number of segments that may be read ahead of the loader.
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Jobs not started yet, in log order, each with the sender of its lane.
    jobs: VecDeque<(Job, SyncSender<Finding>)>,
    /// Number of started jobs.
    started: usize,
    /// Index of the job whose findings the loader takes.
    current: usize,
    pieces: Vec<(Scanner, u64)>,
    /// True as long as all presumed spares hold only zeros.
    empty: Result<bool>,
}

impl Default for State {
    fn default() -> Self {
        let jobs = VecDeque::new();
        Self { jobs, started: 0, current: 0, pieces: Vec::new(), empty: Ok(true) }
    }
}

impl SharedWork {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Works on jobs and pieces until none is left.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.started.saturating_sub(state.current) < self.window
                && let Some((job, to)) = state.jobs.pop_front()
            {
                state.started = state.started.saturating_add(1);
                drop(state);
                run(job, &self.files, &to);
                state = self.lock();
            } else if let Some((scanner, from)) = state.pieces.pop() {
                drop(state);
                let written = scanner.last_written(from);
                state = self.lock();
                state.note_piece(written);
            } else if state.jobs.is_empty() {
                return;
            } else {
                state = self.changed.wait(state);
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
        // One written piece decides; the others need no search.
        self.pieces.clear();
    }
}

fn run(job: Job, files: &Arc<FilePool>, to: &SyncSender<Finding>) {
    match job {
        Job::Check(segment) => drop(to.send(Finding::Checked(sealed::check(&segment, files)))),
        Job::Walk(segment, expect) => {
            let mut parcel = Parcel { items: Vec::new(), bytes: 0, to };
            let end = walk(&segment, files, expect, |item| parcel.put(item));
            // Sending fails only if the loader no longer needs the findings.
            let _ = parcel.send().and_then(|()| {
                to.send(Finding::Ended(end)).map_err(|_| Error::new(ErrorKind::Closed, "open"))
            });
        }
    }
}

/// Findings collected for the next send.
struct Parcel<'a> {
    items: Vec<ReplayItem>,
    bytes: usize,
    to: &'a SyncSender<Finding>,
}

impl Parcel<'_> {
    fn put(&mut self, item: ReplayItem) -> Result<()> {
        let (batches, changes) = match &item {
            // The heap bytes of names and labels are not counted.
            ReplayItem::Commit(found) => (&*found.batches, &*found.changes),
            ReplayItem::Hole(_) => Default::default(),
        };
        let heap = size_of_val(batches).saturating_add(size_of_val(changes));
        self.bytes = self.bytes.saturating_add(size_of::<ReplayItem>()).saturating_add(heap);
        self.items.push(item);
        if self.bytes < PARCEL_BYTES { Ok(()) } else { self.send() }
    }

    /// Sends the collected findings; blocks while the queue is full.
    fn send(&mut self) -> Result<()> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        let gone = |_| Error::new(ErrorKind::Closed, "open");
        self.to.send(Finding::Found(items)).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::catalog::ReadView;
    use crate::disk::{Disk, RealDisk};
    use crate::format::{decode_header, decode_trailer, header, trailer};
    use crate::log::Log;
    use crate::options::CommitOptions;
    use crate::recovery::access::Access;
    use crate::recovery::load::{Loaded, load_with};
    use crate::recovery::looking;
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
        let mut streams: Vec<_> = (0..7).map(|_| log.create_stream().expect("open")).collect();
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
        let segments = log.read_view().segments.iter().count() as u32;
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
    fn describe(loaded: Result<Option<Loaded>>) -> String {
        let Ok(Some(loaded)) = loaded else { return format!("{:?}", loaded.err()) };
        let ids = (0..u8::MAX).map(|n| loaded.ids.position(CommitId([n; 16])));
        let mut text = format!("{:#?}\n{:?}\n", loaded.report, ids.collect::<Vec<_>>());
        let last = loaded.last.as_ref().map(|(segment, end)| (segment.number(), end));
        let full =
            loaded.unsealed.iter().map(|(segment, end, last)| (segment.number(), *end, *last));
        let full: Vec<_> = full.collect();
        let spares: Vec<_> = loaded.spares.iter().map(|header| header.number).collect();
        let rest =
            (last, full, spares, &loaded.damaged_spares, &loaded.superseded, &loaded.in_the_way);
        writeln!(text, "{rest:?}").expect("memory");
        loaded.catalog.read_by(loaded.files);
        let view = ReadView::new(Arc::new(loaded.catalog));
        let mut streams = view.streams();
        streams.sort_by_key(|stream| stream.id);
        for stream in streams {
            writeln!(text, "{stream:?}").expect("memory");
            for event in view.events(stream.id).expect("known") {
                writeln!(text, "{event:?}").expect("memory");
            }
        }
        for event in view.all_events(Position(1)).expect("readable") {
            writeln!(text, "{event:?}").expect("memory");
        }
        text
    }

    /// Whatever the number of threads, the same is found. Returns it.
    fn same(log: &Path, what: &str) -> String {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(log, false).expect("there"));
        let mut all = String::new();
        for depth in [LoadDepth::Quick, LoadDepth::Full] {
            let access = Access::Write { commit_ids_max: 100 };
            let look = |hands| describe(load_with(&looking(&disk), access, depth, hands));
            let alone = look(Hands::One);
            for hands in [Hands::AsMany, Hands::Exactly(1), Hands::Exactly(2), Hands::Exactly(5)] {
                let many = look(hands);
                let apart = many.lines().zip(alone.lines()).find(|(many, alone)| many != alone);
                assert!(many == alone, "{what}, {depth:?}, {hands:?}: {apart:#?}");
            }
            all += &alone;
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
        let disk = RealDisk::new(&sound, false).expect("there");
        let number = segments + 1;
        let spare = Spare::prepare(&disk, log_id(&sound), number, SEGMENT_BYTES, Zero::Written)
            .and_then(|spare| spare.named(&disk));
        spare.expect("writable");
        assert!(same(&sound, "a spare").contains("state: Spare"));
        change(&sound, number, SEGMENT_BYTES - 1, &[1]);
        assert!(!same(&sound, "no spare").contains("state: Spare"));
        let wrong = [[0xa5; 64], [0; 64]];
        for (round, at) in (0..24_u64).map(|round| (round, 4096 + round * 1187 % 26_000)) {
            let path = fresh(&format!("damaged-{round}"));
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
        // What seems to be the last one repeats positions: so the one before is the last, and may
        // be torn.
        let torn = fresh("torn");
        let mut bytes = fs::read(file(&torn, 2)).expect("readable");
        let (mut found, _) = decode_header(&bytes[..header::BLOCK_BYTES]).expect("a header");
        found.number = segments + 1;
        bytes[..header::BLOCK_BYTES].copy_from_slice(&found.encode());
        fs::write(file(&torn, segments + 1), bytes).expect("writable");
        let files = looking(&(Arc::new(RealDisk::new(&torn, false).expect("there")) as _));
        let last = load_with(&files, Access::Read, LoadDepth::Quick, Hands::One).expect("readable");
        let (_, end) = last.and_then(|loaded| loaded.last).expect("a last one");
        change(&torn, segments, end.offset - 20, &wrong[0]);
        assert!(same(&torn, "the last but one is the last").contains("torn_tail: Some("));
        same(&living, "sealed");
        change(&living, 4, 5000, &[0xa5; 64]);
        assert!(same(&living, "sealed, and damaged").contains("Damage {"));
        for number in [2, 5, 6] {
            let bytes = fs::metadata(file(&living, number)).expect("there").len();
            change(&living, number, bytes - 9, &[1]);
        }
        assert!(same(&living, "damaged footers").contains("state: Unsealed"));
    }
}
