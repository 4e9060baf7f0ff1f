//! Does the command line say the same thing in the same words, and what to do next?

use serde_json::{Value, json};

use crate::support::cli::{Bench, Ran, numbers};

/// A log with the streams `a` of ten lines and `b.jsonl` of three lines of JSON.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.file("a", &numbers(0, 10));
    bench.file("b.jsonl", b"{\"n\": 1.50}\nnull\nno json\n");
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    bench
}

fn one(ran: Ran) -> Value {
    let mut lines = ran.ends_with(0).json();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[test]
fn cat_prints_the_payload_of_an_event_as_an_export_does() {
    let bench = bench();
    let printed = bench.run(&["cat", "LOG", "b.jsonl", "--json"]).ends_with(0);
    assert!(printed.text().contains("\"json\":{\"n\": 1.50}"), "{printed:?}");
    let exported = bench.run(&["export", "LOG", "b.jsonl"]).ends_with(0).json();
    let exported: Vec<_> = exported.iter().filter_map(|line| line.get("event")).collect();
    for (printed, exported) in printed.json().iter().zip(exported) {
        for field in ["seq", "time_us", "text", "json", "base64"] {
            assert_eq!(printed.get(field), exported.get(field), "{field}: {printed}, {exported}");
        }
    }
}

#[test]
fn a_verb_that_changed_nothing_says_so() {
    let bench = bench();
    let trim = |seq| one(bench.run(&["trim", "LOG", "a", seq, "--json"]));
    let trimmed = trim("9");
    assert_eq!((&trimmed["what"], &trimmed["start"]), (&json!("trimmed"), &json!(9)));
    for seq in ["1", "9"] {
        let again = trim(seq);
        assert_eq!((&again["what"], &again["start"]), (&json!("unchanged"), &json!(9)), "{again}");
    }
    let text = bench.run(&["trim", "LOG", "a", "1"]).ends_with(0).text();
    assert!(text.contains("  unchanged, starts at 9, ends at 10"), "{text}");
    let label = |value: &str| one(bench.run(&["label", "LOG", "a", value, "--json"]));
    assert_eq!(label("k=v")["what"], "labelled");
    assert_eq!(label("k=v")["what"], "unchanged");
    assert_eq!(one(bench.run(&["rewind", "LOG", "a", "10", "--json"]))["what"], "unchanged");
}

#[test]
fn label_without_labels_shows_them() {
    let bench = bench();
    bench.run(&["label", "LOG", "a", "k=v", "user=7"]).ends_with(0);
    let before = bench.on_disk();
    let shown = bench.run(&["label", "LOG", "a"]).ends_with(0).text();
    assert_eq!(shown, "k=v\nuser=7\n");
    let shown = one(bench.run(&["label", "LOG", "a", "--json"]));
    assert_eq!((&shown["name"], &shown["labels"]["user"]), (&json!("a"), &json!("7")));
    assert!(bench.on_disk() == before, "looking changed the log");
}

#[test]
fn deleted_streams_are_counted_alike_by_all() {
    let bench = bench();
    for verb in [&["info", "LOG"][..], &["verify", "LOG"]] {
        let ran = bench.run(verb).ends_with(0).text();
        assert!(!ran.contains("deleted"), "{ran}");
    }
    bench.run(&["rm", "LOG", "a"]).ends_with(0);
    let files = bench.files().join("export");
    let file = files.to_str().expect("UTF-8");
    let export = ["export", "LOG", "--output", file];
    let copy = bench.dir.path().join("copy").display().to_string();
    let import = ["import", &copy, "--jsonl", file];
    for verb in [&["verify", "LOG"][..], &["verify", "LOG", "--quick"], &export, &import] {
        let text = bench.run(verb).ends_with(0).text();
        assert!(text.contains("1 stream, and 1 deleted"), "{text}");
    }
    let text = bench.run(&["info", "LOG"]).ends_with(0).text();
    assert!(text.contains("streams           1, and 1 deleted\n"), "{text}");
    for verb in [&["info", "LOG", "--json"][..], &["verify", &copy, "--json"]] {
        let counted = one(bench.run(verb));
        assert_eq!((&counted["streams"], &counted["deleted_streams"]), (&json!(1), &json!(1)));
    }
    let again = bench.run(&export).ends_with(2);
    let advice = "exists already; remove it, or choose another name";
    assert!(again.err.contains(advice), "{again:?}");
}

#[test]
fn a_wrong_path_is_named_once_with_the_advice_to_check_it() {
    let bench = Bench::new();
    for verb in ["ls", "info", "verify", "dump", "repair"] {
        let ran = bench.run(&[verb, "LOG"]).ends_with(2);
        let log = bench.log().display().to_string();
        assert_eq!(ran.err.matches(&log).count(), 1, "{ran:?}");
        assert!(ran.err.contains("hint: check the path"), "{ran:?}");
    }
}

#[test]
fn a_page_tells_programs_its_next_cursor_and_refuses_that_of_another_list() {
    let bench = bench();
    let page = bench.run(&["ls", "LOG", "--limit", "1", "--json"]).ends_with(0);
    assert_eq!(page.json().len(), 1);
    let note: Value = serde_json::from_str(&page.err).expect("one object");
    let next = note["next"].as_str().expect("a cursor");
    let rest = bench.run(&["ls", "LOG", "--limit", "1", "--json", "--after", next]).ends_with(0);
    assert_eq!(rest.json()[0]["name"], "b.jsonl");
    assert_eq!(rest.err, "");
    for other in [&["--reverse"][..], &["--order", "committed"], &["--all"], &["--name", "a"]] {
        let args = [&["ls", "LOG", "--after", next], other].concat();
        let ran = bench.run(&args).ends_with(2);
        assert!(ran.err.contains("another order, direction or filter"), "{ran:?}");
    }
}

#[test]
fn json_help_says_what_the_verb_prints_and_prefixes_what_they_need() {
    let bench = Bench::new();
    let help = |verb| {
        let help = bench.run(&["help", verb]).ends_with(0).text();
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(help("cat").contains("Print JSON: one object per event"));
    assert!(help("verify").contains("Print JSON: one object with the findings"));
    for verb in ["rm", "trim", "rewind"] {
        assert!(help(verb).contains("with --yes, or after a question on a terminal"), "{verb}");
    }
    // Before or after the verb.
    bench.run_with(&["record", "LOG", "--name", "a"], b"line\n").ends_with(0);
    for args in [["--json", "ls", "LOG"], ["ls", "--json", "LOG"], ["ls", "LOG", "--json"]] {
        assert_eq!(one(bench.run(&args))["name"], "a");
    }
}
