//! What does the engine make of a disk that fails, is damaged, or holds what it should not?

mod corruption;
mod deleting;
mod dir_syncs;
mod directory;
mod dropping;
mod faults;
mod features;
mod full;
mod golden;
mod media;
mod names;
mod ownership;
mod places;
mod purged;
mod purging;
mod quarantine;
mod refusals;
mod repair;
mod salvage;
#[path = "../support/mod.rs"]
mod support;
