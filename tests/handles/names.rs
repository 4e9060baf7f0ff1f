//! Who holds a name while it is given, taken away or lost, by several handles and by commits in flight?

use std::error::Error as _;

use amberlog::sim::{Fault, SimDisk};
use amberlog::{CommitOptions, Error, ErrorKind, Expect, Log, Stream, StreamId, StreamOptions};

use crate::support::waiting::ends;

/// A log on a real disk, and one on a simulated disk without threads: there nothing starts by itself.
fn on_each_disk(test: impl Fn(&Log)) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    test(&Log::open(dir.path().join("log")).expect("opens"));
    test(&Log::options().open_on(&SimDisk::new(1)).expect("opens"));
}

fn named(log: &Log, name: &str) -> Stream {
    log.create_stream_with(&StreamOptions::new().name(name)).expect("free")
}

/// Opens or creates on another thread, so that a call that never returns fails the test.
fn asked(log: &Log, name: &'static str) -> Result<StreamId, Error> {
    let log = log.clone();
    ends("open_or_create", move || log.open_or_create(name).map(|stream| stream.id()))
}

fn is_free(log: &Log, name: &'static str) -> bool {
    let free = log.create_stream_with(&StreamOptions::new().name(name)).is_ok();
    assert_eq!(log.read_view().find(name).is_none(), free, "{name}: held by no stream");
    free && asked(log, name).is_ok()
}

fn name_of(log: &Log, id: StreamId) -> Option<String> {
    log.read_view().info(id).and_then(|info| info.name)
}

fn later() -> CommitOptions {
    CommitOptions::new().later()
}

#[test]
fn a_deletion_frees_the_name_that_it_carries() {
    on_each_disk(|log| {
        let mut stream = log.open_or_create("old").expect("created");
        stream.rename("new").expect("free");
        stream.delete().wait().expect("deleted");
        assert!(is_free(log, "old") && is_free(log, "new"), "the handle lives");
        drop(stream);
        assert!(!is_free(log, "old") && !is_free(log, "new"), "others have them by now");
        let mut unnamed = log.create_stream().expect("a stream");
        unnamed.append("event").expect("room");
        unnamed.commit().wait().expect("committed");
        unnamed.rename("first").expect("free");
        unnamed.delete().wait().expect("deleted");
        assert!(is_free(log, "first"));
    });
}

/// A deletion frees what other handles of the stream have reserved or have in flight, in one group or several.
#[test]
fn a_deletion_frees_the_names_of_all_handles() {
    on_each_disk(|log| {
        let mut stream = log.open_or_create("old").expect("created");
        let (mut renames, mut waits) =
            (log.open_stream(stream.id()).unwrap(), log.open_stream(stream.id()).unwrap());
        renames.rename("in flight").expect("free");
        waits.rename("waiting").expect("free");
        let ticket = renames.commit_with(later());
        stream.delete().wait().expect("deleted");
        ticket.wait().expect("committed before");
        for name in ["old", "in flight", "waiting"] {
            assert!(is_free(log, name), "{name}");
        }
        let refused = waits.commit().wait().expect_err("deleted");
        assert_eq!(*refused.kind(), ErrorKind::Deleted(stream.id()));
        drop((stream, renames, waits));
        assert!(
            !is_free(log, "waiting"),
            "a handle that goes takes no name of another stream along"
        );
    });
}

#[test]
fn a_deletion_in_one_commit_with_others_frees_its_names() {
    on_each_disk(|log| {
        let mut first = log.open_or_create("first").expect("created");
        let mut other = log.open_or_create("other").expect("created");
        first.rename("third").expect("free");
        let deleted = first.delete();
        other.rename("fourth").expect("free");
        log.commit_all([&mut other]).wait().expect("committed");
        deleted.wait().expect("deleted");
        assert!(is_free(log, "first") && is_free(log, "third") && is_free(log, "other"));
        assert!(!is_free(log, "fourth"));
    });
}

