//! What a catalog batch says of its stream: a row of tagged values.

use super::{attribute as layout, cold, label, parent, put, take, take_u32, take_u64};
use crate::types::StreamState;

/// One thing said of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attribute<'a> {
    /// The stream's name; none when empty.
    Name(&'a str),
    /// A label; it is taken away when there is no value.
    Label { key: &'a str, value: Option<&'a str> },
    /// What the host keeps with the stream; nothing when empty.
    Data(&'a [u8]),
    /// What may be done with the stream.
    State(StreamState),
    /// The first seq that is not forgotten.
    Start(u64),
    /// What it was forked from, and where.
    Parent { stream: [u8; 16], seq: u64 },
    /// These seqs are in the archive file that has this length and this salt.
    Cold(ColdSeqs),
    /// Something that a newer version says and an older one may pass over.
    Optional,
}

/// What moved to an archive file, and which file that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ColdSeqs {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
    pub(crate) salt: u32,
}

/// Why a row of attributes could not be read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttributeError {
    /// A tag that must be understood and is not.
    Unknown,
    /// The bytes are no attributes.
    Malformed,
}

/// The attributes in a catalog batch's bytes.
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
        if !(layout::TAG_NAME..=layout::TAG_COLD).contains(&tag) {
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
        layout::TAG_START => Attribute::Start(u64::from_le_bytes(value.try_into().ok()?)),
        layout::TAG_PARENT if value.len() == parent::BYTES => Attribute::Parent {
            stream: take(value, &parent::STREAM),
            seq: take_u64(value, &parent::SEQ),
        },
        layout::TAG_COLD if value.len() == cold::BYTES => Attribute::Cold(ColdSeqs {
            start: take_u64(value, &cold::START),
            end: take_u64(value, &cold::END),
            file_bytes: take_u64(value, &cold::FILE_BYTES),
            salt: take_u32(value, &cold::SALT),
        }),
        _ => return None,
    })
}

/// Appends an attribute to a catalog batch's bytes.
pub(crate) fn put_attribute(attribute: &Attribute<'_>, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + layout::BYTES, 0);
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
        Attribute::Cold(seqs) => {
            for number in [seqs.start, seqs.end, seqs.file_bytes] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&seqs.salt.to_le_bytes());
            layout::TAG_COLD
        }
        Attribute::Optional => layout::TAG_OPTIONAL,
    };
    let length = (bytes.len() - start - layout::BYTES) as u32;
    let head = &mut bytes[start..start + layout::BYTES];
    put(head, &layout::TAG, &tag.to_le_bytes());
    put(head, &layout::LENGTH, &length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_and_an_unknown_tag_is_told_from_damage() {
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
            Attribute::Cold(ColdSeqs { start: 2, end: 1 << 33, file_bytes: 9_000, salt: 7 }),
            Attribute::Optional,
        ];
        let mut row = Vec::new();
        all.iter().for_each(|one| put_attribute(one, &mut row));
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
    fn values_that_no_writer_makes_are_malformed() {
        for (tag, value) in [
            (layout::TAG_NAME, &b"\xff"[..]),
            (layout::TAG_LABEL, b"\x05\0key"),
            (layout::TAG_LABEL, b"\x01"),
            (layout::TAG_STATE, b"\x03"),
            (layout::TAG_STATE, b""),
            (layout::TAG_START, b"1234567"),
            (layout::TAG_PARENT, b"too short"),
            (layout::TAG_COLD, b"too short"),
        ] {
            let mut bytes = Vec::new();
            put_attribute(&Attribute::Data(value), &mut bytes);
            bytes[0] = tag as u8;
            assert_eq!(Attributes(&bytes).next(), Some(Err(AttributeError::Malformed)), "{tag}");
        }
    }
}
