//! What does a sector cost that the disk cannot read, and a file that another program shortens?
//!
//! P6, P13; F22, F44. On a simulated disk every page of every file is unreadable once, and a mapped read of it is a
//! panic: verifying, repairing, exporting, backing up and opening map nothing, name the place, and have all else.
//! What may be lost is told by where the records of the sound log stand.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use amberlog::maintenance::CompactOptions;
use amberlog::options::{ReadOptions, Reads};
use amberlog::sim::{SimDisk, backup_on, repair_on, verify_quick_on};
use amberlog::verify::{DamageKind, Record, RecordBody, RecordDump, RecoveryReport};
use amberlog::{ErrorKind, Log, Options, Position, ReadView, Stream, StreamId};

const PAGE: u64 = 4096;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// An event: its stream and its seq.
type Place = (StreamId, u64);
/// Content: events and their payloads.
type Content = BTreeMap<Place, Vec<u8>>;

/// Places of the records of a commit in its file.
struct CommitSpot {
    path: String,
    whole: Range<u64>,
    /// Bytes, stream and seqs of each batch of events.
    batches: Vec<(Range<u64>, StreamId, Range<u64>)>,
}

/// A log, and what is known of it.
struct Sample {
    name: &'static str,
    disk: SimDisk,
    content: Content,
    /// That, and what was trimmed: it is there again when the trim cannot be read.
    written: Content,
    records: Vec<CommitSpot>,
}

fn path_of(segment: u32) -> String {
    format!("segments/{segment:010}.seg")
}

/// Streams over several segments, of which some were compacted; commits of one stream and of several.
fn write(name: &'static str) -> Sample {
    let disk = SimDisk::new(7);
    let log = options().open_on(&disk).expect("opens");
    let mut streams: Vec<Stream> = (0..4).map(|_| log.create_stream().expect("a stream")).collect();
    let mut written = Content::new();
    for turn in 0..46_u64 {
        for (nth, stream) in streams.iter_mut().enumerate() {
            for part in 0..=(turn + nth as u64) % 3 {
                let payload = vec![(turn * 4 + part) as u8; 180 + 90 * nth];
                let seq = stream.append(&payload).expect("room");
                written.insert((stream.id(), seq.get()), payload);
            }
            if turn % 4 != 0 {
                stream.commit().wait().expect("committed");
            }
        }
        log.commit_all(&mut streams).wait().expect("committed");
        if turn == 20 {
            let end = streams[3].head().get() - 2;
            streams[3].trim(end).expect("staged");
            streams[3].commit().wait().expect("trimmed");
            let report = log.compact(CompactOptions::new().dead_percent_min(1)).expect("compacted");
            assert!(!report.runs.is_empty() && report.refused.is_empty(), "{report:?}");
        }
    }
    let disk = match name {
        "killed" => disk.after_kill(),
        _ => {
            drop(streams);
            log.close().expect("closes");
            disk
        }
    };
    let content = read(&ReadView::open_on(&disk).expect("opens").0, |error| panic!("{error}"));
    let records = records(&disk);
    Sample { name, disk, content, written, records }
}

fn records(disk: &SimDisk) -> Vec<CommitSpot> {
    let mut records: Vec<CommitSpot> = Vec::new();
    for record in RecordDump::open_on(disk).expect("a log") {
        let Record { segment, offset, stream, body, .. } = record.expect("sound");
        match body {
            RecordBody::Commit { bytes, .. } => {
                let (path, whole) = (path_of(segment), offset..offset + bytes);
                records.push(CommitSpot { path, whole, batches: Vec::new() });
            }
            RecordBody::Events { bytes, seq, count, .. } => {
                let stream = stream.expect("of a stream");
                let seqs = seq.get()..seq.get() + u64::from(count);
                let batches = &mut records.last_mut().expect("in a commit").batches;
                batches.push((offset..offset + bytes, stream, seqs));
            }
            _ => {}
        }
    }
    records
}

/// Everything that can be read, by stream in both directions and by position, which has to be the same.
fn read(read_view: &ReadView, mut lost: impl FnMut(&amberlog::Error)) -> Content {
    let mut content = Content::new();
    let mut errors = 0;
    for info in read_view.streams() {
        let events = || read_view.events(info.id).expect("known");
        for event in events() {
            match event {
                Ok(event) => {
                    let place = (event.stream(), event.seq().get());
                    assert!(content.insert(place, event.payload().to_vec()).is_none(), "once");
                }
                Err(error) => {
                    errors += 1;
                    lost(&error);
                }
            }
        }
        let back: BTreeSet<u64> = events().rev().flatten().map(|event| event.seq().get()).collect();
        let there = content.range((info.id, 0)..=(info.id, u64::MAX)).map(|(place, _)| place.1);
        assert!(there.eq(back), "forwards and backwards");
    }
    let all = read_view.all_events(Position::START).expect("from the start");
    let mut by_position = 0;
    for event in all.flatten() {
        let place = (event.stream(), event.seq().get());
        by_position += usize::from(content.get(&place).is_some_and(|is| is == event.payload()));
    }
    assert!(by_position == content.len() || errors > 0, "by position");
    content
}

