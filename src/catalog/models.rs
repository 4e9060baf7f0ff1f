//! Models of the watermark: one writer raises it, readers load it without a lock (P7, F6).
//!
//! The readers run as spawned threads. The checker does not report a race between a store and
//! earlier loads when the storing thread has itself loaded the same word before, so the roles of
//! writer and reader are not interchangeable.

use std::sync::Arc;

use super::watermark::PublishedWatermark;
use super::{Catalog, ReadView, Share, Watermark};
use crate::format::Lsn;
use crate::index::NONE;
use crate::sabotage::Sabotage;
use crate::sync::atomic::Ordering;
use crate::sync::{model, thread};
use crate::types::StreamId;

fn mark(position: u64) -> Watermark {
    let end = Lsn::new(1, position * 8);
    Watermark { visible: position, durable: position, end }
}

/// A reader loads a whole watermark, and never an older one after a newer one, even while the
/// writer goes around the whole ring of slots.
fn watermark(readers: usize, last: u64) {
    let published = Arc::new(PublishedWatermark::<3>::new());
    let read = |published: Arc<PublishedWatermark<3>>| {
        move || {
            let mut before = 0;
            for _ in 0..2 {
                let seen = published.load();
                if seen.visible > 0 {
                    assert_eq!(seen, mark(seen.visible), "torn");
                }
                assert!(seen.visible >= before, "backwards");
                before = seen.visible;
            }
        }
    };
    let readers: Vec<_> =
        (0..readers).map(|_| thread::spawn(read(Arc::clone(&published)))).collect();
    (1..=last).for_each(|position| published.store(mark(position)));
    for reader in readers {
        reader.join().expect("no panic");
    }
    assert_eq!(published.load(), mark(last));
}

#[test]
fn p7_watermark() {
    model(None, Some(3), || watermark(1, 4));
}

#[test]
fn p7_watermark_of_two_readers() {
    model(None, Some(1), || watermark(2, 3));
}

#[test]
#[should_panic(expected = "torn")]
fn p7_watermark_is_noticed() {
    model(Some(Sabotage::LookOnce), Some(2), || watermark(1, 4));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Note,
    Show,
}

/// Everything the watermark shows was recorded before: the stream exists, its head is not behind,
/// its spans are linked.
fn noted_before_shown(first: First) {
    let catalog = Arc::new(Catalog::new());
    let stream = StreamId::new();
    let reader = {
        let catalog = Arc::clone(&catalog);
        thread::spawn(move || {
            let seen = catalog.watermark().visible;
            if seen == 0 {
                return;
            }
            let root = catalog.root(stream).expect("a hole: the stream is missing");
            let branch = catalog.branch(root).expect("a hole: the branch is missing");
            assert!(branch.head() >= seen, "a hole: behind the head");
            let mut span = branch.span_last.load(Ordering::Acquire);
            let newest = catalog.spans.key(span);
            assert!(newest + 1 >= seen, "a hole: not linked");
            for position in (0..=newest).rev() {
                assert_eq!(catalog.spans.key(span), position);
                span = catalog.spans.prev(span);
            }
            assert_eq!(span, NONE);
        })
    };
    for n in 1..=2_u32 {
        let position = u64::from(n);
        if first == First::Show {
            catalog.raise(mark(position));
        }
        let share = Share { stream, root: None, position, generation: 0, change: None };
        let (_, tip) = catalog.resolve(share).expect("room");
        let branch = catalog.branch(tip).expect("just made");
        branch.last.fetch_max(position, Ordering::AcqRel);
        catalog.note_span(branch, n, position - 1, NONE);
        branch.head.fetch_max(position, Ordering::AcqRel);
        catalog.raise(mark(position));
    }
    reader.join().expect("no panic");
}

#[test]
fn f6_watermark_shows_what_was_noted() {
    model(None, None, || noted_before_shown(First::Note));
}

#[test]
#[should_panic(expected = "a hole")]
fn f6_watermark_shows_what_was_noted_is_noticed() {
    model(None, Some(2), || noted_before_shown(First::Show));
}

/// A stream whose first commit is being recorded is in no view that was taken before.
#[test]
fn p7_f6_a_view_shows_no_stream_that_comes_later() {
    model(None, None, || {
        let catalog = Arc::new(Catalog::new());
        catalog.raise(mark(1));
        let reader = {
            let catalog = Arc::clone(&catalog);
            thread::spawn(move || {
                let view = ReadView::new(catalog);
                assert_eq!(view.views().count(), 0, "a stream that was never committed");
            })
        };
        let share =
            Share { stream: StreamId::new(), root: None, position: 2, generation: 0, change: None };
        let (_, tip) = catalog.resolve(share).expect("room");
        catalog.branch(tip).expect("just made").last.fetch_max(2, Ordering::AcqRel);
        reader.join().expect("no panic");
    });
}
