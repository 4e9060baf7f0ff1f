//! The contestants, one file each, and the floors that they are compared with.

mod amberlog;
mod buffer;
mod files;
mod fjall;
mod floor;
mod okaywal;
mod open_wal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod spacetimedb;
mod sqlite;
mod wal_db;

use crate::contestant::Contestant;

/// Returns all contestants, floors first.
pub(crate) fn all() -> &'static [&'static dyn Contestant] {
    &[
        &floor::Floor,
        &amberlog::Amberlog,
        &raft_engine::RaftEngine { prefilled: false },
        &raft_engine::RaftEngine { prefilled: true },
        &okaywal::OkayWal,
        &open_wal::OpenWal,
        &wal_db::WalDb,
        &spacetimedb::SpacetimeDb,
        &fjall::Fjall,
        &redb::Redb,
        &sqlite::Sqlite,
        #[cfg(feature = "rocksdb")]
        &rocksdb::RocksDb,
        &files::Files,
    ]
}

/// Returns the contestant with this name.
pub(crate) fn by_name(name: &str) -> Option<&'static dyn Contestant> {
    all().iter().copied().find(|contestant| contestant.name() == name)
}

/// Returns the key of an event in an ordered store: stream, then number in the stream.
fn key(stream: u64, seq: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&stream.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}
