//! Is a stream named without doubt before something of it is deleted, and is nothing deleted by a
//! slip of the hand?

use amberlog::{ErrorKind, Log, StreamId, StreamOptions};

use crate::support::cli::{Bench, numbers};

/// A log with the streams `a` of ten events and `b` of three, and their ids.
fn bench() -> (Bench, String, String) {
    let bench = Bench::new();
    bench.file("a", &numbers(0, 10));
    bench.file("b", &numbers(0, 3));
    bench.run(&["import", "LOG", "FILES"]).ends_with(0);
    let id = |name| {
        let listed = bench.run(&["ls", "LOG", "--name", name, "--json"]).ends_with(0).json();
        listed[0]["id"].as_str().expect("an id").to_owned()
    };
    let (a, b) = (id("a"), id("b"));
    (bench, a, b)
}

#[test]
fn a_name_that_reads_as_an_id_is_refused_and_a_whole_id_is_that_stream() {
    let (bench, a, b) = bench();
    let plain = b.replace('-', "");
    for id in [&b, &plain, &b.to_uppercase(), &format!("{{{b}}}"), &format!("urn:uuid:{b}")] {
        let refused = bench.run(&["name", "LOG", "a", id]).ends_with(2);
        assert!(refused.err.contains("in the form of the id"), "{refused:?}");
        bench.run_with(&["record", "LOG", "--name", id], b"x\n").ends_with(2);
        bench.run(&["fork", "LOG", "a", "--name", id]).ends_with(2);
        bench.cat_is(id, &numbers(0, 3));
    }
    bench.file(&StreamId::new().to_string(), b"x\n");
    bench.file("z", b"z\n");
    let ran = bench.run(&["import", "LOG", "FILES"]).ends_with(2);
    assert!(ran.err.contains("in the form of the id"), "{ran:?}");
    bench.cat_is("z", b"z\n");
    // The beginning of an id may be a name, and is that name then.
    let beginning = &a[..8];
    bench.run(&["name", "LOG", "b", beginning]).ends_with(0);
    bench.cat_is(beginning, &numbers(0, 3));

    let log = Log::open(bench.log()).expect("opens");
    let id = StreamId::new();
    let refused =
        log.create_stream_with(&StreamOptions::new().name(id.to_string())).expect_err("an id");
    assert_eq!(*refused.kind(), ErrorKind::NameIsAnId(id));
}

#[test]
fn the_beginning_of_an_id_deletes_nothing_unless_it_is_confirmed() {
    let (bench, a, _) = bench();
    let beginning = &a[..a.len() - 1];
    bench.cat_is(beginning, &numbers(0, 10));
    let before = bench.without_lock();
    for verb in [
        &["rm", "LOG", beginning][..],
        &["trim", "LOG", beginning, "2"],
        &["rewind", "LOG", beginning, "8"],
    ] {
        let refused = bench.run(verb).ends_with(2);
        assert!(refused.err.contains(&a) && refused.err.contains("--yes"), "{refused:?}");
        // Without a terminal there is no answer.
        bench.run_with(verb, b"y\n").ends_with(2);
        let no = bench.run_on_terminal(verb, "n\n").ends_with(2);
        assert!(no.text().contains("Use it?"), "{no:?}");
    }
    bench.run(&["rm", "LOG", "b", beginning]).ends_with(2);
    assert_eq!(bench.without_lock(), before, "nothing was done");
    bench.run(&["trim", "LOG", beginning, "2", "--yes"]).ends_with(0);
    bench.run(&["rewind", "LOG", beginning, "8", "--yes"]).ends_with(0);
    bench.cat_is("a", &numbers(2, 8));
    let yes = bench.run_on_terminal(&["trim", "LOG", beginning, "3"], "y\n").ends_with(0);
    assert!(yes.text().contains("Use it?"), "{yes:?}");
    bench.cat_is("a", &numbers(3, 8));
    // A name is exact, whatever id begins like it.
    bench.run(&["name", "LOG", "b", &a[..4]]).ends_with(0);
    bench.run(&["rm", "LOG", &a[..4]]).ends_with(0);
    bench.cat_is("a", &numbers(3, 8));
    bench.run(&["rm", "LOG", &a]).ends_with(0);
    bench.run(&["cat", "LOG", &a]).ends_with(2);
}

#[test]
fn a_mistyped_verb_is_never_taken_for_one_that_deletes() {
    let (bench, ..) = bench();
    let verbs = ["rm", "trim", "rewind", "retain"];
    for verb in verbs {
        let mut slips = vec![format!("{verb}x"), format!("x{verb}"), verb.to_uppercase()];
        for at in 0..verb.len() {
            let mut letters: Vec<char> = verb.chars().collect();
            letters.remove(at);
            slips.push(letters.iter().collect());
            letters = verb.chars().collect();
            letters.swap(at, (at + 1) % verb.len());
            slips.push(letters.iter().collect());
            letters[at] = 'x';
            slips.push(letters.iter().collect());
        }
        for slip in slips.iter().filter(|slip| !slip.is_empty() && slip.as_str() != verb) {
            let ran = bench.run(&[slip, "LOG", "a"]).ends_with(2);
            let mut words = ran.err.split(|letter: char| !letter.is_alphanumeric());
            assert!(words.all(|word| !verbs.contains(&word)), "{slip}: {}", ran.err);
        }
    }
    for option in ["--yes", "--max-idle", "--dry-rum", "--yse"] {
        let ran = bench.run(&[option]).ends_with(2);
        let mut words = ran.err.split(|letter: char| !letter.is_alphanumeric());
        assert!(words.all(|word| !verbs.contains(&word)), "{option}: {}", ran.err);
    }
    // Others are still found.
    for (slip, verb) in [("verfy", "'verify'"), ("inport", "'import'")] {
        assert!(bench.run(&[slip]).ends_with(2).err.contains(verb));
    }
}
