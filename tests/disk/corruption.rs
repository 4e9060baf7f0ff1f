//! Whatever is done to the bytes of a log: is the answer exact, or loud?
//!
//! P6, P7, P13; F14, F15, F17, F18, F21, F22, F24, F26, F28, F29, F33. A log of known content is damaged in one
//! way at a time, as it lies after a clean close, after a kill, and after a kill before anything was sealed.
//! Every event that is then returned must be the one that was committed at that place; whatever is
//! missing must have been told; and the log must go on, or refuse by type.
//!
//! `AMBERLOG_EVERY_BIT` is the distance, in the mean, of the bits that are flipped: 1 flips every one (hours, in
//! a debug build), 200 takes minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use crate::support::verified::checked;
use crate::support::waiting::wait_until;
use crate::support::{Rng, env_or, read_dir, write_dir};
use amberlog::maintenance::CompactOptions;
use amberlog::verify::{RecoveryReport, SegmentReport, SegmentState};
use amberlog::{
    CommitOptions, Durability, Error, ErrorKind, Event, Log, Options, Position, ReadView, Stream,
    StreamId, StreamOptions,
};
use tempfile::TempDir;

const SECTOR: usize = 512;
/// Commits in a sample: enough for three full segments and part of a fourth.
const TURNS: usize = 95;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// In memory, where there is such a place: these tests write a lot and ask nothing of a disk.
fn dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// A log, and what is in it.
struct Sample {
    name: &'static str,
    files: Files,
    streams: BTreeMap<StreamId, Vec<Vec<u8>>>,
    /// The position of each event.
    positions: BTreeMap<(StreamId, u64), Position>,
    /// The events of the last commit: the one whose bytes may be taken for a torn tail.
    last: BTreeSet<(StreamId, u64)>,
    /// Number of segments that hold commits.
    segments: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Closed,
    Killed,
    Unsealed,
}

/// A few streams, one of them named, alone and together; three full segments and one that is not.
fn sample(how: How) -> Sample {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut rng = Rng::new(how as u64 + 40);
    let mut streams: Vec<Stream> = (0..6)
        .map(|n| match n {
            0 => log.create_stream_with(&StreamOptions::new().name("named")),
            _ => log.create_stream(),
        })
        .collect::<Result<_, _>>()
        .expect("streams");
    let mut content: BTreeMap<StreamId, Vec<Vec<u8>>> = BTreeMap::new();
    let durability = if how == How::Unsealed { Durability::Os } else { Durability::Disk };
    let with = CommitOptions::new().durability(durability);
    let mut add = |stream: &mut Stream, bytes: u64, rng: &mut Rng| {
        let event: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
        stream.append(&event).expect("room");
        content.entry(stream.id()).or_default().push(event);
    };
    for turn in 0..TURNS {
        let at = turn % 5;
        let bytes = rng.below(500);
        add(&mut streams[at], bytes, &mut rng);
        if turn.is_multiple_of(3) {
            add(&mut streams[(at + 1) % 5], bytes / 2, &mut rng);
            log.commit_all_with(&mut streams, with).wait().expect("committed");
        } else {
            streams[at].commit_with(with).wait().expect("committed");
        }
    }
    // The last commit is larger than two sectors, so that no one sector holds an earlier one with it.
    add(&mut streams[5], 700, &mut rng);
    add(&mut streams[1], 900, &mut rng);
    log.commit_all_with(&mut streams, with).wait().expect("committed");
    let last = [5, 1].map(|at| (streams[at].id(), streams[at].head().get() - 1)).into();
    if how == How::Killed {
        wait_for_seals(dir.path());
    }
    let mut files = read_dir(dir.path());
    drop(streams);
    log.close().expect("closes");
    if how == How::Closed {
        files = read_dir(dir.path());
    }
    let name = ["closed", "killed", "unsealed"][how as usize];
    let whole = tempfile_of(&files);
    let log = options().open(whole.path()).expect("opens");
    let all = log.read_view().all_events(Position::START).expect("in range");
    let positions = all.map(|event| {
        let event = event.expect("whole");
        ((event.stream(), event.seq().get()), event.position().expect("durable"))
    });
    let positions = positions.collect();
    let found = checked(dir.path()).expect("readable");
    let used = |one: &&SegmentReport| one.state != SegmentState::Spare;
    let segments = found.segments.iter().filter(used).count() as u32;
    Sample { name, files, streams: content, positions, last, segments }
}

