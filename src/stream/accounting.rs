//! Is the memory of streams counted, refused beyond the bound, and subtracted when it is freed?
//!
//! P10. After every step of random scripts, the budget is compared with a recount of the memory of
//! all handles and their commits. `tests/memory.rs` compares it with actual allocations.

use super::{Stream, StreamOptions};
use crate::commit::Part;
use crate::disk::SimDisk;
use crate::error::{AppendError, ErrorKind};
use crate::log::Log;
use crate::options::Options;

const DATA_BYTES: usize = 64 << 10;

/// Random numbers.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

impl Stream {
    /// Bytes that this handle and its commits hold, counted from scratch.
    fn recount(&self) -> usize {
        let part = |part: &Part| {
            let said = part.change.as_ref().map_or(0, |encoded| {
                let bytes = encoded.charge_bytes();
                assert!(bytes >= encoded.draft.memory_bytes() + encoded.bytes.capacity());
                bytes
            });
            part.filled.held_bytes() + said
        };
        let in_flight = self.in_flight.parts().map(part);
        let next = self.change.as_ref().map_or(0, |next| {
            let (bytes, least) = (next.charge_bytes(), self.change_bytes(None));
            let most = self.change_bytes(self.card().as_ref());
            assert!((least..=most).contains(&bytes), "{bytes}: not {least} to {most}");
            bytes
        });
        self.ring.held_bytes() + in_flight.sum::<usize>() + next
    }
}

fn one_step(log: &Log, disk: &SimDisk, streams: &mut Vec<Stream>, chance: &mut Chance, n: usize) {
    let what = chance.below(17);
    if what == 0 || streams.is_empty() {
        streams.extend(log.create_stream());
        return;
    }
    let at = chance.below(streams.len() as u64) as usize;
    let (size, key) = (chance.below(3_000) as usize, format!("label {}", chance.below(9)));
    let stream = &mut streams[at];
    match what {
        1..=3 => drop(stream.append(vec![1; size])),
        4 => drop(stream.set_label(&key, &"v".repeat(1 + size / 3))),
        5 => drop(stream.remove_label(&key)),
        6 => drop(stream.set_data(&vec![2; size * 20])),
        7 => drop(stream.set_data(&[])),
        8 => drop(stream.rename(&format!("name {n} {}", "n".repeat(size / 4)))),
        9 => drop(stream.clear_name()),
        10 => drop(stream.commit().wait()),
        11 => {
            disk.set_file_bytes_max(1);
            drop(stream.commit().wait());
            disk.set_file_bytes_max(u64::MAX);
        }
        12 => drop(stream.discard()),
        13 => {
            let fork = stream.fork_at(stream.head());
            streams.extend(fork);
        }
        14 => drop(stream.trim(stream.head())),
        15 if size < 500 => drop(stream.delete().wait()),
        15 => drop(stream.rewind(stream.info().start)),
        _ => drop(streams.swap_remove(at)),
    }
}

fn what_is_counted_is_what_is_held(options: &Options) {
    let mut refused = 0;
    for seed in 1..=6 {
        let disk = SimDisk::new(1);
        let log = options.clone().open_on(&disk).expect("opens");
        let (mut streams, mut chance) = (Vec::new(), Chance(seed));
        for n in 0..600 {
            one_step(&log, &disk, &mut streams, &mut chance, n);
            let held = streams.iter().map(Stream::recount).sum::<usize>() as u64;
            assert_eq!(log.stats().memory.uncommitted_bytes, held, "seed {seed}, step {n}");
            let more = streams.first_mut().map(|stream| stream.set_data(&[3; DATA_BYTES]));
            refused += usize::from(more.is_some_and(|more| more.is_err()));
        }
        drop(streams);
        assert_eq!(
            log.stats().memory.uncommitted_bytes,
            0,
            "seed {seed}: handles hold it, and they are gone"
        );
    }
    assert!(refused > 0, "the bound is never met");
}

fn options() -> Options {
    Log::options().memory_bytes_max(256 << 10)
}

