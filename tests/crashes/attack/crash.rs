//! Crashes: what is left of the disk is opened and compared with the oracle, in as many ways as asked for.

use std::collections::HashSet;

use amberlog::ReadView;
use amberlog::sim::{Fault, SimDisk};

use super::oracle::{AtLeast, State, brief};
use super::reading::{self, Unread};
use super::run::{Attack, options};

/// Number of times that a recovery is itself cut before one may finish.
const RECOVERIES_CUT_MAX: u64 = 3;

impl Attack {
    /// Kills the process, or cuts the power, compares what is left, and goes on with it.
    pub(super) fn crash(&mut self, power_cut: Option<u64>) -> Result<(), String> {
        let (next, at_least) = match power_cut {
            None => (self.disk.after_kill(), self.in_memory()),
            Some(seed) => {
                for way in 1..self.cuts {
                    let cut = self.disk.after_power_cut(seed.wrapping_mul(1_000) + way);
                    self.check(&cut, AtLeast::Synced)?;
                }
                (self.disk.after_power_cut(seed), AtLeast::Synced)
            }
        };
        self.stats.faults += self.disk.faults_fired() - self.fired;
        self.forget_handles();
        // A machine that stops while it recovers, and again, ends in the same place (F25).
        let mut disk = next;
        for round in 0..power_cut.map_or(0, |seed| seed % RECOVERIES_CUT_MAX) {
            let stop = disk.calls() + (round + 1) * (power_cut.unwrap_or(0) % 17);
            disk.fail_at(stop, Fault::Crash);
            drop(options().open_on(&disk));
            disk = disk.after_power_cut(stop);
        }
        self.check(&disk, at_least)?;
        self.go_on(&disk, at_least)
    }

    /// What a process that dies leaves to the system's memory: everything, unless a failed sync has
    /// thrown it away (F9).
    fn in_memory(&self) -> AtLeast {
        let calls = self.disk.calls();
        let lost = |(call, fault): (&u64, &Fault)| *call < calls && *fault == Fault::LostSync;
        if self.planned.iter().any(lost) { AtLeast::Synced } else { AtLeast::Acknowledged }
    }

    /// Tries every state, or `most` of them, in which a power cut could leave the disk now. Says whether those
    /// were all.
    pub fn every_cut(&mut self, most: u64) -> Result<bool, String> {
        self.every_cut_of(&self.disk.clone(), most)
    }

    fn every_cut_of(&mut self, disk: &SimDisk, most: u64) -> Result<bool, String> {
        let ways = disk.power_cuts();
        let all = ways <= u128::from(most);
        let mut seen = HashSet::new();
        for way in 0..if all { ways as u64 } else { most } {
            let cut = if all { disk.power_cut(u128::from(way)) } else { disk.after_power_cut(way) };
            if seen.insert(cut.fingerprint()) {
                self.check(&cut, AtLeast::Synced).map_err(|what| format!("way {way}: {what}"))?;
            } else {
                self.stats.crashes += 1;
            }
        }
        Ok(all)
    }

    /// The power fails; the recovery from what so many ways of that leave is killed at every call; the next one
    /// goes through, and the power fails once more (F25).
    pub fn every_recovery(&mut self, ways: u64, most: u64) -> Result<(), String> {
        for way in 0..ways {
            let cut = self.disk.after_power_cut(way);
            let whole = cut.copy();
            drop(options().open_on(&whole));
            for call in cut.calls()..whole.calls() {
                let context = |what| format!("way {way}, recovery killed at call {call}: {what}");
                let killed = cut.copy();
                killed.fail_at(call, Fault::Crash);
                drop(options().open_on(&killed));
                let next = killed.after_kill();
                self.check(&next, AtLeast::Synced).map_err(context)?;
                let log = options().open_on(&next);
                let log = log.map_err(|error| context(format!("opening: {error}")))?;
                self.every_cut_of(&next, most).map_err(context)?;
                drop(log);
                self.every_cut_of(&next, most).map_err(context)?;
            }
        }
        Ok(())
    }

    /// Closes the log and opens it again.
    pub(super) fn close(&mut self) -> Result<(), String> {
        self.settle()?;
        self.handles.clear();
        let closed = self.log.take().ok_or("the log is not open")?.close();
        if self.is_stopped() {
            return Ok(());
        }
        match closed {
            Ok(()) if self.poisoned => return Err("a poisoned log closed in peace (P5)".into()),
            Ok(()) => self.oracle.synced(),
            Err(error) if self.disk.faults_fired() == self.fired && !self.full => {
                return Err(format!("closing: {error}"));
            }
            Err(_) => {}
        }
        let next = self.disk.after_kill();
        self.forget_handles();
        self.go_on(&next, self.in_memory())
    }

