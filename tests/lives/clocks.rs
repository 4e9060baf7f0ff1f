//! Is anything listed, ordered, named or dated wrongly because a clock jumped?
//!
//! P11; F35, F43. The simulated machine's clock jumps both ways by minutes, days and decades. What that does to retention
//! is tried where retention counts ages (`src/log/clocks.rs`).
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::verified::checked_on;
use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{
    Log, Options, Order, Position, Query, ReadView, Stream, StreamId, StreamState, Timestamp,
};

use crate::support::Rng;

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;
/// 2026-01-01.
const START: i64 = 1_767_225_600_000_000;
const JUMPS: [i64; 9] =
    [0, MINUTE, -MINUTE, DAY, -DAY, 400 * DAY, -400 * DAY, 73 * 365 * DAY, -START];

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros.max(0) as u64)
}

/// One jump to 2099 stamps one commit, and nothing after it.
#[test]
fn p11_f43_a_commit_an_event_and_an_id_keep_what_the_clock_said() {
    for jump in JUMPS {
        let disk = SimDisk::new(1);
        disk.set_clock(at(START));
        let mut log = options().open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        let (mut said, mut ids) = (Vec::new(), Vec::new());
        for turn in 0..60_i64 {
            let off = if turn % 20 == 7 { jump } else { 0 };
            let now = at(START + turn * MINUTE / 60 + off);
            disk.set_clock(now);
            stream.append([turn as u8; 300]).expect("room");
            let commit = stream.commit().wait().expect("committed");
            assert_eq!(commit.time, now, "turn {turn}, a jump of {jump}");
            said.push(now);
            // Two of one millisecond.
            ids.extend(
                [log.create_stream(), log.create_stream()].map(|one| one.expect("a stream").id()),
            );
            let made = |id: &StreamId| id.created().expect("of version 7").as_micros() / 1_000;
            assert!(ids.iter().rev().take(2).all(|id| made(id) == now.as_micros() / 1_000));
            if turn % 20 == 19 {
                let id = stream.id();
                drop(stream);
                log.close().expect("closes");
                log = options().open_on(&disk).expect("opens");
                stream = log.open_stream(id).expect("known");
            }
        }
        assert!(ids.chunks(2).all(|two| two[0] < two[1]), "of one millisecond, in their order");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "no id twice");
        let events = log.read_view().events(stream.id()).expect("known");
        assert!(events.map(|event| event.expect("whole").time()).eq(said), "a jump of {jump}");
        let all = log.read_view().all_events(Position::START).expect("in range");
        let positions = all.map(|event| event.expect("whole").position().expect("durable").get());
        assert!(positions.eq(1..=60), "a jump of {jump}");
        log.close().expect("closes");
        assert!(checked_on(&disk).expect("a log").is_sound());
    }
}

/// All pages of a query, which has every stream once.
fn listed(view: &ReadView, query: &Query) -> Vec<StreamId> {
    let (mut all, mut query) = (Vec::new(), query.clone().limit(7));
    loop {
        let page = view.list(&query).expect("listed");
        all.extend(page.streams.iter().map(|info| info.id));
        match page.next {
            Some(next) => query = query.after(next),
            None => return all,
        }
    }
}

/// When each stream was last committed, by the clock and by the order of the log.
type Told = BTreeMap<StreamId, (Timestamp, u64)>;

fn check(view: &ReadView, told: &Told, rng: &mut Rng, context: &str) {
    let states = [StreamState::Active, StreamState::Archived, StreamState::Deleted];
    let any = states.into_iter().fold(Query::new(), Query::state);
    let mut by_commit: Vec<_> = told.iter().map(|(id, (time, nth))| (*nth, *id, *time)).collect();
    by_commit.sort_unstable();
    let mut times: Vec<Timestamp> = told.values().map(|(time, _)| *time).collect();
    times.extend([0, 1, u64::MAX].map(Timestamp::from_micros));
    let mut pick = || times[rng.next() as usize % times.len()];
    for _ in 0..12 {
        let (from, until) = (pick(), pick());
        for (from, until) in [(Some(from), Some(until)), (Some(from), None), (None, Some(until))] {
            let is_in = |time: Timestamp| {
                from.is_none_or(|from| time >= from) && until.is_none_or(|until| time < until)
            };
            let query = from.map_or(any.clone(), |from| any.clone().committed_from(from));
            let query = until.map_or(query.clone(), |until| query.clone().committed_until(until));
            let wanted: Vec<StreamId> =
                by_commit.iter().filter(|(.., time)| is_in(*time)).map(|(_, id, _)| *id).collect();
            let found = listed(view, &query.clone().order(Order::Committed));
            assert_eq!(found, wanted, "{context}: from {from:?} until {until:?}");
            let mut sorted = wanted;
            sorted.sort_unstable();
            assert_eq!(listed(view, &query), sorted, "{context}, by their ids");
            let created = from.map_or(any.clone(), |from| any.clone().created_from(from));
            let created = until.map_or(created.clone(), |until| created.created_until(until));
            let mut ids: Vec<StreamId> = told.keys().copied().collect();
            // An id tells the millisecond.
            let millis = |time: Timestamp| time.as_micros() / 1_000;
            ids.retain(|id| {
                let created = millis(id.created().expect("of version 7"));
                from.is_none_or(|from| created >= millis(from))
                    && until.is_none_or(|until| created < millis(until))
            });
            assert_eq!(listed(view, &created), ids, "{context}, by when they were made");
        }
    }
}

