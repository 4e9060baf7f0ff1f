//! Does the text of an error say where it happened, and what to do?

use std::path::Path;

use amberlog::verify::{RecordDump, repair, verify, verify_quick};
use amberlog::{AppendError, Error, Log, ReadView, StreamOptions};

/// The errors of everything that opens the log at a path, but for opening it to write.
fn refusals(path: &Path, target: &Path) -> Vec<Error> {
    vec![
        ReadView::open(path).expect_err("no log"),
        ReadView::open_unconfirmed(path).expect_err("no log"),
        verify(path).expect_err("no log"),
        verify_quick(path).expect_err("no log"),
        repair(path).expect_err("no log"),
        RecordDump::open(path).expect_err("no log"),
        amberlog::maintenance::backup(path, target).expect_err("no log"),
    ]
}

#[test]
fn a_log_that_is_not_there_is_named_by_its_path() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = dir.path().join("copy");
    let file = dir.path().join("file");
    std::fs::write(&file, "no log").expect("written");
    for path in [dir.path().join("nothing"), file.join("below")] {
        for error in refusals(&path, &target) {
            let text = error.to_string();
            assert!(text.contains(path.to_str().expect("UTF-8")), "{text}");
            assert_eq!(error.place().expect("a place").path, path, "{text}");
        }
    }
    let text = Log::open(file.join("below")).expect_err("no directory").to_string();
    assert!(text.contains(file.join("below").to_str().expect("UTF-8")), "{text}");
    let log = Log::open(dir.path().join("log")).expect("opens");
    let text = log.backup(dir.path()).expect_err("not empty").to_string();
    assert!(text.starts_with("backup: "), "{text}");
}

#[test]
fn a_ring_that_is_full_of_events_in_flight_says_to_wait() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream =
        log.create_stream_with(&StreamOptions::new().ring_bytes_max(2_000)).expect("a stream");
    stream.append([7; 1_500]).expect("room");
    let full = stream.append([7; 1_500]).expect_err("full");
    assert!(matches!(full, AppendError::RingFull { in_flight_bytes: 0, .. }), "{full:?}");
    assert!(full.to_string().ends_with("; commit or discard first"), "{full}");
    let ticket = stream.commit_with(amberlog::CommitOptions::new().later());
    let full = stream.append([7; 1_500]).expect_err("full");
    assert!(full.is_retryable() && !full.is_fatal() && !full.is_not_found());
    assert!(full.to_string().ends_with("; wait for a ticket"), "{full}");
    ticket.wait().expect("committed");
    stream.append([7; 1_500]).expect("room again");
}

/// Ids took their time from a finer clock than events: a first event was up to 4 ms older than its stream.
#[test]
fn no_event_is_older_than_its_stream() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    for _ in 0..2_000 {
        let mut stream = log.create_stream().expect("a stream");
        stream.append("event").expect("room");
        let created = stream.id().created().expect("a time");
        let first = stream.events().expect("open").next().expect("there").expect("whole").time();
        assert!(created <= first, "{created}, {first}");
    }
}
