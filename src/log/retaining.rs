//! Retention beside writers: does it leave alone streams that another writer changes just then?
//!
//! The tests make the other commits by hand, between the look and the commit.

use std::cell::RefCell;
use std::time::Duration;

use super::Log;
use crate::disk::SimDisk;
use crate::maintenance::{Bound, RetainOptions, RetainReport};
use crate::options::{CommitOptions, Expect, Retention};
use crate::stream::Stream;
use crate::types::{Seq, StreamId, StreamState, Timestamp};

fn filled(log: &Log) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..4 {
        stream.append([n; 10]).expect("room");
        stream.commit().wait().expect("committed");
    }
    stream
}

/// Runs retention, and calls `meanwhile` once before its first commit.
fn retain_while(log: &Log, meanwhile: impl FnOnce()) -> RetainReport {
    let meanwhile = RefCell::new(Some(meanwhile));
    let now = Timestamp::from_micros(Timestamp::now().as_micros() + 3_600_000_000);
    let commit = |directives: &[_]| {
        if let Some(meanwhile) = meanwhile.take() {
            meanwhile();
        }
        log.0.submit(directives)
    };
    log.0.retain_by(RetainOptions::new().now(now), &commit).expect("open")
}

fn idle() -> Retention {
    Retention::new().idle_max(Duration::from_secs(60))
}

/// P8: an idle stream that is used again, in whatever way, is not deleted; the others of its commit
/// are.
#[test]
fn p8_a_stream_that_is_used_meanwhile_is_not_idle() {
    let ways: [fn(&mut Stream); 5] = [
        |stream| {
            stream.append("on").expect("room");
            stream.commit().wait().expect("committed");
        },
        |stream| {
            stream.set_label("used", "yes").expect("set");
            stream.commit().wait().expect("committed");
        },
        |stream| {
            stream.rewind(1).expect("rewound");
            stream.commit().wait().expect("committed");
        },
        |stream| {
            stream.archive().wait().expect("archived");
        },
        // In one group with the deletion.
        |stream| {
            stream.append("on").expect("room");
            std::mem::forget(stream.commit());
        },
    ];
    for (nth, way) in ways.into_iter().enumerate() {
        let disk = SimDisk::new(1);
        let log = Log::options().retain(idle()).open_on(&disk).expect("opens");
        let mut used = filled(&log);
        let others: Vec<_> = (0..4).map(|_| filled(&log)).collect();
        let report = retain_while(&log, || way(&mut used));
        assert_eq!(report.streams_deleted(), 4, "way {nth}: {report:?}");
        assert!(report.refused.is_empty(), "way {nth}: {report:?}");
        let state = |stream: &Stream| log.read_view().info(stream.id()).expect("known").state;
        assert_ne!(state(&used), StreamState::Deleted, "way {nth}");
        assert!(others.iter().all(|stream| state(stream) == StreamState::Deleted));
    }
}

/// A stream rewound to before its new start is not trimmed beyond its end; a stream under writing
/// is trimmed all the same, and no commit fails because of it.
#[test]
fn p8_who_trims_and_who_writes_do_not_disturb_each_other() {
    let disk = SimDisk::new(1);
    let keep = Retention::new().events_max(1);
    let log = Log::options().retain(keep).open_on(&disk).expect("opens");
    let (mut rewound, mut written, mut gone) = (filled(&log), filled(&log), filled(&log));
    let report = retain_while(&log, || {
        rewound.rewind(1).expect("rewound");
        written.append("on").expect("room");
        log.commit_all([&mut rewound, &mut written]).wait().expect("committed");
        gone.delete().wait().expect("deleted");
    });
    assert!(report.refused.is_empty(), "{report:?}");
    let trimmed: Vec<_> =
        report.trimmed.iter().map(|stream| (stream.stream, stream.over)).collect();
    assert_eq!(trimmed, [(written.id(), Bound::Events)]);
    let info = |stream: &Stream| log.read_view().info(stream.id()).expect("known");
    assert_eq!((info(&written).start, info(&written).head), (Seq(3), Seq(5)));
    assert_eq!((info(&rewound).start, info(&rewound).head), (Seq(0), Seq(1)));
    for stream in [&mut rewound, &mut written] {
        stream.append("further").expect("room");
        stream.commit().wait().expect("no conflict");
    }
}

/// Returns the start of a stream and its content.
fn shown(log: &Log, id: StreamId) -> (u64, Vec<String>) {
    let view = log.read_view();
    let text = |event: &[u8]| String::from_utf8_lossy(event).into_owned();
    let events = view.events(id).expect("known").map(|event| event.expect("whole"));
    let start = view.info(id).expect("known").start.get();
    (start, events.map(|event| text(event.payload())).collect())
}

