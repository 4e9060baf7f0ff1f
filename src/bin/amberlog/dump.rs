//! `amberlog dump`: a log taken apart, record by record, as it lies on disk.

use std::path::PathBuf;

use amberlog::{Inspection, Item};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::output::{Out, Outcome, Verdict, in_log, note};
use crate::units::rfc3339;

const DETAILS: &str = "\
A line has the segment's number, the offset in its file, and the record.
Nothing is judged: what cannot be read is shown as such, and `amberlog verify`
says whether that is damage.";

/// What can be asked of `dump`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// Show every event too
    #[arg(long)]
    events: bool,
}

/// A record: what it is, where it starts, and its words.
#[derive(Debug)]
struct Record {
    item: &'static str,
    segment: u32,
    offset: u64,
    words: Vec<(&'static str, Value)>,
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = [
            ("item", Value::from(self.item)),
            ("segment", Value::from(self.segment)),
            ("offset", Value::from(self.offset)),
        ];
        serializer.collect_map(place.into_iter().chain(self.words.iter().cloned()))
    }
}

/// Prints what is in the segments, in the order of the files.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let failed = in_log(&args.log);
    let mut verdict = Verdict::Done;
    for item in Inspection::open(&args.log).map_err(&failed)? {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                verdict = Verdict::Incomplete;
                note(failed(error));
                continue;
            }
        };
        if matches!(item, Item::Event { .. }) && !args.events {
            continue;
        }
        let record = of_file(&item).or_else(|| of_commit(&item));
        let Some(record) = record else {
            continue;
        };
        if out.is_json() {
            out.json(&record)?;
        } else {
            out.line(text(&record))?;
        }
    }
    Ok(verdict)
}

fn text(record: &Record) -> String {
    let indent = match record.item {
        "segment" | "no-header" => "",
        "events" | "gap" | "name" => "    ",
        "event" => "      ",
        _ => "  ",
    };
    let mut line = format!("{:04} {:>10}  {indent}{}", record.segment, record.offset, record.item);
    for (word, value) in &record.words {
        match value {
            Value::String(text) if *word != "name" => line += &format!(" {word}={text}"),
            value => line += &format!(" {word}={value}"),
        }
    }
    line
}

/// Records that are not part of a commit.
fn of_file(item: &Item) -> Option<Record> {
    let (item, segment, offset, words) = match item {
        Item::Segment {
            number,
            bytes,
            log_id,
            reserved_bytes,
            created,
            salt,
            sealed,
            header_whole,
            ..
        } => {
            let words = vec![
                ("bytes", Value::from(*bytes)),
                ("sealed", Value::from(*sealed)),
                ("log", Value::from(log_id.to_string())),
                ("reserved_bytes", Value::from(*reserved_bytes)),
                ("created", Value::from(rfc3339(*created))),
                ("salt", Value::from(*salt)),
                ("header_whole", Value::from(*header_whole)),
            ];
            ("segment", *number, 0, words)
        }
        Item::NoHeader { number, bytes, blank } => {
            let words = vec![("bytes", Value::from(*bytes)), ("blank", Value::from(*blank))];
            ("no-header", *number, 0, words)
        }
        Item::Witness { segment, offset, next, durable, clean } => {
            let words = vec![
                ("next", Value::from(next.get())),
                ("durable", Value::from(durable.get())),
                ("clean", Value::from(*clean)),
            ];
            ("witness", *segment, *offset, words)
        }
        Item::Footer { segment, offset, entries, last_position } => {
            let words = vec![
                ("entries", Value::from(*entries)),
                ("last_position", Value::from(last_position.get())),
            ];
            ("footer", *segment, *offset, words)
        }
        other => return of_rest(other),
    };
    Some(Record { item, segment, offset, words })
}

/// Stretches of a file that hold no record.
fn of_rest(item: &Item) -> Option<Record> {
    let (item, segment, offset, bytes) = match item {
        Item::Unreadable { segment, offset, bytes } => ("unreadable", *segment, *offset, *bytes),
        Item::Zeros { segment, offset, bytes } => ("zeros", *segment, *offset, *bytes),
        _ => return None,
    };
    Some(Record { item, segment, offset, words: vec![("bytes", Value::from(bytes))] })
}

/// Commits and what is in them.
fn of_commit(item: &Item) -> Option<Record> {
    let (item, segment, offset, words) = match item {
        Item::Commit {
            segment,
            offset,
            bytes,
            position,
            time,
            acknowledged,
            durable,
            batches,
            whole,
        } => {
            let words = vec![
                ("position", Value::from(position.get())),
                ("bytes", Value::from(*bytes)),
                ("batches", Value::from(*batches)),
                ("time", Value::from(rfc3339(*time))),
                ("acknowledged", Value::from(acknowledged.get())),
                ("durable", Value::from(durable.get())),
                ("whole", Value::from(*whole)),
            ];
            ("commit", *segment, *offset, words)
        }
        Item::Events { segment, offset, bytes, stream, seq, count, whole } => {
            let words = vec![
                ("stream", Value::from(stream.to_string())),
                ("seq", Value::from(seq.get())),
                ("count", Value::from(*count)),
                ("bytes", Value::from(*bytes)),
                ("whole", Value::from(*whole)),
            ];
            ("events", *segment, *offset, words)
        }
        other => return of_batch(other),
    };
    Some(Record { item, segment, offset, words })
}

/// What is in batches, or stands for one.
fn of_batch(item: &Item) -> Option<Record> {
    let (item, segment, offset, words) = match item {
        Item::Event { segment, offset, stream, seq, kind, codec, time, payload_bytes } => {
            let words = vec![
                ("stream", Value::from(stream.to_string())),
                ("seq", Value::from(seq.get())),
                ("kind", Value::from(kind.0)),
                ("codec", Value::from(codec.0)),
                ("time", Value::from(rfc3339(*time))),
                ("payload_bytes", Value::from(*payload_bytes)),
            ];
            ("event", *segment, *offset, words)
        }
        Item::Gap { segment, offset, stream, seq, dropped } => {
            let words = vec![
                ("stream", Value::from(stream.to_string())),
                ("seq", Value::from(seq.get())),
                ("dropped", Value::from(*dropped)),
            ];
            ("gap", *segment, *offset, words)
        }
        Item::Name { segment, offset, stream, name } => {
            let words = vec![
                ("stream", Value::from(stream.to_string())),
                ("name", Value::from(name.as_str())),
            ];
            ("name", *segment, *offset, words)
        }
        Item::Cold { segment, offset, stream, seqs, file_bytes, salt } => {
            let words = vec![
                ("stream", Value::from(stream.to_string())),
                ("from", Value::from(seqs.start.get())),
                ("to", Value::from(seqs.end.get())),
                ("file_bytes", Value::from(*file_bytes)),
                ("salt", Value::from(format!("{salt:08x}"))),
            ];
            ("cold", *segment, *offset, words)
        }
        _ => return None,
    };
    Some(Record { item, segment, offset, words })
}
