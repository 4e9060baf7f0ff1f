//! Whether what verifying says of a log is what reading says.

use std::path::Path;

#[cfg(feature = "sim")]
use amberlog::sim::{SimDisk, verify_on};
use amberlog::verify::{ReadMethod, RecoveryReport, VerifyReport};
use amberlog::{ErrorKind, Event, Position, ReadView, Result, StreamId, verify};

/// A stream, and the seqs that a reader is told are lost.
type Lost = (StreamId, u64, u64);

/// Verifies the log, or the archive file, at a path, and reads it. Nothing if it can be neither.
pub(crate) fn verified(path: &Path) -> Option<VerifyReport> {
    agree(verify(path), ReadView::open_unconfirmed(path).map(|(view, _)| view))
}

/// Runs [`verified`] on a simulated disk.
#[cfg(feature = "sim")]
pub(crate) fn verified_on(disk: &SimDisk) -> Option<VerifyReport> {
    agree(verify_on(disk), ReadView::open_unconfirmed_on(disk).map(|(view, _)| view))
}

fn agree(report: Result<VerifyReport>, view: Result<ReadView>) -> Option<VerifyReport> {
    let (report, view) = match (report, view) {
        (Ok(report), Ok(view)) => (report, view),
        (Err(of_report), Err(of_reading)) => {
            assert_eq!(of_report.kind(), of_reading.kind());
            return None;
        }
        (report, view) => panic!("verified: {report:?}, opened: {view:?}"),
    };
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    for info in view.streams() {
        let events = || view.events(info.id).expect("listed");
        let there = lost_of(info.id, events(), &mut forwards);
        let mut back = lost_of(info.id, events().rev(), &mut backwards);
        back.reverse();
        assert!(there == back, "{}: {} events, back {}", info.id, there.len(), back.len());
    }
    backwards.sort_unstable();
    forwards.sort_unstable();
    assert_eq!(forwards, backwards, "what both directions miss");
    let of_streams = report.unread.iter().filter(|one| one.way == ReadMethod::Forwards);
    let mut told: Vec<Lost> = of_streams
        .map(|one| {
            let seqs = one.seqs.clone().expect("told");
            (one.stream.expect("told"), seqs.start.get(), seqs.end.get())
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, forwards, "what is verified, and what is read");
    let is_read = |one: &&amberlog::verify::MissedEvents| {
        matches!(one.way, ReadMethod::Forwards | ReadMethod::ByPosition)
    };
    let odd: Vec<_> = report.unread.iter().filter(|one| !is_read(one)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    let mut by_position = view.all_events(Position::START).expect("there");
    let lost = by_position.by_ref().filter(|event| event.is_err()).count();
    let told = report.unread.iter().filter(|one| one.way == ReadMethod::ByPosition).count();
    assert_eq!(told, lost, "by position");
    assert!(!report.recovery.is_sound() || report.is_sound(), "sound bytes: {:?}", report.unread);
    Some(report)
}

/// Returns the readable events of a stream, and adds the unreadable ones to `lost`.
fn lost_of(
    id: StreamId,
    events: impl Iterator<Item = Result<Event>>,
    lost: &mut Vec<Lost>,
) -> Vec<(u64, u64, Vec<u8>)> {
    let mut read = Vec::new();
    for event in events {
        match event {
            Ok(event) => {
                read.push((event.seq().get(), event.dropped_before(), event.payload().to_vec()));
            }
            Err(error) => match error.kind() {
                ErrorKind::Corrupt { seqs: Some(seqs), .. } => {
                    lost.push((id, seqs.start.get(), seqs.end.get()));
                }
                kind => panic!("{id}: {kind:?}"),
            },
        }
    }
    read
}

/// Runs [`amberlog::verify::verify_quick`], and checks that verification and reading agree.
pub(crate) fn checked(path: impl AsRef<Path>) -> Result<RecoveryReport> {
    let path = path.as_ref();
    if let Some(report) = verified(path) {
        Ok(report.recovery)
    } else {
        amberlog::verify::verify_quick(path)
    }
}

/// Runs [`amberlog::sim::verify_quick_on`] with the same check.
#[cfg(feature = "sim")]
pub(crate) fn checked_on(disk: &SimDisk) -> Result<RecoveryReport> {
    if let Some(report) = verified_on(disk) {
        Ok(report.recovery)
    } else {
        amberlog::sim::verify_quick_on(disk)
    }
}
