//! Would the attacks notice a broken engine?
//!
//! F40. The engine is broken on purpose, in one way after the other (`amberlog::Sabotage`), and attacked with the
//! same scripts that the crash tests run; each breakage has to be found. The same attacks find nothing when
//! nothing is broken. Only with `RUSTFLAGS="--cfg amberlog_sabotage"`; `AMBERLOG_CONTROL=<name>` runs one.
#![cfg(all(feature = "sim", amberlog_sabotage))]

use std::collections::BTreeSet;

use crate::attack::{Attack, decode, short};
use crate::support::Rng;
use amberlog::sim::SimDisk;
use amberlog::{ErrorKind, Log, Sabotage, StreamId, sabotage};

/// Maximum number of random scripts.
const SCRIPTS: u64 = 600;

const ALL: &[Sabotage] = &[
    Sabotage::SkipSalt,
    Sabotage::SkipDirectory,
    Sabotage::SkipChecksum,
    Sabotage::AckEarly,
    Sabotage::ShowEarly,
    Sabotage::TruncateDamage,
    Sabotage::GoOnAfterFailedSync,
    Sabotage::SkipScrub,
    Sabotage::LeaveTornTail,
    Sabotage::RollUnsynced,
    Sabotage::SealEarly,
    Sabotage::TrustTailRecord,
    Sabotage::LoseFailedEvents,
    Sabotage::SkipConflict,
    Sabotage::ForgetCommitIds,
    Sabotage::ForgetRewinds,
    Sabotage::ForgetBases,
    Sabotage::SkipState,
    Sabotage::SkipContinuity,
    Sabotage::RewriteOnOpen,
    Sabotage::CommitUnasked,
    Sabotage::ForgetForks,
    Sabotage::ForgetShared,
    Sabotage::RemoveEarly,
    Sabotage::RetainApart,
    Sabotage::CompactUnproven,
    #[cfg(feature = "json")]
    Sabotage::ImportApart,
    #[cfg(feature = "json")]
    Sabotage::ImportGoOn,
];

/// Runs the attacks, the quickest first, until one of them finds something.
fn attack() -> Result<(), String> {
    damage()?;
    for (what, script) in short::scripts() {
        short::every_crash(&SimDisk::new, &script, 64)
            .map_err(|found| format!("{what}: {found}"))?;
    }
    for (what, script) in short::scripts() {
        short::every_double_fault(&SimDisk::new, &script, 1, 16)
            .map_err(|found| format!("{what}: {found}"))?;
    }
    for (what, script) in short::scripts() {
        short::every_fault(&SimDisk::new, &script, 1, 4, 16)
            .map_err(|found| format!("{what}: {found}"))?;
        short::every_recovery(&SimDisk::new, &script, 1, 2, 8)
            .map_err(|found| format!("{what}, recovering: {found}"))?;
        short::every_kill(&SimDisk::new, &script, 1, 4, 64)
            .map_err(|found| format!("{what}, killed: {found}"))?;
    }
    for number in 1..=SCRIPTS {
        let bytes = script(number);
        Attack::script(SimDisk::new(number), 4, &decode(&bytes))
            .map_err(|found| format!("script {number}: {found}"))?;
    }
    Ok(())
}

/// Half of them of chance, half of them of events of one size, so that old bytes lie where records start.
fn script(number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number);
    let uniform = number % 2 == 0;
    let length = 20 + rng.below(140);
    let mut bytes = Vec::new();
    for _ in 0..length {
        let (op, a, mut b) = (rng.below(256) as u8, rng.below(256) as u8, rng.below(256) as u8);
        if uniform && op % 32 < 8 {
            b = 10;
        }
        bytes.extend([op, a, b]);
    }
    bytes
}

fn open(disk: &SimDisk) -> Result<Log, String> {
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    options.open_on(disk).map_err(|error| error.to_string())
}

