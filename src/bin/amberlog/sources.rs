//! Selection of an import's files, and the names of their streams.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use walkdir::{DirEntry, WalkDir};

use crate::lines::{Content, LineReader};
use crate::output::VerbFailure;
use crate::packed::{Packing, READ_BYTES, unpack};

/// Number of bytes at the start of a file that are searched for a NUL, which no text has.
const SNIFF_BYTES: u64 = 8 << 10;
/// Length in bytes of the longest line accepted.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;

/// File to import.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path of the file.
    pub(crate) path: PathBuf,
    /// Name of its stream.
    pub(crate) name: String,
    /// Size in bytes, as far as it is known.
    pub(crate) bytes: u64,
    /// Time of the last change, as far as it is known.
    changed: Option<SystemTime>,
}

impl Source {
    /// Returns whether the last change is older than `idle_max`.
    pub(crate) fn is_idle(&self, idle_max: Duration) -> bool {
        let idle = self.changed.and_then(|changed| changed.elapsed().ok());
        idle.is_some_and(|idle| idle > idle_max)
    }
}

/// Findings under the paths of an import.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Files to take, in order.
    pub(crate) files: Vec<Source>,
    /// Entries left out on purpose, with the reason.
    pub(crate) left_out: Vec<(PathBuf, &'static str)>,
    /// Entries that cannot be read, with the reason.
    pub(crate) failed: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Walks the paths and leaves out the log itself.
    ///
    /// Fails when two files would become streams of one name.
    pub(crate) fn find(paths: &[PathBuf], log: &Path) -> Result<Self, VerbFailure> {
        let mut found = Self::default();
        let log = log.canonicalize().ok();
        if paths.iter().any(|path| path == Path::new("-")) {
            let why =
                "standard input has no name; use `record`, or `import --jsonl -` for an export";
            return Err(VerbFailure::Said(why.into()));
        }
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
                found.take(path, name.unwrap_or(path), Some(&meta));
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
                self.take(entry.path(), name, entry.metadata().ok().as_ref());
            }
        }
    }

    fn take(&mut self, path: &Path, name: &Path, meta: Option<&Metadata>) {
        let bytes = meta.map_or(0, Metadata::len);
        let changed = meta.and_then(|meta| meta.modified().ok());
        match stream_name(&Packing::name_inside(name)) {
            Some(name) => self.files.push(Source { path: path.to_owned(), name, bytes, changed }),
            None => {
                let why = "its name is not UTF-8, so no stream can have it".to_owned();
                self.failed.push((path.to_owned(), why));
            }
        }
    }

    /// Checks that no two files have one name. A file beside a compressed copy of itself fails
    /// alone: its owner has to choose.
    fn check_names(&mut self) -> Result<(), VerbFailure> {
        let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut doubled = Vec::new();
        for file in &self.files {
            let Some(other) = names.insert(file.name.clone(), file.path.clone()) else { continue };
            let first = other.display();
            let second = file.path.display();
            if Packing::of(&other) == Packing::of(&file.path) {
                return Err(VerbFailure::Said(format!(
                    "two files would be streams named {:?}: {first} and {second}; nothing was imported",
                    file.name
                )));
            }
            doubled.push((
                file.name.clone(),
                format!("{first} and {second} would become one stream; move one of them away"),
            ));
        }
        for (name, why) in doubled {
            let failed = self.files.extract_if(.., |file| file.name == name);
            self.failed.extend(failed.map(|file| (file.path, why.clone())));
        }
        Ok(())
    }
}

/// Returns the reason for leaving out an entry of a folder, if there is one.
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
        (!kind.is_file()).then_some("not a regular file")
    }
}

/// Returns a relative path as a name, with `/` between its parts on every system.
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

/// Opens the content of a file as lines, or returns the reason for leaving it out.
pub(crate) fn open(
    path: &Path,
) -> io::Result<Result<LineReader<impl BufRead + use<>>, &'static str>> {
    let mut from = unpack(path, File::open(path)?);
    let mut head = Vec::new();
    from.by_ref().take(SNIFF_BYTES).read_to_end(&mut head)?;
    let name = Packing::name_inside(path);
    let is_jsonl = name.extension().is_some_and(|extension| extension == "jsonl");
    let why = match Packing::seems(&head) {
        Packing::Gzip => Some("compressed by gzip; rename it to end in .gz to import it"),
        Packing::Zstd => Some("compressed by zstd; rename it to end in .zst to import it"),
        Packing::Plain => (head.contains(&0) && !is_jsonl).then_some("not a text file"),
    };
    if let Some(why) = why {
        return Ok(Err(why));
    }
    let content = if is_jsonl { Content::Json } else { Content::Text };
    let bytes = BufReader::with_capacity(READ_BYTES, Cursor::new(head).chain(from));
    Ok(Ok(LineReader::new(bytes, content, LINE_BYTES_MAX)))
}
