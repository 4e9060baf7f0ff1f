//! What does a quota refuse, and what not?
#![cfg(feature = "sim")]

use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{Error, ErrorKind, Log, Options, StreamState};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

#[test]
fn p5_a_quota_refuses_events_and_lets_room_be_made() {
    let disk = SimDisk::new(6);
    let log = options().quota_bytes(100 << 10).open_on(&disk).expect("opens");
    let mut streams = Vec::new();
    let refused = loop {
        let mut stream = log.create_stream().expect("a stream");
        stream.append([7; 1_500]).expect("room");
        match stream.commit().wait() {
            Ok(_) => streams.push(stream),
            Err(error) => break (stream, error),
        }
    };
    let (mut waiting, error) = refused;
    assert!(
        matches!(error.kind(), ErrorKind::QuotaExceeded { quota_bytes: 102_400, .. }),
        "{error}"
    );
    assert_eq!(waiting.buffered(), 1, "the event is back");
    let before = log.read_view().position();
    for stream in &mut streams {
        stream.delete().wait().expect("deleting makes room");
    }
    assert!(log.read_view().position() > before);
    waiting.commit().wait().expect_err("nothing was compacted yet");
    assert!(log.compact(CompactOptions::new()).expect("compacted").freed_bytes() > 0);
    waiting.commit().wait().expect("there is room");
    assert_eq!(log.read_view().info(waiting.id()).expect("known").state, StreamState::Active);
}

/// Names, labels and data that a commit adds are held to the quota; what frees or marks is not.
#[test]
fn a_quota_holds_what_is_said_of_streams() {
    const QUOTA: u64 = 200_000;
    let log = Log::options().quota_bytes(QUOTA).open_on(&SimDisk::new(1)).expect("opens");
    let mut stream = log.open_or_create("a").expect("created");
    stream.append("event").expect("room");
    stream.commit().wait().expect("room");
    let mut other = log.open_or_create("b").expect("created");
    other.set_label("key", "value").expect("room");
    other.commit().wait().expect("room");
    let data = [7; 60_000];
    let refused = (0..100).find_map(|_| {
        stream.set_data(&data).expect("memory");
        stream.commit().wait().err()
    });
    let is_refused = |error: &Error| matches!(error.kind(), ErrorKind::QuotaExceeded { .. });
    assert!(is_refused(&refused.expect("not without a bound")));
    let label = "v".repeat(1_000);
    let mut labels = 0;
    let refused = loop {
        let mut stream = log.create_stream().expect("a stream");
        for nth in 0..60 {
            stream.set_label(&format!("{nth}"), &label).expect("memory");
        }
        match stream.commit().wait() {
            Ok(_) => labels += 1,
            Err(error) => break error,
        }
        assert!(labels < 10, "labels are held to it");
    };
    assert!(is_refused(&refused));
    other.remove_label("key").expect("alive");
    other.clear_name().expect("alive");
    other.commit().wait().expect("removing is not refused");
    other.archive().wait().expect("marking is not refused");
    other.unarchive().wait().expect("marking is not refused");
    other.delete().wait().expect("deleting is not refused");
    stream.delete().wait().expect("deleting is not refused, whatever goes along");
}
