//! Judgement of an unsealed segment: what the end of its commits means for the log.
//!
//! Pure: the loader gathers the evidence and carries out the verdict.
//!
//! | Next segment | Commits end | File | Lost after them | Outcome |
//! |---|---|---|---|---|
//! | starts at a known position | before it | any | the positions between | keep |
//! | starts at a known position | at or after it | any | nothing | seal |
//! | starts at an unknown position, a later one is known | anywhere | any | nothing | seal |
//! | starts at an unknown position, none is known | anywhere | cut off | unknown | keep |
//! | starts at an unknown position, none is known | anywhere | whole | nothing | seal |
//! | none | anywhere | cut off | unknown | continue |
//! | none | anywhere | whole | nothing | continue |
//!
//! A file is cut off if it is shorter than it was created and does not end like a clean close. A
//! damaged segment is kept instead of sealed, because sealing it would hide the damage. The log
//! stops instead of continuing where a new commit could be taken for a stray record, or where the
//! disk cannot read what stands after the commits.

use std::ops::Range;

use super::later::Later;
use super::replay::End;
use crate::sabotage::{Sabotage, broken};

/// Part of the log that was loaded so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogPrefix {
    /// Expected position of the next commit.
    pub(super) next: u64,
    /// Position of the last commit that is known to be synced.
    pub(super) durable: u64,
    /// Position of the last commit that is known to be acknowledged.
    pub(super) acked: u64,
}

impl LogPrefix {
    /// Nothing: the prefix before the first segment.
    pub(super) const NONE: Self = Self { next: 1, durable: 0, acked: 0 };

    /// Returns the position of the last commit; 0 before the first.
    pub(super) fn last_position(self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the prefix after a sealed segment, whose commits up to `last` were all synced.
    pub(super) fn sealed_to(self, last: u64) -> Self {
        Self {
            next: last.saturating_add(1),
            durable: self.durable.max(last),
            acked: self.acked.max(last),
        }
    }

    /// Returns the positions that a file may have held before the segment after it.
    pub(super) fn until(self, later: Option<Later>) -> Range<u64> {
        self.next..later.and_then(|later| later.first).unwrap_or(self.next).max(self.next)
    }
}

/// Facts about an unsealed segment, besides the end of its commits.
#[derive(Clone, Copy)]
pub(super) struct Evidence {
    /// Next segment, if any.
    pub(super) later: Option<Later>,
    /// Length of the file in bytes.
    pub(super) bytes: u64,
    /// Length that the file was created with, in bytes.
    pub(super) reserved_bytes: u64,
    /// True if its commits are damaged.
    pub(super) is_damaged: bool,
    /// True if the disk cannot read all bytes after its commits.
    pub(super) is_unread: bool,
}

/// Judgement of an unsealed segment.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) lost: Lost,
    pub(super) outcome: Outcome,
    pub(super) prefix: LogPrefix,
}

/// Commits lost after the end of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    Nothing,
    Positions(Range<u64>),
    /// The file was cut off, and no later segment bounds the loss.
    Unknown,
}

/// Treatment of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// A writer adds the footer.
    Seal,
    /// The file stays without its footer.
    Keep,
    /// The log continues after its commits.
    Continue,
    /// The log continues only after a repair.
    Stop,
}

