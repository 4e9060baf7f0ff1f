//! Does the tool keep what it was given, whatever stops it, and leave nothing half done under a
//! name that counts?

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use amberlog::{ErrorKind, Log};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::support::cli::{Bench, Ran, numbers};

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn end(child: Child) -> Ran {
    let output = child.wait_with_output().expect("the program ends");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    Ran { code: output.status.code(), out: output.stdout, err }
}

/// Gives a recording all of this, and waits until it has been read.
fn give(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().expect("piped").write_all(bytes).expect("it reads");
    let unread = |child: &Child| rustix::io::ioctl_fionread(child.stdin.as_ref().expect("piped"));
    while unread(child).expect("a pipe") > 0 {
        assert!(child.try_wait().expect("ours").is_none(), "it ended");
        std::thread::yield_now();
    }
}

#[test]
fn p2_p6_a_recording_that_is_stopped_commits_what_it_was_given_and_says_so() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        for every in [&[][..], &["--commit-every", "7"], &["--keep-last"]] {
            let bench = Bench::new();
            let record = [&["record", "LOG", "--name", "s", "--json"], every].concat();
            let mut child = start(bench.command(&record));
            give(&mut child, b"first\n");
            // Bytes in the pipe were given before the signal, and so was the unended line.
            let rest = [numbers(0, 5_000), b"half a l".to_vec()].concat();
            child.stdin.as_mut().expect("piped").write_all(&rest).expect("it reads");
            kill_process(pid(&child), signal).expect("it runs");
            // The producer keeps its end of the pipe open.
            let stdin = child.stdin.take();
            let ran = end(child).ends_with(0);
            drop(stdin);
            let summary = &ran.json()[0];
            assert_eq!((&summary["ended"], &summary["committed"]), (&name.into(), &5_002.into()));
            assert!(ran.err.contains(name), "{}", ran.err);
            bench.cat_is("s", &[b"first\n".to_vec(), rest].concat());
        }
    }
}

#[test]
fn p2_a_stopped_recording_commits_nothing_behind_the_last_match() {
    let bench = Bench::new();
    let mut child = start(bench.command(&["record", "LOG", "--name", "s", "--commit-on", "^5$"]));
    give(&mut child, &numbers(0, 9));
    kill_process(pid(&child), Signal::TERM).expect("it runs");
    let ran = end(child).ends_with(0);
    assert!(ran.err.contains("3 events not committed"), "{}", ran.err);
    bench.cat_is("s", &numbers(0, 6));
}

#[test]
fn p10_a_line_that_cannot_be_taken_costs_nothing_that_was_read_before_it() {
    let before = numbers(0, 100);
    let long = [vec![b'x'; (64 << 20) + 1], b"\n".to_vec()].concat();
    let large = [vec![b'x'; 20_000], b"\n".to_vec()].concat();
    for (what, line, ring) in [("longer than", &long, "100M"), ("--ring", &large, "10k")] {
        for every in [&[][..], &["--commit-every", "30"], &["--keep-last"]] {
            let bench = Bench::new();
            let record = [&["record", "LOG", "--name", "s", "--ring", ring], every].concat();
            let input = [&before[..], line, &numbers(100, 200)].concat();
            let ran = bench.run_with(&record, &input).ends_with(2);
            assert!(ran.err.contains(what), "{}", ran.err);
            bench.cat_is("s", &before);
        }
    }
    // Without --commit-on a full ring is committed early.
    let bench = Bench::new();
    let small = ["record", "LOG", "--name", "s", "--ring", "4k"];
    bench.run_with(&small, &numbers(0, 10_000)).ends_with(0);
    bench.cat_is("s", &numbers(0, 10_000));
}

/// Starts a recording under a limit on the length of files that no commit fits in, and returns its
/// first note.
fn on_a_full_disk(bench: &Bench, every: &[&str]) -> (Child, String) {
    let record = [&["record", "LOG", "--name", "s"], every].concat();
    let record = bench.command(&record);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -f 8; exec \"$@\"", "sh"]);
    limited.arg(record.get_program()).args(record.get_args());
    let mut child = start(limited);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&numbers(0, 1_000)).expect("it reads");
    drop(stdin);
    // The note says that it waits.
    let mut told = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    stderr.read_line(&mut told).expect("a line");
    child.stderr = Some(stderr.into_inner());
    (child, told)
}

#[test]
fn p5_f12_f45_a_recording_waits_for_space_and_loses_nothing() {
    for every in [&[][..], &["--commit-every", "100"]] {
        let bench = Bench::new();
        let (child, told) = on_a_full_disk(&bench, every);
        assert!(told.contains("no space left") && told.contains("waiting for space"), "{told}");
        let unlimited = Rlimit { current: None, maximum: None };
        prlimit(Some(pid(&child)), Resource::Fsize, unlimited).expect("it runs");
        let ran = end(child).ends_with(0);
        assert!(ran.err.contains("there is space again"), "{}", ran.err);
        bench.cat_is("s", &numbers(0, 1_000));
    }
    let bench = Bench::new();
    let (child, _) = on_a_full_disk(&bench, &[]);
    kill_process(pid(&child), Signal::TERM).expect("it runs");
    let ran = end(child).ends_with(2);
    assert!(ran.err.contains("1000 events not committed"), "{}", ran.err);
}

