//! Direct access to a simulated disk, for tests that damage a log. Not counted as calls.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bytes::SECTOR;
use super::disk::SimDisk;

/// Direct access to the bytes of the disk, for tests that damage a log. Not counted as calls.
impl SimDisk {
    /// Returns the bytes of every file by its path in the log's directory, with `/` between its
    /// parts.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let file = |id: &Option<u64>| Some(world.files.get(&(*id)?)?.cache.as_ref().clone());
        let Ok(root) = self.root_in(&world) else { return BTreeMap::new() };
        let inside = |name: &str| match root.as_str() {
            "" => Some(name.to_owned()),
            root => Some(name.strip_prefix(root)?.strip_prefix('/')?.to_owned()),
        };
        world
            .names
            .current
            .iter()
            .filter_map(|(name, id)| Some((inside(name)?, file(id)?)))
            .collect()
    }

    /// Writes a file as if it had always existed: its directories, its name and its bytes are
    /// durable.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        for dir in std::iter::once("").chain(path.match_indices('/').map(|(at, _)| &path[..at])) {
            world.names.set_durably(dir, Some(None));
        }
        let id = world.new_file(&path);
        world.names.set_durably(&path, Some(Some(id)));
        if let Ok(file) = world.file_mut(id) {
            file.write(bytes, 0, usize::MAX, SECTOR);
            file.sync();
        }
    }

    /// Removes a file, durably.
    pub fn remove_file(&self, path: &str) {
        let mut world = self.world();
        if let Ok(path) = self.at(&world, path) {
            world.names.set_durably(&path, None);
        }
    }

    /// Makes the pages that contain these bytes unreadable: reads of them fail (`EIO`), and mapped
    /// reads panic.
    pub fn set_unreadable(&self, path: &str, bytes: Range<u64>) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        let Some(Some(id)) = world.names.get(&path) else { return };
        world.hazards.set_unreadable(id, bytes);
    }

    /// Makes another program shorten a file right before the call of this number.
    pub fn shrink_at(&self, call: u64, path: &str, bytes: u64) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        world.hazards.plan_shrink(call, path, bytes);
    }

    /// Number of files mapped so far.
    #[must_use]
    pub fn maps(&self) -> u64 {
        self.world().hazards.maps
    }
}
