//! What is left of a damaged log, as lines: is all there that can be read, and is all else said?
//!
//! P6, P13. With `skip_damaged` an export goes on behind damage. It is imported into an empty log and compared with
//! what a reader of the damaged one sees; without, damage ends it as ever.

#![cfg(all(feature = "json", feature = "sim"))]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use crate::support::env_or;
use crate::support::verified::checked_on;
use amberlog::jsonl::{ExportOptions, Exported, ImportOptions, Imported};
use amberlog::sim::{SimDisk, repair_on};
use amberlog::{
    ErrorKind, Log, Options, Overflow, ReadView, Stream, StreamId, StreamInfo, StreamOptions,
};

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn open(disk: &SimDisk) -> Log {
    options().open_on(disk).expect("opens")
}

fn commit(stream: &mut Stream) {
    stream.commit().wait().expect("committed");
}

/// Streams with every sort of batch and of life, several in each segment.
fn lives(disk: &SimDisk) {
    let log = open(disk);
    let mut streams = Vec::new();
    let recorder = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(400);
    for n in 0..9 {
        let how = if n == 6 { recorder.clone() } else { StreamOptions::new() };
        let mut stream = log.create_stream_with(&how).expect("a stream");
        stream.rename(&format!("name {n}")).expect("free");
        stream.set_label("k", "v").expect("fine");
        stream.set_data(&[n; 40]).expect("fine");
        for event in 0..10 {
            stream.append(format!("{n}.{event}{}", "x".repeat(event * 20))).expect("room");
        }
        commit(&mut stream);
        streams.push(stream);
    }
    for turn in 0..4_u64 {
        let mut fork = streams[0].fork_at(3 + turn).expect("forked");
        fork.append(format!("fork {turn}")).expect("room");
        commit(&mut fork);
        streams[0].append(format!("on {turn}")).expect("room");
        commit(&mut streams[0]);
        streams[1].rewind(6 - turn).expect("rewound");
        streams[1].append(format!("again {turn}")).expect("room");
        commit(&mut streams[1]);
        streams[2].rename(&format!("turn {turn}")).expect("free");
        streams[2].append("z".repeat(1_500)).expect("room");
        commit(&mut streams[2]);
        streams[3].trim(turn).expect("staged");
        streams[3].commit().wait().expect("trimmed");
        let mut late = streams[6].fork_at(streams[6].head()).expect("forked");
        late.append("late").expect("room");
        commit(&mut late);
        (0..9).for_each(|_| assert!(streams[6].append("gone, perhaps").is_ok()));
        commit(&mut streams[6]);
        fork.rewind(1).expect("rewound");
        commit(&mut fork);
    }
    // What all that is left of a stream is in: forks, one of them of a fork, one that does not show the beginning.
    let mut fork = streams[8].fork_at(7).expect("forked");
    fork.append("of one that is elsewhere").expect("room");
    commit(&mut fork);
    let mut of_fork = fork.fork_at(8).expect("forked");
    commit(&mut of_fork);
    of_fork.trim(3).expect("staged");
    of_fork.commit().wait().expect("trimmed");
    fork.trim(5).expect("staged");
    fork.commit().wait().expect("trimmed");
    fork.delete().wait().expect("deleted");
    let mut rewound = streams[8].fork_at(9).expect("forked");
    rewound.append("soon gone").expect("room");
    commit(&mut rewound);
    rewound.rewind(4).expect("rewound");
    rewound.append("instead").expect("room");
    commit(&mut rewound);
    let mut name = log.create_stream().expect("a stream");
    name.rename("name 2").expect("free by now");
    commit(&mut name);
    streams[4].archive().wait().expect("archived");
    streams[5].delete().wait().expect("deleted");
    streams[7].archive().wait().expect("archived");
    log.close().expect("closes");
}

fn export(read_view: &ReadView, options: &ExportOptions) -> amberlog::Result<(Exported, String)> {
    let mut bytes = Vec::new();
    let exported = read_view.export_jsonl_with(options, &mut bytes)?;
    Ok((exported, String::from_utf8(bytes).expect("JSON is text")))
}

fn import(text: &str) -> amberlog::Result<(Log, Imported)> {
    let log = open(&SimDisk::new(1));
    let imported = log.import_jsonl(Cursor::new(text))?;
    Ok((log, imported))
}

