//! Does the source keep its own laws?
//!
//! File system calls and `unsafe` only in the disk room; byte order only in the format room; what threads wait
//! for only from the sync room, so that models see it; no unchecked arithmetic where anything is read; imports point down the ladder, and the writer's side and the reader's never import each other; no long files, no
//! long functions, no leftovers. Each law is also shown bad source, to see it object.

mod circles;
mod english;

use std::fs;
use std::path::{Path, PathBuf};

mod pages;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The rooms, from the ground up.
const FLOORS: [&[&str]; 9] = [
    &["types", "error", "options", "sabotage", "sync", "work"],
    &["format", "disk"],
    &["change", "index", "segment", "clock", "failures"],
    &["catalog"],
    &["recovery", "inspect", "ring", "commit"],
    &["writer", "reader", "maintenance"],
    &["tail", "fold"],
    &["engine", "log", "stream"],
    &["lib", "typed", "jsonl", "tokio", "verify", "bin"],
];

const FILE_SYSTEM: [&str; 9] = [
    "std::fs",
    "fs::",
    "File::",
    "OpenOptions",
    "DirBuilder",
    "FileExt",
    "rustix",
    "memmap2",
    "std::os",
];
const BYTE_ORDER: [&str; 6] = [
    "to_le_bytes",
    "from_le_bytes",
    "to_be_bytes",
    "from_be_bytes",
    "to_ne_bytes",
    "from_ne_bytes",
];
const WAITING: [&str; 8] =
    ["std::thread", "atomic", "Mutex", "Condvar", "RwLock", "Barrier", "mpsc", "LazyLock"];
/// No test judges by a clock: what looks at one stands in the support room, and what prints how long it took.
const CLOCKS: [&str; 7] =
    ["sleep", "recv_timeout", "wait_timeout", "park_timeout", "timeout", "Instant", "elapsed"];
const MAY_LOOK_AT_A_CLOCK: [&str; 2] = ["tests/support/waiting.rs", "tests/scale/time.rs"];
const LEFTOVERS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];
/// F38: log files are written by calls that can fail, never through a mapping.
const WRITABLE_MAPPINGS: [&str; 4] = ["MmapMut", "MmapRaw", "map_mut", "map_copy"];
/// F44: the tool opens logs by `reading::open` and `reading::options`, which map nothing.
const MAPPED_IN_THE_TOOL: [&str; 4] =
    ["Log::open", "Log::options", "ReadView::open", "Options::new"];
const NOT_IN_A_LIBRARY: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", ".unwrap()"];

/// F19: rooms that read what a disk or an input holds carry this lint. All others are named here, so that a new room cannot
/// leave it out.
const CHECKED: &str = "#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]";
const UNCHECKED: [&str; 19] = [
    "types",
    "error",
    "options",
    "sabotage",
    "sync",
    "work",
    "disk",
    "clock",
    "failures",
    "ring",
    "commit",
    "writer",
    "maintenance",
    "engine",
    "log",
    "stream",
    "lib",
    "typed",
    "tokio",
];

/// One source file, and the same without what no law is about: comments, texts and tests.
struct Source {
    path: PathBuf,
    room: String,
    lines: usize,
    code: String,
}