impl Sample {
    /// Every page of every file.
    fn pages(&self) -> Vec<(String, u64)> {
        let files = self.disk.files().into_iter().filter(|(path, _)| path.ends_with(".seg"));
        files
            .flat_map(|(path, bytes)| {
                let pages = 0..(bytes.len() as u64).div_ceil(PAGE);
                pages.map(move |page| (path.clone(), page * PAGE))
            })
            .collect()
    }

    /// Events that may be lost with these bytes of a file: those in it, and those of commits whose head, directory or end
    /// is in it.
    fn at_stake(&self, path: &str, bad: &Range<u64>) -> BTreeSet<Place> {
        let meets = |range: &Range<u64>| range.start < bad.end && range.end > bad.start;
        let mut lost = BTreeSet::new();
        for record in self.records.iter().filter(|one| one.path == path && meets(&one.whole)) {
            let hit: u64 = bad.end.min(record.whole.end) - bad.start.max(record.whole.start);
            let inside = |range: &Range<u64>| {
                bad.end.min(range.end).saturating_sub(bad.start.max(range.start))
            };
            let in_batches: u64 = record.batches.iter().map(|(range, ..)| inside(range)).sum();
            for (range, stream, seqs) in &record.batches {
                if hit > in_batches || meets(range) {
                    lost.extend(seqs.clone().map(|seq| (*stream, seq)));
                }
            }
        }
        lost
    }

    fn check(&self, found: &Content, at_stake: &BTreeSet<Place>) {
        for (place, payload) in found {
            assert!(self.written.get(place) == Some(payload), "the bytes of {place:?}");
        }
        let missing = self.content.keys().filter(|place| !found.contains_key(place));
        let missing: Vec<_> = missing.filter(|place| !at_stake.contains(place)).collect();
        assert!(missing.is_empty(), "lost, and could be read: {missing:?}");
    }

    /// Returns whether the file at this path is sealed, before any damage.
    fn is_sealed(&self, path: &str) -> bool {
        let sound = verify_quick_on(&self.disk.copy()).expect("a log");
        let report = sound.segments.iter().find(|one| path_of(one.number) == path);
        report.is_some_and(|one| one.state == amberlog::verify::SegmentState::Sealed)
    }

    /// Everything that is asked of the log while one page cannot be read.
    fn examine(&self, path: &str, page: u64) {
        let bad = page..page + PAGE;
        let disk = self.disk.copy();
        disk.set_unreadable(path, page + 700..page + 701);
        let mut at_stake = self.at_stake(path, &bad);
        if page == 0 && !self.is_sealed(path) {
            // Nothing else tells the salt of its commits.
            at_stake.extend(self.at_stake(path, &(0..u64::MAX)));
        }
        let maps = disk.maps();
        let recovery = verify_quick_on(&disk).expect("looked at");
        self.check_named(&recovery, path, page, &at_stake);
        self.check_readers(&disk, &recovery, &at_stake);
        backup_on(&disk, "backup").expect("backed up");
        let (copy, _) = positional().open_on(&disk.dir("backup")).expect("opens");
        self.check(&read(&copy, is_damage), &at_stake);
        assert_eq!(disk.maps(), maps, "nothing was mapped");
        self.check_writers(&disk, &at_stake);
    }

    /// The place is named, and what it costs.
    fn check_named(
        &self,
        recovery: &RecoveryReport,
        path: &str,
        page: u64,
        at_stake: &BTreeSet<Place>,
    ) {
        let named = |place: &amberlog::Place| place.path.to_str() == Some(path);
        let places = recovery.unreadable.iter().filter(|one| named(&one.place));
        let is_named = places.clone().any(|one| one.place.offset == Some(page) && one.bytes > 0);
        assert!(is_named, "{:?}", recovery.unreadable);
        assert_eq!(places.count(), recovery.unreadable.len(), "{:?}", recovery.unreadable);
        assert!(at_stake.is_empty() || !recovery.is_sound(), "{:?}", recovery.damages);
        let told: BTreeSet<Place> = recovery
            .damages
            .iter()
            .flat_map(|damage| &damage.events)
            .flat_map(|(stream, seqs)| (seqs.start.get()..seqs.end.get()).map(|seq| (*stream, seq)))
            .collect();
        let more = told.iter().filter(|place| self.content.contains_key(place));
        let more: Vec<_> = more.filter(|place| !at_stake.contains(place)).collect();
        assert!(more.is_empty(), "said to be lost: {more:?}");
    }

