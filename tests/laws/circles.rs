//! Do the files of a room import each other in one direction?
//!
//! A room's first file, which declares the others, and files of tests and models alone are not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{files, is_test, rooms_named, without_tests, without_texts};

/// Files that a file imports from, of its own room.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The files of the same room that `code` imports from.
fn imported(code: &str) -> BTreeSet<String> {
    let own = code.replace("super::super::", "other::").replace("crate::", "other::");
    rooms_named(&own.replace("super::", "crate::")).into_iter().collect()
}

/// The files that lead back to themselves.
fn circles(imports: &Imports) -> Vec<&str> {
    let leads_back = |start: &&String| {
        let mut seen = BTreeSet::new();
        let mut left = vec![*start];
        while let Some(file) = left.pop() {
            let next = imports.get(file).into_iter().flatten();
            left.extend(next.filter(|file| seen.insert(*file)));
        }
        seen.contains(start)
    };
    imports.keys().filter(leads_back).map(String::as_str).collect()
}

#[test]
fn files_of_a_room_import_each_other_in_one_direction() {
    let mut rooms: BTreeMap<_, Imports> = BTreeMap::new();
    for path in files("src").into_iter().filter(|path| !is_test(path) && !path.ends_with("mod.rs"))
    {
        let code = without_tests(&without_texts(&fs::read_to_string(&path).expect("readable")));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let room = path.parent().expect("a room").to_owned();
        rooms.entry(room).or_default().insert(name, imported(&code));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (room, imports) in rooms.iter().filter(|(room, _)| **room != root.join("src")) {
        assert_eq!(circles(imports), Vec::<&str>::new(), "{}", room.display());
    }
    assert!(rooms.len() > 15, "the rooms were not found");
}

#[test]
fn control_a_circle_of_imports_is_noticed() {
    let room = |texts: [(&str, &str); 3]| -> Imports {
        texts.into_iter().map(|(name, text)| (name.to_owned(), imported(text))).collect()
    };
    let straight = room([
        ("a", "use super::{b::B, c}; use crate::a::A;"),
        ("b", "fn f(c: super::c::C) {}"),
        ("c", "use super::super::a; use crate::b::B;"),
    ]);
    assert_eq!(circles(&straight), Vec::<&str>::new());
    let round = room([
        ("a", "use super::b::B;"),
        ("b", "use super::{d::D, c::{C, D}};"),
        ("c", "fn f() { super::b::g() }"),
    ]);
    assert_eq!(circles(&round), ["b", "c"]);
}
