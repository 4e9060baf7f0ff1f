//! Metadata that the host gives a stream: its name, labels, and a little data. The next commit
//! writes changes to it (P2).

use std::sync::Arc;

use super::Stream;
use crate::catalog::{KeptMeta, Meta, StreamInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Seq, StreamState};

/// Maximum length of a name, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// First character of the names of the log's own streams.
const RESERVED: char = '~';
/// Maximum number of labels of a stream, and maximum lengths of a key and a value, in bytes.
const LABELS_MAX: usize = 64;
const LABEL_KEY_BYTES_MAX: usize = 128;
const LABEL_VALUE_BYTES_MAX: usize = 1024;
/// Maximum size of the data that a host keeps with a stream, in bytes.
const DATA_BYTES_MAX: usize = 64 << 10;

/// Fails unless a stream may have this name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let refused = |kind| Err(Error::new(kind, "name"));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return refused(ErrorKind::InvalidName);
    }
    if name.starts_with(RESERVED) {
        return refused(ErrorKind::NameReserved);
    }
    match name.parse() {
        Ok(id) => refused(ErrorKind::NameIsAnId(id)),
        Err(_) => Ok(()),
    }
}

impl Stream {
    /// Names or renames the stream. A name is unique among the log's streams that are not deleted,
    /// has 1 to 1,024 bytes and no control characters, does not have the form of a stream id, and
    /// does not begin with `~`. The stream reserves the name at once; the next commit writes it and
    /// frees the former name. Renaming to the current name keeps it against a commit of another
    /// handle that is in flight.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NameTaken`], [`ErrorKind::InvalidName`], [`ErrorKind::NameIsAnId`],
    /// [`ErrorKind::NameReserved`], [`ErrorKind::Deleted`], [`ErrorKind::Closed`];
    /// [`ErrorKind::CommitInFlight`] while a commit in flight changes the name;
    /// [`ErrorKind::Refused`] when the log's memory is full.
    pub fn rename(&mut self, name: &str) -> Result<()> {
        self.reap();
        self.check_alive("name")?;
        check_name(name)?;
        self.check_no_name_in_flight()?;
        let pending = self.change.as_ref().and_then(|change| change.name.as_ref());
        if pending.is_some_and(|pending| **pending == *name) {
            return Ok(());
        }
        let reserved = self.core.catalog.reserve_name(name, self.id).map_err(|holder| {
            Error::new(ErrorKind::NameTaken { name: name.to_owned(), holder }, "name")
        })?;
        self.ask("name", |draft| {
            (draft.name, draft.reserved) = (Some(name.into()), Some(Arc::new(reserved)));
        })
    }

    /// Removes the stream's name, with the next commit.
    ///
    /// # Errors
    ///
    /// The errors of [`Stream::rename`].
    pub fn clear_name(&mut self) -> Result<()> {
        self.reap();
        self.check_alive("name")?;
        self.check_no_name_in_flight()?;
        // Also of a durable stream without a name: a commit of another handle may give it one.
        let is_durable = self.root().is_some();
        self.note(|draft| (draft.name, draft.reserved) = (is_durable.then(Box::default), None));
        Ok(())
    }

    /// Sets a label, with the next commit. A stream has at most 64; a key has 1 to 128 bytes, a
    /// value 1 to 1,024. If two handles set the same label, the later commit wins: a conflict (P8)
    /// concerns events only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidMetadata`], [`ErrorKind::Deleted`], [`ErrorKind::Closed`];
    /// [`ErrorKind::Refused`] when the log's memory ([`crate::Options::memory_bytes_max`]) is full:
    /// then nothing changed.
    pub fn set_label(&mut self, key: &str, value: &str) -> Result<()> {
        self.reap();
        self.check_alive("label")?;
        let invalid = |what| Err(Error::new(ErrorKind::InvalidMetadata(what), "label"));
        if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX {
            return invalid("a label's key must have 1 to 128 bytes");
        }
        if value.is_empty() || value.len() > LABEL_VALUE_BYTES_MAX {
            return invalid("a label's value must have 1 to 1,024 bytes");
        }
        let labels = self.meta().labels;
        if labels.len() >= LABELS_MAX && !labels.contains_key(key) {
            return invalid("a stream can have at most 64 labels");
        }
        self.ask("label", |change| {
            change.labels.insert(key.into(), Some(value.into()));
        })
    }

    /// Removes a label, with the next commit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deleted`], [`ErrorKind::Closed`].
    pub fn remove_label(&mut self, key: &str) -> Result<()> {
        self.reap();
        self.check_alive("label")?;
        let has_one = self.meta().labels.contains_key(key);
        self.note(|change| {
            if has_one {
                change.labels.insert(key.into(), None);
            }
        });
        Ok(())
    }

    /// Sets the stream's data, with the next commit: up to 64 KiB of bytes that only the host
    /// interprets, in place of earlier data. Empty data removes it. If two handles set the data,
    /// the later commit wins: a conflict (P8) concerns events only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidMetadata`], [`ErrorKind::Deleted`], [`ErrorKind::Closed`];
    /// [`ErrorKind::Refused`] when the log's memory ([`crate::Options::memory_bytes_max`]) is full:
    /// then nothing changed.
    pub fn set_data(&mut self, data: &[u8]) -> Result<()> {
        self.reap();
        self.check_alive("data")?;
        if data.len() > DATA_BYTES_MAX {
            let what = "a stream can have at most 64 KiB of data";
            return Err(Error::new(ErrorKind::InvalidMetadata(what), "data"));
        }
        self.ask("data", |change| change.data = Some(data.into()))
    }

    /// Returns the stream's metadata, with the uncommitted changes of this handle (P9).
    ///
    /// The head is that of [`Stream::head`], as this handle saw the stream. If another handle has
    /// trimmed further, the start is where the durable events end that this handle has seen:
    /// [`Stream::events`] then shows its volatile events only.
    #[must_use]
    pub fn info(&self) -> StreamInfo {
        let durable = self.view().info(self.id);
        let meta = self.meta();
        let text = |(key, value): (Box<str>, Box<str>)| (key.into(), value.into());
        StreamInfo {
            id: self.id,
            name: meta.name.filter(|_| self.state() != StreamState::Deleted).map(Into::into),
            labels: meta.labels.into_iter().map(text).collect(),
            data: meta.data,
            state: self.state(),
            parent: meta.parent.map(|(id, seq)| (id, Seq(seq))),
            start: Seq(self.start()),
            head: Seq(self.end()),
            generation: self.generation(),
            created: self.id.created(),
            segments: durable.as_ref().map_or(0, |info| info.segments),
            is_durable: self.root().is_some(),
        }
    }

    fn durable_meta(&self) -> Option<Arc<KeptMeta>> {
        let version = self.core.catalog.version(self.root()?)?;
        Some(Arc::clone(&version.meta))
    }

    pub(super) fn meta(&self) -> Meta {
        let durable = self.durable_meta().map_or_else(Meta::default, |meta| (**meta).clone());
        self.changes().fold(durable, |meta, change| meta.after(change))
    }

    fn check_no_name_in_flight(&self) -> Result<()> {
        let names = self.in_flight.changes().any(|change| change.name.is_some());
        if names { Err(Error::new(ErrorKind::CommitInFlight(self.id), "name")) } else { Ok(()) }
    }
}