    /// Opens what is left for good. What is to go wrong goes wrong here as well, and then it is tried again.
    fn go_on(&mut self, disk: &SimDisk, mut at_least: AtLeast) -> Result<(), String> {
        let mut disk = disk.clone();
        let log = loop {
            disk.set_capacity(u64::MAX);
            self.planned.retain(|call, _| *call >= disk.calls());
            self.planned.iter().for_each(|(call, fault)| disk.fail_at(*call, *fault));
            let fired = disk.faults_fired();
            let opened = options().open_on(&disk);
            let went_wrong = |what: Fault| {
                self.planned.iter().any(|(call, fault)| *call < disk.calls() && *fault == what)
            };
            match opened {
                Ok(log) if !went_wrong(Fault::Crash) => break log,
                Err(error) if disk.faults_fired() == fired => {
                    return Err(format!("opening: {error}"));
                }
                // Sealing may fail and be done another time, so a machine that stops there is noticed later.
                _ if went_wrong(Fault::Crash) => {
                    at_least = AtLeast::Synced;
                    disk = disk.after_power_cut(disk.calls());
                }
                _ => {
                    if went_wrong(Fault::LostSync) {
                        at_least = AtLeast::Synced;
                    }
                    disk = disk.after_kill();
                }
            }
        };
        self.fired = disk.faults_fired();
        // Read from a copy: what is to go wrong is for the script.
        let copy = options().open_on(&disk.copy()).map_err(|error| format!("again: {error}"))?;
        let found = found(&copy.read_view())?;
        self.oracle.may_be_found(&found, at_least)?;
        self.position = log.read_view().position().get();
        let oracle = std::mem::take(&mut self.oracle);
        self.oracle = oracle.reborn(found, at_least, self.position);
        (self.disk, self.log) = (disk, Some(log));
        // Opening may have been where it became full.
        (self.full, self.poisoned) = (self.disk.capacity() < u64::MAX, false);
        self.planned.retain(|call, _| *call >= self.disk.calls());
        Ok(())
    }

    /// Opens a copy of what is left and compares it.
    pub(super) fn check(&mut self, left: &SimDisk, at_least: AtLeast) -> Result<(), String> {
        self.stats.crashes += 1;
        self.stats.states.insert(left.fingerprint());
        let disk = left.after_kill();
        disk.set_capacity(u64::MAX);
        self.read_only_on(&disk)?;
        let log = options().open_on(&disk).map_err(|error| format!("opening: {error}"))?;
        if !log.recovery_report().is_sound() {
            return Err(format!("damage where there is none: {:?}", log.recovery_report().damages));
        }
        let first = found(&log.read_view())?;
        self.oracle.may_be_found(&first, at_least)?;
        // What recovery returned once, every later one returns (F27), and it writes nothing (F24), not even what is
        // there already; so it does after another power cut, which mostly leaves the same.
        let cuts = [0, 1].map(|chance| disk.after_power_cut(left.calls() + chance));
        drop(log);
        let settled = (disk.fingerprint(), disk.writes());
        let mut seen = HashSet::new();
        for again in [disk.clone()].iter().chain(&cuts) {
            if seen.insert(again.fingerprint()) {
                let log = options().open_on(again).map_err(|error| format!("again: {error}"))?;
                same(&first, &found(&log.read_view())?)?;
            }
        }
        if (disk.fingerprint(), disk.writes()) == settled {
            Ok(())
        } else {
            Err("the second opening wrote something (F24)".into())
        }
    }

    /// Backs the log up; a backup that is said to be finished is the log as it is now, also after a power cut.
    pub(super) fn backup(&mut self, seed: u8, fired: u64) -> Result<(), String> {
        let name = format!("backup {}", self.number());
        match self.log()?.backup(&name) {
            Ok(report) => {
                if report.position.get() != self.position + self.oracle.commits() {
                    return Err(format!("a backup of position {}", report.position));
                }
                for left in [self.disk.copy(), self.disk.after_power_cut(seed.into())] {
                    let (view, recovery) = ReadView::open_on(&left.dir(&name))
                        .map_err(|error| format!("a backup does not open: {error}"))?;
                    if !recovery.is_sound() || !recovery.closed_cleanly && report.segments > 0 {
                        return Err(format!("a backup is not clean: {:?}", recovery.damages));
                    }
                    let shown = found(&view)?;
                    if shown != self.oracle.now() {
                        return Err(format!("a backup holds {:?}", brief(&shown)));
                    }
                }
            }
            Err(_) if self.disk.faults_fired() > fired || self.full => {}
            Err(error) => return Err(format!("a backup failed: {error}")),
        }
        let made = self.disk.dir(&name);
        made.files().keys().for_each(|path| made.remove_file(path));
        Ok(())
    }

    /// Contents that a read-only opening shows; `None` if no log exists yet.
    pub(super) fn read_only_on(&self, disk: &SimDisk) -> Result<Option<State>, String> {
        let Ok((view, recovery)) = ReadView::open_on(disk) else { return Ok(None) };
        if !recovery.is_sound() {
            return Err(format!("damage where there is none: {:?}", recovery.damages));
        }
        let shown = found(&view)?;
        self.oracle.may_be_shown(&shown).map_err(|what| format!("read-only: {what}"))?;
        Ok(Some(shown))
    }
}

fn same(first: &State, again: &State) -> Result<(), String> {
    if first == again {
        return Ok(());
    }
    let (first, again) = (brief(first), brief(again));
    Err(format!("a second recovery found {again:?}, the first {first:?} (F27)"))
}

fn found(view: &ReadView) -> Result<State, String> {
    reading::state(view).map_err(|unread| match unread {
        Unread::Disk(what) | Unread::Finding(what) => format!("reading what was found: {what}"),
    })
}
