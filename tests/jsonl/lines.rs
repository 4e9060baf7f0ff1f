//! Does a log that was exported and imported say what the first one said?

#![cfg(feature = "json")]

use std::io::Cursor;

use crate::support::Rng;
use amberlog::jsonl::Imported;
use amberlog::typed::CodecId;
use amberlog::{
    ErrorKind, EventKind, Log, NewEvent, Options, Overflow, ReadView, Seq, Stream, StreamId,
    StreamInfo, StreamOptions, StreamState,
};
use tempfile::TempDir;

fn open(dir: &TempDir) -> Log {
    Options::new().segment_bytes_first(16 << 10).open(dir.path().join("log")).expect("opens")
}

fn new_log() -> (TempDir, Log) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = open(&dir);
    (dir, log)
}

fn export(view: &ReadView) -> String {
    let mut bytes = Vec::new();
    view.export_jsonl(&mut bytes).expect("exported");
    String::from_utf8(bytes).expect("JSON is text")
}

fn import(log: &Log, text: &str) -> amberlog::Result<Imported> {
    log.import_jsonl(Cursor::new(text))
}

fn fill(stream: &mut Stream, events: u64) {
    for _ in 0..events {
        let text = format!("{} of {}", stream.head(), stream.id());
        stream.append(text.as_bytes()).expect("room");
    }
}

fn commit(stream: &mut Stream) {
    stream.commit().wait().expect("committed");
}

/// Visible fields of an event except its position.
type Seen = (u64, u32, (EventKind, u8, CodecId), u64, u64, Vec<u8>);

fn events(view: &ReadView, id: StreamId) -> Vec<Seen> {
    let one = |event: amberlog::Result<amberlog::Event>| {
        let event = event.expect("readable");
        let (seq, time) = (event.seq().get(), event.time().as_micros());
        let shape = (event.kind(), event.schema_version(), event.codec());
        let dropped = event.dropped_before();
        (seq, event.generation(), shape, time, dropped, event.payload().to_vec())
    };
    view.events(id).expect("known").map(one).collect()
}

/// A fork that parts from its parent inside a gap has no event of which the parent's gap is told.
fn without_gaps(mut events: Vec<Seen>) -> Vec<Seen> {
    events.iter_mut().for_each(|event| event.4 = 0);
    events
}

fn all(view: &ReadView) -> Vec<(StreamInfo, Vec<Seen>)> {
    let streams = view.streams().into_iter();
    let with_events = streams.map(|mut info| {
        // How it is kept is another matter.
        info.segments = 0;
        let mut events = events(view, info.id);
        if let Some(first) = events.first_mut().filter(|_| info.start.get() > 0) {
            // Of a gap that reaches over the start, the part in front of it is not told.
            first.4 = first.4.min(first.0 - info.start.get());
        }
        (info, events)
    });
    with_events.collect()
}

