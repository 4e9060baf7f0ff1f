//! Does it hold in a real process that is killed, and on a real file system that loses what was not synced?

mod kill;
mod limits;
mod power_cut;
#[path = "../support/mod.rs"]
mod support;
