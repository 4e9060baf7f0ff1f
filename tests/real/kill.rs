//! Does a process that dies at any moment lose anything that it was told is committed?
//!
//! P3, P4, P6, P7; F1, F2, F4, F24, F25, F27, F32. The child is this test binary once more: threads that write
//! many streams, alone and several at once, and report each acknowledgement on a pipe. The parent kills
//! it at a random moment, in some rounds drops what was never synced (as a power cut could), and compares
//! what the log shows with what was reported. Two children that lie show that the comparison can fail.
//!
//! `AMBERLOG_KILLS` sets the number of kills, `AMBERLOG_SEED` repeats a run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use crate::support::verified::checked;
use crate::support::waiting::{let_chance_pass, wait_until};
use crate::support::writers::{Ack, Mode, Model, options, read_all, write};
use crate::support::{Rng, env_or, segment};
use amberlog::ReadView;
use amberlog::verify::{Record, RecordBody, RecordDump};

const CHILD: &str = "AMBERLOG_KILL_CHILD";
const SECTOR: usize = 512;

// ---------------------------------------------------------------- the child

/// Does nothing, unless this process is a child of the tests below.
#[test]
fn child() {
    let Ok(role) = env::var(CHILD) else { return };
    let mut words = role.splitn(3, ';');
    let mut word = || words.next().expect("three words");
    let mode = Mode::parse(word());
    let seed: u64 = word().parse().expect("a number");
    let log = options().open(word()).expect("opens");
    write(&log, mode, seed, |error| panic!("a commit failed: {error}"));
}

// ---------------------------------------------------------------- the parent

/// Lets a child write for a while, kills it, and returns what it reported.
fn run_child(dir: &Path, mode: Mode, rng: &mut Rng) -> Vec<Ack> {
    let seed = rng.below(1 << 30);
    let mut child = Command::new(env::current_exe().expect("this binary"))
        .args(["kill::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{};{seed};{}", mode.as_str(), dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let acks = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&acks);
    let reader = thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        let acks = lines.filter_map(|line| Ack::parse(&line));
        let count = |ack| {
            heard.fetch_add(1, Ordering::SeqCst);
            ack
        };
        acks.map(count).collect::<Vec<_>>()
    });
    let mut err = child.stderr.take().expect("piped");
    // Most children die while they write, some while they open.
    let most = if rng.one_in(6) { 0 } else { 1 + rng.below(40) };
    wait_until("a child that acknowledges", || {
        acks.load(Ordering::SeqCst) >= most || reader.is_finished()
    });
    let_chance_pass(if most == 0 { rng.below(8_000) } else { rng.below(3_000) });
    child.kill().expect("killed");
    child.wait().expect("dead");
    let mut last_words = String::new();
    let _ = std::io::Read::read_to_string(&mut err, &mut last_words);
    assert_eq!(last_words, "", "the child failed by itself (seed {seed})");
    reader.join().expect("read")
}

/// Where what was never synced starts: in the last segment with commits, behind the last one that was
/// synced. A segment gets its first byte only after the one before it, and its own header, are synced.
fn unsynced_from(dir: &Path, durable: u64) -> Option<(u32, u64)> {
    const COMMITS_AT: u64 = 4096;
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let mut clean = None;
    for Record { segment, offset, body, .. } in RecordDump::open(dir).ok()?.flatten() {
        if let RecordBody::TailRecord { clean: true, .. } = body {
            // Closed or recovered, and not written since: everything is synced.
            clean = Some(segment);
        }
        if let RecordBody::Commit { bytes, position, .. } = body {
            let end = ends.entry(segment).or_insert(COMMITS_AT);
            if position.get() <= durable {
                *end = offset + bytes;
            }
        }
    }
    ends.into_iter().next_back().filter(|(last, _)| clean != Some(*last))
}

/// Does to the unsynced end of the log what a power cut may do: any of its sectors are gone.
fn cut_power(dir: &Path, durable: u64, rng: &mut Rng) {
    let Some((number, from)) = unsynced_from(dir, durable) else { return };
    let path = segment(dir, number);
    let mut bytes = fs::read(&path).expect("readable");
    let keep_one_in = [0, 2, 4][rng.below(3) as usize];
    // At the start of a segment a synced tail record may have stood: of that sector either it or what was
    // written over it is left, and never zeros.
    let first = if from == 4096 { from as usize + SECTOR } else { from as usize };
    let mut at = first;
    while at < bytes.len() {
        let end = ((at / SECTOR + 1) * SECTOR).min(bytes.len());
        if keep_one_in == 0 || !rng.one_in(keep_one_in) {
            bytes[at..end].fill(0);
        }
        at = end;
    }
    fs::write(&path, bytes).expect("written");
}

