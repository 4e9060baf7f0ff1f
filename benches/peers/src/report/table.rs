//! Tables, and the sentence that names the winner.

use std::fmt::Write as _;

use crate::contestants;
use crate::results::{Entry, Raced, Syncs};
use crate::scenarios::{Better, Scenario};

/// Name of the contestant that is compared with all others.
pub(super) const OURS: &str = "amberlog";
/// Name of the floor in the summary.
pub(super) const FLOOR: &str = "floor";
/// Difference below which two figures count as equal.
const NOISE: f64 = 1.10;

/// Returns true if the entry is a floor and not a store.
pub(super) fn is_floor(contestant: &str) -> bool {
    contestants::by_name(contestant).is_some_and(|contestant| contestant.is_floor())
}

/// Returns the entries, best first.
pub(super) fn ranked<'a>(scenario: &Scenario, raced: &'a Raced) -> Vec<(&'a Entry, f64)> {
    let first = scenario.columns[0];
    let value = |entry: &'a Entry| Some((entry, entry.figure(first.figure)?.0));
    let mut ranked: Vec<_> = raced.entries.iter().filter_map(value).collect();
    ranked.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    if first.better == Better::More {
        ranked.reverse();
    }
    ranked
}

/// Returns a table in Markdown.
pub(crate) fn table_text(scenario: &Scenario, raced: &Raced) -> String {
    let mut text = String::from("| |");
    for column in scenario.columns {
        let _ = write!(text, " {} |", column.heading);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(scenario.columns.len()));
    text.push('\n');
    for (entry, _) in ranked(scenario, raced) {
        let name = match entry.contestant.as_str() {
            OURS => format!("**{OURS}**"),
            name if is_floor(name) => format!("*{name}*"),
            name => name.to_owned(),
        };
        let _ = write!(text, "| {name} |");
        for (at, column) in scenario.columns.iter().enumerate() {
            let cell = entry
                .figure(column.figure)
                .map_or("–".to_owned(), |figure| cell(figure, at == 0));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn cell((middle, least, greatest): (f64, f64, f64), with_spread: bool) -> String {
    let (least, greatest) = (number(least), number(greatest));
    if with_spread && least != greatest {
        format!("{} ({least} to {greatest})", number(middle))
    } else {
        number(middle)
    }
}

/// Formats a number with about three digits, and separates thousands.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), None), |(w, r)| (w, Some(r)));
    let mut parted = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            parted.push(',');
        }
        parted.push(digit);
    }
    rest.map_or(parted.clone(), |rest| format!("{parted}.{rest}"))
}

/// Comparison of amberlog with the best peer, whose name may include the source of its figure.
pub(super) struct Verdict {
    pub(super) ours: f64,
    pub(super) peer: String,
    pub(super) theirs: f64,
    /// Ratio: above 1, amberlog is better by this factor.
    pub(super) ratio: f64,
}

impl Verdict {
    /// Compares these two.
    pub(super) fn new(better: Better, ours: f64, peer: String, theirs: f64) -> Self {
        let ratio = if better == Better::Less { theirs / ours } else { ours / theirs };
        Self { ours, peer, theirs, ratio }
    }

    /// Compares the first column of one scenario.
    pub(super) fn of(scenario: &Scenario, raced: &Raced) -> Option<Self> {
        let ranked = ranked(scenario, raced);
        let (_, ours) = *ranked.iter().find(|(entry, _)| entry.contestant == OURS)?;
        let is_peer = |name: &str| name != OURS && !is_floor(name);
        let (peer, theirs) = ranked.iter().find(|(entry, _)| is_peer(&entry.contestant))?;
        let better = scenario.columns[0].better;
        Some(Self::new(better, ours, peer.contestant.clone(), *theirs))
    }

    /// Returns the winner in a few words.
    pub(super) fn words(&self) -> String {
        if self.ratio >= NOISE {
            format!("{OURS}, {} times", number(self.ratio))
        } else if self.ratio > 1.0 / NOISE {
            "level".to_owned()
        } else {
            format!("**{}**, {} times", self.peer, number(1.0 / self.ratio))
        }
    }
}

/// Formats the system calls of a commit on one line.
pub(crate) fn calls_per_commit(syncs: &Syncs) -> String {
    let call = |(name, count): (&String, &u64)| {
        format!("{} {name}", number(*count as f64 / syncs.commits as f64))
    };
    let calls: Vec<String> = syncs.calls.iter().map(call).collect();
    calls.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1.234), "1.23");
        assert_eq!(number(0.1234), "0.123");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn a_peer_that_wins_is_named() {
        let verdict = Verdict::new(Better::Less, 150.0, "them".to_owned(), 100.0);
        assert_eq!(verdict.words(), "**them**, 1.50 times");
        let verdict = Verdict::new(Better::More, 150.0, "them".to_owned(), 100.0);
        assert_eq!(verdict.words(), "amberlog, 1.50 times");
        assert_eq!(Verdict::new(Better::More, 1.05, String::new(), 1.0).words(), "level");
    }
}
