//! What is no log, is another writer's, or is not complete: is it refused by type and by place, and left alone?
//!
//! P6, P14, P15; F17, F18, F31, F33, F34, F35, F36. On real directories. Damage inside files, and what is still
//! readable beside it, is the business of tests/corruption.rs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, process};

use crate::support::verified::checked;
use crate::support::{read_dir, segment, write_dir};
use amberlog::verify::{DamageKind, RecordBody, RecordDump};
use amberlog::{Error, ErrorKind, Log, Options, Position, ReadView, StreamId};
use tempfile::TempDir;

const HOLDER: &str = "AMBERLOG_REFUSALS_HOLDER";

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// Forty commits of one stream, in several segments.
fn write(path: &Path) -> StreamId {
    let log = options().open(path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..40_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    id
}

/// All of those events are there, in order.
fn is_whole(view: &ReadView, id: StreamId, events: u8) {
    let all = view.events(id).expect("known").map(|event| event.expect("whole"));
    let first: Vec<u8> = all.map(|event| event.payload()[0]).collect();
    assert_eq!(first, (0..events).collect::<Vec<_>>());
}

/// One more commit, after opening the log at `path`.
fn goes_on(path: &Path, id: StreamId, events: u8) {
    let log = options().open(path).expect("opens");
    is_whole(&log.read_view(), id, events);
    let mut stream = log.open_stream(id).expect("known");
    stream.append([events; 1000]).expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    is_whole(&ReadView::open(path).expect("readable").0, id, events + 1);
}

/// Everything but the lock, which names its last holder.
fn content(path: &Path) -> Files {
    let mut files = read_dir(path);
    files.remove(Path::new("LOCK"));
    files
}

// ---------------------------------------------------------------- one writer

/// Does nothing, unless this process is the other one of the test below.
#[test]
fn holder() {
    let Ok(path) = env::var(HOLDER) else { return };
    let log = options().open(path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append(b"held").expect("room");
    stream.commit().wait().expect("committed");
    println!("\n@held");
    std::thread::park();
}

fn is_locked_by(error: &Error, pid: u32) {
    assert_eq!(*error.kind(), ErrorKind::Locked { holder: Some(pid) }, "{error}");
    assert_eq!(error.place().expect("it has a place").path, Path::new("LOCK"));
    let named = match pid == std::process::id() {
        true => "this process has it open already".into(),
        false => format!("process {pid} "),
    };
    assert!(error.to_string().contains(&named), "it names the holder: {error}");
}

/// F31: the second opener gets a clear error at once, which names the holder; the lock dies with it.
#[test]
fn f31_another_process_is_named_and_its_lock_dies_with_it() {
    let dir = dir();
    let id = write(dir.path());
    let mut holder = Command::new(env::current_exe().expect("this binary"))
        .args(["refusals::holder", "--exact", "--nocapture", "--test-threads=1"])
        .env(HOLDER, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("another process");
    let lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "@held"));
    is_locked_by(&options().open(dir.path()).expect_err("it is held"), holder.id());
    is_locked_by(&amberlog::verify::repair(dir.path()).expect_err("it is held"), holder.id());
    assert!(checked(dir.path()).expect("readers need no lock").is_sound());
    is_whole(&ReadView::open(dir.path()).expect("readers need no lock").0, id, 40);
    holder.kill().expect("killed");
    holder.wait().expect("dead");
    let text = fs::read_to_string(dir.path().join("LOCK")).expect("readable");
    assert_eq!(text.trim(), holder.id().to_string(), "what it left blocks nobody");
    goes_on(dir.path(), id, 40);
}

#[test]
fn f31_of_two_that_were_opened_on_nothing_the_first_to_commit_has_the_log() {
    let dir = dir();
    let path = dir.path().join("log");
    let [first, second] = [0, 1].map(|_| options().open(&path).expect("nothing is there yet"));
    let mut streams = [&first, &second].map(|log| log.create_stream().expect("a stream"));
    for stream in &mut streams {
        stream.append(b"event").expect("room");
    }
    let [winner, loser] = &mut streams;
    winner.commit().wait().expect("committed");
    is_locked_by(&loser.commit().wait().expect_err("it is held"), process::id());
    is_locked_by(&options().open(&path).expect_err("it is held"), process::id());
    first.close().expect("closes");
    let before = content(&path);
    let error = loser.commit().wait().expect_err("a log appeared");
    assert_eq!(*error.kind(), ErrorKind::NotThisLog, "{error}");
    assert_eq!(error.place().expect("it has a place").path, Path::new("segments"));
    assert_eq!(loser.buffered(), 1, "P5: the event is still there");
    assert!(content(&path) == before);
}

/// The lock belonged to every process that had the file open, and a fork of the process has all of its files open. A log
/// that was closed while a fork lived on stayed locked, by this very process as the message had it. F37.
#[test]
fn f31_f37_a_fork_that_lives_on_does_not_keep_a_closed_log_locked() {
    use std::os::unix::process::CommandExt;
    let dir = dir();
    let path = dir.path().join("log");
    let id = write(&path);
    let (forked, go_on) = (dir.path().join("forked"), dir.path().join("go on"));
    let log = options().open(&path).expect("opens");
    let mut fork = Command::new("true");
    let marks = (forked.clone(), go_on.clone());
    // What runs here is this very process, forked, before it becomes another program.
    let linger = move || {
        fs::write(&marks.0, b"")?;
        while !marks.1.exists() {
            std::thread::yield_now();
        }
        Ok(())
    };
    // SAFETY: the fork touches two files and nothing that a thread of this process could have locked.
    #[allow(unsafe_code, reason = "std has no other fork")]
    unsafe {
        fork.pre_exec(linger);
    }
    let fork = std::thread::spawn(move || fork.status().expect("the fork ends"));
    while !forked.exists() {
        std::thread::yield_now();
    }
    log.close().expect("closes");
    let again = options().open(&path).map(drop);
    fs::write(&go_on, b"").expect("written");
    assert!(fork.join().expect("no panic").success());
    again.expect("nobody writes the log any more");
    goes_on(&path, id, 40);
}

// ---------------------------------------------------------------- what is wrong, and where

fn copy(from: (&Path, u32), to: (&Path, u32)) {
    fs::copy(segment(from.0, from.1), segment(to.0, to.1)).expect("copied");
}

/// F17, F18: every way of looking reports each of these by type and place, and changes nothing.
#[test]
fn p6_f17_what_is_missing_swapped_repeated_or_foreign_is_told_by_type_and_place() {
    let (sample, other) = (dir(), dir());
    write(sample.path());
    write(other.path());
    let last = checked(sample.path()).expect("readable").segments.last().expect("some").number;
    let (end, foreign) = (last + 1, other.path());
    type Change<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: [(&str, Change<'_>, DamageKind, u32, bool); 10] = [
        ("first missing", Box::new(|dir| remove(dir, 1)), DamageKind::Missing, 1, true),
        ("one missing", Box::new(|dir| remove(dir, 2)), DamageKind::Missing, 2, true),
        ("last missing", Box::new(|dir| remove(dir, last)), DamageKind::Missing, last, false),
        ("repeated", Box::new(|dir| copy((dir, 1), (dir, 2))), DamageKind::Misplaced, 2, true),
        (
            "repeated behind",
            Box::new(|dir| copy((dir, 1), (dir, end))),
            DamageKind::Misplaced,
            end,
            false,
        ),
        ("swapped", Box::new(|dir| swap(dir, 1, 2)), DamageKind::Misplaced, 1, true),
        ("foreign", Box::new(|dir| copy((foreign, 2), (dir, 2))), DamageKind::Foreign, 2, true),
        (
            "foreign behind",
            Box::new(|dir| copy((foreign, 1), (dir, end))),
            DamageKind::Foreign,
            end,
            false,
        ),
        ("a text", Box::new(|dir| scribble(dir, 2)), DamageKind::Header, 2, true),
        ("a text behind", Box::new(|dir| scribble(dir, end)), DamageKind::Header, end, false),
    ];
    for (case, change, kind, number, opens) in cases {
        let dir = dir();
        write_dir(dir.path(), &read_dir(sample.path()));
        change(dir.path());
        let before = content(dir.path());
        let found = checked(dir.path()).expect("readable");
        let told = |damages: &[amberlog::verify::Damage]| {
            damages.iter().any(|damage| {
                damage.kind == kind
                    && damage.place.segment == Some(number)
                    && dir.path().join(&damage.place.path) == segment(dir.path(), number)
            })
        };
        assert!(told(&found.damages), "{case}: {:#?}", found.damages);
        assert!(told(&ReadView::open(dir.path()).expect("readable").1.damages), "{case}");
        match options().open(dir.path()) {
            Ok(log) => {
                assert!(
                    opens && told(&log.recovery_report().damages),
                    "{case}: {:?}",
                    log.recovery_report()
                );
                log.close().expect("closes");
            }
            Err(error) => {
                assert!(
                    !opens && matches!(error.kind(), ErrorKind::Corrupt { .. }),
                    "{case}: {error}"
                );
                assert_eq!(
                    error.place().and_then(|place| place.segment),
                    Some(number),
                    "{case}: {error}"
                );
            }
        }
        assert!(content(dir.path()) == before, "{case}: looking, and refusing, changed something");
    }
}

fn scribble(dir: &Path, number: u32) {
    fs::write(segment(dir, number), [b'x'; 9000]).expect("written");
}

fn remove(dir: &Path, number: u32) {
    fs::remove_file(segment(dir, number)).expect("removed");
}

fn swap(dir: &Path, one: u32, other: u32) {
    let bytes = [one, other].map(|number| fs::read(segment(dir, number)).expect("readable"));
    fs::write(segment(dir, one), &bytes[1]).expect("written");
    fs::write(segment(dir, other), &bytes[0]).expect("written");
}

/// Every way to open, verify and repair what is at `path`.
fn tries(path: &Path) -> [(&'static str, Result<(), Error>); 4] {
    [
        ("open", options().open(path).map(drop)),
        ("verify", checked(path).map(drop)),
        ("read view", ReadView::open(path).map(drop)),
        ("repair", amberlog::verify::repair(path).map(drop)),
    ]
}

#[test]
fn p15_the_segment_of_a_newer_version_is_named_and_nothing_is_touched() {
    let dir = dir();
    write(dir.path());
    let path = segment(dir.path(), 2);
    let mut bytes = fs::read(&path).expect("readable");
    for at in [0, 2048] {
        bytes[at + 8] = 9;
        let crc = crc32fast::hash(&bytes[at..at + 76]);
        bytes[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, bytes).expect("written");
    let before = content(dir.path());
    for (how, outcome) in tries(dir.path()) {
        let error = outcome.expect_err(how);
        assert_eq!(
            *error.kind(),
            ErrorKind::UnsupportedVersion { found: 9, supported: 1 },
            "{how}"
        );
        assert_eq!(error.place().and_then(|place| place.segment), Some(2), "{how}: {error}");
    }
    assert!(content(dir.path()) == before);
}

/// F34: a plain file in the place of the log's directory, or of one in it.
#[test]
fn f34_a_plain_file_in_the_way_is_an_error_with_a_place_and_stays() {
    let dir = dir();
    let plain = dir.path().join("plain");
    fs::write(&plain, b"not a log").expect("written");
    for (how, outcome) in tries(&plain) {
        let error = outcome.expect_err(how);
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NoLog), "{how}: {error}");
    }
    assert_eq!(fs::read(&plain).expect("readable"), b"not a log");
    let nothing = dir.path().join("nothing");
    for (how, outcome) in tries(&nothing).into_iter().skip(1) {
        assert_eq!(*outcome.expect_err(how).kind(), ErrorKind::NoLog, "{how}");
    }
    assert!(!nothing.exists(), "P1");
    let log = dir.path().join("log");
    fs::create_dir(&log).expect("made");
    fs::write(log.join("segments"), b"not a directory").expect("written");
    let before = read_dir(&log);
    for (how, outcome) in tries(&log) {
        let error = outcome.expect_err(how);
        assert_eq!(*error.kind(), ErrorKind::Io, "{how}: {error}");
        assert_eq!(error.place().expect("it has a place").path, Path::new("segments"), "{how}");
    }
    assert!(content(&log) == before);
    fs::remove_file(log.join("segments")).expect("removed");
    fs::create_dir(log.join("LOCK2")).expect("made");
    fs::remove_file(log.join("LOCK")).ok();
    fs::rename(log.join("LOCK2"), log.join("LOCK")).expect("renamed");
    let error = options().open(&log).expect_err("a directory cannot be locked");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.place().expect("it has a place").path, Path::new("LOCK"));
}

/// Makes a directory and what is in it read-only for as long as it lives, for root too.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(path: &'a Path) -> Option<Self> {
        let guard = Self(path);
        guard.set(0o500, "+i");
        let probe = path.join("probe");
        match fs::write(&probe, b"") {
            Err(_) => Some(guard),
            Ok(()) => {
                fs::remove_file(probe).expect("removed");
                println!("SKIPPED: nothing makes a directory read-only for this user here");
                None
            }
        }
    }

    /// Modes are for others than root; the immutable flag is for root, where the file system has it.
    fn set(&self, mode: u32, flag: &str) {
        let nobody_listens = || Stdio::null();
        let chattr = |flag: &str| {
            let mut chattr = Command::new("chattr");
            chattr.args(["-R", flag]).arg(self.0).stdout(nobody_listens()).stderr(nobody_listens());
            let _ = chattr.status();
        };
        if flag == "-i" {
            chattr(flag);
        }
        fs::set_permissions(self.0, fs::Permissions::from_mode(mode)).expect("changed");
        if flag == "+i" {
            chattr(flag);
        }
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        self.set(0o700, "-i");
    }
}

