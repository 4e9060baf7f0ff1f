//! Does a reader find the commit of every position, whatever the position index says and whatever is damaged?
//!
//! P6, P13. The index has a place for each block of 64 KiB: the segments here are longer.

use std::path::Path;

use crate::support::verified::checked;
use crate::support::{Rng, env_or, read_dir, segment, write_dir};
use amberlog::maintenance::CompactOptions;
use amberlog::verify::DamageKind;
use amberlog::{CommitOptions, Durability, Log, Options, Position, ReadView, Stream};
use tempfile::TempDir;

const TRAILER_BYTES: usize = 96;
const PLACE_BYTES: usize = 12;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn options() -> Options {
    Log::options().segment_bytes_first(384 << 10).segment_bytes_max(384 << 10)
}

fn os() -> CommitOptions {
    CommitOptions::new().durability(Durability::Os)
}

/// Appends commits of every size, of one stream or of several, until the log has grown by this much.
fn fill(log: &Log, streams: &mut [Stream], kib: usize) {
    let mut rng = Rng::new(7);
    let mut left = kib << 10;
    while left > 0 {
        let bytes = match rng.below(8) {
            0 => 1 + rng.below(40_000),
            1 => 1 + rng.below(5_000),
            _ => 1 + rng.below(600),
        } as usize;
        let at = rng.below(streams.len() as u64) as usize;
        streams[at].append(vec![bytes as u8; bytes]).expect("room");
        if rng.one_in(5) {
            let other = (at + 1) % streams.len();
            streams[other].append(b"another").expect("room");
            log.commit_all_with(streams.iter_mut(), os()).wait().expect("committed");
        } else {
            streams[at].commit_with(os()).wait().expect("committed");
        }
        left = left.saturating_sub(bytes + 200);
    }
}

/// A log whose first two segments are sealed, and the third is long.
fn write(path: &Path) {
    let log = options().open(path).expect("opens");
    let mut streams: Vec<_> = (0..4).map(|_| log.create_stream().expect("a stream")).collect();
    fill(&log, &mut streams, 1_000);
    drop(streams);
    log.close().expect("closes");
    let found = checked(path).expect("readable");
    assert!(found.is_sound() && found.segments.len() >= 3, "{found:?}");
}

/// What a reader returns: an event by position, stream, seq and bytes, or an error.
type Item = Result<(u64, String, u64, Vec<u8>), String>;

fn read(view: &ReadView, from: u64) -> Vec<Item> {
    let all = view.all_events(from).expect("in range");
    let item = |event: amberlog::Result<amberlog::Event>| match event {
        Ok(event) => Ok((
            event.position().map_or(0, Position::get),
            event.stream().to_string(),
            event.seq().get(),
            event.payload().to_vec(),
        )),
        Err(error) => Err(error.to_string()),
    };
    all.map(item).collect()
}

/// The items of a reader from each of these positions.
fn read_from(dir: &Path, starts: &[u64]) -> Vec<Vec<Item>> {
    let (view, _) = ReadView::open_unconfirmed(dir).expect("readable");
    starts.iter().map(|from| read(&view, *from)).collect()
}

/// A place of a commit in a footer: its position, and where it starts, divided by 8.
type Listed = (u64, u32);

/// Edits the places in the footer of a sealed segment, and makes its checksum right again.
fn forge(path: &Path, edit: impl FnOnce(&mut Vec<Listed>)) {
    let mut bytes = std::fs::read(path).expect("readable");
    let word =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
    let long =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
    let trailer = bytes.split_off(bytes.len() - TRAILER_BYTES);
    assert_eq!(trailer[..8], *b"AMBERFIN");
    let footer_at = long(&trailer, 48) as usize;
    let salt = word(&trailer, 88);
    let count = word(&bytes, footer_at + 12) as usize;
    let listed = bytes.split_off(bytes.len() - count * PLACE_BYTES);
    let places = listed.chunks_exact(PLACE_BYTES).map(|place| (long(place, 0), word(place, 8)));
    let mut places: Vec<Listed> = places.collect();
    edit(&mut places);
    bytes[footer_at + 12..footer_at + 16].copy_from_slice(&(places.len() as u32).to_le_bytes());
    for (position, place) in places {
        bytes.extend(position.to_le_bytes());
        bytes.extend(place.to_le_bytes());
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&bytes[footer_at..footer_at + 24]);
    hasher.update(&bytes[footer_at + 28..]);
    bytes[footer_at + 24..footer_at + 28].copy_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend(trailer);
    std::fs::write(path, bytes).expect("written");
}

