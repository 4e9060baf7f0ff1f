//! Does an import that runs every night bring what is new, whatever became of its files and streams
//! in between?

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use crate::support::cli::{Bench, numbers};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Imports all files, and returns the report on the one whose stream has this name.
#[track_caller]
fn import(bench: &Bench, code: i32, name: &str) -> Value {
    let ran = bench.run(&["import", "LOG", "FILES", "--json"]).ends_with(code);
    let summary = ran.json().remove(0);
    let files = summary["files"].as_array().expect("a list");
    let found = files.iter().find(|file| file["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {summary}")).clone()
}

#[track_caller]
fn brings(bench: &Bench, name: &str, status: &str, events: u64) {
    let told = import(bench, 0, name);
    assert_eq!((&told["status"], &told["new_events"]), (&status.into(), &events.into()), "{told}");
}

#[test]
fn a_last_line_that_was_half_written_goes_on_when_it_is_whole() {
    let bench = Bench::new();
    let steps: [(&[u8], &str, u64); 6] = [
        (b"one\ntw", "imported", 2),
        (b"one\ntwo and", "resumed", 1),
        (b"one\ntwo and", "already", 0),
        (b"one\ntwo and a half\nthr", "resumed", 2),
        (b"one\ntwo and a half\nthr\n", "resumed", 1),
        (b"one\ntwo and a half\nthr\nfour\n", "resumed", 1),
    ];
    for (text, status, events) in steps {
        bench.file("a", text);
        brings(&bench, "a", status, events);
        bench.cat_is("a", text);
    }
    // The whole line may be JSON; a fork of the half line keeps that.
    bench.file("b.jsonl", b"{\"n\":1}\n{\"n\"");
    brings(&bench, "b.jsonl", "imported", 2);
    bench.run(&["fork", "LOG", "b.jsonl", "--name", "fork"]).ends_with(0);
    bench.file("b.jsonl", b"{\"n\":1}\n{\"n\":2}\n");
    brings(&bench, "b.jsonl", "resumed", 1);
    let events = bench.run(&["cat", "LOG", "b.jsonl", "--json"]).ends_with(0).json();
    let codecs: Vec<_> = events.iter().map(|event| event["codec"].as_u64()).collect();
    assert_eq!(codecs, [Some(2), Some(2)]);
    bench.cat_is("fork", b"{\"n\":1}\n{\"n\"");
    // Another line is no continuation of the half one.
    bench.file("c", b"one\ntwo");
    brings(&bench, "c", "imported", 2);
    bench.file("c", b"one\ntwist and more\n");
    let told = import(&bench, 1, "c");
    assert_eq!(told["difference"], "changed", "{told}");
    bench.cat_is("c", b"one\ntwo");
}

#[test]
fn import_and_retention_work_together_night_after_night() {
    let bench = Bench::new();
    let mut text = Vec::new();
    for night in 0..12_u64 {
        // Some nights bring nothing, most end in the middle of a line.
        let before = text.iter().filter(|byte| **byte == b'\n').count();
        for line in 0..night % 4 * 3 {
            text.extend(format!("{line} of night {night}\n").bytes());
        }
        let whole = text.clone();
        if night % 3 == 1 {
            text.extend(b"begun ");
        }
        bench.file("a", &text);
        let told = import(&bench, 0, "a");
        let status = told["status"].as_str().expect("a word").to_owned();
        let expected = if night == 0 { "empty" } else { "resumed" };
        assert!(status == expected || night % 4 == 0 || night == 1, "{night}: {told}");
        let lines = text.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>();
        let kept: u64 = [3, 1, 5][night as usize % 3];
        if night > 0 {
            let max = kept.to_string();
            bench.run(&["retain", "LOG", "--max-events", &max]).ends_with(0);
            let left = lines.len().saturating_sub(kept as usize);
            let shown = bench.run(&["cat", "LOG", "a"]).ends_with(0).out;
            let tail = lines[left..].concat();
            assert!(tail.ends_with(&shown), "{night}: {}", String::from_utf8_lossy(&shown));
            brings(&bench, "a", "already", 0);
        }
        assert!(whole.len() >= before);
    }
    // All of it is trimmed, and the label still says how far the file was read.
    let head = bench.run(&["info", "LOG", "a", "--json"]).ends_with(0).json().remove(0);
    let head = head["head"].as_u64().expect("a number").to_string();
    bench.run(&["trim", "LOG", "a", &head]).ends_with(0);
    bench.run(&["compact", "LOG", "--dead", "0"]).ends_with(0);
    brings(&bench, "a", "already", 0);
    let known = text.len();
    text.extend(b"one more\n");
    bench.file("a", &text);
    brings(&bench, "a", "resumed", 1);
    bench.cat_is("a", &text[known..]);
    // The file is filled anew, with more lines than it ever had.
    bench.run(&["trim", "LOG", "a", &(head.parse::<u64>().expect("a number") + 1).to_string()]);
    let before = bench.without_lock();
    bench.file("a", &numbers(0, 10_000));
    let told = import(&bench, 1, "a");
    assert_eq!(told["difference"], "replaced", "{told}");
    assert_eq!(bench.without_lock(), before);
    assert!(bench.run(&["ls", "LOG"]).ends_with(0).text().trim_end().ends_with("  a"));
}

