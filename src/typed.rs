//! Typed events: serde types above the bytes, through a codec.
//!
//! The codec's id is stored with every event and checked when the event is read, so that an event
//! written by one codec is never decoded by another. The format on disk depends on no codec.
//!
//! ```
//! # #[cfg(feature = "json")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use amberlog::Log;
//! use amberlog::typed::Json;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! enum Entry {
//!     Deposited { cents: u64 },
//!     Withdrawn { cents: u64 },
//! }
//!
//! # let path = std::env::temp_dir().join(format!("amberlog-typed-{}", std::process::id()));
//! let log = Log::open(&path)?;
//! let mut account = log.create_stream()?;
//! let mut entries = account.typed::<Entry, Json>();
//! entries.append(&Entry::Deposited { cents: 500 })?;
//! entries.append(&Entry::Withdrawn { cents: 120 })?;
//! entries.stream().commit().wait()?;
//!
//! let (event, entry) = entries.events()?.next().expect("two entries")?;
//! assert_eq!((event.seq().get(), entry), (0, Entry::Deposited { cents: 500 }));
//! # drop((account, log));
//! # std::fs::remove_dir_all(&path)?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "json"))]
//! # fn main() {}
//! ```
//!
//! # Codecs
//!
//! There is no default codec. A program that keeps events for years changes its types over time,
//! and the codec decides what happens to the events that are already stored:
//!
//! - `Json` (feature `json`) stores names, as text. An inserted variant does not affect the others;
//!   a new field needs `#[serde(default)]`.
//! - `Postcard` (feature `postcard`) and `Bincode` (feature `bincode`) store positions, in few
//!   bytes. **After a variant or field has been inserted, events stored earlier decode to wrong
//!   values, without an error.**
//!
//! In a positional encoding, a variant is stored as its number in the enum, and a field by its
//! place in the struct. Append new variants at the end, never remove or reorder variants, and never
//! change the fields of a variant that has been stored: give a changed event a new variant.
//! Otherwise a stored `Deposited` comes back as a `Fee`.
//!
//! A program can also number the shapes of its events: [`Typed::schema_version`] is stored with
//! each event, and [`Event::decode`] takes the type that belongs to [`Event::schema_version`].

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use crate::error::{AppendError, Error, ErrorKind, Result};
use crate::reader::{Event, Events};
use crate::stream::{NewEvent, Stream};
pub use crate::types::CodecId;
use crate::types::{EventKind, Seq};

/// Conversion of values of `T` to bytes and back.
pub trait Codec<T> {
    /// Id stored with each event. A program's own ids start at [`CodecId::FIRST_OF_PROGRAM`].
    const ID: CodecId;

    /// Appends the bytes of `value` to `bytes`.
    ///
    /// # Errors
    ///
    /// Any error of the encoder.
    fn encode(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a value that takes up all of `bytes`.
    ///
    /// # Errors
    ///
    /// Any error of the decoder.
    fn decode(bytes: &[u8]) -> Result<T, CodecError>;
}

/// Error of a codec.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// `bincode` 2.0.1 in its standard configuration: compact, and positional (see [the
/// module](self#codecs)). The crate is unmaintained
/// ([RUSTSEC-2025-0141](https://rustsec.org/advisories/RUSTSEC-2025-0141.html)), and its later
/// versions do not compile, so this version is pinned. [`Postcard`] is a maintained alternative of
/// the same kind.
///
/// An event of up to 16 KiB may decode to at most 16 MiB, a larger one to at most 1 GiB; beyond
/// that, decoding fails. Elements that take up no bytes, as in a `Vec<()>`, escape this bound:
/// decoding a damaged length loops once per element.
#[cfg(feature = "bincode")]
#[derive(Clone, Copy, Debug)]
pub struct Bincode;

#[cfg(feature = "bincode")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Bincode {
    const ID: CodecId = CodecId::BINCODE;

    fn encode(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())?;
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        // What lengths in it may claim, in bytes of memory, goes by its own length: hostile ones
        // end here.
        const SMALL_BYTES_MAX: usize = 16 << 10;
        const SMALL_MEMORY_BYTES_MAX: usize = 16 << 20;
        const MEMORY_BYTES_MAX: usize = 1 << 30;
        let config = bincode::config::standard();
        let (value, used) = if bytes.len() <= SMALL_BYTES_MAX {
            let config = config.with_limit::<SMALL_MEMORY_BYTES_MAX>();
            bincode::serde::decode_from_slice(bytes, config)?
        } else {
            bincode::serde::decode_from_slice(bytes, config.with_limit::<MEMORY_BYTES_MAX>())?
        };
        if used == bytes.len() { Ok(value) } else { Err("bytes are left over".into()) }
    }
}

/// JSON text: readable by any program, and stored with the names of fields and variants (see [the
/// module](self#codecs)).
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Json {
    const ID: CodecId = CodecId::JSON;

    fn encode(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(bytes, value)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// `postcard` 1: compact, and positional (see [the module](self#codecs)).
///
/// A damaged length reserves at most 1 MiB for a sequence, which is serde's own limit. For elements
/// that take up no bytes, decoding a damaged length loops once per element.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Codec<T> for Postcard {
    const ID: CodecId = CodecId::POSTCARD;

    fn encode(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        postcard::to_io(value, bytes)?;
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let (value, left) = postcard::take_from_bytes(bytes)?;
        if left.is_empty() { Ok(value) } else { Err("bytes are left over".into()) }
    }
}

/// View of a stream as a sequence of `T`.
pub struct Typed<'a, T, C> {
    stream: &'a mut Stream,
    schema_version: u8,
    bytes: Vec<u8>,
    types: PhantomData<fn(T) -> C>,
}

