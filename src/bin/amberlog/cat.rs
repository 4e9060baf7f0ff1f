//! `amberlog cat`: the events of a stream, as the lines that they were.

use std::path::PathBuf;

use amberlog::{ErrorKind, Event};
use serde::Serialize;

use crate::lines::UNENDED;
use crate::output::{Failure, Out, Outcome, Verdict, in_log, note};
use crate::reading::{open, resolve};
use crate::units::{base16, count, rfc3339};

const DETAILS: &str = "\
An event is printed as its payload and a newline. An imported file comes back
byte for byte: if its last line had no newline (event kind 1 at the end of a
stream), none is printed. Gaps and damage are told on standard error, reading
goes on behind them, and damage gives exit code 1. Events that were asked for and are
trimmed give exit code 2.

With --json an event has seq, position, kind, codec, time, dropped_before (if
any were), and payload, or payload_base16 if it is no UTF-8.";

/// What can be asked of `cat`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// The stream: its id, the beginning of its id, or its name
    stream: String,
    /// The first event to print, counted from 0
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// The event to stop before
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
    /// Print the last event first; every event then ends with a newline
    #[arg(long)]
    reverse: bool,
}

#[derive(Debug, Serialize)]
struct Printed<'a> {
    seq: u64,
    position: Option<u64>,
    kind: u16,
    codec: u8,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base16: Option<String>,
}

impl<'a> Printed<'a> {
    fn new(event: &'a Event) -> Self {
        let dropped = event.dropped_before();
        let text = std::str::from_utf8(event.payload()).ok();
        Self {
            seq: event.seq().get(),
            position: event.position().map(u64::from),
            kind: event.kind().0,
            codec: event.codec().0,
            time: rfc3339(event.time()),
            dropped_before: (dropped > 0).then_some(dropped),
            payload: text,
            payload_base16: text.is_none().then(|| base16(event.payload())),
        }
    }
}

/// Prints the events of a stream.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let (snapshot, _) = open(&args.log)?;
    let stream = resolve(&snapshot, &args.log, &args.stream)?;
    let head = snapshot.stream(stream).map_or(0, |info| info.head.get());
    let start = snapshot.stream(stream).map_or(0, |info| info.start.get());
    let range = args.from.unwrap_or(start)..args.to.unwrap_or(head).min(head);
    let events = snapshot.events(stream).map_err(in_log(&args.log))?;
    let events = events.range(range.clone());
    let printed = |seen: Seen| {
        // A gap that reaches over the end of what was asked for is told by nothing behind it.
        let missing = seen.end.max(range.start.max(start))..range.end;
        if !missing.is_empty() && seen.verdict == Verdict::Done {
            let (events, seq) = (count(missing.end - missing.start, "event"), missing.end);
            note(format_args!("… {events} dropped before seq {seq}"));
        }
        Ok(seen.verdict)
    };
    if out.is_json() {
        return printed(if args.reverse {
            print(args, events.rev(), |event| out.json(&Printed::new(event)))?
        } else {
            print(args, events, |event| out.json(&Printed::new(event)))?
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
        // Only what ends the stream may lack its newline: other programs have a kind 1 of their own.
        let ends_stream = event.seq().get() + 1 == head;
        if event.kind() == UNENDED && ends_stream { Ok(()) } else { out.raw(b"\n") }
    })?)
}

/// How it went, and where the last event ended that was printed.
struct Seen {
    verdict: Verdict,
    end: u64,
}

fn print(
    args: &Args,
    events: impl Iterator<Item = amberlog::Result<Event>>,
    mut each: impl FnMut(&Event) -> std::io::Result<()>,
) -> Result<Seen, Failure> {
    let (mut verdict, mut end) = (Verdict::Done, 0);
    for event in events {
        match event {
            Ok(event) => {
                each(&event)?;
                end = end.max(event.seq().get() + 1);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Trimmed { .. }) => {
                verdict = Verdict::Incomplete;
                note(error);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                verdict = verdict.max(Verdict::Found);
                note(error);
            }
            Err(error) => {
                let path = args.log.clone();
                return Err(Failure::Log { path, error });
            }
        }
    }
    Ok(Seen { verdict, end })
}

fn tell_gap(event: &Event) {
    let dropped = event.dropped_before();
    if dropped > 0 {
        note(format_args!("… {} dropped before seq {}", count(dropped, "event"), event.seq()));
    }
}
