//! Does anything that comes from names and contents act on the terminal that shows it, and do pipes
//! end as they should?

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use amberlog::{Log, StreamOptions};

use crate::support::cli::{Bench, numbers};

/// A title that a terminal would take, its screen cleared by two bytes, and text that runs
/// backwards.
const ACTS: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";
/// Sequences that must not reach a terminal.
const ACTING: [&str; 5] = ["\u{1b}]0;owned", "\u{7}", "\u{9b}", "\u{202e}", "owned\u{7}"];

#[track_caller]
fn is_harmless(shown: &[u8], context: &str) {
    let text = String::from_utf8(shown.to_vec()).unwrap_or_else(|_| panic!("{context}: no UTF-8"));
    for acting in ACTING {
        assert!(!text.contains(acting), "{context}: {text:?}");
    }
}

/// A log whose payloads, labels, data and, as far as allowed, names act on terminals.
fn bench() -> Bench {
    let bench = Bench::new();
    let log = Log::open(bench.log()).expect("opens");
    let mut stream =
        log.create_stream_with(&StreamOptions::new().name("s\u{202e}")).expect("a stream");
    stream.set_label(ACTS, ACTS).expect("fine");
    stream.set_data(ACTS.as_bytes()).expect("fine");
    stream.append(ACTS).expect("room");
    stream.append([ACTS.as_bytes(), b"\xff\x9b"].concat()).expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    bench
}

#[test]
fn nothing_that_a_log_holds_acts_on_the_terminal() {
    let bench = bench();
    let verbs: [&[&str]; 9] = [
        &["ls", "LOG"],
        &["cat", "LOG", "s\u{202e}"],
        &["cat", "LOG", "s\u{202e}", "--reverse"],
        &["info", "LOG"],
        &["info", "LOG", "s\u{202e}"],
        &["data", "LOG", "s\u{202e}"],
        &["export", "LOG"],
        &["verify", "LOG"],
        &["dump", "LOG", "--events"],
    ];
    let mut shown = 0;
    for verb in verbs {
        for form in [&[][..], &["--json"]] {
            let ran = bench.run_on_terminal(&[verb, form].concat(), "").ends_with(0);
            is_harmless(&ran.out, &format!("{verb:?} {form:?}"));
            let text = ran.text();
            shown += usize::from(text.contains("owned"));
            let is_json = !form.is_empty() || verb[0] == "export";
            for line in text.lines().filter(|_| is_json && verb[0] != "data") {
                // Progress, on standard error, was wiped out before it.
                let line = line.rsplit("\u{1b}[2K").next().unwrap_or_default();
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap_or_else(|error| panic!("{verb:?}: {error}: {line:?}"));
            }
        }
    }
    assert!(shown >= 12, "{shown}: it is shown, escaped");
    let cat = bench.run_on_terminal(&["cat", "LOG", "s\u{202e}"], "").text();
    let escaped = "\\x1b]0;owned\\x07\\u{9b}2J\\u{202e}";
    assert_eq!(cat.replace('\r', ""), format!("{escaped}\n{escaped}\\xff\\x9b\n"));
    // A pipe gets every byte as it is.
    let raw = [ACTS.as_bytes(), b"\n", ACTS.as_bytes(), b"\xff\x9b\n"].concat();
    bench.cat_is("s\u{202e}", &raw);
    assert_eq!(bench.run(&["data", "LOG", "s\u{202e}"]).ends_with(0).out, ACTS.as_bytes());
}