/// A deletion that fails gives the name back to its handle; the next one frees it.
#[test]
fn a_deletion_that_failed_keeps_the_name_and_the_next_one_frees_it() {
    let disk = SimDisk::new(1);
    let log = Log::options().open_on(&disk).expect("opens");
    let mut stream = log.open_or_create("old").expect("created");
    stream.rename("new").expect("free");
    disk.fail_at(disk.calls(), Fault::Io);
    stream.delete().wait().expect_err("the disk failed");
    assert!(!is_free(&log, "old"));
    assert_eq!(stream.info().name.as_deref(), Some("new"));
    let refused = log.create_stream_with(&StreamOptions::new().name("new")).expect_err("reserved");
    assert!(matches!(refused.kind(), ErrorKind::NameTaken { .. }), "{refused}");
    stream.delete().wait().expect("deleted");
    assert!(is_free(&log, "old") && is_free(&log, "new"));
}

/// P9: a name that only a commit holds, because its handle is gone: the commit is made and the stream opened, even by
/// the thread that keeps its ticket.
#[test]
fn p9_a_name_that_a_commit_in_flight_holds_is_opened() {
    on_each_disk(|log| {
        for (name, options) in [("later", later()), ("kept", CommitOptions::new())] {
            let mut stream = named(log, name);
            stream.append("event").expect("room");
            let id = stream.id();
            let ticket = stream.commit_with(options);
            drop(stream);
            let (first, second) = (asked(log, name), asked(log, name));
            assert_eq!([first.expect("made"), second.expect("made")], [id, id]);
            assert_eq!(ticket.wait().expect("committed").seqs.end.get(), 1);
        }
    });
}

/// A commit that failed holds the name as long as its ticket is kept: the answer names the holder.
#[test]
fn a_name_that_a_failed_commit_holds_is_taken() {
    let disk = SimDisk::new(1);
    let log = Log::options().open_on(&disk).expect("opens");
    let mut stream = named(&log, "name");
    stream.append("event").expect("room");
    let holder = stream.id();
    let ticket = stream.commit_with(later());
    drop(stream);
    disk.fail_at(disk.calls(), Fault::Io);
    let refused = asked(&log, "name").expect_err("the commit failed");
    assert_eq!(*refused.kind(), ErrorKind::NameTaken { name: "name".into(), holder });
    ticket.wait().expect_err("the disk failed");
    assert_ne!(asked(&log, "name").expect("free"), holder);
}

/// A rename to the name that the stream has keeps it, whatever another handle's commit in flight makes of it.
#[test]
fn a_rename_back_holds_against_a_rename_in_flight() {
    on_each_disk(|log| {
        for (name, renamed) in [("a", Some("b")), ("c", None::<&'static str>)] {
            let mut first = log.open_or_create(name).expect("created");
            let mut second = log.open_stream(first.id()).expect("durable");
            match renamed {
                Some(renamed) => first.rename(renamed).expect("free"),
                None => first.clear_name().expect("a name"),
            }
            let ticket = first.commit_with(later());
            second.rename(name).expect("its name");
            ticket.wait().expect("committed");
            assert_eq!(name_of(log, first.id()).as_deref(), renamed);
            let taken = log.create_stream_with(&StreamOptions::new().name(name));
            taken.expect_err("the second handle holds it");
            second.commit().wait().expect("committed");
            assert_eq!(name_of(log, first.id()).as_deref(), Some(name));
            assert!(renamed.is_none_or(|renamed| is_free(log, renamed)));
            drop((first, second));
            assert!(!is_free(log, name));
        }
    });
}

/// A name that another handle's commit in flight gives is taken away by what comes after it.
#[test]
fn a_cleared_name_holds_against_a_rename_in_flight() {
    on_each_disk(|log| {
        let mut first = log.create_stream().expect("a stream");
        first.append("event").expect("room");
        first.commit().wait().expect("committed");
        let mut second = log.open_stream(first.id()).expect("durable");
        first.rename("name").expect("free");
        let ticket = first.commit_with(later());
        second.clear_name().expect("alive");
        ticket.wait().expect("committed");
        second.commit().wait().expect("committed");
        assert_eq!(name_of(log, first.id()), None);
        assert!(is_free(log, "name"));
    });
}

/// P5: the commit whose own sync fails says that the log is poisoned, because its outcome is unknown.
#[test]
fn p5_a_commit_whose_sync_fails_is_fatal() {
    let disk = SimDisk::new(1);
    let log = Log::options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("first").expect("room");
    stream.commit().wait().expect("committed");
    stream.append("second").expect("room");
    disk.fail_at(disk.calls() + 1, Fault::Io);
    let error = stream.commit().wait().expect_err("the sync failed");
    assert_eq!(*error.kind(), ErrorKind::Poisoned);
    assert!(error.is_fatal() && !error.is_retryable());
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Error>()).expect("a cause");
    assert_eq!((cause.kind(), cause.operation()), (&ErrorKind::Io, "sync"));
    assert!(cause.place().is_some() && cause.source().is_some());
    assert_eq!(stream.buffered(), 1, "the event is back");
    let again = stream.commit().wait().expect_err("poisoned");
    assert_eq!(again.kind(), error.kind());
}

