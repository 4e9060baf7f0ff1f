//! `amberlog cat`: prints the events of a stream, as the lines that they were recorded from.

use std::path::PathBuf;

use amberlog::jsonl::EncodedBytes;
use amberlog::{ErrorKind, Event};
use serde::Serialize;

use crate::lines::UNENDED;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, in_log, note};
use crate::reading::{Reading, TailShown, open, resolve};
use crate::units::count;

const DETAILS: &str = "\
Prints each event as its payload and a newline. An imported file comes back byte
for byte: if its last line had no newline (event kind 1 at the end of a stream),
none is printed. Gaps and damage are reported on standard error, and reading
continues after them; damage gives exit code 1. Trimmed events in the range give
exit code 2.

With --json the fields of an event are those of an export: seq, kind, codec,
time_us, dropped_before (if any), generation (after a rewind), and the payload:
json if it is an event of JSON, text if it is other UTF-8, base64 if it is not.
Kind and codec are there even if they are 0. Two more fields are position, and
unconfirmed (if the event is not known to have been acknowledged, in a log that
needs a repair).";

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct CatArgs {
    /// Directory of the log
    log: PathBuf,
    /// Stream: its id, a prefix of its id, or its name
    stream: String,
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
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    position: Option<u64>,
    kind: u16,
    codec: u8,
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_before: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(flatten)]
    payload: EncodedBytes<'a>,
}

impl<'a> EventFields<'a> {
    fn new(event: &'a Event, reading: &Reading) -> Self {
        let dropped = event.dropped_before();
        Self {
            seq: event.seq().get(),
            generation: Some(event.generation()).filter(|generation| *generation > 0),
            position: event.position().map(u64::from),
            kind: event.kind().0,
            codec: event.codec().0,
            time_us: event.time().as_micros(),
            dropped_before: (dropped > 0).then_some(dropped),
            unconfirmed: !reading.confirms(event),
            payload: EncodedBytes::new(event.payload(), event.codec()),
        }
    }
}

/// Prints the events of a stream.
pub(crate) fn run(args: &CatArgs, out: &mut Out) -> Outcome {
    let reading = open(&args.log, TailShown::Settled)?;
    let view = &reading.view;
    let stream = resolve(view, &args.log, &args.stream)?;
    let info = view.info(stream);
    let head = info.as_ref().map_or(0, |info| info.head.get());
    let start = info.as_ref().map_or(0, |info| info.start.get());
    if let Some(seq) = info.and_then(|info| reading.confirmed_head(&info)) {
        note(format_args!("unconfirmed from seq {seq} on"));
    }
    let range = args.from.unwrap_or(start)..args.to.unwrap_or(head).min(head);
    let events = view.events(stream).map_err(in_log(&args.log))?;
    let events = events.range(range.clone());
    let printed = |seen: Printed| {
        // A gap that extends past the range has no later event here to report it.
        let missing = seen.end.max(range.start.max(start))..range.end;
        if !missing.is_empty() && seen.verdict == ExitVerdict::Done {
            let events = missing.end.saturating_sub(missing.start);
            let seq = missing.end;
            let events = count(events, "event");
            note(format_args!("… {events} dropped before seq {seq}"));
        }
        Ok(seen.verdict)
    };
    if out.is_json() {
        return printed(if args.reverse {
            print(args, events.rev(), |event| out.json(&EventFields::new(event, &reading)))?
        } else {
            print(args, events, |event| out.json(&EventFields::new(event, &reading)))?
        });
    }
    if args.reverse {
        return printed(print(args, events.rev(), |event| {
            tell_gap(event);
            out.raw(event.payload())?;
            out.raw(b"\n")
        })?);
    }
    printed(print(args, events, |event| {
        tell_gap(event);
        out.raw(event.payload())?;
        // Only the event that ends the stream may lack its newline: other programs have a kind 1 of
        // their own.
        let ends_stream = event.seq().get().checked_add(1) == Some(head);
        if event.kind() == UNENDED && ends_stream { Ok(()) } else { out.raw(b"\n") }
    })?)
}

/// Verdict, and the seq after the last event printed.
struct Printed {
    verdict: ExitVerdict,
    end: u64,
}

fn print(
    args: &CatArgs,
    events: impl Iterator<Item = amberlog::Result<Event>>,
    mut each: impl FnMut(&Event) -> std::io::Result<()>,
) -> Result<Printed, VerbFailure> {
    let mut verdict = ExitVerdict::Done;
    let mut end = 0;
    for event in events {
        match event {
            Ok(event) => {
                each(&event)?;
                end = end.max(event.seq().get().saturating_add(1));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                verdict = ExitVerdict::Incomplete;
                note(error);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                verdict = verdict.max(ExitVerdict::Found);
                note(error);
            }
            Err(error) => {
                let path = args.log.clone();
                return Err(VerbFailure::Log { path, error });
            }
        }
    }
    Ok(Printed { verdict, end })
}

fn tell_gap(event: &Event) {
    let dropped = event.dropped_before();
    if dropped > 0 {
        note(format_args!("… {} dropped before seq {}", count(dropped, "event"), event.seq()));
    }
}