fn tempfile_of(files: &Files) -> TempDir {
    let dir = dir();
    write_dir(dir.path(), files);
    dir
}

fn wait_for_seals(dir: &Path) {
    let unsealed = |dir| {
        let found = checked(dir).expect("readable");
        found.segments.iter().any(|one| one.state == SegmentState::Unsealed)
    };
    wait_until("full segments that are sealed", || !unsealed(dir));
}

/// Result of reading: the events, and whether damage was reported.
#[derive(Default)]
struct Seen {
    events: BTreeSet<(StreamId, u64)>,
    told: bool,
}

impl Sample {
    fn event(&self, event: &Event) -> (StreamId, u64) {
        let place = (event.stream(), event.seq().get());
        let payload = self.streams.get(&place.0).and_then(|all| all.get(place.1 as usize));
        let payload = payload.unwrap_or_else(|| panic!("an event that never was: {place:?}"));
        assert_eq!(payload, event.payload(), "the bytes of {place:?}");
        place
    }

    /// Reads `events`, and bounds how many there can be.
    fn gather(&self, events: impl Iterator<Item = Result<Event, Error>>, seen: &mut Seen) {
        let all: usize = self.streams.values().map(Vec::len).sum();
        for (n, event) in events.enumerate() {
            assert!(n < 4 * all + 100, "P13: reading does not end");
            match event {
                Ok(event) => drop(seen.events.insert(self.event(&event))),
                Err(error) => {
                    let corrupt = matches!(error.kind(), ErrorKind::Corrupt { .. });
                    assert!(corrupt, "F22: {error:?}");
                    seen.told = true;
                }
            }
        }
    }

    fn read(&self, view: &ReadView) -> Seen {
        let mut seen = Seen::default();
        let mut others = [Seen::default(), Seen::default()];
        for id in self.streams.keys() {
            if let Ok(events) = view.events(*id) {
                self.gather(events, &mut seen);
            }
            if let Ok(events) = view.events(*id) {
                self.gather(events.rev(), &mut others[0]);
            }
            if let (Ok(events), Ok(walked)) = (view.events(*id), view.events(*id)) {
                let seq = |event: Result<Event, Error>| event.ok().map(|event| event.seq());
                let walked = walked.fold(None, |_, event| Some(event));
                assert_eq!(events.last().map(seq), walked.map(seq), "the last of {id}");
            }
        }
        let differ: Vec<_> = seen.events.symmetric_difference(&others[0].events).collect();
        assert!(differ.is_empty(), "only forwards or only backwards: {differ:?}");
        let all = view.all_events(Position::START).expect("from the start");
        self.gather(all, &mut others[1]);
        let missed: Vec<_> = seen.events.difference(&others[1].events).collect();
        assert!(missed.is_empty() || others[1].told, "by position, untold: {missed:?}");
        let shown = |place: &&(StreamId, u64)| self.positions[place] <= view.position();
        let unseen = self.positions.keys().filter(shown);
        let unseen: Vec<_> = unseen.filter(|place| !others[1].events.contains(place)).collect();
        assert!(unseen.is_empty() || others[1].told, "F22: by position, not told: {unseen:?}");
        seen.told |= others.iter().any(|other| other.told);
        seen
    }

    fn missing(&self, seen: &Seen) -> Vec<(StreamId, u64)> {
        let all = self.streams.iter();
        let all = all.flat_map(|(id, events)| (0..events.len() as u64).map(|seq| (*id, seq)));
        all.filter(|place| !seen.events.contains(place)).collect()
    }

    /// Nothing is missing, or it was told, or it is the last commit of a log that was not closed.
    fn judge(&self, seen: &Seen, told: bool) {
        let missing = self.missing(seen);
        let torn = self.name != "closed" && missing.iter().all(|place| self.last.contains(place));
        assert!(missing.is_empty() || told || seen.told || torn, "lost in silence: {missing:?}");
    }

    /// Everything that is asked of a damaged log.
    fn examine(&self, files: &Files) {
        let dir = dir();
        write_dir(dir.path(), files);
        let full = checked(dir.path());
        // What was only handed to the operating system may be a torn tail after a kill, and says so.
        let unsynced = self.name == "unsealed";
        let tells = |one: &RecoveryReport| !one.is_sound() || unsynced && one.torn_tail.is_some();
        let told = full.as_ref().map_or_else(is_refusal, tells);
        match ReadView::open(dir.path()) {
            Ok((view, quick)) => {
                self.judge(&self.read(&view), told || !quick.is_sound());
            }
            Err(error) => assert!(is_refusal(&error), "{error:?}"),
        }
        assert!(read_dir(dir.path()) == *files, "F24: looking changed the disk");
        match options().open(dir.path()) {
            Ok(log) => self.go_on(dir.path(), log, told),
            Err(error) => assert!(is_refusal(&error), "{error:?}"),
        }
    }