/// Exports, imports into an empty log, compares, and again after that was opened anew.
#[track_caller]
fn goes_around(log: &Log, deleted: &[StreamId]) -> String {
    let view = log.read_view();
    let text = export(&view);
    let (dir, copy) = new_log();
    let imported = import(&copy, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(imported.streams, (view.streams().len() + deleted.len()) as u64);
    for reopened in [false, true] {
        let copy = if reopened { open(&dir) } else { copy.clone() };
        assert_eq!(all(&copy.read_view()), all(&view), "{text}");
        assert_eq!(export(&copy.read_view()), text);
        for id in deleted {
            assert_eq!(copy.state(*id), Some(StreamState::Deleted));
        }
        copy.close().expect("closes");
    }
    let report = crate::support::verified::checked(dir.path().join("log")).expect("readable");
    assert!(report.is_sound(), "{report:?}");
    text
}

#[test]
fn what_is_said_of_streams_comes_back() {
    let (_dir, log) = new_log();
    let mut plain = log.create_stream().expect("a stream");
    fill(&mut plain, 3);
    commit(&mut plain);
    let mut named =
        log.create_stream_with(&StreamOptions::new().name("Grüße \"1\"")).expect("a stream");
    named.set_label("colour", "grün").expect("a label");
    named.set_label("empty?", " ").expect("a label");
    named.set_data(b"\xff\0data").expect("data");
    commit(&mut named);
    let mut titled = log.create_stream().expect("a stream");
    titled.set_data(b"{\"title\":1}").expect("data");
    fill(&mut titled, 1);
    commit(&mut titled);
    titled.archive().wait().expect("archived");
    let mut bare = log.create_stream().expect("a stream");
    bare.set_label("a", "b").expect("a label");
    commit(&mut bare);
    bare.remove_label("a").expect("no label");
    commit(&mut bare);
    let mut gone = log.create_stream_with(&StreamOptions::new().name("gone")).expect("a stream");
    fill(&mut gone, 3);
    commit(&mut gone);
    gone.delete().wait().expect("deleted");
    let mut volatile = log.create_stream().expect("a stream");
    fill(&mut volatile, 3);
    let text = goes_around(&log, &[gone.id()]);
    assert!(!text.contains(&volatile.id().to_string()) && !text.contains("\"gone\""), "{text}");
}

#[test]
fn every_payload_comes_back() {
    let (_dir, log) = new_log();
    let mut stream = log.create_stream().expect("a stream");
    let payloads: [&[u8]; 12] = [
        b"",
        b"null",
        b"{\"a\":1.0}",
        b"{ \"a\" : 1e9 }",
        b"[1,\n2]",
        b" 1",
        b"\xff\xfe",
        b"\0",
        b"\"",
        b"\\u0041",
        "\u{1f600}".as_bytes(),
        b"{\"a\":1,\"a\":2}",
    ];
    for (nth, payload) in payloads.into_iter().enumerate() {
        for codec in [CodecId::RAW, CodecId::JSON, CodecId(200)] {
            let event = NewEvent::new(EventKind(nth as u16 * 5000), payload).codec(codec);
            stream.append(event.schema_version(nth as u8 * 23)).expect("room");
        }
    }
    commit(&mut stream);
    let text = goes_around(&log, &[]);
    assert!(
        text.contains("\"json\":{\"a\":1.0}") && text.contains("\"base64\":\"//4=\""),
        "{text}"
    );
}

#[test]
fn forks_and_rewinds_come_back_and_still_share() {
    let (_dir, log) = new_log();
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, 1000);
    commit(&mut parent);
    let mut early = parent.fork_at(400).expect("forked");
    fill(&mut early, 2);
    commit(&mut early);
    let mut forks: Vec<Stream> = (0..50).map(|_| parent.fork_at(900).expect("forked")).collect();
    forks.iter_mut().for_each(|fork| {
        fork.set_label("n", "1").expect("a label");
        commit(fork);
    });
    // What the forks share is no part of the parent any more.
    parent.rewind(500).expect("rewound");
    fill(&mut parent, 10);
    commit(&mut parent);
    let mut grandchild = forks[0].fork_at(850).expect("forked");
    fill(&mut grandchild, 1);
    commit(&mut grandchild);
    early.rewind(100).expect("rewound");
    commit(&mut early);
    early.rewind(0).expect("rewound");
    fill(&mut early, 5);
    commit(&mut early);
    let mut twice = log.create_stream().expect("a stream");
    fill(&mut twice, 3);
    commit(&mut twice);
    twice.rewind(0).expect("rewound");
    commit(&mut twice);
    let text = goes_around(&log, &[]);
    let shared = text.lines().filter(|line| line.starts_with("{\"event\"")).count();
    assert!(shared < 1000 + 100, "{shared} events");
}

