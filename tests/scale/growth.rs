//! Does work grow in proportion to what there is?
//!
//! Each walk is made at two sizes, one four times the other, and may take little more than four times as many steps: looks
//! at entries of indexes and lists, and comparisons of ids, counted by the engine itself. No clock is asked.

use std::time::Duration;

use amberlog::maintenance::{CompactOptions, RetainOptions};
use amberlog::options::Retention;
use amberlog::sim::SimDisk;
use amberlog::{
    CommitId, CommitOptions, Durability, Log, Options, Order, Page, Query, Stream, StreamId,
    Timestamp, steps_here,
};

/// A walk that is quadratic takes sixteen times as many steps; what is beyond four is for logarithms.
const TIMES_MAX: u64 = 6;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn os() -> CommitOptions {
    CommitOptions::new().durability(Durability::Os)
}

fn steps(work: impl FnOnce()) -> u64 {
    let before = steps_here();
    work();
    steps_here() - before
}

/// The steps of `work` on `n` things and on four times as many.
fn grows_in_proportion(what: &str, n: u64, work: impl Fn(u64) -> u64) {
    let (few, many) = (work(n), work(4 * n));
    println!("{what}: {few} steps for {n}, {many} for {}", 4 * n);
    assert!(few >= n, "{what}: {few} steps for {n} are not all of them");
    assert!(many <= TIMES_MAX * few, "{what}: {few} steps for {n}, and {many} for {}", 4 * n);
}

fn streams(log: &Log, n: u64) -> Vec<Stream> {
    (0..n).map(|_| log.create_stream().expect("a stream")).collect()
}

fn append_to_all(streams: &mut [Stream]) {
    streams.iter_mut().for_each(|stream| assert!(stream.append("one more").is_ok()));
}

#[test]
fn a_commit_of_very_many_streams() {
    grows_in_proportion("a commit of all streams", 500, |n| {
        // Sealing a full segment is not part of it.
        let one_segment = Log::options().segment_bytes_first(4 << 20);
        let log = one_segment.open_on(&SimDisk::new(1)).expect("opens");
        let mut streams = streams(&log, n);
        append_to_all(&mut streams);
        log.commit_all(&mut streams).wait().expect("committed");
        append_to_all(&mut streams);
        let id = CommitOptions::new().id(CommitId::from(u128::from(n)));
        steps(|| assert!(log.commit_all_with(&mut streams, id).wait().is_ok()))
    });
}

#[test]
fn a_log_in_which_commits_say_something_of_very_many_streams_is_opened() {
    grows_in_proportion("an opening", 500, |n| {
        let disk = SimDisk::new(2);
        let log = Log::options().open_on(&disk).expect("opens");
        let mut streams = streams(&log, n);
        for stream in &mut streams {
            stream.set_label("owner", "ada").expect("fine");
            stream.append("one").expect("room");
        }
        log.commit_all(&mut streams).wait().expect("committed");
        drop(streams);
        log.close().expect("closes");
        steps(|| drop(Log::options().open_on(&disk).expect("opens")))
    });
}

/// A commit for each segment.
fn fill_segments(log: &Log, n: u64) {
    let mut stream = log.create_stream().expect("a stream");
    for _ in 0..n {
        stream.append([7; 11 << 10]).expect("room");
        stream.commit_with(os()).wait().expect("committed");
    }
}

#[test]
fn a_log_of_very_many_segments_rolls_and_is_opened() {
    grows_in_proportion("rolls", 100, |n| {
        let log = options().quota_bytes(1 << 40).open_on(&SimDisk::new(3)).expect("opens");
        steps(|| fill_segments(&log, n))
    });
    grows_in_proportion("an opening of many segments", 100, |n| {
        let disk = SimDisk::new(4);
        let log = options().open_on(&disk).expect("opens");
        fill_segments(&log, n);
        log.close().expect("closes");
        steps(|| drop(options().open_on(&disk).expect("opens")))
    });
}

/// Lists that were made before, so that streams are in order: the first one only looks at all of them.
fn list_twice(log: &Log, query: &Query) {
    (0..2).for_each(|_| drop(log.list(query).expect("listed")));
}