/// Kind, time and payload of each event that can be read, and how many seqs cannot.
type Read = (BTreeMap<u64, (u16, u64, Vec<u8>)>, u64);

fn read(read_view: &ReadView, id: StreamId) -> Read {
    let info = read_view.info(id).expect("known");
    let (mut events, mut dropped) = (BTreeMap::new(), 0);
    for event in read_view.events(id).expect("not deleted").flatten() {
        let (seq, time) = (event.seq().get(), event.time().as_micros());
        dropped += event.dropped_before().min(seq - info.start.get());
        events.insert(seq, (event.kind().0, time, event.payload().to_vec()));
    }
    let length = info.head.get() - info.start.get().min(info.head.get());
    let lost = length.saturating_sub(events.len() as u64 + dropped);
    (events, lost)
}

/// Returns whether the copy has all that the damaged log still has.
fn same(damaged: &ReadView, copy: &ReadView, context: &str) {
    let mut names = BTreeSet::new();
    assert_eq!(damaged.streams().len(), copy.streams().len(), "{context}");
    for info in damaged.streams() {
        let there = copy.info(info.id).unwrap_or_else(|| panic!("{context}: no {}", info.id));
        let of = |log| read(log, info.id).0;
        assert_eq!(of(damaged), of(copy), "{context}: {}", info.id);
        let said = |info: &amberlog::StreamInfo| {
            (info.labels.clone(), info.data.clone(), info.state, info.parent, info.start)
        };
        assert_eq!(said(&info), said(&there), "{context}");
        let lost_its_name = there.name.is_none()
            && damaged.find(&info.name.clone().unwrap_or_default()) != Some(info.id);
        assert!(there.name == info.name || lost_its_name, "{context}: {info:?} {there:?}");
        assert!(there.name.is_none_or(|name| names.insert(name)), "{context}");
        assert!(there.head >= info.head, "{context}: {} {}", there.head, info.head);
    }
}

/// Each stream for itself, whichever others are damaged.
fn salvage_alone(damaged: &ReadView, how: &ExportOptions, context: &str) {
    for info in damaged.streams() {
        let (_, text) = export(damaged, &how.clone().streams([info.id])).expect("exported");
        let (copy, _) = import(&text).unwrap_or_else(|error| panic!("{context}: {error}\n{text}"));
        let of = |log| read(log, info.id).0;
        assert_eq!(of(damaged), of(&copy.read_view()), "{context}\n{text}");
    }
}

/// Exports what is left, imports it, compares.
fn salvage(disk: &SimDisk, context: &str) -> (Exported, String) {
    let found = checked_on(disk).expect("readable");
    let (damaged, _) = ReadView::open_on(disk).expect("readable");
    let how = ExportOptions::new().skip_damaged(&found);
    salvage_alone(&damaged, &how, context);
    let (exported, text) =
        export(&damaged, &how).unwrap_or_else(|error| panic!("{context}: {error}"));
    let told = text.lines().filter(|line| line.starts_with("{\"damage\"")).count();
    assert_eq!(told, found.damages.len(), "{context}");
    let plain = export(&damaged, &ExportOptions::new());
    assert_eq!(plain.is_ok(), exported.lost.is_empty(), "{context}: {plain:?}\n{text}");
    let lost = damaged.streams().iter().map(|info| read(&damaged, info.id).1).sum::<u64>();
    assert!(lost == 0 || !exported.lost.is_empty(), "{context}: {lost} lost, unsaid\n{text}");
    let imported = import(&text).unwrap_or_else(|error| panic!("{context}: {error}\n{text}"));
    let (copy, imported) = imported;
    let seqs = exported.lost.iter().map(|lost| lost.seqs.end.get() - lost.seqs.start.get());
    assert_eq!((imported.streams, imported.events), (exported.streams, exported.events));
    assert_eq!(imported.lost, seqs.sum::<u64>(), "{context}");
    same(&damaged, &copy.read_view(), &format!("{context}\n{text}"));
    let again = ImportOptions::new().resume();
    let again = copy.import_jsonl_with(&again, Cursor::new(&text));
    assert_eq!(again.map(|again| again.commits).unwrap_or(9), 0, "{context}\n{text}");
    // And from there on it is a log like any other.
    let (again, second) = export(&copy.read_view(), &ExportOptions::new()).expect("whole");
    assert!(again.lost.is_empty());
    let (third, _) = import(&second).unwrap_or_else(|error| panic!("{context}: {error}\n{second}"));
    assert_eq!(export(&third.read_view(), &ExportOptions::new()).expect("whole").1, second);
    (exported, text)
}

