//! Does a log live within the limits that the system sets to its process?
//!
//! P5, P7; F45, F49. A limit belongs to a whole process, so each test runs its part in a child: this test binary once more.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

use crate::support;
use amberlog::options::{ReadOptions, Reads};
use amberlog::{ErrorKind, Log, ReadView, Stream, StreamId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PART: &str = "AMBERLOG_LIMITS";

/// Does nothing, unless this process is a child of the tests below.
#[test]
fn part() {
    let Ok(text) = env::var(PART) else { return };
    let (name, root) = text.split_once(';').expect("two words");
    let root = Path::new(root);
    let dir = root.join("log");
    match name {
        "long files" => long_files(&dir),
        "lowered" => lowered(&dir),
        #[cfg(amberlog_sabotage)]
        "lowered, unseen" => {
            let _broken = amberlog::sabotage(amberlog::Sabotage::KeepLimit);
            lowered(&dir);
        }
        #[cfg(feature = "sim")]
        "many segments" => many_segments(root, &dir),
        #[cfg(all(feature = "sim", target_os = "linux"))]
        "no descriptors" => no_descriptors(&dir),
        #[cfg(feature = "sim")]
        "many readers" => many_readers(&dir),
        #[cfg(all(feature = "sim", amberlog_sabotage))]
        "many open segments" => {
            let _broken = amberlog::sabotage(amberlog::Sabotage::CloseNothing);
            many_segments(root, &dir);
        }
        other => panic!("no part is called {other:?}"),
    }
    fs::write(root.join("done"), b"").expect("written");
}

/// Runs a part in a process of its own, which has to live to its end.
fn in_child(name: &str) {
    let root = tempfile::tempdir().expect("writable");
    let child = ended(name, root.path());
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}: {said}", child.status);
    assert!(root.path().join("done").exists(), "the part came to its end");
}

/// Runs a part in a process of its own, to whatever end.
fn ended(name: &str, root: &Path) -> Output {
    let child = Command::new(env::current_exe().expect("this binary"))
        .args(["limits::part", "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, format!("{name};{}", root.display()))
        .output();
    child.expect("a child")
}

/// Lowers, or raises again, the soft limit of this process.
fn limit(which: Resource, to: u64) {
    let Rlimit { maximum, .. } = getrlimit(which);
    setrlimit(which, Rlimit { current: Some(to), maximum }).expect("below the hard limit");
}

fn fill(stream: &mut Stream) {
    for n in 0..8_u8 {
        stream.append([n; 10_000]).expect("room");
    }
}

/// Commits until that fails for the limit as on a full disk, and returns how many events it committed before.
fn until_refused(stream: &mut Stream) -> usize {
    let mut committed = 0;
    let error = loop {
        fill(stream);
        match stream.commit().wait() {
            Ok(_) => committed += 8,
            Err(error) => break error,
        }
    };
    assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "what to do about it: {error}");
    assert_eq!(stream.buffered(), 8, "P5: they are back");
    committed
}

/// A commit that needs a longer file than the process may write fails as on a full disk: the kernel would end the
/// process by `SIGXFSZ`.
fn long_files(dir: &Path) {
    limit(Resource::Fsize, 300_000);
    let log = Log::open(dir).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    let committed = until_refused(&mut stream);
    assert!(committed > 0, "a segment of 256 KiB is below the limit");
    limit(Resource::Fsize, 4_000_000);
    stream.commit().wait().expect("commits work again");
    for _ in 0..12 {
        fill(&mut stream);
        stream.commit().wait().expect("below the limit");
    }
    drop(stream);
    log.close().expect("closes");
    // A log that is longer than this process may write files: read, opened, and not written.
    limit(Resource::Fsize, 1_000);
    let all = committed + 13 * 8;
    let (view, recovery) = ReadView::open(dir).expect("opens");
    assert!(recovery.is_sound(), "{:?}", recovery.damages);
    assert_eq!(view.events(id).expect("known").filter(Result::is_ok).count(), all);
    let log = Log::open(dir).expect("opens for writing");
    let mut stream = log.open_stream(id).expect("known");
    stream.append("more").expect("room");
    let error = stream.commit().wait().expect_err("no byte can be written there");
    assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(stream.buffered(), 1);
    limit(Resource::Fsize, 4_000_000);
    stream.commit().wait().expect("commits work again");
    assert_eq!(log.read_view().events(id).expect("known").filter(Result::is_ok).count(), all + 1);
}

#[test]
fn p5_f45_a_limit_on_the_length_of_files_is_a_full_disk_and_not_a_death() {
    in_child("long files");
}

/// A limit that is lowered while the next segment lies ready counts once that segment is begun, and one that is raised
/// again counts at once.
fn lowered(dir: &Path) {
    let log = Log::open(dir).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fill(&mut stream);
    stream.commit().wait().expect("no limit");
    let segments = || fs::read_dir(dir.join("segments")).expect("there").flatten();
    let named = |file: fs::DirEntry| file.file_name().to_string_lossy().ends_with(".seg");
    support::waiting::wait_until("a segment that lies ready", || {
        segments().filter_map(|file| named(file).then_some(())).count() == 2
    });
    // The first segment is shorter, the second is longer.
    limit(Resource::Fsize, 300_000);
    assert_eq!(until_refused(&mut stream), 16);
    limit(Resource::Fsize, 4_000_000);
    stream.commit().wait().expect("commits work again");
    assert_eq!(log.read_view().events(stream.id()).expect("known").count(), 32);
}

#[test]
fn p5_f45_a_limit_that_is_lowered_later_is_seen_when_the_next_segment_is_begun() {
    in_child("lowered");
}

/// F40: without that look the process dies.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_limit_that_is_not_asked_for_again_is_noticed() {
    use std::os::unix::process::ExitStatusExt;

    let root = tempfile::tempdir().expect("writable");
    let child = ended("lowered, unseen", root.path());
    assert_eq!(
        child.status.signal(),
        Some(rustix::process::Signal::XFSZ.as_raw()),
        "nobody noticed"
    );
}

