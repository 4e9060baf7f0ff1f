//! Shared by the tests of dropping and of purging: small segments, the contents of a read view, and
//! a disk that fails at every call of an operation on a log.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, HashSet};

use crate::support::sparsely;
use amberlog::sim::{Fault, SimDisk};
use amberlog::{Event, Log, Options, Position, ReadView, StreamId};

pub(crate) fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// Position and payload of an event.
pub(crate) type Facts = (u64, Vec<u8>);

pub(crate) fn facts(event: &Event) -> Facts {
    (event.position().map_or(0, Position::get), event.payload().to_vec())
}

/// Events of each stream that is not deleted.
pub(crate) type Shown = BTreeMap<StreamId, Vec<Facts>>;

/// Everything that can be read by stream, forwards and backwards.
pub(crate) fn shown(view: &ReadView) -> Shown {
    let read = |id| {
        let events = || view.events(id).expect("known").map(|event| event.expect("whole"));
        let there: Vec<_> = events().map(|event| facts(&event)).collect();
        let back: Vec<_> = view.events(id).expect("known").rev().collect();
        assert!(
            back.into_iter().rev().map(|event| facts(&event.expect("whole"))).eq(there.clone())
        );
        there
    };
    view.streams().into_iter().map(|info| (info.id, read(info.id))).collect()
}

/// Everything that can be read by position; nothing in between may read as damaged.
pub(crate) fn by_position(view: &ReadView) -> Vec<(StreamId, Facts)> {
    let all = view.all_events(Position::START).expect("there");
    let whole = all.map(|event| event.expect("whole"));
    whole.map(|event| (event.stream(), facts(&event))).collect()
}

pub(crate) fn delete(log: &Log, id: StreamId) {
    log.open_stream(id).expect("known").delete().wait().expect("deleted");
}

/// Runs something on copies of a disk of which each fails at another of the calls that this makes, and checks what a kill
/// and power cuts leave.
pub(crate) fn stopped_at_every_call(
    disk: &SimDisk,
    run: impl Fn(&SimDisk, Option<Fault>, &str),
    check: impl Fn(&SimDisk, &str),
) {
    let whole = disk.copy();
    run(&whole, None, "nothing happens");
    check(&whole.after_kill(), "nothing happens, killed");
    (0..8)
        .for_each(|cut| check(&whole.after_power_cut(cut), &format!("nothing happens, cut {cut}")));
    let faults = [
        Fault::Crash,
        Fault::Io,
        Fault::LostSync,
        Fault::DoneAndFailed,
        Fault::Full,
        Fault::OverQuota,
    ];
    // After a power cut nothing is left but what the disk holds: the same again says nothing new.
    let mut seen = HashSet::new();
    for (fault, offset) in faults.into_iter().zip(0..) {
        // A power cut is what tells names that were synced from others.
        let (step, cuts) =
            if fault == Fault::Crash { (sparsely().min(2), 4) } else { (sparsely(), 1) };
        for call in (disk.calls() + offset % step..whole.calls()).step_by(step as usize) {
            let context = format!("{fault:?} at call {call}");
            let failing = disk.copy();
            failing.fail_at(call, fault);
            run(&failing, Some(fault), &context);
            let mut ways = vec![failing.after_kill()];
            let cut = (0..cuts).map(|seed| failing.after_power_cut(call + seed));
            ways.extend(cut.filter(|left| seen.insert(left.fingerprint())));
            for (way, left) in ways.into_iter().enumerate() {
                left.set_capacity(u64::MAX);
                check(&left, &format!("{context}, way {way}"));
            }
        }
    }
}