#[test]
fn gaps_come_back_wherever_streams_part_in_them() {
    let (_dir, log) = new_log();
    let ring = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(256);
    let mut stream = log.create_stream_with(&ring).expect("a stream");
    fill(&mut stream, 3);
    commit(&mut stream);
    fill(&mut stream, 30);
    commit(&mut stream);
    let gap = events(&log.read_view(), stream.id())[3].4;
    assert!(gap > 10, "{gap}");
    let mut inside = stream.fork_at(5).expect("forked");
    fill(&mut inside, 1);
    commit(&mut inside);
    let mut bare = stream.fork_at(6).expect("forked");
    bare.set_label("a", "b").expect("a label");
    commit(&mut bare);
    goes_around(&log, &[]);
    stream.rewind(8).expect("rewound");
    fill(&mut stream, 2);
    commit(&mut stream);
    goes_around(&log, &[]);
    let alone = |id| {
        let mut bytes = Vec::new();
        log.read_view().export_streams_jsonl(&[id], &mut bytes).expect("whole");
        String::from_utf8(bytes).expect("text")
    };
    let (_other, copy) = new_log();
    for id in [inside.id(), bare.id()] {
        import(&copy, &alone(id)).expect("fits");
        let [here, there] = [&log, &copy].map(|log| {
            let head = log.read_view().info(id).expect("there").head;
            (head, without_gaps(events(&log.read_view(), id)))
        });
        assert_eq!(here, there);
    }
    inside.trim(4).expect("staged");
    inside.commit().wait().expect("trimmed");
    stream.delete().wait().expect("deleted");
    goes_around(&log, &[stream.id()]);
}

#[test]
fn what_only_forks_still_show_comes_back() {
    let (_dir, log) = new_log();
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, 100);
    commit(&mut parent);
    let mut child = parent.fork_at(60).expect("forked");
    fill(&mut child, 1);
    commit(&mut child);
    parent.trim(80).expect("staged");
    parent.commit().wait().expect("trimmed");
    child.trim(20).expect("staged");
    child.commit().wait().expect("trimmed");
    child.archive().wait().expect("archived");
    let text = goes_around(&log, &[]);
    assert!(!text.contains("\"seq\":19,") && !text.contains("\"seq\":70,"), "{text}");
    parent.trim(100).expect("staged");
    parent.commit().wait().expect("trimmed");
    goes_around(&log, &[]);
    parent.delete().wait().expect("deleted");
    let text = goes_around(&log, &[parent.id()]);
    assert!(text.contains("\"seq\":59,") && !text.contains("\"seq\":99,"), "{text}");
    child.unarchive().wait().expect("active again");
    child.delete().wait().expect("deleted");
    let text = goes_around(&log, &[parent.id(), child.id()]);
    assert!(!text.contains("\"event\""), "{text}");
}

/// Whatever streams went through, in many ways.
#[test]
fn any_log_comes_back() {
    for seed in 0..16 {
        let (_dir, log) = new_log();
        let mut rng = Rng::new(seed);
        let mut streams: Vec<Stream> = Vec::new();
        let mut deleted = Vec::new();
        for _ in 0..40 {
            let nth = rng.below(streams.len() as u64 + 1) as usize;
            let Some(stream) = streams.get_mut(nth) else {
                let small = StreamOptions::new().ring_bytes_max(200);
                let small = small.overflow(Overflow::OverwriteOldest);
                let mut stream = log.create_stream_with(&small).expect("a stream");
                fill(&mut stream, rng.below(12));
                streams.push(stream);
                continue;
            };
            let head = stream.head().get();
            match rng.below(9) {
                0 => {
                    commit(stream);
                    let at = rng.below(head + 1);
                    if let Ok(mut fork) = stream.fork_at(at) {
                        fill(&mut fork, rng.below(3));
                        streams.push(fork);
                    }
                }
                1 => drop(stream.rewind(rng.below(head + 1))),
                // A volatile one may start behind the seqs that its ring dropped last of all.
                2 if stream.is_durable() && stream.state() == StreamState::Active => {
                    drop(stream.trim(rng.below(head + 1)));
                }
                3 => drop(stream.set_label("l", &rng.next().to_string())),
                4 if rng.one_in(3) => {
                    let mut gone = streams.swap_remove(nth);
                    let was_durable = gone.is_durable() && gone.state() == StreamState::Active;
                    gone.delete().wait().expect("deleted");
                    deleted.extend(was_durable.then_some(gone.id()));
                    continue;
                }
                _ => fill(stream, rng.below(10)),
            }
            if !rng.one_in(3) {
                streams.get_mut(nth).into_iter().for_each(commit);
            }
        }
        let text = goes_around(&log, &deleted);
        let view = log.read_view();
        for info in view.streams() {
            let mut bytes = Vec::new();
            let alone = view.export_streams_jsonl(&[info.id], &mut bytes);
            if alone.is_err() {
                continue;
            }
            let (_other, copy) = new_log();
            let alone = String::from_utf8(bytes).expect("text");
            import(&copy, &alone).unwrap_or_else(|error| panic!("{seed}: {error}\n{alone}"));
            let (mut theirs, mut ours) = (all(&copy.read_view()), all(&view));
            ours.retain(|(one, _)| one.id == info.id);
            if theirs[0].1.is_empty() && info.start.get() == info.head.get() {
                theirs[0].0.generation = info.generation;
            }
            for (_, events) in theirs.iter_mut().chain(&mut ours) {
                *events = without_gaps(std::mem::take(events));
            }
            assert_eq!(theirs, ours, "{seed}: {alone}\n{text}");
        }
    }
}

