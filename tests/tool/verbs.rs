//! What the command line does: bytes come back, nothing is done twice, looking changes nothing.

#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use amberlog::{Log, ReadView};
use serde_json::Value;

use crate::support::cli::{Bench, Ran, numbers, read_tree};

const READING: [&[&str]; 6] = [
    &["ls", "LOG"],
    &["cat", "LOG", "s"],
    &["info", "LOG"],
    &["info", "LOG", "s"],
    &["verify", "LOG"],
    &["dump", "LOG", "--events"],
];

/// The status of each file of an import that printed JSON.
fn statuses(ran: &Ran) -> BTreeMap<String, String> {
    let summary = ran.json().remove(0);
    let files = summary["files"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    files.map(|file| (text(&file["name"]), text(&file["status"]))).collect()
}

#[test]
fn import_and_cat_give_every_thread_back() {
    let bench = Bench::new();
    let threads = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/threads");
    let threads_arg = threads.to_str().expect("UTF-8");
    let first = bench.run(&["import", "LOG", threads_arg]).ends_with(0);
    let mut files = BTreeMap::new();
    read_tree(&threads, &mut files);
    assert!(files.len() > 10);
    assert!(first.text().contains("imported"), "{first:?}");
    for (path, bytes) in &files {
        let name = path.strip_prefix(&threads).expect("below");
        bench.cat_is(name.to_str().expect("UTF-8"), bytes);
    }
    let listed = bench.run(&["ls", "LOG"]).ends_with(0).text();
    assert_eq!(listed.lines().count(), files.len());

    let before = bench.without_lock();
    let second = bench.run(&["import", "LOG", threads_arg, "--json"]).ends_with(0);
    assert!(statuses(&second).values().all(|status| status == "already"));
    assert_eq!(statuses(&second).len(), files.len());
    assert_eq!(bench.without_lock(), before);
}

#[test]
fn a_file_that_grew_is_resumed() {
    let bench = Bench::new();
    bench.file("a.txt", &numbers(0, 1000));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    bench.file("a.txt", &numbers(0, 1500));
    let ran = bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    assert!(ran.text().contains("resumed at line 1001"), "{ran:?}");
    assert!(ran.text().contains("500 new events"), "{ran:?}");
    bench.cat_is("a.txt", &numbers(0, 1500));
    let again = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(0);
    assert_eq!(statuses(&again)["a.txt"], "already");
}

#[test]
fn a_file_that_differs_is_left_alone_and_told() {
    let bench = Bench::new();
    bench.file("changed", b"one\ntwo\nthree\n");
    bench.file("shorter", b"one\ntwo\nthree\n");
    bench.file("unended", b"one\ntwo");
    bench.file("same", b"one\n");
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let before = bench.without_lock();
    bench.file("changed", b"one\n2\nthree\nfour\n");
    bench.file("shorter", b"one\ntwo\n");
    bench.file("unended", b"one\ntoo\n");
    let ran = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(1);
    let statuses = statuses(&ran);
    for name in ["changed", "shorter", "unended"] {
        assert_eq!(statuses[name], "differs");
    }
    assert_eq!(statuses["same"], "already");
    assert_eq!(bench.without_lock(), before);
}

#[test]
fn awkward_bytes_come_back() {
    let bench = Bench::new();
    let mut long = vec![b'x'; 3 << 20];
    long.extend(b"\nand a line behind it\n");
    let mut far_nul = numbers(0, 3000);
    far_nul.extend(b"a\0b\n");
    let files: [(&str, &[u8]); 10] = [
        ("crlf.txt", b"one\r\ntwo\r\n\r\n"),
        ("latin1.txt", b"caf\xe9\n\xff\xfe\n"),
        ("empty-lines", b"\n\n\nx\n\n"),
        ("unended", b"one\ntwo"),
        ("one-byte", b"x"),
        ("one-newline", b"\n"),
        ("long", &long),
        ("far-nul", &far_nul),
        ("deep/er/a b \u{e9}.jsonl", b"{\"a\":1}\nno json\n{\"b\":\"\xff\"}\n\n[]"),
        ("nul.jsonl", b"{}\n\0\0\n"),
    ];
    for (name, bytes) in files {
        bench.file(name, bytes);
    }
    bench.file("nothing.txt", b"");
    bench.file("picture.png", b"\x89PNG\0\0\n");
    bench.file(".hidden", b"secret\n");
    bench.file(".git/config", b"secret\n");
    let ran = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(0);
    let statuses = statuses(&ran);
    assert_eq!(statuses["nothing.txt"], "empty");
    assert_eq!(statuses["picture.png"], "skipped");
    for note in ["picture.png: skipped", ".hidden: skipped", ".git: skipped"] {
        assert!(ran.err.contains(note), "{}", ran.err);
    }
    for (name, bytes) in files {
        assert_eq!(statuses[name], "imported", "{name}");
        bench.cat_is(name, bytes);
    }
    assert_eq!(bench.run(&["ls", "LOG"]).json_lines(), files.len());
    bench.run(&["cat", "LOG", "nothing.txt"]).ends_with(2);
    let again = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(0);
    let again = statuses_of_streams(&again);
    assert!(again.iter().all(|status| status == "already"), "{again:?}");

    let cat = ["cat", "LOG", "deep/er/a b \u{e9}.jsonl", "--json"];
    let events = bench.run(&cat).ends_with(0).json();
    let codecs: Vec<_> = events.iter().map(|event| event["codec"].as_u64()).collect();
    assert_eq!(codecs, [Some(2), Some(0), Some(0), Some(0), Some(2)]);
    assert_eq!(events[0]["json"], serde_json::json!({ "a": 1 }));
    assert_eq!(events[2]["base64"], "eyJiIjoi/yJ9");
    assert_eq!(events[4]["kind"], 1);
}

impl Ran {
    fn json_lines(&self) -> usize {
        self.text().lines().count()
    }
}

fn statuses_of_streams(ran: &Ran) -> Vec<String> {
    let all = statuses(ran).into_values();
    all.filter(|status| status != "empty" && status != "skipped").collect()
}

#[test]
fn import_takes_plain_files_and_refuses_a_name_twice() {
    let bench = Bench::new();
    let one = bench.file("a/x.txt", b"1\n");
    let two = bench.file("b/x.txt", b"2\n");
    let (one, two) = (one.to_str().expect("UTF-8"), two.to_str().expect("UTF-8"));
    bench.run(&["import", "LOG", one, two]).ends_with(2);
    assert!(!bench.log().exists());
    bench.run(&["import", "LOG", one]).ends_with(0);
    bench.cat_is("x.txt", b"1\n");
    bench.run(&["import", "LOG", two]).ends_with(1);
    bench.run(&["import", "LOG", "nowhere"]).ends_with(2);
    bench.run(&["import", "LOG"]).ends_with(2);
    let nothing = bench.file("nothing", b"");
    let other = bench.dir.path().join("other");
    let args = ["import", other.to_str().expect("UTF-8"), nothing.to_str().expect("UTF-8")];
    bench.run(&args).ends_with(0);
    assert!(!other.exists());
}

#[test]
fn import_commits_as_often_as_it_is_told() {
    let bench = Bench::new();
    bench.file("a", &numbers(0, 1000));
    let args = ["import", "LOG", "FILES", "--commit-every", "100", "--json"];
    let ran = bench.run(&args).ends_with(0);
    assert_eq!(ran.json()[0]["totals"]["commits"], 10);
    bench.cat_is("a", &numbers(0, 1000));
}

#[test]
fn import_leaves_out_the_log_itself() {
    let bench = Bench::new();
    bench.file("a", b"1\n");
    let root = bench.dir.path().to_str().expect("UTF-8");
    bench.run(&["import", "LOG", root]).ends_with(0);
    let ran = bench.run(&["import", "LOG", root, "--json"]).ends_with(0);
    assert_eq!(statuses(&ran)["files/a"], "already");
    assert!(ran.err.contains("the log itself"), "{}", ran.err);
    assert_eq!(bench.run(&["ls", "LOG"]).json_lines(), 1);
}

#[test]
fn record_commits_everything_at_the_end_or_every_n_lines() {
    let bench = Bench::new();
    let record = ["record", "LOG", "--name", "s", "--json"];
    let ran = bench.run_with(&record, &numbers(0, 10)).ends_with(0);
    assert_eq!(ran.json()[0]["committed"], 10);
    assert_eq!(ran.json()[0]["commits"], 1);
    let every = ["record", "LOG", "--name", "s", "--commit-every", "4", "--json"];
    let ran = bench.run_with(&every, &numbers(10, 20)).ends_with(0);
    assert_eq!(ran.json()[0]["commits"], 3);
    bench.cat_is("s", &numbers(0, 20));
    let ran = bench.run_with(&["record", "LOG"], b"no name").ends_with(0);
    let id = ran.text().split(' ').next().expect("an id").to_owned();
    bench.cat_is(&id, b"no name");
    let ran = bench.run_with(&["record", "LOG"], b"").ends_with(0);
    assert!(ran.text().contains("nothing committed"), "{ran:?}");
}

#[test]
fn p2_record_commits_on_a_match_and_nothing_behind_it() {
    let bench = Bench::new();
    let record = ["record", "LOG", "--name", "s", "--commit-on", "^1?5$", "--json"];
    let ran = bench.run_with(&record, &numbers(0, 20)).ends_with(0);
    let summary = &ran.json()[0];
    assert_eq!(summary["committed"], 16);
    assert_eq!(summary["commits"], 2);
    assert_eq!(summary["not_committed"], 4);
    assert!(ran.err.contains("4 events not committed"), "{}", ran.err);
    bench.cat_is("s", &numbers(0, 16));

    let never = ["record", "LOG", "--name", "t", "--commit-on", "x"];
    bench.run_with(&never, &numbers(0, 20)).ends_with(0);
    bench.run(&["cat", "LOG", "t"]).ends_with(2);
    let wrong = ["record", "LOG", "--commit-on", "("];
    bench.run(&wrong).ends_with(2);
    let both = ["record", "LOG", "--commit-on", "x", "--commit-every", "1"];
    bench.run(&both).ends_with(2);
}

#[test]
fn p10_a_flight_recorder_keeps_what_was_last() {
    let bench = Bench::new();
    let record = [
        "record",
        "LOG",
        "--name",
        "s",
        "--commit-on",
        "^5000$",
        "--keep-last",
        "--ring",
        "4k",
        "--json",
    ];
    let ran = bench.run_with(&record, &numbers(0, 6000)).ends_with(0);
    let summary = &ran.json()[0];
    let (committed, dropped) = (&summary["committed"], &summary["dropped"]);
    let committed = committed.as_u64().expect("a number");
    assert!((100..=4096 / 5).contains(&committed), "{summary}");
    assert_eq!(dropped.as_u64(), Some(5001 - committed));
    assert_eq!(summary["not_committed"], 999);

    let cat = bench.run(&["cat", "LOG", "s"]).ends_with(0);
    assert_eq!(cat.out, numbers(5001 - committed, 5001));
    let reverse = bench.run(&["cat", "LOG", "s", "--reverse"]).ends_with(0).text();
    assert_eq!(reverse.lines().count() as u64, committed);
    assert!(reverse.starts_with("5000\n4999\n"));
    let gap = format!("{} events dropped before seq", 5001 - committed);
    assert!(cat.err.contains(&gap), "{}", cat.err);
    let first = bench.run(&["cat", "LOG", "s", "--json"]).json().remove(0);
    assert_eq!(first["dropped_before"].as_u64(), Some(5001 - committed));
    assert_eq!(first["seq"].as_u64(), Some(5001 - committed));
}

#[test]
fn p10_a_full_ring_ends_a_recording_and_keeps_what_was_committed() {
    let bench = Bench::new();
    let record = ["record", "LOG", "--name", "s", "--commit-on", "^50$", "--ring", "4k"];
    let ran = bench.run_with(&record, &numbers(0, 10_000)).ends_with(2);
    assert!(ran.err.contains("the ring is full"), "{}", ran.err);
    assert!(ran.text().contains("51 committed"), "{ran:?}");
    bench.cat_is("s", &numbers(0, 51));
    let fine = ["record", "LOG", "--name", "t", "--commit-every", "50", "--ring", "4k"];
    bench.run_with(&fine, &numbers(0, 10_000)).ends_with(0);
    bench.cat_is("t", &numbers(0, 10_000));
}

#[test]
fn cat_shows_a_part_and_either_way() {
    let bench = Bench::new();
    bench.run_with(&["record", "LOG", "--name", "s"], &numbers(0, 10));
    let text = |args: &[&str]| {
        let args = [&["cat", "LOG", "s"], args].concat();
        bench.run(&args).ends_with(0).text()
    };
    assert_eq!(text(&["--from", "7"]), "7\n8\n9\n");
    assert_eq!(text(&["--to", "2"]), "0\n1\n");
    assert_eq!(text(&["--from", "3", "--to", "5", "--reverse"]), "4\n3\n");
    assert_eq!(text(&["--from", "5", "--to", "3"]), "");
    assert_eq!(text(&["--reverse"]), "9\n8\n7\n6\n5\n4\n3\n2\n1\n0\n");
    let id = bench.run(&["ls", "LOG", "--json"]).json()[0]["id"].clone();
    let id = id.as_str().expect("an id");
    bench.cat_is(id, &numbers(0, 10));
    bench.cat_is(&id[..13], &numbers(0, 10));
    let unknown = bench.run(&["cat", "LOG", "nobody"]).ends_with(2);
    assert!(unknown.err.contains("amberlog ls"), "{}", unknown.err);
}

#[test]
fn p6_damage_is_told_by_place_and_read_past() {
    let bench = Bench::new();
    let record = ["record", "LOG", "--name", "s", "--commit-every", "100"];
    bench.run_with(&record, &numbers(1000, 2000)).ends_with(0);
    bench.run_with(&["record", "LOG", "--name", "t"], b"fine\n").ends_with(0);
    let sound = bench.run(&["verify", "LOG"]).ends_with(0);
    assert!(sound.text().starts_with("sound"), "{sound:?}");

    let segment = bench.log().join("segments/0000000001.seg");
    let mut bytes = fs::read(&segment).expect("a segment");
    let found = bytes.windows(4).position(|four| four == b"1550");
    bytes[found.expect("the payload")] ^= 1;
    fs::write(&segment, bytes).expect("damaged");

    let damaged = bench.run(&["verify", "LOG"]).ends_with(1);
    assert!(damaged.text().contains("events 500..600"), "{damaged:?}");
    let report = bench.run(&["verify", "LOG", "--json"]).ends_with(1).json().remove(0);
    assert_eq!(report["sound"], false);
    let damage = &report["damages"][0];
    assert_eq!(damage["kind"], "commit");
    assert_eq!(damage["segment"], 1);
    assert_eq!(damage["events"][0]["seqs"]["start"], 500);
    assert_eq!(damage["events"][0]["seqs"]["end"], 600);
    assert_eq!(report["events"], 901);
    let quick = ["verify", "LOG", "--quick", "--json"];
    let report = bench.run(&quick).ends_with(1).json().remove(0);
    assert_eq!(report["damages"][0], *damage);
    assert!(report["quick"] == true && report["events"].is_null(), "{report}");

    let cat = bench.run(&["cat", "LOG", "s"]).ends_with(1);
    assert!(cat.err.contains("events 500..600"), "{}", cat.err);
    assert_eq!(cat.out, [numbers(1000, 1500), numbers(1600, 2000)].concat());
    bench.cat_is("t", b"fine\n");
    let info = bench.run(&["info", "LOG", "s", "--json"]).ends_with(1).json().remove(0);
    assert_eq!(info["unreadable"], 100);
    bench.run(&["dump", "LOG"]).ends_with(0);
}

#[test]
fn what_cannot_be_looked_at_is_told_apart_from_damage() {
    let bench = Bench::new();
    for args in [
        &["verify", "LOG"][..],
        &["ls", "LOG"],
        &["cat", "LOG", "x"],
        &["info", "LOG"],
        &["dump", "LOG"],
        &["data", "LOG", "x"],
        &["data", "LOG", "x", "--clear"],
        &["export", "LOG"],
        &["backup", "LOG", "FILES"],
        &["fork", "LOG", "x"],
        &["rewind", "LOG", "x", "1"],
        &["trim", "LOG", "x", "1"],
        &["name", "LOG", "x", "y"],
        &["label", "LOG", "x", "key=value"],
        &["archive", "LOG", "x"],
        &["unarchive", "LOG", "x"],
        &["rm", "LOG", "x"],
        &["repair", "LOG"],
    ] {
        let ran = bench.run(args).ends_with(2);
        assert!(ran.err.contains("there is no log at"), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty() && !bench.log().exists());
    }
    bench.run(&["frobnicate"]).ends_with(2);
    bench.run(&["--help"]).ends_with(0);
}

#[test]
fn json_is_json() {
    let bench = Bench::new();
    bench.file("s", &numbers(0, 100));
    bench.file("t", b"\xff\n");
    let import = bench.run(&["import", "LOG", "FILES", "--json"]).json();
    assert_eq!(import.len(), 1);
    for args in READING {
        let ran = bench.run(&[args, &["--json"]].concat()).ends_with(0);
        let lines = ran.json();
        assert!(!lines.is_empty() && lines.iter().all(Value::is_object), "{args:?}");
        let ends = ran.out.ends_with(b"\n");
        assert!(ends);
    }
    let listed = bench.run(&["ls", "LOG", "--json"]).json();
    assert_eq!(listed[0]["name"], "s");
    assert_eq!(listed[0]["head"], 100);
    let info = bench.run(&["info", "LOG", "--json"]).json().remove(0);
    assert_eq!(info["streams"], 2);
    assert_eq!(info["events"], 101);
    let costs = amberlog::stats::MemoryCosts::CURRENT;
    assert_eq!(info["memory"]["durable_stream"], costs.durable_stream);
    let metadata = info["memory"]["metadata"].as_u64().expect("a number");
    let when_open = costs.open_log + 2 * costs.durable_stream + metadata;
    assert_eq!(info["memory"]["when_open"], when_open);
    let items: Vec<_> = bench.run(&["dump", "LOG", "--json"]).json();
    let items: Vec<_> = items.iter().filter_map(|item| item["record"].as_str()).collect();
    assert!(items.contains(&"segment") && items.contains(&"commit") && items.contains(&"events"));
    assert!(!items.contains(&"event"));
}

#[test]
fn p12_reading_changes_nothing_and_works_beside_a_writer() {
    let bench = Bench::new();
    let log = Log::open(bench.log()).expect("opens");
    let options = amberlog::StreamOptions::new().name("s");
    let mut stream = log.create_stream_with(&options).expect("a stream");
    for n in 0..3 {
        stream.append(format!("event {n}").as_bytes()).expect("room");
        stream.commit().wait().expect("committed");
    }
    stream.append(b"volatile").expect("room");
    let before = bench.on_disk();
    for args in READING {
        bench.run(args).ends_with(0);
        assert_eq!(bench.on_disk(), before, "{args:?}");
    }
    let busy = bench.run_with(&["record", "LOG"], b"x\n").ends_with(2);
    assert!(busy.err.contains("one writer at a time"), "{}", busy.err);

    // The watermark on disk may lag by what was committed last; the reader says so.
    let (_, recovery) = ReadView::open(bench.log()).expect("opens");
    let shown = recovery.acknowledged.get();
    let hidden = recovery.position.get() - shown;
    let cat = bench.run(&["cat", "LOG", "s"]).ends_with(0);
    assert_eq!(cat.text().lines().count() as u64, shown);
    assert_eq!(cat.err.contains("not known to have been acknowledged"), hidden > 0, "{}", cat.err);

    drop(stream);
    log.close().expect("closes");
    bench.cat_is("s", b"event 0\nevent 1\nevent 2\n");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let bench = Bench::new();
    bench.run_with(&["record", "LOG", "--name", "s"], &numbers(0, 200_000)).ends_with(0);
    let mut child = bench
        .command(&["cat", "LOG", "s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut first = [0; 2];
    stdout.read_exact(&mut first).expect("a line");
    assert_eq!(&first, b"0\n");
    drop(stdout);
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn a_file_that_cannot_be_taken_does_not_stop_the_others() {
    let bench = Bench::new();
    bench.file("a", b"1\n");
    bench.file("line\nbreak", b"2\n");
    bench.file("z", b"3\n");
    let ran = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(2);
    let statuses = statuses(&ran);
    assert_eq!(statuses["line\nbreak"], "failed");
    assert_eq!(statuses["a"], "imported");
    bench.cat_is("z", b"3\n");
}

#[test]
fn retain_says_what_would_go_and_then_lets_it_go() {
    let bench = Bench::new();
    let one = bench.file("one", b"1\n2\n3\n4\n");
    let two = bench.file("two", b"1\n");
    let (one, two) = (one.to_str().expect("UTF-8"), two.to_str().expect("UTF-8"));
    bench.run(&["import", "LOG", one, two]).ends_with(0);
    bench.run(&["label", "LOG", "two", "kind=trace"]).ends_with(0);
    bench.run(&["retain", "LOG"]).ends_with(2);
    bench.run(&["retain", "LOG", "--max-age", "30"]).ends_with(2);
    let all = ["retain", "LOG", "--max-age", "30d", "--max-idle", "30d", "--max-bytes", "1G"];
    assert!(bench.run(&all).ends_with(0).text().starts_with("0 streams trimmed, 0 deleted"));

    let before = bench.without_lock();
    let last = ["retain", "LOG", "--max-events", "1", "--json"];
    let plan = bench.run(&[&last[..], &["--dry-run"]].concat()).ends_with(0).json().remove(0);
    assert_eq!(bench.without_lock(), before, "a dry run changes nothing");
    let done = bench.run(&last).ends_with(0).json().remove(0);
    assert_eq!((&plan["streams"], &done["streams_trimmed"]), (&done["streams"], &Value::from(1)));
    assert_eq!(done["streams"][0]["seqs"], serde_json::json!([0, 3]));
    bench.cat_is("one", b"4\n");

    let trace = ["retain", "LOG", "--max-idle", "0s", "--label", "kind=trace"];
    let text = bench.run(&trace).ends_with(0).text();
    assert!(text.contains("deleted, over the idle bound: 1 event"), "{text}");
    assert_eq!(bench.run(&["ls", "LOG"]).ends_with(0).text().lines().count(), 1);
}

/// Verbs that look at the files of a log say which ones read an archive file.
#[test]
fn p14_verbs_that_cannot_read_an_archive_file_say_which_can() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("a").expect("room");
    stream.commit().wait().expect("committed");
    let file = dir.path().join(log.write_archive(stream.id()).expect("written").path);
    let file = file.to_str().expect("UTF-8");
    for verb in ["info", "dump"] {
        let ran = bench.run(&[verb, file]);
        let said = &ran.err;
        assert!(said.contains("is an archive file; use ls, cat, export or verify"), "{said}");
    }
    for verb in ["ls", "verify", "export"] {
        bench.run(&[verb, file]).ends_with(0);
    }
}