    fn check_readers(&self, disk: &SimDisk, recovery: &RecoveryReport, at_stake: &BTreeSet<Place>) {
        let (read_view, _) = positional().open_on(disk).expect("opens");
        let mut why = 0;
        let found = read(&read_view, |error| {
            is_damage(error);
            why += usize::from(error.to_string().contains("cannot read bytes"));
        });
        self.check(&found, at_stake);
        let lost = self.content.keys().filter(|place| !found.contains_key(place)).count();
        assert!(lost == 0 || why > 0 || !recovery.is_sound(), "why {lost} events are lost");
        for item in RecordDump::open_on(disk).expect("a log") {
            item.expect("what cannot be read is an item too");
        }
        #[cfg(feature = "json")]
        {
            let how = amberlog::jsonl::ExportOptions::new().skip_damaged(recovery);
            let exported = read_view.export_jsonl_with(&how, std::io::sink()).expect("exported");
            assert_eq!(exported.events, found.len() as u64);
        }
    }

    /// Checks that opening for writing and repairing both keep everything readable.
    fn check_writers(&self, disk: &SimDisk, at_stake: &BTreeSet<Place>) {
        let refused = match options().reads(Reads::Positional).open_on(&disk.copy()) {
            Ok(log) => {
                self.go_on(log, at_stake);
                false
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
                assert!(error.to_string().contains("repair"), "what to do: {error}");
                true
            }
        };
        let repaired = disk.copy();
        let report = repair_on(&repaired).expect("repaired");
        assert!(!refused || !report.changed_nothing(), "{report:?}");
        let (read_view, _) = positional().open_on(&repaired).expect("opens");
        self.check(&read(&read_view, is_damage), at_stake);
        let log = options().reads(Reads::Positional).open_on(&repaired).expect("goes on");
        self.go_on(log, at_stake);
        let again = repair_on(&repaired).expect("once more");
        assert!(again.changed_nothing(), "{again:?}");
    }

    fn go_on(&self, log: Log, at_stake: &BTreeSet<Place>) {
        let before = read(&log.read_view(), is_damage);
        self.check(&before, at_stake);
        let mut new = log.create_stream().expect("a stream");
        new.append("new").expect("room");
        new.commit().wait().expect("committed");
        let after = read(&log.read_view(), is_damage);
        assert_eq!(after.len(), before.len() + 1);
        drop(new);
        log.close().expect("closes");
    }
}

fn positional() -> ReadOptions {
    ReadOptions::new().reads(Reads::Positional).open_segments_max(4)
}

fn is_damage(error: &amberlog::Error) {
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "F22: {error:?}");
}

#[test]
fn p6_f44_a_page_that_cannot_be_read_costs_what_is_in_it() {
    for sample in [write("closed"), write("killed")] {
        let pages = sample.pages();
        assert!(pages.len() > 20, "{}", pages.len());
        for (path, page) in pages {
            let examined = catch_unwind(AssertUnwindSafe(|| sample.examine(&path, page)));
            assert!(examined.is_ok(), "{} log, {path}, page at {page}", sample.name);
        }
    }
}

/// Of several pages at once: all of a file, and the first one of every file.
#[test]
fn p6_p13_f44_files_that_cannot_be_read_at_all_stop_nobody() {
    let sample = write("closed");
    let files: Vec<String> = sample.pages().into_iter().map(|(path, _)| path).collect();
    let files: BTreeSet<String> = files.into_iter().collect();
    for path in &files {
        let disk = sample.disk.copy();
        disk.set_unreadable(path, 0..1 << 20);
        let recovery = verify_quick_on(&disk).expect("looked at");
        assert!(!recovery.is_sound() && !recovery.unreadable.is_empty());
        let (read_view, _) = positional().open_on(&disk).expect("opens");
        let at_stake = sample.at_stake(path, &(0..u64::MAX));
        sample.check(&read(&read_view, is_damage), &at_stake);
    }
    let disk = sample.disk.copy();
    files.iter().for_each(|path| disk.set_unreadable(path, 0..1));
    let recovery = verify_quick_on(&disk).expect("looked at");
    assert_eq!(recovery.unreadable.len(), files.len());
    let copies = |one: &&amberlog::verify::Damage| one.kind == DamageKind::HeaderCopy;
    assert!(recovery.damages.iter().filter(copies).count() > 4, "{:?}", recovery.damages);
}