/// F34: a directory that cannot be written is read, refuses commits by type, and loses nothing.
#[test]
fn f34_a_read_only_directory_is_readable_and_refuses_to_be_written() {
    let dir = dir();
    let path = dir.path().join("log");
    let id = write(&path);
    fs::set_permissions(path.join("LOCK"), fs::Permissions::from_mode(0o400)).expect("changed");
    let before = read_dir(&path);
    if let Some(_guard) = ReadOnly::new(&path) {
        is_whole(&ReadView::open(&path).expect("readable").0, id, 40);
        assert!(checked(&path).expect("readable").is_sound());
        let error = options().open(&path).expect_err("not for writing");
        assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
        assert_eq!(error.place().expect("it has a place").path, Path::new("LOCK"));
        assert!(
            error.to_string().contains("not permitted") || error.to_string().contains("denied")
        );
        let log = options().open(path.join("fresh")).expect("nothing is there, nothing is done");
        let mut stream = log.create_stream().expect("a stream");
        stream.append(b"event").expect("room");
        let error = stream.commit().wait().expect_err("nothing can be made here");
        assert_eq!((error.kind(), stream.buffered()), (&ErrorKind::Io, 1), "{error}");
        assert!(error.place().is_some());
    }
    assert!(read_dir(&path) == before);
    fs::set_permissions(path.join("LOCK"), fs::Permissions::from_mode(0o600)).expect("changed");
    goes_on(&path, id, 40);
}

