//! Is what `info` tells of a log true, whatever became of the log?

use amberlog::maintenance::CompactOptions;
use amberlog::{Durability, Log, NewEvent, Stream};
use serde_json::Value;

use crate::support::cli::Bench;

fn open(bench: &Bench) -> Log {
    let small = Log::options().durability(Durability::Os).segment_bytes_first(16 << 10);
    small.segment_bytes_max(16 << 10).open(bench.log()).expect("opens")
}

fn filled(log: &Log, events: usize) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    for _ in 0..events {
        stream.append([7; 1_000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    stream
}

fn info(bench: &Bench) -> Value {
    bench.run(&["info", "LOG", "--json"]).ends_with(0).json().remove(0)
}

/// A compaction writes segments of its own, with their own time, and the events before a stream's start do not exist.
#[test]
fn a_trim_and_a_compaction_change_no_creation_time_and_no_number_of_events() {
    let bench = Bench::new();
    let log = open(&bench);
    let (mut trimmed, mut deleted) = (filled(&log, 60), filled(&log, 30));
    let before = info(&bench);
    assert_eq!(before["events"], 90);
    trimmed.trim(50).expect("staged");
    trimmed.commit().wait().expect("trimmed");
    deleted.delete().wait().expect("deleted");
    filled(&log, 20);
    let compacted = log.compact(CompactOptions::new()).expect("compacted");
    assert!(compacted.runs.iter().any(|run| run.segments.contains(&1)), "{compacted:?}");
    drop((trimmed, deleted));
    log.close().expect("closes");
    let after = info(&bench);
    assert_eq!((&after["created"], &after["id"]), (&before["created"], &before["id"]));
    assert_eq!((&after["streams"], &after["events"]), (&Value::from(2), &Value::from(30)));
}

/// Names, labels and data were not counted: a log that took 12 MB was told as 2.4.
#[test]
fn the_memory_of_an_open_log_includes_names_labels_and_data() {
    let bench = Bench::new();
    let log = open(&bench);
    let mut streams: Vec<Stream> =
        (0..50).map(|_| log.create_stream().expect("a stream")).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.rename(&format!("stream {n}")).expect("free");
        (0..20).for_each(|key| {
            stream.set_label(&format!("key {key}"), &"7".repeat(500)).expect("fine");
        });
        stream.set_data(&[7; 2_000]).expect("fine");
        stream.append("event").expect("room");
    }
    log.commit_all(&mut streams).wait().expect("committed");
    let metadata = log.stats().memory.metadata_bytes;
    assert!(metadata > 50 * 12_000, "{metadata}");
    drop(streams);
    log.close().expect("closes");
    let memory = &info(&bench)["memory"];
    assert_eq!(memory["metadata"], metadata);
    let streams = 50 * memory["durable_stream"].as_u64().expect("a number");
    let log = memory["open_log"].as_u64().expect("a number");
    assert_eq!(memory["when_open"], log + streams + metadata);
    let text = bench.run(&["info", "LOG"]).ends_with(0).text();
    assert!(text.contains("names, labels, data"), "{text}");
}

/// A version of 0 is the usual one, and takes no room in an export and in `cat --json`.
#[test]
fn schema_versions_are_shown_and_come_back_from_an_export() {
    let bench = Bench::new();
    let log = open(&bench);
    let mut stream = log.create_stream().expect("a stream");
    stream.rename("a stream").expect("free");
    stream.append("of now").expect("room");
    stream.append(NewEvent::from("of then").schema_version(7)).expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    let shown = |bench: &Bench| {
        let events = bench.run(&["cat", "LOG", "a stream", "--json"]).ends_with(0).json();
        events.iter().map(|event| event["schema_version"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&bench), [None, Some(7)]);
    let dumped = bench.run(&["dump", "LOG", "--events"]).ends_with(0).text();
    assert!(dumped.contains("kind=0 schema_version=7 codec=0"), "{dumped}");
    let export = bench.run(&["export", "LOG"]).ends_with(0);
    assert_eq!(export.text().matches("schema_version").count(), 1);
    let copy = Bench::new();
    let file = copy.file("export.jsonl", &export.out);
    let file = file.to_str().expect("a plain path");
    copy.run(&["import", "--jsonl", "LOG", file]).ends_with(0);
    assert_eq!(shown(&copy), [None, Some(7)]);
}
