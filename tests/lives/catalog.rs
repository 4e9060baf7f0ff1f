//! Does the log know its streams: names, labels, data, lists?
//!
//! The catalog is the fold of the log: what it says is committed with the events, the same after reopening, and what a
//! read view saw it goes on seeing (P1, P2, P12).

use crate::support::verified::checked;
use amberlog::maintenance::CompactOptions;
use amberlog::{
    CommitOptions, Durability, ErrorKind, Log, Options, Order, Page, Query, ReadView, Stream,
    StreamId, StreamOptions, StreamState, Timestamp,
};

fn options() -> Options {
    let options = Log::options().durability(Durability::Os);
    options.segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn commit(stream: &mut Stream) {
    stream.commit().wait().expect("committed");
}

fn ids(page: &Page) -> Vec<StreamId> {
    page.streams.iter().map(|info| info.id).collect()
}

/// An id of the host's choice belongs to one stream for good: volatile, committed or deleted, here and after reopening.
#[test]
fn p1_p8_an_id_that_the_host_chooses_belongs_to_one_stream() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let id = StreamId::from_bytes(*b"thread 000000001");
    let of = |id| StreamOptions::new().id(id);
    let refused = |log: &Log, kind: ErrorKind| {
        let error = log.create_stream_with(&of(id)).expect_err("it has one");
        assert_eq!(*error.kind(), kind);
        let mut parent = log.create_stream().expect("a stream");
        parent.append("shared").expect("room");
        let error = parent.fork_with(1_u64, &of(id)).expect_err("it has one");
        assert_eq!(*error.kind(), kind);
    };
    let log = options().open(dir.path().join("log")).expect("opens");
    let zero = log.create_stream_with(&of(StreamId::from_bytes([0; 16]))).expect_err("reserved");
    assert!(matches!(zero.kind(), ErrorKind::InvalidOption(_)), "{zero}");
    let stream = log.create_stream_with(&of(id)).expect("free");
    assert_eq!((stream.id(), stream.info().created), (id, None));
    refused(&log, ErrorKind::StreamExists(id));
    assert!(!log.path().exists(), "P1: nothing is on disk");
    drop(stream);
    let mut stream = log.create_stream_with(&of(id)).expect("free again: it was never committed");
    stream.append("first").expect("room");
    commit(&mut stream);
    refused(&log, ErrorKind::StreamExists(id));
    drop(stream);
    refused(&log, ErrorKind::StreamExists(id));
    let error = log.open_stream_with(id, &of(id)).expect_err("it has its id");
    assert!(matches!(error.kind(), ErrorKind::InvalidOption(_)), "{error}");
    let child = StreamId::from_bytes([7; 16]);
    let mut fork = log.open_stream(id).expect("durable").fork_with(1_u64, &of(child)).expect("new");
    commit(&mut fork);
    log.close().expect("closes");
    let log = options().open(dir.path().join("log")).expect("opens");
    refused(&log, ErrorKind::StreamExists(id));
    assert_eq!(log.read_view().info(child).expect("known").parent, Some((id, 1.into())));
    log.open_stream(id).expect("durable").delete().wait().expect("deleted");
    refused(&log, ErrorKind::Deleted(id));
    log.close().expect("closes");
    let log = options().open(dir.path().join("log")).expect("opens");
    log.compact(CompactOptions::new().purge()).expect("compacted");
    refused(&log, ErrorKind::Deleted(id));
    log.close().expect("closes");
    let log = options().open(dir.path().join("log")).expect("opens");
    refused(&log, ErrorKind::Deleted(id));
}

/// A handle of a deleted volatile stream has left the id to the next one.
#[test]
fn p9_a_dropped_handle_does_not_forget_another_stream_of_its_id() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path().join("log")).expect("opens");
    let id = StreamId::from_bytes([9; 16]);
    let create = || log.create_stream_with(&StreamOptions::new().id(id));
    let mut first = create().expect("free");
    first.delete().wait().expect("it was volatile");
    let _second = create().expect("free again");
    drop(first);
    let error = log.open_stream(id).expect_err("volatile");
    assert!(matches!(error.kind(), ErrorKind::NotMaterialized { .. }), "{error}");
    assert_eq!(*create().expect_err("it has one").kind(), ErrorKind::StreamExists(id));
    assert_eq!(log.list(&Query::new().volatile()).expect("listed").streams.len(), 1);
}

