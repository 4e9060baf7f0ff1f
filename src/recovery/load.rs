//! From files to a catalog: discover the segments, account for each, fold them in order.
//!
//! It reads and never writes. Sealed segments are taken by their footers; the active one, and one that a
//! crash left without a footer, are replayed. Whatever is damaged is reported and stepped around.

use std::ops::Range;
use std::sync::Arc;

use super::report::{Damage, DamageKind, SegmentReport, SegmentState, Survey, TornTail};
use super::scan::Found;
use super::walk::{End, Expectation, Wound, walk};
use crate::catalog::{Catalog, LogPlace, Watermark};
use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    BatchKind, COMMITS_AT, HeaderError, SegmentHeader, VERSION, decode_header, header, witness,
};
use crate::index::BatchRef;
use crate::segment::{DIR, Sealed, Segment, parse_name, path, place};
use crate::types::{Position, Seq, StreamId};

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// As opening does: headers, footers, and what is not sealed.
    Quick,
    /// Every byte of every segment.
    Full,
}

/// How to open the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A log, read.
pub(crate) struct Loaded {
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) catalog: Catalog,
    pub(crate) survey: Survey,
    /// The segment that commits would go to, and how it ended.
    pub(crate) last: Option<(Arc<Segment>, End)>,
    /// Full segments without a footer: segment, where the commits end, the last position.
    pub(crate) unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// Files of zeros behind the last segment.
    pub(crate) spares: Vec<(u32, Arc<dyn DiskFile>, u64)>,
    /// Files behind the last usable segment that hold something: the log cannot go on behind them.
    pub(crate) in_the_way: Vec<u32>,
}

/// A file that may be a segment.
struct Candidate {
    number: u32,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    header: Result<SegmentHeader, DamageKind>,
}

/// Reads a log. `None`: there is none.
pub(crate) fn load(disk: &dyn Disk, access: Access, depth: Depth) -> Result<Option<Loaded>> {
    let mut loader = Loader {
        depth,
        catalog: Catalog::new(),
        survey: Survey::default(),
        next: 1,
        acked: 0,
        durable: 0,
        last: None,
        unsealed: Vec::new(),
    };
    let names = match disk.list(DIR) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("list", dir_place(), error)),
    };
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| parse_name(name.to_str()?))
        .collect();
    numbers.sort_unstable();
    let mut candidates = Vec::with_capacity(numbers.len());
    for number in numbers {
        if let Some(candidate) = loader.discover(disk, access, number)? {
            candidates.push(candidate);
        }
    }
    // A header names the log; the first one that can be read is believed.
    let log_id = candidates
        .iter()
        .find_map(|one| one.header.as_ref().ok())
        .map(|one| one.log_id);
    let usable = candidates.iter().rposition(|one| {
        one.header
            .as_ref()
            .is_ok_and(|header| Some(header.log_id) == log_id && header.number == one.number)
    });
    let behind = candidates.split_off(usable.map_or(0, |at| at + 1));
    loader.fold_all(&candidates, log_id)?;
    let (spares, in_the_way) = loader.sort_out(behind)?;
    Ok(Some(loader.finish(log_id, spares, in_the_way)))
}

fn dir_place() -> Place {
    Place {
        path: DIR.into(),
        segment: None,
        offset: None,
    }
}

struct Loader {
    depth: Depth,
    catalog: Catalog,
    survey: Survey,
    /// The position that the next commit should have.
    next: u64,
    acked: u64,
    durable: u64,
    last: Option<(Arc<Segment>, End)>,
    unsealed: Vec<(Arc<Segment>, u64, u64)>,
}

