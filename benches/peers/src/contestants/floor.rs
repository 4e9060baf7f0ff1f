//! The floor: copies, writes and syncs the same bytes, without streams, checksums of commits or an
//! index. Threads share syncs in the simplest way: the first one writes for all that arrived
//! meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

/// Number of bytes that amberlog puts in front of a payload.
const HEAD_BYTES: usize = 16;
/// Number of bytes that amberlog adds to a commit of one stream.
const COMMIT_BYTES: usize = 96;
const PREPARED_BYTES: u64 = 64 << 20;
/// Number of bytes per checksum in a pass over everything.
const PIECE_BYTES: usize = 8 << 10;

pub(super) struct Floor;

impl Contestant for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn setup(&self) -> &'static str {
        "copy into a plain ring; positional write and fdatasync in a prepared file, shared by a bare \
         leader; reading is a pass over the bytes in memory with a CRC-32 for every 8 KiB"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanStreams => Some("it knows no streams"),
            Work::Mixed => Some("its readers would read a copy in memory"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn is_floor(&self) -> bool {
        true
    }

    fn open(&self, dir: &Path, purpose: Purpose) -> Box<dyn Store> {
        let path = dir.join("floor");
        let exists = path.exists();
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(path);
        let mut disk = Disk { file: file.expect("opens"), at: 0, wraps_at: u64::MAX };
        if exists {
            disk.at = checksummed_pass(&disk.file);
        } else if purpose == Purpose::Commits {
            prepare(&disk.file);
            disk.wraps_at = PREPARED_BYTES;
        }
        let state = Mutex::default();
        let turns = [const { Condvar::new() }; 2];
        Box::new(Open {
            group: Group { state, turns, disk: Mutex::new(disk) },
            all: OnceLock::new(),
        })
    }
}

fn prepare(file: &File) {
    let zeros = vec![0; 1 << 20];
    for at in (0..PREPARED_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("room on the disk");
    }
    file.sync_all().expect("synced");
}

/// Reads everything once, the least work of an opening. Returns the end.
fn checksummed_pass(mut file: &File) -> u64 {
    let mut piece = vec![0; 1 << 20];
    let (mut end, mut all) = (0, 0);
    loop {
        let read = file.read(&mut piece).expect("readable");
        if read == 0 {
            std::hint::black_box(all);
            return end;
        }
        end += read as u64;
        all =
            piece[..read].chunks(PIECE_BYTES).fold(all, |all, piece| all ^ crc32fast::hash(piece));
    }
}

struct Open {
    group: Group,
    all: OnceLock<Vec<u8>>,
}

impl Store for Open {
    fn writer<'a>(&'a self, _stream: u64) -> Box<dyn Writer + 'a> {
        Box::new(Copying { ring: Vec::new(), at: 0, group: &self.group })
    }

    fn read_any(&self, sink: &mut Sink) {
        sink.take(&[0]);
    }

    fn read_log(&self, sink: &mut Sink) {
        let all = self.all.get_or_init(|| {
            let mut all = Vec::new();
            let disk = lock(&self.group.disk);
            (&disk.file)
                .rewind()
                .and_then(|()| (&disk.file).read_to_end(&mut all))
                .expect("readable");
            all
        });
        let sum = all.chunks(PIECE_BYTES).fold(0, |sum, piece| sum ^ crc32fast::hash(piece));
        std::hint::black_box(sum);
        let mut rest = all.as_slice();
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            match head[4] {
                FRAME => sink.take(&behind[..bytes]),
                _ => debug_assert_eq!(head[4], COMMIT),
            }
            rest = &behind[bytes..];
        }
    }
}

const RING_BYTES_MAX: usize = 1 << 20;
const FRAME: u8 = 1;
const COMMIT: u8 = 2;

struct Copying<'a> {
    ring: Vec<u8>,
    at: usize,
    group: &'a Group,
}

impl Copying<'_> {
    #[inline]
    fn push(&mut self, kind: u8, payload: &[u8]) {
        let need = HEAD_BYTES + payload.len();
        if need > self.ring.len() - self.at {
            self.make_room(need);
        }
        let frame = &mut self.ring[self.at..self.at + need];
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4] = kind;
        frame[..HEAD_BYTES].copy_from_slice(&head);
        frame[HEAD_BYTES..].copy_from_slice(payload);
        self.at += need;
    }

    /// Grows up to a mebibyte, then wraps around, because there may be very many of these.
    #[cold]
    fn make_room(&mut self, need: usize) {
        let wanted = (self.at + need).next_power_of_two();
        if wanted <= RING_BYTES_MAX {
            self.ring.resize(wanted, 1);
        } else {
            self.at = 0;
        }
    }

    fn close_commit(&mut self) {
        self.push(COMMIT, &[0; COMMIT_BYTES - HEAD_BYTES]);
    }
}

impl Writer for Copying<'_> {
    #[inline]
    fn append(&mut self, payload: &[u8]) {
        self.push(FRAME, payload);
    }

    fn commit(&mut self) {
        self.close_commit();
        self.group.commit(&self.ring[..self.at]);
        self.at = 0;
    }

    fn commit_unsynced(&mut self) {
        self.close_commit();
        lock(&self.group.disk).write(&self.ring[..self.at]);
        self.at = 0;
    }

    fn discard(&mut self) {
        self.at = 0;
    }
}

struct Disk {
    file: File,
    at: u64,
    wraps_at: u64,
}

impl Disk {
    fn write(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if self.at + length > self.wraps_at {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).expect("written");
        self.at += length;
    }
}

struct Group {
    state: Mutex<Forming>,
    turns: [Condvar; 2],
    disk: Mutex<Disk>,
}

#[derive(Default)]
struct Forming {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    group: u64,
    done: u64,
    leading: bool,
}

impl Group {
    /// Writes the bytes and returns when they are synced. Groups sleep on two conditions in turn,
    /// so that a finished group does not wake the next one.
    fn commit(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.bytes.extend_from_slice(bytes);
        let mine = state.group;
        while state.done <= mine {
            if state.leading {
                let turn = &self.turns[mine as usize % 2];
                state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let spare = std::mem::take(&mut state.spare);
            let mut group = std::mem::replace(&mut state.bytes, spare);
            state.group += 1;
            drop(state);
            let mut disk = lock(&self.disk);
            disk.write(&group);
            disk.file.sync_data().expect("synced");
            drop(disk);
            group.clear();
            state = lock(&self.state);
            state.spare = group;
            state.leading = false;
            state.done = mine + 1;
            self.turns[mine as usize % 2].notify_all();
            self.turns[(mine + 1) as usize % 2].notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