/// P8: two handles cannot create one stream: the second commit is a conflict.
#[test]
fn p8_an_id_that_another_commit_took_meanwhile_is_a_conflict() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path().join("log")).expect("opens");
    let id = StreamId::from_bytes([9; 16]);
    let create = || log.create_stream_with(&StreamOptions::new().id(id)).expect("free");
    let mut first = create();
    first.append("first").expect("room");
    let ticket = first.commit_with(CommitOptions::new().later());
    drop(first);
    let mut second = create();
    second.append("second").expect("room");
    let error = second.commit().wait().expect_err("the first one is there");
    assert!(matches!(error.kind(), ErrorKind::Conflict { .. }), "{error}");
    ticket.wait().expect("committed");
    let events = log.read_view().events(id).expect("known");
    let payloads: Vec<_> = events.map(|event| event.expect("whole").payload().to_vec()).collect();
    assert_eq!(payloads, [b"first"]);
}

#[test]
fn metadata_rides_with_the_next_commit_and_old_view_keep_theirs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = options().open(&path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.rename("draft").expect("free");
    stream.set_label("owner", "ada").expect("fine");
    stream.set_label("gone", "soon").expect("fine");
    stream.set_data(b"\x01\x02").expect("fine");
    stream.append("first").expect("room");
    assert!(!path.exists(), "P1: nothing before the first commit");
    let before = stream.info();
    assert_eq!((before.name.as_deref(), before.labels.len()), (Some("draft"), 2));
    commit(&mut stream);
    let id = stream.id();
    let old = log.read_view();
    assert_eq!(old.info(id).map(|info| info.labels), Some(before.labels), "P9");
    stream.rename("thread").expect("free");
    stream.remove_label("gone").expect("fine");
    stream.set_label("owner", "grace").expect("fine");
    stream.set_data(b"").expect("fine");
    assert_eq!(log.read_view().find("draft"), Some(id), "P2: only commits change anything");
    assert_eq!(log.read_view().find("thread"), None);
    let mut other = log.create_stream().expect("a stream");
    let taken = other.rename("thread").expect_err("reserved");
    assert!(matches!(taken.kind(), ErrorKind::NameTaken { holder, .. } if *holder == id));
    commit(&mut stream);
    let check = |view: &ReadView| {
        let info = view.info(id).expect("known");
        assert_eq!(info.name.as_deref(), Some("thread"));
        assert_eq!(info.labels.into_iter().collect::<Vec<_>>(), [("owner".into(), "grace".into())]);
        assert_eq!(info.data, None);
        assert_eq!((view.find("thread"), view.find("draft")), (Some(id), None));
    };
    check(&log.read_view());
    other.rename("draft").expect("free again");
    commit(&mut other);
    assert_eq!(log.read_view().find("draft"), Some(other.id()));
    let info = old.info(id).expect("known");
    assert_eq!(info.name.as_deref(), Some("draft"), "as it was");
    assert_eq!(info.data.as_deref(), Some(&b"\x01\x02"[..]));
    assert_eq!((old.find("draft"), old.find("thread")), (Some(id), None));
    let other = other.id();
    drop((stream, old));
    log.close().expect("closes");
    let log = options().open(&path).expect("opens again");
    assert_eq!(log.read_view().find("draft"), Some(other));
    assert_eq!(log.read_view().info(id).expect("known").name.as_deref(), Some("thread"));
    let mut stream = log.open_stream(id).expect("known");
    stream.clear_name().expect("it has one");
    commit(&mut stream);
    assert_eq!(log.read_view().find("thread"), None);
    let mut third = log.create_stream().expect("a stream");
    third.rename("thread").expect("free again");
    commit(&mut third);
    assert!(checked(&path).expect("readable").is_sound());
}

#[test]
fn metadata_has_limits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path().join("log")).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..64 {
        stream.set_label(&format!("{n}"), "v").expect("up to 64");
    }
    stream.set_label("3", "again").expect("one that is there");
    for outcome in [
        stream.set_label("64", "v"),
        stream.set_label("", "v"),
        stream.set_label("1", ""),
        stream.set_label(&"k".repeat(129), "v"),
        stream.set_label("1", &"v".repeat(1025)),
        stream.set_data(&vec![0; (64 << 10) + 1]),
    ] {
        let error = outcome.expect_err("over a limit");
        assert!(matches!(error.kind(), ErrorKind::InvalidMetadata(_)), "{error}");
    }
    stream.set_data(&vec![7; 64 << 10]).expect("up to 64 KiB");
    commit(&mut stream);
    let info = log.read_view().info(stream.id()).expect("known");
    assert_eq!((info.labels.len(), info.data.map(|data| data.len())), (64, Some(64 << 10)));
}

