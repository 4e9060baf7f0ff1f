//! What the pages say of the source: every file and test that they name exists, and every invariant and breakage has a line.

use std::fs;
use std::path::Path;

use super::files;

/// The invariants that docs/testing.md has to have a line for.
const INVARIANTS: u32 = 51;

/// Returns errors of the table of invariants: missing lines, and tests and breakages that do not exist.
fn untrue(page: &str, tests: &[(String, String)], source: &str, known: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows: Vec<Vec<&str>> =
        page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    for number in 1..=INVARIANTS {
        let name = format!("F{number}");
        let Some(row) = rows.iter().find(|row| row.len() == 6 && row[1] == name) else {
            wrong.push(format!("{name} has no line"));
            continue;
        };
        for named in quoted(row[3]).chain(quoted(row[4])) {
            if !is_there(named, tests, source) {
                wrong.push(format!("{name} names {named}"));
            }
        }
        for word in row[4].split(|letter: char| !letter.is_alphanumeric()) {
            if word.starts_with(char::is_uppercase) && !known.contains(&word) {
                wrong.push(format!("{name} names the breakage {word}"));
            }
        }
    }
    for breakage in known {
        let is_it = |row: &&Vec<&str>| row.len() == 5 && row[1].contains(&format!("`{breakage}`"));
        let of_invariants = |row: &&Vec<&str>| {
            row.len() == 6
                && row[4]
                    .split(|letter: char| !letter.is_alphanumeric())
                    .any(|word| word == *breakage)
        };
        match rows.iter().find(is_it) {
            None if rows.iter().any(|row| of_invariants(&row)) => {}
            None => wrong.push(format!("no line says what notices {breakage}")),
            Some(row) => {
                let lost = quoted(row[3]).filter(|named| !is_there(named, tests, source));
                wrong.extend(lost.map(|named| format!("{breakage} names {named}")));
            }
        }
    }
    wrong
}

/// Names between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns whether a name on a page exists: a test, with or without its file, or a file.
fn is_there(named: &str, tests: &[(String, String)], source: &str) -> bool {
    match named.split_once("::") {
        Some((file, test)) => tests.iter().any(|(path, text)| {
            let mut parts = Path::new(path).iter().map(|part| part.to_string_lossy());
            parts.any(|part| part.trim_end_matches(".rs") == file)
                && text.contains(&format!("fn {test}("))
        }),
        None => {
            named.contains(['/', '.'])
                || source.contains(&format!("fn {named}("))
                || ["verify", "repair", "ops", "frame"].contains(&named)
        }
    }
}

/// The ways to break the engine or the disk, as `src/sabotage.rs` and `src/disk/sim/defect.rs` list them.
fn breakages(source: &str) -> Vec<&str> {
    let variant = |line| -> Option<&str> {
        let variant = str::strip_suffix(str::strip_prefix(line, "    ")?, ",")?;
        Some(variant.trim_end_matches("(&'static str)"))
    };
    let is_name = |name: &&str| {
        name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric)
    };
    source.lines().filter_map(variant).filter(is_name).collect()
}

/// Breakages that the engine or the disk does not know, or that no test turns on.
fn idle<'a>(sabotage: &'a str, sources: &str) -> Vec<&'a str> {
    let uses = |text: &str| sources.matches(text).count();
    let is_idle = |name: &&str| {
        let asked = uses(&format!("broken(Sabotage::{name})"));
        let named =
            uses(&format!("{name},")) + uses(&format!("{name})")) + uses(&format!("{name}]"));
        asked == 0 || named <= asked
    };
    breakages(sabotage).into_iter().filter(is_idle).collect()
}

/// Defects that the simulated disk does not have, or that no test gives it.
fn idle_defects<'a>(defects: &'a str, disk: &str, tests: &str) -> Vec<&'a str> {
    let is_idle = |name: &&str| {
        let named = format!("Defect::{name}");
        !disk.contains(&named) || !tests.contains(&named)
    };
    breakages(defects).into_iter().filter(is_idle).collect()
}

/// The files that a page names between backticks and that are not there.
fn lost_files(page: &str) -> Vec<&str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = page.split('`').skip(1).step_by(2);
    let files = named.filter(|name| name.starts_with("tests/") || name.starts_with("src/"));
    files.filter(|name| name.ends_with(".rs") && !root.join(name).is_file()).collect()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| root.join(name))
        .into_iter()
        .chain(fs::read_dir(root.join("docs")).expect("there").flatten().map(|page| page.path()))
        .filter(|page| page.extension().is_some_and(|extension| extension == "md"))
    {
        let text = fs::read_to_string(&page).expect("readable");
        assert_eq!(lost_files(&text), Vec::<&str>::new(), "{}", page.display());
    }
    // Control: one that is not there is noticed.
    assert_eq!(lost_files("see `tests/nowhere.rs`, `src/lib.rs`"), ["tests/nowhere.rs"]);
}

#[test]
fn f40_the_page_about_tests_says_what_is() {
    let read = |path: &Path| fs::read_to_string(path).expect("readable");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: Vec<(String, String)> = files("tests")
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root.join("tests")).expect("inside");
            (name.display().to_string(), read(path))
        })
        .collect();
    let source: String = files("src").iter().map(|path| read(path)).collect();
    let [page, sabotage, defects] =
        ["docs/testing.md", "src/sabotage.rs", "src/disk/sim/defect.rs"]
            .map(|name| read(&root.join(name)));
    let known = [breakages(&sabotage), breakages(&defects)].concat();
    let untrue = |page: &str, known: &[&str]| untrue(page, &tests, &source, known);
    assert_eq!(untrue(&page, &known), Vec::<String>::new());
    let mut all: String = files("src")
        .iter()
        .filter(|path| !path.ends_with("sabotage.rs"))
        .map(|path| read(path))
        .collect();
    let disk = all.clone();
    tests.iter().for_each(|(_, text)| all += text);
    assert_eq!(idle(&sabotage, &all), Vec::<&str>::new());
    let given: String = tests.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(idle_defects(&defects, &disk, &given), Vec::<&str>::new());
    // Control: a breakage that no test turns on is noticed, and a defect that no disk has.
    assert_eq!(idle("    Idle,", "broken(Sabotage::Idle)"), ["Idle"]);
    assert_eq!(idle("    Idle,", "sabotage(Sabotage::Idle)"), ["Idle"]);
    assert_eq!(idle_defects("    Idle,", "Defect::Idle", ""), ["Idle"]);
    assert_eq!(idle_defects("    Idle(&'static str),", "", "Defect::Idle"), ["Idle"]);
    // Control: a page that lies is noticed.
    let lies = page.replace("crashes::p3_p4_p6_every_way", "crashes::no_way");
    assert!(!untrue(&lies, &known).is_empty());
    assert!(!untrue(&page.replace("| F17 |", "| F |"), &known).is_empty());
    assert!(!untrue(&page.replace("SkipSalt", "SkipSoup"), &known).is_empty());
    assert!(!untrue(&page, &[&known[..], &["SkipAll"]].concat()).is_empty());
    let lies = page.replace("control_memory_that_is_not_counted", "control_nothing");
    assert!(!untrue(&lies, &known).is_empty());
}