    /// The log goes on: what is there stays, what is new is there after reopening.
    fn go_on(&self, dir: &Path, log: Log, told: bool) {
        let told = told || !log.recovery_report().is_sound();
        let seen = self.read(&log.read_view());
        self.judge(&seen, told);
        log.close().expect("closes");
        let recovered = read_dir(dir);
        let log = options().open(dir).expect("opens again");
        assert_eq!(self.read(&log.read_view()).events, seen.events, "F24, F27");
        log.close().expect("closes");
        assert!(read_dir(dir) == recovered, "F24: the second opening writes nothing");

        let log = options().open(dir).expect("opens once more");
        // P6: damage keeps no writer from writing, not even to the streams that it hit.
        let known = log.read_view().streams();
        let opened = known.iter().map(|one| log.open_stream(one.id).expect("known"));
        let mut streams: Vec<Stream> =
            opened.chain([log.create_stream().expect("a stream")]).collect();
        let mut new = Vec::new();
        for stream in &mut streams {
            new.push((stream.id(), stream.append(b"new").expect("room")));
        }
        log.commit_all(&mut streams).wait().expect("committed");
        drop(streams);
        log.close().expect("closes");
        let (view, _) = ReadView::open(dir).expect("readable");
        for (id, seq) in new {
            let mut one = view.events(id).expect("known").range(seq..=seq);
            assert_eq!(one.next().expect("there").expect("whole").payload(), b"new");
        }
        for (id, seq) in &seen.events {
            let mut one = view.events(*id).expect("known").range(*seq..=*seq);
            self.event(&one.next().expect("still there").expect("still whole"));
        }
    }

    fn check(&self, case: &str, files: &Files) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.examine(files)));
        assert!(outcome.is_ok(), "{} log, {case}", self.name);
    }

    fn names(&self) -> Vec<PathBuf> {
        self.files.keys().filter(|name| name.extension().is_some()).cloned().collect()
    }

    /// One change to one file.
    fn change(&self, case: &str, name: &Path, with: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.clone();
        with(files.get_mut(name).expect("there"));
        self.check(&format!("{}: {case}", name.display()), &files);
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt { .. }
            | ErrorKind::UnsupportedVersion { .. }
            | ErrorKind::UnsupportedFeature
            | ErrorKind::NoLog
    )
}

fn on_each_sample(work: impl Fn(&Sample) + Sync) {
    thread::scope(|scope| {
        for how in [How::Closed, How::Killed, How::Unsealed] {
            let work = &work;
            scope.spawn(move || work(&sample(how)));
        }
    });
}

fn name_of(number: u32) -> PathBuf {
    PathBuf::from(format!("segments/{number:010}.seg"))
}

#[test]
fn f21_an_untouched_log_is_whole() {
    on_each_sample(|sample| {
        assert_eq!(sample.segments, 4, "change TURNS");
        let dir = dir();
        write_dir(dir.path(), &sample.files);
        let (view, found) = ReadView::open(dir.path()).expect("readable");
        assert!(found.is_sound() && found.torn_tail.is_none(), "{found:?}");
        let seen = sample.read(&view);
        assert!(sample.missing(&seen).is_empty() && !seen.told);
        sample.check("untouched", &sample.files);
    });
}

#[test]
fn p6_f18_f21_f26_flipped_bits() {
    let stride = env_or("AMBERLOG_EVERY_BIT", 5_003);
    on_each_sample(|sample| {
        let mut rng = Rng::new(7);
        for name in sample.names() {
            let bits = sample.files[&name].len() as u64 * 8;
            let mut bit = rng.below(stride);
            while bit < bits {
                sample.change(&format!("bit {bit}"), &name, |bytes| {
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                });
                bit += 1 + if stride > 1 { rng.below(2 * stride - 1) } else { 0 };
            }
        }
    });
}

#[test]
fn p6_f14_f15_zeroed_sectors() {
    on_each_sample(|sample| {
        for name in sample.names() {
            for at in (0..sample.files[&name].len()).step_by(SECTOR) {
                sample.change(&format!("sector at {at} zeroed"), &name, |bytes| {
                    let end = bytes.len().min(at + SECTOR);
                    bytes[at..end].fill(0);
                });
            }
        }
    });
}

