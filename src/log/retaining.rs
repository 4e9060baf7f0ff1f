//! Does who forgets leave alone what somebody else is at just then?
//!
//! Here the commits of the others are made between the look and the commit, by hand.

use std::cell::RefCell;
use std::time::Duration;

use super::Log;
use crate::disk::SimDisk;
use crate::options::Retention;
use crate::stream::Stream;
use crate::types::{Seq, StreamState, Timestamp};
use crate::upkeep::{Bound, RetainOptions, RetainReport};

fn filled(log: &Log) -> Stream {
    let mut stream = log.stream().expect("a stream");
    for n in 0..4 {
        stream.append([n; 10]).expect("room");
        stream.commit().wait().expect("committed");
    }
    stream
}

/// Forgets; `meanwhile` is done once, before the first commit of that.
fn retain_while(log: &Log, meanwhile: impl FnOnce()) -> RetainReport {
    let meanwhile = RefCell::new(Some(meanwhile));
    let now = Timestamp::from_micros(Timestamp::now().as_micros() + 3_600_000_000);
    let commit = |sentences: &[_]| {
        if let Some(meanwhile) = meanwhile.take() {
            meanwhile();
        }
        log.0.say(sentences)
    };
    log.0.retain_by(RetainOptions::new().now(now), &commit).expect("open")
}

fn idle() -> Retention {
    Retention::new().idle_max(Duration::from_secs(60))
}

/// P8: an idle stream that is used again after all, in whatever way, is not deleted; the others of its commit are.
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
        // In the same group as what would delete it.
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
        let state = |stream: &Stream| log.snapshot().stream(stream.id()).expect("known").state;
        assert_ne!(state(&used), StreamState::Deleted, "way {nth}");
        assert!(others.iter().all(|stream| state(stream) == StreamState::Deleted));
    }
}

/// What somebody has rewound behind the place where it was to start is not trimmed beyond its end; what somebody goes
/// on writing is trimmed all the same, and nobody's commit fails for it.
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
    let trimmed: Vec<_> = report.forgotten.iter().map(|one| (one.stream, one.over)).collect();
    assert_eq!(trimmed, [(written.id(), Bound::Events)]);
    let info = |stream: &Stream| log.snapshot().stream(stream.id()).expect("known");
    assert_eq!((info(&written).start, info(&written).head), (Seq(3), Seq(5)));
    assert_eq!((info(&rewound).start, info(&rewound).head), (Seq(0), Seq(1)));
    for stream in [&mut rewound, &mut written] {
        stream.append("further").expect("room");
        stream.commit().wait().expect("no conflict");
    }
}