/// Number of descriptors that are open in this process, and of mappings of segments.
#[cfg(target_os = "linux")]
fn open_now() -> (usize, usize) {
    let files = fs::read_dir("/proc/self/fd").expect("there").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("there");
    (files, maps.lines().filter(|line| line.contains(".seg")).count())
}

/// Returns the content of a log's streams, read forwards in a read view.
fn content(view: &ReadView) -> BTreeMap<StreamId, Vec<Vec<u8>>> {
    let mut content = BTreeMap::new();
    for info in view.streams() {
        let events = view.events(info.id).expect("known").map(|event| event.expect("whole"));
        content.insert(info.id, events.map(|event| event.payload().to_vec()).collect());
    }
    content
}

/// With 64 descriptors everything is done that can be done with a log of 2,000 segments; of each stream every fifth
/// segment holds a part.
#[cfg(all(feature = "sim", target_os = "linux"))]
fn many_segments(root: &Path, dir: &Path) {
    let known = support::many_segments(dir, 2_000);
    limit(Resource::Nofile, 64);
    assert!(amberlog::verify::verify_quick(dir).expect("looked at").is_sound());
    for (reads, most) in [(Reads::Mapped, 8), (Reads::Mapped, 256), (Reads::Positional, 256)] {
        let how = ReadOptions::new().reads(reads).open_segments_max(most);
        let (view, recovery) = how.open(dir).expect("opens");
        assert!(recovery.is_sound() && content(&view) == known, "{reads:?}, {most}");
        bounded(reads, most, 0);
        let events = || view.all_events(amberlog::Position::START).expect("there");
        assert_eq!(events().filter(Result::is_ok).count(), 4_000);
        bounded(reads, most, 0);
        // What a reader holds stays, whatever is closed to make room.
        let step = if reads == Reads::Mapped { 40 } else { 400 };
        let held: Vec<_> = events().step_by(step).map(|event| event.expect("whole")).collect();
        assert!(content(&view) == known);
        bounded(reads, most, held.len());
        for event in held {
            let seq = event.seq().get() as usize;
            assert_eq!(event.payload(), known[&event.stream()][seq]);
        }
    }
    for item in amberlog::verify::RecordDump::open(dir).expect("a log") {
        item.expect("read");
    }
    let log = Log::options().open_segments_max(8).open(dir).expect("opens");
    let before = log.read_view();
    assert!(content(&before) == known);
    log.backup(root.join("backup")).expect("backed up");
    #[cfg(feature = "json")]
    assert_eq!(before.export_jsonl(std::io::sink()).expect("exported").events, 4_000);
    let gone = *known.keys().next().expect("five");
    log.open_stream(gone).expect("known").delete().wait().expect("deleted");
    let report = log.compact(amberlog::maintenance::CompactOptions::new()).expect("compacted");
    assert!(report.refused.is_empty() && !report.runs.is_empty(), "{:?}", report.refused);
    assert!(content(&before) == known, "P7: what a read view shows stays, and is opened by name");
    bounded(Reads::Mapped, 8, 0);
    drop(before);
    let kept = fs::read_dir(dir.join("segments")).expect("there");
    let kept = kept
        .filter(|one| one.as_ref().expect("read").file_name().to_string_lossy().ends_with(".kept"));
    assert_eq!(kept.count(), 0, "nobody asks for them any more");
    log.close().expect("closes");
    amberlog::maintenance::backup(dir, root.join("closed")).expect("backed up");
    let repaired = amberlog::verify::repair(dir).expect("repaired");
    assert!(repaired.changed_nothing() && repaired.after.is_sound());
    for copy in ["backup", "closed"] {
        assert!(
            amberlog::verify::verify_quick(root.join(copy)).expect("looked at").is_sound(),
            "{copy}"
        );
    }
}