#[test]
fn an_import_refuses_what_is_there() {
    let (_dir, log) = new_log();
    let mut stream = log.create_stream_with(&StreamOptions::new().name("taken")).expect("a stream");
    fill(&mut stream, 3);
    commit(&mut stream);
    let text = export(&log.read_view());
    let again = import(&log, &text).expect_err("it is there");
    assert_eq!(*again.kind(), ErrorKind::StreamExists(stream.id()));
    let other = text.replace(&stream.id().to_string(), &StreamId::new().to_string());
    let taken = import(&log, &other).expect_err("it has that name");
    assert!(matches!(taken.kind(), ErrorKind::NameTaken { .. }), "{taken:?}");
    assert_eq!(log.read_view().position().get(), 1);
    let volatile = log.create_stream().expect("a stream");
    let held = text.replace(&stream.id().to_string(), &volatile.id().to_string());
    let held = import(&log, &held.replace("taken", "free")).expect_err("somebody has it");
    assert_eq!(*held.kind(), ErrorKind::StreamExists(volatile.id()));
}

/// Every line of an export, changed in one way after the other, is told by its number, and nothing is written.
#[test]
fn a_wrong_line_is_refused_with_its_number_and_nothing_is_written() {
    let id = StreamId::new();
    let other = StreamId::new();
    let good = [
        "{\"amberlog\":{\"export\":1}}".to_owned(),
        format!("{{\"stream\":{{\"id\":\"{id}\",\"name\":\"n\",\"head\":3}}}}"),
        "{\"event\":{\"seq\":0,\"time_us\":1,\"text\":\"a\"}}".to_owned(),
        "{\"forgotten\":1}".to_owned(),
        "{\"rewind\":{\"to\":1,\"generation\":1}}".to_owned(),
        "{\"event\":{\"seq\":2,\"generation\":1,\"time_us\":1,\"dropped_before\":1,\"json\":[1]}}"
            .to_owned(),
        format!(
            "{{\"stream\":{{\"id\":\"{other}\",\"shares\":{{\"id\":\"{id}\",\"generation\":1,\"seq\":2}},\"head\":2}}}}"
        ),
        "{\"end\":{\"streams\":2,\"events\":2}}".to_owned(),
    ];
    let (_dir, log) = new_log();
    import(&log, &good.join("\n")).expect("good lines are fine");
    let wrong: [(usize, &str); 24] = [
        (1, ""),
        (1, "{\"amberlog\":{\"export\":2}}"),
        (1, "{\"end\":{\"streams\":0,\"events\":0}}"),
        (2, "{\"stream\":{\"id\":\"x\",\"head\":3}}"),
        (2, "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"head\":3,\"more\":1}}"),
        (
            2,
            "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"name\":\"\",\"head\":3}}",
        ),
        (
            2,
            "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"labels\":{\"\":\"\"},\"head\":3}}",
        ),
        (
            2,
            "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"data_base64\":\"?\",\"head\":3}}",
        ),
        (
            2,
            "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"start\":9,\"head\":3}}",
        ),
        (3, "{\"event\":{\"seq\":1,\"time_us\":1,\"text\":\"a\"}}"),
        (3, "{\"event\":{\"seq\":0,\"time_us\":1,\"text\":\"a\",\"base64\":\"YQ==\"}}"),
        (3, "{\"event\":{\"seq\":0,\"time_us\":1}}"),
        (3, "{\"event\":{\"seq\":0,\"time_us\":1,\"base64\":\"*\"}}"),
        (3, "{\"event\":{\"seq\":0,\"time_us\":1,\"kind\":65536,\"text\":\"a\"}}"),
        (3, "{\"event\":{\"seq\":0,\"generation\":1,\"time_us\":1,\"text\":\"a\"}}"),
        (4, "{\"forgotten\":0}"),
        (4, "{\"forgotten\":18446744073709551615}"),
        (5, "{\"rewind\":{\"to\":3,\"generation\":1}}"),
        (5, "{\"rewind\":{\"to\":1,\"generation\":2}}"),
        (
            6,
            "{\"event\":{\"seq\":2,\"generation\":1,\"time_us\":1,\"dropped_before\":3,\"json\":[1]}}",
        ),
        (6, "not JSON"),
        (
            7,
            "{\"stream\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"shares\":{\"id\":\"00000000-0000-7000-8000-000000000000\",\"generation\":0,\"seq\":1},\"head\":1}}",
        ),
        (8, "{\"end\":{\"streams\":2,\"events\":3}}"),
        (8, "{\"forgotten\":1}"),
    ];
    let (_dir, log) = new_log();
    for (number, line) in wrong {
        let mut lines = good.clone();
        line.clone_into(&mut lines[number - 1]);
        let error = import(&log, &lines.join("\n")).expect_err(line);
        let ErrorKind::InvalidLine { line: told, .. } = error.kind() else {
            panic!("{line}: {error:?}")
        };
        // The line that leaves a stream unfinished is known by the one behind it.
        let behind = number as u64 + u64::from(line == "{\"forgotten\":1}");
        assert_eq!(*told, behind, "{line}: {error}");
    }
    for cut in 0..good.len() {
        let error = import(&log, &good[..cut].join("\n")).expect_err("a part");
        let told = ErrorKind::InvalidLine { line: cut as u64 + 1, what: "" };
        assert_eq!(std::mem::discriminant(error.kind()), std::mem::discriminant(&told), "{error}");
    }
    assert_eq!(log.read_view().position().get(), 0);
    assert_eq!(log.list(&amberlog::Query::new().volatile()).expect("listed").streams, []);
}

