//! An outbox: what happened and the message that tells others of it are committed together, in two streams, or not at
//! all. A relay sends the messages in order and keeps its place in a stream of its own, so that it goes on where it was.
//!
//! `cargo run --example outbox`

use std::error::Error;

use amberlog::{EventKind, Log, NewEvent, Stream, StreamId, StreamOptions};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const PLACED: EventKind = EventKind(1);
const MESSAGE: EventKind = EventKind(2);
const SENT_UP_TO: EventKind = EventKind(3);

/// The stream of this name, as it is or new.
fn stream(log: &Log, name: &str) -> Result<Stream> {
    let known = log.snapshot().find(name);
    Ok(match known {
        Some(id) => log.resume(id)?,
        None => log.stream_with(&StreamOptions::new().name(name))?,
    })
}

/// An order, and the message about it: one marker on disk, so that there is never one without the other.
fn place_order(log: &Log, outbox: &mut Stream, number: u32) -> Result<StreamId> {
    let mut order = log.stream()?;
    order.append(NewEvent::new(PLACED, format!("order {number}: three loaves")))?;
    outbox.append(NewEvent::new(MESSAGE, format!("bake for order {number}")))?;
    log.commit_all([&mut order, outbox]).wait()?;
    Ok(order.id())
}

/// Sends what is behind its place, and notes its new one. `at_most`: after so many it is stopped.
fn relay(log: &Log, at_most: usize, sent: &mut Vec<String>) -> Result<()> {
    let mut place = stream(log, "relay")?;
    let last = place.events()?.next_back().transpose()?;
    let mut next = match last {
        Some(event) => String::from_utf8(event.payload().to_vec())?.parse()?,
        None => 0_u64,
    };
    let snapshot = log.snapshot();
    let outbox = snapshot.find("outbox").ok_or("no outbox")?;
    for event in snapshot.events(outbox)?.range(next..).take(at_most) {
        let event = event?;
        sent.push(String::from_utf8_lossy(event.payload()).into_owned());
        next = event.seq().get() + 1;
        // Sent first, noted then: a message may go out twice, and none is lost. Its seq tells the receiver which
        // it had.
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
    // An order that is thought over: neither it nor its message is anywhere.
    let mut order = log.stream()?;
    order.append(NewEvent::new(PLACED, "order 5: never mind"))?;
    outbox.append(NewEvent::new(MESSAGE, "bake for order 5"))?;
    outbox.discard();
    drop(order);

    let mut sent = Vec::new();
    relay(&log, 2, &mut sent)?;
    drop(outbox);
    log.close()?;

    // Another day: more orders, and the relay goes on where it was.
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
