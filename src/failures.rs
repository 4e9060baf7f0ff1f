//! Failures that cannot be returned to a caller: those of the log's own threads, and of hints
//! written by the commit path.
//!
//! Commits with dropped tickets count too, because no caller waits for them.
//!
//! No acknowledged data depends on any of this, and most of it is retried automatically. But a log
//! that cannot trim, compact or seal grows, and its host must learn of it: the log keeps each
//! task's last error, with its first and last time and the number of failures.

use std::fmt;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::sabotage::{Sabotage, broken};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::types::Timestamp;

/// Work that a log does on its own.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum BackgroundTask {
    /// Trimming events according to the options ([`crate::options::Compaction::Background`]). Until
    /// it succeeds, some or all of those events stay.
    Retain,
    /// Reclaiming the space of dead events ([`crate::options::Compaction::Background`]). Until it
    /// succeeds, the log grows.
    Compact,
    /// Creating the next segment in advance. Until it succeeds, a commit that needs the segment
    /// creates it itself, and fails if that fails too.
    MakeSegment,
    /// Writing the index of a full segment. After a failure the segment stays complete and
    /// readable, keeps its index in memory, and is sealed when the log is next opened.
    SealSegment,
    /// Writing the tail record after the last commit. Until it succeeds, readers in other processes
    /// see older commits only.
    WriteTailRecord,
    /// Removing the second name of a compacted segment's file, after the last read view of the
    /// segment is gone. After a failure the name is removed when the log is next opened; until then
    /// its file occupies space.
    RemoveCompacted,
    /// Starting one of the log's own threads. After a failure its work is done by commits, at the
    /// next opening, or not at all.
    StartThread,
    /// A commit whose [`crate::Ticket`] was dropped before it reported its failure. Its events are
    /// back in the rings of their handles, in memory only. A later commit of the same handle
    /// includes them; this entry is never over.
    Commit,
}

/// Number of tasks.
const TASKS: usize = 8;

impl BackgroundTask {
    /// Returns the task in a few words, for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "retain",
            Self::Compact => "compact",
            Self::MakeSegment => "make a segment",
            Self::SealSegment => "seal a segment",
            Self::WriteTailRecord => "write the tail record",
            Self::RemoveCompacted => "remove a compacted segment",
            Self::StartThread => "start a thread",
            Self::Commit => "commit with a dropped ticket",
        }
    }
}

/// Task that has failed since the log was opened.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackgroundError {
    /// Task that failed.
    pub task: BackgroundTask,
    /// Last error.
    pub error: Error,
    /// Time of the first failure since the task last worked, by the system's clock.
    pub first: Timestamp,
    /// Time of the last failure.
    pub last: Timestamp,
    /// Number of failures from the first to the last.
    pub count: u64,
    /// True if the task has worked since, and no work is left undone.
    pub is_over: bool,
}

impl fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, error, first, last, count, is_over } = self;
        let state = if *is_over { "failed, works again" } else { "failing" };
        write!(f, "{}: {state}; ", task.as_str())?;
        match count {
            1 => write!(f, "once, at {first}; {error}"),
            _ => write!(f, "{count} times from {first} to {last}; {error}"),
        }
    }
}

/// Failures since the log was opened.
pub(crate) struct Failures {
    disk: Arc<dyn Disk>,
    /// One bit for each task that is failing now, so that a successful task reads only this word.
    failing: AtomicU32,
    tasks: Mutex<[Option<Box<BackgroundError>>; TASKS]>,
}

impl Failures {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, failing: AtomicU32::new(0), tasks: Mutex::default() }
    }

    /// Records the outcome of a task, and returns its value.
    pub(crate) fn note<T>(&self, task: BackgroundTask, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(made) => {
                self.works(task);
                Some(made)
            }
            Err(error) => {
                self.fails(task, error);
                None
            }
        }
    }

    /// Records the outcome of a task that may have partly failed.
    pub(crate) fn note_all(&self, task: BackgroundTask, refused: Result<Vec<Error>>) {
        match refused {
            Ok(refused) if !refused.is_empty() => {
                refused.into_iter().for_each(|error| self.fails(task, error));
            }
            outcome => drop(self.note(task, outcome)),
        }
    }

    /// Records a failure. A task that failed because the log was closed is not recorded, unless it
    /// is a commit.
    pub(crate) fn fails(&self, task: BackgroundTask, error: Error) {
        let is_only_closed =
            matches!(error.kind(), ErrorKind::Closed) && task != BackgroundTask::Commit;
        if is_only_closed || broken(Sabotage::ForgetFailures) {
            return;
        }
        let now = self.disk.now();
        let mut tasks = self.tasks.lock();
        let known = &mut tasks[task as usize];
        match known.as_deref_mut().filter(|known| !known.is_over) {
            Some(known) => {
                known.error = error;
                known.last = now;
                known.count = known.count.saturating_add(1);
            }
            None => {
                *known = Some(Box::new(BackgroundError {
                    task,
                    error,
                    first: now,
                    last: now,
                    count: 1,
                    is_over: false,
                }));
            }
        }
        self.failing.fetch_or(1 << task as u32, Ordering::Relaxed);
    }

    /// Records a success. A segment that was sealed or removed does not make up for another that
    /// was not.
    fn works(&self, task: BackgroundTask) {
        let bit = 1 << task as u32;
        let is_for_one_file =
            matches!(task, BackgroundTask::SealSegment | BackgroundTask::RemoveCompacted);
        if self.failing.load(Ordering::Relaxed) & bit == 0 || is_for_one_file {
            return;
        }
        let mut tasks = self.tasks.lock();
        if let Some(known) = &mut tasks[task as usize] {
            known.is_over = true;
        }
        self.failing.fetch_and(!bit, Ordering::Relaxed);
    }

    pub(crate) fn all(&self) -> Vec<BackgroundError> {
        let tasks = self.tasks.lock();
        tasks.iter().flatten().map(|known| BackgroundError::clone(known)).collect()
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
