//! Times: microseconds since the Unix epoch, and their text.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ParseError;

const DAY_MICROS: u64 = 86_400_000_000;
/// Last year that a time can represent.
const YEAR_MAX: u64 = 586_524;

/// Time in microseconds since the Unix epoch. It dates events and orders nothing (P11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the time `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the number of microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Converts the time to the standard library's type.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }

    /// Returns the current time of the system's clock. Times before 1970 become the epoch.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns year, month and day in UTC, in the proleptic Gregorian calendar.
    pub(super) fn date(self) -> (u64, u64, u64) {
        // Days since 1970, counted in eras of 400 years that begin in March (Hinnant, 2013).
        let days = self.0 / DAY_MICROS + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        (era * 400 + year + u64::from(month >= 10), (month + 2) % 12 + 1, day)
    }
}

/// Returns the number of days from 1970 to a day; `None` if the calendar does not have the day.
fn days_to(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=YEAR_MAX).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
    {
        return None;
    }
    // The inverse of `Timestamp::date`.
    let (in_march, year) = ((month + 9) % 12, year - u64::from(month <= 2));
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * in_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let is_that_day = |time: Timestamp| time.date() == (year + u64::from(month <= 2), month, day);
    Some(days).filter(|days| is_that_day(Timestamp(days.saturating_mul(DAY_MICROS))))
}

/// Parses three numbers between separators.
fn three(text: &str, separator: char) -> Option<[u64; 3]> {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split(separator).map(|part| part.parse().ok().filter(|_| is_number(part)));
    parts.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// Parses the decimals of a second, one to six digits.
fn micros_of(decimals: &str) -> Option<u64> {
    let is_valid =
        (1..=6).contains(&decimals.len()) && decimals.bytes().all(|digit| digit.is_ascii_digit());
    if is_valid { format!("{decimals:0<6}").parse().ok() } else { None }
}

fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let (time, micros) = match time.split_once('.') {
        Some((time, decimals)) => (time, micros_of(decimals)?),
        None => (time, 0),
    };
    let ([year, month, day], [hour, minute, second]) = (three(date, '-')?, three(time, ':')?);
    if hour >= 24 || minute >= 60 || second >= 60 {
        return None;
    }
    let of_day = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    let days = days_to(year, month, day)?;
    days.checked_mul(DAY_MICROS)?.checked_add(of_day).map(Timestamp)
}

impl FromStr for Timestamp {
    type Err = ParseError;

    /// Parses an RFC 3339 time in UTC from the year 1970 on, to the microsecond; or a date, which
    /// stands for its midnight.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text)
            .ok_or(ParseError("invalid time (expected e.g. 2026-11-22 or 2026-11-22T18:00:00Z)"))
    }
}

impl fmt::Display for Timestamp {
    /// Formats as RFC 3339, in UTC, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (seconds, micros) = (self.0 % DAY_MICROS / 1_000_000, self.0 % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({} us)", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, 1, "2024-02-29T23:59:59.000001Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000Z"),
            (1_774_651_635, 772_000, "2026-03-27T22:47:15.772000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_800, 0, "10000-01-01T00:00:00.000000Z"),
        ] {
            let time = Timestamp::from_micros(seconds * 1_000_000 + micros);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        let last = Timestamp::from_micros(u64::MAX);
        assert_eq!(last.to_string().parse(), Ok(last));
        let last = last.to_string();
        assert!(last.starts_with("586524-"), "{last}");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let date = |days: u64| Timestamp::from_micros(days * DAY_MICROS).date();
        let mut before = date(0);
        for days in 1..200_000 {
            let now = date(days);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            assert!(
                now == next_day || now == next_month || now == (before.0 + 1, 1, 1),
                "{before:?} {now:?}"
            );
            assert_eq!(days_to(now.0, now.1, now.2), Some(days));
            before = now;
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let time = |text: &str| text.parse::<Timestamp>().map(|time| time.to_string());
        for text in ["1970-01-01", "2024-02-29", "2026-11-22", "9999-12-31"] {
            assert_eq!(time(text), Ok(format!("{text}T00:00:00.000000Z")));
        }
        assert_eq!(time("2026-11-22T18:30:05Z"), Ok("2026-11-22T18:30:05.000000Z".into()));
        assert_eq!(time("2026-11-22T18:30:05.25Z"), Ok("2026-11-22T18:30:05.250000Z".into()));
        for wrong in [
            "",
            "2025-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-22T24:00:00Z",
            "2026-11-22T00:60:00Z",
            "2026-11-22T00:00:60Z",
            "2026-11-22T00:00:00.Z",
            "2026-11-22T00:00:00.1234567Z",
            "2026-11-22T00:00:00.+1Z",
            "2026-11-00",
            "+2026-11-01",
            "2026-18446744073709551615-01",
            "18446744073709551615-01-01",
            "586525-01-01",
            "2026-11-22T18446744073709551615:00:00Z",
            "1969-01-01",
            "1969-12-31",
            "2026-11-22T18:00:00",
            "22.11.2026",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
