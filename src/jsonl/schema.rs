//! Schema of the lines of an export, shared by export and import.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::portable::is_portable;
use crate::recovery::Damage;
use crate::types::{CodecId, Position, Seq, StreamId, StreamState};

/// Reason that a line is invalid.
pub(super) type Wrong = &'static str;

/// Version of the schema.
pub(super) const VERSION: u32 = 1;

/// Line of an export.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line<'a> {
    /// First line.
    Amberlog {
        /// Version of the following lines.
        export: u32,
    },
    /// Start of a stream.
    Stream(Box<StreamLine>),
    /// Event of the current stream.
    Event(#[serde(borrow)] EventLine<'a>),
    /// Rewind of the stream to this seq, which starts this generation.
    Rewind { to: u64, generation: u32 },
    /// Number of dropped seqs with no event after them.
    Gap(u64),
    /// Number of seqs whose events are trimmed or shown by no stream.
    Forgotten(u64),
    /// Number of seqs of the stream that could not be read.
    Lost {
        seqs: u64,
        #[serde(default, skip_serializing_if = "is_default")]
        dropped_before: u64,
        why: Cow<'a, str>,
    },
    /// Damage to the log.
    Damage(DamageLine),
    /// Positions of complete commits not known to be acknowledged, and their events.
    Unconfirmed { positions: Range<Position>, events: Vec<StreamSeqs> },
    /// Last line.
    End {
        streams: u64,
        events: u64,
        #[serde(default, skip_serializing_if = "is_default")]
        lost: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamLine {
    pub(super) id: StreamId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data_text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data_base64: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) state: StreamState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<ForkPoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shares: Option<ForkBase>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) start: u64,
    /// Absent for a deleted stream, whose head is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<u64>,
}

/// Stream and seq that a stream was forked from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForkPoint {
    pub(super) id: StreamId,
    pub(super) seq: u64,
}

/// Source of the events before the stream's own: another stream in a generation, before a seq.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForkBase {
    pub(super) id: StreamId,
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
    pub(super) schema_version: u8,
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

/// Damage in the form of `amberlog verify --json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DamageLine {
    pub(super) kind: String,
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    pub(super) positions: Range<Position>,
    pub(super) events: Vec<StreamSeqs>,
}

/// Seqs of a stream; empty for damage to its metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamSeqs {
    pub(super) stream: StreamId,
    pub(super) seqs: Range<Seq>,
}

impl From<&Damage> for DamageLine {
    fn from(damage: &Damage) -> Self {
        let events = damage.events.iter().cloned();
        Self {
            kind: damage.kind.as_str().to_owned(),
            path: damage.place.path.display().to_string(),
            offset: damage.place.offset,
            positions: damage.positions.clone(),
            events: events.map(|(stream, seqs)| StreamSeqs { stream, seqs }).collect(),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl StreamLine {
    /// Returns the data that the host stored with the stream.
    pub(super) fn data(&self) -> Result<Option<Cow<'_, [u8]>>, Wrong> {
        match (&self.data_text, &self.data_base64) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(text.as_bytes().into())),
            (None, Some(base64)) => {
                let data = BASE64.decode(base64).map_err(|_| "invalid base 64")?;
                Ok(Some(data.into()))
            }
            (Some(_), Some(_)) => Err("a stream has data_text or data_base64, not both"),
        }
    }
}

/// Payload as a field of an export's line: `text`, `json` or `base64`, of which exactly one is
/// present. For programs that print their events in the format of an export.
#[derive(Debug, Serialize)]
pub struct EncodedBytes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<Cow<'a, str>>,
}

impl<'a> EncodedBytes<'a> {
    /// Chooses the encoding: portable JSON verbatim, other text as text, anything else as base 64.
    #[must_use]
    pub fn new(bytes: &'a [u8], codec: CodecId) -> Self {
        let none = Self { text: None, json: None, base64: None };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Self { base64: Some(BASE64.encode(bytes).into()), ..none };
        };
        let json = if codec == CodecId::JSON { verbatim(text) } else { None };
        match json {
            Some(json) => Self { json: Some(json), ..none },
            None => Self { text: Some(text.into()), ..none },
        }
    }

    /// Returns the bytes, or `None` unless exactly one field is present and valid.
    pub(super) fn bytes(self) -> Option<Cow<'a, [u8]>> {
        match (self.text, self.json, self.base64) {
            (Some(Cow::Borrowed(text)), None, None) => Some(text.as_bytes().into()),
            (Some(Cow::Owned(text)), None, None) => Some(text.into_bytes().into()),
            (None, Some(json), None) => Some(json.get().as_bytes().into()),
            (None, None, Some(base64)) => BASE64.decode(&*base64).ok().map(Into::into),
            _ => None,
        }
    }
}

/// Returns the text as a JSON value if it is portable, on one line, and survives the round trip
/// byte for byte. Excludes `null`, which would be read as an absent field.
fn verbatim(text: &str) -> Option<&RawValue> {
    if text.contains(['\n', '\r']) || text == "null" {
        return None;
    }
    let value: &RawValue = serde_json::from_str(text).ok()?;
    (value.get() == text && is_portable(text)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(bytes: &[u8], codec: CodecId) -> &'static str {
        let encoded = EncodedBytes::new(bytes, codec);
        let way = match &encoded {
            EncodedBytes { json: Some(_), .. } => "json",
            EncodedBytes { text: Some(_), .. } => "text",
            _ => "base64",
        };
        let event = EventLine {
            seq: 0,
            generation: 0,
            kind: 0,
            schema_version: 0,
            codec: codec.0,
            time_us: 0,
            dropped_before: 0,
            text: encoded.text,
            json: encoded.json,
            base64: encoded.base64,
        };
        let line = serde_json::to_string(&Line::Event(event)).expect("JSON");
        assert!(!line.contains('\n'));
        let Line::Event(back) = serde_json::from_str(&line).expect("a line") else {
            panic!("another line: {line}")
        };
        let decoded = EncodedBytes { text: back.text, json: back.json, base64: back.base64 };
        assert_eq!(decoded.bytes().as_deref(), Some(bytes), "{line}");
        way
    }

    #[test]
    fn bytes_come_back_however_they_are_encoded() {
        for json in ["{\"a\": [1, 2.50]}", "7", "\"\\u00e9\"", "{}"] {
            assert_eq!(way(json.as_bytes(), CodecId::JSON), "json");
            assert_eq!(way(json.as_bytes(), CodecId::RAW), "text");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for json in [deep.as_str(), "1e400", "{\"a\":1,\"a\":2}"] {
            assert_eq!(way(json.as_bytes(), CodecId::JSON), "text");
        }
        for text in ["", "null", " 7", "7\n", "{\n}", "{", "\u{2028}\0\u{7f}", "7 8", "NaN"] {
            assert_eq!(way(text.as_bytes(), CodecId::JSON), "text");
        }
        for bytes in [&b"\xff"[..], b"\"\xc3\"", b"\0\x80"] {
            assert_eq!(way(bytes, CodecId::JSON), "base64");
        }
    }

    #[test]
    fn bytes_are_encoded_once() {
        let encoded = |text, base64| EncodedBytes { text, json: None, base64 };
        assert!(encoded(None, None).bytes().is_none());
        assert!(encoded(Some("a".into()), Some("YQ==".into())).bytes().is_none());
        assert!(encoded(None, Some("YQ".into())).bytes().is_none());
        assert!(encoded(None, Some("?".into())).bytes().is_none());
    }
}
