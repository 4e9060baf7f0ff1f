//! An outbox: an event and the message about it are committed together, in two streams. A relay
//! sends the messages in order and keeps its progress in a stream of its own, so that it continues
//! there after a restart.
//!
//! `cargo run --example outbox`

use std::error::Error;

use amberlog::{EventKind, Log, NewEvent, Stream, StreamId, StreamOptions};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const PLACED: EventKind = EventKind(1);
const MESSAGE: EventKind = EventKind(2);
const SENT_UP_TO: EventKind = EventKind(3);

/// Opens the stream of this name, or creates it.
fn stream(log: &Log, name: &str) -> Result<Stream> {
    let known = log.read_view().find(name);
    Ok(match known {
        Some(id) => log.open_stream(id)?,
        None => log.create_stream_with(&StreamOptions::new().name(name))?,
    })
}

/// Commits an order and the message about it under one marker, so neither exists without the other.
fn place_order(log: &Log, outbox: &mut Stream, number: u32) -> Result<StreamId> {
    let mut order = log.create_stream()?;
    order.append(NewEvent::new(PLACED, format!("order {number}: three loaves")))?;
    outbox.append(NewEvent::new(MESSAGE, format!("bake for order {number}")))?;
    log.commit_all([&mut order, outbox]).wait()?;
    Ok(order.id())
}

/// Sends at most `at_most` messages after the recorded place, and records the new place.
fn relay(log: &Log, at_most: usize, sent: &mut Vec<String>) -> Result<()> {
    let mut place = stream(log, "relay")?;
    let last = place.events()?.next_back().transpose()?;
    let mut next = match last {
        Some(event) => String::from_utf8(event.payload().to_vec())?.parse()?,
        None => 0_u64,
    };
    let view = log.read_view();
    let outbox = view.find("outbox").ok_or("no outbox")?;
    for event in view.events(outbox)?.range(next..).take(at_most) {
        let event = event?;
        sent.push(String::from_utf8_lossy(event.payload()).into_owned());
        next = event.seq().get() + 1;
        // Sends before it records: a message may go out twice but is not lost. The receiver can
        // recognize a repeated message by its seq.
        place.append(NewEvent::new(SENT_UP_TO, next.to_string()))?;
        place.commit().wait()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("shop");
    let log = Log::open(&path)?;
    let mut outbox = stream(&log, "outbox")?;
    for number in 0..5 {
        place_order(&log, &mut outbox, number)?;
    }
    // A cancelled order: neither the order nor its message reaches the disk.
    let mut order = log.create_stream()?;
    order.append(NewEvent::new(PLACED, "order 5: never mind"))?;
    outbox.append(NewEvent::new(MESSAGE, "bake for order 5"))?;
    outbox.discard();
    drop(order);

    let mut sent = Vec::new();
    relay(&log, 2, &mut sent)?;
    drop(outbox);
    log.close()?;

    // The next day: more orders, and the relay continues where it stopped.
    let log = Log::open(&path)?;
    let mut outbox = stream(&log, "outbox")?;
    place_order(&log, &mut outbox, 6)?;
    relay(&log, usize::MAX, &mut sent)?;
    for message in &sent {
        println!("sent: {message}");
    }
    let expected: Vec<_> = [0, 1, 2, 3, 4, 6].map(|n| format!("bake for order {n}")).into();
    assert_eq!(sent, expected);
    relay(&log, usize::MAX, &mut sent)?;
    assert_eq!(sent.len(), 6);
    log.close()?;
    Ok(())
}