#[test]
fn no_name_of_a_file_and_no_argument_acts_on_the_terminal() {
    let bench = Bench::new();
    let bad = bench.file(ACTS, b"one\n");
    bench.file("fine", b"two\n");
    bench.file(&format!("{ACTS}.png"), b"\0\0");
    let bad = bad.to_str().expect("UTF-8");
    let verbs: [(&[&str], i32); 14] = [
        (&["import", "LOG", "FILES"], 2),
        (&["import", "LOG", bad], 2),
        (&["import", "LOG", bad, "--json"], 2),
        (&["import", "--jsonl", "LOG", bad], 2),
        (&["cat", "LOG", ACTS], 2),
        (&["cat", bad, "s"], 2),
        (&["ls", bad], 2),
        (&["rm", "LOG", ACTS], 2),
        (&["export", "LOG", ACTS], 2),
        (&["data", "LOG", "fine", "--set", ACTS], 2),
        (&[ACTS], 2),
        (&["ls", "LOG", ACTS], 2),
        (&["ls", "LOG", "--limit", ACTS], 2),
        (&["record", "LOG", "--name", ACTS, "--commit-on", ACTS], 2),
    ];
    for (verb, code) in verbs {
        let ran = bench.run_on_terminal(verb, "\u{4}");
        assert_eq!(ran.code, Some(code), "{verb:?}: {}", ran.text());
        is_harmless(&ran.out, &format!("{verb:?}"));
        let ran = bench.run(verb).ends_with(code);
        is_harmless(ran.err.as_bytes(), &format!("{verb:?}"));
    }
    bench.cat_is("fine", b"two\n");
}

#[test]
fn whatever_reads_the_output_may_stop_and_a_full_disk_is_told() {
    let bench = Bench::new();
    bench.run_with(&["record", "LOG", "--name", "s"], &numbers(0, 200_000)).ends_with(0);
    let verbs: [&[&str]; 4] = [
        &["cat", "LOG", "s"],
        &["cat", "LOG", "s", "--json"],
        &["export", "LOG"],
        &["dump", "LOG", "--events"],
    ];
    for verb in verbs {
        let mut child = bench
            .command(verb)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut [0; 2]).expect("something");
        drop(stdout);
        let ended = child.wait_with_output().expect("ends");
        assert_eq!(ended.status.code(), Some(0), "{verb:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{verb:?}");
    }
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return println!("SKIPPED: there is no /dev/full here");
    };
    for verb in verbs {
        let full = full.try_clone().expect("again");
        let ended = bench.command(verb).stdout(full).stderr(Stdio::piped()).output().expect("ends");
        assert_eq!(ended.status.code(), Some(2), "{verb:?}");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(told.contains("standard output"), "{verb:?}: {told}");
    }
}

/// Exit code 2 is "could not be done", 1 is for what is damaged.
#[test]
fn f45_compacting_on_a_full_disk_is_not_done_and_not_damage() {
    let bench = Bench::new();
    let options = Log::options().segment_bytes_first(64 << 10).segment_bytes_max(64 << 10);
    let log = options.open(bench.log()).expect("opens");
    let [mut kept, mut gone] = [(); 2].map(|()| log.create_stream().expect("a stream"));
    for _ in 0..300 {
        for stream in [&mut kept, &mut gone] {
            stream.append(vec![b'x'; 4_000]).expect("room");
            stream.commit().wait().expect("committed");
        }
    }
    let id = kept.id().to_string();
    gone.delete().wait().expect("deleted");
    drop((kept, gone));
    log.close().expect("closes");
    let command = bench.command(&["compact", "LOG", "--dead", "10"]);
    let compact = |limit: &str| {
        std::process::Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .output()
            .expect("runs")
    };
    // Files are limited to 128 or 256 KiB, depending on the unit of the shell; the compacted
    // segment is longer.
    let full = compact("ulimit -f 256; ");
    let told = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(2), "{told}");
    assert!(told.contains("no space left"), "{told}");
    let read = || bench.run(&["cat", "LOG", &id]).ends_with(0).out.len();
    assert_eq!(read(), 300 * 4_001);
    bench.run(&["verify", "LOG"]).ends_with(0);
    assert_eq!(compact("").status.code(), Some(0));
    assert_eq!(read(), 300 * 4_001);
}
