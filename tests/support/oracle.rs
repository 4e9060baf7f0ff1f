//! Logs of known content on a simulated disk, and an oracle that knows from the bytes alone what a damage costs.
//!
//! The oracle remembers which bytes of which file belong to which commit. It compares the damaged files with
//! those that were written, and so knows what must still be there, what must be lost, and what must be named;
//! it shares no code with recovery. `check` asks everything that the tests and the fuzz target ask of a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::verified::checked_on;
use amberlog::sim::{SimDisk, repair_on};
use amberlog::verify::{Record, RecordBody, RecordDump, RecoveryReport, RepairReport};
use amberlog::{
    CommitOptions, Durability, Error, ErrorKind, Event, Log, Overflow, Position, ReadView, Stream,
    StreamId, StreamOptions,
};

/// Files by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;
/// An event: its stream and its seq.
pub(crate) type At = (StreamId, u64);

/// End of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Closed,
    Killed,
    /// Killed, and never synced but by rolling.
    Unsynced,
}

/// A log, and what is in it.
pub(crate) struct Sample {
    pub(crate) how: How,
    pub(crate) files: Files,
    /// The payload of each event, what was dropped before it, and its position.
    events: BTreeMap<At, (Vec<u8>, u64, u64)>,
    commits: Vec<Commit>,
    /// Place of the tail record, and the position up to which it says that all was synced.
    tail_record: (u32, Range<usize>, u64),
    /// Number of segments with commits, and the least length of the last one unless it was closed cleanly.
    pub(crate) segments: u32,
    reserved: usize,
}

struct Commit {
    segment: u32,
    bytes: Range<usize>,
    position: u64,
    durable: u64,
    /// Batches of events.
    batches: Vec<Batch>,
}

struct Batch {
    /// Its header, with the end of the batch before it, where its bytes start.
    head: [Range<usize>; 2],
    bytes: Range<usize>,
    stream: StreamId,
    seqs: Range<u64>,
}

/// Cost of a damage.
#[derive(Default, Debug)]
pub(crate) struct Cost {
    lost: BTreeSet<At>,
    /// Commits of which any byte is not what was written.
    damaged: BTreeSet<u64>,
    /// From this position on the log may have been cut: nothing proves that it was acknowledged.
    torn: Option<u64>,
    /// Of what is lost, what a footer or a directory still lists: it has to be told by stream and seq.
    listed: BTreeSet<At>,
    /// Up to here the bytes that are left prove that all was synced.
    proven: u64,
}

/// Required exactness of a repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strictness {
    /// The losses and the report are exactly what the bytes say.
    Exact,
    /// At most what the bytes say is lost and named: a whole commit may be found where it was moved to.
    AtMost,
    /// More may be lost than the bytes say, as long as it is named: records stand where they do not belong.
    Named,
}

pub(crate) fn segment_path(number: u32) -> String {
    format!("segments/{number:010}.seg")
}

fn options() -> amberlog::Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// A disk with these files.
pub(crate) fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    for (path, bytes) in files {
        disk.write_file(path, bytes);
    }
    disk
}

/// The files of a disk, without the one that only names the writer.
pub(crate) fn files_of(disk: &SimDisk) -> Files {
    let mut files = disk.files();
    files.remove("LOCK");
    files
}

impl Sample {
    /// Streams alone and together, one of them named, one a flight recorder that dropped events; `turns`
    /// commits, and one that is larger than two sectors, so that no sector holds an earlier one with it.
    pub(crate) fn new(how: How, turns: u64) -> Self {
        let disk = SimDisk::new(how as u64);
        let log = options().open_on(&disk).expect("opens");
        let durability = if how == How::Unsynced { Durability::Os } else { Durability::Disk };
        let with = CommitOptions::new().durability(durability);
        let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(600);
        let mut streams: Vec<Stream> = (0..5)
            .map(|n| match n {
                0 => log.create_stream_with(&StreamOptions::new().name("named")),
                1 => log.create_stream_with(&recorder),
                _ => log.create_stream(),
            })
            .collect::<Result<_, _>>()
            .expect("streams");
        let mut appended: BTreeMap<At, Vec<u8>> = BTreeMap::new();
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut add = |stream: &mut Stream, bytes: u64| {
            let mut event = Vec::new();
            for _ in 0..bytes {
                random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                event.push((random >> 56) as u8);
            }
            let seq = stream.append(&event).expect("room").get();
            appended.insert((stream.id(), seq), event);
        };
        for turn in 0..turns {
            let at = (turn % 4) as usize;
            let events = if at == 1 { 5 } else { 1 };
            (0..events).for_each(|n| add(&mut streams[at], turn * 37 % 211 + n));
            if turn % 3 == 0 {
                add(&mut streams[(at + 1) % 4], turn % 100);
                log.commit_all_with(&mut streams, with).wait().expect("committed");
            } else {
                streams[at].commit_with(with).wait().expect("committed");
            }
        }
        add(&mut streams[4], 700);
        add(&mut streams[2], 900);
        log.commit_all_with(&mut streams, with).wait().expect("committed");
        let killed = disk.after_kill();
        drop(streams);
        log.close().expect("closes");
        Self::of(how, if how == How::Closed { &disk } else { &killed }, &appended)
    }

