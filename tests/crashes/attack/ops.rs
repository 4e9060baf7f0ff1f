//! The operations, and what bytes mean each.

use super::script::RingKind;
use amberlog::Durability;
use amberlog::sim::Fault;

/// Use of the ticket of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Waited for at once, with everything that is kept.
    Wait,
    /// Kept: it joins the group of the next one that is waited for.
    Keep,
    /// Dropped: the log serves it by itself.
    Drop,
}

/// One operation. Handles and streams are named by any number; it is taken modulo those that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A new stream, with one of a few names if `name` is not 0.
    Create { ring: RingKind, name: u8 },
    /// An event.
    Append { handle: u8, size: u8 },
    /// A commit of one stream.
    Commit { handle: u8, durability: Durability, then: Then },
    /// A commit of several, by the bits of `handles`.
    CommitAll { handles: u8, durability: Durability, then: Then },
    /// Waits for all tickets that are kept.
    Settle,
    /// Forgets what is buffered.
    Discard { handle: u8 },
    /// A new stream with the first events of another.
    Fork { handle: u8, at: u8 },
    /// Drops the last events.
    Rewind { handle: u8, to: u8 },
    /// Forgets the first events.
    Trim { handle: u8, to: u8 },
    /// Archives, takes that back, or deletes.
    State { handle: u8, state: u8 },
    /// A label with a value that no other has.
    Label { handle: u8 },
    /// A commit that expects something by name.
    Expect { handle: u8, what: u8 },
    /// A commit with one of a few ids.
    CommitId { handle: u8, id: u8 },
    /// Drops a handle.
    Drop { handle: u8 },
    /// Another handle of a durable stream.
    OpenStream { stream: u8 },
    /// Reads a stream through its handle, forwards or backwards.
    Read { handle: u8 },
    /// Reads everything that is committed, and keeps the read view.
    Look,
    /// Reads the read views that were kept once more.
    LookAgain,
    /// Reads the log as another process would, without the lock.
    ReadOnly,
    /// Backs the log up, and looks at the backup.
    Backup { cut: u8 },
    /// Compacts segments of which at least `percent` is dead, or only plans it.
    Compact { dry_run: bool, percent: u8 },
    /// Forgets what the options do not keep, or only says what that would be.
    Retain { dry_run: bool },
    /// Exports streams, by the bits of `streams`, and keeps that under other ids.
    Export { streams: u8 },
    /// Imports what was exported last, or goes on with that.
    Import { resumes: bool },
    /// Lets a call go wrong that is so far away.
    Fail { calls: u8, fault: Fault },
    /// There is space again.
    Space,
    /// The system writes back what is not synced, in its own time.
    WriteBack,
    /// Closes the log, and opens it again.
    Close,
    /// Kills the process.
    Kill,
    /// Cuts the power.
    PowerCut { seed: u8 },
}

/// Three bytes are one operation, whatever they are. Larger numbers mean rarer things.
impl From<[u8; 3]> for Op {
    fn from([op, a, b]: [u8; 3]) -> Self {
        let then = match b % 8 {
            0..4 => Then::Wait,
            4..7 => Then::Keep,
            _ => Then::Drop,
        };
        let durability = if b / 8 % 3 == 0 { Durability::Os } else { Durability::Disk };
        if op >= 192 {
            return Self::of_a_life(op, a, b);
        }
        match op % 32 {
            0..8 => Self::Append { handle: a, size: b },
            8..15 => Self::Commit { handle: a, durability, then },
            15..17 => Self::CommitAll { handles: a, durability, then },
            17 => Self::Create { ring: RingKind::Usual, name: 0 },
            18 => Self::Create { ring: ring_kind(a), name: b % 4 },
            19 => Self::Settle,
            20 => Self::OpenStream { stream: a },
            21 => Self::Read { handle: a },
            22 => Self::Look,
            23 => Self::LookAgain,
            24 if a < 96 => Self::ReadOnly,
            24 if a < 160 => Self::Compact { dry_run: b.is_multiple_of(4), percent: a % 3 * 25 },
            24 => Self::Backup { cut: b },
            25 if a < 128 => Self::Discard { handle: b },
            25 => Self::Drop { handle: b },
            26 | 27 => Self::Fail { calls: a % 64, fault: fault(b) },
            28 if a < 128 => Self::Space,
            28 => Self::WriteBack,
            29 => Self::Close,
            30 => Self::Kill,
            _ => Self::PowerCut { seed: a },
        }
    }
}

impl Op {
    /// Returns a step in the life of a whole stream.
    fn of_a_life(op: u8, handle: u8, b: u8) -> Self {
        match op % 16 {
            0..3 => Self::Fork { handle, at: b },
            3..6 => Self::Rewind { handle, to: b },
            6 => Self::Trim { handle, to: b },
            7 | 8 => Self::State { handle, state: b },
            9 | 10 => Self::Label { handle },
            12 if b < 64 => Self::Export { streams: handle | 1 },
            12 if b < 192 => Self::Import { resumes: !b.is_multiple_of(4) },
            11..13 => Self::Expect { handle, what: b },
            13 => Self::CommitId { handle, id: b },
            14 if b < 192 => Self::Compact { dry_run: b.is_multiple_of(8), percent: 0 },
            14 => Self::CommitId { handle, id: b },
            _ => Self::Retain { dry_run: b.is_multiple_of(4) },
        }
    }
}

fn ring_kind(byte: u8) -> RingKind {
    match byte % 3 {
        0 => RingKind::Usual,
        1 => RingKind::Small,
        _ => RingKind::Overwriting,
    }
}

fn fault(byte: u8) -> Fault {
    match byte % 9 {
        0 | 1 => Fault::Crash,
        2 => Fault::Io,
        7 => Fault::DoneAndFailed,
        3 | 4 => Fault::LostSync,
        5 => Fault::Interrupted,
        6 => Fault::Short,
        _ => Fault::Full,
    }
}
