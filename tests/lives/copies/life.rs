//! A log, and a copy of everything in it.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::rc::Rc;

use crate::support::verified::checked_on;
use amberlog::jsonl::ImportOptions;
use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{Log, Options, Overflow, ReadView, Stream, StreamId, StreamOptions, StreamState};

use super::Op;
use super::reading::{Copy, Kept, by_position, is_copy, is_copy_from_everywhere};

/// No more streams than this live at a time.
const STREAMS_MAX: usize = 7;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// A stream, and what its handle should show.
struct Hand {
    stream: Stream,
    view: Copy,
    /// Events from here on are in memory: these, also where they are trimmed already.
    ring_start: u64,
    fresh: Vec<Kept>,
    is_recorder: bool,
}

impl Hand {
    fn new(stream: Stream, view: Copy, ring_start: u64, is_recorder: bool) -> Self {
        let at = view.events.partition_point(|event| event.0 < ring_start);
        let fresh = view.events[at..].to_vec();
        Self { stream, view, ring_start, fresh, is_recorder }
    }

    /// One of the seqs that matter, mostly one of a gap.
    fn seq(&self, pick: u16) -> u64 {
        let gaps = self.view.seqs_of_gaps();
        let seqs = if gaps.is_empty() || pick.is_multiple_of(4) { self.view.seqs() } else { gaps };
        seqs[usize::from(pick / 4) % seqs.len()]
    }

    fn append(&mut self, bytes: Rc<[u8]>) {
        self.stream.append(&*bytes).expect("room");
        let event = (self.view.head, self.view.generation, bytes);
        self.view.events.push(event.clone());
        self.fresh.push(event);
        self.view.head += 1;
        if self.is_recorder {
            // How much a ring holds is its own affair; which events go is not.
            let kept_from = self.view.head - self.stream.buffered();
            self.fresh.retain(|event| event.0 >= kept_from);
            self.view.events.retain(|event| event.0 < self.ring_start || event.0 >= kept_from);
        }
    }

    /// Moves the events in memory to the stream's current generation.
    fn take_generation(&mut self) {
        let generation = self.stream.info().generation;
        self.view.generation = generation;
        let shown = self.view.events.iter_mut().filter(|event| event.0 >= self.ring_start);
        shown.chain(&mut self.fresh).for_each(|event| event.1 = generation);
    }
}

fn how(recorder: bool) -> StreamOptions {
    let options = StreamOptions::new();
    let recording = || StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(700);
    if recorder { recording() } else { options }
}

/// Life of a log, with everything that it should show.
pub(super) struct Life {
    disk: SimDisk,
    log: Option<Log>,
    hands: Vec<Hand>,
    durable: BTreeMap<StreamId, Copy>,
    /// Every event that was ever committed, by the stream that did.
    ever: BTreeMap<(StreamId, u32, u64), Rc<[u8]>>,
    /// Read views that were taken earlier, and what they show.
    pinned: Vec<(ReadView, BTreeMap<StreamId, Copy>)>,
    made: u64,
}