/// A commit that fails leaves the changes to the next one.
#[cfg(feature = "sim")]
#[test]
fn p5_a_failed_commit_keeps_what_was_changed() {
    let disk = amberlog::sim::SimDisk::new(1);
    let log = options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("first").expect("room");
    commit(&mut stream);
    stream.rename("named").expect("free");
    stream.rewind(0).expect("all of it");
    stream.append("other").expect("room");
    disk.fail_at(disk.calls(), amberlog::sim::Fault::Io);
    stream.commit().wait().expect_err("the disk refuses");
    assert_eq!(stream.info().name.as_deref(), Some("named"));
    assert_eq!(stream.events().expect("readable").count(), 1);
    // What has a ticket of its own is not done later behind one's back.
    disk.fail_at(disk.calls(), amberlog::sim::Fault::Io);
    stream.delete().wait().expect_err("the disk refuses");
    assert!(stream.is_durable());
    stream.append("more").expect("it is not deleted");
    commit(&mut stream);
    let info = log.read_view().info(stream.id()).expect("known");
    assert_eq!((info.name.as_deref(), info.head.get(), info.generation), (Some("named"), 2, 1));
}

/// Streams in all states, with labels, names and parents; listed in pages of every size, in every order.
#[test]
fn lists_page_through_everything_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut streams: Vec<Stream> = Vec::new();
    for n in 0..60_u32 {
        let mut stream = match n % 7 {
            3 => streams[0].fork_at(1).expect("forked"),
            _ => log.create_stream().expect("a stream"),
        };
        stream.rename(&format!("{}/{n}", ["work", "play"][n as usize % 2])).expect("free");
        stream.set_label("third", &(n % 3).to_string()).expect("fine");
        if n % 4 > 0 {
            stream.set_label("updated", &format!("{:02}", (n / 2 * 37) % 60)).expect("fine");
        }
        stream.append("event").expect("room");
        commit(&mut stream);
        match n % 10 {
            8 => drop(stream.archive().wait().expect("archived")),
            9 => drop(stream.delete().wait().expect("deleted")),
            _ => {}
        }
        streams.push(stream);
    }
    // The order of commits is another one than that of creation.
    for at in [7, 3, 50, 21] {
        streams[at].append("more").expect("room");
        commit(&mut streams[at]);
    }
    let old = log.read_view();
    let expected_old = all_pages(&old, &Query::new().order(Order::Committed), 9);
    streams[30].append("later").expect("room");
    commit(&mut streams[30]);
    assert_eq!(all_pages(&old, &Query::new().order(Order::Committed), 9), expected_old);
    let check = |view: &ReadView| {
        let number = |n: usize| streams[n].id();
        let active: Vec<_> = (0..60).filter(|n| n % 10 < 8).map(number).collect();
        let by_commit = {
            let late = [7, 3, 50, 21, 30];
            let early = (0..60).filter(|n| n % 10 < 8 && !late.contains(n));
            early.chain(late).map(number).collect::<Vec<_>>()
        };
        let by_label = {
            let mut labelled: Vec<_> = (0..60).filter(|n| n % 10 < 8 && n % 4 > 0).collect();
            labelled.sort_by_key(|n| ((n / 2 * 37) % 60, number(*n)));
            labelled.into_iter().map(number).collect::<Vec<_>>()
        };
        let states = Query::new().state(StreamState::Archived).state(StreamState::Deleted);
        let some = |query: Query, holds: fn(usize) -> bool| {
            let expected: Vec<_> =
                (0..60).filter(|n| n % 10 < 8 && holds(*n)).map(number).collect();
            (query, expected)
        };
        let mut cases = vec![
            (Query::new(), active),
            (Query::new().order(Order::Committed), by_commit),
            (Query::new().order(Order::Label("updated".into())), by_label),
            (Query::new().order(Order::Label("no such label".into())), Vec::new()),
            (states, (0..60).filter(|n| n % 10 >= 8).map(number).collect()),
            some(Query::new().has_label("third"), |_| true),
            some(Query::new().has_label("fourth"), |_| false),
            some(Query::new().label("third", "1"), |n| n % 3 == 1),
            some(Query::new().name_prefix("work/"), |n| n % 2 == 0),
            some(Query::new().name_prefix("play/3"), |n| matches!(n, 3 | 31 | 33 | 35 | 37)),
            some(Query::new().parent(streams[0].id()), |n| n % 7 == 3),
            some(Query::new().label("third", "0").name_prefix("play"), |n| n % 6 == 3),
        ];
        let middle = streams[30].id().created().expect("a time");
        cases.push((
            Query::new().created_from(middle),
            cases[0].1.iter().copied().filter(|id| id.created() >= Some(middle)).collect(),
        ));
        cases.push((
            Query::new().created_until(middle),
            cases[0].1.iter().copied().filter(|id| id.created() < Some(middle)).collect(),
        ));
        for (query, mut expected) in cases {
            if format!("{query:?}").contains("Created") {
                expected.sort_unstable();
            }
            for size in [1, 7, 60, 1000] {
                assert_eq!(all_pages(view, &query, size), expected, "{query:?}");
            }
            expected.reverse();
            assert_eq!(all_pages(view, &query.clone().descending(), 7), expected, "{query:?}");
        }
    };
    check(&log.read_view());
    check(&ReadView::open(dir.path()).expect("readable").0);
    let none = log.list(&Query::new().limit(50).name_prefix("nothing")).expect("listed");
    assert!(none.streams.is_empty() && none.next.is_none());
}