// ---------------------------------------------------------------- where it lies, and when

/// F34: symbolic links, relative paths, blanks, parts that are not UTF-8, names of 255 bytes.
#[test]
fn f34_a_log_may_lie_anywhere() {
    let dir = dir();
    let home = env::current_dir().expect("somewhere");
    let up: PathBuf = home.components().skip(1).map(|_| "..").collect();
    let real = dir.path().join("real");
    fs::create_dir(&real).expect("made");
    symlink(&real, dir.path().join("link")).expect("made");
    let relative = up.join(dir.path().strip_prefix("/").expect("absolute")).join("relative/log");
    assert!(relative.is_relative());
    let paths = [
        dir.path().join("link/log"),
        relative,
        dir.path().join(" two  blanks /a\nline/"),
        dir.path().join(OsStr::from_bytes(b"no \xff\xfe text")),
        dir.path().join("x".repeat(255)),
        dir.path().join("real/../real/./dots"),
    ];
    for path in paths {
        let id = write(&path);
        goes_on(&path, id, 40);
        let real = fs::canonicalize(&path).expect("there");
        goes_on(&real, id, 41);
        // The log itself behind a link; one that leads nowhere is no log, and is no place for one.
        let link = dir.path().join("to it");
        symlink(&real, &link).expect("made");
        goes_on(&link, id, 42);
        fs::remove_file(&link).expect("removed");
    }
    let nowhere = dir.path().join("nowhere");
    symlink(dir.path().join("not there"), &nowhere).expect("made");
    let log = options().open(&nowhere).expect("nothing is there yet");
    let mut stream = log.create_stream().expect("a stream");
    stream.append(b"event").expect("room");
    let error = stream.commit().wait().expect_err("a link is in the way");
    assert_eq!((error.kind(), stream.buffered()), (&ErrorKind::Io, 1), "{error}");
}

