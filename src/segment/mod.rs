//! Segment file: naming, reading and sealing.
//!
//! A growing segment is read with positional reads. Only a sealed segment may be mapped, if the
//! options ask for it, so no mapped file is cut. A segment knows where its batches are; what they
//! mean is decided above.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod block;
mod commits;
mod file;
mod files;
mod gone;
mod kept;
mod opening;
mod ownership;
mod places;
mod pool;
mod preallocate;
pub(crate) mod scan;
mod sealed;
mod sealing;
mod set;
mod window;

pub(crate) use self::block::Block;
pub(crate) use self::commits::TimeWindow;
pub(crate) use self::file::{Left, Segment};
pub(crate) use self::files::{
    DIR, KEPT, LOCK, NUMBER_MAX, UNFINISHED, UNFINISHED_COPY, create_anew, has_salt, kept_path,
    open_own, parse_kept, parse_name, parse_path, parse_unfinished, path, place, place_of,
    remove_made, replace_copy, unfinished_path,
};
pub(crate) use self::gone::OldFile;
pub(crate) use self::ownership::Ownership;
pub(crate) use self::pool::{FilePool, OPEN_SEGMENTS_FEW, OPEN_SEGMENTS_MIN};
pub(crate) use self::preallocate::{FITTED_BYTES_MIN, Spare, Zero, salt, segment_bytes};
pub(crate) use self::sealed::Sealed;
pub(crate) use self::set::{Age, SegmentSet};
pub(crate) use self::window::Window;
