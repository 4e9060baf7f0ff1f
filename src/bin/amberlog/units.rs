//! Durations, sizes and names in human form.

use std::time::Duration;

/// Splits a number from the unit after it, which must be one of `units`. Returns the number and the
/// factor of the unit.
fn split_unit<'a, T: Copy>(text: &'a str, units: &[(char, T)]) -> Option<(&'a str, T)> {
    units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, *factor)))
}

/// Returns a number of streams in words, of which some are deleted: `91 streams, and 83 deleted`.
pub(crate) fn streams_text(streams: u64, deleted: u64) -> String {
    let living = count(streams, "stream");
    if deleted == 0 { living } else { format!("{living}, and {deleted} deleted") }
}

/// Parses a label: `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("invalid label (expected KEY=VALUE, e.g. user=7)"),
    }
}

/// Parses a number of bytes, with an optional k, M or G for the powers of 1,024.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, &'static str> {
    let wrong = "invalid number of bytes (expected e.g. 4096, 64k, 1M or 2G)";
    let units = [('k', 10), ('K', 10), ('m', 20), ('M', 20), ('g', 30), ('G', 30)];
    let (digits, shift) = split_unit(text, &units).unwrap_or((text, 0));
    let number: usize = digits.parse().map_err(|_| wrong)?;
    number.checked_mul(1 << shift).ok_or("invalid number of bytes (too large for this machine)")
}

/// Parses a duration: a number followed by s, m, h, d or w.
pub(crate) fn parse_age(text: &str) -> Result<Duration, &'static str> {
    let wrong = "invalid duration (expected e.g. 90s, 15m, 12h, 30d or 8w)";
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 7 * 86_400)];
    let (number, seconds) = split_unit(text, &units).ok_or(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or(wrong)
}

/// Formats a number of bytes with a unit.
pub(crate) fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB"] {
        if scaled >= 1024.0 {
            (scaled, unit) = (scaled / 1024.0, larger);
        }
    }
    format!("{scaled:.1} {unit}")
}

/// Formats a count and its noun: "1 event", "2 events".
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_key() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_label("a").is_err());
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64k"), Ok(64 << 10));
        assert_eq!(parse_bytes("1M"), Ok(1 << 20));
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        for wrong in ["", "k", "-1", "1.5M", "1 M", "1MB", "99999999999999999999", "é"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(64 << 20), "64.0 MiB");
    }

    #[test]
    fn ages_have_units() {
        assert_eq!(parse_age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_age("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_age("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(parse_age("2w"), Ok(Duration::from_secs(1_209_600)));
        for wrong in ["", "d", "30", "-1d", "1.5h", "1 h", "1y", "9999999999999999999w", "é"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
