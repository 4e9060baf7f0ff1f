//! Bytes as lines, and lines as events, without losing a byte.
//!
//! The convention of `import`, `record` and `cat`: a payload is a line without its final `\n`, and
//! the event's kind says whether it had one. Everything else stays: `\r`, empty lines, bytes that
//! are not UTF-8.

use std::io::{self, BufRead, Read};

use amberlog::typed::CodecId;
use amberlog::{EventKind, NewEvent};
use crc32fast::Hasher;
use serde::de::IgnoredAny;

use crate::compare::SeenBytes;

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

/// Reader of lines, with one buffer.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    from: R,
    content: Content,
    line_bytes_max: usize,
    line: Vec<u8>,
    kind: EventKind,
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
            kind: UNENDED,
            number: 0,
            bytes: 0,
            before: Hasher::new(),
        }
    }

    /// Advances to the next line. Returns false if there is none.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        self.before.update(&self.line);
        self.before.update(self.ending());
        self.line.clear();
        self.kind = UNENDED;
        let bytes_max = (self.line_bytes_max as u64).saturating_add(1);
        let mut limited = self.from.by_ref().take(bytes_max);
        let read = limited.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        self.number = self.number.saturating_add(1);
        self.bytes = self.bytes.saturating_add(read as u64);
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            self.kind = WHOLE;
        } else if self.line.len() > self.line_bytes_max {
            let text = format!("line {} is longer than {} bytes", self.number, self.line_bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(true)
    }

    /// Returns the current line.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.line
    }

    /// Returns the kind of the current line: whether it ended.
    pub(crate) fn kind(&self) -> EventKind {
        self.kind
    }

    /// Returns the number of the current line, from 1; 0 before the first.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the number of bytes read up to here.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes that ended the current line.
    fn ending(&self) -> &'static [u8] {
        if self.kind == WHOLE { b"\n" } else { b"" }
    }

    /// Describes the file up to and including the current line.
    pub(crate) fn seen(&self) -> SeenBytes {
        let mut all = self.before.clone();
        all.update(&self.line);
        all.update(self.ending());
        SeenBytes { lines: self.number, bytes: self.bytes, crc: all.finalize() }
    }

    /// Returns whether the file begins with the bytes described, which end within the current line.
    pub(crate) fn begin_as(&self, seen: &SeenBytes) -> bool {
        let ending = self.ending();
        let line_bytes = self.line.len().saturating_add(ending.len());
        let before = self.bytes.saturating_sub(line_bytes as u64);
        let Some(bytes) = seen.bytes.checked_sub(before) else { return false };
        let mut all = self.before.clone();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes == line_bytes {
            return self.seen().crc == seen.crc;
        }
        let Some(line) = self.line.get(..bytes) else { return false };
        all.update(line);
        all.finalize() == seen.crc
    }

    /// Returns the event for the current line.
    pub(crate) fn event(&self) -> NewEvent<&[u8]> {
        let codec = if self.content == Content::Json && is_json(&self.line) {
            CodecId::JSON
        } else {
            CodecId::RAW
        };
        NewEvent::new(self.kind, self.line.as_slice()).codec(codec)
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
