//! Does a real file system that loses everything unsynced lose anything that was acknowledged?
//!
//! P3, P4, P5, P6, P7; F1, F2, F4, F8, F9, F12, F24, F25, F27, F30. The steps of `tests/power_cut.sh`, which
//! makes the file systems and calls this binary for each step; started in any other way it does nothing.
//! A cut is the `shutdown` ioctl of ext4, XFS and f2fs: from then on no write reaches the disk, and what was
//! not synced is gone after the next mount, for which the file system replays its journal.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{env, thread};

use crate::support::Rng;
use crate::support::verified::checked;
use crate::support::waiting::{let_chance_pass, wait_until};
use crate::support::writers::{self, Ack, Content, Mode, Model, fill, read_all, write};
use amberlog::{Commit, ErrorKind, Options, ReadView, Stream};

const STEP: &str = "AMBERLOG_POWER_CUT";
/// Exit code of the process when something promised is missing; the script checks it.
const EXIT_MISSING: i32 = 3;

/// One step, and where it works.
struct Step {
    mode: Mode,
    seed: u64,
    /// The log, on the file system that is cut.
    log: PathBuf,
    /// Record of the acknowledgements, on another disk.
    known: PathBuf,
}

/// Does nothing, unless the script asks for a step.
#[test]
fn step() {
    let Ok(text) = env::var(STEP) else { return };
    let mut words = text.splitn(5, ';');
    let mut word = || words.next().expect("five words");
    let name = word();
    let mode = Mode::parse(word());
    let seed = word().parse().expect("a number");
    let step = Step { mode, seed, log: PathBuf::from(word()).join("log"), known: word().into() };
    match name {
        "write" => step.write(),
        "life" => step.life(),
        "check" => step.check(),
        "full" => step.full(),
        other => panic!("no step is called {other:?}"),
    }
}

/// No write reaches the file system at `path` any more, until it is mounted again. The journal's last
/// transactions may still get there, as they may from a disk's own cache. False: it cannot be cut.
fn cut_power(path: &Path, rng: &mut Rng) -> bool {
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    const LOG_FLUSH: u32 = 1;
    const NO_LOG_FLUSH: u32 = 2;
    let how = if rng.one_in(4) { LOG_FLUSH } else { NO_LOG_FLUSH };
    let dir = File::open(path).expect("the directory");
    // SAFETY: this request reads one 32-bit number and writes nothing.
    #[allow(unsafe_code, reason = "the request and the type of its argument have to be believed")]
    let done =
        unsafe { rustix::ioctl::ioctl(&dir, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(how)) };
    if done == Err(rustix::io::Errno::NOTTY) {
        return false;
    }
    done.expect("only root may");
    true
}

impl Step {
    fn mount(&self) -> &Path {
        self.log.parent().expect("the mount point")
    }

    /// Small segments, to cut between two of them; or large ones, where more is unsynced.
    fn options(&self) -> Options {
        let large = self.mode != Mode::Honest || self.seed.is_multiple_of(2);
        let options = writers::options();
        if large {
            options.segment_bytes_first(1 << 20).segment_bytes_max(1 << 20)
        } else {
            options
        }
    }

    fn rng(&self) -> Rng {
        Rng::new(self.seed)
    }

