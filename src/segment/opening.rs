//! Opening the file of a segment: finding it, verifying its identity, mapping it, and reading its
//! index.

use std::io::ErrorKind as IoKind;
use std::sync::Arc;

use super::file::Segment;
use super::files::has_salt;
use super::pool::{FilePool, OpenFile};
use crate::disk::{DiskFile, IoResultExt, Pinned, Unread};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{header, header_of_trailer, trailer};
use crate::index::FooterIndex;
use crate::options::Reads;
use crate::sabotage::{Sabotage, broken};
use crate::types::range_len;

/// Maximum number of attempts to find a file that a compaction renames.
const ATTEMPTS_MAX: usize = 8;

impl Segment {
    /// Returns its open file, by the pool's read method.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Outdated`] if the file does not exist, or another has its name;
    /// [`ErrorKind::Corrupt`] if the bytes that identify it cannot be read; [`ErrorKind::Io`].
    #[inline]
    pub(super) fn open(&self, pool: &FilePool) -> Result<Arc<OpenFile>> {
        if let Some(open) = self.refs.of(pool.reads()).load_full() {
            open.touch();
            return Ok(open);
        }
        self.open_anew(pool)
    }

    #[cold]
    fn open_anew(&self, pool: &FilePool) -> Result<Arc<OpenFile>> {
        let file = match self.held_file() {
            Some(file) => file,
            None => self.find(pool)?,
        };
        let mut open = pool.open_file(file, &self.refs);
        if pool.reads() == Reads::Mapped {
            self.map(pool, &mut open)?;
        }
        let open = Arc::new(open);
        self.refs.of(pool.reads()).store(Some(Arc::clone(&open)));
        pool.keep(&open);
        Ok(open)
    }

    /// Opens its file ahead of time, ignoring failures.
    pub(crate) fn warm(&self, pool: &FilePool) {
        if !self.is_gone() {
            let _ = self.open(pool);
        }
    }

