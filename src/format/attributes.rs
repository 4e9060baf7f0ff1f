//! What a catalog batch says of its stream: a row of tagged values.

use super::{attribute as layout, put, take, take_u32};

/// One thing said of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attribute<'a> {
    /// The stream's name.
    Name(&'a str),
    /// Something that a newer version says and an older one may pass over.
    Optional,
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
        Some(match tag {
            layout::TAG_NAME => match std::str::from_utf8(value) {
                Ok(name) => Ok(Attribute::Name(name)),
                Err(_) => Err(AttributeError::Malformed),
            },
            tag if tag & layout::TAG_OPTIONAL != 0 => Ok(Attribute::Optional),
            _ => Err(AttributeError::Unknown),
        })
    }
}

/// The attribute that names a stream.
pub(crate) fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = vec![0; layout::BYTES];
    put(&mut bytes, &layout::TAG, &layout::TAG_NAME.to_le_bytes());
    put(&mut bytes, &layout::LENGTH, &(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_an_unknown_tag_is_told_from_damage() {
        let bytes = encode_name("Grüße");
        let all: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(all, [Ok(Attribute::Name("Grüße"))]);
        let cut: Vec<_> = Attributes(&bytes[..bytes.len() - 1]).collect();
        assert_eq!(cut, [Err(AttributeError::Malformed)]);
        let mut other = bytes.clone();
        other[0] = 99;
        assert_eq!(Attributes(&other).next(), Some(Err(AttributeError::Unknown)));
        other[1] = 0x80;
        assert_eq!(Attributes(&other).next(), Some(Ok(Attribute::Optional)));
    }
}
