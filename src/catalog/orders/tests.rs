//! Do the sorted lists show what a scan of all streams shows?

use super::*;
use crate::catalog::{Asked, Page, Query, ReadView};
use crate::disk::SimDisk;
use crate::log::Log;
use crate::stream::Stream;
use crate::types::Timestamp;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

fn turn(log: &Log, streams: &mut Vec<Stream>, random: &mut Random) {
    let what = random.below(16);
    let at = random.below(streams.len() as u64) as usize;
    let Some(stream) = streams.get_mut(at).filter(|_| what > 1) else {
        return streams.push(log.create_stream().expect("open"));
    };
    match what {
        2 => drop(stream.archive().wait()),
        3 => drop(stream.unarchive().wait()),
        4 => drop(stream.delete().wait()),
        5 => {
            let fork = stream.fork_at(random.below(stream.head().get() + 1));
            streams.extend(fork.ok());
        }
        6 => {
            let _ = stream.rewind(random.below(stream.head().get() + 1));
            let _ = stream.commit().wait();
        }
        7 => drop(stream.set_label("n", &random.below(3).to_string())),
        8 => {
            let key = ["n", "m"][random.below(2) as usize];
            let _ = match random.below(3) {
                0 => stream.remove_label(key),
                _ => stream.set_label(key, &random.below(40).to_string()),
            };
            let _ = stream.commit().wait();
        }
        9 => {
            streams.iter_mut().for_each(|stream| _ = stream.append("together"));
            let _ = log.commit_all(streams.iter_mut()).wait();
        }
        _ => {
            let _ = stream.append("one");
            let _ = stream.commit().wait();
        }
    }
}

fn query(streams: &[Stream], random: &mut Random) -> Query {
    let mut query = Query::new().limit(1 + random.below(7) as usize);
    let id = streams.get(random.below(streams.len() as u64) as usize).map(Stream::id);
    let time = id.and_then(|id| id.created()).unwrap_or(Timestamp::from_micros(0));
    query = match random.below(4) {
        0 => query.order(Order::Committed),
        1 => query.order(Order::Label("n".into())),
        2 => query.order(Order::Label("m".into())),
        _ => query,
    };
    if random.below(2) == 0 {
        query = query.descending();
    }
    for state in ALL_STATES.into_iter().filter(|_| random.below(2) == 0) {
        query = query.state(state);
    }
    match random.below(6) {
        0 => query.has_label("n"),
        1 => query.label("n", "1"),
        2 => id.map_or(query.clone(), |id| query.parent(id)),
        3 => query.created_from(time),
        4 => query.created_until(time),
        _ => query,
    }
}

/// Returns all pages, from the sorted lists or from a scan of all streams.
fn pages(view: &ReadView, query: &Query, by_orders: bool) -> Vec<Page> {
    let mut query = query.clone();
    let mut pages = Vec::new();
    loop {
        let asked = Asked::new(&query);
        let mut found = match by_orders {
            true => view.take_from(&asked, &view.orders(&query.order).expect("alone")),
            false => view.look_at_all(&asked),
        };
        asked.sort(&mut found);
        let page = view.page(&asked, found);
        let next = page.next.clone();
        pages.push(page);
        match next {
            Some(next) => query = query.after(next),
            None => return pages,
        }
    }
}

/// The sorted lists give the same pages as a scan of all streams, for read views of any age and
/// for logs that were opened again.
#[test]
fn p7_p12_lists_in_order_show_what_a_look_at_all_streams_shows() {
    let mut listed = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed);
        let mut log = Log::options().segment_bytes_first(16 << 10).open_on(&disk).expect("opens");
        let mut streams = Vec::new();
        let mut views = Vec::<ReadView>::new();
        for round in 0..12 {
            (0..random.below(40)).for_each(|_| turn(&log, &mut streams, &mut random));
            if round == 6 {
                let ids: Vec<_> = streams.iter().map(Stream::id).collect();
                streams.clear();
                views.clear();
                log.close().expect("closes");
                log = Log::options().open_on(&disk).expect("opens again");
                streams.extend(ids.into_iter().filter_map(|id| log.open_stream(id).ok()));
            }
            views.push(log.read_view());
            if views.len() > 4 {
                views.remove(random.below(4) as usize);
            }
            for view in &views {
                for _ in 0..4 {
                    let query = query(&streams, &mut random);
                    let pages = [false, true].map(|by| pages(view, &query, by));
                    assert_eq!(pages[0], pages[1], "seed {seed}, round {round}: {query:?}");
                    listed += pages[0].iter().map(|page| page.streams.len()).sum::<usize>();
                }
            }
        }
    }
    assert!(listed > 8_000, "{listed}");
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_an_old_view_that_is_sorted_by_new_labels_is_noticed() {
    let _broken = crate::sabotage::sabotage(Sabotage::SortByNewest);
    std::panic::catch_unwind(p7_p12_lists_in_order_show_what_a_look_at_all_streams_shows)
        .expect_err("the control is not noticed");
}

/// A log keeps the lists of few labels and counts their bytes; the one asked for longest ago is
/// made again when it is needed.
#[test]
fn p10_lists_by_very_many_labels_take_bounded_memory() {
    let log = Log::options().open_on(&SimDisk::new(1)).expect("opens");
    let mut streams: Vec<Stream> = (0..50).map(|_| log.create_stream().expect("open")).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        (0..40).for_each(|key| stream.set_label(&format!("k{key}"), &n.to_string()).expect("fine"));
    }
    log.commit_all(streams.iter_mut()).wait().expect("committed");
    let list = |key: usize| {
        let query = Query::new().order(Order::Label(format!("k{key}"))).limit(50);
        let listed = log.list(&query).expect("listed").streams;
        let values: Vec<_> =
            listed.iter().map(|info| info.labels[&format!("k{key}")].clone()).collect();
        assert!(values.len() == 50 && values.is_sorted(), "{values:?}");
        log.stats().memory.metadata_bytes
    };
    let before = log.stats().memory.metadata_bytes;
    assert_eq!(list(0), before, "the first list scans all streams");
    let each = list(0) - before;
    assert!(each > 50 * 48, "{each} bytes of 50 streams");
    let all: Vec<u64> = (0..40).map(list).collect();
    assert_eq!(all.iter().max(), Some(&(before + 8 * each)));
    assert_eq!(list(0), before + 8 * each);
    for stream in &mut streams {
        (0..40).for_each(|key| stream.remove_label(&format!("k{key}")).expect("fine"));
    }
    log.commit_all(streams.iter_mut()).wait().expect("committed");
    let stale = log.stats().memory.metadata_bytes;
    let query = Query::new().order(Order::Label("k0".into()));
    assert!(log.list(&query).expect("listed").streams.is_empty());
    assert_eq!(log.stats().memory.metadata_bytes, stale - 8 * each);
}

/// F37. A writer of the parent may have been sending at the fork: a child that received would
/// wait forever.
#[test]
fn f37_a_child_leaves_the_orders_of_its_parent_alone() {
    let process = process();
    assert!(Listing { process, ..Listing::default() }.try_lock().is_some());
    let parent = process.wrapping_add(1);
    assert!(Listing { process: parent, ..Listing::default() }.try_lock().is_none());
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_a_child_that_receives_from_its_parent_is_noticed() {
    let _broken = crate::sabotage::sabotage(Sabotage::ListAsParent);
    std::panic::catch_unwind(f37_a_child_leaves_the_orders_of_its_parent_alone)
        .expect_err("the control is not noticed");
}