    fn of(how: How, disk: &SimDisk, appended: &BTreeMap<At, Vec<u8>>) -> Self {
        let mut sample = Self {
            how,
            files: disk.files(),
            events: BTreeMap::new(),
            commits: Vec::new(),
            tail_record: (0, 0..0, 0),
            segments: 0,
            reserved: 16 << 10,
        };
        for record in RecordDump::open_on(disk).expect("readable") {
            sample.note(&record.expect("readable"));
        }
        // As a writer finds it: all that was written, not only what was acknowledged.
        let log = options().open_on(disk).expect("opens");
        for id in appended.keys().map(|(id, _)| *id).collect::<BTreeSet<_>>() {
            for event in log.read_view().events(id).expect("known") {
                let event = event.expect("whole");
                let at = (id, event.seq().get());
                assert_eq!(event.payload(), appended[&at]);
                let position = event.position().expect("durable").get();
                let kept = (event.payload().to_vec(), event.dropped_before(), position);
                sample.events.insert(at, kept);
            }
        }
        let dropped: u64 = sample.events.values().map(|(_, dropped, _)| dropped).sum();
        assert_eq!(sample.events.len() as u64 + dropped, appended.len() as u64);
        assert!(dropped > 0, "a gap");
        sample
    }

    fn note(&mut self, record: &Record) {
        let (segment, start) = (record.segment, record.offset as usize);
        match record.body {
            RecordBody::Commit { bytes, position, durable, .. } => {
                self.segments = self.segments.max(segment);
                self.commits.push(Commit {
                    segment,
                    bytes: start..start + bytes as usize,
                    position: position.get(),
                    durable: durable.get(),
                    batches: Vec::new(),
                });
            }
            RecordBody::Events { bytes, seq, count, .. } => {
                let range = start..start + bytes as usize;
                let stream = record.stream.expect("of a stream");
                let seqs = seq.get()..seq.get() + u64::from(count);
                let commit = self.commits.last_mut().expect("behind its commit");
                let file = &self.files[&segment_path(segment)];
                let at = commit.bytes.start + 40;
                // Kind 3: events. A stream has one batch of them in a commit.
                let is_own = |header: &&[u8]| header[..16] == *stream.as_bytes() && header[32] == 3;
                let nth = file[at..].chunks(48).position(|header| is_own(&header));
                let header = at + 48 * nth.expect("in the directory");
                // Bytes 28 to 31 of a header: the end of its batch.
                let before = if header == at { header..header } else { header - 20..header - 16 };
                let head = [header..header + 48, before];
                commit.batches.push(Batch { head, bytes: range, stream, seqs });
            }
            RecordBody::TailRecord { durable, .. } => {
                self.tail_record = (segment, start..start + 40, durable.get());
            }
            _ => {}
        }
    }

    /// Returns the place of the last commit.
    pub(crate) fn last_commit(&self) -> (String, Range<usize>) {
        let last = self.commits.last().expect("some");
        (segment_path(last.segment), last.bytes.clone())
    }

    /// Returns the end of the commits of a file: in a sealed file, the start of its footer.
    pub(crate) fn commits_end(&self, path: &str) -> usize {
        let here = self.commits.iter().filter(|one| segment_path(one.segment) == path);
        here.map(|one| one.bytes.end).max().unwrap_or(0)
    }