/// Numbers of a line are kept exactly or refused with the line.
#[test]
fn numbers_that_do_not_fit_are_refused_by_line_and_the_largest_that_do_come_back() {
    let id = StreamId::new();
    let other = StreamId::new();
    const SEQ_MAX: u64 = u64::MAX / 2;
    let lines = |stream: String, event: String, head: u64| {
        let stream = format!("{{\"stream\":{{\"id\":\"{id}\"{stream},\"head\":{head}}}}}");
        let event = format!("{{\"event\":{{{event},\"text\":\"x\"}}}}");
        let end = "{\"end\":{\"streams\":1,\"events\":1}}";
        format!("{{\"amberlog\":{{\"export\":1}}}}\n{stream}\n{event}\n{end}\n")
    };
    let shape = |time: u64, kind: u64, version: u64, codec: u64| {
        let shape = format!("\"kind\":{kind},\"schema_version\":{version},\"codec\":{codec}");
        format!("\"seq\":0,{shape},\"time_us\":{time}")
    };
    let event = |time: u64, kind: u64, codec: u64| shape(time, kind, 1, codec);
    let parent = |seq: u64| format!(",\"parent\":{{\"id\":\"{other}\",\"seq\":{seq}}}");
    let largest = lines(parent(SEQ_MAX), shape((1 << 56) - 1, 0xFFFF, 0xFF, 0xFF), 1);
    let (_dir, log) = new_log();
    import(&log, &largest).expect("all of them fit");
    assert_eq!(export(&log.read_view()), largest);

    let gap = format!("\"seq\":{},\"time_us\":1,\"dropped_before\":{0}", SEQ_MAX);
    let plain = || event(1, 1, 1);
    for (line, text) in [
        (2, lines(",\"name\":\"~own\"".into(), plain(), 1)),
        (3, lines(String::new(), event(1 << 56, 1, 1), 1)),
        (3, lines(String::new(), event((1 << 56) + 5, 1, 1), 1)),
        (3, lines(String::new(), event(u64::MAX, 1, 1), 1)),
        (3, lines(String::new(), event(1, 1 << 16, 1), 1)),
        (3, lines(String::new(), event(1, 1, 256), 1)),
        (3, lines(String::new(), shape(1, 1, 256, 1), 1)),
        (3, lines(String::new(), gap, 1)),
        (2, lines(parent(SEQ_MAX + 1), plain(), 1)),
        (2, lines(String::new(), plain(), SEQ_MAX + 1)),
    ] {
        let (_dir, log) = new_log();
        let error = import(&log, &text).expect_err(&text);
        let ErrorKind::InvalidLine { line: told, .. } = error.kind() else {
            panic!("{text}: {error:?}")
        };
        assert_eq!(*told, line, "{text}: {error}");
        assert_eq!(log.read_view().position().get(), 0, "{text}");
    }
}