/// F36: a log is its bytes: copied, with holes where the zeros are or as of long ago, it opens the same.
#[test]
fn f36_a_copy_opens_the_same_with_holes_too() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..40_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    // As it lies while a writer has it, with spares; and after a clean end.
    let open = read_dir(dir.path());
    drop(stream);
    log.close().expect("closes");
    for files in [open, read_dir(dir.path())] {
        let copies = [TempDir::new(), TempDir::new()].map(|copy| copy.expect("a directory"));
        let [whole, sparse] = [copies[0].path(), copies[1].path()];
        write_dir(whole, &files);
        write_sparsely(sparse, &files);
        for copy in [whole, sparse] {
            assert!(checked(copy).expect("readable").is_sound());
            is_whole(&ReadView::open(copy).expect("readable").0, id, 40);
            goes_on(copy, id, 40);
            assert!(checked(copy).expect("readable").is_sound());
        }
    }
}

fn write_sparsely(dir: &Path, files: &Files) {
    use std::os::unix::fs::FileExt;
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        let file = fs::File::create(path).expect("made");
        file.set_len(bytes.len() as u64).expect("long enough");
        for (at, block) in bytes.chunks(512).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, at as u64 * 512).expect("written");
            }
        }
    }
}

/// Gives the commits of a segment, and its header, the times that a clock showed that jumped: after each commit
/// to somewhere else.
fn change_times(dir: &Path, number: u32) -> usize {
    let path = segment(dir, number);
    let mut bytes = fs::read(&path).expect("readable");
    let word =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
    let salt = word(&bytes, 72);
    let checked = |seed: u32, parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().to_le_bytes()
    };
    let mut changed = 0;
    for record in RecordDump::open(dir).expect("readable") {
        let record = record.expect("readable");
        let offset = record.offset;
        let RecordBody::Commit { bytes: length, position, .. } = record.body else { continue };
        if record.segment != number {
            continue;
        }
        let (at, end) = (offset as usize, (offset + length) as usize);
        let years = [3000, 1971, 0, 2400, 1999][position.get() as usize % 5];
        bytes[at + 16..at + 24].copy_from_slice(&(years * 31_556_952_000_000_u64).to_le_bytes());
        let header = checked(salt, &[&bytes[at..at + 36]]);
        bytes[at + 36..at + 40].copy_from_slice(&header);
        let batches = at + 40..at + 40 + 48 * word(&bytes, at + 32) as usize;
        for batch in bytes[batches].chunks_exact_mut(48) {
            let crc = checked(u32::from_le_bytes(header), &[&batch[..44]]);
            batch[44..].copy_from_slice(&crc);
        }
        bytes[end - 4..end].copy_from_slice(&header.map(|byte| !byte));
        changed += 1;
    }
    for at in [0, 2048] {
        bytes[at + 64..at + 72].copy_from_slice(&u64::MAX.to_le_bytes());
        let crc = crc32fast::hash(&bytes[at..at + 76]);
        bytes[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, bytes).expect("written");
    changed
}

/// F35, P11: the clock orders nothing. A log of which every commit has a time of its own choosing is sound, is
/// read in the order in which it was written, and goes on.
#[test]
fn p11_f35_a_clock_that_jumps_orders_nothing() {
    let dir = dir();
    let id = write(dir.path());
    let segments = checked(dir.path()).expect("readable").segments.len() as u32;
    let changed: usize = (1..=segments).map(|number| change_times(dir.path(), number)).sum();
    assert_eq!(changed, 40);
    let found = checked(dir.path()).expect("readable");
    assert!(found.is_sound() && found.closed_cleanly, "{found:?}");
    goes_on(dir.path(), id, 40);
    goes_on(dir.path(), id, 41);
    let (view, _) = ReadView::open(dir.path()).expect("readable");
    let all = view.all_events(Position::START).expect("in range");
    let positions = all.map(|event| event.expect("whole").position().expect("durable").get());
    assert!(positions.eq(1..=42));
    let expire = checked(dir.path()).expect("readable");
    assert!(expire.is_sound() && expire.position == Position::from(42), "nothing expired");
}
