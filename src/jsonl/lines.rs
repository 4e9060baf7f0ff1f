//! What the lines of an export look like. Writing and reading share these types, and nothing else knows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::recovery::Damage;
use crate::types::{CodecId, StreamState};

/// The version of what an export looks like.
pub(super) const VERSION: u32 = 1;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// The first line.
    Amberlog(Header),
    /// A stream begins.
    Stream(Box<StreamLine>),
    /// An event of the stream.
    Event(#[serde(borrow)] EventLine<'a>),
    /// The stream went back, and went on in its next generation.
    Rewind(RewindLine),
    /// So many seqs of the stream hold nothing that is shown.
    Forgotten(u64),
    /// Seqs of the stream that could not be read.
    Lost(LostLine<'a>),
    /// Something of the log that is not as it was written.
    Damage(DamageLine),
    /// The last line.
    End(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// The version of what follows.
    pub(super) export: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamLine {
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data_text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data_base64: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) state: StateWord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<Parent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shares: Option<Shares>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) start: u64,
    /// Nobody knows it of a deleted stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<u64>,
}

/// The state of a stream, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StateWord {
    #[default]
    Active,
    Archived,
    Deleted,
}

/// What the stream was forked from, and where.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parent {
    pub(super) id: String,
    pub(super) seq: u64,
}

/// Where the events in front of the stream's own are: in this stream, as it was in this generation, before this seq.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shares {
    pub(super) id: String,
    pub(super) generation: u32,
    pub(super) seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine<'a> {
    pub(super) seq: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) generation: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) kind: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) codec: u8,
    pub(super) time_us: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dropped_before: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) json: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RewindLine {
    pub(super) to: u64,
    /// The one that begins.
    pub(super) generation: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LostLine<'a> {
    pub(super) seqs: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dropped_before: u64,
    pub(super) why: Cow<'a, str>,
}

/// As `amberlog verify --json` tells it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DamageLine {
    pub(super) kind: String,
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    pub(super) positions: Span,
    pub(super) events: Vec<LostEvents>,
}

/// What a damage costs a stream; no seqs when it is something that was said of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LostEvents {
    pub(super) stream: String,
    pub(super) seqs: Span,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl<T: Into<u64> + Copy> From<&Range<T>> for Span {
    fn from(range: &Range<T>) -> Self {
        Self { start: range.start.into(), end: range.end.into() }
    }
}

impl From<&Damage> for DamageLine {
    fn from(damage: &Damage) -> Self {
        let events = damage
            .events
            .iter()
            .map(|(stream, seqs)| LostEvents { stream: stream.to_string(), seqs: seqs.into() });
        Self {
            kind: damage.kind.as_str().to_owned(),
            path: damage.place.path.display().to_string(),
            offset: damage.place.offset,
            positions: (&damage.positions).into(),
            events: events.collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) streams: u64,
    pub(super) events: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) lost: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<StreamState> for StateWord {
    fn from(state: StreamState) -> Self {
        match state {
            StreamState::Active => Self::Active,
            StreamState::Archived => Self::Archived,
            StreamState::Deleted => Self::Deleted,
        }
    }
}

impl From<StateWord> for StreamState {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Active => Self::Active,
            StateWord::Archived => Self::Archived,
            StateWord::Deleted => Self::Deleted,
        }
    }
}

/// Bytes that are no text.
pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// What [`base64`] made a text of.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// Bytes, as they are said in a line: the fields of which exactly one is there.
pub(super) struct Said<'a> {
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) json: Option<&'a RawValue>,
    pub(super) base64: Option<Cow<'a, str>>,
}

impl<'a> Said<'a> {
    /// How the bytes are said: JSON as it is, other text as text, everything else in base 64.
    pub(super) fn new(bytes: &'a [u8], codec: CodecId) -> Self {
        let (mut said, text) =
            (Self { text: None, json: None, base64: None }, std::str::from_utf8(bytes));
        match text {
            Ok(text) if codec == CodecId::JSON => said.json = verbatim(text),
            _ => {}
        }
        match text {
            _ if said.json.is_some() => {}
            Ok(text) => said.text = Some(text.into()),
            Err(_) => said.base64 = Some(base64(bytes).into()),
        }
        said
    }

    /// The bytes; `None` when not exactly one field is there, or its base 64 is none.
    pub(super) fn bytes(self) -> Option<Cow<'a, [u8]>> {
        match (self.text, self.json, self.base64) {
            (Some(Cow::Borrowed(text)), None, None) => Some(text.as_bytes().into()),
            (Some(Cow::Owned(text)), None, None) => Some(text.into_bytes().into()),
            (None, Some(json), None) => Some(json.get().as_bytes().into()),
            (None, None, Some(base64)) => from_base64(&base64).map(Into::into),
            _ => None,
        }
    }
}

/// The text as a value of JSON that comes back as it is; `None` when it would not, or not on one line. A `null` would
/// read as no value.
fn verbatim(text: &str) -> Option<&RawValue> {
    if text.contains(['\n', '\r']) || text == "null" {
        return None;
    }
    let value: &RawValue = serde_json::from_str(text).ok()?;
    (value.get() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(bytes: &[u8], codec: CodecId) -> &'static str {
        let said = Said::new(bytes, codec);
        let way = match &said {
            Said { json: Some(_), .. } => "json",
            Said { text: Some(_), .. } => "text",
            _ => "base64",
        };
        let event = EventLine {
            seq: 0,
            generation: 0,
            kind: 0,
            codec: codec.0,
            time_us: 0,
            dropped_before: 0,
            text: said.text,
            json: said.json,
            base64: said.base64,
        };
        let line = serde_json::to_string(&Line::Event(event)).expect("JSON");
        assert!(!line.contains('\n'));
        let Line::Event(back) = serde_json::from_str(&line).expect("a line") else {
            panic!("another line: {line}")
        };
        let said = Said { text: back.text, json: back.json, base64: back.base64 };
        assert_eq!(said.bytes().as_deref(), Some(bytes), "{line}");
        way
    }

    #[test]
    fn bytes_come_back_however_they_are_said() {
        for json in ["{\"a\": [1, 2.50]}", "7", "\"\\u00e9\"", "1e400", "{\"a\":1,\"a\":2}", "{}"] {
            assert_eq!(way(json.as_bytes(), CodecId::JSON), "json");
            assert_eq!(way(json.as_bytes(), CodecId::RAW), "text");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(way(deep.as_bytes(), CodecId::JSON), "json");
        for text in ["", "null", " 7", "7\n", "{\n}", "{", "\u{2028}\0\u{7f}", "7 8", "NaN"] {
            assert_eq!(way(text.as_bytes(), CodecId::JSON), "text");
        }
        for bytes in [&b"\xff"[..], b"\"\xc3\"", b"\0\x80"] {
            assert_eq!(way(bytes, CodecId::JSON), "base64");
        }
    }

    #[test]
    fn bytes_are_said_once() {
        let said = |text, base64| Said { text, json: None, base64 };
        assert!(said(None, None).bytes().is_none());
        assert!(said(Some("a".into()), Some("YQ==".into())).bytes().is_none());
        assert!(said(None, Some("YQ".into())).bytes().is_none());
        assert!(said(None, Some("?".into())).bytes().is_none());
    }
}
