//! Negative controls: ways to break the engine on purpose, to see that the attacks on it notice.
//!
//! Without `--cfg amberlog_sabotage` nothing can be switched: [`broken`] is a constant, and the compiler
//! leaves no trace of it. With it, a test breaks the engine on its own thread, so that tests which run side by
//! side do not disturb each other. Every one of these is a mistake that a real engine has made.

/// A way to be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(not(amberlog_sabotage), allow(unreachable_pub, reason = "only tests can name it"))]
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
    /// Events of a failed commit do not come back.
    LoseFailedEvents,
    /// A commit is written wherever its stream stands.
    SkipConflict,
    /// A segment that is missing is not missed.
    SkipContinuity,
    /// A read that fails is the end of what there is.
    ReadErrorIsEnd,
    /// Whoever asks gets the lock.
    ShareLock,
}

#[cfg(amberlog_sabotage)]
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

#[cfg(amberlog_sabotage)]
pub(crate) use switch::broken;
#[cfg(amberlog_sabotage)]
pub use switch::{Sabotaged, sabotage};

/// Whether the engine is broken in this way.
#[cfg(not(amberlog_sabotage))]
#[inline(always)]
pub(crate) const fn broken(_: Sabotage) -> bool {
    false
}
