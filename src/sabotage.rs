//! Negative controls: ways to break the engine on purpose, to see that the attacks on it notice.
//!
//! Without `--cfg amberlog_sabotage`, or that of a model checker, nothing can be switched: [`broken`] is a
//! constant, and the compiler leaves no trace of it. With it, a test breaks the engine on its own thread, so
//! that tests which run side by side do not disturb each other.

/// A way to be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    not(any(amberlog_sabotage, amberlog_shuttle)),
    allow(unreachable_pub, dead_code, reason = "only tests can name it")
)]
pub enum Sabotage {
    /// A commit is acknowledged without a sync.
    SkipSync,
    /// A new segment's name is not made durable.
    SkipDirSync,
    /// A new segment's header and zeros are not made durable.
    SkipHeaderSync,
    /// Every segment has the same salt.
    SkipSalt,
    /// A commit's directory is believed without its marker.
    SkipMarker,
    /// The bytes of a batch are believed whatever their checksum says.
    SkipChecksum,
    /// A commit is acknowledged when it is written, before the sync returned.
    AckEarly,
    /// Readers see a commit when it is written, before the sync returned.
    ShowEarly,
    /// Damage below the watermark is cut like a torn tail.
    TruncateDamage,
    /// After a failed sync the log goes on with the same segment.
    GoOnAfterFailedSync,
    /// What a failed write left is not made harmless.
    SkipScrub,
    /// A torn tail is left as it is at opening.
    LeaveTornTail,
    /// What is found above the watermark is believed without being written again.
    TrustPageCache,
    /// The length of a file that was cut at a clean close is not synced before it is written again.
    SkipReserveSync,
    /// A file that lay ready is used without making sure that it is durable.
    AdoptUnsynced,
    /// The segment before is not synced before the next one is begun.
    RollUnsynced,
    /// A segment is sealed before the next one holds anything durable.
    SealEarly,
    /// Any witness is believed to be on the disk, and what it says of the end to be so.
    TrustWitness,
    /// Events of a failed commit do not come back.
    LoseFailedEvents,
    /// Commits are made again, whatever they are called.
    ForgetCommitIds,
    /// A rewind is no rewind.
    ForgetRewinds,
    /// What a fork shares is not found.
    ForgetBases,
    /// What a stream was before is forgotten, whoever still sees it.
    ForgetVersions,
    /// Archived and deleted streams are written.
    SkipState,
    /// A commit is written wherever its stream stands.
    SkipConflict,
    /// A segment that is missing is not missed.
    SkipContinuity,
    /// A read that fails is the end of what there is.
    ReadErrorIsEnd,
    /// Whoever asks gets the lock.
    ShareLock,
    /// A write that took a part is taken for done.
    StopAtShortWrite,
    /// Who collects does not know of forks that were not committed yet.
    ForgetForks,
    /// Who collects does not know what forks and rewinds share.
    ForgetShared,
    /// What was collected is removed before what is left of it is durable.
    RemoveEarly,
    /// Who collects relies on what was not synced, or was not acknowledged for all to see.
    CollectUnproven,
    /// A file that has lost its name is shortened whoever reads it.
    ShortenShared,
    /// A file is shortened before it is certain that it has lost its name.
    ShortenEarly,
    /// What is forgotten of several streams at once is committed stream by stream.
    RetainApart,
    /// A commit says that a stream moved to a file that is not synced.
    MoveUnsynced,
    /// A stream that is imported is committed event by event.
    ImportApart,
    /// An import goes on behind a commit that failed.
    ImportGoOn,
    /// The files of a backup are not synced.
    BackupUnsynced,
    /// Opening writes the end of the log once more, though it is certain.
    RewriteOnOpen,
    /// A stream that is dropped commits what is buffered.
    CommitUnasked,
    /// No mistake, but a machine on which no thread can be started.
    NoThread,
    /// The same, and who asks for the log's own thread while another leads is forgotten.
    ForgetWhoAsked,
    /// Whoever hands the writer over tells nobody.
    TellNobody,
    /// A leader that panics leaves its group unsettled.
    LeaveGroup,
    /// A ticket that is polled looks for the outcome, and only then leaves its waker.
    LateWaker,
    /// Who waits listens only after looking.
    ListenLate,
    /// Closing takes the writer away from those who are queued.
    LeaveQueue,
    /// A reader of the watermark does not look again.
    LookOnce,
}

#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
mod switch {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static NOW: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Breaks the engine on this thread, until the guard is dropped.
    #[must_use]
    pub fn sabotage(what: Sabotage) -> Sabotaged {
        NOW.set(Some(what));
        Sabotaged(())
    }

    /// The engine is broken as long as this lives.
    #[derive(Debug)]
    pub struct Sabotaged(());

    impl Drop for Sabotaged {
        fn drop(&mut self) {
            NOW.set(None);
        }
    }

    pub(crate) fn broken(what: Sabotage) -> bool {
        NOW.get() == Some(what)
    }
}

#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
pub(crate) use switch::broken;
#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
pub use switch::{Sabotaged, sabotage};

/// Whether the engine is broken in this way.
#[cfg(not(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle)))]
#[inline(always)]
pub(crate) const fn broken(_: Sabotage) -> bool {
    false
}
