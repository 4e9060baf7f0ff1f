//! `amberlog data`: the bytes that the host keeps with a stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::life::change;
use crate::output::{Failure, Out, Outcome, Verdict};
use crate::reading::{open, resolve};

/// The library refuses what is longer than 64 KiB; nothing beyond that has to be read to know it.
const READ_BYTES_MAX: u64 = (64 << 10) + 1;

const DETAILS: &str = "\
Without --set and --clear the data is printed, byte for byte and without a
newline of its own; of a stream without data nothing is printed. That takes no
lock and changes nothing. With --json it is data_text, or data_base64 if it is
no UTF-8, as in an export; neither is there when there is no data.";

/// What can be asked of `data`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = DETAILS)]
pub(crate) struct Args {
    /// The log's directory
    log: PathBuf,
    /// The stream: its id, the beginning of its id, or its name
    stream: String,
    /// Keep what is in this file, 1 byte to 64 KiB, with the stream, in place of what it had; - is standard input
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    /// Take the data away
    #[arg(long, conflicts_with = "set")]
    clear: bool,
}

#[derive(Debug, Serialize)]
struct Printed<'a> {
    id: String,
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Prints the data of a stream, sets it, or takes it away.
pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    match &args.set {
        Some(from) => set(args, &read(from)?, "data set", out),
        None if args.clear => set(args, &[], "data cleared", out),
        None => print(args, out),
    }
}

fn set(args: &Args, data: &[u8], what: &'static str, out: &mut Out) -> Outcome {
    change(&args.log, &args.stream, what, out, |log, id| {
        let mut stream = log.resume(id)?;
        stream.set_data(data)?;
        let commit = stream.commit().wait()?;
        Ok((stream, commit))
    })
}

/// An empty file is more likely a mistake than a wish.
fn read(from: &Path) -> Result<Vec<u8>, Failure> {
    let (mut data, is_stdin) = (Vec::new(), from == Path::new("-"));
    let what = || if is_stdin { "standard input".into() } else { from.display().to_string() };
    let read = if is_stdin {
        io::stdin().take(READ_BYTES_MAX).read_to_end(&mut data)
    } else {
        File::open(from).and_then(|file| file.take(READ_BYTES_MAX).read_to_end(&mut data))
    };
    match read {
        Ok(0) => Err(Failure::Said(format!("{} is empty; --clear takes data away", what()))),
        Ok(_) => Ok(data),
        Err(error) => Err(Failure::Input { what: what(), error }),
    }
}

fn print(args: &Args, out: &mut Out) -> Outcome {
    let (snapshot, survey) = open(&args.log)?;
    let id = resolve(&snapshot, &args.log, &args.stream)?;
    let info = snapshot.stream(id);
    let data = info.as_ref().and_then(|info| info.data.as_deref());
    if out.is_json() {
        let text = data.and_then(|data| std::str::from_utf8(data).ok());
        out.json(&Printed {
            id: id.to_string(),
            name: info.as_ref().and_then(|info| info.name.as_deref()),
            data_text: text,
            data_base64: data.filter(|_| text.is_none()).map(|data| BASE64.encode(data)),
        })?;
    } else {
        out.raw(data.unwrap_or_default())?;
    }
    Ok(if survey.is_sound() { Verdict::Done } else { Verdict::Found })
}