    /// Writes until the disk is gone, or the process is killed.
    fn write(&self) {
        let log = self.options().open(&self.log).expect("opens");
        let before = log.read_view().position();
        write(&log, self.mode, self.seed, |error| {
            if !matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned) {
                eprintln!("a commit failed: {error}");
            }
        });
        let wrote = log.read_view().position() > before;
        if wrote && log.close().is_ok() {
            eprintln!("F8: closing went well on a disk that is gone");
        }
    }

    /// One life of a writer, on another process: it writes for a while, then the power is cut.
    fn life(&self) {
        let mut rng = self.rng();
        let text = format!(
            "write;{};{};{};{}",
            self.mode.as_str(),
            rng.below(1 << 30),
            self.mount().display(),
            self.known.display()
        );
        let mut writer = Command::new(env::current_exe().expect("this binary"))
            .args(["power_cut::step", "--exact", "--nocapture", "--test-threads=1"])
            .env(STEP, text)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a writer");
        let out = BufReader::new(writer.stdout.take().expect("piped"));
        let acks = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&acks);
        let reader = thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            let count = |line: String| {
                heard.fetch_add(line.starts_with('@').into(), SeqCst);
                line
            };
            lines.map(count).collect::<Vec<_>>()
        });
        let most = if rng.one_in(5) { 0 } else { 1 + rng.below(300) };
        wait_until("a writer that acknowledges", || {
            acks.load(SeqCst) >= most || reader.is_finished()
        });
        let_chance_pass(if most == 0 { rng.below(12_000) } else { rng.below(5_000) });
        assert!(cut_power(self.mount(), &mut rng), "a file system without the shutdown ioctl");
        if rng.one_in(2) {
            // It may see for itself that the disk is gone; then it must not say that all went well.
            for _ in 0..500 {
                if writer.try_wait().expect("asked").is_some() {
                    break;
                }
                let_chance_pass(1_000);
            }
        }
        let _ = writer.kill();
        writer.wait().expect("dead");
        let mut last_words = String::new();
        let mut err = writer.stderr.take().expect("piped");
        err.read_to_string(&mut last_words).expect("read");
        let opening = last_words.contains("opens: ");
        assert!(last_words.is_empty() || opening, "seed {}: {last_words}", self.seed);
        let lines = reader.join().expect("read");
        self.note_acks(&lines);
    }

    /// Checks the promises after the cut. The log continues, or is cut once more.
    fn check(&self) {
        let mut rng = self.rng();
        let mut model = self.known();
        let there = self.log.join("segments").exists();
        if there && let Ok(seen) = checked(&self.log) {
            assert!(seen.is_sound(), "P6: a power cut is no damage: {seen:?}");
            let (view, _) = ReadView::open(&self.log).expect("readable");
            read_all(&view);
        }
        let log = self.options().open(&self.log).expect("P6: opens by itself");
        assert!(log.recovery_report().is_sound(), "P6: {:?}", log.recovery_report());
        let found = read_all(&log.read_view());
        let missing = model.missing(&found, model.synced());
        let gone = model.missing(&found, u64::MAX).len() - missing.len();
        let events: usize = found.values().map(Vec::len).sum();
        let acks = model.acks.len();
        println!("{acks} acknowledged, {events} events there, {gone} unsynced ones gone");
        if !missing.is_empty() {
            println!("MISSING, of what was promised: {missing:#?}");
            std::process::exit(EXIT_MISSING);
        }
        model.recovered = found;
        self.note_recovered(&model.recovered);
        match rng.below(3) {
            0 => log.close().expect("closes"),
            // As if it were killed: what recovery left on disk has to do.
            1 => std::mem::forget(log),
            // F25, F27: what recovery returned is durable, though no writer wrote since.
            _ => {
                cut_power(self.mount(), &mut rng);
                std::mem::forget(log);
            }
        }
    }

    fn note_acks(&self, lines: &[String]) {
        let path = self.known.join("acks");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
        for line in lines.iter().filter(|line| Ack::parse(line).is_some()) {
            writeln!(file, "{line}").expect("written");
        }
    }

    fn note_recovered(&self, content: &Content) {
        let line = |(stream, groups): (&_, &Vec<u64>)| {
            let groups: Vec<String> = groups.iter().map(u64::to_string).collect();
            format!("{stream} {}\n", groups.join(" "))
        };
        let text: String = content.iter().map(line).collect();
        fs::write(self.known.join("recovered"), text).expect("written");
        fs::write(self.known.join("acks"), "").expect("written");
    }

    fn known(&self) -> Model {
        let read = |name| fs::read_to_string(self.known.join(name)).unwrap_or_default();
        let mut model = Model::default();
        model.acks.extend(read("acks").lines().filter_map(Ack::parse));
        for line in read("recovered").lines() {
            let mut words = line.split_whitespace();
            let stream = words.next().and_then(|word| word.parse().ok()).expect("a stream");
            let groups = words.map(|word| word.parse().expect("a number")).collect();
            model.recovered.insert(stream, groups);
        }
        model
    }
}