/// Makes streams for a list, each with a commit.
type Make = fn(&Log, u64) -> Vec<Stream>;

fn in_order(order: Order) -> [Query; 2] {
    let query = Query::new().order(order).limit(20);
    [query.clone(), query.descending()]
}

fn every_way() -> impl Iterator<Item = (Query, Make)> {
    let plain = [Order::Created, Order::Committed].into_iter().flat_map(in_order);
    let ranked = in_order(Order::Label("rank".into())).into_iter();
    plain
        .map(|query| (query, committed as Make))
        .chain(ranked.map(|query| (query, ranked_streams as Make)))
}

/// Pages up to the last one, each asked of the log anew; how many streams were on them.
fn all_pages(mut query: Query, list: impl Fn(&Query) -> Page) -> u64 {
    let mut streams = 0;
    loop {
        let page = list(&query);
        streams += page.streams.len() as u64;
        match page.next {
            Some(next) => query = query.after(next),
            None => return streams,
        }
    }
}

fn committed(log: &Log, n: u64) -> Vec<Stream> {
    let mut streams = streams(log, n);
    append_to_all(&mut streams);
    for stream in &mut streams {
        stream.commit_with(os()).wait().expect("committed");
    }
    streams
}

fn ranked_streams(log: &Log, n: u64) -> Vec<Stream> {
    let mut streams = committed(log, n);
    for (rank, stream) in streams.iter_mut().enumerate() {
        stream.set_label("rank", &format!("{:04}", rank * 7 % 1_009)).expect("fine");
        stream.commit_with(os()).wait().expect("committed");
    }
    streams
}

/// A page takes as long however many streams there are, also when streams were committed to since the last one.
#[test]
fn a_page_of_a_list() {
    for (query, make) in every_way() {
        let page = |n| {
            let log = Log::options().open_on(&SimDisk::new(5)).expect("opens");
            let mut streams = make(&log, n);
            list_twice(&log, &query);
            for stream in streams.iter_mut().step_by(100) {
                stream.append("more").expect("room");
                stream.set_label("rank", "0500").expect("fine");
                stream.commit_with(os()).wait().expect("committed");
            }
            steps(|| drop(log.list(&query).expect("listed"))) / (n / 100)
        };
        let (few, many) = (page(1_000), page(16_000));
        assert!(many <= few * 2, "{query:?}: {few} steps of 1,000 streams, {many} of 16,000");
    }
}

#[test]
fn all_pages_of_a_list() {
    for (query, make) in every_way() {
        grows_in_proportion(&format!("{query:?}"), 500, |n| {
            let log = Log::options().open_on(&SimDisk::new(6)).expect("opens");
            let _streams = make(&log, n);
            steps(|| {
                assert_eq!(all_pages(query.clone(), |query| log.list(query).expect("listed")), n);
            })
        });
    }
    let rare = Query::new().limit(5).has_label("rare");
    grows_in_proportion("all pages with a label", 500, |n| {
        let log = Log::options().open_on(&SimDisk::new(7)).expect("opens");
        for stream in committed(&log, n).iter_mut().step_by(10) {
            stream.set_label("rare", "1").expect("fine");
            stream.commit_with(os()).wait().expect("committed");
        }
        steps(|| {
            assert_eq!(all_pages(rare.clone(), |query| log.list(query).expect("listed")), n / 10);
        })
    });
}

/// All pages of one read view, while something is committed of every stream.
#[test]
fn all_pages_of_a_view_that_grows_old() {
    for (query, make) in every_way() {
        grows_in_proportion(&format!("{query:?}, old"), 300, |n| {
            let log = Log::options().open_on(&SimDisk::new(8)).expect("opens");
            let streams = std::cell::RefCell::new(make(&log, n));
            let view = log.read_view();
            let list = |query: &Query| {
                for stream in streams.borrow_mut().iter_mut().take(20) {
                    stream.append("more").expect("room");
                    stream.set_label("rank", "0000").expect("fine");
                    stream.commit_with(os()).wait().expect("committed");
                }
                view.list(query).expect("listed")
            };
            steps(|| assert_eq!(all_pages(query.clone(), list), n))
        });
    }
}

