//! Cursors: the place in a list at which its next page starts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::types::{ParseError, StreamId};

/// End of a page. A cursor stays valid whatever is committed meanwhile: streams that exist and do
/// not change are listed exactly once. When ordered by commit, a stream that gets a commit between
/// two pages moves to the end; when ordered by a label, a stream whose label changes moves to the
/// place of its new value.
///
/// A cursor belongs to its query, and is valid for the same query in any process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Digest of the query that listed the page: [`super::Query::digest`].
    pub(super) query: u32,
    /// Last stream of the page.
    pub(super) last: ListKey,
}

/// Place of a stream in a list: its sort key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ListKey {
    /// Value of the label in the order of a label.
    pub(super) value: Option<Arc<str>>,
    /// Start of the last commit in the order of commits; otherwise 0.
    pub(super) last: u64,
    pub(super) id: StreamId,
}

impl ListKey {
    /// Returns a place in the order of ids.
    pub(super) fn of_id(id: StreamId) -> Self {
        Self { value: None, last: 0, id }
    }
}

impl fmt::Display for Cursor {
    /// Formats the cursor as text, which [`FromStr`] parses. The text has only letters, digits,
    /// `.` and `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListKey { value, last, id } = &self.last;
        write!(f, "{:08x}.", self.query)?;
        match value {
            None => write!(f, "{last:x}.{id}"),
            Some(value) => {
                f.write_str("v")?;
                value.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, ".{id}")
            }
        }
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = ParseError("invalid cursor (expected one that a list printed)");
        let (query, last) = text.split_once('.').ok_or(wrong)?;
        let (last, id) = last.split_once('.').ok_or(wrong)?;
        let query = u32::from_str_radix(query, 16).map_err(|_| wrong)?;
        let id = id.parse().map_err(|_| wrong)?;
        let (value, last) = match last.strip_prefix('v') {
            Some(hex) => (Some(value_of(hex).ok_or(wrong)?.into()), 0),
            None => (None, u64::from_str_radix(last, 16).map_err(|_| wrong)?),
        };
        Ok(Self { query, last: ListKey { value, last, id } })
    }
}

/// Returns the text with these bytes in base 16.
fn value_of(hex: &str) -> Option<String> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    let bytes = rest.is_empty().then(|| pairs.iter().map(byte).collect::<Option<Vec<u8>>>())??;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_any_text_is_a_cursor_or_none() {
        let id = StreamId::new();
        let cursor = |query, value: Option<&str>, last| Cursor {
            query,
            last: ListKey { value: value.map(Into::into), last, id },
        };
        let some =
            [cursor(0, None, 0), cursor(u32::MAX, None, u64::MAX), cursor(7, Some("größe: 7"), 0)];
        for cursor in some {
            assert_eq!(cursor.to_string().parse(), Ok::<_, ParseError>(cursor));
        }
        for wrong in ["", ".", "v.", "v6", "v6g", "vff", "v+1", "xyz", "v61x", "10000000000000000"]
        {
            assert!(format!("0.{wrong}.{id}").parse::<Cursor>().is_err(), "{wrong}");
            assert!(format!("{wrong}.0.{id}").parse::<Cursor>().is_err(), "{wrong}");
            assert!(format!("{wrong}.{id}").parse::<Cursor>().is_err(), "{wrong}");
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
