//! Does an event keep the schema version that the program gave it, wherever the event goes?
//!
//! P3, P14.
#![cfg(feature = "sim")]

use amberlog::maintenance::CompactOptions;
use amberlog::typed::CodecId;
use amberlog::{Event, EventKind, Log, NewEvent, Position, ReadView, Stream, StreamId};

/// Every byte that a version can be, beside kinds and codecs of other values.
fn append_all(stream: &mut Stream) {
    for version in 0..=u8::MAX {
        let event = NewEvent::new(EventKind(u16::from(version) * 257), [version; 5]);
        let codec = CodecId(u8::MAX - version);
        stream.append(event.schema_version(version).codec(codec)).expect("room");
    }
}

#[track_caller]
fn is_all(events: impl Iterator<Item = amberlog::Result<Event>>) {
    let mut count = 0;
    for (version, event) in (0..=u8::MAX).zip(events) {
        let event = event.expect("whole");
        assert_eq!(event.schema_version(), version);
        assert_eq!(event.lend().schema_version(), version);
        assert_eq!(event.codec(), CodecId(u8::MAX - version));
        assert_eq!(event.kind(), EventKind(u16::from(version) * 257));
        assert_eq!(event.payload(), [version; 5]);
        count += 1;
    }
    assert_eq!(count, 256);
}

#[track_caller]
fn is_all_in(view: &ReadView, id: StreamId) {
    is_all(view.events(id).expect("known"));
}

#[test]
fn p3_p14_a_schema_version_stays_with_its_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let log = Log::open(&path).expect("opens");
    assert_eq!(NewEvent::from("plain").schema_version, 0);
    let mut stream = log.create_stream().expect("a stream");
    append_all(&mut stream);
    is_all(stream.events().expect("volatile"));
    let mut fork = stream.fork_at(stream.head()).expect("forked");
    is_all(fork.events().expect("volatile"));
    let ids = [stream.id(), fork.id()];
    stream.commit().wait().expect("committed");
    fork.commit().wait().expect("committed");
    is_all(log.read_view().all_events(Position::START).expect("in range"));
    log.compact(CompactOptions::new().purge()).expect("compacted");
    let archive = path.join(log.write_archive(ids[0]).expect("written").path);
    is_all_in(&ReadView::open(archive).expect("an archive").0, ids[0]);
    drop((stream, fork));
    log.close().expect("closes");
    let log = Log::open(&path).expect("opens");
    for id in ids {
        is_all_in(&log.read_view(), id);
        let backwards: Vec<_> = log.read_view().events(id).expect("known").rev().collect();
        is_all(backwards.into_iter().rev());
    }
}
