//! A file for each stream, as in many programs: the first commit creates it and syncs its name;
//! each later commit is a write at the end and a sync. No checksums; torn writes go unnoticed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

const LENGTH_BYTES: usize = 4;

pub(super) struct Files;

impl Contestant for Files {
    fn name(&self) -> &'static str {
        "a file per stream"
    }

    fn setup(&self) -> &'static str {
        "create, write, sync the file and its directory; later commits write at the end and sync. Events \
         are lengths and bytes, without checksums. Opening looks at every file's size"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanLog => Some("there is no order between files"),
            Work::Tasks => Some("it has no asynchronous commit"),
            Work::HotCold => Some("it would hold a file open for each stream"),
            _ => None,
        }
    }

    fn is_floor(&self) -> bool {
        true
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let entries = std::fs::read_dir(dir).expect("readable");
        let bytes = entries.map(|entry| entry.expect("readable").metadata().map_or(0, |m| m.len()));
        std::hint::black_box(bytes.sum::<u64>());
        Box::new(Open { dir: dir.to_owned() })
    }
}

struct Open {
    dir: PathBuf,
}

impl Open {
    fn path(&self, stream: u64) -> PathBuf {
        self.dir.join(format!("{stream:020}"))
    }
}

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        let path = self.path(stream);
        Box::new(Appending { dir: &self.dir, path, file: None, buffer: Vec::new() })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        let mut bytes = Vec::new();
        let mut file = File::open(self.path(stream)).expect("it is there");
        file.read_to_end(&mut bytes).expect("readable");
        let mut rest = bytes.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let Some((payload, next)) =
                behind.split_at_checked(u32::from_le_bytes(*length) as usize)
            else {
                return;
            };
            sink.take(payload);
            rest = next;
        }
    }
}

struct Appending<'a> {
    dir: &'a Path,
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Appending<'_> {
    fn open(&self) -> File {
        OpenOptions::new().append(true).create(true).open(&self.path).expect("opens")
    }
}

impl Writer for Appending<'_> {
    #[inline]
    fn append(&mut self, payload: &[u8]) {
        self.buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(payload);
    }

    fn commit(&mut self) {
        let is_new = self.file.is_none();
        let mut file = self.file.take().unwrap_or_else(|| self.open());
        file.write_all(&self.buffer).expect("written");
        file.sync_data().expect("synced");
        if is_new {
            File::open(self.dir).and_then(|dir| dir.sync_all()).expect("synced");
        }
        self.file = Some(file);
        self.buffer.clear();
    }

    fn commit_unsynced(&mut self) {
        self.open().write_all(&self.buffer).expect("written");
        self.buffer.clear();
    }

    fn discard(&mut self) {
        self.buffer.clear();
    }
}