fn places(path: &Path) -> Vec<Listed> {
    let mut found = Vec::new();
    forge(path, |places| found.clone_from(places));
    found
}

type Forgery = fn(&mut Vec<Listed>);

/// Ways to forge a position index.
const FORGERIES: &[(&str, Forgery)] = &[
    ("one less", |places| places.iter_mut().for_each(|place| place.0 -= 1)),
    ("one more", |places| places.iter_mut().for_each(|place| place.0 += 1)),
    ("all the same", |places| {
        let second = places[1];
        places.fill(second);
    }),
    ("backwards", |places| places.reverse()),
    ("too near", |places| places.iter_mut().for_each(|place| place.1 -= 1)),
    ("beyond the end", |places| places.iter_mut().for_each(|place| place.1 = u32::MAX)),
    ("in the header", |places| places.iter_mut().for_each(|place| place.1 = 0)),
    ("zeros", |places| places.fill((0, 0))),
    ("none", Vec::clear),
    ("twice", |places| places.extend(places.clone())),
    ("the next one's places", |places| {
        let next: Vec<u32> = places.iter().skip(1).map(|place| place.1).collect();
        places.iter_mut().zip(next).for_each(|(place, next)| place.1 = next);
    }),
    ("the next one's positions", |places| {
        let next: Vec<u64> = places.iter().skip(1).map(|place| place.0).collect();
        places.iter_mut().zip(next).for_each(|(place, next)| place.0 = next);
    }),
    ("the last one moved", |places| {
        let last = places.len() - 1;
        places[last].1 -= 8;
    }),
    ("one missing", |places| {
        places.remove(1);
    }),
];

fn starts(dir: &Path) -> Vec<u64> {
    let (view, _) = ReadView::open_unconfirmed(dir).expect("readable");
    let last = view.position().get();
    let near = |at: u64| [at.saturating_sub(1), at, at + 1];
    let indexed = places(&segment(dir, 1)).into_iter().flat_map(|(position, _)| near(position));
    let mut starts: Vec<u64> =
        (1..last).step_by(17).chain(indexed).chain([last, last + 1]).filter(|at| *at > 0).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn a_forged_position_index_misleads_no_reader() {
    let whole = dir();
    write(whole.path());
    let starts = starts(whole.path());
    assert!(places(&segment(whole.path(), 1)).len() >= 5, "several blocks");
    let expected = read_from(whole.path(), &starts);
    let all = &read_from(whole.path(), &[1])[0];
    for (from, items) in starts.iter().zip(&expected) {
        let first = all.partition_point(|item| item.as_ref().expect("sound").0 < *from);
        assert_eq!(*items, all[first..], "from {from}");
    }
    for (what, edit) in FORGERIES {
        let forged = dir();
        write_dir(forged.path(), &read_dir(whole.path()));
        forge(&segment(forged.path(), 1), edit);
        for (from, items) in starts.iter().zip(read_from(forged.path(), &starts)) {
            let first = all.partition_point(|item| item.as_ref().expect("sound").0 < *from);
            assert!(items == all[first..], "{what}: from {from}");
        }
        let found = checked(forged.path()).expect("readable");
        let kinds: Vec<_> = found.damages.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, [DamageKind::Footer], "{what}: a verification tells: {found:?}");
        assert!(Log::open(forged.path()).is_ok(), "{what}: the log goes on");
    }
}

/// Readers compare each place with the commit that stands there; a full verification compares all places.
#[test]
fn p6_p13_a_forged_position_index_misleads_no_reader() {
    a_forged_position_index_misleads_no_reader();
}

/// F40: a reader that believes the index is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_reader_that_believes_the_position_index_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::TrustPlaces);
    std::panic::catch_unwind(a_forged_position_index_misleads_no_reader)
        .expect_err("the control noticed nothing");
}

/// Damages the commits of a segment, as a disk does.
fn damage(bytes: &mut [u8], commits_end: usize, rng: &mut Rng) {
    let at = 4096 + rng.below(commits_end as u64 - 4096) as usize;
    let (sector, block) = (at & !511, at & !0xFFFF);
    match rng.below(4) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[sector..(sector + 512).min(commits_end)].fill(0),
        2 => bytes[sector..(sector + 4096).min(commits_end)].fill(rng.below(256) as u8),
        // A whole block, with the commit that the index names.
        _ => bytes[block.max(4096)..(block + 0x1_0000).min(commits_end)].fill(0xA5),
    }
}

