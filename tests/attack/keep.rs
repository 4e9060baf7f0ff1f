//! Keeping house: collecting and moving change nothing that anybody sees; forgetting trims exactly what is over the
//! bound, all of it or nothing.

use amberlog::{Bound, CollectOptions, Durability, Error, ErrorKind, RetainOptions};

use super::oracle::{Change, Changes, Life};
use super::run::{Attack, EVENTS_MAX};

impl Attack {
    pub(super) fn collect(&mut self, dry_run: bool, percent: u8, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let before = self.disk.fingerprint();
        let how = CollectOptions::new().dead_percent_min(percent.into());
        let how = if dry_run { how.dry_run() } else { how };
        let report = self.log()?.collect(how).map_err(|error| error.to_string())?;
        let failed = self.disk.faults_fired() > self.fired;
        let is_poisoned = |error: &Error| matches!(error.kind(), ErrorKind::Poisoned);
        self.poisoned |= failed && report.refused.iter().any(is_poisoned);
        let excused = self.disk.faults_fired() > fired || self.poisoned;
        if !report.refused.is_empty() && !excused && self.disk.capacity() == u64::MAX {
            return Err(format!("not collected: {:?} (P6)", report.refused));
        }
        if dry_run && self.disk.fingerprint() != before {
            return Err("a dry run of collecting wrote something".into());
        }
        #[cfg(feature = "json")]
        self.note_collected();
        if self.is_stopped() {
            return Ok(());
        }
        let (snapshot, expected) = (self.log()?.snapshot(), self.oracle.now());
        self.compare(&snapshot, &expected, fired)
    }

    /// What is over the bound now, by stream.
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
            report.forgotten.iter().map(|one| (one.stream, one.seqs.end.get(), one.over)).collect();
        told.sort_unstable_by_key(|one| one.0);
        let expected: Vec<_> = changes
            .iter()
            .map(|change| (change.id(), change.start.unwrap_or(0), Bound::Events))
            .collect();
        if let Some(error) = report.refused.first() {
            // After a failed sync whoever comes next is told of that.
            let failed = self.disk.faults_fired() > self.fired;
            let poisoned = matches!(error.kind(), ErrorKind::Poisoned) && failed;
            let excused = self.disk.faults_fired() > fired || self.full || poisoned;
            if changes.is_empty() || dry_run || !excused || !told.is_empty() {
                return Err(format!("not forgotten: {error}"));
            }
            self.poisoned |= poisoned;
            if !poisoned {
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
        let (snapshot, expected) = (self.log()?.snapshot(), self.oracle.now());
        self.compare(&snapshot, &expected, fired)
    }

    /// A commit for each stream that moves, and nothing that anybody sees.
    pub(super) fn move_archived(&mut self, fired: u64) -> Result<(), String> {
        self.settle()?;
        if self.is_stopped() {
            return Ok(());
        }
        let report = self.log()?.move_archived();
        self.full = self.disk.capacity() < u64::MAX;
        let failed = self.disk.faults_fired() > self.fired;
        let is_poisoned = |error: &Error| matches!(error.kind(), ErrorKind::Poisoned) && failed;
        let (moved, refused) = match report {
            Ok(report) => (report.moved, report.refused),
            Err(error) => (Vec::new(), vec![error]),
        };
        self.poisoned |= refused.iter().any(is_poisoned);
        let excused = self.disk.faults_fired() > fired || self.full || self.poisoned;
        if let Some(error) = refused.first().filter(|_| !excused) {
            return Err(format!("not moved: {error}"));
        }
        let now = self.oracle.now();
        for one in moved {
            let is_it = |id: &amberlog::StreamId| id.archive_path() == one.path;
            match now.iter().find(|(id, _)| is_it(id)) {
                Some((_, content)) if content.state == Life::Archived => {}
                _ => return Err(format!("{} was not archived", one.path.display())),
            }
        }
        if self.is_stopped() {
            return Ok(());
        }
        let snapshot = self.log()?.snapshot();
        for _ in self.position + self.oracle.commits()..snapshot.position().get() {
            self.stats.commits += 1;
            self.oracle.succeeded(Changes::new());
            self.oracle.synced();
        }
        self.compare(&snapshot, &now, fired)
    }
}
