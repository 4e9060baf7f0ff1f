//! Attributes in a catalog batch: a sequence of tagged values that describe its stream.

use super::{SEQ_MAX, attribute as layout, label, parent, put, take, take_u32, take_u64};
use crate::types::StreamState;

/// One attribute of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attribute<'a> {
    /// Name of the stream; empty if it has none.
    Name(&'a str),
    /// Label of the stream; `None` as its value removes it.
    Label { key: &'a str, value: Option<&'a str> },
    /// Data that the host stores with the stream; empty if there is none.
    Data(&'a [u8]),
    /// Lifecycle state of the stream.
    State(StreamState),
    /// First seq that was not trimmed.
    Start(u64),
    /// Origin of a fork: the parent stream and the seq at which it was forked.
    Parent { stream: [u8; 16], seq: u64 },
    /// Supersedes everything that earlier commits record of the stream's metadata.
    Summary,
    /// Attribute of a newer version that this one may skip.
    Optional,
}

/// Reason why a sequence of attributes could not be decoded to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttributeError {
    /// Required attribute with an unknown tag.
    Unknown,
    /// Bytes that do not encode an attribute.
    Malformed,
}

/// Iterator over the attributes in the bytes of a catalog batch.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, AttributeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let Some(head) = rest.get(..layout::BYTES) else {
            return Some(Err(AttributeError::Malformed));
        };
        let tag = u16::from_le_bytes(take(head, &layout::TAG));
        let end = (take_u32(head, &layout::LENGTH) as usize).saturating_add(layout::BYTES);
        let Some(value) = rest.get(layout::BYTES..end) else {
            return Some(Err(AttributeError::Malformed));
        };
        self.0 = &rest[end..];
        if tag & layout::TAG_OPTIONAL != 0 {
            return Some(Ok(Attribute::Optional));
        }
        if !(layout::TAG_NAME..=layout::TAG_SUMMARY).contains(&tag) {
            return Some(Err(AttributeError::Unknown));
        }
        Some(decode(tag, value).ok_or(AttributeError::Malformed))
    }
}

fn decode(tag: u16, value: &[u8]) -> Option<Attribute<'_>> {
    Some(match tag {
        layout::TAG_NAME => Attribute::Name(std::str::from_utf8(value).ok()?),
        layout::TAG_LABEL => {
            let (head, rest) = value.split_at_checked(label::BYTES)?;
            let key_bytes = u16::from_le_bytes(take(head, &label::KEY_BYTES));
            let (key, value) = rest.split_at_checked(usize::from(key_bytes))?;
            let value = std::str::from_utf8(value).ok()?;
            let value = (!value.is_empty()).then_some(value);
            Attribute::Label { key: std::str::from_utf8(key).ok()?, value }
        }
        layout::TAG_DATA => Attribute::Data(value),
        layout::TAG_STATE => Attribute::State(match value {
            [0] => StreamState::Active,
            [1] => StreamState::Archived,
            [2] => StreamState::Deleted,
            _ => return None,
        }),
        layout::TAG_START => Attribute::Start(seq(u64::from_le_bytes(value.try_into().ok()?))?),
        layout::TAG_PARENT if value.len() == parent::BYTES => Attribute::Parent {
            stream: take(value, &parent::STREAM),
            seq: seq(take_u64(value, &parent::SEQ))?,
        },
        layout::TAG_SUMMARY if value.is_empty() => Attribute::Summary,
        _ => return None,
    })
}

/// Returns the seq, or `None` if it is greater than any seq of a stream.
fn seq(value: u64) -> Option<u64> {
    (value <= SEQ_MAX).then_some(value)
}

/// Appends an attribute to the bytes of a catalog batch.
pub(crate) fn put_attribute(attribute: &Attribute<'_>, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; layout::BYTES]);
    let value = bytes.len();
    let tag = match attribute {
        Attribute::Name(name) => {
            bytes.extend_from_slice(name.as_bytes());
            layout::TAG_NAME
        }
        Attribute::Label { key, value } => {
            bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
            layout::TAG_LABEL
        }
        Attribute::Data(data) => {
            bytes.extend_from_slice(data);
            layout::TAG_DATA
        }
        Attribute::State(state) => {
            bytes.push(match state {
                StreamState::Active => 0,
                StreamState::Archived => 1,
                StreamState::Deleted => 2,
            });
            layout::TAG_STATE
        }
        Attribute::Start(seq) => {
            bytes.extend_from_slice(&seq.to_le_bytes());
            layout::TAG_START
        }
        Attribute::Parent { stream, seq } => {
            bytes.extend_from_slice(stream);
            bytes.extend_from_slice(&seq.to_le_bytes());
            layout::TAG_PARENT
        }
        Attribute::Summary => layout::TAG_SUMMARY,
        Attribute::Optional => layout::TAG_OPTIONAL,
    };
    let length = bytes.len().saturating_sub(value) as u32;
    let head = &mut bytes[start..value];
    put(head, &layout::TAG, &tag.to_le_bytes());
    put(head, &layout::LENGTH, &length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_and_an_unknown_tag_is_not_damage() {
        let all = [
            Attribute::Name("Grüße"),
            Attribute::Name(""),
            Attribute::Label { key: "größe", value: Some("7") },
            Attribute::Label { key: "k", value: None },
            Attribute::Data(b"\0\xff"),
            Attribute::State(StreamState::Active),
            Attribute::State(StreamState::Archived),
            Attribute::State(StreamState::Deleted),
            Attribute::Start(1 << 40),
            Attribute::Parent { stream: [3; 16], seq: 9 },
            Attribute::Summary,
            Attribute::Optional,
        ];
        let mut row = Vec::new();
        all.iter().for_each(|attribute| put_attribute(attribute, &mut row));
        let back: Vec<_> = Attributes(&row).collect::<Result<_, _>>().expect("as written");
        assert_eq!(back, all);
        let mut name = Vec::new();
        put_attribute(&all[0], &mut name);
        let cut: Vec<_> = Attributes(&name[..name.len() - 1]).collect();
        assert_eq!(cut, [Err(AttributeError::Malformed)]);
        name[0] = 99;
        assert_eq!(Attributes(&name).next(), Some(Err(AttributeError::Unknown)));
        name[1] = 0x80;
        assert_eq!(Attributes(&name).next(), Some(Ok(Attribute::Optional)));
    }

    #[test]
    fn values_that_no_writer_writes_are_malformed() {
        for (tag, value) in [
            (layout::TAG_NAME, &b"\xff"[..]),
            (layout::TAG_LABEL, b"\x05\0key"),
            (layout::TAG_LABEL, b"\x01"),
            (layout::TAG_STATE, b"\x03"),
            (layout::TAG_STATE, b""),
            (layout::TAG_START, b"1234567"),
            (layout::TAG_START, b"\0\0\0\0\0\0\0\x80"),
            (layout::TAG_PARENT, b"a stream's id...\0\0\0\0\0\0\0\x80"),
            (layout::TAG_PARENT, b"too short"),
            (layout::TAG_SUMMARY, b"\0"),
        ] {
            let mut bytes = Vec::new();
            put_attribute(&Attribute::Data(value), &mut bytes);
            bytes[0] = tag as u8;
            assert_eq!(Attributes(&bytes).next(), Some(Err(AttributeError::Malformed)), "{tag}");
        }
    }
}
