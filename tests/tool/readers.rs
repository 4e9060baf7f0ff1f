//! Can what is exported be read by the usual tools of other languages, whatever was imported?
//!
//! Each tool reads the lines as its users would, and compares every payload with the imported line:
//! text as bytes, JSON as the value that the tool itself parses from that line.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::cli::Bench;

/// Lines that some parsers misread or refuse.
fn awkward_lines() -> Vec<Vec<u8>> {
    let deep = |depth: usize| ("[".repeat(depth) + &"]".repeat(depth)).into_bytes();
    let mut lines: Vec<Vec<u8>> = [
        "{\"a\":1}",
        "{\"id\":9007199254740993,\"big\":123456789012345678901234567890}",
        "{\"id\":9007199254740991}",
        "[1e400,-1e400,1e-400]",
        "3.14159265358979323846264338327950288",
        "0.1",
        "\"\\ud800\"",
        "{\"\\udc00\\ud800\":\"\\uDFFF\"}",
        "{\"a\":1,\"a\":2,\"\\u0061\":3}",
        "{\"__proto__\":1,\"constructor\":{\"a\":null}}",
        " \t{ \"a\" :\t[ 1 , 2 ] } \t",
        "{\"a\":1}\r",
        "null",
        "true",
        "\"\u{2028}\u{2029}\u{85}\u{feff}\"",
        "\"\u{1b}[31m\"",
        "text with \u{2028}, \u{85}, \u{b}, \u{c}, \u{1c} and \u{7f}",
        "\u{feff}{\"a\":1}",
        "NaN",
        "{\"a\":NaN}",
        "\u{10ffff}\u{fffe}",
        "",
        "-0",
        "1E5",
        "[]",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    lines.extend([deep(59), deep(60), deep(61), deep(5_000), deep(200_000)]);
    lines.extend([b"\xff\xfe".to_vec(), b"{\"a\":\"\xff\"}".to_vec(), b"\0".to_vec()]);
    lines
}

const PYTHON: &str = r#"
import base64, json, sys
lines = open(sys.argv[2], "rb").read().split(b"\n")[:-1]
seen = 0
for text in open(sys.argv[1], encoding="utf-8").read().splitlines():
    event = json.loads(text).get("event")
    if event is None:
        continue
    line = lines[event["seq"]]
    if "text" in event:
        assert event["text"].encode("utf-8") == line, text
    elif "base64" in event:
        assert base64.b64decode(event["base64"]) == line, text
    else:
        assert event["json"] == json.loads(line), text
    seen += 1
assert seen == len(lines), (seen, len(lines))
"#;

const NODE: &str = r#"
const fs = require("fs"), readline = require("readline"), assert = require("assert");
const lines = [];
let rest = fs.readFileSync(process.argv[2]);
for (let at; (at = rest.indexOf(10)) >= 0; rest = rest.subarray(at + 1)) lines.push(rest.subarray(0, at));
let seen = 0;
const numbers = text => text.replace(/"(\\.|[^"\\])*"/g, "").match(/-?\d+(\.\d+)?([eE][+-]?\d+)?/g) || [];
readline.createInterface({ input: fs.createReadStream(process.argv[1]) })
  .on("line", text => {
    const event = JSON.parse(text).event;
    if (event === undefined) return;
    const line = lines[event.seq];
    if (event.text !== undefined) assert(Buffer.from(event.text, "utf8").equals(line), text);
    else if (event.base64 !== undefined) assert(Buffer.from(event.base64, "base64").equals(line), text);
    else {
      assert.deepStrictEqual(event.json, JSON.parse(line.toString("utf8")), text);
      for (const number of numbers(line.toString("utf8")))
        if (/^-?\d+$/.test(number)) assert.equal(BigInt(Number(number)), BigInt(number), text);
    }
    seen += 1;
  })
  .on("close", () => assert.equal(seen, lines.length));
"#;

/// Runs a tool; prints a note if it is not installed.
fn run(tool: &str, args: &[&str], files: &[&Path]) -> Option<Vec<u8>> {
    if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: {tool} is not here");
        return None;
    }
    let ran = Command::new(tool).args(args).args(files).output().expect("runs");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{tool}: {}", told.chars().take(2_000).collect::<String>());
    Some(ran.stdout)
}

#[test]
fn other_languages_read_what_is_exported_whatever_it_was() {
    let bench = Bench::new();
    let lines = awkward_lines();
    let imported = bench.file("awkward.jsonl", &[lines.join(&b'\n'), b"\n".to_vec()].concat());
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    bench.run(&["label", "LOG", "awkward.jsonl", "k=\u{2028}\u{85}"]).ends_with(0);
    let exported = bench.dir.path().join("all.jsonl");
    let path = exported.to_str().expect("UTF-8");
    bench.run(&["export", "LOG", "--output", path]).ends_with(0);
    run("python3", &["-c", PYTHON], &[&exported, &imported]);
    run("node", &["-e", NODE], &[&exported, &imported]);
    if let Some(read) = run("jq", &["-c", "."], &[&exported]) {
        // The first line, the stream, its events, and the last line.
        let read = read.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(read, lines.len() + 3);
    }
    // The JSON of other verbs is one line for every parser, too.
    let printed = bench.run(&["cat", "LOG", "awkward.jsonl", "--json"]).ends_with(0).text();
    let ends_lines = ['\u{85}', '\u{2028}', '\u{2029}'];
    assert!(!printed.contains(ends_lines) && printed.lines().count() == lines.len());
    // An import restores the bytes, whatever their form.
    let again = Bench::new();
    again.run(&["import", "--jsonl", "LOG", path]).ends_with(0);
    again.cat_is("awkward.jsonl", &std::fs::read(&imported).expect("readable"));
}