    /// Returns the cost of these changed files.
    pub(crate) fn cost(&self, damaged: &Files) -> Cost {
        let same = |segment: u32, range: Range<usize>| {
            let path = segment_path(segment);
            let now = damaged.get(&path).and_then(|bytes| bytes.get(range.clone()));
            now.is_some() && now == self.files[&path].get(range)
        };
        let length = |segment| damaged.get(&segment_path(segment)).map_or(0, Vec::len);
        let headed = |segment| {
            length(segment) >= 4096 && (same(segment, 0..80) || same(segment, 2048..2128))
        };
        let proofs = self.commits.iter().filter(|one| {
            headed(one.segment) && same(one.segment, one.bytes.start..one.bytes.start + 40)
        });
        let (at, bytes, synced) = &self.tail_record;
        let witnessed = if headed(*at) && same(*at, bytes.clone()) { *synced } else { 0 };
        let footed = |segment: u32| {
            let file = &self.files[&segment_path(segment)];
            let footer_at = self.commits_end(&segment_path(segment));
            let sealed = file[file.len() - 96..].starts_with(b"AMBERFIN");
            let length = length(segment) == file.len();
            sealed && length && headed(segment) && same(segment, footer_at..file.len())
        };
        // A short file without the tail record of a clean close was cut: there nothing is torn.
        let whole_file = length(self.segments) >= self.reserved || witnessed > 0;
        let durable = proofs.map(|one| one.durable).fold(witnessed, u64::max);
        let mut cost = Cost { proven: durable, ..Cost::default() };
        for commit in &self.commits {
            let (segment, bytes, position) = (commit.segment, &commit.bytes, commit.position);
            let there = headed(segment);
            let whole = there && same(segment, bytes.clone());
            let last = whole_file && segment == self.segments;
            let unproven = there && last && position > durable;
            if unproven && !whole && cost.torn.is_none() {
                cost.torn = Some(position);
            }
            let gone = cost.torn.is_some()
                || !there
                || !same(segment, bytes.start..bytes.start + 40)
                || !same(segment, bytes.end - 8..bytes.end);
            for batch in &commit.batches {
                let [header, before] = batch.head.clone().map(|range| same(segment, range));
                if gone || !header || !before || !same(segment, batch.bytes.clone()) {
                    let lost = batch.seqs.clone().map(|seq| (batch.stream, seq));
                    if cost.torn.is_none() && (!gone && header || footed(segment)) {
                        cost.listed.extend(lost.clone());
                    }
                    cost.lost.extend(lost);
                }
            }
            if !whole && cost.torn.is_none() {
                cost.damaged.insert(position);
            }
        }
        cost
    }

    /// Returns what can be read, from both ends and by position. Nothing may be made up (P6).
    fn read(&self, view: &ReadView) -> BTreeSet<At> {
        let items_max = 4 * self.events.len() + 100;
        let gather = |events: &mut dyn Iterator<Item = Result<Event, Error>>| {
            let (mut seen, mut told) = (BTreeSet::new(), false);
            for (n, event) in events.enumerate() {
                assert!(n < items_max, "P13: reading does not end");
                match event {
                    Ok(event) => drop(seen.insert(self.is_as_written(&event))),
                    Err(error) => {
                        assert!(
                            matches!(error.kind(), ErrorKind::Corrupt { .. }),
                            "F22: {error:?}"
                        );
                        told = true;
                    }
                }
            }
            (seen, told)
        };
        let mut forward = BTreeSet::new();
        for id in self.events.keys().map(|(id, _)| *id).collect::<BTreeSet<_>>() {
            let Ok(events) = view.events(id) else { continue };
            let (seen, _) = gather(&mut { events });
            let (backward, _) = gather(&mut view.events(id).expect("known").rev());
            assert_eq!(seen, backward, "forwards and backwards");
            let name = view.info(id).expect("known").name;
            assert!(name.is_none_or(|name| name == "named"));
            forward.extend(seen);
        }
        let (all, told) = gather(&mut view.all_events(Position::START).expect("from the start"));
        let missed = forward.difference(&all).count();
        assert!(missed == 0 || told, "F22: by position, untold: {missed}");
        forward
    }

    fn is_as_written(&self, event: &Event) -> At {
        let at = (event.stream(), event.seq().get());
        let Some((payload, dropped, _)) = self.events.get(&at) else {
            panic!("P6: an event that never was: {at:?}");
        };
        assert_eq!(payload, event.payload(), "P6: the bytes of {at:?}");
        assert!([0, *dropped].contains(&event.dropped_before()), "P6: the gap before {at:?}");
        at
    }