/// Names in a directory, without the known ones.
fn left_in(dir: &Path, known: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry"));
    let unknown = |name: &std::ffi::OsString| !known.iter().any(|known| name == *known);
    entries.map(|entry| entry.file_name()).filter(unknown).map(PathBuf::from).collect()
}

#[test]
fn an_export_that_is_stopped_leaves_no_file() {
    let bench = Bench::new();
    let lines = "a line of some length that takes its time on the way\n".repeat(400_000);
    bench.run_with(&["record", "LOG"], lines.as_bytes()).ends_with(0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("all.jsonl");
    let whole = bench.run(&["export", "LOG"]).ends_with(0).out;
    let mut stopped = 0;
    for attempt in 0..40 {
        let signal = [Signal::INT, Signal::TERM][attempt % 2];
        let mut command = bench.command(&["export", "LOG", "--output"]);
        command.arg(&path);
        let mut child = start(command);
        // The temporary file appears.
        while left_in(dir.path(), &[]).is_empty() {
            assert!(child.try_wait().expect("ours").is_none(), "it ended");
        }
        assert!(!path.exists() || fs::read(&path).expect("readable") == whole);
        kill_process(pid(&child), signal).expect("it runs, or is not waited for yet");
        let ran = end(child);
        if path.exists() {
            assert_eq!(fs::read(&path).expect("readable"), whole, "{ran:?}");
            fs::remove_file(&path).expect("there");
        } else {
            let ran = ran.ends_with(2);
            assert!(ran.err.contains("stopped by SIG"), "{}", ran.err);
            stopped += 1;
        }
        assert_eq!(left_in(dir.path(), &[]), Vec::<PathBuf>::new());
        if stopped >= 4 {
            break;
        }
    }
    assert!(stopped >= 4, "{stopped}");
    // A killed export leaves no file under the final name either.
    let mut command = bench.command(&["export", "LOG", "--output"]);
    command.arg(&path);
    let mut child = start(command);
    while left_in(dir.path(), &[]).is_empty() {}
    child.kill().expect("it runs");
    end(child);
    assert!(!path.exists() || fs::read(&path).expect("readable") == whole);
}

#[test]
fn nothing_is_written_into_the_directory_of_the_log() {
    let bench = Bench::new();
    bench.run_with(&["record", "LOG", "--name", "s"], &numbers(0, 10)).ends_with(0);
    let (log, top) = (bench.log(), bench.dir.path().to_owned());
    symlink(&log, top.join("link")).expect("a link");
    symlink(log.join("segments"), top.join("deep")).expect("a link");
    fs::create_dir(top.join("beside")).expect("a folder");
    let before = bench.without_lock();
    let inside = [
        log.clone(),
        log.join("x"),
        log.join("new/x"),
        log.join("segments/x"),
        log.join("none/../../files/x"),
        top.join("beside/../log/x"),
        top.join("link"),
        top.join("link/x"),
        top.join("link/new/and/new"),
        top.join("deep/x"),
        top.join("deep/../x"),
    ];
    for path in &inside {
        let target = path.to_str().expect("UTF-8");
        for verb in [&["backup", "LOG", target][..], &["export", "LOG", "-o", target]] {
            let ran = bench.run(verb).ends_with(2);
            assert!(ran.err.contains("log's own directory"), "{verb:?}: {}", ran.err);
        }
        let open = Log::open(&log).expect("opens");
        assert_eq!(*open.backup(path).expect_err("inside").kind(), ErrorKind::InsideLog);
        open.close().expect("closes");
        assert!(amberlog::maintenance::is_inside(&log, path).expect("looked at"), "{target}");
        assert_eq!(bench.without_lock(), before, "{target}");
    }
    // Relative paths count, too.
    let ran = bench.command(&["backup", ".", "x"]).current_dir(&log).output().expect("runs");
    assert_eq!(ran.status.code(), Some(2));
    assert_eq!(bench.without_lock(), before);
    let outside = [top.join("logs"), top.join("link/../backup"), top.join("beside/x")];
    for path in &outside {
        assert!(!amberlog::maintenance::is_inside(&log, path).expect("looked at"), "{path:?}");
        bench.run(&["backup", "LOG", path.to_str().expect("UTF-8")]).ends_with(0);
        let path = path.join("all.jsonl");
        bench.run(&["export", "LOG", "-o", path.to_str().expect("UTF-8")]).ends_with(0);
    }
    // A log without commits has no directory yet; a backup may not take its place.
    let fresh = Log::open(top.join("fresh")).expect("opens");
    let refused = fresh.backup(top.join("fresh/x")).expect_err("inside");
    assert_eq!(*refused.kind(), ErrorKind::InsideLog);
    assert!(!top.join("fresh").exists());
}