/// Reads the log, or the archive file, from every start, with other bytes in place of the segment, and edited.
type ReadOther<'a> = dyn Fn(&[u8], &dyn Fn(&Path)) -> Vec<Vec<Item>> + 'a;

/// What a damaged segment gives readers.
struct Damaged<'a> {
    /// The segment, whole.
    file: Vec<u8>,
    starts: Vec<u64>,
    read: &'a ReadOther<'a>,
}

impl Damaged<'_> {
    fn examine(&self, seed: u64) {
        let at = self.file.len() - TRAILER_BYTES + 48;
        let footer_at = u64::from_le_bytes(self.file[at..at + 8].try_into().expect("8")) as usize;
        let sound = (self.read)(&self.file, &|_| {}).remove(0);
        let mut rng = Rng::new(seed);
        let mut bytes = self.file.clone();
        (0..=rng.below(3)).for_each(|_| damage(&mut bytes, footer_at, &mut rng));
        let indexed = (self.read)(&bytes, &|_| {});
        let walked = (self.read)(&bytes, &|path| forge(path, Vec::clear));
        assert!(indexed == walked, "seed {seed}: with the index and without");
        judge(&indexed, &self.starts, &sound, seed);
        // The segment is replayed if its trailer is lost.
        let end = bytes.len() - TRAILER_BYTES;
        bytes[end..].fill(0);
        judge(&(self.read)(&bytes, &|_| {}), &self.starts, &sound, seed);
    }
}

/// From a position on, a reader returns the same events and errors whether the index leads it there or it walks from the
/// start of the segment; in a sealed segment as in one that was replayed. They are what a reader from the first position
/// returns, except errors that concern earlier positions only.
#[test]
fn p6_p13_every_start_gives_the_same_events_and_names_the_same_damage() {
    let whole = dir();
    write(whole.path());
    let files = read_dir(whole.path());
    let starts = starts(whole.path());
    let in_log = |bytes: &[u8], edit: &dyn Fn(&Path)| {
        let dir = dir();
        write_dir(dir.path(), &files);
        std::fs::write(segment(dir.path(), 1), bytes).expect("written");
        edit(&segment(dir.path(), 1));
        read_from(dir.path(), &starts)
    };
    let file = std::fs::read(segment(whole.path(), 1)).expect("readable");
    let of_log = Damaged { file, starts: starts.clone(), read: &in_log };
    let log = Log::open(whole.path()).expect("opens");
    let stream = log.read_view().streams()[0].id;
    let path = whole.path().join(log.write_archive(stream).expect("written").path);
    let alone = |bytes: &[u8], edit: &dyn Fn(&Path)| {
        std::fs::write(&path, bytes).expect("written");
        edit(&path);
        let (view, _) = ReadView::open_unconfirmed(&path).expect("readable");
        let last = view.position().get();
        starts.iter().map(|from| read(&view, (*from).min(last + 1))).collect()
    };
    let file = std::fs::read(&path).expect("readable");
    let of_archive = Damaged { file, starts: starts.clone(), read: &alone };
    for seed in 0..20 * env_or("AMBERLOG_EFFORT", 1) {
        of_log.examine(seed);
        of_archive.examine(seed);
    }
}

/// Compares what readers return from each start with what one returns from the first position.
fn judge(read: &[Vec<Item>], starts: &[u64], sound: &[Item], seed: u64) {
    assert_eq!(starts[0], 1);
    let all = &read[0];
    let position = |item: &Item| item.as_ref().ok().map(|event| event.0);
    for (from, items) in starts.iter().zip(read) {
        let what = format!("seed {seed}, from {from}");
        let first = all.iter().position(|item| position(item) >= Some(*from)).unwrap_or(all.len());
        let before = all[..first].iter().rposition(|item| item.is_ok()).map_or(0, |at| at + 1);
        let skipped = all.len().checked_sub(items.len()).expect("no more than from the start");
        assert!(*items == all[skipped..], "{what}: other items");
        assert!((before..=first).contains(&skipped), "{what}: other errors are left out");
        let is_lost = |item: &Item| position(item) == Some(*from) && !all.contains(item);
        // A commit may hold several streams, of which some are whole.
        let mut here = items.iter().take_while(|item| position(item).is_none_or(|at| at == *from));
        let is_told = here.any(Result::is_err);
        assert!(is_told || !sound.iter().any(is_lost), "{what}: lost and not told");
    }
}