impl Loader {
    fn discover(
        &mut self,
        disk: &dyn Disk,
        access: Access,
        number: u32,
    ) -> Result<Option<Candidate>> {
        let failed = |error| Error::io("open", place(number, 0), error);
        let opened = match access {
            Access::Read => disk.open_read(&path(number)),
            Access::Write => disk.open_write(&path(number)),
        };
        let file = match opened {
            Ok(file) => file,
            // A spare that a writer in another process has just given back.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = file.len().map_err(failed)?;
        let mut block = vec![0; bytes.min(header::BLOCK_BYTES as u64) as usize];
        read_exact_at(&*file, &mut block, 0).map_err(failed)?;
        let header = match decode_header(&block) {
            Ok((header, whole)) => {
                if !whole {
                    self.damage(DamageKind::HeaderCopy, number, 0, 0..0);
                }
                Ok(header)
            }
            Err(HeaderError::Version(found)) => {
                let kind = ErrorKind::UnsupportedVersion {
                    found,
                    supported: VERSION,
                };
                return Err(Error::new(kind, "open").at(place(number, 0)));
            }
            Err(HeaderError::Blank | HeaderError::Damaged) => Err(DamageKind::Header),
        };
        Ok(Some(Candidate {
            number,
            file,
            bytes,
            header,
        }))
    }

    /// Folds the segments up to the last usable one, in order.
    fn fold_all(&mut self, all: &[Candidate], log_id: Option<[u8; 16]>) -> Result<()> {
        let mut before = 0;
        for (index, one) in all.iter().enumerate() {
            let later = all[index + 1..].iter().find_map(|later| {
                let header = later.header.as_ref().ok()?;
                (Some(header.log_id) == log_id && header.number == later.number)
                    .then_some(header.first_position)
            });
            let header = match &one.header {
                Ok(header) => *header,
                Err(kind) => {
                    self.unusable(one, *kind, later);
                    before = one.number;
                    continue;
                }
            };
            if Some(header.log_id) != log_id {
                self.unusable(one, DamageKind::Foreign, later);
            } else if header.number != one.number || header.first_position < self.next {
                self.unusable(one, DamageKind::Misplaced, later);
            } else {
                if header.first_position > self.next || one.number != before + 1 {
                    let lost = self.next..header.first_position;
                    let reported = self.survey.damages.iter().any(|damage| {
                        damage.positions.end.get() == header.first_position
                            && damage.positions.start.get() <= lost.start
                            && !lost.is_empty()
                    });
                    if !reported {
                        self.damage(DamageKind::Missing, before + 1, 0, lost);
                    }
                    self.next = header.first_position;
                }
                self.fold(one, header, later)?;
            }
            before = one.number;
        }
        Ok(())
    }

    fn fold(&mut self, one: &Candidate, header: SegmentHeader, later: Option<u64>) -> Result<()> {
        let sealed = Sealed::open(&header, &*one.file)
            .map_err(|error| Error::io("open", place(one.number, 0), error))?;
        match sealed {
            Some(sealed) => self.fold_sealed(one, header, sealed, later),
            None => self.fold_unsealed(one, header, later),
        }
    }

    fn fold_sealed(
        &mut self,
        one: &Candidate,
        header: SegmentHeader,
        sealed: Sealed,
        later: Option<u64>,
    ) -> Result<()> {
        let (last_position, footer_at) = (sealed.last_position, sealed.footer_at);
        let footer = sealed.footer.clone();
        let segment = Arc::new(Segment::sealed(header, Arc::clone(&one.file), sealed));
        self.catalog.add_segment(Arc::clone(&segment));
        self.report(
            one,
            header.first_position..last_position + 1,
            SegmentState::Sealed,
        );
        for (stream, run) in footer.runs() {
            let entries = || run.clone().filter_map(|index| footer.get(index));
            let first = entries().next().map_or(0, |batch| batch.first_seq);
            let head = footer.get(run.end - 1).map_or(0, |batch| batch.end_seq());
            self.catalog.note_sealed(one.number, stream, first, head);
            for batch in entries().filter(|batch| batch.kind == BatchKind::Catalog) {
                self.name_from(&segment, batch.offset, footer_at)?;
            }
        }
        if self.depth == Depth::Full {
            self.check_sealed(&segment, last_position, footer_at)?;
        }
        self.next = last_position + 1;
        self.durable = self.durable.max(last_position);
        self.acked = self.acked.max(last_position);
        if later.is_none() {
            // A segment is sealed only once the next one holds something durable.
            self.damage(DamageKind::Missing, one.number + 1, 0, self.next..self.next);
        }
        let end = LogPlace::new(one.number, footer_at);
        self.raise(end);
        Ok(())
    }

    /// Reads the names that one commit of a sealed segment gives.
    fn name_from(&mut self, segment: &Arc<Segment>, offset: u64, limit: u64) -> Result<()> {
        let step = super::scan::Scanner::new(Arc::clone(segment), limit).step(offset)?;
        match step {
            super::scan::Step::Commit(found) => self.learn(&found, segment),
            // The damage itself is found by whoever reads the commit, or surveys all of it.
            _ => Ok(()),
        }
    }

    fn check_sealed(&mut self, segment: &Arc<Segment>, last: u64, footer_at: u64) -> Result<()> {
        let expect = Expectation {
            first: segment.header.first_position,
            durable: last,
            limit: footer_at,
        };
        let mut batches = 0_u64;
        let mut hurt = Vec::new();
        let mut bad = Vec::new();
        let end = walk(
            segment,
            expect,
            |found| {
                batches += found.batches.len() as u64;
                if !found.is_sound() {
                    bad.push((found.head.position, lost_events(found)));
                }
                Ok(())
            },
            |wound| hurt.push(wound),
        )?;
        if end.next <= last {
            hurt.push(Wound {
                offset: end.offset,
                positions: end.next..last + 1,
            });
        }
        for wound in hurt {
            self.wound(segment.number(), wound, &bad);
        }
        let entries = segment
            .seal_state()
            .map_or(0, |sealed| u64::from(sealed.footer.len()));
        if entries != batches && end.next > last && self.survey.damages.is_empty() {
            self.damage(DamageKind::Footer, segment.number(), footer_at, 0..0);
        }
        Ok(())
    }

    fn fold_unsealed(
        &mut self,
        one: &Candidate,
        header: SegmentHeader,
        later: Option<u64>,
    ) -> Result<()> {
        let segment = Arc::new(Segment::active(header, Arc::clone(&one.file)));
        self.catalog.add_segment(Arc::clone(&segment));
        let expect = Expectation {
            first: header.first_position,
            // A segment gets its first byte only after the one before it is durable.
            durable: later.map_or(self.durable, |first| first - 1),
            limit: one.bytes,
        };
        let mut hurt = Vec::new();
        let mut bad = Vec::new();
        let catalog = &self.catalog;
        let mut unknown = None;
        let end = walk(
            &segment,
            expect,
            |found| {
                if found.unknown {
                    unknown = Some(found.offset);
                }
                if !found.is_sound() {
                    bad.push((found.head.position, lost_events(found)));
                }
                note(catalog, &segment, found);
                Ok(())
            },
            |wound| hurt.push(wound),
        )?;
        if let Some(offset) = unknown {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(one.number, offset)));
        }
        for wound in hurt {
            self.wound(one.number, wound, &bad);
        }
        let limit = end.offset + witness::BYTES as u64;
        let closed = end.witnessed == Some(true) && limit <= one.bytes;
        match later {
            Some(first) if end.next < first => {
                let lost = Wound {
                    offset: end.offset,
                    positions: end.next..first,
                };
                self.wound(one.number, lost, &[]);
            }
            Some(first) => self
                .unsealed
                .push((Arc::clone(&segment), end.offset, first - 1)),
            None if one.bytes < header.reserved_bytes && !closed => {
                self.damage(DamageKind::Cut, one.number, one.bytes, end.next..end.next);
            }
            None => {}
        }
        let state = if later.is_some() {
            SegmentState::Unsealed
        } else {
            SegmentState::Active
        };
        self.report(one, header.first_position..end.next, state);
        self.next = later.unwrap_or(end.next);
        self.durable = self.durable.max(end.durable).min(self.next - 1);
        self.acked = self
            .acked
            .max(end.acked)
            .max(self.durable)
            .min(self.next - 1);
        self.raise(LogPlace::new(one.number, end.offset));
        if later.is_none() {
            self.survey.closed_cleanly = closed && end.torn_to.is_none();
            self.survey.torn_tail = end.torn_to.map(|to| TornTail {
                place: place(one.number, end.offset),
                bytes: to - end.offset,
                commits: end.torn_commits,
            });
            self.last = Some((segment, end));
        }
        Ok(())
    }

    fn learn(&mut self, found: &Found, segment: &Segment) -> Result<()> {
        if found.unknown {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(segment.number(), found.offset)));
        }
        for (stream, name) in &found.names {
            self.catalog.note_name(*stream, name);
        }
        Ok(())
    }

    /// What lies behind the last usable segment: spares, or something that is in the way.
    fn sort_out(&mut self, behind: Vec<Candidate>) -> Result<(Spares, Vec<u32>)> {
        let (mut spares, mut in_the_way) = (Vec::new(), Vec::new());
        for one in behind {
            let blank = one.header.is_err() && is_blank(&one)?;
            if blank {
                self.report(&one, 0..0, SegmentState::Spare);
                spares.push((one.number, one.file, one.bytes));
            } else {
                let kind = one
                    .header
                    .as_ref()
                    .err()
                    .copied()
                    .unwrap_or(DamageKind::Foreign);
                let kind = match &one.header {
                    Ok(header) if header.number != one.number => DamageKind::Misplaced,
                    _ => kind,
                };
                self.unusable(&one, kind, None);
                in_the_way.push(one.number);
            }
        }
        Ok((spares, in_the_way))
    }

    fn unusable(&mut self, one: &Candidate, kind: DamageKind, later: Option<u64>) {
        let lost = self.next..later.unwrap_or(self.next).max(self.next);
        self.damage(kind, one.number, 0, lost);
        self.report(one, 0..0, SegmentState::Unusable);
    }

    fn wound(&mut self, number: u32, wound: Wound, bad: &[(u64, LostEvents)]) {
        let of_commit = bad.iter().find(|(position, events)| {
            *position == wound.positions.start
                && wound.positions.end == position + 1
                && !events.is_empty()
        });
        let kind = if of_commit.is_some() {
            DamageKind::Commit
        } else {
            DamageKind::Hole
        };
        self.damage(kind, number, wound.offset, wound.positions);
        if let (Some((_, events)), Some(damage)) = (of_commit, self.survey.damages.last_mut()) {
            damage.events.clone_from(events);
        }
    }

    fn damage(&mut self, kind: DamageKind, number: u32, offset: u64, positions: Range<u64>) {
        self.survey.damages.push(Damage {
            kind,
            place: place(number, offset),
            positions: Position(positions.start)..Position(positions.end),
            events: Vec::new(),
        });
    }

    fn report(&mut self, one: &Candidate, positions: Range<u64>, state: SegmentState) {
        self.survey.segments.push(SegmentReport {
            number: one.number,
            bytes: one.bytes,
            positions: Position(positions.start)..Position(positions.end),
            state,
        });
    }

    fn raise(&mut self, end: LogPlace) {
        let visible = self.next - 1;
        self.catalog.raise(Watermark {
            visible,
            durable: self.durable,
            end,
        });
    }

    fn finish(mut self, log_id: Option<[u8; 16]>, spares: Spares, in_the_way: Vec<u32>) -> Loaded {
        self.survey.position = Position(self.next - 1);
        self.survey.durable = Position(self.durable);
        self.survey.acknowledged = Position(self.acked.max(self.durable));
        self.survey.streams = self.catalog.streams_len();
        Loaded {
            log_id,
            catalog: self.catalog,
            survey: self.survey,
            last: self.last,
            unsealed: self.unsealed,
            spares,
            in_the_way,
        }
    }
}