#[test]
fn what_became_of_a_file_is_told_apart_with_what_to_do() {
    let bench = Bench::new();
    let text = numbers(0, 10);
    let becomes: [(&str, &[u8], &str); 7] = [
        ("emptied", b"", "emptied"),
        ("shortened", &text[..8], "shortened"),
        ("cut", &text[..7], "shortened"),
        ("filled", b"a\nb\n", "replaced"),
        ("filled more", &numbers(100, 200), "replaced"),
        ("changed", b"0\n1\n2\nx\n4\n5\n6\n7\n8\n9\n", "changed"),
        ("changed and more", b"0\n1\n2\n3\n4\n5\n6\n7\n8\n!\n10\n11\n", "changed"),
    ];
    for (name, ..) in becomes {
        bench.file(name, &text);
    }
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let before = bench.without_lock();
    for (name, bytes, _) in becomes {
        bench.file(name, bytes);
    }
    let ran = bench.run(&["import", "LOG", "FILES"]).ends_with(1);
    for (name, _, difference) in becomes {
        let told = import(&bench, 1, name);
        assert_eq!(told["difference"], difference, "{told}");
        let line = ran.err.lines().find(|line| line.contains(&format!("/{name}: differs")));
        let line = line.unwrap_or_else(|| panic!("{name}: {}", ran.err));
        assert!(line.contains("amberlog name") || difference == "shortened", "{line}");
    }
    assert_eq!(bench.without_lock(), before, "and nothing is touched");
    // The advice works.
    bench.run(&["name", "LOG", "filled", "filled.old"]).ends_with(0);
    assert_eq!(import(&bench, 1, "filled")["status"], "imported");
    bench.cat_is("filled", b"a\nb\n");
    bench.cat_is("filled.old", &text);
    bench.file("shortened", &[&text[..], b"10\n"].concat());
    assert_eq!(import(&bench, 1, "shortened")["status"], "resumed");
}

#[test]
fn compressed_files_are_read_and_go_on_as_the_streams_that_they_were() {
    let bench = Bench::new();
    let text = numbers(0, 40_000);
    bench.file("plain", &text);
    bench.file("g.gz", &gzip(&text));
    bench.file("z.zst", &zstd(&text));
    bench.file("two.gz", &[gzip(b"one\n"), gzip(b"two\n")].concat());
    bench.file("two.zst", &[zstd(b"one\n"), zstd(b"two\n")].concat());
    bench.file("json.jsonl.gz", &gzip(b"{\"a\":1}\n\0\n"));
    bench.file("binary.gz", &gzip(b"\0\0\0\n"));
    bench.file("misnamed", &gzip(&text));
    let ran = bench.run(&["import", "LOG", "FILES"]).ends_with(2);
    assert!(ran.err.contains("two.gz and") && ran.err.contains("one stream"), "{}", ran.err);
    assert!(ran.err.contains("misnamed: skipped: compressed by gzip"), "{}", ran.err);
    assert!(ran.err.contains("binary.gz: skipped: not a text file"), "{}", ran.err);
    fs::remove_file(bench.files().join("two.zst")).expect("there");
    brings(&bench, "two", "imported", 2);
    for name in ["plain", "g", "z"] {
        bench.cat_is(name, &text);
    }
    let events = bench.run(&["cat", "LOG", "json.jsonl", "--json"]).ends_with(0).json();
    assert_eq!(events[0]["codec"], 2);
    // Plain files get compressed, compressed ones grow or become plain: all go on.
    fs::remove_file(bench.files().join("plain")).expect("there");
    let more = numbers(0, 40_010);
    bench.file("plain.gz", &gzip(&more));
    bench.file("g.gz", &gzip(&more));
    fs::remove_file(bench.files().join("z.zst")).expect("there");
    bench.file("z", &more);
    brings(&bench, "plain", "resumed", 10);
    for name in ["plain", "g", "z"] {
        brings(&bench, name, "already", 0);
        bench.cat_is(name, &more);
    }
    // A file that is cut, or misnamed, is reported; only whole lines of it are imported.
    for (name, bytes) in
        [("cut.gz", gzip(&text)), ("cut2.zst", zstd(&text)), ("none.gz", text.clone())]
    {
        let path = bench.file(name, &bytes[..bytes.len() * 2 / 3]);
        let path = path.to_str().expect("UTF-8");
        bench.run(&["import", "LOG", path]).ends_with(2);
        let stream = name.split('.').next().expect("a stem");
        let read = bench.run(&["cat", "LOG", stream]).out;
        assert!(text.starts_with(&read) && (read.is_empty() || read.ends_with(b"\n")), "{name}");
        fs::write(path, gzip(&text)).expect("written");
        if name == "cut.gz" {
            bench.run(&["import", "LOG", path]).ends_with(0);
            bench.cat_is(stream, &text);
        }
    }
}

