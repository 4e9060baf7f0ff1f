//! Request of a caller: the purpose of an opening, and the extent of its read.

/// Purpose of an opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    /// For a writer that remembers this many commit ids.
    Write {
        commit_ids_max: usize,
    },
}

/// Extent of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LoadDepth {
    /// Headers, footers and unsealed segments, as for opening.
    Quick,
    /// Every byte of every segment.
    Full,
}
