//! Is the English of the source plain? (STYLE.md, R1 to R3, R5 and R6; here they are a ratchet)
//!
//! Each count has a maximum. A change may lower it and must not raise it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Number of items whose doc comment may open with a clause or a pronoun. The target is 3 % of them.
const CLAUSES_MAX: usize = 0;
/// Number of comment lines that may name an amount without a number. The target is none.
const VAGUE_MAX: usize = 0;
/// Number of comment lines that may name no actor. The target is none.
const NAMELESS_MAX: usize = 0;
/// Number of comment lines that may be wider than code.
const WIDE_MAX: usize = 0;
/// Number of type names that may be defined more than once in the library and the tool. The target is none.
const REPEATED_TYPES_MAX: usize = 15;
const COLUMNS_MAX: usize = 100;

/// R1: words that open a clause or a pronoun.
const CLAUSES: [&str; 10] =
    ["What", "Where", "Who", "Which", "Whether", "How", "So", "It", "Those", "As"];
/// R2: amounts without a number.
const VAGUE: [&str; 4] = ["so many", "so much", "so long", "of late"];
/// R3: subjects that name no actor.
const NAMELESS: [&str; 5] = ["who", "whoever", "somebody", "nobody", "everybody"];

/// Text of one file's comments.
struct Prose {
    path: PathBuf,
    /// Line number and text of every comment, without its slashes.
    comments: Vec<(usize, String)>,
    /// First lines of doc comments of items.
    openings: Vec<(usize, String)>,
    wide: usize,
    types: Vec<String>,
}

impl Prose {
    /// Reads the part of a file that is not a test.
    fn new(path: &Path, text: &str) -> Self {
        let mut prose = Self {
            path: path.to_owned(),
            comments: Vec::new(),
            openings: Vec::new(),
            wide: 0,
            types: Vec::new(),
        };
        let mut before = "";
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_end();
            let start = line.trim_start();
            let is_for_tests = start == "#[cfg(test)]" || start.starts_with("#[cfg(all(test");
            if is_for_tests && text.lines().nth(at + 1).is_some_and(|next| next.ends_with('{')) {
                break;
            }
            if let Some(comment) = comment_of(line) {
                let words = comment.trim_start_matches(['/', '!']).trim();
                prose.comments.push((at + 1, words.to_owned()));
                if start.starts_with("///") && !before.starts_with("///") {
                    prose.openings.push((at + 1, words.to_owned()));
                }
                prose.wide +=
                    usize::from(line.chars().count() > COLUMNS_MAX && start.starts_with("//"));
            } else if let Some(name) = defined_type(start) {
                prose.types.push(name);
            }
            before = start;
        }
        prose
    }

    fn openings_with_clauses(&self) -> Vec<String> {
        let is_clause = |text: &str| {
            text.starts_with("The same")
                || CLAUSES.iter().any(|word| {
                    text.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', ',', '\'']))
                })
        };
        self.found(&self.openings, |text| is_clause(text))
    }

    fn vague(&self) -> Vec<String> {
        let lower = |text: &str| text.to_lowercase();
        self.found(&self.comments, |text| VAGUE.iter().any(|vague| has_words(&lower(text), vague)))
    }

    fn nameless(&self) -> Vec<String> {
        let lower = |text: &str| text.to_lowercase();
        self.found(&self.comments, |text| NAMELESS.iter().any(|word| has_words(&lower(text), word)))
    }

    fn found(&self, lines: &[(usize, String)], is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = lines.iter().filter(|(_, text)| is_wrong(text));
        wrong.map(|(line, text)| format!("{}:{line}: {text}", self.path.display())).collect()
    }
}

/// The comment of a line. A `//` inside a string is taken for one when quotes before it are even.
fn comment_of(line: &str) -> Option<&str> {
    let at = line.find("//")?;
    let quotes = line[..at].matches('"').count();
    (quotes.is_multiple_of(2) && !line[..at].ends_with(':')).then(|| &line[at..])
}

fn has_words(text: &str, words: &str) -> bool {
    let is_edge = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
    text.match_indices(words).any(|(at, _)| {
        is_edge(text[..at].chars().next_back()) && is_edge(text[at + words.len()..].chars().next())
    })
}

fn defined_type(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| ["struct", "enum", "trait"].contains(word))?;
    let is_visibility = |word: &str| word.starts_with("pub") || word == "super)";
    if !words[..at].iter().all(|word| is_visibility(word)) {
        return None;
    }
    let name = words.get(at + 1)?;
    let end = name.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(name.len());
    Some(name[..end].to_owned())
}

/// Returns the broken rules, with counts.
fn broken(files: &[Prose], [clauses_max, vague_max, nameless_max]: [usize; 3]) -> Vec<String> {
    let all = |of: fn(&Prose) -> Vec<String>| files.iter().flat_map(of).collect::<Vec<_>>();
    let mut broken = Vec::new();
    let openings: usize = files.iter().map(|file| file.openings.len()).sum();
    let clauses = all(Prose::openings_with_clauses);
    if clauses.len() > clauses_max {
        broken.push(format!("R1: {} of {openings} items open with a clause", clauses.len()));
        broken.extend(clauses);
    }
    let (vague, nameless) = (all(Prose::vague), all(Prose::nameless));
    for (rule, found, max) in [("R2", vague, vague_max), ("R3", nameless, nameless_max)] {
        if found.len() > max {
            broken.push(format!("{rule}: {} lines", found.len()));
            broken.extend(found);
        }
    }
    let wide: usize = files.iter().map(|file| file.wide).sum();
    if wide > WIDE_MAX {
        broken.push(format!("R5: {wide} comment lines have more than {COLUMNS_MAX} columns"));
    }
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for name in files.iter().flat_map(|file| &file.types) {
        *types.entry(name).or_default() += 1;
    }
    let repeated: Vec<_> = types.into_iter().filter(|(_, times)| *times > 1).collect();
    if repeated.len() > REPEATED_TYPES_MAX {
        broken.push(format!("R6: {} type names are used again: {repeated:?}", repeated.len()));
    }
    broken
}

#[test]
fn the_english_is_plain() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("readable");
        Prose::new(path.strip_prefix(root).expect("inside"), &text)
    };
    let mut files: Vec<Prose> = super::files("src").iter().map(read).collect();
    files.retain(|prose| !super::is_test(&prose.path));
    // Each bench has types of its own.
    let benches = super::files("benches");
    files.extend(benches.iter().map(|path| Prose { types: Vec::new(), ..read(path) }));
    let broken = broken(&files, [CLAUSES_MAX, VAGUE_MAX, NAMELESS_MAX]);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn control_poor_english_is_noticed() {
    for text in [
        "/// What it is.\nstruct A;",
        "/// The same as the other.\nstruct A;",
        "/// As [`A`].\nfn f() {}",
        "// Waits for so many of them.",
        "fn f() {} // whoever comes next",
        "//! Nobody waits.",
        "#[cfg(test)]\nmod tests;\n// Nobody waits.",
    ] {
        assert!(!broken(&[Prose::new(Path::new("src/a.rs"), text)], [0; 3]).is_empty(), "{text}");
    }
    for text in [
        "/// Returns what it is.\nstruct A;",
        "const A: &str = \"who\";",
        "/// Assigns a whole number.",
        "const A: &str = \"http://who\";",
        "#[cfg(test)]\nmod tests {\n    // Nobody waits.\n}",
    ] {
        assert_eq!(
            broken(&[Prose::new(Path::new("src/a.rs"), text)], [0; 3]),
            Vec::<String>::new()
        );
    }
}
