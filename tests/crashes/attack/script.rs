//! What every language of operations has in common: how bytes become a script, and kinds of rings.

use amberlog::{Overflow, StreamOptions};

/// Returns the script that any bytes stand for, three for each operation.
pub fn decode<Op: From<[u8; 3]>>(bytes: &[u8]) -> Vec<Op> {
    bytes.chunks_exact(3).map(|three| Op::from([three[0], three[1], three[2]])).collect()
}

/// Ring of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingKind {
    /// The default, which is never full here.
    Usual,
    /// A small one that refuses.
    Small,
    /// A small one that grows up to a cap.
    Growing,
    /// A small flight recorder.
    Overwriting,
}

impl RingKind {
    /// Returns these options with a ring of this kind; a small one holds `bytes`, one that grows `bytes_cap` in the end.
    pub fn options(self, options: StreamOptions, bytes: usize, bytes_cap: usize) -> StreamOptions {
        match self {
            Self::Usual => options,
            Self::Small => options.ring_bytes_max(bytes),
            Self::Growing => options
                .ring_bytes_max(bytes / 2)
                .overflow(Overflow::Grow { ring_bytes_cap: bytes_cap }),
            Self::Overwriting => options.ring_bytes_max(bytes).overflow(Overflow::OverwriteOldest),
        }
    }
}
