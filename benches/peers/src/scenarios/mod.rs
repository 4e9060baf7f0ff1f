//! Scenarios of the race, in the order of the page.

mod append;
mod commit;
mod group;
mod hot_cold;
mod keep;
mod mixed;
mod scan;

use crate::contestant::{Contestant, Work};
use crate::race::{Outcome, Plan};

/// Default payload of an event, in bytes.
pub(crate) const EVENT_BYTES: usize = 256;

/// Better end of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Better {
    Less,
    More,
}

/// Figure as a column of a table. The first column of a scenario sorts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) figure: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
}

/// Creates a column in which less is better.
const fn less(figure: &'static str, heading: &'static str) -> Column {
    Column { figure, heading, better: Better::Less }
}

/// Creates a column in which more is better.
const fn more(figure: &'static str, heading: &'static str) -> Column {
    Column { figure, heading, better: Better::More }
}

type Race = Box<dyn Fn(&Plan, &[&dyn Contestant]) -> Outcome>;

/// Kind of work with a size.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Description of the measurement, in one line.
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    pub(crate) columns: &'static [Column],
    pub(crate) race: Race,
}

const APPEND: &[Column] = &[less("p50_ns", "p50, ns"), less("p99_ns", "p99, ns")];
const LATENCY: &[Column] = &[
    less("p50_us", "p50, µs"),
    less("p99_us", "p99, µs"),
    less("p99.9_us", "p99.9, µs"),
    more("per_s", "commits/s"),
];
const RATE: &[Column] = &[
    more("per_s", "commits/s"),
    less("p50_us", "p50, µs"),
    less("p99_us", "p99, µs"),
    less("p99.9_us", "p99.9, µs"),
];
const SCAN: &[Column] = &[
    more("gb_per_s", "GB/s"),
    less("event_ns", "ns an event"),
    less("disk_per_payload", "bytes on disk per byte"),
];
const OPEN: &[Column] = &[
    less("first_read_ms", "open and read one stream, ms"),
    less("open_ms", "open, ms"),
    less("memory_mib", "memory, MiB"),
];
const MANY: &[Column] = &[
    less("disk_per_payload", "bytes on disk per byte"),
    less("open_ms", "open, ms"),
    less("first_read_ms", "open and read one stream, ms"),
    less("memory_mib", "memory, MiB"),
];
const MIXED: &[Column] = &[
    more("per_s", "commits/s"),
    less("p50_us", "p50, µs"),
    less("p99_us", "p99, µs"),
    more("read_mb_per_s", "read, MB/s"),
];

macro_rules! scenario {
    ($name:literal, $work:ident, $columns:expr, $title:literal, $race:expr) => {
        Scenario {
            name: $name,
            title: $title,
            work: Work::$work,
            columns: $columns,
            race: Box::new($race),
        }
    };
}

/// Returns all scenarios.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario!("append-64", Append, APPEND, "Append, 64 bytes, nothing durable", |p, c| append::race(p, c, 64)),
        scenario!("append-256", Append, APPEND, "Append, 256 bytes, nothing durable", |p, c| append::race(p, c, 256)),
        scenario!("append-4096", Append, APPEND, "Append, 4 KiB, nothing durable", |p, c| append::race(p, c, 4096)),
        scenario!("commit-1", Commit, LATENCY, "Durable commit of 1 event of 256 bytes, one writer", |p, c| commit::one_writer(p, c, 1)),
        scenario!("commit-32", Commit, LATENCY, "Durable commit of 32 events of 256 bytes, one writer", |p, c| commit::one_writer(p, c, 32)),
        scenario!("group-8", Group, RATE, "Durable commits of 1 × 256 bytes, 8 threads", |p, c| group::threads(p, c, 8)),
        scenario!("group-64", Group, RATE, "Durable commits of 1 × 256 bytes, 64 threads", |p, c| group::threads(p, c, 64)),
        scenario!("group-256", Group, RATE, "Durable commits of 1 × 256 bytes, 256 threads", |p, c| group::threads(p, c, 256)),
        scenario!("tasks-256", Tasks, RATE, "Durable commits of 1 × 256 bytes, 256 asynchronous writers on 2 threads", |p, c| group::tasks(p, c, 256)),
        scenario!("tasks-4096", Tasks, RATE, "Durable commits of 1 × 256 bytes, 4,096 asynchronous writers on 2 threads", |p, c| group::tasks(p, c, 4096)),
        scenario!("fresh", Fresh, LATENCY, "First commit of a fresh stream, 64 events of 256 bytes", commit::fresh),
        scenario!("scan-streams", ScanStreams, SCAN, "Scan of 16 streams one after the other, 256 MiB in events of 256 bytes, warm", |p, c| scan::race(p, c, scan::Order::Streams)),
        scenario!("scan-log", ScanLog, SCAN, "Scan of the same in the order of commits, warm", |p, c| scan::race(p, c, scan::Order::Commits)),
        scenario!("open-killed", OpenKilled, OPEN, "Open after a kill and read a stream: 10,000 streams, 256 MiB in commits of 8 × 256 bytes", keep::open_killed),
        scenario!("many-streams", ManyStreams, MANY, "100,000 streams of 4 × 128 bytes, closed and opened again", keep::many_streams),
        scenario!("mixed", Mixed, MIXED, "8 writers of durable commits of 1 × 256 bytes, 2 readers catching up from the beginning", |p, c| mixed::race(p, c, None)),
        scenario!("mixed-paced", Mixed, MIXED, "8 writers of durable commits of 1 × 256 bytes, 2 readers catching up at 250 MB/s each at most", |p, c| mixed::race(p, c, Some(250e6))),
        scenario!("hot-cold", HotCold, RATE, "8 writers, durable commits of 1 × 256 bytes to 10,000 streams chosen by Zipf's law", hot_cold::race),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