/// Name of a change between the look and the commit, the change, and the expected content.
type Meanwhile = (&'static str, fn(&mut Stream), &'static [&'static str]);

/// Changes to a stream of four old events that are over a bound, made just before the commit.
/// Events that replace them were not measured.
const MEANWHILE: [Meanwhile; 8] = [
    (
        "rewound and grown beyond where it was to start",
        |stream| {
            stream.rewind(0).expect("rewound");
            regrow(stream, 6);
        },
        &["new 0", "new 1", "new 2", "new 3", "new 4", "new 5"],
    ),
    (
        "rewound, and grown to where it stood",
        |stream| {
            stream.rewind(0).expect("rewound");
            regrow(stream, 4);
        },
        &["new 0", "new 1", "new 2", "new 3"],
    ),
    (
        "rewound in one commit with what takes its place",
        |stream| {
            stream.rewind(2).expect("rewound");
            for n in 0..3 {
                let _ = stream.append(format!("new {n}"));
            }
            stream.commit().wait().expect("committed");
        },
        &["old 0", "old 1", "new 0", "new 1", "new 2"],
    ),
    (
        "rewound twice",
        |stream| {
            for _ in 0..2 {
                stream.rewind(0).expect("rewound");
                regrow(stream, 5);
            }
        },
        &["new 0", "new 1", "new 2", "new 3", "new 4"],
    ),
    (
        "rewound in the same group",
        |stream| {
            stream.rewind(0).expect("rewound");
            for n in 0..5 {
                let _ = stream.append(format!("new {n}"));
            }
            std::mem::forget(stream.commit());
        },
        &["new 0", "new 1", "new 2", "new 3", "new 4"],
    ),
    (
        "labelled as one of which everything is kept",
        |stream| {
            stream.set_label("kind", "audit").expect("set");
            stream.commit().wait().expect("committed");
        },
        &["old 0", "old 1", "old 2", "old 3"],
    ),
    (
        "labelled so in the same group",
        |stream| {
            stream.set_label("kind", "audit").expect("set");
            std::mem::forget(stream.commit());
        },
        &["old 0", "old 1", "old 2", "old 3"],
    ),
    (
        "archived, and these are kept",
        |stream| {
            stream.archive().wait().expect("archived");
        },
        &["old 0", "old 1", "old 2", "old 3"],
    ),
];

fn regrow(stream: &mut Stream, events: u64) {
    for n in 0..events {
        stream.append(format!("new {n}")).expect("room");
        stream.commit_with(CommitOptions::new().expect(Expect::Any)).wait().expect("committed");
    }
}

/// Retention acts only on the events that it measured; replacements are left alone.
fn what_was_not_measured_is_left_alone() {
    let bounds = [
        Retention::new().age_max(Duration::from_secs(600)),
        Retention::new().events_max(1),
        Retention::new().bytes_max(30),
        Retention::new().idle_max(Duration::from_secs(600)),
    ];
    for keep in bounds {
        for (what, way, holds) in MEANWHILE {
            let disk = SimDisk::new(1);
            disk.set_clock(Timestamp::from_micros(1_767_225_600_000_000));
            let options = Log::options().retain(keep);
            let options = options.retain_label("kind", "audit", Retention::new());
            let log = options.open_on(&disk).expect("opens");
            let mut used = log.create_stream().expect("a stream");
            for n in 0..4 {
                used.append(format!("old {n}")).expect("room");
                used.commit().wait().expect("committed");
            }
            let other = filled(&log);
            disk.pass_time(Duration::from_secs(3_000));
            let meanwhile = RefCell::new(Some(|| way(&mut used)));
            let commit = |directives: &[_]| {
                if let Some(mut meanwhile) = meanwhile.take() {
                    meanwhile();
                }
                log.0.submit(directives)
            };
            let report = log.0.retain_by(RetainOptions::new(), &commit).expect("open");
            let context = format!("{what}, {keep:?}: {report:?}");
            assert!(report.refused.is_empty(), "{context}");
            let forgotten: Vec<_> = report.trimmed.iter().map(|stream| stream.stream).collect();
            assert_eq!(forgotten, [other.id()], "{context}");
            let (start, events) = shown(&log, used.id());
            assert_eq!(
                (start, events),
                (0, holds.iter().map(ToString::to_string).collect()),
                "{context}"
            );
        }
    }
}

#[test]
fn p8_f48_retention_leaves_alone_what_it_did_not_measure() {
    what_was_not_measured_is_left_alone();
}

/// Negative control: retention that trims wherever the stream stands is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_retention_that_trims_what_it_did_not_measure_is_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::RetainUnseen);
    std::panic::catch_unwind(what_was_not_measured_is_left_alone)
        .expect_err("events that were over no bound went, unnoticed");
}