fn damaged(disk: &SimDisk, path: &str, with: impl Fn(&mut [u8])) -> SimDisk {
    let copy = disk.copy();
    let mut bytes = copy.files().remove(path).expect("there");
    with(&mut bytes);
    copy.write_file(path, &bytes);
    copy
}

/// The first commit with these bytes, in one of the segments, is not what was written.
fn damage(disk: &SimDisk, with: &[u8]) -> SimDisk {
    let find = |bytes: &Vec<u8>| bytes.windows(with.len()).position(|some| some == with);
    let files = disk.files();
    let (path, at) =
        files.iter().find_map(|(path, bytes)| Some((path, find(bytes)?))).expect("there");
    damaged(disk, path, |bytes| bytes[at] ^= 1)
}

#[test]
fn p6_p13_whatever_is_damaged_the_rest_is_exported_and_the_damage_is_said() {
    let disk = SimDisk::new(1);
    lives(&disk);
    let (exported, whole) = salvage(&disk, "whole");
    assert!(exported.lost.is_empty());
    let step = env_or("AMBERLOG_EVERY_BYTE", 97) as usize;
    let (mut lossy, mut sound) = (0, 0);
    for (path, bytes) in disk.files().iter().filter(|(path, _)| path.ends_with(".seg")) {
        let missing = disk.copy();
        missing.remove_file(path);
        salvage(&missing, &format!("without {path}"));
        for at in (4096..bytes.len()).step_by(step).filter(|at| bytes[*at] != 0) {
            let context = format!("byte {at} of {path}");
            let changed = damaged(&disk, path, |bytes| bytes[at] ^= 0x10);
            let (exported, text) = salvage(&changed, &context);
            let is_told = text.contains("{\"damage\"") || text.contains("{\"lost\"");
            assert!(is_told || text == whole, "{context}: silent\n{text}");
            lossy += u32::from(!exported.lost.is_empty());
            sound += u32::from(exported.lost.is_empty());
        }
    }
    println!("{lossy} lost events, {sound} did not");
    assert!(lossy > 30 && sound > 10, "{lossy} {sound}");
}

/// The stream `a` of three commits of three events each, and `b` of one.
fn two_streams(disk: &SimDisk) -> [StreamId; 2] {
    let log = open(disk);
    let ids = ["a", "b"].map(|name| {
        let mut stream =
            log.create_stream_with(&StreamOptions::new().name(name)).expect("a stream");
        for number in 0..if name == "a" { 9 } else { 3 } {
            stream.append(format!("event {number} of {name}")).expect("room");
            if number % 3 == 2 {
                commit(&mut stream);
            }
        }
        stream.id()
    });
    log.close().expect("closes");
    ids
}

#[test]
fn p6_a_commit_in_the_middle_is_lost_and_becomes_a_gap_and_without_being_asked_it_ends_the_export()
{
    let disk = SimDisk::new(1);
    let [a, b] = two_streams(&disk);
    let changed = damage(&disk, b"event 4 of a");
    let (read_view, _) = ReadView::open_on(&changed).expect("readable");
    let corrupt = ErrorKind::Corrupt { stream: Some(a), seqs: Some(3.into()..6.into()) };
    let refused = read_view.export_jsonl(Vec::new()).expect_err("damaged");
    assert_eq!(*refused.kind(), corrupt);
    let refused = read_view.export_streams_jsonl(&[a], Vec::new()).expect_err("damaged");
    assert_eq!(*refused.kind(), corrupt);
    read_view.export_streams_jsonl(&[b], Vec::new()).expect("whole");

    let (exported, text) = salvage(&changed, "the middle");
    let [lost] = &exported.lost[..] else { panic!("{exported:?}") };
    assert_eq!((lost.stream, lost.seqs.clone()), (a, 3.into()..6.into()));
    assert_eq!(*lost.error.kind(), corrupt);
    assert!(text.contains("{\"lost\":{\"seqs\":3,\"why\":"), "{text}");
    assert!(text.ends_with("{\"end\":{\"streams\":2,\"events\":9,\"lost\":3}}\n"), "{text}");
    let (copy, imported) = import(&text).expect("a line of its own");
    assert_eq!(imported.lost, 3);
    let events = copy.read_view().events(a).expect("known").flatten();
    let dropped: Vec<_> = events.map(|event| (event.seq().get(), event.dropped_before())).collect();
    assert_eq!(dropped, [(0, 0), (1, 0), (2, 0), (6, 3), (7, 0), (8, 0)]);
}