impl Source {
    fn new(path: &Path, text: &str) -> Self {
        let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy());
        let room = parts.next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let code = without_tests(&without_texts(text));
        Self { path: path.to_owned(), room, lines: text.lines().count(), code }
    }

    /// Every law, and what breaks it here.
    fn broken_laws(&self) -> Vec<String> {
        let mut broken = self.words();
        broken.extend(self.imports());
        if self.lines > FILE_LINES_MAX {
            broken.push(format!("{} lines", self.lines));
        }
        for (name, lines) in functions(&self.code) {
            if lines > FUNCTION_LINES_MAX {
                broken.push(format!("fn {name} has {lines} lines"));
            }
        }
        broken.into_iter().map(|what| format!("{}: {what}", self.path.display())).collect()
    }

    fn words(&self) -> Vec<String> {
        let mut forbidden = LEFTOVERS.to_vec();
        forbidden.extend(WRITABLE_MAPPINGS);
        if self.room != "disk" {
            forbidden.push("unsafe");
        }
        if self.room != "disk" && self.room != "bin" {
            forbidden.extend(FILE_SYSTEM);
        }
        if self.room != "format" {
            forbidden.extend(BYTE_ORDER);
        }
        if self.room == "bin" && !self.path.ends_with("reading.rs") {
            forbidden.extend(MAPPED_IN_THE_TOOL);
        }
        if self.room != "bin" {
            forbidden.extend(NOT_IN_A_LIBRARY);
        }
        // Of the system's calls those that wait are no business of the disk.
        let code = match self.room.as_str() {
            "sync" => self.code.replace("rustix::thread", ""),
            _ => self.code.clone(),
        };
        let used = |word: &&str| has_word(&code, word);
        let mut broken: Vec<_> =
            forbidden.into_iter().filter(used).map(|word| format!("`{word}`")).collect();
        if self.room != "sync" && self.room != "bin" {
            let std = imported_from_std(&self.code);
            let waits = WAITING.into_iter().filter(|word| has_word(&std, word));
            broken.extend(waits.map(|word| format!("`{word}`, not from the sync room")));
        }
        broken
    }

    /// What is wrong with how it calculates: the first file of a room has the lint, and no file lifts it.
    fn unchecked(&self) -> Option<String> {
        let room = self.room.as_str();
        let firsts = [format!("src/{room}.rs"), format!("src/{room}/mod.rs")];
        let is_first = firsts.iter().any(|first| self.path == Path::new(first))
            || self.path == Path::new("src/bin/amberlog/main.rs");
        let needed = is_first && !UNCHECKED.contains(&room);
        let named = self.code.matches("arithmetic_side_effects").count();
        let is_right = named == usize::from(needed) && self.code.contains(CHECKED) == needed;
        (!is_right).then(|| format!("{}: {CHECKED}: needed: {needed}", self.path.display()))
    }

    fn imports(&self) -> Vec<String> {
        // The tool is a crate of its own, which sees the library's public names and nothing else; tests see everything.
        if self.room == "bin" || self.path.ends_with("tests.rs") {
            return Vec::new();
        }
        let Some(floor) = floor_of(&self.room) else {
            return vec![format!("no floor is known for the room {:?}", self.room)];
        };
        let mut broken = Vec::new();
        for other in rooms_named(&self.code) {
            let apart = [("writer", "reader"), ("reader", "writer")];
            match floor_of(&other) {
                None => broken.push(format!("crate::{other} is no room; name the room it is in")),
                Some(above) if above > floor => broken.push(format!("imports {other}, above it")),
                Some(_) if apart.contains(&(self.room.as_str(), other.as_str())) => {
                    broken.push(format!("imports {other}, the other side"));
                }
                Some(_) => {}
            }
        }
        broken
    }
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns whether `word` stands in `code`, and not inside a longer word.
fn has_word(code: &str, word: &str) -> bool {
    let bytes = code.as_bytes();
    let inside = |at: Option<&u8>, edge: u8| is_word(edge) && at.is_some_and(|byte| is_word(*byte));
    code.match_indices(word).any(|(at, _)| {
        let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !inside(before, first) && !inside(bytes.get(at + word.len()), last)
    })
}