#[test]
fn what_retention_deleted_as_idle_does_not_come_back() {
    let bench = Bench::new();
    let path = bench.file("old", b"1\n");
    bench.file("new", b"2\n");
    let long_ago = SystemTime::now() - Duration::from_secs(90 * 86_400);
    let file = File::options().write(true).open(&path).expect("there");
    file.set_modified(long_ago).expect("its own file");
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    // Files that have a stream are imported, whenever they were changed.
    let nightly = ["import", "LOG", "FILES", "--max-idle", "30d"];
    assert!(bench.run(&nightly).ends_with(0).text().contains("2 already there"));
    bench.run(&["retain", "LOG", "--max-idle", "0s"]).ends_with(0);
    assert_eq!(bench.run(&["ls", "LOG"]).ends_with(0).text(), "");
    let ran = bench.run(&nightly).ends_with(0);
    assert!(ran.err.contains("old: skipped: last changed longer ago than --max-idle"), "{ran:?}");
    bench.cat_is("new", b"2\n");
    bench.run(&["cat", "LOG", "old"]).ends_with(2);
}

#[test]
fn exports_come_from_files_pipes_and_standard_input_compressed_or_not() {
    let bench = Bench::new();
    bench.file("a", &numbers(0, 1_000));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let text = bench.run(&["export", "LOG"]).ends_with(0).out;
    let whole = |again: &Bench| {
        assert!(again.run(&["export", "LOG"]).ends_with(0).out == text);
    };
    let again = Bench::new();
    let ran = again.run_with(&["import", "--jsonl", "LOG", "-", "--json"], &text).ends_with(0);
    assert_eq!(ran.json()[0]["events"], 1_000);
    whole(&again);
    again.run_with(&["import", "--jsonl", "--resume", "LOG", "-"], &text).ends_with(0);
    for (name, bytes) in [("x.gz", gzip(&text)), ("x.zst", zstd(&text)), ("x.jsonl", text.clone())]
    {
        let again = Bench::new();
        let path = again.file(name, &bytes);
        again.run(&["import", "--jsonl", "LOG", path.to_str().expect("UTF-8")]).ends_with(0);
        whole(&again);
        let cut = again.file(name, &bytes[..bytes.len() / 2]);
        let third = Bench::new();
        third.run(&["import", "--jsonl", "LOG", cut.to_str().expect("UTF-8")]).ends_with(2);
        assert!(!third.log().join("segments").exists());
    }
    // A pipe by its name.
    let again = Bench::new();
    let mut child = again
        .command(&["import", "--jsonl", "LOG", "/dev/stdin"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(&text).expect("it reads");
    assert!(child.wait().expect("ends").success());
    whole(&again);
    // `record` is for lines of text from standard input.
    let refused = again.run_with(&["import", "LOG", "-"], b"x\n").ends_with(2);
    assert!(refused.err.contains("record"), "{}", refused.err);
}
