//! `amberlog dump`: the records of a log, one by one, as they lie on disk.
//!
//! Prints the library's [`Record`] with all its fields; it names kinds of records for their
//! indentation only.

use std::fmt;
use std::path::PathBuf;

use amberlog::verify::{Record, RecordBody, RecordDump};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;

use crate::output::{ExitVerdict, Out, Outcome, in_log, note};
use crate::reading::refuse_file;

const DETAILS: &str = "\
A line has the segment's number, the offset in its file, and the record.
Unreadable parts are shown as such, without interpretation: `amberlog verify`
reports whether they are damage.";

/// Arguments of `dump`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct DumpArgs {
    /// Directory of the log
    log: PathBuf,
    /// Print every event too
    #[arg(long)]
    events: bool,
}

/// Prints the records of the segments, in file order.
pub(crate) fn run(args: &DumpArgs, out: &mut Out) -> Outcome {
    refuse_file(&args.log)?;
    let failed = in_log(&args.log);
    let mut verdict = ExitVerdict::Done;
    for record in RecordDump::open(&args.log).map_err(&failed)? {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                verdict = ExitVerdict::Incomplete;
                note(failed(error));
                continue;
            }
        };
        if matches!(record.body, RecordBody::Event { .. }) && !args.events {
            continue;
        }
        out.result(&record, |record, out| out.line(text(record)?))?;
    }
    Ok(verdict)
}

/// Renders a record on one line: its place, its kind, and all other fields.
fn text(record: &Record) -> std::io::Result<String> {
    let json = serde_json::to_string(record)?;
    let words = serde_json::Deserializer::from_str(&json).deserialize_map(Words::default())?;
    let kind = words.iter().find(|(word, _)| word == "record").and_then(|(_, kind)| kind.as_str());
    let indent = match record.body {
        RecordBody::Segment { .. } | RecordBody::NoHeader { .. } | RecordBody::Dropped { .. } => "",
        RecordBody::Commit { .. } | RecordBody::TailRecord { .. } | RecordBody::Footer { .. } => {
            "  "
        }
        RecordBody::Event { .. } => "      ",
        _ => "    ",
    };
    let (segment, offset) = (record.segment, record.offset);
    let mut line = format!("{segment:04} {offset:>10}  {indent}{}", kind.unwrap_or_default());
    let rest = |(word, _): &&(String, Value)| !["record", "segment", "offset"].contains(&&**word);
    for (word, value) in words.iter().filter(rest) {
        match value {
            Value::String(text) if is_plain(text) => line += &format!(" {word}={text}"),
            value => line += &format!(" {word}={value}"),
        }
    }
    Ok(line)
}

/// Collector of the fields of an object, in their order.
#[derive(Default)]
struct Words(Vec<(String, Value)>);

impl<'de> Visitor<'de> for Words {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(word) = map.next_entry()? {
            self.0.push(word);
        }
        Ok(self.0)
    }
}

/// Returns whether a text needs no quotes: it has no special characters and is not itself JSON.
fn is_plain(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.".contains(&byte);
    text.bytes().all(fine) && serde_json::from_str::<Value>(text).is_err() && !text.is_empty()
}
