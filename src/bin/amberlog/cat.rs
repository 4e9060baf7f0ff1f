//! `amberlog cat`: prints the events of a stream, as the lines that they were recorded from.

use amberlog::jsonl::EncodedBytes;
use amberlog::typed::CodecId;
use amberlog::{ErrorKind, Event, EventKind, Position, Seq};
use serde::Serialize;

use crate::lines::UNENDED;
use crate::output::{ExitVerdict, Out, Outcome, in_log, note};
use crate::reading::{Reading, StreamArgs};
use crate::units::count;

const DETAILS: &str = "\
Prints each event as its payload and a newline. An imported file comes back byte
for byte: if its last line had no newline (event kind 1 at the end of a stream),
none is printed. Gaps and damage are reported on standard error, and reading
continues after them; damage gives exit code 1. Trimmed events in the range give
exit code 2.

With --json the fields of an event are those of an export: seq, kind,
schema_version (unless 0), codec, time_us, dropped_before (if any), generation
(after a rewind), and the payload: json if it is an event of JSON, text if it is
other UTF-8, base64 if it is not.
Kind and codec are there even if they are 0. Two more fields are position, and
unconfirmed (if the event is not known to have been acknowledged, in a log that
needs a repair).";

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct CatArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// Seq of the first event to print, counted from 0
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// Seq of the event to stop before
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// Print the last event first; every event then ends with a newline
    #[arg(long)]
    reverse: bool,
}

#[derive(Debug, Serialize)]
struct EventFields<'a> {
    seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    position: Option<Position>,
    kind: EventKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<u8>,
    codec: CodecId,
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_before: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(flatten)]
    payload: EncodedBytes<'a>,
}

/// Prints the events of a stream.
pub(crate) fn run(args: &CatArgs, out: &mut Out) -> Outcome {
    let (reading, info) = args.of.open()?;
    let (start, head) = (info.start.get(), info.head.get());
    if let Some(seq) = reading.confirmed_head(&info) {
        note(format_args!("unconfirmed from seq {seq} on"));
    }
    let range = args.from.unwrap_or(start)..args.to.unwrap_or(head).min(head);
    let events = reading.view.events(info.id).map_err(in_log(&args.of.log))?;
    let events = events.range(range.clone());
    let events: Box<dyn Iterator<Item = _>> = match args.reverse {
        true => Box::new(events.rev()),
        false => Box::new(events),
    };
    let mut verdict = ExitVerdict::Done;
    // The seq after the last event printed.
    let mut end = range.start.max(start);
    for event in events {
        match event {
            Ok(event) => {
                print(args, &reading, info.head, &event, out)?;
                end = end.max(event.seq().next().get());
            }
            Err(error) => {
                verdict = verdict.max(match error.kind() {
                    ErrorKind::Trimmed { .. } => ExitVerdict::Incomplete,
                    ErrorKind::Corrupt { .. } => ExitVerdict::Found,
                    _ => return Err(in_log(&args.of.log)(error)),
                });
                note(error);
            }
        }
    }
    if verdict == ExitVerdict::Done {
        // A gap that extends past the range has no later event here to report it.
        tell_gap(range.end.saturating_sub(end), range.end.into());
    }
    Ok(verdict)
}

fn print(
    args: &CatArgs,
    reading: &Reading,
    head: Seq,
    event: &Event,
    out: &mut Out,
) -> std::io::Result<()> {
    let dropped = event.dropped_before();
    if out.is_json() {
        return out.json(&EventFields {
            seq: event.seq(),
            generation: Some(event.generation()).filter(|generation| *generation > 0),
            position: event.position(),
            kind: event.kind(),
            schema_version: Some(event.schema_version()).filter(|version| *version > 0),
            codec: event.codec(),
            time_us: event.time().as_micros(),
            dropped_before: (dropped > 0).then_some(dropped),
            unconfirmed: !reading.confirms(event),
            payload: EncodedBytes::new(event.payload(), event.codec()),
        });
    }
    tell_gap(dropped, event.seq());
    out.raw(event.payload())?;
    // Only the event that ends the stream may lack its newline: other programs have a kind 1 of
    // their own.
    let ends_stream = event.seq().next() == head && !args.reverse;
    if event.kind() == UNENDED && ends_stream { Ok(()) } else { out.raw(b"\n") }
}

/// Reports a number of dropped events on standard error, if there are any.
fn tell_gap(dropped: u64, before: Seq) {
    if dropped > 0 {
        note(format_args!("… {} dropped before seq {before}", count(dropped, "event")));
    }
}