/// The rooms behind every `crate::` in `code`, also in lists: `use crate::{disk, format::x}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if at > 0 && (is_word(code.as_bytes()[at - 1]) || code.as_bytes()[at - 1] == b'$') {
            continue;
        }
        let rest = code[at + found.len()..].trim_start();
        match rest.strip_prefix('{') {
            None => rooms.push(first_word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, byte) in list.bytes().enumerate() {
                    match byte {
                        b'{' => depth += 1,
                        b'}' if depth == 0 => break,
                        b'}' => depth -= 1,
                        b',' if depth == 0 => start = true,
                        _ if start && is_word(byte) => {
                            rooms.push(first_word(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms
}

/// Returns the names after every `std::sync::` and `std::thread`, also in lists.
fn imported_from_std(code: &str) -> String {
    let mut named = String::new();
    for (at, _) in code.match_indices("std::sync::").chain(code.match_indices("std::thread")) {
        let rest = &code[at..];
        let end = rest.find([';', '(', '<', ' ']).unwrap_or(rest.len());
        let list = rest.find('{').filter(|brace| *brace == "std::sync::".len());
        let end = list.map_or(end, |brace| brace + block_bytes(&rest[brace..]));
        named.push_str(&rest[..end]);
        named.push('\n');
    }
    named
}

fn first_word(text: &str) -> String {
    text.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()
}

/// The name and the length in lines of every function with a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &code[at..];
        let mut round = 0;
        let body = rest.bytes().position(|byte| {
            match byte {
                b'(' | b'[' => round += 1,
                b')' | b']' => round -= 1,
                _ => {}
            }
            round == 0 && matches!(byte, b'{' | b';')
        });
        let Some(body) = body.filter(|at| rest.as_bytes()[*at] == b'{') else { continue };
        let end = body + block_bytes(&rest[body..]);
        found.push((first_word(&rest[3..]), rest[..end].lines().count()));
    }
    found
}

/// Returns the number of bytes of the block that starts at the first byte of `code`, a brace.
fn block_bytes(code: &str) -> usize {
    let mut depth = 0;
    let end = code.bytes().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.map_or(code.len(), |end| end + 1)
}

/// Returns the lines without the items that only tests see.
fn without_tests(code: &str) -> String {
    let mut left = code.to_owned();
    let marks = ["#[cfg(test)]", "#[cfg(all(test, "];
    while let Some(at) = marks.iter().filter_map(|mark| left.find(mark)).min() {
        let brace = left[at..].find('{').map_or(left.len(), |brace| at + brace);
        let semicolon = left[at..].find(';').map_or(left.len(), |end| at + end + 1);
        let end = if semicolon < brace { semicolon } else { brace + block_bytes(&left[brace..]) };
        let lines = "\n".repeat(left[at..end].matches('\n').count());
        left.replace_range(at..end, &lines);
    }
    left
}

/// Returns the lines without comments and without the text of strings and characters.
fn without_texts(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => line_end(bytes, at),
            [b'/', b'*', ..] => comment_end(bytes, at),
            [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..]
                if at == 0 || !is_word(bytes[at - 1]) =>
            {
                raw_end(bytes, at)
            }
            [b'"', ..] => quoted_end(bytes, at + 1, b'"'),
            [b'\'', b'\\', ..] => quoted_end(bytes, at + 1, b'\''),
            [b'\'', rest @ ..] if char_bytes(rest).is_some() => {
                at + 2 + char_bytes(rest).unwrap_or(1)
            }
            _ => {
                code.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        code.extend(bytes[at..end].iter().filter(|byte| **byte == b'\n'));
        // So that the words on both sides do not become one.
        code.push(b' ');
        at = end;
    }
    String::from_utf8(code).expect("what was cut out was whole characters")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end)
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        let (change, step) = match &bytes[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += change;
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A raw string or, for `r#name`, nothing but its first letter.
fn raw_end(bytes: &[u8], at: usize) -> usize {
    let start = at + usize::from(bytes[at] == b'b') + 1;
    let hashes = bytes[start..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(start + hashes) != Some(&b'"') {
        return at + 1;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = start + hashes + 1;
    let end = bytes[body..].windows(close.len()).position(|window| window == close);
    end.map_or(bytes.len(), |end| body + end + close.len())
}

/// The length of a character that stands in quotes here; `None` for a lifetime.
fn char_bytes(rest: &[u8]) -> Option<usize> {
    let bytes = rest.iter().take(5).position(|byte| *byte == b'\'')?;
    let one = std::str::from_utf8(&rest[..bytes]).is_ok_and(|text| text.chars().count() == 1);
    one.then_some(bytes)
}

fn files(root: &str) -> Vec<PathBuf> {
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(root)];
    let mut found = Vec::new();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns whether a file of the library holds tests or models alone.
fn is_test(path: &Path) -> bool {
    let names = ["tests.rs", "models.rs", "example.rs", "fuzzing.rs"];
    let logs = ["log/clocks.rs", "log/compacting.rs", "log/failing.rs", "log/retaining.rs"];
    let others = ["engine/closing.rs", "stream/accounting.rs"];
    names.into_iter().chain(logs).chain(others).any(|name| path.ends_with(name))
}

#[test]
fn the_source_keeps_its_laws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for path in files("src") {
        let text = fs::read_to_string(&path).expect("readable");
        let path = path.strip_prefix(root).expect("inside");
        let source = Source::new(path, &text);
        broken.extend(source.broken_laws());
        broken.extend(source.unchecked());
        if let Some(tests) = text.find("#[cfg(test)]") {
            broken.extend(clocks(path, &text[tests..]));
        }
    }
    for path in ["tests", "benches", "examples"].into_iter().flat_map(files) {
        let text = fs::read_to_string(&path).expect("readable");
        let path = path.strip_prefix(root).expect("inside");
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines", path.display()));
        }
        if path.starts_with("tests") {
            broken.extend(clocks(path, &text));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(files("src").len() > 20, "the source was not found");
}

/// Returns uses of a clock that a test may not have.
fn clocks(path: &Path, text: &str) -> Option<String> {
    let code = without_texts(text);
    let word = CLOCKS.into_iter().find(|word| has_word(&code, word))?;
    let may = MAY_LOOK_AT_A_CLOCK.iter().any(|may| path.ends_with(may));
    (!may).then(|| format!("{}: `{word}`; wait for what must happen", path.display()))
}

/// Returns the number of laws that this text would break as that file.
fn breaks(path: &str, text: &str) -> usize {
    Source::new(Path::new(path), text).broken_laws().len()
}

#[test]
fn f19_control_a_room_that_reads_cannot_leave_the_lint_out() {
    let lint = |path, text: &str| Source::new(Path::new(path), text).unchecked().is_none();
    let lifted = "#[allow(clippy::arithmetic_side_effects)] fn f() {}";
    for path in
        ["src/format/mod.rs", "src/segment/mod.rs", "src/bin/amberlog/main.rs", "src/new.rs"]
    {
        assert!(lint(path, CHECKED) && !lint(path, "") && !lint(path, &format!("// {CHECKED}")));
        assert!(!lint(path, &format!("{CHECKED}{lifted}")), "{path}");
    }
    assert!(lint("src/format/commit.rs", "") && !lint("src/format/commit.rs", lifted));
    assert!(
        lint("src/ring/mod.rs", "") && !lint("src/ring/mod.rs", CHECKED),
        "named here for nothing"
    );
}

#[test]
fn control_bad_source_is_objected_to() {
    for (path, text) in [
        ("src/log/mod.rs", "fn f() { std::fs::read(path); }"),
        ("src/log/mod.rs", "use std::fs::File;"),
        ("src/recovery/load.rs", "fn f() { let f = OpenOptions::new(); }"),
        ("src/ring/mod.rs", "fn f() { unsafe { g() } }"),
        ("src/bin/amberlog/main.rs", "fn f() { unsafe { g() } }"),
        ("src/bin/amberlog/list.rs", "fn f() { ReadView::open(path); }"),
        ("src/bin/amberlog/list.rs", "fn f() { Options::new().open(path); }"),
        ("src/writer/mod.rs", "fn f() { 7_u32.to_le_bytes(); }"),
        ("src/disk/real.rs", "fn f() { u32::from_be_bytes(b); }"),
        ("src/format/mod.rs", "use crate::segment::Segment;"),
        ("src/types.rs", "fn f(c: crate::disk::Clock) {}"),
        ("src/disk/mod.rs", "use crate::{error::Error, types, log::Log};"),
        ("src/writer/mod.rs", "use crate::reader::Event;"),
        ("src/reader/mod.rs", "use crate::writer::Writer;"),
        ("src/reader/mod.rs", "use crate::ErrorKind;"),
        ("src/attic.rs", "fn f() {}"),
        ("src/log/mod.rs", "use std::sync::{Arc, Mutex};"),
        ("src/log/mod.rs", "use std::sync::atomic::AtomicBool;"),
        ("src/log/mod.rs", "fn f() { std::thread::spawn(g); }"),
        ("src/log/mod.rs", "fn f() { todo!() }"),
        ("src/disk/real.rs", "fn f(m: memmap2::MmapMut) {}"),
        ("src/disk/real.rs", "fn f() { unsafe { MmapOptions::new().map_mut(&file) } }"),
        ("src/log/mod.rs", "fn f() { println!(\"x\") }"),
        ("src/log/mod.rs", "fn f() { x.unwrap() }"),
        ("src/log/mod.rs", "fn f() -> [u8; 2] { dbg!([1, 2]) }"),
    ] {
        assert!(breaks(path, text) > 0, "{path}: {text}");
    }
    let pause = "fn f() { std::thread::sleep(PAUSE); }";
    assert!(clocks(Path::new("tests/lives/life.rs"), pause).is_some());
    assert!(clocks(Path::new("tests/support/waiting.rs"), pause).is_none());
    let long = |lines: usize| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines - 2));
    assert_eq!((breaks("src/log/mod.rs", &long(70)), breaks("src/log/mod.rs", &long(71))), (0, 1));
    assert_eq!(breaks("src/log/mod.rs", &"\n".repeat(600)), 0);
    assert_eq!(breaks("src/log/mod.rs", &"\n".repeat(601)), 1);
}

#[test]
fn control_good_source_is_not_objected_to() {
    for (path, text) in [
        (
            "src/log/mod.rs",
            "// std::fs and unsafe { } and todo!\n/* crate::nowhere /* nested */ dbg! */",
        ),
        (
            "src/log/mod.rs",
            "const A: &str = \"unsafe { \\\" println! \"; const B: char = '\"'; fn f() {}",
        ),
        (
            "src/log/mod.rs",
            "const A: &str = r#\"File \" unsafe\"#; const B: [u8; 2] = *b\"r\\\"\";",
        ),
        (
            "src/log/mod.rs",
            "use std::sync::{Arc, OnceLock}; use crate::sync::{Mutex, atomic::AtomicBool};",
        ),
        ("src/sync/mod.rs", "use std::{sync::Mutex, thread};"),
        ("src/log/mod.rs", "fn f<'a>(x: &'a str) -> &'a str { x } // 'unsafe"),
        ("src/log/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; fn f() { x.unwrap() } }"),
        ("src/log/mod.rs", "#![deny(unsafe_code)] struct Profile; fn f() { MyFile::new() }"),
        ("src/disk/real.rs", "use std::fs::File; fn f() { unsafe { g() } }"),
        ("src/bin/amberlog/main.rs", "fn f() { std::fs::read(x).unwrap(); println!() }"),
        ("src/format/mod.rs", "use crate::types::Seq; fn f() { 7_u32.to_le_bytes(); }"),
        ("src/writer/mod.rs", "use crate::{commit::Queue, ring}; fn f(x: crate::disk::Disk) {}"),
    ] {
        let broken = Source::new(Path::new(path), text).broken_laws();
        assert!(broken.is_empty(), "{broken:?}");
    }
}