#[test]
fn p6_f20_swapped_and_repeated_sectors() {
    on_each_sample(|sample| {
        let mut rng = Rng::new(11);
        let names = sample.names();
        for n in 0..16 {
            let name = &names[n % names.len()];
            let sectors = (sample.files[name].len() / SECTOR) as u64;
            let [a, b] = [0, 1].map(|_| rng.below(sectors) as usize * SECTOR);
            sample.change(&format!("sectors {a} and {b} swapped"), name, |bytes| {
                let first = bytes[a..a + SECTOR].to_vec();
                bytes.copy_within(b..b + SECTOR, a);
                bytes[b..b + SECTOR].copy_from_slice(&first);
            });
            sample.change(&format!("sector {a} also at {b}"), name, |bytes| {
                bytes.copy_within(a..a + SECTOR, b);
            });
            let next = &names[(n + 1) % names.len()];
            let other = sample.files[next].clone();
            let mut files = sample.files.clone();
            let c = rng.below((other.len() / SECTOR) as u64) as usize * SECTOR;
            let first = sample.files[name][a..a + SECTOR].to_vec();
            files.get_mut(name).expect("there")[a..a + SECTOR]
                .copy_from_slice(&other[c..c + SECTOR]);
            files.get_mut(next).expect("there")[c..c + SECTOR].copy_from_slice(&first);
            sample.check(
                &format!("{} {a} and {} {c} swapped", name.display(), next.display()),
                &files,
            );
            sample.change(&format!("sector {a} of another segment"), name, |bytes| {
                let from = a.min(other.len() / SECTOR * SECTOR - SECTOR);
                bytes[a..a + SECTOR].copy_from_slice(&other[from..from + SECTOR]);
            });
        }
    });
}

#[test]
fn p6_f28_f29_cut_files() {
    on_each_sample(|sample| {
        for name in sample.names() {
            let every = if cfg!(debug_assertions) { 97 * 13 } else { 97 };
            // Nothing proves that the last segment of a log without a single sync ever held a commit.
            let unproven = sample.name == "unsealed" && name == name_of(sample.segments);
            let from = if unproven { 4_097 } else { 0 };
            for length in (from..sample.files[&name].len()).step_by(every) {
                sample.change(&format!("cut to {length}"), &name, |bytes| bytes.truncate(length));
            }
        }
    });
}

#[test]
fn p6_f17_segments_that_are_missing_repeated_renamed_or_foreign() {
    let foreign = sample(How::Closed);
    on_each_sample(|sample| {
        // Nothing proves that the last segment of a log without a single sync was ever there.
        let provable = sample.segments - u32::from(sample.name == "unsealed");
        for number in 1..=provable {
            let name = name_of(number);
            let bytes = &sample.files[&name];
            let with = |case: &str, change: &dyn Fn(&mut Files)| {
                let mut files = sample.files.clone();
                change(&mut files);
                sample.check(&format!("segment {number} {case}"), &files);
            };
            with("deleted", &|files| drop(files.remove(&name)));
            with("empty", &|files| drop(files.insert(name.clone(), Vec::new())));
            with("again at the end", &|files| {
                files.insert(name_of(sample.segments + 1), bytes.clone());
            });
            with("moved to the end", &|files| {
                files.remove(&name);
                files.insert(name_of(sample.segments + 1), bytes.clone());
            });
            with("of another log", &|files| {
                files.insert(
                    name.clone(),
                    foreign.files[&name_of(number.min(foreign.segments))].clone(),
                );
            });
            for other in 1..=sample.segments {
                let other = name_of(other);
                with("over another", &|files| drop(files.insert(other.clone(), bytes.clone())));
                with("swapped with another", &|files| {
                    files.insert(name.clone(), sample.files[&other].clone());
                    files.insert(other.clone(), bytes.clone());
                });
            }
        }
    });
}

