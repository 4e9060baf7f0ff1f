//! The operations, and what bytes mean each.

use super::script::RingKind;
use amberlog::sim::Fault;

/// Expectation of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    Seen,
    Any,
    NoStream,
    Exists,
    /// The head that is durable as the commit is asked for.
    Head,
    /// Some seq, mostly a wrong one.
    Seq(u8),
}

/// Use of a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Waited for at once, with all that are kept.
    Wait,
    /// Kept: it joins the group of the next one that is waited for.
    Keep,
}

/// One operation. Handles and streams are chosen by number, modulo how many there are; so are seqs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A new stream.
    Create { ring: RingKind },
    /// Another handle of a durable stream.
    OpenStream { stream: u8, ring: RingKind },
    /// Appends events of this size.
    Append { handle: u8, events: u8, bytes: u8 },
    /// Commits one handle.
    Commit { handle: u8, expected: Expected, then: Then },
    /// Commits several handles at once, by the bits of `handles`.
    CommitAll { handles: u8, expected: Expected, then: Then },
    /// Waits for all tickets.
    Settle,
    /// Takes a savepoint.
    Save { handle: u8 },
    /// Discards to a savepoint of this handle.
    GoBack { handle: u8, nth: u8 },
    /// Discards to a savepoint of another handle, which is refused.
    GoBackElsewhere { handle: u8, other: u8 },
    /// Discards all that is buffered.
    Discard { handle: u8 },
    /// Drops the last events, buffered or durable.
    Rewind { handle: u8, to: u8 },
    /// A new stream with the first events of this one.
    Fork { handle: u8, at: u8, ring: RingKind },
    /// Forgets the first events.
    Trim { handle: u8, to: u8 },
    /// Deletes the stream.
    Delete { handle: u8 },
    /// Drops the handle, with all that is volatile.
    Drop { handle: u8 },
    /// Lets a call of the next group go wrong.
    Fail { calls: u8, fault: Fault },
    /// Makes space on a disk that is full.
    Space,
    /// Closes the log and opens it again.
    Reopen,
    /// Cuts the power while tickets are kept.
    PowerCut { seed: u8 },
}

/// Every three bytes are an operation.
impl From<[u8; 3]> for Op {
    fn from([op, a, b]: [u8; 3]) -> Self {
        let handle = a;
        match op % 64 {
            0..18 => Self::Append { handle, events: 1 + b % 4, bytes: b },
            18..29 => Self::Commit { handle, expected: expected(b), then: then(b) },
            29..32 => Self::CommitAll { handles: a, expected: expected(b), then: then(b) },
            32..35 => Self::Settle,
            35..40 => Self::Save { handle },
            40 => Self::GoBackElsewhere { handle, other: b },
            41..46 => Self::GoBack { handle, nth: b },
            46 => Self::Discard { handle },
            47..50 => Self::Rewind { handle, to: b },
            50 => Self::Fork { handle, at: b, ring: ring(a / 8) },
            51 | 52 => Self::Trim { handle, to: b },
            53 if b < 96 => Self::Delete { handle },
            53 => Self::Drop { handle },
            54..57 => Self::OpenStream { stream: a, ring: ring(b) },
            57 => Self::Create { ring: ring(b) },
            58..61 => Self::Fail { calls: a % 8, fault: fault(b) },
            61 => Self::Space,
            62 if a < 64 => Self::Reopen,
            63 if a < 48 => Self::PowerCut { seed: b },
            _ => Self::OpenStream { stream: a, ring: ring(b) },
        }
    }
}

fn ring(byte: u8) -> RingKind {
    match byte % 8 {
        0 => RingKind::Usual,
        1 | 2 => RingKind::Small,
        3 => RingKind::Growing,
        _ => RingKind::Overwriting,
    }
}

fn expected(byte: u8) -> Expected {
    match byte % 16 {
        0..6 => Expected::Seen,
        6..12 => Expected::Any,
        12 => Expected::NoStream,
        13 => Expected::Exists,
        14 => Expected::Head,
        _ => Expected::Seq(byte / 16),
    }
}

fn then(byte: u8) -> Then {
    if byte < 80 { Then::Wait } else { Then::Keep }
}

fn fault(byte: u8) -> Fault {
    match byte % 8 {
        0..3 => Fault::Io,
        3 => Fault::DoneAndFailed,
        4 => Fault::LostSync,
        5 => Fault::Short,
        6 => Fault::OverQuota,
        _ => Fault::Full,
    }
}
