//! The command line, run as a program, with a folder of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tempfile::TempDir;

/// Outcome of a run.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?}\nout: {}\nerr: {}", self.code, self.text(), self.err)
    }
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Every line of the output as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A folder of its own for each test, with a log in it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("files")).expect("a folder");
        Self { dir }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.files().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Runs the program; `LOG` and `FILES` stand for the log and the folder of files.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // It may end before it has read everything.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("the program ends");
        feeder.join().expect("fed");
        Ran {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs the program on a pseudo-terminal that types `keys`; `out` is all that it shows.
    pub(crate) fn run_on_terminal(&self, args: &[&str], keys: &str) -> Ran {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("ours");
        let name = ptsname(&terminal, Vec::new()).expect("named");
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let side = || File::options().read(true).write(true).open(name).expect("opens");
        let mut child = self
            .command(args)
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the program starts");
        let mut terminal = File::from(terminal);
        terminal.write_all(keys.as_bytes()).expect("typed");
        let mut out = Vec::new();
        // Once the last process has closed the terminal, reading it fails.
        let _ = terminal.read_to_end(&mut out);
        let code = child.wait().expect("the program ends").code();
        Ran { code, out, err: String::new() }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amberlog"));
        for arg in args {
            match *arg {
                "LOG" => command.arg(self.log()),
                "FILES" => command.arg(self.files()),
                other => command.arg(other),
            };
        }
        command
    }

    #[track_caller]
    pub(crate) fn cat_is(&self, stream: &str, bytes: &[u8]) {
        let ran = self.run(&["cat", "LOG", stream]).ends_with(0);
        assert!(ran.out == bytes, "{stream}: {:?}", String::from_utf8_lossy(&ran.out));
    }

    /// Every file of the log and its bytes, but for the lock, which names its last holder.
    pub(crate) fn on_disk(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        read_tree(&self.log(), &mut all);
        all
    }

    pub(crate) fn without_lock(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = self.on_disk();
        all.retain(|path, _| path.file_name().is_some_and(|name| name != "LOCK"));
        all
    }
}

pub(crate) fn read_tree(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_tree(&path, into);
        } else {
            let bytes = fs::read(&path).expect("a file");
            into.insert(path, bytes);
        }
    }
}

pub(crate) fn numbers(from: u64, to: u64) -> Vec<u8> {
    let lines: Vec<String> = (from..to).map(|n| format!("{n}\n")).collect();
    lines.concat().into_bytes()
}