/// A view that maps what it reads, because nothing was wrong when it was opened, is exported all the same.
#[cfg(feature = "json")]
#[test]
fn p6_f44_an_export_of_a_mapped_view_reads_through_no_mapping() {
    let sample = write("closed");
    let how = amberlog::jsonl::ExportOptions::new().skip_damaged(&RecoveryReport::default());
    for (path, page) in sample.pages() {
        let disk = sample.disk.copy();
        let (view, _) = ReadOptions::new().open_on(&disk).expect("opens");
        disk.set_unreadable(&path, page..page + 1);
        let maps = disk.maps();
        let exported = view.export_jsonl_with(&how, std::io::sink()).expect("exported");
        assert_eq!(disk.maps(), maps, "{path}, page at {page}");
        let lost: u64 =
            exported.lost.iter().map(|one| one.seqs.end.get() - one.seqs.start.get()).sum();
        assert_eq!(exported.events + lost, sample.content.len() as u64, "{path}, page at {page}");
    }
}

/// The control: a mapped read of such a page is noticed, also of the index of a segment, and nothing else is.
#[test]
fn control_f44_a_mapped_read_of_what_cannot_be_read_is_noticed() {
    let sample = write("closed");
    let mut noticed = 0;
    for (path, page) in sample.pages().into_iter().filter(|(_, page)| *page > 0) {
        let disk = sample.disk.copy();
        let (read_view, _) = ReadView::open_on(&disk).expect("opens");
        disk.set_unreadable(&path, page..page + 1);
        let at_stake = sample.at_stake(&path, &(page..page + PAGE));
        let read = catch_unwind(AssertUnwindSafe(|| read(&read_view, is_damage)));
        noticed += usize::from(read.is_err());
        let is_mapped = sample.is_sealed(&path);
        assert!(read.is_err() || at_stake.is_empty() || !is_mapped, "{path}, page at {page}");
    }
    assert!(noticed > 10, "{noticed}");
}

/// Something that looks at a log.
type Work = fn(&SimDisk);

/// A file becomes shorter at every call of a verification: an error with a type, or a report, and the next one tells it.
#[test]
fn p6_p13_f44_a_file_that_shrinks_under_a_reader_is_damage() {
    let sample = write("closed");
    let work: [(&str, Work); 5] = [
        ("recovery", |disk| drop(verify_quick_on(disk).map_err(typed))),
        ("repair", |disk| drop(repair_on(disk).map_err(typed))),
        ("backup", |disk| drop(backup_on(disk, "backup").map_err(typed))),
        ("read", |disk| {
            if let Ok((read_view, _)) = positional().open_on(disk).map_err(typed) {
                let events = read_view.streams().into_iter().map(|info| read_view.events(info.id));
                events.flatten().flatten().for_each(|event| drop(event.map_err(typed)));
            }
        }),
        ("inspect", |disk| {
            let items = RecordDump::open_on(disk).expect("a log");
            items.for_each(|item| drop(item.map_err(typed)));
        }),
    ];
    let mut told = 0;
    for (path, bytes) in sample.disk.files().into_iter().filter(|(path, _)| path.ends_with(".seg"))
    {
        for (what, work) in work {
            let calls = {
                let disk = sample.disk.copy();
                let from = disk.calls();
                work(&disk);
                disk.calls() - from
            };
            for call in (0..calls).step_by(7) {
                for length in [0, 4096, bytes.len() as u64 / 2, bytes.len() as u64 - 10] {
                    let disk = sample.disk.copy();
                    disk.shrink_at(disk.calls() + call, &path, length);
                    let done = catch_unwind(AssertUnwindSafe(|| work(&disk)));
                    assert!(done.is_ok(), "{what}: {path} cut to {length} at call {call}");
                    let after = verify_quick_on(&disk.copy()).expect("looked at");
                    told += usize::from(!after.is_sound());
                }
            }
        }
    }
    assert!(told > 100, "{told}");
}

fn typed(error: amberlog::Error) -> amberlog::Error {
    let kinds = matches!(
        error.kind(),
        ErrorKind::Corrupt { .. } | ErrorKind::Io | ErrorKind::Outdated | ErrorKind::NoLog
    );
    assert!(kinds, "{error:?}");
    error
}