/// Judges an unsealed segment; `before` is the prefix before it.
pub(super) fn judge(end: &End, before: LogPrefix, evidence: Evidence) -> Verdict {
    let Evidence { later, bytes, reserved_bytes, is_damaged, is_unread } = evidence;
    let is_cut_off = bytes < reserved_bytes && !end.is_closed_within(bytes);
    let lost = match later {
        Some(Later { first: Some(first), .. }) if end.next < first => {
            Lost::Positions(end.next..first)
        }
        None | Some(Later { first: None, anchored: false }) if is_cut_off => Lost::Unknown,
        _ => Lost::Nothing,
    };
    let is_blocked = end.is_blocked && !broken(Sabotage::GoOnWhereBlocked);
    let outcome = match later {
        None if is_blocked || is_unread => Outcome::Stop,
        None => Outcome::Continue,
        Some(_) if lost != Lost::Nothing || is_damaged => Outcome::Keep,
        Some(_) => Outcome::Seal,
    };
    let next = if let Lost::Positions(lost) = &lost { lost.end } else { end.next };
    let last = next.saturating_sub(1);
    let durable = before.durable.max(end.durable).min(last);
    let acked = before.acked.max(end.acked).max(durable).min(last);
    Verdict { lost, outcome, prefix: LogPrefix { next, durable, acked } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Ending;
    use crate::types::Timestamp;

    const RESERVED_BYTES: u64 = 16_384;
    const BEFORE: LogPrefix = LogPrefix { next: 10, durable: 9, acked: 9 };

    /// End of commits 10 to 19, of which 15 are synced and 17 acknowledged.
    fn end(witnessed: Option<Ending>) -> End {
        End {
            offset: 8_192,
            next: 20,
            durable: 15,
            acked: 17,
            unproven: Vec::new(),
            witnessed,
            tail_record_durable: 0,
            tail_record_vouched: Timestamp::default(),
            torn_to: None,
            torn_commits: 0,
            seen: 20,
            is_blocked: false,
        }
    }

    /// Files by their end and length.
    fn whole() -> Vec<(End, u64)> {
        let closed = end(Some(Ending::Clean));
        let bytes = closed.behind_tail_record();
        vec![(end(None), RESERVED_BYTES), (closed, bytes)]
    }

    fn cut_off() -> Vec<(End, u64)> {
        let closed = end(Some(Ending::Clean));
        let bytes = closed.behind_tail_record() - 1;
        let open = end(Some(Ending::Open));
        vec![(end(None), RESERVED_BYTES - 1), (closed, bytes), (open, RESERVED_BYTES - 1)]
    }

    fn any() -> Vec<(End, u64)> {
        [whole(), cut_off()].concat()
    }

    /// Row of the table: its text, the next segments and files that it covers, and its verdict.
    type Row = (&'static str, Vec<Option<Later>>, Vec<(End, u64)>, Lost, Outcome);

    fn rows() -> [Row; 7] {
        use Lost::{Nothing, Positions, Unknown};
        use Outcome::{Continue, Keep, Seal};
        let known = |first| Some(Later { first: Some(first), anchored: true });
        let unknown = |anchored| Some(Later { first: None, anchored });
        [
            (
                "starts at a known position | before it | any | the positions between | keep",
                vec![known(21), known(25)],
                any(),
                Positions(20..25),
                Keep,
            ),
            (
                "starts at a known position | at or after it | any | nothing | seal",
                vec![known(20), known(15)],
                any(),
                Nothing,
                Seal,
            ),
            (
                "starts at an unknown position, a later one is known | anywhere | any | nothing \
                 | seal",
                vec![unknown(true)],
                any(),
                Nothing,
                Seal,
            ),
            (
                "starts at an unknown position, none is known | anywhere | cut off | unknown \
                 | keep",
                vec![unknown(false)],
                cut_off(),
                Unknown,
                Keep,
            ),
            (
                "starts at an unknown position, none is known | anywhere | whole | nothing | seal",
                vec![unknown(false)],
                whole(),
                Nothing,
                Seal,
            ),
            (
                "none | anywhere | cut off | unknown | continue",
                vec![None],
                cut_off(),
                Unknown,
                Continue,
            ),
            (
                "none | anywhere | whole | nothing | continue",
                vec![None],
                whole(),
                Nothing,
                Continue,
            ),
        ]
    }

    #[test]
    fn p6_every_row_of_the_table_has_its_verdict() {
        for (row, laters, files, lost, outcome) in rows() {
            for (later, (end, bytes)) in
                laters.iter().flat_map(|later| files.iter().map(move |file| (*later, file)))
            {
                for flags in 0..8 {
                    let [is_damaged, is_unread, is_blocked] = [1, 2, 4].map(|bit| flags & bit != 0);
                    let end = End { is_blocked, ..end.clone() };
                    let reserved_bytes = RESERVED_BYTES;
                    let bytes = *bytes;
                    let evidence = Evidence { later, bytes, reserved_bytes, is_damaged, is_unread };
                    let verdict = judge(&end, BEFORE, evidence);
                    let lost = match (&lost, later) {
                        (Lost::Positions(_), Some(Later { first: Some(first), .. })) => {
                            Lost::Positions(20..first)
                        }
                        (lost, _) => lost.clone(),
                    };
                    let outcome = match outcome {
                        Outcome::Seal if is_damaged => Outcome::Keep,
                        Outcome::Continue if is_unread || is_blocked => Outcome::Stop,
                        outcome => outcome,
                    };
                    assert_eq!((verdict.lost, verdict.outcome), (lost, outcome), "{row}, {flags}");
                }
            }
        }
    }

    #[test]
    fn the_table_of_this_module_is_the_tested_one() {
        let head = "//! | Next segment | Commits end | File | Lost after them | Outcome |\n";
        let lines = rows().map(|(row, ..)| format!("//! | {row} |\n"));
        let table = format!("{head}//! |---|---|---|---|---|\n{}//!\n", lines.concat());
        assert!(include_str!("judge.rs").contains(&table), "{table}");
    }

    #[test]
    fn p6_the_watermarks_never_pass_the_last_commit() {
        let judged = |before, first| {
            let later = Some(Later { first, anchored: true });
            let (is_damaged, is_unread) = (false, false);
            let (bytes, reserved_bytes) = (RESERVED_BYTES, RESERVED_BYTES);
            let evidence = Evidence { later, bytes, reserved_bytes, is_damaged, is_unread };
            judge(&end(None), before, evidence).prefix
        };
        assert_eq!(judged(BEFORE, None), LogPrefix { next: 20, durable: 15, acked: 17 });
        assert_eq!(judged(BEFORE, Some(30)), LogPrefix { next: 30, durable: 15, acked: 17 });
        let ahead = LogPrefix { next: 10, durable: 22, acked: 40 };
        assert_eq!(judged(ahead, None), LogPrefix { next: 20, durable: 19, acked: 19 });
        assert_eq!(judged(ahead, Some(30)), LogPrefix { next: 30, durable: 22, acked: 29 });
    }
}