#[test]
fn p3_large_streams_take_several_commits_and_are_all_there() {
    let (_dir, log) = new_log();
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..90_u64 {
        stream.append(vec![n as u8; 200_000]).expect("room");
    }
    commit(&mut stream);
    let text = export(&log.read_view());
    let (_other, copy) = new_log();
    let imported = import(&copy, &text).expect("imported");
    assert_eq!((imported.streams, imported.events), (1, 90));
    assert!((2..10).contains(&imported.commits), "{imported:?}");
    assert_eq!(all(&copy.read_view()), all(&log.read_view()));
    let info = copy.read_view().info(stream.id()).expect("there");
    assert_eq!((info.state, info.head), (StreamState::Active, Seq::from(90)));
}

/// P13: more seqs than can be counted are refused, and nothing overflows.
#[test]
fn p13_more_lost_seqs_than_can_be_counted_are_refused() {
    let (_dir, log) = new_log();
    let mut text = String::from("{\"amberlog\":{\"export\":1}}\n");
    for _ in 0..3 {
        text +=
            &format!("{{\"stream\":{{\"id\":\"{}\",\"state\":\"active\"}}}}\n", StreamId::new());
        text += "{\"lost\":{\"seqs\":9223372036854775807,\"why\":\"gone\"}}\n";
    }
    text += "{\"end\":{\"streams\":3,\"events\":0,\"lost\":9223372036854775805}}\n";
    import(&log, &text).expect_err("more than can be counted");
}

/// P13: a stream that an import brought to the last seq there is takes no event more: no recovery would believe it.
#[test]
fn p13_behind_the_last_seq_nothing_is_committed() {
    let (_dir, log) = new_log();
    let id = StreamId::new();
    let text = format!(
        "{{\"amberlog\":{{\"export\":1}}}}\n{{\"stream\":{{\"id\":\"{id}\",\"state\":\"active\"}}}}\n\
         {{\"lost\":{{\"seqs\":9223372036854775805,\"why\":\"gone\"}}}}\n\
         {{\"end\":{{\"streams\":1,\"events\":0,\"lost\":9223372036854775805}}}}\n"
    );
    import(&log, &text).expect("imported");
    let mut stream = log.open_stream(id).expect("there");
    for _ in 0..2 {
        stream.append("one of the last").expect("room");
    }
    commit(&mut stream);
    stream.append("behind the last").expect("room");
    let error = stream.commit().wait().expect_err("no seq is left");
    assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error:?}");
    assert_eq!(log.read_view().events(id).expect("there").flatten().count(), 2);
}