/// F33: foreign files are ignored and kept.
#[test]
fn f33_what_is_not_the_logs_is_left_alone() {
    use std::os::unix::ffi::OsStrExt;
    on_each_sample(|sample| {
        let mut files = sample.files.clone();
        let odd = std::ffi::OsStr::from_bytes(b"segments/\xff\xfe.seg");
        for name in ["notes.txt", "segments/1.seg", "segments/0000000001.seg.bak", "segments/a/b"] {
            files.insert(name.into(), b"not yours".to_vec());
        }
        files.insert(odd.into(), b"not yours".to_vec());
        files.insert("segments/0000000000.seg".into(), b"number zero".to_vec());
        files.remove(Path::new("LOCK"));
        let dir = dir();
        write_dir(dir.path(), &files);
        let log = options().open(dir.path()).expect("opens");
        assert!(log.recovery_report().is_sound(), "{:?}", log.recovery_report());
        assert!(sample.missing(&sample.read(&log.read_view())).is_empty());
        log.close().expect("closes");
        let after = read_dir(dir.path());
        let foreign = files.iter().filter(|(name, _)| !sample.files.contains_key(*name));
        for (name, bytes) in foreign {
            assert_eq!(after.get(name), Some(bytes), "{}", name.display());
        }
    });
}

/// P6: of a commit of very many streams, longer than a reader reads at once, a damaged entry of the directory hides its
/// own stream, and a damaged marker all of them; in a sealed segment as in one that is not.
#[test]
fn p6_a_damaged_entry_of_a_long_directory_hides_its_own_stream() {
    const STREAMS: usize = 4_000;
    for sealed in [false, true] {
        let dir = dir();
        let options = Log::options().segment_bytes_first(1 << 20).segment_bytes_max(1 << 20);
        let log = options.open(dir.path()).expect("opens");
        let mut streams: Vec<_> = (0..STREAMS).map(|_| log.create_stream().expect("one")).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.append(format!("event {n}")).expect("room");
        }
        log.commit_all(&mut streams).wait().expect("committed");
        if sealed {
            log.compact(CompactOptions::new().purge()).expect("ends the segment");
        }
        let ids: Vec<_> = streams.iter().map(Stream::id).collect();
        drop(streams);
        log.close().expect("closes");
        let path = dir.path().join("segments/0000000001.seg");
        let whole = std::fs::read(&path).expect("readable");
        let length = u32::from_le_bytes(whole[4100..4104].try_into().expect("four")) as usize;
        assert!(length > 256 << 10, "a long commit");
        let hit = |at: usize, hidden: &[usize]| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).expect("written");
            let (view, _) = ReadView::open(dir.path()).expect("opens");
            let is_asked = |n: &usize| {
                n.is_multiple_of(97) || hidden.first().is_none_or(|at| at.abs_diff(*n) < 4)
            };
            for (n, id) in ids.iter().enumerate().filter(|(n, _)| is_asked(n)) {
                let read = view.events(*id).and_then(|mut events| {
                    let both = [events.next(), view.events(*id)?.next_back()];
                    both.into_iter().flatten().collect::<Result<Vec<_>, _>>()
                });
                let expected = format!("event {n}");
                let is_whole = |events: &Vec<Event>| {
                    events.len() == 2
                        && events.iter().all(|event| event.payload() == expected.as_bytes())
                };
                assert_eq!(read.is_ok_and(|events| is_whole(&events)), !hidden.contains(&n), "{n}");
            }
            let all = view.all_events(Position::START).expect("readable");
            let (shown, errors): (Vec<_>, Vec<_>) = all.partition(Result::is_ok);
            assert_eq!(shown.len(), STREAMS - hidden.len());
            let found = amberlog::verify::verify_quick(dir.path()).expect("a log");
            assert!(!errors.is_empty() && !found.is_sound());
        };
        for nth in [0, 1_999, 3_999] {
            // The seq, and the end, where the bytes of the next batch start.
            let entry = 4096 + 40 + 48 * nth;
            hit(entry + 16, &[nth]);
            hit(entry + 28, &(nth..STREAMS.min(nth + 2)).collect::<Vec<_>>());
        }
        hit(4096 + length - 8, &(0..STREAMS).collect::<Vec<_>>());
    }
}

/// P6: an id that a damaged commit had is not forgotten in silence: a retry would be made a second time.
#[test]
fn p6_an_opening_tells_that_a_commit_id_is_lost() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..40_u128 {
        stream.append([7; 500]).expect("room");
        let options = CommitOptions::new().id(amberlog::CommitId::from(n));
        stream.commit_with(options).wait().expect("committed");
    }
    drop(stream);
    log.close().expect("closes");
    let path = dir.path().join("segments/0000000001.seg");
    let whole = std::fs::read(&path).expect("readable");
    let length = u32::from_le_bytes(whole[4100..4104].try_into().expect("four")) as usize;
    // The header of the first commit, and its marker.
    for at in [4096 + 20, 4096 + length - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let log = options().open(dir.path()).expect("opens");
        assert!(!log.recovery_report().is_sound(), "byte {at}");
    }
}