#[test]
fn p6_a_lost_end_becomes_a_gap_at_the_end_and_no_seq_is_given_twice() {
    let disk = SimDisk::new(1);
    let [a, _] = two_streams(&disk);
    let (_, text) = salvage(&damage(&disk, b"event 7 of a"), "the end");
    let (copy, imported) = import(&text).expect("fine");
    assert_eq!(imported.lost, 3);
    let mut stream = copy.open_stream(a).expect("there");
    assert_eq!(stream.head().get(), 9);
    assert_eq!(stream.append("later").expect("room").get(), 9);
    commit(&mut stream);
    let last = copy.read_view().events(a).expect("known").next_back();
    assert_eq!(last.expect("one").expect("whole").dropped_before(), 3);
}

#[test]
fn p6_data_that_is_lost_is_told_with_its_stream() {
    let disk = SimDisk::new(1);
    let [a, _] = two_streams(&disk);
    let log = open(&disk);
    let mut stream = log.open_stream(a).expect("there");
    stream.set_data(b"of the host alone").expect("fine");
    commit(&mut stream);
    drop(stream);
    log.close().expect("closes");
    let (_, whole) = salvage(&disk, "whole");
    let (exported, text) = salvage(&damage(&disk, b"of the host alone"), "the data");
    assert!(whole.contains("of the host alone") && !text.contains("of the host alone"));
    assert!(exported.lost.is_empty(), "no event is: {exported:?}");
    let told = text.lines().nth(1).expect("a line");
    assert!(
        told.starts_with("{\"damage\":{\"kind\":\"commit\"") && told.contains(&a.to_string()),
        "{text}"
    );
}

/// The end of a stream lies in a segment that is missing, and a fork still shares it, trimmed or not.
#[test]
fn p6_an_end_that_only_forks_know_of_is_lost_where_it_stood() {
    for (trimmed, lost) in [(0, 4), (7, 4)] {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        let (mut parent, mut filler) =
            (log.create_stream().expect("one"), log.create_stream().expect("two"));
        let mut fill = |stream: &mut Stream, events: u64| {
            (0..events).for_each(|_| assert!(stream.append("of the parent").is_ok()));
            commit(stream);
            let before = disk.files().len();
            while disk.files().len() == before {
                filler.append(vec![0; 2_000]).expect("room");
                commit(&mut filler);
            }
        };
        fill(&mut parent, 4);
        fill(&mut parent, 4);
        let mut fork = parent.fork_at(8).expect("forked");
        fill(&mut fork, 1);
        fork.trim(trimmed).expect("staged");
        fork.commit().wait().expect("trimmed");
        let ids = [parent.id(), fork.id()];
        drop((parent, fork, filler));
        log.close().expect("closes");
        let segments: Vec<_> =
            disk.files().into_keys().filter(|path| path.ends_with(".seg")).collect();
        let holds = |path: &&String| {
            let left = disk.copy();
            left.remove_file(path);
            let (read_view, _) = ReadView::open_on(&left).expect("readable");
            let head = |id| read_view.info(id).map(|info| info.head.get());
            (head(ids[0]), head(ids[1])) == (Some(4), Some(9))
        };
        let path = segments.iter().find(holds).expect("one with the end of the parent alone");
        disk.remove_file(path);
        let (exported, text) = salvage(&disk, "the end");
        let of_parent: Vec<_> = exported.lost.iter().filter(|one| one.stream == ids[0]).collect();
        let seqs = of_parent.iter().map(|one| one.seqs.end.get() - one.seqs.start.get());
        assert_eq!(seqs.sum::<u64>(), lost, "{text}");
        let (copy, _) = import(&text).expect("fine");
        assert_eq!(copy.read_view().info(ids[0]).expect("there").head.get(), 8);
        assert_eq!(read(&copy.read_view(), ids[1]).0.len(), if trimmed == 0 { 5 } else { 1 });
    }
}

