//! What becomes of streams: made, named, branched, trimmed, compacted, copied and deleted?

mod archive;
mod backup;
mod branches;
mod catalog;
mod clocks;
mod compact;
mod copies;
mod gaps;
mod life;
mod quota;
mod retain;
mod shapes;
mod superseded;
#[path = "../support/mod.rs"]
mod support;
mod times;