fn all_pages(view: &ReadView, query: &Query, size: usize) -> Vec<StreamId> {
    let (mut all, mut query) = (Vec::new(), query.clone().limit(size));
    loop {
        let page = view.list(&query).expect("listed");
        assert!(page.streams.len() <= size && (page.next.is_none() || page.streams.len() == size));
        all.extend(ids(&page));
        let Some(next) = page.next else { return all };
        query = query.after(next);
    }
}

#[test]
fn p9_volatile_streams_are_listed_when_asked_for_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut durable = log.create_stream().expect("a stream");
    durable.append("event").expect("room");
    commit(&mut durable);
    let plain = log.create_stream().expect("a stream");
    let mut named = log.create_stream().expect("a stream");
    named.rename("named").expect("free");
    named.set_label("k", "v").expect("fine");
    assert_eq!(ids(&log.list(&Query::new()).expect("listed")), [durable.id()]);
    let mut every = [durable.id(), plain.id(), named.id()];
    every.sort_unstable();
    assert_eq!(ids(&log.list(&Query::new().volatile()).expect("listed")), every);
    let labelled = log.list(&Query::new().volatile().has_label("k")).expect("listed");
    assert_eq!(ids(&labelled), [named.id()]);
    assert_eq!(labelled.streams[0].name.as_deref(), Some("named"));
    let last = log.list(&Query::new().volatile().order(Order::Committed).limit(1)).expect("listed");
    assert_eq!(ids(&last), [durable.id()]);
    drop(plain);
    assert_eq!(log.list(&Query::new().volatile()).expect("listed").streams.len(), 2);
}

fn ranked(log: &Log, rank: &str) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    stream.set_label("rank", rank).expect("fine");
    stream.append("event").expect("room");
    stream
}

fn by_rank() -> Query {
    Query::new().order(Order::Label("rank".into()))
}

/// Values by bytes, equal ones by id.
fn sorted(of: &[(&str, StreamId)]) -> Vec<StreamId> {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().map(|(_, id)| id).collect()
}

