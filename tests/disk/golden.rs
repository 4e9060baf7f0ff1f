//! Does what an earlier version wrote still open, and hold what it held (P15)?
//!
//! `tests/golden/v1/` has logs that must open for ever: `closed` was closed cleanly, `killed` was copied while it
//! was written, `lives` has every sort of batch. Beside each, `.txt` says what it holds.
//! `AMBERLOG_GOLDEN_WRITE=DIR` makes new ones; those that are there are never made again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::verified::checked;
use amberlog::typed::CodecId;
use amberlog::{
    CommitId, CommitOptions, Durability, ErrorKind, EventKind, Log, NewEvent, Order, Overflow,
    Position, Query, ReadView, StreamOptions, StreamState,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("segments")).expect("a directory");
    for entry in fs::read_dir(from.join("segments")).expect("segments") {
        let entry = entry.expect("a file");
        match fs::copy(entry.path(), to.join("segments").join(entry.file_name())) {
            // The next segment got its name in this moment: the log is being written.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.expect("copied")),
        }
    }
}

/// Describes the content of a log.
fn tell(path: &Path) -> String {
    let (view, _) = ReadView::open(path).expect("opens");
    let mut text = format!("position {}\n", view.position());
    for info in view.streams() {
        let _ = writeln!(text, "stream {} {:?} head {}", info.id, info.name, info.head);
        for event in view.events(info.id).expect("known") {
            let event = event.expect("sound");
            let payload = String::from_utf8_lossy(event.payload()).into_owned();
            let _ = writeln!(
                text,
                "{} at {:?} kind {} schema {} codec {} time {} dropped {} {payload:?}",
                event.seq(),
                event.position().map(Position::get),
                event.kind().0,
                event.schema_version(),
                event.codec().0,
                event.time().as_micros(),
                event.dropped_before(),
            );
        }
    }
    text
}

/// Names, gaps, codecs, schema versions, several streams in a commit, several segments, an event larger than a segment.
fn write(path: &Path) -> Log {
    let log = Log::options()
        .segment_bytes_first(16 << 10)
        .segment_bytes_max(16 << 10)
        .open(path)
        .expect("opens");
    let mut named =
        log.create_stream_with(&StreamOptions::new().name("Grüße, 世界")).expect("a stream");
    let mut plain = log.create_stream().expect("a stream");
    let ring = StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(200);
    let mut recorder = log.create_stream_with(&ring).expect("a stream");
    for n in 0..60_u16 {
        let json = NewEvent::new(EventKind(n), format!("{{\"n\":{n}}}")).codec(CodecId::JSON);
        named.append(json.schema_version(n as u8 % 4)).expect("room");
        plain.append("x".repeat(usize::from(n) * 13)).expect("room");
        recorder.append(n.to_string()).expect("always room");
        let os = CommitOptions::new().durability(Durability::Os);
        match n % 20 {
            3 => drop(named.commit().wait().expect("committed")),
            7 => drop(plain.commit_with(os).wait().expect("committed")),
            13 => drop(log.commit_all([&mut named, &mut plain]).wait().expect("committed")),
            19 => drop(recorder.commit().wait().expect("committed")),
            _ => {}
        }
    }
    plain.append("y".repeat(20_000)).expect("room");
    log.commit_all([&mut named, &mut plain, &mut recorder]).wait().expect("committed");
    log
}

#[test]
fn p15_logs_of_version_1_open_and_hold_what_they_held() {
    for name in ["closed", "killed"] {
        let path = golden(name);
        let is = fs::read_to_string(golden(&format!("{name}.txt"))).expect("what it holds");
        assert_eq!(tell(&path), is, "{name}");
        let found = checked(&path).expect("readable");
        assert!(found.is_sound(), "{name}: {found:?}");
        assert_eq!(found.closed_cleanly, name == "closed");
        // And the log goes on.
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(&path, dir.path());
        let log = Log::open(dir.path()).expect("opens for writing");
        let id = log.read_view().find("Grüße, 世界").expect("its name");
        let mut stream = log.open_stream(id).expect("known");
        stream.append("more").expect("room");
        stream.commit().wait().expect("committed");
        drop(stream);
        log.close().expect("closes");
        let now = tell(dir.path());
        assert!(now.contains("\"more\"") && now.len() > is.len());
        assert!(checked(dir.path()).expect("readable").is_sound());
    }
}