/// Buffered events of a deleted stream are gone when the ticket has resolved.
#[test]
fn nothing_is_buffered_once_the_stream_is_deleted() {
    on_each_disk(|log| {
        let mut stream = log.create_stream().expect("a stream");
        stream.append("committed").expect("room");
        stream.commit().wait().expect("committed");
        stream.append("buffered").expect("room");
        assert_eq!((stream.buffered(), stream.head().get()), (1, 2));
        stream.delete().wait().expect("deleted");
        assert_eq!((stream.buffered(), stream.head().get()), (0, 1));
        stream.discard();
        assert_eq!((stream.buffered(), stream.head().get()), (0, 1));
    });
}

/// P9: a handle that another one's trim has overtaken shows its own head, and no start after it.
#[test]
fn p9_a_handle_behind_a_trim_shows_its_volatile_events() {
    on_each_disk(|log| {
        let mut ahead = log.create_stream().expect("a stream");
        ahead.append("0").expect("room");
        ahead.commit().wait().expect("committed");
        let mut behind = log.open_stream(ahead.id()).expect("durable");
        for text in ["1", "2", "3"] {
            ahead.append(text).expect("room");
        }
        ahead.commit().wait().expect("committed");
        ahead.trim(3).expect("in range");
        ahead.commit().wait().expect("committed");
        assert_eq!((behind.info().start.get(), behind.info().head.get()), (1, 1));
        behind.append("own").expect("room");
        let info = behind.info();
        assert_eq!((info.start.get(), info.head.get(), behind.buffered()), (1, 2, 1));
        let events = behind.events().expect("readable").map(|event| event.expect("whole"));
        let shown: Vec<_> =
            events.map(|event| (event.seq().get(), event.payload().to_vec())).collect();
        assert_eq!(shown, [(1, b"own".to_vec())]);
        let error = behind.commit().wait().expect_err("the head has moved");
        assert!(error.is_conflict());
        behind.commit_with(CommitOptions::new().expect(Expect::Any)).wait().expect("committed");
        assert_eq!((behind.info().start.get(), behind.info().head.get()), (3, 5));
    });
}

/// What is trimmed is an error only where the range asks for it, of what the iterator has left.
#[test]
fn a_range_of_a_range_asks_for_nothing_that_is_trimmed() {
    let log = Log::options().open_on(&SimDisk::new(1)).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for nth in 0..6_u8 {
        stream.append([nth]).expect("room");
    }
    stream.commit().wait().expect("committed");
    stream.trim(2).expect("in range");
    stream.commit().wait().expect("committed");
    let events = || stream.events().expect("readable");
    let seqs = |events: amberlog::Events| -> Vec<Option<u64>> {
        events.map(|event| event.ok().map(|event| event.seq().get())).collect()
    };
    assert_eq!(seqs(events().range(3_u64..5).range(0_u64..)), [Some(3), Some(4)]);
    assert_eq!(seqs(events().range(0_u64..0)), []);
    assert_eq!(seqs(events().range(0_u64..).range(4_u64..)), [Some(4), Some(5)]);
    assert_eq!(seqs(events().range_clamped(0_u64..4).range(0_u64..)), [Some(2), Some(3)]);
    let mut advanced = events();
    advanced.next().expect("an event").expect("whole");
    assert_eq!(seqs(advanced.range(0_u64..)), [Some(3), Some(4), Some(5)]);
    // What is asked for, and trimmed, is still refused.
    assert_eq!(seqs(events().range(0_u64..1)), [None]);
    assert_eq!(seqs(events().range(..4_u64).range(1_u64..)), [None, Some(2), Some(3)]);
    assert_eq!(seqs(events().range(0_u64..).range(1_u64..3)), [None, Some(2)]);
}
