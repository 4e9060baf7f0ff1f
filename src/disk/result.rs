//! Errors of the disk, with the operation that failed and its place.

use std::io;

use crate::error::{Error, Place, Result};

/// Turns an error of the system into an [`Error`].
pub(crate) trait IoResultExt<T> {
    /// Adds the operation and its place; `place` is called only for an error.
    fn at(self, operation: &'static str, place: impl FnOnce() -> Place) -> Result<T>;
}

impl<T> IoResultExt<T> for io::Result<T> {
    fn at(self, operation: &'static str, place: impl FnOnce() -> Place) -> Result<T> {
        self.map_err(|error| Error::io(operation, place(), error))
    }
}
