//! A flight recorder: keeps the last few KiB of detail in memory and commits them only when
//! something goes wrong.
//!
//! `cargo run --example flight_recorder`

use std::error::Error;

use amberlog::{EventKind, Log, NewEvent, Overflow, StreamOptions};

const TRACE: EventKind = EventKind(1);
const FAULT: EventKind = EventKind(2);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let log = Log::open(dir.path().join("recorder"))?;
    let ring = StreamOptions::new()
        .name("pump 3")
        .overflow(Overflow::OverwriteOldest)
        .ring_bytes_max(4 << 10);
    let mut recorder = log.create_stream_with(&ring)?;

    for tick in 0..10_000_u32 {
        let pressure = 2.0 + f64::from(tick % 50) / 100.0 + if tick > 9_990 { 3.0 } else { 0.0 };
        // Always succeeds: the oldest events make room.
        recorder.append(NewEvent::new(TRACE, format!("tick {tick} pressure {pressure:.2}")))?;
        if pressure > 5.0 {
            recorder.append(NewEvent::new(FAULT, "pressure above 5 bar"))?;
            recorder.commit().wait()?;
            break;
        }
    }

    let view = log.read_view();
    let mut events = view.events(recorder.id())?;
    let first = events.next().ok_or("nothing was kept")??;
    println!(
        "{} events were dropped; the first one kept is {}: {}",
        first.dropped_before(),
        first.seq(),
        String::from_utf8_lossy(first.payload())
    );
    let last = events.last().ok_or("only one was kept")??;
    println!("the last one is {}: {}", last.seq(), String::from_utf8_lossy(last.payload()));
    assert_eq!(last.kind(), FAULT);
    log.close()?;
    Ok(())
}
