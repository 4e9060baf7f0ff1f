//! Bytes as lines, and lines as events, without losing a byte.
//!
//! The convention of `import`, `record` and `cat`: a payload is a line without its final `\n`, and
//! the event's kind says whether it had one. Everything else stays: `\r`, empty lines, bytes that
//! are not UTF-8.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::str::FromStr;

use amberlog::typed::CodecId;
use amberlog::{EventKind, NewEvent};
use crc32fast::Hasher;
use serde::de::IgnoredAny;

/// Kind of a line that ended with `\n`.
pub(crate) const WHOLE: EventKind = EventKind(0);
/// Kind of a last line that did not end with `\n`.
pub(crate) const UNENDED: EventKind = EventKind(1);

/// Selects whether lines are checked for JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// All events are raw.
    Text,
    /// Lines of JSON become events with the JSON codec.
    Json,
}

/// The beginning of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SeenBytes {
    /// Number of lines; the last one may lack its newline.
    pub(crate) lines: u64,
    /// Number of bytes.
    pub(crate) bytes: u64,
    /// CRC-32 of the bytes.
    pub(crate) crc: u32,
}

impl fmt::Display for SeenBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:08x}", self.lines, self.bytes, self.crc)
    }
}

impl FromStr for SeenBytes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let [lines, bytes, crc] = parts[..] else { return Err(()) };
        Ok(Self {
            lines: lines.parse().map_err(drop)?,
            bytes: bytes.parse().map_err(drop)?,
            crc: u32::from_str_radix(crc, 16).map_err(drop)?,
        })
    }
}

/// Reader of lines, with one buffer.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    from: R,
    content: Content,
    line_bytes_max: usize,
    /// The current line, with its newline.
    line: Vec<u8>,
    number: u64,
    bytes: u64,
    /// Checksum of everything before the current line.
    before: Hasher,
}

impl<R: BufRead> LineReader<R> {
    /// Starts before the first line.
    pub(crate) fn new(from: R, content: Content, line_bytes_max: usize) -> Self {
        Self {
            from,
            content,
            line_bytes_max,
            line: Vec::new(),
            number: 0,
            bytes: 0,
            before: Hasher::new(),
        }
    }

    /// Advances to the next line. Returns false if there is none.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        self.before.update(&self.line);
        self.line.clear();
        let bytes_max = (self.line_bytes_max as u64).saturating_add(1);
        let read = self.from.by_ref().take(bytes_max).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        self.number = self.number.saturating_add(1);
        self.bytes = self.bytes.saturating_add(read as u64);
        if self.kind() == UNENDED && self.line.len() > self.line_bytes_max {
            let text = format!("line {} is longer than {} bytes", self.number, self.line_bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(true)
    }

    /// Returns the current line, without its newline.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }

    /// Returns the kind of the current line: whether it ended.
    pub(crate) fn kind(&self) -> EventKind {
        if self.line.ends_with(b"\n") { WHOLE } else { UNENDED }
    }

    /// Returns the number of the current line, from 1; 0 before the first.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the number of bytes read up to here.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Describes the file up to and including the current line.
    pub(crate) fn seen(&self) -> SeenBytes {
        let mut all = self.before.clone();
        all.update(&self.line);
        SeenBytes { lines: self.number, bytes: self.bytes, crc: all.finalize() }
    }

    /// Returns whether the file begins with the bytes described, which end within the current line.
    pub(crate) fn begin_as(&self, seen: &SeenBytes) -> bool {
        let before = self.bytes.saturating_sub(self.line.len() as u64);
        let bytes = seen.bytes.checked_sub(before).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(line) = bytes.and_then(|bytes| self.line.get(..bytes)) else { return false };
        let mut all = self.before.clone();
        all.update(line);
        all.finalize() == seen.crc
    }

    /// Returns the event for the current line.
    pub(crate) fn event(&self) -> NewEvent<&[u8]> {
        let line = self.bytes();
        let is_json = self.content == Content::Json && is_json(line);
        let codec = if is_json { CodecId::JSON } else { CodecId::RAW };
        NewEvent::new(self.kind(), line).codec(codec)
    }
}

/// Returns whether the bytes are one JSON value, in UTF-8 as JSON requires.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], content: Content) -> Vec<(Vec<u8>, EventKind, CodecId)> {
        let mut lines = LineReader::new(text, content, 16);
        let mut all = Vec::new();
        while lines.advance().expect("short enough") {
            let event = lines.event();
            all.push((event.payload.to_vec(), event.kind, event.codec));
        }
        assert_eq!(lines.bytes_read(), text.len() as u64);
        all
    }

    #[test]
    fn lines_keep_everything_but_their_end() {
        let raw = |line: &[u8], kind| (line.to_vec(), kind, CodecId::RAW);
        assert_eq!(split(b"", Content::Text), []);
        assert_eq!(
            split(b"a\r\n\n\xff\nend", Content::Text),
            [raw(b"a\r", WHOLE), raw(b"", WHOLE), raw(b"\xff", WHOLE), raw(b"end", UNENDED)]
        );
    }

    #[test]
    fn what_was_seen_is_the_beginning_of_what_goes_on_from_there() {
        let text = b"one\n\ntwo and a half\nthree";
        for (at, lines) in [(4, 1), (5, 2), (8, 3), (12, 3), (text.len(), 4)] {
            let all_of = |text: &'static [u8]| LineReader::new(text, Content::Text, 100);
            let mut before = all_of(&text[..at]);
            while before.advance().expect("short") {}
            let seen = before.seen();
            assert_eq!((seen.lines, seen.bytes), (lines, at as u64));
            let mut now = all_of(text);
            (0..lines).for_each(|_| assert!(now.advance().expect("short")));
            assert!(now.begin_as(&seen), "{at}");
            assert!(!now.begin_as(&SeenBytes { crc: !seen.crc, ..seen }), "{at}");
            let mut other =
                LineReader::new(&b"two\n\ntwo and a half\nthree"[..], Content::Text, 100);
            (0..lines).for_each(|_| assert!(other.advance().expect("short")));
            assert!(!other.begin_as(&seen), "{at}");
        }
    }

    #[test]
    fn what_was_seen_comes_back_from_its_label() {
        let seen = SeenBytes { lines: 3, bytes: 1 << 40, crc: 0xAB };
        assert_eq!(seen.to_string(), "3:1099511627776:000000ab");
        assert_eq!(seen.to_string().parse(), Ok(seen));
        for wrong in ["", "3", "3:4", "3:4:xyz", "-3:4:5", "3:4:123456789"] {
            assert_eq!(wrong.parse::<SeenBytes>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let codecs = |text: &[u8]| {
            let all = split(text, Content::Json).into_iter();
            all.map(|line| line.2 == CodecId::JSON).collect::<Vec<_>>()
        };
        assert_eq!(
            codecs(b"{\"a\":1}\r\n\n{\"a\":\n[1] 2\n\"\xff\"\n7"),
            [true, false, false, false, false, true]
        );
    }

    #[test]
    fn a_line_has_a_maximum() {
        let mut lines = LineReader::new(&b"0123456789abcdef\n"[..], Content::Text, 16);
        assert!(lines.advance().expect("just fits"));
        let mut lines = LineReader::new(&b"0123456789abcdefg\n"[..], Content::Text, 16);
        let error = lines.advance().expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // F19: the largest bound that a number of bytes can be is none that overflows.
        let mut lines = LineReader::new(&b"0123456789abcdef\n"[..], Content::Text, usize::MAX);
        assert!(lines.advance().expect("just fits"));
    }
}
