//! Maintenance: compaction changes nothing that a reader sees; retention trims exactly what is over
//! the bound, all of it or nothing.

use amberlog::maintenance::{Bound, CompactOptions, RetainOptions};
use amberlog::{Durability, Error, ErrorKind};

use super::oracle::{Change, Changes, Life};
use super::run::{Attack, EVENTS_MAX};

impl Attack {
    pub(super) fn compact(&mut self, dry_run: bool, percent: u8, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let before = self.disk.fingerprint();
        let how = CompactOptions::new().dead_percent_min(percent.into());
        let how = if dry_run { how.dry_run() } else { how };
        let report = self.log()?.compact(how).map_err(|error| error.to_string())?;
        let failed = self.disk.faults_fired() > self.fired;
        let is_poisoned = |error: &Error| matches!(error.kind(), ErrorKind::Poisoned);
        self.poisoned |= failed && report.refused.iter().any(is_poisoned);
        let excused = self.disk.faults_fired() > fired || self.poisoned;
        if !report.refused.is_empty() && !excused && self.disk.capacity() == u64::MAX {
            return Err(format!("not compacted: {:?} (P6)", report.refused));
        }
        if dry_run && self.disk.fingerprint() != before {
            return Err("a dry run of compacting wrote something".into());
        }
        #[cfg(feature = "json")]
        self.note_compacted();
        if self.is_stopped() {
            return Ok(());
        }
        let (view, expected) = (self.log()?.read_view(), self.oracle.now());
        self.compare(&view, &expected, fired)
    }

    /// Returns the trims that the bounds require now, by stream.
    fn over(&self) -> Changes {
        let over = |content: &super::oracle::Content| {
            content.state == Life::Active && content.slots.len() as u64 > content.start + EVENTS_MAX
        };
        let all = self.oracle.now().into_iter().filter(|(_, content)| over(content));
        all.map(|(id, content)| Change {
            stream: Some(id),
            at: content.slots.len() as u64,
            generation: content.generation,
            start: Some(content.slots.len() as u64 - EVENTS_MAX),
            ..Change::default()
        })
        .collect()
    }

    pub(super) fn retain(&mut self, dry_run: bool, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let changes = self.over();
        let how = RetainOptions::new();
        let report = self.log()?.retain(if dry_run { how.dry_run() } else { how });
        let report = report.map_err(|error| error.to_string())?;
        self.full = self.disk.capacity() < u64::MAX;
        let mut told: Vec<_> =
            report.trimmed.iter().map(|one| (one.stream, one.seqs.end.get(), one.over)).collect();
        told.sort_unstable_by_key(|one| one.0);
        let expected: Vec<_> = changes
            .iter()
            .map(|change| (change.id(), change.start.unwrap_or(0), Bound::Events))
            .collect();
        if let Some(error) = report.refused.first() {
            // After a failed sync the next caller gets its error.
            let failed = self.disk.faults_fired() > self.fired;
            let poisoned = matches!(error.kind(), ErrorKind::Poisoned) && failed;
            let excused = self.disk.faults_fired() > fired || self.full || poisoned;
            if changes.is_empty() || dry_run || !excused || !told.is_empty() {
                return Err(format!("not forgotten: {error}"));
            }
            let was_poisoned = self.poisoned;
            self.poisoned |= poisoned;
            if !was_poisoned {
                self.oracle.failed(vec![changes]);
            }
            return Ok(());
        }
        if told != expected {
            return Err(format!("forgotten: {told:?}, not {expected:?}"));
        }
        if dry_run || changes.is_empty() {
            return Ok(());
        }
        if self.poisoned {
            return Err("a poisoned log took a commit (F8)".into());
        }
        self.stats.commits += 1;
        self.oracle.succeeded(changes);
        if Durability::default() == Durability::Disk {
            self.oracle.synced();
        }
        let (view, expected) = (self.log()?.read_view(), self.oracle.now());
        self.compare(&view, &expected, fired)
    }
}