    /// Returns its file for writing: the held one, or else a newly opened one whose identity was
    /// verified.
    pub(crate) fn file_to_write(&self, pool: &FilePool) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.held_file() {
            return Ok(file);
        }
        let file = pool.open_path_to_write(&self.path()).at("open", || self.place(0))?;
        if self.is_at(pool, &*file)? { Ok(file) } else { Err(self.outdated()) }
    }

    /// Finds its file under its current name.
    fn find(&self, pool: &FilePool) -> Result<Arc<dyn DiskFile>> {
        let mut before = None;
        for _ in 0..ATTEMPTS_MAX {
            let path = self.path_now();
            if before.as_ref() == Some(&path) {
                break;
            }
            match pool.open_path(&path) {
                Ok(file) if self.is_at(pool, &*file)? => return Ok(file),
                Err(error) if error.kind() != IoKind::NotFound => {
                    return Err(error).at("open", || self.place(0));
                }
                _ => before = Some(path),
            }
        }
        Err(self.outdated())
    }

    /// Reports whether this is its file: another file may have taken its name.
    fn is_at(&self, pool: &FilePool, file: &dyn DiskFile) -> Result<bool> {
        let (path, here) = (|| self.path(), || self.place(0));
        // Loaded once, and before the length: the segment may be sealed, and its file cut, at any
        // moment.
        let mut sealed = self.seal_state();
        let bytes = file.len().at("open", here)?;
        if broken(Sabotage::LookLate) {
            sealed = self.seal_state();
        }
        let end = |last: &mut [u8; trailer::BYTES]| {
            let at = bytes.saturating_sub(trailer::BYTES as u64);
            let (_, unread) = pool.read(file, path, last, at).at("open", here)?;
            Ok::<bool, Error>(unread.is_none())
        };
        let mut last = [0; trailer::BYTES];
        if let Some(sealed) = sealed
            && end(&mut last)?
            && sealed.is_end_of(&last, &self.header)
            && bytes == sealed.file_bytes
        {
            return Ok(true);
        }
        let mut block = [0; header::BLOCK_BYTES];
        let (read, unread) = pool.read(file, path, &mut block, 0).at("open", here)?;
        let salt = self.header.salt;
        match has_salt(&block[..read], salt) {
            Some(false) => Ok(false),
            Some(true) if sealed.is_none() => Ok(true),
            // The trailer names the segment too, even where its index is damaged.
            None if sealed.is_none()
                && end(&mut last)?
                && header_of_trailer(&last).is_some_and(|header| header.salt == salt) =>
            {
                Ok(true)
            }
            // The header is intact, but the index is not at the end.
            _ => Err(self.damaged_index(unread.as_deref())),
        }
    }

    /// Maps its file if it is sealed and the system allows it.
    fn map(&self, pool: &FilePool, open: &mut OpenFile) -> Result<()> {
        let (Some(sealed), Some(file)) = (self.seal_state(), &open.file) else {
            return Ok(());
        };
        if let Ok(pin) = pool.map(&**file) {
            if pin.len() as u64 != sealed.file_bytes {
                return Err(self.damaged_index(None));
            }
            open.map = Some(pin);
            open.file = None;
        }
        Ok(())
    }

    /// Returns the index of a sealed segment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the index is damaged; [`ErrorKind::Io`].
    pub(crate) fn footer(&self, pool: &FilePool) -> Result<Arc<FooterIndex>> {
        if self.is_gone() {
            return Ok(Arc::default());
        }
        let open = self.open(pool)?;
        match open.footer() {
            Some(footer) => Ok(Arc::clone(footer)),
            None => self.find_footer(&open, pool),
        }
    }

    #[cold]
    fn find_footer(&self, open: &OpenFile, pool: &FilePool) -> Result<Arc<FooterIndex>> {
        let Some(sealed) = self.seal_state() else { return Err(self.damaged_index(None)) };
        let (salt, first) = (self.header.salt, sealed.first_position);
        let (found, unread) = match &open.map {
            Some(pin) => {
                let footer = sealed.footer_at as usize..pin.len().saturating_sub(trailer::BYTES);
                (FooterIndex::open(Arc::clone(pin), footer, salt, first), None)
            }
            None => {
                let (bytes, unread) = self.read_footer(open, pool)?;
                let end = bytes.len();
                (FooterIndex::open(Arc::new(Pinned::Buffer(bytes)), 0..end, salt, first), unread)
            }
        };
        let footer = Arc::new(found.ok_or_else(|| self.damaged_index(unread.as_deref()))?);
        let read = range_len(&(sealed.footer_at..sealed.file_bytes));
        let bytes = if open.map.is_some() { 0 } else { read };
        open.keep_footer(Arc::clone(&footer), bytes);
        pool.bound_footers(open);
        Ok(open.footer().map_or(footer, Arc::clone))
    }

    /// Reads the bytes of its index, as far as the file has them.
    fn read_footer(
        &self,
        open: &OpenFile,
        pool: &FilePool,
    ) -> Result<(Vec<u8>, Option<Arc<Unread>>)> {
        let (Some(sealed), Some(file)) = (self.seal_state(), &open.file) else {
            return Err(self.damaged_index(None));
        };
        let at = sealed.footer_at;
        let end = sealed.file_bytes.saturating_sub(trailer::BYTES as u64);
        let mut bytes = vec![0; end.saturating_sub(at) as usize];
        let read = pool.read(&**file, || self.path(), &mut bytes, at);
        let (read, unread) = read.at("open", || self.place(at))?;
        bytes.truncate(read);
        Ok((bytes, unread))
    }

    /// Returns the path under which its file can be opened now.
    fn path_now(&self) -> String {
        self.kept.get().map_or_else(|| self.path(), |kept| kept.path().to_owned())
    }

    fn outdated(&self) -> Error {
        Error::new(ErrorKind::Outdated, "open").at(self.place(0))
    }

    /// Returns the error for a damaged index.
    fn damaged_index(&self, unread: Option<&Unread>) -> Error {
        let footer_at = self.seal_state().map_or(0, |sealed| sealed.footer_at);
        self.damaged("open", footer_at, unread)
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::io;

    use super::*;
    use crate::disk::{Identity, LockGuard, Pin, SimDisk};
    use crate::format::{COMMITS_AT, SegmentHeader};
    use crate::segment::path;

    /// File whose segment is sealed as soon as its length is read.
    #[derive(Debug)]
    struct SealedMeanwhile<'a>(Arc<dyn DiskFile>, &'a Segment, Arc<FilePool>);

    impl DiskFile for SealedMeanwhile<'_> {
        fn len(&self) -> io::Result<u64> {
            let bytes = self.0.len();
            self.1.seal(&self.2, COMMITS_AT, 1).expect("sealed");
            bytes
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(bytes, offset)
        }

        fn write_at(&self, slices: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
            self.0.write_at(slices, offset)
        }

        fn set_len(&self, bytes: u64) -> io::Result<()> {
            self.0.set_len(bytes)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn map(&self) -> io::Result<Pin> {
            self.0.map()
        }

        fn identity(&self) -> Identity {
            self.0.identity()
        }

        fn links(&self) -> io::Result<u64> {
            self.0.links()
        }

        fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>> {
            Ok(None)
        }

        fn is_forsaken(&self) -> bool {
            self.0.is_forsaken()
        }
    }

    /// Returns an active segment, the second of a log, in a file of 16 KiB.
    fn active_segment() -> (SimDisk, Arc<FilePool>, Segment) {
        let disk = SimDisk::new(1);
        let header = SegmentHeader {
            log_id: [1; 16],
            number: 2,
            reserved_bytes: 16 << 10,
            created_micros: 0,
            salt: 7,
            covers: None,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(16 << 10, 0);
        disk.write_file(&path(2), &bytes);
        let pool = FilePool::new(Arc::new(disk.clone()), Reads::Mapped, 16);
        let segment = Segment::active(header, 1);
        (disk, pool, segment)
    }

    #[test]
    fn p6_p12_a_segment_that_is_sealed_while_it_is_opened_is_no_damage() {
        let (_, pool, segment) = active_segment();
        let file = pool.open_path(&path(2)).expect("exists");
        let file = SealedMeanwhile(file, &segment, Arc::clone(&pool));
        assert!(segment.is_at(&pool, &file).expect("no damage"));
        assert!(segment.seal_state().is_some());
    }

    /// F44: a file that became shorter after its length was checked is damage; it does not end the
    /// process.
    #[test]
    fn p6_f44_a_file_that_is_cut_before_it_is_mapped_is_damage() {
        let (disk, pool, segment) = active_segment();
        segment.seal(&pool, COMMITS_AT, 1).expect("sealed");
        let path = path(2);
        let file = pool.open_path(&path).expect("exists");
        assert!(segment.is_at(&pool, &*file).expect("its file"));
        let whole = disk.files().remove(&path).expect("exists");
        disk.write_file(&path, &whole[..whole.len() - 1]);
        let mut open = pool.open_file(pool.open_path(&path).expect("exists"), &segment.refs);
        let error = segment.map(&pool, &mut open).expect_err("too short");
        assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
    }

    #[cfg(amberlog_sabotage)]
    #[test]
    fn control_a_late_look_at_a_segment_is_noticed() {
        let _broken = crate::sabotage::sabotage(Sabotage::LookLate);
        std::panic::catch_unwind(p6_p12_a_segment_that_is_sealed_while_it_is_opened_is_no_damage)
            .expect_err("the control noticed nothing");
    }
}