impl Stream {
    /// Returns this stream as a sequence of `T`, in the codec `C`.
    pub fn typed<T, C: Codec<T>>(&mut self) -> Typed<'_, T, C> {
        Typed { stream: self, schema_version: 0, bytes: Vec::new(), types: PhantomData }
    }
}

/// Reason why a typed event was not appended.
#[derive(Debug)]
pub enum TypedAppendError {
    /// The codec could not encode the value.
    Codec(Error),
    /// The stream refused the encoded event.
    Refused(AppendError),
}

impl TypedAppendError {
    /// Returns true if the stream was deleted, like [`AppendError::is_not_found`].
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.is_not_found())
    }

    /// Returns true if the same value can be appended later, like [`AppendError::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.is_retryable())
    }

    /// Returns true if the log takes no events through this handle, like [`AppendError::is_fatal`].
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.is_fatal())
    }
}

impl fmt::Display for TypedAppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => error.fmt(f),
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl From<TypedAppendError> for Error {
    fn from(refused: TypedAppendError) -> Self {
        match refused {
            TypedAppendError::Codec(error) => error,
            TypedAppendError::Refused(refused) => refused.into(),
        }
    }
}

impl std::error::Error for TypedAppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Codec(error) => Some(error),
            Self::Refused(refused) => Some(refused),
        }
    }
}

impl<T, C: Codec<T>> Typed<'_, T, C> {
    /// Sets the schema version of the events appended from here on; 0 by default. Readers find it
    /// in [`Event::schema_version`] and can decode older shapes as older types.
    #[must_use]
    pub fn schema_version(mut self, version: u8) -> Self {
        self.schema_version = version;
        self
    }

    /// Encodes a value and appends it.
    ///
    /// # Errors
    ///
    /// [`TypedAppendError`]. Nothing has changed.
    pub fn append(&mut self, value: &T) -> Result<Seq, TypedAppendError> {
        self.append_as(EventKind(0), value)
    }

    /// Encodes a value and appends it with a kind.
    ///
    /// # Errors
    ///
    /// The errors of [`Typed::append`].
    pub fn append_as(&mut self, kind: EventKind, value: &T) -> Result<Seq, TypedAppendError> {
        self.bytes.clear();
        C::encode(value, &mut self.bytes).map_err(|source| {
            TypedAppendError::Codec(Error::new(ErrorKind::Codec, "append").because(source))
        })?;
        let event = NewEvent::new(kind, self.bytes.as_slice()).codec(C::ID);
        let event = event.schema_version(self.schema_version);
        self.stream.append(event).map_err(TypedAppendError::Refused)
    }

    /// Returns the stream itself, for committing.
    pub fn stream(&mut self) -> &mut Stream {
        self.stream
    }

    /// Returns the values of the stream, durable and volatile, each with its event.
    ///
    /// # Errors
    ///
    /// The errors of [`Stream::events`].
    pub fn events(&self) -> Result<TypedEvents<T, C>> {
        Ok(self.stream.events()?.typed())
    }
}

impl<T, C> fmt::Debug for Typed<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Events decoded as they are read. As with [`Events`], `last()` reads from the end.
pub struct TypedEvents<T, C> {
    events: Events,
    types: PhantomData<fn() -> (T, C)>,
}

impl Events {
    /// Returns these events as values of `T`, in the codec `C`.
    #[must_use]
    pub fn typed<T, C: Codec<T>>(self) -> TypedEvents<T, C> {
        TypedEvents { events: self, types: PhantomData }
    }
}

impl Event {
    /// Decodes the payload as a value of `T`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongCodec`] when another codec wrote the event, [`ErrorKind::Codec`] when its
    /// bytes are not a valid `T`.
    pub fn decode<T, C: Codec<T>>(&self) -> Result<T> {
        if self.codec() != C::ID {
            let kind = ErrorKind::WrongCodec { expected: C::ID, found: self.codec() };
            return Err(Error::new(kind, "decode"));
        }
        C::decode(self.payload())
            .map_err(|source| Error::new(ErrorKind::Codec, "decode").because(source))
    }
}

impl<T, C: Codec<T>> TypedEvents<T, C> {
    /// Keeps only the events with a seq in `range`, like [`Events::range`].
    #[must_use]
    pub fn range<S: Into<Seq> + Copy>(self, range: impl RangeBounds<S>) -> Self {
        Self { events: self.events.range(range), ..self }
    }

    /// Keeps only the events with a seq in `range`, like [`Events::range_clamped`].
    #[must_use]
    pub fn range_clamped<S: Into<Seq> + Copy>(self, range: impl RangeBounds<S>) -> Self {
        Self { events: self.events.range_clamped(range), ..self }
    }

    fn decode(event: Result<Event>) -> Result<(Event, T)> {
        let event = event?;
        let value = event.decode::<T, C>()?;
        Ok((event, value))
    }
}

impl<T, C: Codec<T>> Iterator for TypedEvents<T, C> {
    type Item = Result<(Event, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.events.next().map(Self::decode)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }

    fn last(self) -> Option<Self::Item> {
        self.events.last().map(Self::decode)
    }
}

impl<T, C: Codec<T>> DoubleEndedIterator for TypedEvents<T, C> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.events.next_back().map(Self::decode)
    }
}

impl<T, C> fmt::Debug for TypedEvents<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedEvents").field("events", &self.events).finish_non_exhaustive()
    }
}
