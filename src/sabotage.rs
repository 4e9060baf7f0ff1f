//! Negative controls: deliberate ways to break the engine, which prove that the tests notice.
//!
//! Without `--cfg amberlog_sabotage`, or the `cfg` of a model checker, sabotage does not exist:
//! [`broken`] is a constant, and the compiler removes it. With it, a test breaks the engine on its
//! own thread only, so that tests in parallel do not disturb each other.
//!
//! A breakage that amounts to a disk that lies is not listed here: it is a defect of the simulated
//! disk (`disk::sim::defect`), and the engine's lines do not mention it. A disk cannot play what is
//! left. It sees names and bytes, but not what they mean (salts, checksums, positions, liveness,
//! expectations), nor memory, threads and clocks. It cannot prevent the engine from stopping after
//! an error that the disk has to report (`GoOnAfterFailedSync`). And it cannot single out one of
//! several like calls: the sync before a roll (`RollUnsynced`) is like any other, and the cut of a
//! torn tail (`LeaveTornTail`) like that of a clean close.

/// Way to break the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    not(any(amberlog_sabotage, amberlog_shuttle)),
    allow(unreachable_pub, dead_code, reason = "only tests can name it")
)]
pub enum Sabotage {
    /// Uses the same salt for every segment.
    SkipSalt,
    /// Accepts the entries of a commit's directory regardless of their checksums.
    SkipDirectory,
    /// Accepts the bytes of a batch regardless of their checksum.
    SkipChecksum,
    /// Acknowledges a commit when it is written, before the sync has returned.
    AckEarly,
    /// Shows a commit to readers when it is written, before the sync has returned.
    ShowEarly,
    /// Cuts damage below the watermark like a torn tail.
    TruncateDamage,
    /// Continues with the same segment after a failed sync.
    GoOnAfterFailedSync,
    /// Leaves the remains of a failed write in place.
    SkipScrub,
    /// Leaves a torn tail in place at opening.
    LeaveTornTail,
    /// Begins the next segment before the previous one is synced.
    RollUnsynced,
    /// Seals a segment before the next one holds anything durable.
    SealEarly,
    /// Continues to commit where no recovery would accept the commits.
    GoOnWhereBlocked,
    /// Trusts that any tail record is durable, and that the end it names is correct.
    TrustTailRecord,
    /// Drops the events of a failed commit instead of returning them to their ring.
    LoseFailedEvents,
    /// Returns the oldest events of a failed commit twice.
    RepeatFailedEvents,
    /// Does not count the events that a failed commit had dropped when its events return.
    MiscountGaps,
    /// Returns the events of failed commits that a later rewind had cut.
    KeepCutEvents,
    /// Lets a rewind or a trim cut events that its handle did not see.
    CutUnseen,
    /// Saves a bare seq as a savepoint, regardless of where leaders placed the earlier events.
    SaveSeqs,
    /// Keeps a handle in its old generation after its commit went to another one and more commits
    /// are pending.
    KeepGeneration,
    /// Reports a commit as already made because a commit before it was.
    InheritOutcome,
    /// Accepts the first append after a commit that failed with `Archived` or `Deleted`.
    AppendAfterAll,
    /// Requests an archive as if no stream were volatile.
    ForgetVolatile,
    /// Reports a conflict with the heads only.
    SayNoReason,
    /// Compares the times of ids as if they had microseconds.
    CompareMicros,
    /// Does not report failures that have no caller.
    ForgetFailures,
    /// Applies a maintenance directive even if its stream has changed since it was measured.
    RetainUnseen,
    /// Trusts the clock in retention, at the commit and now.
    BelieveClock,
    /// Repeats a commit regardless of its id.
    ForgetCommitIds,
    /// Starts at a place of the position index without looking at the commit there.
    TrustPlaces,
    /// Ignores rewinds.
    ForgetRewinds,
    /// Does not find what a fork shares.
    ForgetBases,
    /// Sorts the streams of an old read view by the labels that they have now.
    SortByNewest,
    /// Drops earlier versions of a stream that a read view still shows.
    ForgetVersions,
    /// Writes to archived and deleted streams.
    SkipState,
    /// Writes a commit regardless of its stream's head.
    SkipConflict,
    /// Does not notice a missing segment.
    SkipContinuity,
    /// Recognizes only one of the errors that mean "no space".
    OnlyFullIsFull,
    /// Creates a segment at its usual size or not at all.
    WholeSegments,
    /// Lets events take the last space of a full disk.
    KeepNoRoom,
    /// Begins a spare file without checking the file length limit again.
    KeepLimit,
    /// Keeps the scratch memory of a commit's layout, regardless of its size.
    KeepScratch,
    /// Does not count the names, labels and data that await a commit.
    CountRingsOnly,
    /// Never returns the memory charged for the metadata of streams.
    KeepCharges,
    /// Checks whether an opened segment is sealed only after measuring its file.
    LookLate,
    /// Does not close open files to make room for others.
    CloseNothing,
    /// Removes the names of compacted segments that read views still show.
    ForgetReadViews,
    /// Removes a file by its name, regardless of its header.
    RemoveUnread,
    /// Hides uncommitted forks from the compactor.
    ForgetForks,
    /// Hides what forks and rewinds share from the compactor.
    ForgetShared,
    /// Merges the catalog batches of a stream from the last to the first.
    MergeBackwards,
    /// Compacts all rewinds.
    DropRewinds,
    /// Removes compacted segments before their replacement is durable.
    RemoveEarly,
    /// Rewrites wholly dead segments like all others, into a file that needs space.
    RewriteDead,
    /// Compacts by records that are not synced or not acknowledged.
    CompactUnproven,
    /// Exempts the current segment from a purge.
    PurgeSealed,
    /// Rewrites only what a purge makes smaller.
    PurgeBySize,
    /// Shortens a file that has lost its name while readers hold it.
    ShortenShared,
    /// Shortens a file before it has durably lost its name.
    ShortenEarly,
    /// Commits the trims of several streams one by one.
    RetainApart,
    /// Verifies only the bytes of a log.
    VerifyBytesOnly,
    /// Keeps a gap only if its first seq is live.
    CompactGaps,
    /// Limits a gap to 2^32 - 1 seqs.
    ShortGaps,
    /// Omits the part of a gap that forks and rewinds have cut off from the event after it.
    ForgetCutGaps,
    /// Commits an imported stream event by event.
    ImportApart,
    /// Continues an import after a failed commit.
    ImportGoOn,
    /// Rewrites the end of the log at opening, although it is certain.
    RewriteOnOpen,
    /// Commits the buffered events of a dropped stream.
    CommitUnasked,
    /// Lets a forked child take itself for its parent.
    ForgetProcess,
    /// Recognizes a child by its fork handler alone, without asking the system.
    BelieveForks,
    /// Lets a list in a child wait for the parent's writer.
    ListAsParent,
    /// Leaves the log open when its last handle is dropped.
    LeaveOpen,
    /// Continues the maintenance of a closed log to its end.
    GoOnWhenClosed,
    /// Lets every thread start fail. Not a mistake, but a limit of the machine.
    NoThread,
    /// Lets every thread start fail, and forgets a request for the log's own thread while another
    /// thread leads.
    ForgetWhoAsked,
    /// Does not notify waiters when the writer is handed over.
    TellNobody,
    /// Leaves the group of a panicked leader unsettled.
    LeaveGroup,
    /// Registers the waker of a polled ticket only after checking the outcome.
    LateWaker,
    /// Reads the event count only after checking the condition.
    ListenLate,
    /// Takes the writer from queued commits at closing.
    LeaveQueue,
    /// Reads the watermark only once.
    LookOnce,
}

#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
mod switch {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static NOW: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Breaks the engine on this thread until the guard is dropped.
    #[must_use]
    pub fn sabotage(what: Sabotage) -> Sabotaged {
        NOW.set(Some(what));
        Sabotaged(())
    }

    /// Guard of a broken engine.
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

/// Returns true if the engine is broken in this way.
#[cfg(not(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle)))]
#[inline(always)]
pub(crate) const fn broken(_: Sabotage) -> bool {
    false
}
