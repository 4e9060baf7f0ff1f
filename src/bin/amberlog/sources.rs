//! Which files an import takes, and what their streams are called.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::lines::{Content, Lines};
use crate::output::Failure;

/// A NUL among so many first bytes means that a file is no text.
const SNIFF_BYTES: u64 = 8 << 10;
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// The longest line that is taken, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;

/// A file to import.
#[derive(Debug)]
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What its stream is called.
    pub(crate) name: String,
    /// Its size, as far as it is known.
    pub(crate) bytes: u64,
}

/// What was found under the paths of an import.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Files to take, in order.
    pub(crate) files: Vec<Source>,
    /// What is left out, and why. No fault of anybody.
    pub(crate) left_out: Vec<(PathBuf, &'static str)>,
    /// What should have been taken and cannot be, and why.
    pub(crate) failed: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Walks the paths. The log itself, if it lies among them, is left out.
    ///
    /// Fails when two files would be streams of one name.
    pub(crate) fn find(paths: &[PathBuf], log: &Path) -> Result<Self, Failure> {
        let mut found = Self::default();
        let log = log.canonicalize().ok();
        for path in paths {
            let meta = match std::fs::metadata(path) {
                Ok(meta) => meta,
                Err(error) => {
                    found.failed.push((path.clone(), error.to_string()));
                    continue;
                }
            };
            if meta.is_dir() {
                found.walk(path, log.as_deref());
            } else {
                let name = path.file_name().map(Path::new);
                found.take(path, name.unwrap_or(path), meta.len());
            }
        }
        found.check_names()?;
        Ok(found)
    }

    fn walk(&mut self, root: &Path, log: Option<&Path>) {
        let mut entries = WalkDir::new(root).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_owned();
                    self.failed.push((path, error.to_string()));
                    continue;
                }
            };
            if let Some(why) = left_out(&entry, log) {
                self.left_out.push((entry.path().to_owned(), why));
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
            } else if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
                let bytes = entry.metadata().map_or(0, |meta| meta.len());
                self.take(entry.path(), name, bytes);
            }
        }
    }

    fn take(&mut self, path: &Path, name: &Path, bytes: u64) {
        match stream_name(name) {
            Some(name) => self.files.push(Source { path: path.to_owned(), name, bytes }),
            None => {
                let why = "its name is no UTF-8, so no stream can have it".to_owned();
                self.failed.push((path.to_owned(), why));
            }
        }
    }

    fn check_names(&self) -> Result<(), Failure> {
        let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
        for file in &self.files {
            if let Some(other) = names.insert(&file.name, &file.path) {
                return Err(Failure::Said(format!(
                    "two files would be streams called {:?}: {} and {}; nothing was imported",
                    file.name,
                    other.display(),
                    file.path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Why an entry of a folder is left out, if it is.
fn left_out(entry: &DirEntry, log: Option<&Path>) -> Option<&'static str> {
    let kind = entry.file_type();
    let is_hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
    if is_hidden {
        Some("hidden")
    } else if kind.is_dir() {
        let is_log = log.is_some() && entry.path().canonicalize().ok().as_deref() == log;
        is_log.then_some("the log itself")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else {
        (!kind.is_file()).then_some("no regular file")
    }
}

/// A relative path as a name, with `/` between its parts everywhere.
fn stream_name(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_str()),
            _ => None,
        })
        .collect();
    parts.map(|parts| parts.join("/"))
}

/// Opens a file as lines. `Ok(None)`: it is no text.
pub(crate) fn open(path: &Path) -> io::Result<Option<Lines<impl BufRead + use<>>>> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(SNIFF_BYTES).read_to_end(&mut head)?;
    let is_jsonl = path.extension().is_some_and(|extension| extension == "jsonl");
    if head.contains(&0) && !is_jsonl {
        return Ok(None);
    }
    let content = if is_jsonl { Content::Json } else { Content::Text };
    let bytes = BufReader::with_capacity(READ_BYTES, Cursor::new(head).chain(file));
    Ok(Some(Lines::new(bytes, content, LINE_BYTES_MAX)))
}
