//! Do exit codes tell damage from what could not be done, and does `verify` name each kind of finding?

use std::fs;
use std::path::PathBuf;

use crate::support::cli::{Bench, numbers};

/// Number of the last event of the stream that the tests damage.
const LAST: u64 = 1999;

/// A closed log with one stream, `s`, committed every 100 events.
fn bench() -> Bench {
    let bench = Bench::new();
    let record = ["record", "LOG", "--name", "s", "--commit-every", "100"];
    bench.run_with(&record, &numbers(1000, LAST + 1)).ends_with(0);
    bench
}

fn segment(bench: &Bench) -> PathBuf {
    bench.log().join("segments/0000000001.seg")
}

/// Changes a bit of the payload `text`.
fn damage(bench: &Bench, text: &[u8]) {
    let mut bytes = fs::read(segment(bench)).expect("a segment");
    let found = bytes.windows(text.len()).position(|some| some == text);
    bytes[found.expect("the payload")] ^= 1;
    fs::write(segment(bench), bytes).expect("written");
}

/// Gives the segment the length it has while a writer has it open: zeros follow the last commit.
fn reopen_file(bench: &Bench) {
    const TAIL_RECORD_BYTES: usize = 40;
    let mut bytes = fs::read(segment(bench)).expect("a segment");
    bytes.truncate(bytes.len() - TAIL_RECORD_BYTES);
    bytes.resize(256 << 10, 0);
    fs::write(segment(bench), bytes).expect("written");
}

/// A rotation of backups relies on the exit code: it must not replace a sound copy by this one.
#[test]
fn p6_p13_a_backup_of_a_damaged_log_ends_with_1_and_is_made() {
    let bench = bench();
    let target = |name: &str| bench.dir.path().join(name).display().to_string();
    bench.run(&["backup", "LOG", &target("sound")]).ends_with(0);
    damage(&bench, b"1550");
    for form in [&[][..], &["--json"]] {
        let copy = target(if form.is_empty() { "text" } else { "json" });
        let ran = bench.run(&[&["backup", "LOG", &copy], form].concat()).ends_with(1);
        assert_eq!(ran.err.matches("the log is damaged in 1 place").count(), 1, "{ran:?}");
        let cat = bench.run(&["cat", &copy, "s"]).ends_with(1);
        assert_eq!(cat.out, [numbers(1000, 1500), numbers(1600, LAST + 1)].concat());
    }
    bench.run(&["verify", &target("sound")]).ends_with(0);
}

/// A mistyped path is an error, and no log with nothing to compact.
#[test]
fn compact_and_retain_without_a_log_end_with_2_and_make_none() {
    let bench = Bench::new();
    let verbs = [&["compact", "LOG"][..], &["retain", "LOG", "--max-events", "1"]];
    for options in [&[][..], &["--dry-run"], &["--json"]] {
        for verb in verbs {
            let ran = bench.run(&[verb, options].concat()).ends_with(2);
            assert!(ran.err.contains("there is no log at") && ran.out.is_empty(), "{ran:?}");
            assert!(!bench.log().exists(), "{ran:?}");
        }
    }
    fs::create_dir(bench.log()).expect("an empty folder");
    for verb in verbs {
        let ran = bench.run(verb).ends_with(2);
        assert!(ran.err.contains("there is no log at"), "{ran:?}");
        assert!(bench.on_disk().is_empty(), "{:?}", bench.on_disk().keys());
    }
}

#[test]
fn p6_verify_names_the_place_of_damage_and_what_readers_miss() {
    let bench = bench();
    damage(&bench, b"1550");
    let ran = bench.run(&["verify", "LOG"]).ends_with(1).text();
    let lines: Vec<&str> = ran.lines().collect();
    let begins = |line: &str, with: &str| assert!(line.starts_with(with), "{ran}");
    begins(lines[0], "damaged: commit in segments/0000000001.seg");
    assert!(lines[0].ends_with(", position 6"), "{ran}");
    begins(lines[1], "  lost: stream ");
    assert!(lines[1].ends_with(", events 500 to 599"), "{ran}");
    begins(lines[2], "cannot be read, forwards: ");
    begins(lines[3], "cannot be read, by position: ");
    begins(lines[4], "damaged in 1 place: 1 segment, ");
    assert_eq!(lines.len(), 5, "{ran}");
    let report = bench.run(&["verify", "LOG", "--json"]).ends_with(1).json().remove(0);
    assert_eq!(report["unread"][0]["way"], "forwards");
    assert_eq!(report["unread"][0]["seqs"], serde_json::json!({ "start": 500, "end": 600 }));
}

/// The last commit of a killed writer may be torn: no reader was promised it.
#[test]
fn p6_p12_verify_tells_a_torn_tail_from_damage() {
    let bench = bench();
    reopen_file(&bench);
    damage(&bench, b"1999");
    let ran = bench.run(&["verify", "LOG"]).ends_with(0).text();
    assert!(ran.starts_with("unfinished: "), "{ran}");
    assert!(
        ran.contains("0 whole commits in it; being written, or cut short: never acknowledged as durable, no damage"),
        "{ran}"
    );
    assert!(ran.contains("\nsound: "), "{ran}");
    let report = bench.run(&["verify", "LOG", "--json"]).ends_with(0).json().remove(0);
    assert_eq!(report["torn_tail"]["segment"], 1, "{report}");
    assert_eq!(report["torn_tail"]["commits"], 0, "{report}");
}

/// Of a closed file that lost its end, what follows the last whole commit may have been acknowledged.
#[test]
fn p6_verify_does_not_call_the_tail_of_a_cut_file_unacknowledged() {
    let bench = bench();
    let bytes = fs::read(segment(&bench)).expect("a segment");
    fs::write(segment(&bench), &bytes[..bytes.len() - 1]).expect("written");
    let ran = bench.run(&["verify", "LOG"]).ends_with(1).text();
    assert!(ran.starts_with("damaged: cut in segments/0000000001.seg"), "{ran}");
    assert!(ran.contains("\ntorn tail: 39 B in segments/0000000001.seg"), "{ran}");
    let end = "in a file whose end is missing: it may have been acknowledged\n";
    assert!(ran.contains(end) && !ran.contains("no damage"), "{ran}");
}

#[test]
fn f33_verify_names_files_of_other_owners_without_calling_them_damage() {
    let bench = bench();
    let name = "segments/0000000002.0badf00d.seg.new";
    fs::write(bench.log().join(name), b"of another program").expect("written");
    let ran = bench.run(&["verify", "LOG"]).ends_with(0).text();
    assert!(ran.starts_with(&format!("foreign, no damage: {name}")), "{ran}");
    assert!(ran.contains("\nsound: "), "{ran}");
    let report = bench.run(&["verify", "LOG", "--json"]).ends_with(0).json().remove(0);
    assert_eq!(report["foreign"], serde_json::json!([name]));
}
