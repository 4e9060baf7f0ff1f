//! What becomes of streams by the command line's verbs, and the two ways out of a log and back.

#![cfg(feature = "cli")]

use std::fs;

use serde_json::Value;

use crate::support::cli::{Bench, Ran, numbers};

/// A log with the streams `a` of ten events and `b` of three.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.file("a", &numbers(0, 10));
    bench.file("b", &numbers(0, 3));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    bench
}

/// The names that `ls` lists, in its order.
fn names(bench: &Bench, args: &[&str]) -> Vec<String> {
    let args = [&["ls", "LOG", "--json"], args].concat();
    let lines = bench.run(&args).ends_with(0).json();
    lines.iter().filter_map(|line| Some(line["name"].as_str()?.to_owned())).collect()
}

fn one(ran: Ran) -> Value {
    let mut lines = ran.ends_with(0).json();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[test]
fn a_fork_begins_as_its_parent_does_and_goes_its_own_way() {
    let bench = bench();
    let fork = ["fork", "LOG", "a", "--at", "4", "--name", "c", "--label", "kind=try", "--json"];
    let forked = one(bench.run(&fork));
    assert_eq!((forked["name"].as_str(), forked["head"].as_u64()), (Some("c"), Some(4)));
    bench.cat_is("c", &numbers(0, 4));
    bench.run_with(&["record", "LOG", "--name", "c"], b"else\n").ends_with(0);
    bench.cat_is("c", &[numbers(0, 4), b"else\n".to_vec()].concat());
    bench.cat_is("a", &numbers(0, 10));
    assert_eq!(names(&bench, &["--parent", "a"]), ["c"]);
    assert_eq!(names(&bench, &["--label", "kind=try"]), ["c"]);
    let taken = bench.run(&["fork", "LOG", "a", "--name", "b"]).ends_with(2);
    assert!(taken.err.contains("name"), "{taken:?}");
    let behind = bench.run(&["fork", "LOG", "a", "--at", "11"]).ends_with(2);
    assert!(behind.err.contains("11"), "{behind:?}");
    assert_eq!(names(&bench, &[]), ["a", "b", "c"], "what was refused left nothing");
}

#[test]
fn rewinding_drops_the_end_and_trimming_the_beginning() {
    let bench = bench();
    assert_eq!(one(bench.run(&["rewind", "LOG", "a", "6", "--json"]))["head"], 6);
    bench.cat_is("a", &numbers(0, 6));
    assert_eq!(one(bench.run(&["trim", "LOG", "a", "2", "--json"]))["head"], 6);
    bench.cat_is("a", &numbers(2, 6));
    for verb in ["rewind", "trim"] {
        let ran = bench.run(&[verb, "LOG", "a", "7"]).ends_with(2);
        assert!(ran.err.contains('7'), "{ran:?}");
    }
    bench.cat_is("a", &numbers(2, 6));
    bench.run(&["rewind", "LOG", "nobody", "0"]).ends_with(2);
}

/// P8, for a caller that looked in another process.
#[test]
fn p8_a_stream_that_has_grown_since_a_look_is_left_alone() {
    let bench = bench();
    for verb in [&["rm"][..], &["archive"], &["trim", "2"], &["rewind", "2"]] {
        for wrong in ["9", "11"] {
            let (verb, seq) = (verb[0], verb.get(1));
            let mut args = vec![verb, "LOG", "a", "--expect-head", wrong];
            args.extend(seq);
            let refused = bench.run(&args).ends_with(2);
            assert!(refused.err.contains("is 10, not"), "{refused:?}");
        }
    }
    bench.run(&["rm", "LOG", "a", "b", "--expect-head", "10"]).ends_with(2);
    bench.cat_is("a", &numbers(0, 10));
    bench.run(&["trim", "LOG", "a", "2", "--expect-head", "10"]).ends_with(0);
    bench.run(&["rewind", "LOG", "a", "6", "--expect-head", "10"]).ends_with(0);
    bench.cat_is("a", &numbers(2, 6));
    bench.run(&["archive", "LOG", "a", "--expect-head", "6"]).ends_with(0);
    bench.run(&["rm", "LOG", "a", "--expect-head", "6"]).ends_with(0);
    bench.run(&["cat", "LOG", "a"]).ends_with(2);
}

#[test]
fn names_and_labels_are_given_changed_and_taken_away() {
    let bench = bench();
    bench.run(&["name", "LOG", "a", "alpha"]).ends_with(0);
    bench.cat_is("alpha", &numbers(0, 10));
    bench.run(&["cat", "LOG", "a"]).ends_with(2);
    bench.run(&["name", "LOG", "alpha", "b"]).ends_with(2);
    bench.run(&["label", "LOG", "alpha", "model=small", "mood=calm"]).ends_with(0);
    bench.run(&["label", "LOG", "alpha", "model=large", "--remove", "mood"]).ends_with(0);
    let listed = one(bench.run(&["ls", "LOG", "--label", "model", "--json"]));
    let labels = listed["labels"].as_object().expect("labels").iter();
    // Without the label of the import.
    let labels: Vec<_> = labels.filter(|(key, _)| *key != "amberlog.source").collect();
    assert_eq!(labels, [(&"model".to_owned(), &Value::from("large"))]);
    assert!(names(&bench, &["--label", "model=small"]).is_empty());
    bench.run(&["name", "LOG", "alpha", "--remove"]).ends_with(0);
    assert_eq!(names(&bench, &[]), ["b"]);
    bench.run(&["name", "LOG", "b", "a"]).ends_with(0);
    for wrong in [&["name", "LOG", "a"][..], &["label", "LOG", "a", "x"]] {
        bench.run(wrong).ends_with(2);
    }
}

#[test]
fn data_is_set_printed_and_taken_away_byte_for_byte() {
    let bench = bench();
    let data = |bench: &Bench| bench.run(&["data", "LOG", "a"]).ends_with(0).out;
    assert!(data(&bench).is_empty());
    let file = bench.dir.path().join("data");
    let path = file.to_str().expect("UTF-8");
    let largest: Vec<u8> = (0..64 << 10).map(|n: u32| n as u8).collect();
    for bytes in [&b"{\"title\":1}"[..], b"\xff\0\n", &largest] {
        fs::write(&file, bytes).expect("written");
        let done = one(bench.run(&["data", "LOG", "a", "--set", path, "--json"]));
        assert_eq!((done["name"].as_str(), done["head"].as_u64()), (Some("a"), Some(10)));
        assert!(data(&bench) == bytes);
    }
    bench.run_with(&["data", "LOG", "a", "--set", "-"], b"\xfe").ends_with(0);
    let said = one(bench.run(&["data", "LOG", "a", "--json"]));
    assert_eq!((said["data_base64"].as_str(), said.get("data_text")), (Some("/g=="), None));
    bench.run_with(&["data", "LOG", "a", "--set", "-"], "né\n".as_bytes()).ends_with(0);
    let said = one(bench.run(&["data", "LOG", "a", "--json"]));
    assert_eq!((said["data_text"].as_str(), said.get("data_base64")), (Some("né\n"), None));

    let position = |bench: &Bench| one(bench.run(&["info", "LOG", "--json"]))["position"].clone();
    let before = position(&bench);
    let too_much = vec![0; (64 << 10) + 1];
    let refused = bench.run_with(&["data", "LOG", "a", "--set", "-"], &too_much).ends_with(2);
    assert!(refused.err.contains("64 KiB"), "{refused:?}");
    let empty = bench.run(&["data", "LOG", "a", "--set", "-"]).ends_with(2);
    assert!(empty.err.contains("--clear"), "{empty:?}");
    bench.run(&["data", "LOG", "a", "--set", "nowhere"]).ends_with(2);
    bench.run(&["data", "LOG", "a", "--set", path, "--clear"]).ends_with(2);
    bench.run(&["data", "LOG", "nobody", "--clear"]).ends_with(2);
    assert!(data(&bench) == "né\n".as_bytes(), "what was refused changed nothing");
    assert_eq!(position(&bench), before);

    bench.run(&["archive", "LOG", "a"]).ends_with(0);
    assert!(data(&bench) == "né\n".as_bytes(), "what is archived is read");
    bench.run(&["unarchive", "LOG", "a"]).ends_with(0);
    bench.run(&["data", "LOG", "a", "--clear"]).ends_with(0);
    assert!(data(&bench).is_empty());
    let said = one(bench.run(&["data", "LOG", "a", "--json"]));
    assert_eq!((said.get("data_text"), said.get("data_base64")), (None, None));
    bench.cat_is("a", &numbers(0, 10));
}

#[test]
fn what_is_archived_is_read_and_not_written() {
    let bench = bench();
    let done = one(bench.run(&["archive", "LOG", "a", "b", "a", "--json"]));
    assert_eq!(done["streams"].as_array().map(Vec::len), Some(2), "{done}");
    assert!(names(&bench, &[]).is_empty());
    assert_eq!(names(&bench, &["--state", "archived"]), ["a", "b"]);
    bench.cat_is("a", &numbers(0, 10));
    let refused = bench.run_with(&["record", "LOG", "--name", "a"], b"more\n").ends_with(2);
    assert!(refused.err.contains("archived"), "{refused:?}");
    bench.run(&["unarchive", "LOG", "a"]).ends_with(0);
    bench.run_with(&["record", "LOG", "--name", "a"], b"10\n").ends_with(0);
    bench.cat_is("a", &numbers(0, 11));
    assert_eq!(names(&bench, &[]), ["a"]);
    // One that is unknown: nothing is done to the others.
    bench.run(&["archive", "LOG", "a", "nobody"]).ends_with(2);
    assert_eq!(names(&bench, &[]), ["a"]);
}

#[test]
fn a_deleted_stream_is_gone_its_name_is_free_and_its_space_comes_back() {
    let bench = Bench::new();
    // More than the segment that is being written, of which a dry run says only that it would be ended.
    bench.file(
        "gone",
        &"a line of some length that nobody will miss\n".repeat(250_000).into_bytes(),
    );
    bench.file("kept", &numbers(0, 3));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let id = one(bench.run(&["ls", "LOG", "--name", "gone", "--json"]))["id"].clone();
    let id = id.as_str().expect("an id");
    let done = one(bench.run(&["rm", "LOG", "gone", "--json"]));
    assert_eq!(done["streams"][0]["name"], "gone");
    bench.run(&["cat", "LOG", "gone"]).ends_with(2);
    let deleted = bench.run(&["cat", "LOG", id]).ends_with(2);
    assert!(deleted.err.contains("deleted"), "{deleted:?}");
    bench.run(&["name", "LOG", "kept", "gone"]).ends_with(0);

    let bytes = |bench: &Bench| bench.without_lock().values().map(Vec::len).sum::<usize>();
    let (before, files) = (bytes(&bench), bench.without_lock());
    let dry = one(bench.run(&["compact", "LOG", "--dry-run", "--json"]));
    assert_eq!(bytes(&bench), before);
    assert_eq!(bench.without_lock().keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    let real = one(bench.run(&["compact", "LOG", "--json"]));
    let runs = |report: &serde_json::Value| report["runs"].as_array().expect("runs").clone();
    assert_eq!(real["ended"], dry["ended"]);
    assert!(runs(&real).starts_with(&runs(&dry)), "a dry run says what would go: {dry}, {real}");
    assert_eq!(runs(&real).len() > runs(&dry).len(), !dry["ended"].is_null(), "{dry}, {real}");
    let freed = real["freed_bytes"].as_u64().expect("a number") as usize;
    assert!(freed > 1_000_000, "{real}");
    assert!(bytes(&bench) + freed / 2 < before, "{} of {before}", bytes(&bench));
    bench.cat_is("gone", &numbers(0, 3));
    bench.run(&["verify", "LOG"]).ends_with(0);
}

/// Deleted bytes are in no file of the log after a purge, and the report lists files that still hold them.
#[test]
fn what_is_purged_is_gone_or_its_files_are_listed() {
    let bench = Bench::new();
    bench.file("secret", b"the-launch-code\n");
    bench.file("kept", &numbers(0, 3));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let hits = |bench: &Bench| {
        let files = bench.without_lock();
        let has = |bytes: &&Vec<u8>| bytes.windows(11).any(|window| window == b"launch-code");
        files.values().filter(has).count()
    };
    bench.run(&["rm", "LOG", "secret"]).ends_with(0);
    bench.run(&["compact", "LOG", "--dead", "0"]).ends_with(0);
    assert_eq!(hits(&bench), 1, "it is in the segment that commits go to");
    bench.run(&["compact", "LOG", "--purge", "--dead", "0"]).ends_with(2);
    let kept = bench.log().join("segments/0000000001.seg.4096.torn");
    fs::write(&kept, b"launch-code").expect("written");
    let told = bench.run(&["compact", "LOG", "--purge", "--json"]).ends_with(2);
    let held = &told.json()[0]["held"];
    assert_eq!(held[0]["path"], "segments/0000000001.seg.4096.torn", "{held}");
    assert_eq!((held[0]["kind"].as_str(), &held[0]["links"]), (Some("repair"), &Value::Null));
    let told = bench.run(&["compact", "LOG", "--purge"]).ends_with(2);
    assert!(
        told.text().contains("0000000001.seg.4096.torn may still hold purged bytes"),
        "{told:?}"
    );
    fs::remove_file(kept).expect("removed");
    let told = one(bench.run(&["compact", "LOG", "--purge", "--json"]));
    assert_eq!(told["held"].as_array().map(Vec::len), Some(0), "{told}");
    assert_eq!(hits(&bench), 0);
    bench.cat_is("kept", &numbers(0, 3));
    bench.run(&["verify", "LOG"]).ends_with(0);
}

#[test]
fn an_export_is_imported_without_loss() {
    let bench = bench();
    bench.run(&["fork", "LOG", "a", "--at", "4", "--name", "c"]).ends_with(0);
    bench.run(&["label", "LOG", "a", "model=small"]).ends_with(0);
    bench.run(&["archive", "LOG", "b"]).ends_with(0);
    let text = bench.run(&["export", "LOG"]).ends_with(0).out;
    let file = bench.dir.path().join("all.jsonl");
    let path = file.to_str().expect("UTF-8");
    let told = one(bench.run(&["export", "LOG", "--output", path, "--json"]));
    assert_eq!((told["streams"].as_u64(), told["events"].as_u64()), (Some(3), Some(13)));
    assert!(fs::read(&file).expect("written") == text, "both ways are one");
    bench.run(&["export", "LOG", "--output", path]).ends_with(2);
    assert!(fs::read(&file).expect("still there") == text, "nothing is overwritten");

    let again = Bench::new();
    let summary = one(again.run(&["import", "--jsonl", "LOG", path, "--json"]));
    assert_eq!(summary["events"], 13);
    assert!(again.run(&["export", "LOG"]).ends_with(0).out == text);
    assert_eq!(names(&again, &["--all"]), names(&bench, &["--all"]));
    again.cat_is("c", &numbers(0, 4));

    again.run(&["import", "--jsonl", "LOG", path]).ends_with(2);
    let resumed = one(again.run(&["import", "--jsonl", "--resume", "LOG", path, "--json"]));
    assert_eq!((resumed["events"].as_u64(), resumed["commits"].as_u64()), (Some(13), Some(0)));
    again.run(&["label", "LOG", "a", "model=large"]).ends_with(0);
    let other = again.run(&["import", "--jsonl", "--resume", "LOG", path]).ends_with(2);
    assert!(other.err.contains("this log already has, or had, a stream"), "{other:?}");

    fs::write(&file, &text[..text.len() - 5]).expect("written");
    let third = Bench::new();
    third.run(&["import", "--jsonl", "LOG", path]).ends_with(2);
    assert!(!third.log().join("segments").exists(), "what is not right is not half there");
}

#[test]
fn p6_a_damaged_log_is_exported_as_far_as_it_is_whole_when_that_is_asked_for() {
    let bench = Bench::new();
    bench.file("a", b"one\ntwo\nthree\nfour\nfive\nsix\n");
    bench.file("b", &numbers(0, 3));
    bench.run(&["import", "LOG", "FILES", "--commit-every", "2"]).ends_with(0);
    let whole = bench.run(&["export", "LOG", "--skip-damaged"]).ends_with(0).text();
    assert_eq!(whole, bench.run(&["export", "LOG"]).ends_with(0).text(), "nothing to skip");
    let segment = fs::read_dir(bench.log().join("segments")).expect("segments").next();
    let segment = segment.expect("one").expect("readable").path();
    let mut bytes = fs::read(&segment).expect("readable");
    let at = bytes.windows(4).position(|some| some == b"four").expect("there");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("written");

    let file = bench.dir.path().join("left.jsonl");
    let path = file.to_str().expect("UTF-8");
    bench.run(&["export", "LOG"]).ends_with(2);
    bench.run(&["export", "LOG", "--output", path]).ends_with(2);
    assert!(!file.exists(), "a part of an export is none");
    let left = bench.run(&["export", "LOG", "--skip-damaged"]).ends_with(1);
    assert!(left.err.contains("events 2..4"), "{left:?}");
    let ran = bench.run(&["export", "LOG", "--skip-damaged", "-o", path, "--json"]).ends_with(1);
    let told = ran.json().remove(0);
    assert_eq!((told["events"].as_u64(), told["lost"].as_u64()), (Some(7), Some(2)), "{told}");
    assert_eq!(told["lost_seqs"][0]["seqs"], serde_json::json!([2, 4]));
    assert_eq!(told["damages"], 1);
    assert_eq!(fs::read_to_string(&file).expect("written"), left.text());

    let again = Bench::new();
    let ran = again.run(&["import", "--jsonl", "LOG", path, "--json"]).ends_with(1);
    let told = ran.json().remove(0);
    assert_eq!((told["events"].as_u64(), told["lost"].as_u64()), (Some(7), Some(2)), "{told}");
    let read = again.run(&["cat", "LOG", "a"]).ends_with(0);
    assert_eq!(read.text(), "one\ntwo\nfive\nsix\n");
    assert!(read.err.contains("2 events dropped before seq 4"), "{read:?}");
    again.cat_is("b", &numbers(0, 3));
    again.run(&["verify", "LOG"]).ends_with(0);
}

#[test]
fn p6_a_file_that_lacks_its_last_byte_hides_nothing() {
    let bench = Bench::new();
    bench.run_with(&["record", "LOG", "--name", "early"], &numbers(0, 3)).ends_with(0);
    bench.run_with(&["record", "LOG", "--name", "s"], &numbers(0, 5_000)).ends_with(0);
    let segment = bench.log().join("segments/0000000001.seg");
    let bytes = fs::read(&segment).expect("one");
    fs::write(&segment, &bytes[..bytes.len() - 1]).expect("written");

    let ran = bench.run(&["ls", "LOG", "--json"]).ends_with(1);
    assert!(ran.err.contains("shown as unconfirmed; `amberlog repair` keeps"), "{}", ran.err);
    let listed = ran.json();
    assert_eq!((&listed[1]["head"], &listed[1]["confirmed_head"]), (&5_000.into(), &0.into()));
    assert_eq!((&listed[0]["head"], listed[0].get("confirmed_head")), (&3.into(), None));
    let text = bench.run(&["ls", "LOG"]).ends_with(1).text();
    assert!(text.lines().nth(1).expect("two").ends_with("unconfirmed from 0  s"), "{text}");
    let cat = bench.run(&["cat", "LOG", "s"]).ends_with(0);
    assert!(cat.out == numbers(0, 5_000) && cat.err.contains("unconfirmed from seq 0 on"));
    let event =
        bench.run(&["cat", "LOG", "s", "--to", "1", "--json"]).ends_with(0).json().remove(0);
    assert_eq!(event["unconfirmed"], true);
    let early = bench.run(&["cat", "LOG", "early", "--json"]).ends_with(0).json().remove(0);
    assert_eq!(early.get("unconfirmed"), None);
    let info = bench.run(&["info", "LOG", "s"]).ends_with(0).text();
    assert!(info.contains("unconfirmed    from 0 on"), "{info}");
    let info = bench.run(&["info", "LOG", "--json"]).ends_with(1).json().remove(0);
    assert_eq!((&info["needs_repair"], &info["streams"]), (&true.into(), &2.into()));

    let path = bench.dir.path().join("all.jsonl");
    let path = path.to_str().expect("UTF-8");
    let ran = bench.run(&["export", "LOG", "--skip-damaged", "-o", path, "--json"]).ends_with(1);
    let told = ran.json().remove(0);
    assert_eq!((told["events"].as_u64(), told["lost"].as_u64()), (Some(5_003), Some(0)), "{told}");
    assert_eq!(told["unconfirmed"], serde_json::json!([2, 2]), "{told}");
    let again = Bench::new();
    again.run(&["import", "--jsonl", "LOG", path]).ends_with(0);
    again.cat_is("s", &numbers(0, 5_000));

    // The notes told the truth about what comes next.
    bench.run_with(&["record", "LOG", "--name", "s"], b"x").ends_with(2);
    bench.run(&["repair", "LOG"]).ends_with(1);
    let listed = bench.run(&["ls", "LOG", "--json"]).ends_with(1).json();
    assert_eq!((&listed[1]["head"], listed[1].get("confirmed_head")), (&5_000.into(), None));
    bench.run_with(&["record", "LOG", "--name", "s"], b"5000\n").ends_with(1);
    bench.cat_is("s", &numbers(0, 5_001));
}

/// Unconfirmed commits of a killed writer are hidden, exported by a salvage, and kept by the next
/// writer.
#[test]
fn p6_p12_what_a_killed_writer_left_is_told_and_kept_by_the_next_one() {
    let copy = Bench::new();
    copy.run_with(&["record", "LOG"], b"once\n").ends_with(0);
    let id = one(copy.run(&["ls", "LOG", "--json"]))["id"].as_str().expect("an id").to_owned();
    // The file as it was before the close: at its full length, without the tail record.
    let segment = copy.log().join("segments/0000000001.seg");
    let mut bytes = fs::read(&segment).expect("one");
    bytes.truncate(bytes.len() - 40);
    bytes.resize(256 << 10, 0);
    fs::write(&segment, bytes).expect("written");
    let ran = copy.run(&["ls", "LOG"]).ends_with(0);
    assert_eq!(ran.text(), "");
    assert!(ran.err.contains("not shown; a writer may be committing it now"), "{}", ran.err);
    let salvaged = copy.run(&["export", "LOG", "--skip-damaged"]).ends_with(0);
    assert!(salvaged.text().contains("\"text\":\"once\""), "{salvaged:?}");
    assert!(salvaged.text().contains("{\"unconfirmed\":"), "{salvaged:?}");
    assert!(!copy.run(&["export", "LOG"]).ends_with(0).text().contains("once"));
    copy.run_with(&["record", "LOG"], b"").ends_with(0);
    copy.cat_is(&id, b"once\n");
}

#[test]
fn a_backup_is_a_log_and_is_never_put_where_something_is() {
    let bench = bench();
    let target = bench.dir.path().join("copy");
    let path = target.to_str().expect("UTF-8");
    let told = one(bench.run(&["backup", "LOG", path, "--json"]));
    assert!(told["segments"].as_u64() > Some(0), "{told}");
    let copied = bench.run(&["cat", path, "a"]).ends_with(0);
    assert!(copied.out == numbers(0, 10));
    bench.run(&["verify", path]).ends_with(0);
    bench.run(&["backup", "LOG", path]).ends_with(2);
    bench.run(&["rm", "LOG", "a"]).ends_with(0);
    assert!(bench.run(&["cat", path, "a"]).ends_with(0).out == numbers(0, 10));
}

#[test]
fn ls_gives_pages_in_either_direction() {
    let bench = Bench::new();
    for n in 0..25 {
        bench.file(&format!("{n:02}"), &numbers(0, 1));
    }
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let all = names(&bench, &[]);
    assert_eq!(all.len(), 25);
    let reversed: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(names(&bench, &["--reverse"]), reversed);
    let (mut paged, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["ls", "LOG", "--json", "--limit", "7"];
        args.extend(after.iter().flat_map(|cursor| ["--after", cursor.as_str()]));
        let page = bench.run(&args).ends_with(0);
        let streams = page.json();
        assert!(streams.iter().all(|stream| stream["id"].is_string()), "streams only: {page:?}");
        paged.extend(streams.iter().filter_map(|stream| Some(stream["name"].as_str()?.to_owned())));
        if page.err.is_empty() {
            break;
        }
        let note: Value = serde_json::from_str(&page.err).expect("one object");
        after = note["next"].as_str().map(str::to_owned);
    }
    assert_eq!(paged, all);
    assert_eq!(names(&bench, &["--name", "1"]).len(), 10);
    assert!(names(&bench, &["--since", "2999-01-01"]).is_empty());
    assert_eq!(names(&bench, &["--until", "2999-01-01"]).len(), 25);
    for (time, since, until) in [("2999-01-01", 0, 25), ("2020-01-01", 25, 0)] {
        assert_eq!(names(&bench, &["--committed-since", time]).len(), since);
        assert_eq!(names(&bench, &["--committed-until", time]).len(), until);
    }
    let both = ["--committed-since", "2020-01-01", "--committed-until", "2999-01-01"];
    assert_eq!(names(&bench, &[&both[..], &["--order", "committed"]].concat()).len(), 25);
    for (name, rank) in [("07", "b"), ("03", "c"), ("21", "a")] {
        bench.run(&["label", "LOG", name, &format!("rank={rank}")]).ends_with(0);
    }
    assert_eq!(names(&bench, &["--order", "label:rank"]), ["21", "07", "03"]);
    let page = ["ls", "LOG", "--order", "label:rank", "--reverse", "--limit", "2"];
    let first = bench.run(&page).ends_with(0);
    let (_, cursor) = first.err.trim_end().split_once("--after ").expect("there is more");
    let last = bench.run(&[&page[..], &["--after", cursor, "--json"]].concat()).ends_with(0).json();
    assert_eq!((last.len(), &last[0]["name"]), (1, &Value::from("21")));
    for wrong in ["rank", "label:", "Created"] {
        let refused = bench.run(&["ls", "LOG", "--order", wrong]).ends_with(2);
        assert!(refused.err.contains("invalid order (expected created"), "{refused:?}");
    }
    bench.run(&["ls", "LOG", "--since", "yesterday"]).ends_with(2);
    bench.run(&["ls", "LOG", "--committed-until", "yesterday"]).ends_with(2);
}