#[test]
fn all_pages_of_volatile_streams() {
    // In the order of a label, each page scans all volatile streams.
    for query in [Order::Created, Order::Committed].into_iter().flat_map(in_order) {
        let query = query.volatile();
        grows_in_proportion(&format!("{query:?}"), 500, |n| {
            let log = Log::options().open_on(&SimDisk::new(9)).expect("opens");
            let volatile = std::cell::RefCell::new(streams(&log, n));
            let _durable = committed(&log, n);
            let list = |query: &Query| {
                // Some go, others come.
                let mut volatile = volatile.borrow_mut();
                volatile.pop();
                volatile.insert(0, log.create_stream().expect("a stream"));
                log.list(query).expect("listed")
            };
            steps(|| assert!(all_pages(query.clone(), list) > n))
        });
    }
}

#[test]
fn the_forks_of_each_stream() {
    grows_in_proportion("the forks of each stream", 300, |n| {
        let log = Log::options().open_on(&SimDisk::new(10)).expect("opens");
        let parents = committed(&log, n);
        let fork = |parent: &Stream| {
            let mut fork = parent.fork_at(1).expect("forked");
            fork.commit_with(os()).wait().expect("committed");
            fork
        };
        let _forks: Vec<Stream> = parents.iter().map(fork).collect();
        steps(|| {
            for parent in &parents {
                let query = Query::new().parent(parent.id());
                assert_eq!(log.list(&query).expect("listed").streams.len(), 1);
                assert_eq!(
                    log.list(&query.order(Order::Committed)).expect("listed").streams.len(),
                    1
                );
            }
        })
    });
}

fn one_more(stream: &mut Stream) {
    stream.append("one more").expect("room");
    stream.commit_with(os()).wait().expect("committed");
}

/// A segment is sealed once a sync covers a commit of the next one.
fn one_more_synced(stream: &mut Stream) {
    stream.append("one more").expect("room");
    stream.commit().wait().expect("committed");
}

fn reads_first_event(log: &Log, id: StreamId) {
    let mut events = log.read_view().events(id).expect("known");
    assert_eq!(events.next().expect("there").expect("whole").seq().get(), 0);
}

/// A reader verifies the header of the batch that it wants, and not those of all streams of the commit.
#[test]
fn each_stream_of_a_commit_of_very_many() {
    grows_in_proportion("reads of each stream of a commit", 1_500, |n| {
        let log = Log::options().open_on(&SimDisk::new(19)).expect("opens");
        let mut streams = streams(&log, n);
        append_to_all(&mut streams);
        log.commit_all(&mut streams).wait().expect("committed");
        steps(|| streams.iter().for_each(|stream| reads_first_event(&log, stream.id())))
    });
}

#[test]
fn a_stream_that_is_rewound_very_often() {
    for to in [1, 5] {
        grows_in_proportion("rewinds", 300, |n| {
            let log = Log::options().open_on(&SimDisk::new(11)).expect("opens");
            let mut stream = log.create_stream().expect("a stream");
            (0..5).for_each(|_| one_more(&mut stream));
            steps(|| {
                for turn in 0..n {
                    one_more(&mut stream);
                    // To the same place each time, or a little further, so that each generation shows something.
                    stream.rewind(if to == 1 { 1 } else { 5 + turn }).expect("rewound");
                    one_more(&mut stream);
                    reads_first_event(&log, stream.id());
                    assert!(stream.fork_at(1).is_ok());
                }
            })
        });
    }
}

/// The last event of a stream is found in as many steps however often the stream was rewound.
#[test]
fn the_last_event_of_a_stream_that_is_rewound_very_often() {
    const STEPS_MAX: u64 = 200;
    let found = [1_000, 100_000].map(|rewinds| {
        [1, u64::MAX].map(|to| {
            let disk = SimDisk::new(20);
            let log = Log::options().open_on(&disk).expect("opens");
            let mut stream = log.create_stream().expect("a stream");
            (0..5).for_each(|_| one_more(&mut stream));
            for turn in 0..rewinds {
                // To the same place each time, so that one generation shows all, or each shows one event more.
                stream.rewind(to.min(turn + 1)).expect("rewound");
                one_more(&mut stream);
            }
            let id = stream.id();
            let last_of = |view: amberlog::ReadView| {
                steps(|| {
                    let last = view.events(id).expect("known").next_back();
                    assert!(last.expect("there").is_ok());
                })
            };
            let written = last_of(log.read_view());
            drop(stream);
            log.close().expect("closes");
            let opened = Log::options().open_on(&disk).expect("opens");
            [written, last_of(opened.read_view())]
        })
    });
    println!("steps to the last event of a stream: {found:?}");
    assert!(found.iter().flatten().flatten().all(|steps| *steps <= STEPS_MAX), "{found:?}");
}

