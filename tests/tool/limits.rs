//! Does every verb work on a log of 2,000 segments in a process that may open 64 files?
//!
//! P7; F44, F49. And none of them maps a file of the log: on a disk with an unreadable sector that would be its end.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::cli::{Bench, Ran};
use crate::support::many_segments;

const SEGMENTS: u32 = 2_000;

/// Runs the program in a shell that lets it open 64 files.
fn run(bench: &Bench, args: &[&str]) -> Ran {
    let program = bench.command(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    let ran = shell
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let err = String::from_utf8(ran.stderr).expect("UTF-8");
    Ran { code: ran.status.code(), out: ran.stdout, err }
}

#[test]
fn p7_f49_every_verb_on_2_000_segments_with_64_descriptors() {
    let bench = Bench::new();
    let known = many_segments(&bench.log(), SEGMENTS);
    let ids: Vec<String> = known.keys().map(ToString::to_string).collect();
    let done = |args: &[&str]| run(&bench, args).ends_with(0);
    let id = |n: usize| ids[n].as_str();
    done(&["verify", "LOG"]);
    let listed = done(&["ls", "LOG", "--json"]).json();
    assert_eq!(listed.len(), known.len());
    let first = known.values().next().expect("five");
    let bytes: usize = first.iter().map(|event| event.len() + 1).sum();
    assert_eq!(done(&["cat", "LOG", id(0)]).out.len(), bytes);
    done(&["info", "LOG"]);
    done(&["info", "LOG", id(0)]);
    assert!(done(&["dump", "LOG"]).out.len() > 2 * SEGMENTS as usize);
    let out = |name: &str| bench.dir.path().join(name).display().to_string();
    done(&["export", "LOG", "-o", &out("lines")]);
    done(&["backup", "LOG", &out("copy")]);
    done(&["verify", &out("copy")]);
    done(&["import", "--jsonl", &out("again"), &out("lines")]);
    done(&["verify", &out("again")]);
    done(&["fork", "LOG", id(0), "--at", "300", "--name", "fork"]);
    done(&["rewind", "LOG", id(1), "500"]);
    done(&["trim", "LOG", id(2), "100"]);
    done(&["name", "LOG", id(2), "named"]);
    done(&["label", "LOG", "named", "key=value"]);
    bench.file("data", b"of the host");
    done(&["data", "LOG", "named", "--set", &out("files/data")]);
    done(&["data", "LOG", "named"]);
    done(&["archive", "LOG", "fork"]);
    done(&["unarchive", "LOG", "fork"]);
    done(&["record", "LOG", "--name", "recorded"]);
    bench.file("a/file", b"a line\nanother\n");
    done(&["import", "LOG", "FILES"]);
    done(&["rm", "LOG", id(3)]);
    done(&["retain", "LOG", "--max-events", "700"]);
    let compacted = &done(&["compact", "LOG", "--json"]).json()[0];
    assert!(compacted["freed_bytes"].as_u64() > Some(1 << 20), "{compacted}");
    done(&["repair", "LOG"]);
    done(&["verify", "LOG"]);
}

/// A page of a real file cannot be made unreadable here. But no verb that reads has a segment mapped: of one that waits for
/// a reader of its output the system says so. (Of verbs that write, a test of `src/bin/amberlog/reading.rs` does.)
#[cfg(target_os = "linux")]
#[test]
fn f44_a_verb_that_reads_has_no_segment_mapped() {
    let bench = Bench::new();
    let known = many_segments(&bench.log(), 400);
    let id = known.keys().next().expect("five").to_string();
    for args in [&["cat", "LOG", &id][..], &["export", "LOG"], &["dump", "LOG", "--events"]] {
        let mut command = bench.command(args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut out = child.stdout.take().expect("piped");
        // The rest fits neither the pipe nor the program's buffer.
        out.read_exact(&mut [0]).expect("a byte");
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("it runs");
        assert!(maps.contains("amberlog") && !maps.contains(".seg"), "{args:?}: {maps}");
        drop(out);
        child.wait().expect("ended");
    }
}
