//! `amberlog data`: the bytes that the host keeps with a stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use amberlog::StreamId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::life::change;
use crate::output::{ExitVerdict, Out, Outcome, VerbFailure};
use crate::reading::StreamArgs;

/// Number of bytes read at most: the library refuses more than 64 KiB.
const READ_BYTES_MAX: u64 = (64 << 10) + 1;

const DETAILS: &str = "\
Without --set and --clear the data is printed byte for byte, without a newline
of its own; nothing is printed for a stream without data. This takes no lock and
changes nothing. With --json it is data_text, or data_base64 if it is not UTF-8,
as in an export; a stream without data has neither.";

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct DataArgs {
    #[command(flatten)]
    of: StreamArgs,
    /// Set the data to the content of this file, 1 byte to 64 KiB; - is standard input
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    /// Remove the data
    #[arg(long, conflicts_with = "set")]
    clear: bool,
}

#[derive(Debug, Serialize)]
struct DataFields<'a> {
    id: StreamId,
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Prints, sets or removes the data of a stream.
pub(crate) fn run(args: &DataArgs, out: &mut Out) -> Outcome {
    match &args.set {
        Some(from) => set(args, &read(from)?, "data set", out),
        None if args.clear => set(args, &[], "data cleared", out),
        None => print(&args.of, out),
    }
}

fn set(args: &DataArgs, data: &[u8], what: &'static str, out: &mut Out) -> Outcome {
    change(&args.of, what, out, |mut stream| {
        stream.set_data(data)?;
        Ok(stream)
    })
}

/// Reads the new data. Refuses an empty file, which is more likely a mistake than a wish.
fn read(from: &Path) -> Result<Vec<u8>, VerbFailure> {
    let mut data = Vec::new();
    let is_stdin = from == Path::new("-");
    let what = || if is_stdin { "standard input".into() } else { from.display().to_string() };
    let read = if is_stdin {
        io::stdin().take(READ_BYTES_MAX).read_to_end(&mut data)
    } else {
        File::open(from).and_then(|file| file.take(READ_BYTES_MAX).read_to_end(&mut data))
    };
    match read {
        Ok(0) => Err(VerbFailure::Said(format!("{} is empty; --clear removes data", what()))),
        Ok(_) => Ok(data),
        Err(error) => Err(VerbFailure::Input { what: what(), error }),
    }
}

fn print(of: &StreamArgs, out: &mut Out) -> Outcome {
    let (reading, info) = of.open()?;
    let data = info.data.as_deref();
    let text = data.and_then(|data| std::str::from_utf8(data).ok());
    let fields = DataFields {
        id: info.id,
        name: info.name.as_deref(),
        data_text: text,
        data_base64: data.filter(|_| text.is_none()).map(|data| BASE64.encode(data)),
    };
    out.result(&fields, |_, out| out.raw(data.unwrap_or_default()))?;
    Ok(ExitVerdict::of_log(reading.report.is_sound()))
}