/// Lines that an import refuses; `tests/jsonl` checks that it writes nothing then.
#[test]
fn lines_of_what_is_lost_are_checked_like_others() {
    let id = StreamId::new();
    let lines = |lost: &str, end: &str| {
        let stream = format!("{{\"stream\":{{\"id\":\"{id}\",\"head\":4}}}}");
        format!(
            "{{\"amberlog\":{{\"export\":1}}}}\n{stream}\n{lost}\n{{\"end\":{{\"streams\":1,\"events\":0{end}}}}}"
        )
    };
    let lost = "{\"lost\":{\"seqs\":3,\"dropped_before\":1,\"why\":\"w\"}}";
    assert_eq!(import(&lines(lost, ",\"lost\":3")).expect("fine").1.lost, 3);
    for (line, lost, end) in [
        (3, "{\"lost\":{\"seqs\":0,\"dropped_before\":4,\"why\":\"w\"}}", ",\"lost\":0"),
        (3, "{\"lost\":{\"seqs\":4}}", ",\"lost\":4"),
        (3, "{\"lost\":{\"seqs\":18446744073709551615,\"dropped_before\":1,\"why\":\"w\"}}", ""),
        (4, "{\"lost\":{\"seqs\":3,\"why\":\"w\"}}", ",\"lost\":3"),
        (4, lost, ""),
        (
            3,
            "{\"damage\":{\"kind\":\"hole\",\"path\":\"\",\"positions\":{\"start\":1,\"end\":2},\"events\":[]}}",
            "",
        ),
    ] {
        let error = import(&lines(lost, end)).expect_err(lost);
        let ErrorKind::InvalidLine { line: told, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!(*told, line, "{lost}: {error}");
    }
}

/// Streams and events that a read view shows, and errors in their place.
type View = Vec<(StreamInfo, Vec<Result<(u64, u32, Vec<u8>), ErrorKind>>)>;

fn view(read_view: &ReadView) -> View {
    let of_stream = |mut info: StreamInfo| {
        info.segments = 0;
        let events = read_view.events(info.id).expect("not deleted").map(|event| {
            let event = event.map_err(|error| error.kind().clone())?;
            Ok((event.seq().get(), event.generation(), event.payload().to_vec()))
        });
        (info, events.collect())
    };
    read_view.streams().into_iter().map(of_stream).collect()
}

/// Compares the unconfirmed view with the log after its next opening for writing, or its repair if
/// it needs one. Returns whether it did, and the number of events that only the unconfirmed view
/// shows.
fn shows_what_will_be(disk: &SimDisk, context: &str) -> (bool, usize) {
    let (whole, report) = ReadView::open_unconfirmed_on(disk).expect("readable");
    let (confirmed, _) = ReadView::open_on(disk).expect("readable");
    let next = disk.copy();
    let refused = options().open_on(&next).err();
    assert_eq!(refused.is_some(), report.needs_repair, "{context}: {refused:?} {report:?}");
    if report.needs_repair {
        repair_on(&next).expect("repaired");
    }
    let log = open(&next);
    assert_eq!(view(&whole), view(&log.read_view()), "{context}: {report:?}");
    assert!(confirmed.position() == report.acknowledged, "{context}");
    let events = |view: View| view.iter().flat_map(|(_, events)| events).flatten().count();
    (report.needs_repair, events(view(&whole)) - events(view(&confirmed)))
}

#[test]
fn p6_f16_what_is_whole_and_unconfirmed_is_shown_as_the_log_will_show_it() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let mut streams: Vec<Stream> = (0..3).map(|_| log.create_stream().expect("a stream")).collect();
    let mut killed = Vec::new();
    for turn in 0..40_usize {
        let stream = &mut streams[turn % 3];
        (0..turn % 4 + 1).for_each(|n| assert!(stream.append(vec![n as u8; turn * 9]).is_ok()));
        if turn % 7 == 6 {
            let head = stream.head().get();
            stream.rewind(head - head.min(3)).expect("there");
        }
        if turn % 5 == 4 {
            stream.set_label("turn", &turn.to_string()).expect("fine");
        }
        commit(stream);
        killed.push(disk.after_kill());
    }
    drop(streams);
    log.close().expect("closes");
    for (turn, disk) in killed.iter().enumerate() {
        let (needs_repair, _) = shows_what_will_be(disk, &format!("killed in turn {turn}"));
        assert!(!needs_repair, "{turn}");
    }
    let (path, bytes) =
        disk.files().into_iter().rfind(|(path, _)| path.ends_with(".seg")).expect("one");
    let cut = |bytes: &[u8], length: usize| {
        let copy = disk.copy();
        copy.write_file(&path, &bytes[..length]);
        copy
    };
    let mut shown = 0;
    let lengths = (4096..bytes.len() - 100).step_by(env_or("AMBERLOG_EVERY_BYTE", 61) as usize);
    for length in lengths.chain(bytes.len() - 100..bytes.len()) {
        let (needs_repair, events) =
            shows_what_will_be(&cut(&bytes, length), &format!("cut to {length}"));
        assert!(needs_repair, "{length}");
        shown += usize::from(events > 0);
    }
    assert!(shown > 30, "{shown}");
    // The file is cut, and damaged before the cut: whole commits after the damage are shown as
    // well.
    for at in (4096..bytes.len() - 60).step_by(97).filter(|at| bytes[*at] != 0) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        shows_what_will_be(&cut(&changed, bytes.len() - 1), &format!("cut, and byte {at} changed"));
        // A file after it is no segment: only a repair continues the log.
        let blocked = disk.copy();
        blocked.write_file(&path, &changed[..changed.len() - 40]);
        let number: u32 =
            path["segments/".len()..].trim_end_matches(".seg").parse().expect("a number");
        blocked.write_file(&format!("segments/{:010}.seg", number + 1), &[7; 9_000]);
        let (needs_repair, _) =
            shows_what_will_be(&blocked, &format!("blocked, and byte {at} changed"));
        assert!(needs_repair, "{at}");
    }
}