// ---------------------------------------------------------------- a disk that is full

/// Takes up space until `left` bytes are free, as nearly as the file system can tell.
struct Ballast(PathBuf);

impl Ballast {
    fn new(mount: &Path, left: u64) -> Self {
        let fill = |path: &Path, bytes: u64| {
            let mut file = File::create(path).expect("made");
            let mut taken = 0;
            for piece in [1 << 20, 64 << 10, 4 << 10, 512] {
                while taken < bytes && file.write_all(&vec![7; piece]).is_ok() {
                    taken += piece as u64;
                }
            }
            let _ = file.sync_all();
        };
        // A file by itself: where every write goes to another place, cutting one needs space.
        let slack = mount.join("slack");
        fill(&slack, left);
        let path = mount.join("ballast");
        fill(&path, u64::MAX);
        fs::remove_file(slack).expect("removed");
        sync(mount);
        Self(path)
    }

    fn throw(self) {
        fs::remove_file(&self.0).expect("removed");
        sync(self.0.parent().expect("a directory"));
    }
}

/// Some file systems give space back with their next transaction.
fn sync(mount: &Path) {
    let dir = File::open(mount).expect("opens");
    let _ = rustix::fs::syncfs(dir);
}

impl Step {
    fn note(&self, commit: &Commit, line: &str) {
        self.note_acks(&[format!("@Disk {} {line}", commit.position.get())]);
    }

    /// F12, F13: the disk fills up under a log, some of it is freed, and the same commit succeeds.
    fn full(&self) {
        let mut rng = self.rng();
        let mut group = self.seed << 24;
        let mut came_back = 0;
        for _ in 0..6 {
            let log = self.options().open(&self.log).expect("opens");
            let mut streams: Vec<Stream> =
                (0..3).map(|_| log.create_stream().expect("a stream")).collect();
            let ballast = Ballast::new(self.mount(), rng.below(64) << 12);
            let line = loop {
                group += 1;
                let counts = [1 + rng.below(3), rng.below(3), 1];
                let line = fill(&mut streams, &counts, group, &mut rng);
                match log.commit_all(&mut streams).wait() {
                    Ok(commit) => {
                        self.note(&commit, &line);
                    }
                    Err(error) => {
                        assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
                        let buffered: u64 = streams.iter().map(Stream::buffered).sum();
                        assert_eq!(buffered, counts.iter().sum::<u64>(), "P5: they are back");
                        break line;
                    }
                }
            };
            let model = self.known();
            let before = read_all(&log.read_view());
            let missing = model.missing(&before, u64::MAX);
            assert!(missing.is_empty(), "F12: what was there is readable: {missing:#?}");
            match ReadView::open(&self.log) {
                // Where even the tail record found no space, others do not see the last group yet.
                Ok((view, _)) => {
                    let missing = model.missing(&read_all(&view), model.synced().saturating_sub(1));
                    assert!(missing.is_empty(), "F12: by others, too: {missing:#?}");
                }
                Err(error) => assert!(before.is_empty(), "F12: {error}"),
            }
            ballast.throw();
            match log.commit_all(&mut streams).wait() {
                Ok(commit) => {
                    came_back += 1;
                    self.note(&commit, &line);
                }
                // It was the sync that found no space: nothing is trusted before the log is reopened.
                Err(error) => {
                    println!("{error}");
                    assert_eq!(*error.kind(), ErrorKind::Poisoned, "{error}");
                }
            }
            if rng.one_in(2) {
                let _ = log.close();
            }
        }
        println!("the disk was full 6 times, the same commit succeeded {came_back} times");
        assert!(came_back > 0, "no commit ever came back");
    }
}
