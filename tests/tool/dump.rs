//! Does `dump` show every record, and all that it says?

use std::collections::BTreeSet;
use std::fs;

use amberlog::verify::{Record, RecordDump};
use amberlog::{CommitId, CommitOptions, Log, Overflow, StreamOptions};
use serde_json::Value;

use crate::support::cli::Bench;

/// Every kind of record that the engine writes, or that stands in the place of one.
const KINDS: [&str; 19] = [
    "segment",
    "no-header",
    "commit",
    "events",
    "event",
    "gap",
    "name",
    "label",
    "data",
    "state",
    "start",
    "parent",
    "fork",
    "rewind",
    "commit-id",
    "tail-record",
    "footer",
    "unreadable",
    "zeros",
];

/// A log in which something of every kind lies.
fn of_every_kind(bench: &Bench) {
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = options.open(bench.log()).expect("opens");
    let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(400);
    let mut stream = log.create_stream_with(&recorder.name("a name")).expect("a stream");
    stream.set_label("colour", "dark \u{1b}red").expect("fine");
    stream.set_label("gone", "7").expect("fine");
    stream.set_data(b"of the host").expect("fine");
    (0..50).for_each(|_| assert!(stream.append("an event").is_ok()));
    let id = CommitOptions::new().id(CommitId::from(7));
    stream.commit_with(id).wait().expect("committed");
    stream.remove_label("gone").expect("fine");
    stream.rewind(48).expect("there");
    stream.commit().wait().expect("committed");
    let mut fork = stream.fork_at(47).expect("there");
    fork.append("of the fork").expect("room");
    fork.commit().wait().expect("committed");
    stream.trim(46).expect("staged");
    stream.commit().wait().expect("trimmed");
    stream.archive().wait().expect("archived");
    let mut filler = log.create_stream().expect("a stream");
    for _ in 0..8 {
        filler.append(vec![b'x'; 4_000]).expect("room");
        filler.commit().wait().expect("committed");
    }
    drop((stream, fork, filler));
    log.close().expect("closes");
    let mut files: Vec<_> = fs::read_dir(bench.log().join("segments"))
        .expect("segments")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    let last = files.last().expect("one");
    let bytes = fs::read(last).expect("readable");
    let ends =
        [("98", [&bytes[..], &[0; 64]].concat()), ("99", [&bytes[..], &[0xEE; 64]].concat())];
    for (number, bytes) in ends.into_iter().chain([("97", vec![1; 5_000])]) {
        let path = bench.log().join(format!("segments/00000000{number}.seg"));
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn every_record_is_dumped_with_all_that_it_says() {
    let bench = Bench::new();
    of_every_kind(&bench);
    let items: Vec<Record> = RecordDump::open(bench.log())
        .expect("readable")
        .collect::<Result<_, _>>()
        .expect("readable");
    let said: Vec<Value> =
        items.iter().map(|item| serde_json::to_value(item).expect("JSON")).collect();
    let kinds: BTreeSet<&str> = said.iter().filter_map(|one| one["record"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS), "the log holds every kind");

    let dumped = bench.run(&["dump", "LOG", "--events", "--json"]).ends_with(0).json();
    assert!(dumped == said, "{dumped:#?}\n{said:#?}");
    let text = bench.run(&["dump", "LOG", "--events"]).ends_with(0).text();
    assert_eq!(text.lines().count(), said.len(), "{text}");
    for (line, one) in text.lines().zip(&said) {
        let fields = one.as_object().expect("an object");
        let kind = one["record"].as_str().expect("a word");
        assert!(line.split_whitespace().any(|word| word == kind), "{line}");
        let place = ["record", "segment", "offset"];
        for (field, value) in fields.iter().filter(|(field, _)| !place.contains(&&***field)) {
            assert!(line.contains(&format!(" {field}=")), "{line}: no {field}: {value}");
        }
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let without = bench.run(&["dump", "LOG", "--json"]).ends_with(0).json();
    let events = said.iter().filter(|one| one["record"] == "event").count();
    assert_eq!(without.len(), said.len() - events);
}