#[test]
fn f43_lists_between_two_times_have_what_the_clock_dated_so_and_nothing_else() {
    for seed in 1..9 {
        let (disk, mut rng) = (SimDisk::new(seed), Rng::new(seed));
        disk.set_clock(at(START));
        let mut log = options().open_on(&disk).expect("opens");
        let (mut told, mut now, mut nth) = (Told::new(), START, 0);
        let mut streams: Vec<Stream> = Vec::new();
        for turn in 0..160 {
            now += i64::try_from(rng.below(30)).expect("small") * MINUTE;
            let off = if rng.below(3) == 0 { JUMPS[rng.below(9) as usize] } else { 0 };
            disk.set_clock(at(now + off));
            let pick = rng.next() as usize % streams.len().max(1);
            if streams.len() < 5 || rng.below(4) == 0 {
                streams.push(log.create_stream().expect("a stream"));
            } else {
                streams.swap_remove(pick);
                if let Some((id, _)) = told.iter().nth(rng.next() as usize % told.len())
                    && let Ok(stream) = log.open_stream(*id)
                {
                    streams.push(stream);
                }
            }
            let Some(stream) = streams.last_mut() else { continue };
            let outcome = match rng.below(12) {
                0 => stream.archive().wait(),
                1 => stream.delete().wait(),
                2 => {
                    stream.trim(stream.info().head.get() / 2).and_then(|()| stream.commit().wait())
                }
                _ => {
                    let _ = stream.append(vec![1; 100 + rng.below(900) as usize]);
                    stream.commit().wait()
                }
            };
            if let (Ok(commit), true) = (outcome, log.read_view().info(stream.id()).is_some()) {
                // One that had nothing to say is none.
                if commit.position.get() > nth {
                    nth = commit.position.get();
                    told.insert(stream.id(), (commit.time, nth));
                }
            }
            let context = format!("seed {seed}, turn {turn}");
            if turn % 40 == 39 {
                check(&log.read_view(), &told, &mut rng, &context);
                log.compact(CompactOptions::new().dead_percent_min(0)).expect("compacted");
                check(&log.read_view(), &told, &mut rng, &format!("{context}, compacted"));
                streams.clear();
                log.close().expect("closes");
                let (closed, _) = ReadView::open_on(&disk).expect("opens");
                check(&closed, &told, &mut rng, &format!("{context}, closed"));
                log = options().open_on(&disk).expect("opens");
                check(&log.read_view(), &told, &mut rng, &format!("{context}, opened"));
            }
        }
    }
}

/// Nothing in the log's order, its positions or its lists by commits comes from a clock, which may stand still, too.
#[test]
fn p11_f35_a_clock_that_stands_still_or_runs_backwards_orders_nothing() {
    for step in [0, -MINUTE, -DAY] {
        let disk = SimDisk::new(2);
        disk.set_clock(at(START));
        let log = options().open_on(&disk).expect("opens");
        let mut made = Vec::new();
        for turn in 0..80_i64 {
            disk.set_clock(at(START + turn * step));
            let mut stream = log.create_stream().expect("a stream");
            stream.append([7; 400]).expect("room");
            let commit = stream.commit().wait().expect("committed");
            assert_eq!(commit.position.get(), made.len() as u64 + 1);
            made.push(stream.id());
        }
        let query = Query::new().order(Order::Committed);
        assert_eq!(listed(&log.read_view(), &query), made);
        log.close().expect("closes");
        disk.set_clock(at(0));
        let log = options().open_on(&disk).expect("opens");
        assert_eq!(listed(&log.read_view(), &query), made);
        disk.pass_time(Duration::from_secs(1));
        let first = log.list(&Query::new().committed_from(at(START))).expect("listed");
        assert_eq!(first.streams.len(), if step == 0 { 80 } else { 1 });
    }
}