/// A fork of a fork of a fork.
fn chain(log: &Log, n: u64) -> Vec<Stream> {
    let mut all = vec![log.create_stream().expect("a stream")];
    for _ in 1..n {
        let last = all.last_mut().expect("one");
        one_more(last);
        let fork = last.fork_at(last.head()).expect("forked");
        all.push(fork);
    }
    one_more(all.last_mut().expect("one"));
    all
}

#[test]
fn forks_of_forks() {
    grows_in_proportion("forks of forks", 300, |n| {
        let log = Log::options().open_on(&SimDisk::new(12)).expect("opens");
        let mut all = Vec::new();
        let made = steps(|| all = chain(&log, n));
        made + steps(|| {
            for stream in &all {
                reads_first_event(&log, stream.id());
                // Of what all of them share.
                assert!(stream.fork_at(1).is_ok());
            }
        })
    });
}

/// A stream with very many generations, and very many forks that each share a little more of it.
fn tree(log: &Log, n: u64) -> Vec<Stream> {
    let mut stream = log.create_stream().expect("a stream");
    one_more(&mut stream);
    let mut all = Vec::new();
    for turn in 0..n {
        one_more(&mut stream);
        stream.rewind(turn + 1).expect("rewound");
        one_more(&mut stream);
    }
    for turn in 0..n {
        let mut fork = stream.fork_at(turn + 2).expect("forked");
        one_more(&mut fork);
        fork.trim(turn % 3).expect("staged");
        fork.commit().wait().expect("trimmed");
        all.push(fork);
    }
    stream.delete().wait().expect("deleted");
    all
}

#[test]
fn what_can_be_reached_is_found() {
    for make in [tree, chain] {
        grows_in_proportion("a compaction", 200, |n| {
            let disk = SimDisk::new(13);
            let log = options().open_on(&disk).expect("opens");
            let _all = make(&log, n);
            let dry = CompactOptions::new().dry_run().dead_percent_min(0);
            steps(|| assert!(log.compact(dry).expect("planned").refused.is_empty()))
        });
    }
}

#[cfg(feature = "json")]
#[test]
fn exports_and_imports() {
    for make in [tree, chain] {
        let exported = |n| {
            let log = Log::options().open_on(&SimDisk::new(14)).expect("opens");
            let _all = make(&log, n);
            let mut lines = Vec::new();
            let steps = steps(|| drop(log.read_view().export_jsonl(&mut lines).expect("exported")));
            (lines, steps)
        };
        grows_in_proportion("an export", 200, |n| exported(n).1);
        grows_in_proportion("an import, and again", 200, |n| {
            let lines = exported(n).0;
            let log = Log::options().open_on(&SimDisk::new(15)).expect("opens");
            let options = amberlog::jsonl::ImportOptions::new().resume();
            steps(|| {
                for _ in 0..2 {
                    let lines = std::io::Cursor::new(&lines);
                    log.import_jsonl_with(&options, lines).expect("imported");
                }
            })
        });
    }
}

#[test]
fn what_is_kept_by_age_is_found() {
    grows_in_proportion("a retention", 200, |n| {
        let retention =
            Retention::new().age_max(Duration::from_secs(1)).idle_max(Duration::from_secs(1));
        let log = Log::options().retain(retention).open_on(&SimDisk::new(16)).expect("opens");
        let _all = chain(&log, n);
        let dry = RetainOptions::new().dry_run().now(Timestamp::from_micros(u64::MAX / 4));
        steps(|| assert!(log.retain(dry).expect("planned").streams_deleted() > 0))
    });
}