/// Creates streams of one event each, so that a stream can vanish without a trace in others.
fn write(log: &Log, streams: u8, fill: u8) -> Result<(), String> {
    for number in 0..streams {
        let mut stream = log.create_stream().map_err(|error| error.to_string())?;
        stream.append([number ^ fill; 600]).map_err(|refused| format!("{refused:?}"))?;
        stream.commit().wait().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Every event: its stream, its seq, its payload.
type Events = BTreeSet<(StreamId, u64, Vec<u8>)>;

/// Returns the streams and events that exist, and whether a loss is reported.
fn read(disk: &SimDisk) -> Result<(Events, bool), String> {
    let Ok(log) = open(disk) else { return Ok((Events::new(), true)) };
    let mut told = !log.recovery_report().is_sound();
    let mut found = Events::new();
    for info in log.read_view().streams() {
        for event in log.read_view().events(info.id).map_err(|error| error.to_string())? {
            match event {
                Ok(event) => {
                    let (seq, payload) = (event.seq().get(), event.payload().to_vec());
                    found.insert((event.stream(), seq, payload));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => told = true,
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Ok((found, told))
}

/// F14, F15, F17, F18, F20, F21: bytes that rot, that come from elsewhere, and files that vanish are told,
/// and nothing wrong is read.
fn damage() -> Result<(), String> {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let log = open(&disk)?;
    write(&log, 60, 0)?;
    let killed = disk.copy();
    drop(log);
    write(&open(&other)?, 60, 0x55)?;
    damage_to(&disk, &other)?;
    damage_to(&killed, &other).map_err(|what| format!("killed: {what}"))
}

fn damage_to(disk: &SimDisk, other: &SimDisk) -> Result<(), String> {
    let (whole, _) = read(&disk.copy())?;
    let segments = |disk: &SimDisk| -> Vec<_> {
        disk.files().into_iter().filter(|(path, _)| path.ends_with(".seg")).collect()
    };
    for ((path, bytes), (_, foreign)) in segments(disk).into_iter().zip(segments(other)) {
        let missing = disk.copy();
        missing.remove_file(&path);
        judge(&whole, &missing, &format!("without {path}"))?;
        let as_changed = |what: String, change: &dyn Fn(&mut Vec<u8>)| {
            let rotten = disk.copy();
            let mut bytes = bytes.clone();
            change(&mut bytes);
            rotten.write_file(&path, &bytes);
            judge(&whole, &rotten, &format!("{path} with {what}"))
        };
        for at in (4096..bytes.len()).step_by(13) {
            as_changed(format!("another byte {at}"), &|bytes| bytes[at] ^= 0x10)?;
        }
        for at in (4096..bytes.len().min(foreign.len()) - 4096).step_by(512) {
            as_changed(format!("another log's bytes from {at} on"), &|bytes| {
                bytes[at..at + 4096].copy_from_slice(&foreign[at..at + 4096]);
            })?;
        }
    }
    Ok(())
}

fn judge(whole: &Events, disk: &SimDisk, what: &str) -> Result<(), String> {
    let (found, told) = read(disk)?;
    if !found.is_subset(whole) {
        return Err(format!("{what}: something was read that was never written"));
    }
    if found.len() < whole.len() && !told {
        return Err(format!("{what}: {} events are gone, unsaid", whole.len() - found.len()));
    }
    Ok(())
}

#[test]
fn f40_every_breakage_is_found() {
    let only = std::env::var("AMBERLOG_CONTROL").ok();
    let mut missed = Vec::new();
    for what in ALL.iter().copied() {
        if only.as_ref().is_some_and(|only| *only != format!("{what:?}")) {
            continue;
        }
        let broken = sabotage(what);
        let found = attack();
        drop(broken);
        match found {
            Err(found) => println!("{what:?} is found: {found}"),
            Ok(()) => missed.push(what),
        }
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_broken() {
    attack().expect("a sound engine");
}