type Spares = Vec<(u32, Arc<dyn DiskFile>, u64)>;
type LostEvents = Vec<(StreamId, Range<Seq>)>;

fn note(catalog: &Catalog, segment: &Segment, found: &Found) {
    for batch in &found.batches {
        let Some(kind) = batch.kind else { continue };
        let reference = BatchRef {
            kind,
            first_seq: batch.first_seq,
            count: batch.count,
            offset: found.offset,
        };
        catalog.note_batch(segment, StreamId::from_bytes(batch.stream), &reference);
    }
    for (stream, name) in &found.names {
        catalog.note_name(*stream, name);
    }
}

/// The events of the batches of a commit that are not what was written.
fn lost_events(found: &Found) -> LostEvents {
    let bad = found
        .bad
        .iter()
        .filter_map(|index| found.batches.get(*index));
    bad.map(|batch| {
        let end = batch.first_seq.saturating_add(u64::from(batch.count));
        (
            StreamId::from_bytes(batch.stream),
            Seq(batch.first_seq)..Seq(end),
        )
    })
    .collect()
}

fn is_blank(one: &Candidate) -> Result<bool> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut piece = vec![0; PIECE_BYTES.min(one.bytes) as usize];
    let mut at = 0;
    while at < one.bytes {
        let bytes = &mut piece[..PIECE_BYTES.min(one.bytes - at) as usize];
        read_exact_at(&*one.file, bytes, at)
            .map_err(|error| Error::io("read", place(one.number, at), error))?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

const _: () = assert!(COMMITS_AT == header::BLOCK_BYTES as u64);