/// One life and death of a child, and what is left. Returns what is missing.
fn round(dir: &Path, model: &mut Model, mode: Mode, cut: bool, rng: &mut Rng) -> Vec<String> {
    model.acks.extend(run_child(dir, mode, rng));
    if dir.join("segments").exists() {
        look(dir, model, mode, cut, rng);
    }
    let last = if cut { model.synced() } else { u64::MAX };
    let log = options().open(dir).expect("P6: opens by itself");
    assert!(log.recovery_report().is_sound(), "P6: {:?}", log.recovery_report());
    let found = read_all(&log.read_view());
    let missing = model.missing(&found, last);
    drop(log);
    let again = ReadView::open(dir);
    if let Ok((view, report)) = &again {
        assert!(report.is_sound() && report.torn_tail.is_none(), "F24: {report:?}");
        assert_eq!(read_all(view), found, "F27: the second look");
    }
    assert!(again.is_ok() || found.is_empty());
    model.recovered = found;
    model.acks.clear();
    missing
}

/// Looks at what the child left, without changing it; then cuts the power, if this is the round for it.
fn look(dir: &Path, model: &Model, mode: Mode, cut: bool, rng: &mut Rng) {
    let seen = checked(dir).expect("readable");
    assert!(seen.is_sound(), "P6: a kill is no damage: {seen:?}");
    let (view, _) = ReadView::open(dir).expect("readable");
    let content = read_all(&view);
    if mode == Mode::Honest {
        let missing = model.missing(&content, u64::MAX);
        assert!(missing.is_empty(), "P3: read-only, of {seen:?}: {missing:#?}");
    }
    if cut {
        let mut durable = seen.durable.get();
        if mode == Mode::Honest && seen.torn_tail.is_some() {
            // The torn write may have gone over the tail record of what was synced before it.
            durable = durable.max(model.synced());
        }
        cut_power(dir, durable, rng);
        let seen = checked(dir).expect("readable");
        assert!(seen.is_sound(), "P6: a power cut is no damage: {seen:?}");
        read_all(&ReadView::open(dir).expect("readable").0);
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    env_or("AMBERLOG_SEED", u64::from(now.subsec_nanos()))
}

/// Kills `kills` children; a new log after every `logs_of` of them.
fn kill_many(kills: u64, logs_of: u64, cut_one_in: u64, salt: u64) {
    let seed = seed() ^ salt;
    let mut rng = Rng::new(seed);
    let (mut dir, mut model) = (tempfile::tempdir().expect("a directory"), Model::default());
    let mut acks = 0;
    for n in 0..kills {
        if n % logs_of == 0 && n > 0 {
            (dir, model) = (tempfile::tempdir().expect("a directory"), Model::default());
        }
        let cut = cut_one_in > 0 && rng.one_in(cut_one_in);
        let before = model.recovered.values().map(Vec::len).sum::<usize>();
        let missing = round(dir.path(), &mut model, Mode::Honest, cut, &mut rng);
        assert!(missing.is_empty(), "seed {seed}, round {n}, cut {cut}: {missing:#?}");
        acks += model.recovered.values().map(Vec::len).sum::<usize>() - before;
    }
    println!("seed {seed}: {kills} kills, {acks} events survived");
    assert!(acks > 0, "the children wrote nothing");
}

/// F32: SIGKILL at any instant loses nothing acknowledged, in one log that goes on and on.
#[test]
fn p3_p4_p7_f32_a_killed_writer_loses_nothing_that_was_acknowledged() {
    kill_many(env_or("AMBERLOG_KILLS", 60) / 2, 15, 0, 0x517);
}

/// F2, F4: a power cut takes any sectors that were not synced; commits acknowledged at `Disk` stay.
#[test]
fn p3_p6_f2_f4_a_power_cut_takes_only_what_was_not_synced() {
    kill_many(env_or("AMBERLOG_KILLS", 60) / 2, 6, 2, 0xC47);
}

/// The negative controls: the comparison above finds the loss when an acknowledgement is a lie. Usually at once.
fn control(mode: Mode, cut: bool) {
    let seed = seed();
    let mut rng = Rng::new(seed);
    for _ in 0..100 {
        let (dir, mut model) = (tempfile::tempdir().expect("a directory"), Model::default());
        if !round(dir.path(), &mut model, mode, cut, &mut rng).is_empty() {
            return;
        }
    }
    panic!("seed {seed}: {mode:?} was not noticed");
}

#[test]
fn control_an_acknowledgement_before_the_sync_is_noticed() {
    control(Mode::BeforeSync, true);
}

#[test]
fn control_an_acknowledgement_before_the_ticket_resolves_is_noticed() {
    control(Mode::BeforeWait, false);
}