#[test]
fn p6_what_lacks_its_last_byte_is_exported_whole_and_said_to_be_unconfirmed() {
    let disk = SimDisk::new(1);
    let [a, b] = two_streams(&disk);
    let whole = export(&ReadView::open_on(&disk).expect("readable").0, &ExportOptions::new());
    let whole = whole.expect("sound").1;
    let path = disk.files().into_keys().rfind(|path| path.ends_with(".seg")).expect("one");
    let bytes = disk.files().remove(&path).expect("there");
    disk.write_file(&path, &bytes[..bytes.len() - 1]);
    let how = ExportOptions::new().skip_damaged(&checked_on(&disk).expect("readable"));
    let (read_view, report) = ReadView::open_unconfirmed_on(&disk).expect("readable");
    let (exported, text) = export(&read_view, &how).expect("salvaged");
    assert_eq!((exported.events, exported.lost.len()), (12, 0));
    let told = text.lines().find(|line| line.starts_with("{\"unconfirmed\"")).expect("a line");
    let (first, end) = (report.acknowledged.get() + 1, report.position.get() + 1);
    let positions = format!("\"positions\":{{\"start\":{first},\"end\":{end}}}");
    assert!(told.contains(&positions) && told.contains(&b.to_string()), "{told}");
    assert!(told.contains(&a.to_string()) == (first <= 3), "{told}");
    let plain = |text: &str| {
        let told =
            |line: &&str| line.starts_with("{\"damage\"") || line.starts_with("{\"unconfirmed\"");
        text.lines().filter(|line| !told(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(plain(&text), whole, "everything is there");
    let (copy, _) = import(&text).expect("a line that is known");
    assert_eq!(export(&copy.read_view(), &ExportOptions::new()).expect("sound").1, whole);
    // The line is refused after a stream.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.retain(|line| *line != told);
    lines.insert(lines.len() - 1, told);
    assert!(matches!(
        import(&lines.join("\n")).map(drop).expect_err("too late").kind(),
        ErrorKind::InvalidLine { .. }
    ));
}

/// A verification that looks at bytes alone is noticed, wherever events are lost.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_verification_that_reads_nothing_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::VerifyBytesOnly);
    std::panic::catch_unwind(
        p6_a_commit_in_the_middle_is_lost_and_becomes_a_gap_and_without_being_asked_it_ends_the_export,
    )
    .expect_err("what is lost was read, and not verified, unnoticed");
}