    /// Everything that is asked of a damaged log, and of its repair.
    pub(crate) fn check(&self, damaged: &Files, strictness: Strictness) {
        let original: Files =
            damaged.clone().into_iter().filter(|(path, _)| path != "LOCK").collect();
        if !self.is_own(damaged) {
            return;
        }
        let cost = self.cost(damaged);
        let disk = disk_of(damaged);
        let before = match checked_on(&disk) {
            Ok(before) => before,
            Err(error) => return assert_eq!(*error.kind(), ErrorKind::NoLog, "{error:?}"),
        };
        let (view, _) = ReadView::open_on(&disk).expect("P13: readable");
        self.read(&view);
        assert!(files_of(&disk) == original, "F24: looking changed the disk");
        let refused = self.try_to_write(&disk_of(damaged), &cost, strictness);

        let report = repair_on(&disk).expect("P13: repaired");
        assert_eq!(report.before, before, "the report tells what a recovery had told");
        assert_eq!(report.after, checked_on(&disk).expect("readable"), "and what one tells now");
        assert_eq!(report.went_on.is_some(), refused, "going on is for what cannot be opened");
        let repaired = files_of(&disk);
        assert!(restored(&repaired, &original) == original, "the original can be put back");
        assert_eq!(report.changed_nothing(), repaired == original, "what was changed is told");
        let again = repair_on(&disk).expect("F24: again");
        assert!(again.changed_nothing() && files_of(&disk) == repaired, "F24: {again:?}");

        let log = options().open_on(&disk).expect("a repaired log opens");
        let seen = self.read(&log.read_view());
        self.judge(&seen, &cost, &report, strictness);
        drop(log);
        self.write(&disk, &seen);
    }

    /// More of the used files are of this log than any files are of others: else it is another log, with some of
    /// this one's files in it. A header speaks for this log only while it is one that was written; what merely
    /// looks like a header is counted for the others.
    fn is_own(&self, damaged: &Files) -> bool {
        fn headers(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
            let copies = [0, 2048].into_iter().filter_map(|at| bytes.get(at..at + 80));
            copies.filter(|header| header.starts_with(b"AMBERSEG"))
        }
        let written: BTreeSet<&[u8]> = self.files.values().flat_map(|file| headers(file)).collect();
        let own_id = &self.files[&segment_path(1)][16..32];
        let used = |bytes: &[u8]| bytes.get(4096..4136).is_some_and(|first| first != [0; 40]);
        let speaks = |bytes: &[u8]| used(bytes) && headers(bytes).any(|it| written.contains(it));
        let foreign = |bytes: &[u8]| headers(bytes).any(|header| header[16..32] != *own_id);
        let own = damaged.values().filter(|bytes| speaks(bytes)).count();
        let others = damaged.values().filter(|bytes| foreign(bytes)).count();
        others == 0 || own > others
    }

    /// Checks that the content and the report are what the bytes say.
    fn judge(
        &self,
        seen: &BTreeSet<At>,
        cost: &Cost,
        report: &RepairReport,
        strictness: Strictness,
    ) {
        let missing: BTreeSet<At> =
            self.events.keys().filter(|at| !seen.contains(at)).copied().collect();
        let named = self.named(&report.after);
        let lost_events = report.after.damages.iter().flat_map(|one| &one.events);
        let told: BTreeSet<At> = lost_events
            .flat_map(|(id, seqs)| (seqs.start.get()..seqs.end.get()).map(|seq| (*id, seq)))
            .collect();
        let torn = |position: u64| match strictness {
            Strictness::Exact => cost.torn.is_some_and(|first| position >= first),
            Strictness::AtMost | Strictness::Named => position > cost.proven,
        };
        for at in &missing {
            let position = self.events[at].2;
            let said = named.contains(&position) || told.contains(at);
            assert!(said || torn(position), "P6: {at:?} of {position} lost in silence: {report:?}");
        }
        if strictness == Strictness::Exact && cost.torn.is_some() {
            assert!(
                report.before.torn_tail.is_some() || !report.before.is_sound(),
                "the honest ambiguity is told: {report:?}"
            );
        }
        if strictness == Strictness::Exact {
            assert_eq!(missing, cost.lost, "exactly what was hit is lost: {report:?}");
            assert_eq!(named, cost.damaged, "exactly what was hit is named: {report:?}");
            assert!(told.is_subset(&missing), "what is named as lost is: {report:?}");
        }
        if strictness == Strictness::AtMost {
            assert!(missing.is_subset(&cost.lost), "only what was hit is lost: {report:?}");
            assert!(named.is_subset(&cost.damaged), "only what was hit is named: {report:?}");
        }
        if strictness == Strictness::Exact {
            assert!(cost.listed.is_subset(&told), "what is listed is named: {report:?}");
        }
    }

