//! Comparison of a file with the stream that an earlier import made of it.
//!
//! Each line is an event: line n has seq n - 1. Events that the stream still has are compared line
//! by line. For those that were trimmed since, the import keeps a label: the number of lines and
//! bytes it has read, and their checksum. So an import continues after retention has trimmed its
//! stream, and notices a file that was replaced.

use std::io::{self, BufRead};

use amberlog::{Events, StreamInfo};
use serde::Serialize;

use crate::lines::{LineReader, SeenBytes, UNENDED};

/// Label that records how much of a file its stream represents.
pub(crate) const SEEN_LABEL: &str = "amberlog.source";

/// Kinds of difference between a file and its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Difference {
    /// The file is empty now.
    Emptied,
    /// The file ends before the stream does, and equals it up to there.
    Shortened,
    /// The first line that can be compared differs.
    Replaced,
    /// A later line differs.
    Changed,
    /// The stream cannot be read.
    Unreadable,
}

impl Difference {
    /// Explains what happened to the file, and what its owner can do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Emptied => {
                "the file was emptied; rename the stream before the file is filled again \
                 (`amberlog name`), or its new content will be compared with the stream"
            }
            Self::Shortened => {
                "the file was shortened; the stream stays as it is, and continues once the missing \
                 part of the file is back"
            }
            Self::Replaced => {
                "the file was replaced or rewritten; rename the stream \
                 (`amberlog name`) and import again to keep both"
            }
            Self::Changed => {
                "the file was changed; rename the stream (`amberlog name`) and import again \
                 to keep both"
            }
            Self::Unreadable => "`amberlog verify` reports details",
        }
    }
}

/// Result of a comparison.
pub(crate) enum Compared {
    /// Stream and file are equal.
    Same,
    /// The current line and all later ones are new.
    Prefix,
    /// The current line and all later ones are new, and it replaces the last event, which is its
    /// first part and was incomplete at the last import.
    Half,
    /// The file does not continue the stream; the text says where they part.
    Differs(Difference, String),
}

/// Reads and compares lines until the stream has no more events.
pub(crate) fn compare<R: BufRead>(
    info: &StreamInfo,
    mut events: Events,
    lines: &mut LineReader<R>,
) -> io::Result<Compared> {
    let (start, head) = (info.start.get(), info.head.get());
    let seen = info.labels.get(SEEN_LABEL).and_then(|seen| seen.parse::<SeenBytes>().ok());
    // After a rewind the label does not describe the stream any more.
    let seen = seen.filter(|seen| seen.lines <= head);
    let differs = |difference, why: String| Ok(Compared::Differs(difference, why));
    for (seq, number) in (0..).zip(1..) {
        let has_line = lines.advance()?;
        match (has_line, seq < head) {
            (false, false) => return Ok(Compared::Same),
            (true, false) => return Ok(Compared::Prefix),
            (false, true) if seq == 0 => {
                return differs(Difference::Emptied, format!("the stream has {head} events"));
            }
            (false, true) => {
                let why = format!("the file has {seq} lines, the stream {head} events");
                return differs(Difference::Shortened, why);
            }
            (true, true) => {}
        }
        // If no line could be compared before this one, the whole file may be another one.
        let otherwise = if seq <= start { Difference::Replaced } else { Difference::Changed };
        if seen.is_some_and(|seen| seen.lines == number && !lines.begin_as(&seen)) {
            let why = format!("the first {number} lines are not those that were imported");
            return differs(otherwise, why);
        }
        if seq < start {
            continue;
        }
        let event = match events.next() {
            Some(Ok(event)) => event,
            Some(Err(error)) => return differs(Difference::Unreadable, error.to_string()),
            None => return differs(Difference::Unreadable, format!("event {seq} is missing")),
        };
        if event.seq().get() != seq {
            let why = format!("the stream has a gap before event {seq}");
            return differs(Difference::Changed, why);
        }
        if event.kind() == lines.kind() && event.payload() == lines.bytes() {
            continue;
        }
        let is_half = event.kind() == UNENDED && lines.bytes().starts_with(event.payload());
        if is_half && number == head {
            return Ok(Compared::Half);
        }
        // Only the last line of a file lacks its newline.
        let is_cut = lines.kind() == UNENDED && event.payload().starts_with(lines.bytes());
        let difference = if is_cut { Difference::Shortened } else { otherwise };
        return differs(difference, format!("line {number} is not event {seq}"));
    }
    Ok(Compared::Same)
}
