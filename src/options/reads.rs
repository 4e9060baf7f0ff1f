//! Options of reading: the way to read bytes, and the number of open segments.

/// Way to read sealed segments, which never change.
///
/// In either case opening, [`crate::verify::verify_quick`], [`crate::verify::repair`], exports,
/// backups and compactions use read calls, which can return an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Reads {
    /// Events are lent from mapped files: the fastest way, without a copy.
    ///
    /// A mapped byte that cannot be read raises a signal, `SIGBUS`, instead of an error; a process
    /// that does not handle it ends. This happens when the disk has an unreadable sector there, and
    /// when another program shortens a file of the log while it is open (P6 covers only bytes that
    /// can be read). A host that must survive either case handles the signal or chooses
    /// [`Reads::Positional`].
    #[default]
    Mapped,
    /// Events are read into buffers: an unreadable sector is [`crate::ErrorKind::Corrupt`] for the
    /// events in it, and everything else is read. Costs a copy and a system call for each piece
    /// that is read, about a third of the speed of a scan, and a descriptor for each open segment.
    Positional,
}

/// Options for opening a log for reading only.
///
/// ```no_run
/// # fn main() -> amberlog::Result<()> {
/// use amberlog::options::{ReadOptions, Reads};
///
/// let (view, report) = ReadOptions::new().reads(Reads::Positional).open("data")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    pub(crate) reads: Reads,
    pub(crate) open_segments_max: usize,
    pub(crate) shows_unconfirmed: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            reads: Reads::Mapped,
            open_segments_max: OPEN_SEGMENTS_MAX,
            shows_unconfirmed: false,
        }
    }
}

/// Default of [`crate::Options::open_segments_max`].
pub(super) const OPEN_SEGMENTS_MAX: usize = 256;

impl ReadOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the view shows whole commits that are not known to have been acknowledged, as
    /// [`ReadView::open_unconfirmed`](crate::ReadView::open_unconfirmed) does. Default: no.
    #[must_use]
    pub fn unconfirmed(mut self, shown: bool) -> Self {
        self.shows_unconfirmed = shown;
        self
    }
}

setters! { ReadOptions:
    /// Sets the way to read sealed segments. Default [`Reads::Mapped`].
    fn reads(reads: Reads);

    /// Sets the maximum of [`crate::Options::open_segments_max`]. A view does not keep another
    /// process from compacting: it can show a compacted segment only if it holds that segment open.
    /// The view opens as many segments as this allows; a read in any other segment that has been
    /// compacted fails with [`crate::ErrorKind::Outdated`].
    fn open_segments_max(segments: usize);
}
