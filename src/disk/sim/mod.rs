//! Simulated disk: a page cache separate from a platter, with every liberty that a real disk takes.
//!
//! Unsynced data may survive a power cut in any subset of 512-byte sectors, and in any version
//! written since the last sync. Lengths and names survive independently of data; where only a
//! length survived, old bytes may show. Failures are injected by call number. All randomness comes
//! from one seed. The disk keeps no promise that `docs/format.md` does not assume.
//!
//! Imports point down this list: `calls` and `access` are what a log and what a test does with the
//! `disk`; `file` is an open file; `cut` decides what survives; `world` is the state that all of
//! them share, made of `names`, `bytes` and `hazards`; `defect`, `fault` and `chance` know of none
//! of these.

mod access;
mod bytes;
mod calls;
mod chance;
mod cut;
mod defect;
mod disk;
mod fault;
mod file;
mod hazards;
mod names;
mod world;

pub use self::defect::Defect;
pub use self::disk::SimDisk;
pub use self::fault::Fault;
pub(super) use self::file::SimFile;