/// Positions are missing in a sparse segment and in an archive file. Both have an index, and readers start at every
/// position, those that are missing included.
#[test]
fn p9_p12_every_position_is_found_in_sparse_segments_and_archive_files() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut streams: Vec<_> = (0..5).map(|_| log.create_stream().expect("a stream")).collect();
    fill(&log, &mut streams, 900);
    for gone in streams.drain(..2) {
        let mut gone = gone;
        gone.delete().wait().expect("deleted");
    }
    log.compact(CompactOptions::new().purge()).expect("compacted");
    let archive = log.write_archive(streams[0].id()).expect("written");
    drop(streams);
    let open = log.read_view();
    let sparse = read_dir(dir.path()).into_iter().filter(|(_, bytes)| bytes.get(11) == Some(&1));
    let mut listed = sparse.map(|(path, _)| places(&dir.path().join(path)).len());
    assert!(listed.any(|places| places >= 3), "a sparse segment of several blocks");
    let alone = dir.path().join(&archive.path);
    assert!(places(&alone).len() >= 3, "an archive file of several blocks");
    assert!(checked(&alone).expect("readable").is_sound());
    assert!(checked(dir.path()).expect("readable").is_sound());
    let views = [dir.path(), &alone].map(|path| ReadView::open_unconfirmed(path).expect("opens").0);
    for view in views.iter().chain([&open]) {
        let all = read(view, 1);
        for from in (1..=view.position().get() + 1).step_by(3) {
            let first = all.partition_point(|item| item.as_ref().expect("sound").0 < from);
            assert!(read(view, from) == all[first..], "from {from}");
        }
    }
    let (all, forged) = (read(&views[1], 1), alone.with_extension("forged"));
    for (what, edit) in FORGERIES {
        std::fs::copy(&alone, &forged).expect("copied");
        forge(&forged, edit);
        let (view, _) = ReadView::open(&forged).expect("opens");
        for from in (1..=view.position().get() + 1).step_by(5) {
            let first = all.partition_point(|item| item.as_ref().expect("sound").0 < from);
            assert!(read(&view, from) == all[first..], "{what}: from {from}");
        }
        let found = checked(&forged).expect("readable");
        let kinds: Vec<_> = found.damages.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, [DamageKind::Footer], "{what}: a verification tells: {found:?}");
    }
}

/// A reader goes on in newer views, across rolls and compactions, and inside a commit of several streams.
#[test]
fn p7_p12_a_reader_goes_on_in_a_newer_view() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut streams: Vec<_> = (0..4).map(|_| log.create_stream().expect("a stream")).collect();
    let mut reader = log.read_view().all_events(1).expect("in range");
    let mut seen = Vec::new();
    let take = |event: amberlog::Result<amberlog::Event>| {
        let event = event.expect("sound");
        (event.position().map_or(0, Position::get), event.stream(), event.seq().get())
    };
    for round in 0..30_usize {
        fill(&log, &mut streams, 5 + 80 * (round % 3));
        if round % 7 == 3 {
            let mut gone = log.create_stream().expect("a stream");
            gone.append(vec![1; 90_000]).expect("room");
            gone.commit().wait().expect("committed");
            gone.delete().wait().expect("deleted");
            log.compact(CompactOptions::new().purge()).expect("compacted");
        }
        reader.continue_in(&log.read_view());
        match round % 4 {
            // Leaves the reader somewhere, inside a commit or between two.
            0 => seen.extend(reader.by_ref().take(3).map(take)),
            // A view with nothing new.
            1 => {
                seen.extend(reader.by_ref().map(take));
                let view = log.read_view();
                reader.continue_in(&view);
                assert!(reader.next().is_none());
            }
            _ => seen.extend(reader.by_ref().map(take)),
        }
    }
    reader.continue_in(&log.read_view());
    seen.extend(reader.by_ref().map(take));
    let mut all: Vec<_> = log.read_view().all_events(1).expect("in range").map(take).collect();
    let deleted =
        |event: &(u64, amberlog::StreamId, u64)| streams.iter().any(|one| one.id() == event.1);
    seen.retain(deleted);
    all.retain(deleted);
    assert!(seen == all, "{} events, of {}", seen.len(), all.len());
    assert!(reader.next().is_none());
}