/// Reads a stream in an old read view at the same cost however much was committed of it since.
#[test]
fn a_view_that_grows_old() {
    // Some hundred versions are kept of what is said of a stream, whether or not they are seen.
    grows_in_proportion("looks of an old read view", 2_000, |n| {
        let log = options().open_on(&SimDisk::new(17)).expect("opens");
        let mut streams = committed(&log, 2);
        streams[0].rename("first").expect("free");
        one_more(&mut streams[0]);
        let view = log.read_view();
        steps(|| {
            for turn in 0..n {
                let stream = &mut streams[(turn % 2) as usize];
                stream.set_label("turn", &turn.to_string()).expect("fine");
                stream.rename(&format!("name {turn}")).expect("free");
                one_more(stream);
                assert_eq!(view.find("first"), Some(streams[0].id()));
                assert_eq!(view.find("name 0"), None);
                assert_eq!(view.info(streams[0].id()).expect("known").head.get(), 2);
            }
        })
    });
}

/// To find a position takes at most as many steps as a block of the position index has commits, and a few for the search,
/// in a segment of any size, sealed or not, mapped or not.
#[test]
fn a_position_is_found_in_a_segment_of_any_size() {
    const STEPS_MAX: u64 = 64 + 40;
    let found = [256 << 10, 4 << 20].map(|bytes: u64| {
        let options = Log::options().segment_bytes_first(bytes).segment_bytes_max(bytes);
        let disk = SimDisk::new(19);
        let log = options.open_on(&disk).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        // Commits of 1 KiB: 64 start in each block of 64 KiB. A sealed segment, and one that is not.
        let commits = 3 * bytes / 2 / 1_024;
        for _ in 0..commits {
            stream.append([7; 900]).expect("room");
            stream.commit_with(os()).wait().expect("committed");
        }
        one_more_synced(&mut stream);
        let is_sealed = |file: &Vec<u8>| file[file.len() - 96..].starts_with(b"AMBERFIN");
        let files = disk.files();
        let segments = files.iter().filter(|(path, _)| path.ends_with(".seg"));
        assert_eq!(segments.filter(|(_, file)| is_sealed(file)).count(), 1, "{bytes}");
        let view = log.read_view();
        let reopened = amberlog::ReadView::open_unconfirmed_on(&disk).expect("opens").0;
        let starts = (1..commits).step_by(commits as usize / 100);
        let steps_each = starts.flat_map(|from| {
            [&view, &reopened].map(|view| {
                steps(|| {
                    let mut all = view.all_events(from).expect("in range");
                    let first = all.next().expect("there").expect("sound");
                    assert_eq!(first.position().expect("committed").get(), from);
                })
            })
        });
        steps_each.max().expect("some")
    });
    // A reader that goes on in a newer view searches for nothing.
    let log = Log::options().open_on(&SimDisk::new(21)).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    (0..500).for_each(|_| one_more(&mut stream));
    let mut all = log.read_view().all_events(1).expect("in range");
    assert_eq!(all.by_ref().count(), 500);
    one_more(&mut stream);
    let view = log.read_view();
    let more = steps(|| {
        all.continue_in(&view);
        assert_eq!(all.by_ref().count(), 1);
    });
    assert!(more <= 8, "{more} steps to go on");
    println!("steps to a position, in two sizes of segments: {found:?}");
    assert!(found.iter().all(|steps| *steps <= STEPS_MAX), "{found:?}");
}

/// To look at a stream takes as long however many segments hold a part of it, and however many of its commits are under
/// way.
#[test]
fn a_stream_that_is_long() {
    grows_in_proportion("looks at a stream in many segments", 100, |n| {
        let log = options().open_on(&SimDisk::new(18)).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        steps(|| {
            for turn in 0..n {
                stream.append([7; 11 << 10]).expect("room");
                stream.commit_with(os()).wait().expect("committed");
                let info = log.read_view().info(stream.id()).expect("known");
                assert_eq!(
                    (info.segments as u64, stream.info().segments as u64),
                    (turn + 1, turn + 1)
                );
            }
        })
    });
}
