//! Lists by when streams were last committed: whatever became of them and of the files, and whatever is damaged.
//!
//! P6, P12. What a clock does that jumps is tried where the search is (`catalog::times`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::waiting::a_time_apart;
use amberlog::maintenance::CompactOptions;
use amberlog::verify::{RecordBody, RecordDump};
use amberlog::{Log, Options, Order, Query, ReadView, Stream, StreamId, StreamState, Timestamp};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

fn commit(stream: &mut Stream) {
    stream.append([7; 600]).expect("room");
    stream.commit().wait().expect("committed");
}

fn any_state() -> Query {
    let states = [StreamState::Active, StreamState::Archived, StreamState::Deleted];
    states.into_iter().fold(Query::new(), Query::state)
}

/// All pages of a query, which has every stream once.
fn listed(view: &ReadView, query: &Query) -> BTreeSet<StreamId> {
    let (mut all, mut query) = (BTreeSet::new(), query.clone().limit(3));
    loop {
        let page = view.list(&query).expect("listed");
        assert!(page.streams.iter().all(|info| all.insert(info.id)), "listed twice");
        match page.next {
            Some(next) => query = query.after(next),
            None => return all,
        }
    }
}

/// Streams by the number of the time behind which they were last committed, and these times.
#[derive(Clone, Default)]
struct Told {
    last: BTreeMap<StreamId, usize>,
    times: Vec<Timestamp>,
}

impl Told {
    /// A new time begins.
    fn begin(&mut self) {
        self.times.push(a_time_apart());
    }

    fn committed(&mut self, id: StreamId) {
        self.last.insert(id, self.times.len());
    }

    fn check(&self, view: &ReadView) {
        let of = |wanted: &dyn Fn(usize) -> bool| -> BTreeSet<StreamId> {
            self.last.iter().filter(|(_, at)| wanted(**at)).map(|(id, _)| *id).collect()
        };
        for (n, from) in self.times.iter().enumerate() {
            for query in
                [any_state(), any_state().order(Order::Committed), any_state().descending()]
            {
                let query = query.committed_from(*from);
                assert_eq!(listed(view, &query), of(&|at| at > n), "from {n}");
                for (m, until) in self.times.iter().enumerate().skip(n) {
                    let query = query.clone().committed_until(*until);
                    assert_eq!(listed(view, &query), of(&|at| at > n && at <= m), "{n} to {m}");
                }
            }
            let until = any_state().order(Order::Committed).committed_until(*from);
            assert_eq!(listed(view, &until), of(&|at| at <= n), "until {n}");
        }
        let never = any_state().committed_from(Timestamp::from_micros(u64::MAX));
        assert_eq!(listed(view, &never).len(), 0);
        let ever = any_state().committed_from(Timestamp::from_micros(0));
        assert_eq!(listed(view, &ever).len(), self.last.len());
    }
}

/// Streams of every kind, of which some are committed to in each of these times.
fn streams(log: &Log, told: &mut Told) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for round in 0..7 {
        told.begin();
        for n in 0..5 {
            let mut stream = match n {
                4 if round > 0 => streams[round].fork_at(1).expect("forked"),
                _ => log.create_stream().expect("a stream"),
            };
            commit(&mut stream);
            told.committed(stream.id());
            streams.push(stream);
        }
        // Older ones move to the end, each by something else.
        let old = &mut streams[round * 3];
        match round {
            0 => commit(old),
            1 => {
                old.rewind(0).expect("rewound");
                commit(old);
            }
            2 => drop(old.archive().wait().expect("archived")),
            3 => drop(old.delete().wait().expect("deleted")),
            4 => {
                old.set_label("k", "v").expect("fine");
                old.commit().wait().expect("committed");
            }
            _ => {
                old.trim(1).expect("staged");
                old.commit().wait().expect("trimmed");
            }
        }
        told.committed(old.id());
    }
    streams
}

#[test]
fn streams_are_listed_by_when_they_were_last_committed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut told = Told::default();
    let mut streams = streams(&log, &mut told);
    let (pinned, then) = (log.read_view(), told.clone());
    then.check(&pinned);

    // An earlier view does not show later commits, whatever becomes of the files.
    told.begin();
    for at in [1, 8, 16, 20] {
        commit(&mut streams[at]);
        told.committed(streams[at].id());
    }
    for at in [2, 7, 13, 22, 23, 28] {
        streams[at].delete().wait().expect("deleted");
        told.committed(streams[at].id());
    }
    told.begin();
    for _ in 0..60 {
        commit(&mut streams[30]);
    }
    told.committed(streams[30].id());
    let volatile = log.create_stream().expect("a stream");
    let every = Query::new().volatile();
    assert!(log.list(&every).expect("listed").streams.iter().any(|info| info.id == volatile.id()));
    let since = log.list(&every.committed_from(Timestamp::from_micros(0))).expect("listed").streams;
    assert!(!since.iter().any(|info| info.id == volatile.id()), "it was never committed");
    told.check(&log.read_view());
    then.check(&pinned);

    let report = log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
    assert!(!report.runs.is_empty(), "{report:?}");
    told.check(&log.read_view());
    then.check(&pinned);
    told.check(&ReadView::open(dir.path()).expect("readable").0);
    drop((volatile, streams, pinned));
    log.close().expect("closes");
    told.check(&ReadView::open(dir.path()).expect("readable").0);
    told.check(&options().open(dir.path()).expect("opens again").read_view());
}

/// The time of a commit with a damaged head is unknown: its streams are listed, and all others are as they were.
#[test]
fn p6_what_cannot_be_read_is_listed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut told = Told::default();
    let mut made = Vec::new();
    for _ in 0..40 {
        told.begin();
        let mut stream = log.create_stream().expect("a stream");
        commit(&mut stream);
        told.committed(stream.id());
        made.push(stream.id());
    }
    log.close().expect("closes");
    let heads = heads(dir.path());
    let first_segment = heads.iter().filter(|(segment, _)| *segment == 1).count();
    assert!((6..30).contains(&first_segment), "{first_segment} commits in a sealed segment");
    let path = dir.path().join("segments/0000000001.seg");
    let sound = std::fs::read(&path).expect("readable");
    for damaged in
        [vec![0], vec![first_segment / 2], (2..5).collect(), (0..first_segment).collect()]
    {
        let mut bytes = sound.clone();
        for at in &damaged {
            bytes[heads[*at].1 as usize + 20] ^= 1;
        }
        std::fs::write(&path, &bytes).expect("written");
        let (view, _) = ReadView::open(dir.path()).expect("readable");
        let is_known = |n: &usize| !damaged.contains(n);
        for (n, time) in told.times.iter().enumerate() {
            let from = listed(&view, &any_state().committed_from(*time));
            let until = listed(&view, &any_state().committed_until(*time));
            for (at, id) in made.iter().enumerate().filter(|(at, _)| is_known(at)) {
                assert_eq!(from.contains(id), at >= n, "{damaged:?}: {at} from {n}");
                assert_eq!(until.contains(id), at < n, "{damaged:?}: {at} until {n}");
            }
            for at in &damaged {
                let is_listed = from.contains(&made[*at]) || until.contains(&made[*at]);
                assert!(is_listed, "{damaged:?}: {at} is in neither list, by {n}");
            }
        }
    }
}

/// Returns the starts of the commits: segments and offsets.
fn heads(path: &Path) -> Vec<(u32, u64)> {
    let records = RecordDump::open(path).expect("readable").map(|record| record.expect("whole"));
    let commits = records.filter(|record| matches!(record.body, RecordBody::Commit { .. }));
    commits.map(|commit| (commit.segment, commit.offset)).collect()
}