/// However large the log is, no more is open than was allowed, and what readers hold.
#[cfg(target_os = "linux")]
fn bounded(reads: Reads, most: usize, held: usize) {
    let (files, maps) = open_now();
    assert!(maps <= most + held, "{maps} mappings");
    assert!(reads == Reads::Positional || files < 24, "{files} descriptors");
    assert!(files < 24 + 64 / 4, "{files} descriptors");
}

#[cfg(all(feature = "sim", target_os = "linux"))]
#[test]
fn p7_f49_a_log_of_2_000_segments_lives_with_64_descriptors() {
    in_child("many segments");
}

/// The program uses up all descriptors while a view has segments open: the view closes some of them to open others.
#[cfg(all(feature = "sim", target_os = "linux"))]
fn no_descriptors(dir: &Path) {
    let known = support::many_segments(dir, 100);
    let how = ReadOptions::new().reads(Reads::Positional).open_segments_max(32);
    let (view, _) = how.open(dir).expect("opens");
    assert!(content(&view) == known);
    limit(Resource::Nofile, 128);
    let mut own = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        own.push(file);
    }
    assert!(own.len() > 32);
    assert!(content(&view) == known);
}

#[cfg(all(feature = "sim", target_os = "linux"))]
#[test]
fn p7_f49_a_view_reads_on_where_the_program_has_every_descriptor() {
    in_child("no descriptors");
}

/// Threads read more segments than may be open: each opens what the others close. Memory that is
/// freed too early ends the process here, or reads as damage.
#[cfg(feature = "sim")]
fn many_readers(dir: &Path) {
    let known: Vec<_> = support::many_segments(dir, 60).into_iter().collect();
    for reads in [Reads::Mapped, Reads::Positional] {
        let how = ReadOptions::new().reads(reads).open_segments_max(4);
        let (view, _) = how.open(dir).expect("opens");
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (view, known) = (&view, &known);
                scope.spawn(move || {
                    let mut rng = support::Rng::new(seed);
                    for _ in 0..5_000 {
                        let (id, events) = &known[rng.below(known.len() as u64) as usize];
                        let seq = rng.below(events.len() as u64);
                        let mut found = view.events(*id).expect("known").range(seq..=seq);
                        let event = found.next().expect("one").expect("whole");
                        assert_eq!(event.payload(), events[seq as usize]);
                    }
                });
            }
        });
    }
}

#[cfg(feature = "sim")]
#[test]
fn p7_p12_threads_read_more_segments_than_may_be_open() {
    in_child("many readers");
}

/// F49: a pool that closes nothing is noticed.
#[cfg(all(feature = "sim", target_os = "linux", amberlog_sabotage))]
#[test]
fn control_segments_that_stay_open_are_noticed() {
    let part = || in_child("many open segments");
    std::panic::catch_unwind(part).expect_err("more was open than was allowed");
}
