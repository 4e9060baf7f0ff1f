//! Moments, sizes and names, as people read and write them.

use std::time::Duration;

use amberlog::Timestamp;

/// The moment in RFC 3339, in UTC, to the microsecond.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = time.as_micros();
    let seconds = micros / 1_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = micros % 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years that start in March put the leap day last; eras of 400 years all have the same days.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The day since 1970 of a date, as [`civil`] has it; `None` when there is no such day, or it lies before.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) {
        return None;
    }
    let guess = (year - 1970) * 365 + (month.checked_sub(1)?) * 28;
    // Months and leap years only make it later.
    (guess..guess + 4000).find(|days| civil(*days) == (year, month, day))
}

/// A moment as a person writes it, in UTC: a date, or a date and a time.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || "no moment; 2026-11-22 and 2026-11-22T18:00:00Z are".to_owned();
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z').ok_or_else(wrong)?),
        None => (text, "00:00:00"),
    };
    let numbers = |text: &str, separator| {
        let parts = text.split(separator).map(|part| part.parse::<u64>().ok());
        let parts = parts.collect::<Option<Vec<u64>>>()?;
        <[u64; 3]>::try_from(parts).ok()
    };
    let [year, month, day] = numbers(date, '-').ok_or_else(wrong)?;
    let [hour, minute, second] = numbers(time, ':').ok_or_else(wrong)?;
    if hour > 23 || minute > 59 || second > 59 {
        return Err(wrong());
    }
    let days = days(year, month, day).ok_or_else(wrong)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Ok(Timestamp::from_micros(seconds * 1_000_000))
}

/// A label as a person writes it: `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("no label; user=7 is one".to_owned()),
    }
}

/// Bytes as a person writes them: a number, or a number with k, M or G for the powers of 1,024.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: usize =
        digits.parse().map_err(|_| "not a number of bytes; 4096, 64k, 1M and 2G are".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more bytes than this machine can count".to_owned())
}

/// A span of time as a person writes it: a number with s, m, h, d or w behind it.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || "no span of time; 90s, 15m, 12h, 30d and 8w are".to_owned();
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        Some(b'd') => 86_400,
        Some(b'w') => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

/// Bytes as a person reads them.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A count and its noun: "1 event", "2 events".
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A name on one line, whatever is in it.
pub(crate) fn printable(name: &str) -> String {
    if name.contains(char::is_control) { name.escape_debug().to_string() } else { name.to_owned() }
}

/// Bytes in base 16.
pub(crate) fn base16(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]));
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, micros: u64) -> String {
        rfc3339(Timestamp::from_micros(seconds * 1_000_000 + micros))
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_399, 999_999), "2000-02-28T23:59:59.999999Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_709_251_199, 1), "2024-02-29T23:59:59.000001Z");
        assert_eq!(at(1_709_251_200, 0), "2024-03-01T00:00:00.000000Z");
        assert_eq!(at(1_774_651_635, 772_000), "2026-03-27T22:47:15.772000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(at(253_402_300_800, 0), "10000-01-01T00:00:00.000000Z");
        let last = rfc3339(Timestamp::from_micros(u64::MAX));
        assert!(last.starts_with("586524-"), "{last}");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for days in 1..200_000 {
            let now = civil(days);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            assert!(
                now == next_day || now == next_month || now == (before.0 + 1, 1, 1),
                "{before:?} {now:?}"
            );
            before = now;
        }
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        for text in ["1970-01-01", "2024-02-29", "2026-11-22", "9999-12-31"] {
            let time = parse_time(text).expect("a day");
            assert_eq!(rfc3339(time), format!("{text}T00:00:00.000000Z"));
        }
        let time = parse_time("2026-11-22T18:30:05Z").expect("a moment");
        assert_eq!(rfc3339(time), "2026-11-22T18:30:05.000000Z");
        for wrong in [
            "",
            "2025-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-22T24:00:00Z",
            "1969-01-01",
            "2026-11-22T18:00:00",
            "22.11.2026",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
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

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(printable("a/b \u{e9}"), "a/b \u{e9}");
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(base16(&[0, 0xff, 0x1a]), "00ff1a");
    }
}