/// Each page continues behind the value and the id of the last stream before it, whatever becomes of both meanwhile.
#[test]
fn p7_a_cursor_in_the_order_of_a_label_stays_valid_while_labels_change() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let ranks = ["b", "d", "ä", "d", "a", "c"];
    let mut streams: Vec<Stream> = ranks.map(|rank| ranked(&log, rank)).into();
    streams.iter_mut().for_each(commit);
    let id = streams.iter().map(Stream::id).collect::<Vec<_>>();
    let old = log.read_view();
    let all: Vec<_> = ranks.into_iter().zip(id.iter().copied()).collect();
    assert_eq!(all_pages(&old, &by_rank(), 1), sorted(&all));
    let first = log.list(&by_rank().limit(2)).expect("listed");
    assert_eq!(ids(&first), [id[4], id[0]]);
    let next: amberlog::Cursor =
        first.next.expect("there is more").to_string().parse().expect("its own text");
    // The stream of the cursor goes behind it, one that was listed loses its label, one that was not goes before it.
    for (at, rank) in [(0, Some("z")), (4, None), (1, Some("aa"))] {
        match rank {
            Some(rank) => streams[at].set_label("rank", rank).expect("fine"),
            None => streams[at].remove_label("rank").expect("fine"),
        }
        commit(&mut streams[at]);
    }
    assert_eq!(
        ids(&log.list(&by_rank().after(next.clone())).expect("listed")),
        [5, 3, 0, 2].map(|at: usize| id[at])
    );
    assert_eq!(ids(&old.list(&by_rank().after(next)).expect("listed")), sorted(&all)[2..], "P12");
    assert_eq!(all_pages(&old, &by_rank(), 2), sorted(&all), "P12");
}

/// An empty or a wrong page would look like the end of the list.
#[test]
fn a_cursor_of_another_query_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let mut streams: Vec<Stream> = ["b", "a", "c"].map(|rank| ranked(&log, rank)).into();
    streams.iter_mut().for_each(commit);
    let view = log.read_view();
    let parent = streams[0].id();
    let time = Timestamp::from_micros(1);
    let queries = [
        Query::new(),
        Query::new().descending(),
        Query::new().order(Order::Committed),
        by_rank(),
        Query::new().order(Order::Label("committed".into())),
        Query::new().has_label("rank"),
        Query::new().label("rank", "a"),
        Query::new().label("rank", ""),
        Query::new().name_prefix("rank"),
        Query::new().parent(parent),
        Query::new().state(StreamState::Archived),
        Query::new().state(StreamState::Archived).state(StreamState::Active),
        Query::new().created_from(Timestamp::from_micros(1_000)),
        Query::new().created_until(Timestamp::from_micros(1_000)),
        Query::new().committed_from(time),
        Query::new().committed_until(time),
        Query::new().volatile(),
    ];
    for (at, query) in queries.iter().enumerate() {
        let Some(next) = view.list(&query.clone().limit(1)).expect("listed").next else { continue };
        let next: amberlog::Cursor = next.to_string().parse().expect("its own text");
        for (other_at, other) in queries.iter().enumerate() {
            let other = other.clone().after(next.clone());
            for listed in [view.list(&other), log.list(&other)] {
                let is_refused =
                    listed.is_err_and(|error| *error.kind() == ErrorKind::ForeignCursor);
                assert_eq!(is_refused, other_at != at, "{query:?}, {other:?}");
            }
        }
    }
    // The same query in other words, and with another limit.
    let both = Query::new().state(StreamState::Active).has_label("rank").has_label("rank");
    let next = view.list(&both.limit(1)).expect("listed").next.expect("there is more");
    let same = Query::new().has_label("rank").limit(7).after(next);
    assert_eq!(view.list(&same).expect("listed").streams.len(), 2);
}

#[test]
fn p9_volatile_streams_are_listed_by_their_labels_among_the_durable_ones() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options().open(dir.path()).expect("opens");
    let ranks = ["3", "1", "4", "2", "5", "2"];
    let mut streams: Vec<Stream> = ranks.map(|rank| ranked(&log, rank)).into();
    let _without = log.create_stream().expect("a stream");
    let all: Vec<_> = ranks.into_iter().zip(streams.iter().map(Stream::id)).collect();
    streams.iter_mut().skip(3).for_each(commit);
    let mut expected = sorted(&all);
    for (at, query) in [by_rank(), by_rank().descending()].into_iter().enumerate() {
        let query = query.volatile().limit(1);
        let (mut listed, mut asked) = (Vec::new(), query.clone());
        while let Page { streams: page, next: Some(next), .. } = log.list(&asked).expect("listed") {
            listed.extend(page.iter().map(|info| info.id));
            asked = query.clone().after(next);
            // Between two pages a volatile stream becomes durable.
            if listed.len() == 2 {
                commit(&mut streams[at]);
            }
        }
        listed.extend(ids(&log.list(&asked).expect("listed")));
        assert_eq!(listed, expected, "{query:?}");
        expected.reverse();
    }
}