    /// The positions of commits that were written and are named as lost or damaged.
    fn named(&self, recovery: &RecoveryReport) -> BTreeSet<u64> {
        let written = self.commits.iter().map(|commit| commit.position);
        let is_named = |position: &u64| {
            let named =
                |one: &amberlog::verify::Damage| one.positions.contains(&Position::from(*position));
            recovery.damages.iter().any(named)
        };
        written.filter(is_named).collect()
    }

    /// P6, quarantine: a damaged log is written as it is, or says by type and place why not. True: it does not.
    fn try_to_write(&self, disk: &SimDisk, cost: &Cost, strictness: Strictness) -> bool {
        match options().open_on(disk) {
            Ok(log) => {
                let seen = self.read(&log.read_view());
                if strictness == Strictness::Exact {
                    let lost = |at: &&At| cost.lost.contains(at);
                    assert!(self.events.keys().filter(|at| !lost(at)).eq(&seen), "exact");
                }
                drop(log);
                self.write(disk, &seen);
                false
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error:?}");
                let segment = error.place().and_then(|place| place.segment);
                assert!(segment.is_some(), "where? {error:?}");
                true
            }
        }
    }

    /// The log goes on: every stream that is known takes another event, and all is there after reopening.
    fn write(&self, disk: &SimDisk, seen: &BTreeSet<At>) {
        let log = options().open_on(disk).expect("opens");
        let known = log.read_view().streams();
        let mut streams: Vec<Stream> = known
            .iter()
            .map(|one| log.open_stream(one.id).expect("known"))
            .chain([log.create_stream().expect("a stream")])
            .collect();
        let mut fresh = BTreeSet::new();
        for stream in &mut streams {
            fresh.insert((stream.id(), stream.append(b"fresh").expect("room").get()));
            stream.commit().wait().expect("committed");
        }
        drop(streams);
        log.close().expect("closes");
        let (view, _) = ReadView::open_on(disk).expect("readable");
        let mut there = BTreeSet::new();
        for id in fresh.iter().map(|(id, _)| *id) {
            for event in view.events(id).expect("known").filter_map(Result::ok) {
                let at = (id, event.seq().get());
                match fresh.contains(&at) {
                    true => assert_eq!(event.payload(), b"fresh"),
                    false => drop(self.is_as_written(&event)),
                }
                there.insert(at);
            }
        }
        assert!(fresh.is_disjoint(seen), "P7: a seq of its own");
        assert!(fresh.is_subset(&there) && seen.is_subset(&there), "still there");
    }

    /// Returns the content of a repaired or half repaired log, for comparison.
    pub(crate) fn content(&self, disk: &SimDisk) -> (BTreeSet<At>, Vec<amberlog::verify::Damage>) {
        let log = options().open_on(disk).expect("opens");
        (self.read(&log.read_view()), log.recovery_report().damages.clone())
    }
}

/// Puts back what a repair quarantined, as `docs/format.md` says: by the names of the files alone.
pub(crate) fn restored(repaired: &Files, original: &Files) -> Files {
    let mut files = repaired.clone();
    let segment_of = |path: &str| path.find(".seg").map(|at| path[..at + 4].to_owned());
    files.retain(|path, _| !path.ends_with(".seg") || original.contains_key(path));
    files.retain(|path, _| !path.ends_with(".new") || original.contains_key(path));
    let added: Vec<String> =
        files.keys().filter(|path| !original.contains_key(*path)).cloned().collect();
    for path in added {
        let bytes = files.remove(&path).expect("there");
        let segment = segment_of(&path).expect("beside a segment");
        let rest: Vec<&str> = path[segment.len()..].split('.').skip(1).collect();
        match rest[..] {
            ["aside", ..] => drop(files.insert(segment, bytes)),
            [offset, "torn", ..] => {
                let at: usize = offset.parse().expect("an offset");
                let file = files.get_mut(&segment).expect("there");
                // The repair cut the file there; behind what was torn stood zeros.
                file.resize(original[&segment].len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            _ => panic!("what is {path}?"),
        }
    }
    files
}
