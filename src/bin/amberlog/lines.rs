//! Bytes as lines, and lines as events, so that every byte comes back.
//!
//! The convention of `import`, `record` and `cat`: a payload is a line without its final `\n`, and the
//! event's kind says whether it had one. Nothing else is touched: `\r`, empty lines, bytes that are no UTF-8.

use std::io::{self, BufRead, Read};

use amberlog::{CodecId, EventKind, NewEvent};
use serde::de::IgnoredAny;

/// A line that ended with `\n`.
pub(crate) const WHOLE: EventKind = EventKind(0);
/// The last line, when it did not end with `\n`.
pub(crate) const UNENDED: EventKind = EventKind(1);

/// Whether lines are looked at as JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Events are raw.
    Text,
    /// Lines that are JSON become events with that codec.
    Json,
}

/// Reads lines into one buffer.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: R,
    content: Content,
    line_bytes_max: usize,
    line: Vec<u8>,
    kind: EventKind,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// Before the first line.
    pub(crate) fn new(from: R, content: Content, line_bytes_max: usize) -> Self {
        Self { from, content, line_bytes_max, line: Vec::new(), kind: WHOLE, number: 0, bytes: 0 }
    }

    /// Goes to the next line. `Ok(false)`: there is none.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        let bytes_max = self.line_bytes_max as u64 + 1;
        let mut limited = self.from.by_ref().take(bytes_max);
        let read = limited.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.bytes += read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            self.kind = WHOLE;
        } else if self.line.len() > self.line_bytes_max {
            let text = format!("line {} is longer than {} bytes", self.number, self.line_bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        } else {
            self.kind = UNENDED;
        }
        Ok(true)
    }

    /// The line that is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.line
    }

    /// Whether it ended.
    pub(crate) fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its number, from 1; 0 before the first.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read until here.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// The event that it becomes.
    pub(crate) fn event(&self) -> NewEvent<&[u8]> {
        let codec = if self.content == Content::Json && is_json(&self.line) {
            CodecId::JSON
        } else {
            CodecId::RAW
        };
        NewEvent::new(self.kind, self.line.as_slice()).codec(codec)
    }
}

/// Whether the bytes are one value of JSON, and UTF-8 as JSON has to be.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], content: Content) -> Vec<(Vec<u8>, EventKind, CodecId)> {
        let mut lines = Lines::new(text, content, 16);
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
        let mut lines = Lines::new(&b"0123456789abcdef\n"[..], Content::Text, 16);
        assert!(lines.advance().expect("just fits"));
        let mut lines = Lines::new(&b"0123456789abcdefg\n"[..], Content::Text, 16);
        let error = lines.advance().expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
