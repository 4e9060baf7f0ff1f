//! What does `open_or_create` make of a name, in every state of the stream that may have it?

use std::collections::BTreeSet;
use std::thread;

use amberlog::{ErrorKind, Log, StreamId, StreamOptions};

const THREADS: usize = 8;

fn log() -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path().join("log")).expect("opens");
    (dir, log)
}

/// Without a turn for each name, a thread is told that the stream of another is not committed yet.
#[test]
fn p9_threads_that_ask_for_a_name_at_once_get_one_stream() {
    let (_dir, log) = log();
    for round in 0..20 {
        let name = format!("room {round}");
        let ids: BTreeSet<StreamId> = thread::scope(|scope| {
            let ask = || {
                let mut stream = log.open_or_create(&name).expect("opened or created");
                stream.append("here").expect("room");
                stream.id()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(ids.len(), 1, "{name}");
        let info = log.read_view().info(ids.into_iter().next().expect("one")).expect("durable");
        assert_eq!((info.name.as_deref(), info.head.get()), (Some(&*name), 0), "P2: no event");
    }
    assert_eq!(log.read_view().position().get(), 20, "one commit for each name");
}

/// P1: a name that is refused leaves nothing behind.
#[test]
fn p1_a_name_that_is_refused_makes_no_stream() {
    let (_dir, log) = log();
    let error = log.open_or_create("").expect_err("no name");
    assert_eq!(*error.kind(), ErrorKind::InvalidName);
    for own in ["~", "~cursor"] {
        let options = StreamOptions::new().name(own);
        let refused = [
            log.open_or_create(own).expect_err("reserved"),
            log.create_stream_with(&options).expect_err("reserved"),
            log.create_stream().expect("a stream").rename(own).expect_err("reserved"),
        ];
        assert!(refused.iter().all(|error| *error.kind() == ErrorKind::NameReserved));
    }
    let id = StreamId::new();
    let error = log.open_or_create(&id.to_string()).expect_err("an id");
    assert_eq!(*error.kind(), ErrorKind::NameIsAnId(id));
    assert!(!log.path().exists(), "nothing is on disk");
}

#[test]
fn p9_a_name_that_a_volatile_stream_holds_is_not_materialized() {
    let (_dir, log) = log();
    let named = StreamOptions::new().name("draft");
    let mut draft = log.create_stream_with(&named).expect("a stream");
    let error = log.open_or_create("draft").expect_err("volatile");
    let kind = ErrorKind::NotMaterialized { stream: draft.id(), buffered: None };
    assert_eq!(*error.kind(), kind);
    assert!(error.is_retryable());
    draft.commit().wait().expect("committed");
    assert_eq!(log.open_or_create("draft").expect("durable").id(), draft.id());
    // The name goes with a handle that never committed it.
    drop(log.create_stream_with(&StreamOptions::new().name("gone")).expect("a stream"));
    log.open_or_create("gone").expect("free");
}

#[test]
fn a_name_that_a_rename_has_reserved_is_taken() {
    let (_dir, log) = log();
    let mut first = log.open_or_create("first").expect("created");
    first.rename("second").expect("free");
    let error = log.open_or_create("second").expect_err("reserved");
    let kind = ErrorKind::NameTaken { name: "second".into(), holder: first.id() };
    assert_eq!(*error.kind(), kind);
    assert!(error.is_conflict());
    assert_eq!(log.open_or_create("first").expect("until it is committed").id(), first.id());
    first.commit().wait().expect("committed");
    assert_eq!(log.open_or_create("second").expect("its new name").id(), first.id());
    assert_ne!(log.open_or_create("first").expect("free").id(), first.id());
}

#[test]
fn an_archived_stream_is_opened_as_it_is_and_the_name_of_a_deleted_one_is_free() {
    let (_dir, log) = log();
    let mut stream = log.open_or_create("a").expect("created");
    stream.append("kept").expect("room");
    stream.commit().wait().expect("committed");
    stream.archive().wait().expect("archived");
    let mut again = log.open_or_create("a").expect("archived");
    assert_eq!((again.id(), again.head().get()), (stream.id(), 1));
    again.append("no").expect_err("archived");
    again.unarchive().wait().expect("writable");
    again.append("yes").expect("room");
    again.delete().wait().expect("deleted");
    let anew = log.open_or_create("a").expect("free");
    assert_ne!(anew.id(), stream.id());
    assert_eq!(anew.head().get(), 0);
    let (id, path) = (anew.id(), log.path().to_owned());
    drop((stream, again, anew, log));
    let log = Log::open(path).expect("opens");
    assert_eq!(log.open_or_create("a").expect("durable").id(), id);
    log.clone().close().expect("closed");
    assert_eq!(*log.open_or_create("a").expect_err("closed").kind(), ErrorKind::Closed);
}