impl Life {
    pub(super) fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let log = Some(options().open_on(&disk).expect("opens"));
        let (hands, durable, ever, pinned) = Default::default();
        Self { disk, log, hands, durable, ever, pinned, made: 0 }
    }

    /// Returns the disk of the log.
    #[cfg(amberlog_sabotage)]
    pub(super) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open")
    }

    fn bytes(&mut self, length: u16) -> Rc<[u8]> {
        self.made += 1;
        let mut bytes = self.made.to_le_bytes().to_vec();
        bytes.resize(usize::from(length.max(8)), self.made as u8);
        bytes.into()
    }

    pub(super) fn step(&mut self, op: Op) {
        match op {
            Op::Create { recorder } => {
                self.make_room();
                let stream = self.log().create_stream_with(&how(recorder)).expect("a stream");
                self.hands.push(Hand::new(stream, Copy::new(), 0, recorder));
            }
            Op::Leap { seqs } => self.leap(seqs),
            Op::CommitAll => {
                let log = self.log.as_ref().expect("open");
                let streams = self.hands.iter_mut().map(|hand| &mut hand.stream);
                log.commit_all(streams).wait().expect("committed");
                (0..self.hands.len()).for_each(|at| self.committed(at));
            }
            Op::Compact => {
                self.fill();
                let all = CompactOptions::new().dead_percent_min(0);
                let report = self.log().compact(all).expect("compacted");
                assert!(report.refused.is_empty(), "{:?}", report.refused);
            }
            Op::Reopen => self.reopen(),
            Op::Carry => self.carry(),
            _ => self.of_stream(op),
        }
    }

    fn of_stream(&mut self, op: Op) {
        let number = match op {
            Op::Append { stream, .. }
            | Op::Commit { stream }
            | Op::Fork { stream, .. }
            | Op::Rewind { stream, .. }
            | Op::Trim { stream, .. }
            | Op::Label { stream }
            | Op::Archive { stream }
            | Op::Delete { stream }
            | Op::OpenStream { stream } => usize::from(stream),
            _ => unreachable!("of the log"),
        };
        let Some(at) = number.checked_rem(self.hands.len()) else { return };
        match op {
            Op::Append { events, bytes, commits, .. } => {
                self.append(at, events, bytes, commits);
            }
            Op::Commit { .. } => {
                self.hands[at].stream.commit().wait().expect("committed");
                self.committed(at);
            }
            Op::Fork { seq, recorder, events, .. } => self.fork(at, seq, recorder, events),
            Op::Rewind { seq, commits, .. } => self.rewind(at, seq, commits),
            Op::Trim { seq, commits, .. } => self.trim(at, seq, commits),
            Op::Label { .. } => {
                let label = self.made.to_string();
                self.hands[at].stream.set_label("turn", &label).expect("set");
            }
            Op::Archive { .. } => {
                self.hands[at].stream.archive().wait().expect("archived");
                self.hands[at].stream.unarchive().wait().expect("active");
            }
            Op::Delete { .. } => self.delete(at),
            Op::OpenStream { .. } => self.open_stream(at),
            _ => unreachable!("of the log"),
        }
    }

    /// If there are too many streams the first one goes, even if forks share its events.
    fn make_room(&mut self) {
        if self.hands.len() >= STREAMS_MAX {
            self.delete(0);
        }
    }

    fn append(&mut self, at: usize, events: u8, bytes: u16, commits: bool) {
        for _ in 0..events {
            let bytes = self.bytes(bytes);
            self.hands[at].append(bytes);
        }
        if commits {
            self.hands[at].stream.commit().wait().expect("committed");
            self.committed(at);
        }
    }

    fn delete(&mut self, at: usize) {
        let mut hand = self.hands.remove(at);
        hand.stream.delete().wait().expect("deleted");
        self.durable.remove(&hand.stream.id());
    }

    /// Notes that the changes of a handle became durable.
    fn committed(&mut self, at: usize) {
        let hand = &mut self.hands[at];
        let id = hand.stream.id();
        hand.take_generation();
        if !hand.fresh.is_empty() {
            for (seq, generation, bytes) in hand.fresh.drain(..) {
                self.ever.insert((id, generation, seq), bytes);
            }
            hand.ring_start = hand.view.head;
        }
        // What has nothing to say is not committed.
        if self.log.as_ref().expect("open").read_view().info(id).is_none() {
            return;
        }
        let mut copy = hand.view.clone();
        let before = self.durable.get(&id).map_or(0, |copy| copy.start);
        copy.cut(hand.ring_start);
        copy.start = before.max(hand.view.start.min(hand.ring_start));
        self.durable.insert(id, copy);
    }

    fn fork(&mut self, at: usize, seq: u16, recorder: bool, events: u8) {
        let parent = &self.hands[at];
        let seq = parent.seq(seq);
        let Ok(stream) = parent.stream.fork_with(seq, &how(recorder)) else {
            assert!(recorder, "what is buffered fits");
            return;
        };
        let mut view = parent.view.clone();
        view.cut(seq);
        let ring_start = parent.ring_start.min(seq);
        view.state = StreamState::Active;
        let mut hand = Hand::new(stream, view, ring_start, recorder);
        hand.fresh = parent.fresh.iter().filter(|event| event.0 < seq).cloned().collect();
        hand.take_generation();
        // Of what does not fit in its ring the oldest goes.
        let gone = hand.fresh.len() - hand.stream.buffered() as usize;
        for (seq, ..) in hand.fresh.drain(..gone) {
            hand.view.events.retain(|event| event.0 != seq);
        }
        self.hands.push(hand);
        if events > 0 {
            self.append(self.hands.len() - 1, events, 150, true);
        }
        self.make_room();
    }

    fn rewind(&mut self, at: usize, seq: u16, commits: bool) {
        let hand = &mut self.hands[at];
        let to = hand.seq(seq);
        hand.stream.rewind(to).expect("rewound");
        hand.view.cut(to);
        hand.ring_start = hand.ring_start.min(to);
        hand.fresh.retain(|event| event.0 < to);
        if commits {
            hand.stream.commit().wait().expect("committed");
        }
        hand.take_generation();
        if commits {
            self.committed(at);
        }
    }

    fn trim(&mut self, at: usize, seq: u16, commits: bool) {
        let hand = &mut self.hands[at];
        let to = hand.seq(seq);
        hand.stream.trim(to).expect("in range");
        hand.view.trim(to);
        if commits {
            hand.stream.commit().wait().expect("committed");
            self.committed(at);
        }
    }

    /// A handle that sees what is durable, and nothing else.
    fn open_stream(&mut self, at: usize) {
        let hand = self.hands.swap_remove(at);
        let (id, is_recorder) = (hand.stream.id(), hand.is_recorder);
        drop(hand);
        if let Some(copy) = self.durable.get(&id).cloned() {
            let stream = self.log().open_stream_with(id, &how(is_recorder)).expect("known");
            let end = copy.head;
            self.hands.push(Hand::new(stream, copy, end, is_recorder));
        }
    }

    /// An import, since no ring drops as many.
    fn leap(&mut self, seqs: u64) {
        self.make_room();
        let id = StreamId::new();
        let (first, last) = (self.bytes(8), self.bytes(8));
        let event = |seq: u64, dropped: u64, bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                r#"{{"event":{{"seq":{seq},"time_us":1795373103669602,"dropped_before":{dropped},"text":"{hex}"}}}}"#
            )
        };
        let lines = [
            r#"{"amberlog":{"export":1}}"#.to_owned(),
            format!(r#"{{"stream":{{"id":"{id}","head":{}}}}}"#, seqs + 2),
            event(0, 0, &first).replace(r#""dropped_before":0,"#, ""),
            event(seqs + 1, seqs, &last),
            r#"{"end":{"streams":1,"events":2}}"#.to_owned(),
        ];
        self.log().import_jsonl(Cursor::new(lines.join("\n") + "\n")).expect("imported");
        let mut copy = Copy::new();
        let text = |bytes: &[u8]| -> Rc<[u8]> {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.into_bytes().into()
        };
        copy.events = vec![(0, 0, text(&first)), (seqs + 1, 0, text(&last))];
        copy.head = seqs + 2;
        for (seq, generation, bytes) in &copy.events {
            self.ever.insert((id, *generation, *seq), Rc::clone(bytes));
        }
        self.durable.insert(id, copy.clone());
        let stream = self.log().open_stream_with(id, &how(true)).expect("known");
        let end = copy.head;
        self.hands.push(Hand::new(stream, copy, end, true));
    }

    fn fill(&mut self) {
        let mut filler = self.log().create_stream().expect("a stream");
        for _ in 0..3 {
            let bytes = self.bytes(6_000);
            self.ever.insert((filler.id(), 0, filler.head().get()), Rc::clone(&bytes));
            filler.append(&*bytes).expect("room");
            filler.commit().wait().expect("committed");
        }
        filler.delete().wait().expect("deleted");
    }

    fn reopen(&mut self) {
        self.pinned.clear();
        let recorders: Vec<_> =
            self.hands.drain(..).map(|hand| (hand.stream.id(), hand.is_recorder)).collect();
        self.log.take().expect("open").close().expect("closes");
        self.log = Some(options().open_on(&self.disk).expect("opens again"));
        assert!(self.log().recovery_report().is_sound());
        for (id, recorder) in recorders.into_iter().filter(|(id, _)| self.durable.contains_key(id))
        {
            let copy = self.durable[&id].clone();
            let stream = self.log().open_stream_with(id, &how(recorder)).expect("known");
            let end = copy.head;
            self.hands.push(Hand::new(stream, copy, end, recorder));
        }
    }

    /// Everything that is read is what it should be; from everywhere when it lies elsewhere than before.
    pub(super) fn check(&mut self, step: usize, op: Op) {
        let has_moved = matches!(op, Op::Compact | Op::Reopen);
        for (nth, hand) in self.hands.iter().enumerate() {
            let what = format!("{} through its handle (P9)", hand.stream.id());
            let events = || hand.stream.events().expect("readable");
            hand.view.check_info(&hand.stream.info(), &what);
            is_copy(events, &hand.view, &what);
            if has_moved || nth == step % self.hands.len() {
                is_copy_from_everywhere(events, &hand.view, &what);
            }
        }
        let now = self.log().read_view();
        self.check_view(&now, "in the process", has_moved);
        for (read_view, durable) in &self.pinned {
            let ids = read_view.streams().into_iter().map(|info| info.id);
            assert!(ids.eq(durable.keys().copied()), "a read view that was taken before (P12)");
            for (id, copy) in durable {
                let events = || read_view.events(*id).expect("known");
                is_copy(events, copy, &format!("{id} in an earlier read view (P12)"));
            }
        }
        if step.is_multiple_of(4) {
            self.pinned.push((now, self.durable.clone()));
        }
        if self.pinned.len() > 2 {
            self.pinned.remove(0);
        }
        if !self.durable.is_empty() && (has_moved || step % 4 == 1) {
            let (fresh, found) = ReadView::open_on(&self.disk).expect("opens");
            assert!(found.is_sound(), "{:?}", found.damages);
            // It may not be shown the last commit: nothing on the disk proves yet that it was acknowledged.
            if fresh.position() == self.log().read_view().position() {
                self.check_view(&fresh, "opened without a lock (P12)", has_moved);
            }
        }
    }

    fn check_view(&self, read_view: &ReadView, what: &str, from_everywhere: bool) {
        let ids: Vec<_> = read_view.streams().into_iter().map(|info| info.id).collect();
        assert!(ids.iter().eq(self.durable.keys()), "{what}: {ids:?}");
        for (id, copy) in &self.durable {
            let events = || read_view.events(*id).expect("known");
            let what = format!("{id} {what}");
            copy.check_info(&read_view.info(*id).expect("known"), &what);
            is_copy(events, copy, &what);
            if from_everywhere {
                is_copy_from_everywhere(events, copy, &what);
            }
        }
        by_position(read_view, &self.durable, &self.ever);
    }

    /// Exports, and archive files, are the streams once more.
    pub(super) fn carry(&self) {
        let read_view = self.log().read_view();
        if self.durable.is_empty() {
            return;
        }
        let export = |one: Option<StreamId>| {
            let mut lines = Vec::new();
            match one {
                None => read_view.export_jsonl(&mut lines),
                Some(id) => read_view.export_streams_jsonl(&[id], &mut lines),
            }
            .unwrap_or_else(|error| panic!("export of {one:?}: {error}"));
            let other = options().open_on(&SimDisk::new(1)).expect("opens");
            let imported = other.import_jsonl(Cursor::new(&lines));
            imported.unwrap_or_else(|error| {
                panic!("import of {one:?}: {error}\n{}", String::from_utf8_lossy(&lines))
            });
            let again = ImportOptions::new().resume();
            let again = other.import_jsonl_with(&again, Cursor::new(&lines)).expect("compared");
            assert_eq!(again.commits, 0, "nothing is missing");
            other
        };
        let whole = export(None).read_view();
        for (id, copy) in &self.durable {
            let alone = export(Some(*id)).read_view();
            for (there, what) in [(&whole, "exported"), (&alone, "exported alone")] {
                let what = format!("{id} {what}");
                copy.check_info(&there.info(*id).expect("known"), &what);
                is_copy(|| there.events(*id).expect("known"), copy, &what);
            }
            let report = self.log().write_archive(*id).expect("written");
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("alone.seg");
            let bytes = &self.disk.files()[report.path.to_str().expect("ASCII")];
            std::fs::write(&path, bytes).expect("written");
            let (there, found) = ReadView::open(&path).expect("opens");
            assert!(found.is_sound(), "{:?}", found.damages);
            let what = format!("{id} in its archive file");
            copy.check_info(&there.info(*id).expect("known"), &what);
            is_copy_from_everywhere(|| there.events(*id).expect("known"), copy, &what);
        }
    }

    pub(super) fn close(mut self) {
        (self.hands, self.pinned) = Default::default();
        self.log.take().expect("open").close().expect("closes");
        assert!(self.durable.is_empty() || checked_on(&self.disk).expect("a log").is_sound());
    }
}