#[test]
fn p10_what_is_counted_is_what_is_held() {
    what_is_counted_is_what_is_held(&options());
}

/// Data, labels and names are refused where the memory is full, nothing is changed then, and what
/// goes makes room.
fn a_full_memory_refuses_what_is_said() {
    let log = options().open_on(&SimDisk::new(1)).expect("opens");
    let make = || log.create_stream().expect("a stream");
    let mut streams: Vec<Stream> = (0..4).map(|_| make()).collect();
    let mut said = streams.iter_mut().map(|stream| stream.set_data(&[1; DATA_BYTES]));
    let error = said.find_map(Result::err).expect("no room for four times 64 KiB");
    let full = ErrorKind::Refused(AppendError::MemoryFull { memory_bytes_max: 256 << 10 });
    assert_eq!(*error.kind(), full);
    let (used, last) = (log.stats().memory.uncommitted_bytes, &mut streams[3]);
    assert!((3 * DATA_BYTES as u64..=256 << 10).contains(&used), "{used}");
    let before = last.info();
    assert_eq!(before.data, None);
    let long = "n".repeat(1_000);
    let mut labels = 0;
    while last.set_label(&format!("label {labels}"), &long).is_ok() {
        labels += 1;
    }
    assert_eq!(*last.set_label("one more", &long).expect_err("full").kind(), full);
    assert_eq!((last.info().labels.len(), labels < 64), (labels, true));
    assert_eq!(*last.rename(&long).expect_err("full").kind(), full);
    assert_eq!((last.info().name, log.read_view().find(&long)), (None, None));
    drop(last.delete().wait());
    drop(streams.remove(0));
    let named = StreamOptions::new().name(&long);
    let mut other = log.create_stream_with(&named).expect("room, and the name is free");
    other.set_data(&[1; 32 << 10]).expect("room");
    drop((streams, other));
    assert_eq!(log.stats().memory.uncommitted_bytes, 0);
}

#[test]
fn p10_a_full_memory_refuses_what_is_said() {
    a_full_memory_refuses_what_is_said();
}

/// What durable streams hold is counted as long as a version of them is kept, and no longer.
fn versions_that_go_are_counted_no_longer() {
    let log = Log::options().open_on(&SimDisk::new(1)).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut commit = |data: &[u8], label: &str| {
        stream.set_data(data).expect("room");
        stream.set_label("label", label).expect("room");
        stream.commit().wait().expect("committed");
        log.stats().memory.metadata_bytes
    };
    let counted: Vec<u64> = (0..100).map(|_| commit(&[1; DATA_BYTES], "long")).collect();
    assert!(counted[0] >= DATA_BYTES as u64, "{counted:?}");
    assert!(counted.iter().all(|bytes| *bytes < 40 * DATA_BYTES as u64), "{counted:?}");
    // Versions of an age go together, once the next one begins. Without data each takes less than 1
    // KiB.
    let left = (0..600).map(|_| commit(&[], "short")).last();
    assert!(left.is_some_and(|bytes| bytes < 600 << 10), "{left:?}");
}

#[test]
fn p10_versions_that_go_are_counted_no_longer() {
    versions_that_go_are_counted_no_longer();
}

/// F40: what is counted nowhere, or never given back, is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_memory_that_is_not_counted_is_noticed() {
    use crate::sabotage::{Sabotage, sabotage};

    for what in [Sabotage::CountRingsOnly, Sabotage::KeepCharges] {
        let counted = || what_is_counted_is_what_is_held(&options());
        for attack in [
            &counted as &(dyn Fn() + std::panic::RefUnwindSafe),
            &a_full_memory_refuses_what_is_said,
        ] {
            let broken = std::panic::catch_unwind(|| {
                let _broken = sabotage(what);
                attack();
            });
            assert!(broken.is_err(), "{what:?}: nobody noticed");
        }
    }
    let _broken = sabotage(Sabotage::KeepCharges);
    std::panic::catch_unwind(versions_that_go_are_counted_no_longer).expect_err("nobody noticed");
}
