//! Portable JSON: read alike by the parsers of all languages, and free of characters that end a
//! line for some of them.
//!
//! RFC 7493 (I-JSON) defines the common subset: no duplicate names, no lone surrogates, no number
//! beyond the range and precision of a double. Parsers also limit the depth (.NET to 64), and some
//! end lines at more than `\n`: Node's `readline` at U+2028, Python's `splitlines` at U+0085. Any
//! other JSON is exported as text, which is as exact.

use std::collections::HashSet;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::ser::Formatter;

/// Maximum depth of a payload; the line adds two levels around it.
const DEPTH_MAX: usize = 60;
/// Largest integer up to which all integers are doubles: 2^53 - 1.
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Number of significant digits that identify any double.
const DIGITS_MAX: usize = 17;

/// Returns whether a character is escaped in strings: some parser ends a line at it, or a terminal
/// acts on it.
fn is_awkward(character: char) -> bool {
    matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

/// Formatter that escapes awkward characters in strings.
pub(super) struct EscapingFormatter;

impl Formatter for EscapingFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut done = 0;
        for (at, awkward) in fragment.match_indices(is_awkward) {
            writer.write_all(&fragment.as_bytes()[done..at])?;
            for unit in awkward.encode_utf16() {
                write!(writer, "\\u{unit:04x}")?;
            }
            done = at.saturating_add(awkward.len());
        }
        writer.write_all(&fragment.as_bytes()[done..])
    }
}

/// Returns whether a text, which must be JSON, is portable.
pub(super) fn is_portable(json: &str) -> bool {
    let mut from = serde_json::Deserializer::from_str(json);
    let mut is_checked = || Checked { depth_left: DEPTH_MAX }.deserialize(&mut from).is_ok();
    !json.contains(is_awkward) && numbers(json).all(is_double) && is_checked()
}

/// Iterates over the numbers of a text that is JSON.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escaped) = (false, false);
    let parts = json.split(move |character: char| {
        let was_in_string = in_string;
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        was_in_string || in_string || !(character.is_ascii_digit() || "+-.eE".contains(character))
    });
    // The letters of `true` and `false` include an e.
    parts.filter(|part| part.bytes().any(|byte| byte.is_ascii_digit()))
}

/// Returns whether a number survives the conversion to a double.
fn is_double(number: &str) -> bool {
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        Some(at) => (&number[..at], true),
        None => (number, false),
    };
    if !exponent && !mantissa.contains('.') {
        let digits = mantissa.trim_start_matches('-');
        return digits.parse::<u64>().is_ok_and(|number| number <= INTEGER_MAX);
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0').trim_end_matches('0');
    let double: f64 = number.parse().unwrap_or(f64::INFINITY);
    digits.len() <= DIGITS_MAX && double.is_finite() && (double != 0.0) != digits.is_empty()
}

/// Visitor that accepts a value without duplicate names and lone surrogates, of at most this depth.
#[derive(Clone, Copy)]
struct Checked {
    depth_left: usize,
}

impl Checked {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let left = self.depth_left.checked_sub(1);
        left.map(|depth_left| Self { depth_left }).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Defines methods of a visitor that accept any value of a type.
macro_rules! accept {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that reads alike everywhere")
    }

    accept!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while values.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name twice"));
            }
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_alike_everywhere_is_portable() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let fine = [
            "7",
            "-0",
            "true",
            "null",
            "\"\"",
            "{}",
            "[]",
            " [1 , 2.50]\t",
            "9007199254740991",
            "-9007199254740991",
            "0.30000000000000004",
            "1e300",
            "-2.5E-7",
            "0.0",
            "0e0",
            "1e22",
            "\"9007199254740993\"",
            "{\"1e400\":\"1e400\"}",
            "\"\\ud83d\\ude00\"",
            "\"\\\"1e400\"",
            "{\"a\":{\"a\":1},\"b\":[{\"a\":1}]}",
            "[true,false]",
        ];
        for json in fine.into_iter().chain([deep(60).as_str()]) {
            assert!(is_portable(json), "{json}");
        }
        let other = [
            "9007199254740992",
            "-9007199254740993",
            "18446744073709551616",
            "1e400",
            "-1e400",
            "1e-400",
            "3.141592653589793238",
            "100000000000000000000.5e0",
            "[1,{\"a\":12345678901234567890}]",
            "\"\\ud800\"",
            "\"\\ude00\\ud83d\"",
            "{\"\\ud800\":1}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "[{\"b\":1,\"b\":1}]",
            "\"\u{2028}\"",
            "\"\u{85}\"",
            "\"\u{9b}\"",
            "\"\u{202e}\"",
            "\"\u{7f}\"",
        ];
        for json in other.into_iter().chain([deep(61).as_str(), deep(100_000).as_str()]) {
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(json).is_ok(), "{json}");
            assert!(!is_portable(json), "{json}");
        }
    }
}