/// Writes the golden log of stream lives: labels, data, states, trims, forks, rewinds, commit ids; sealed and not.
fn write_lives(path: &Path) -> Log {
    let log = Log::options()
        .segment_bytes_first(16 << 10)
        .segment_bytes_max(16 << 10)
        .open(path)
        .expect("opens");
    let mut streams = Vec::new();
    for name in ["kept", "archived", "deleted", "trimmed", "renamed"] {
        let mut stream =
            log.create_stream_with(&StreamOptions::new().name(name)).expect("a stream");
        stream.set_label("was", name).expect("fine");
        stream.set_data(name.as_bytes()).expect("fine");
        for n in 0..20 {
            stream.append(format!("{name} {n} {}", "x".repeat(n * 10))).expect("room");
        }
        let id = CommitId::from(streams.len() as u128);
        stream.commit_with(CommitOptions::new().id(id)).wait().expect("committed");
        streams.push(stream);
    }
    let mut fork = streams[2].fork_at(7).expect("forked");
    fork.append("a fork goes on").expect("room");
    fork.commit().wait().expect("committed");
    let mut fork = fork.fork_at(3).expect("forked");
    fork.rename("a fork of a fork").expect("free");
    fork.commit().wait().expect("committed");
    streams[1].archive().wait().expect("archived");
    streams[2].delete().wait().expect("deleted");
    streams[3].trim(12).expect("staged");
    streams[3].commit().wait().expect("trimmed");
    streams[4].rename("another name").expect("free");
    streams[4].remove_label("was").expect("it was there");
    for to in [15, 5] {
        streams[0].rewind(to).expect("rewound");
        streams[0].append("another way").expect("room");
        log.commit_all([&mut streams[0]]).wait().expect("committed");
        streams[4].append("y".repeat(5_000)).expect("room");
        streams[4].commit().wait().expect("committed");
    }
    log
}

/// Describes the streams of a log.
fn tell_lives(path: &Path) -> String {
    let (view, _) = ReadView::open(path).expect("opens");
    let every = Query::new()
        .state(StreamState::Active)
        .state(StreamState::Archived)
        .state(StreamState::Deleted)
        .order(Order::Committed);
    let mut text = String::new();
    for info in view.list(&every).expect("listed").streams {
        let data = info.data.map(|data| String::from_utf8_lossy(&data).into_owned());
        let _ = writeln!(
            text,
            "stream {} {:?} {:?} {:?} labels {:?} data {data:?} parent {:?} start {} head {}",
            info.id,
            info.state,
            info.name,
            info.generation,
            info.labels,
            info.parent,
            info.start,
            info.head,
        );
        let events = view.events(info.id).map(|events| {
            events.map(|event| event.expect("sound").generation()).collect::<Vec<_>>()
        });
        let _ = writeln!(text, "generations {:?}", events.ok());
    }
    text
}

#[test]
fn p15_lives_of_version_1_are_what_they_were() {
    let path = golden("lives");
    let is = fs::read_to_string(golden("lives.txt")).expect("what it holds");
    assert_eq!(tell(&path) + &tell_lives(&path), is);
    let found = checked(&path).expect("readable");
    assert!(found.is_sound() && found.segments.len() > 2, "{found:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy(&path, dir.path());
    let log = Log::open(dir.path()).expect("opens for writing");
    let id = log.read_view().find("kept").expect("its name");
    let mut stream = log.open_stream(id).expect("known");
    assert_eq!(stream.info().generation, 2);
    stream.append("twice").expect("room");
    let again = stream.commit_with(CommitOptions::new().id(CommitId::from(0))).wait();
    let again = again.expect_err("made before");
    assert!(matches!(again.kind(), ErrorKind::AlreadyCommitted { .. }), "{again}");
    stream.commit().wait().expect("committed");
}

#[test]
fn golden_logs_are_made_on_demand() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let to = std::env::var_os("AMBERLOG_GOLDEN_WRITE").map(PathBuf::from);
    let to = to.unwrap_or_else(|| dir.path().join("golden"));
    assert!(!to.exists(), "{} is there already: golden logs are never made again", to.display());
    let lives = dir.path().join("lives");
    write_lives(&lives).close().expect("closes");
    copy(&lives, &to.join("lives"));
    fs::write(to.join("lives.txt"), tell(&lives) + &tell_lives(&lives)).expect("written");
    let work = dir.path().join("log");
    let log = write(&work);
    copy(&work, &to.join("killed"));
    log.close().expect("closes");
    copy(&work, &to.join("closed"));
    for name in ["closed", "killed"] {
        fs::write(to.join(format!("{name}.txt")), tell(&to.join(name))).expect("written");
    }
    // A copy of a log that is being written holds what was acknowledged.
    let [closed, killed] =
        ["closed", "killed"].map(|name| fs::read_to_string(to.join(format!("{name}.txt"))));
    assert_eq!(closed.expect("written"), killed.expect("written"));
}
