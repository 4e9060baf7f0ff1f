//! The command line: parses arguments and runs a verb.
//!
//! A shell around the library's public API. Results go to standard output; progress, hints and
//! errors to standard error. Verbs that read take no lock and change nothing, even beside a writer.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod backup;
mod cat;
mod compact;
mod compare;
mod data;
mod dump;
mod export;
mod flight;
mod import;
mod info;
mod json_help;
mod life;
mod lines;
mod list;
mod output;
mod packed;
mod reading;
mod record;
mod repair;
mod retain;
mod screen;
mod signals;
mod sources;
mod units;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::output::{ExitVerdict, Out, Outcome, VerbFailure, complain, tell_usage};
use crate::screen::Form;

const AFTER_HELP: &str = "\
Exit codes:
  0  done; also when the reader of the output closed it, and when SIGINT or SIGTERM
     stopped `record` after it had committed what it had read
  1  damage or differences were found and listed
  2  some or all of the work could not be done

rm, trim and rewind need a stream's whole id or its name; they accept a prefix of
the id only with --yes, or after asking on a terminal. On a terminal, control
characters are escaped; files and pipes get the bytes as they are.

Only a commit puts events on disk. ls, cat, info, data, export, verify, dump and
backup change nothing in the log, take no lock, and work while another process
writes the log; so do label and data, unless they change something.";

/// Embedded event log, from the command line.
#[derive(Debug, Parser)]
#[command(name = "amberlog", version, after_help = AFTER_HELP)]
struct CommandLine {
    /// Print JSON: one object per line from ls, cat, dump and import --jsonl, one object from the
    /// others
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Import text files: each file becomes a stream, each line an event
    Import(import::ImportArgs),
    /// Record the lines of standard input in one stream
    Record(record::RecordArgs),
    /// List streams by state, label, name, parent and time
    Ls(list::ListArgs),
    /// Print the events of a stream
    Cat(cat::CatArgs),
    /// Show facts about a log, or about one stream
    Info {
        /// Directory of the log
        log: PathBuf,
        /// Stream: its id, a prefix of its id, or its name
        stream: Option<String>,
    },
    /// Create a stream that shares the beginning of another; copies nothing
    Fork(life::ForkArgs),
    /// Drop the events of a stream from a seq on; forks keep what they share
    Rewind(life::CutArgs),
    /// Drop the events of a stream before a seq; forks keep what they share
    Trim(life::CutArgs),
    /// Name a stream, rename it, or remove its name
    Name(life::NameArgs),
    /// Show, set or remove labels of a stream
    Label(life::LabelArgs),
    /// Print, set or remove the data that the host keeps with a stream
    Data(data::DataArgs),
    /// Archive streams: they stay readable, but are not listed and cannot be written
    Archive(life::StreamsArgs),
    /// Make archived streams active again
    Unarchive(life::StreamsArgs),
    /// Delete streams for good; forks keep what they share, `compact` gives back the space
    Rm(life::RmArgs),
    /// Write streams as JSON Lines, which `import --jsonl` reads without loss
    Export(export::ExportArgs),
    /// Trim old or excess events, and delete idle streams
    Retain(retain::RetainArgs),
    /// Give back the space of deleted, trimmed and rewound events
    Compact(compact::CompactArgs),
    /// Read a whole log, byte by byte and as its users do, and report damage; repairs nothing
    Verify(verify::VerifyArgs),
    /// Make a log writable again: clear a torn tail, and continue after damage; keeps a copy of all
    /// bytes that it removes
    Repair {
        /// Directory of the log
        log: PathBuf,
    },
    /// Copy a log into a new or empty directory, even while it is being written
    Backup {
        /// Directory of the log
        log: PathBuf,
        /// Directory of the backup
        target: PathBuf,
    },
    /// Print the records of a log, one by one, as they are stored on disk
    Dump(dump::DumpArgs),
}

/// Deleting verbs: never suggested for a mistyped word.
const DELETING: [&str; 4] = ["rm", "trim", "rewind", "retain"];

fn main() -> ExitCode {
    let matched = json_help::described(CommandLine::command()).try_get_matches();
    let line = match matched.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(line) => line,
        Err(error) => return misused(error),
    };
    let form = if line.json { Form::Json } else { Form::Text };
    match run(&line.verb, form) {
        Ok(ExitVerdict::Done) => ExitCode::SUCCESS,
        Ok(ExitVerdict::Found) => ExitCode::from(1),
        Ok(ExitVerdict::Incomplete) => ExitCode::from(2),
        Err(VerbFailure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // The reader of the output closed it.
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(&failure);
            ExitCode::from(2)
        }
    }
}

/// Prints help, or an error of the command line, whose words may be file names.
fn misused(mut error: clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // The reader of the output may have closed it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    suggest_nothing_that_deletes(&mut error);
    tell_usage(&error.render().to_string());
    ExitCode::from(2)
}

fn suggest_nothing_that_deletes(error: &mut clap::Error) {
    let deletes = |word: &str| DELETING.contains(&word);
    if let Some(ContextValue::Strings(mut verbs)) = error.remove(ContextKind::SuggestedSubcommand) {
        verbs.retain(|verb| !deletes(verb));
        if !verbs.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(verbs));
        }
    }
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().split(['\'', ' ']).any(deletes));
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
}

fn run(verb: &Verb, form: Form) -> Outcome {
    let mut out = Out::new(form);
    let verdict = match verb {
        Verb::Import(args) => import::run(args, &mut out),
        Verb::Record(args) => record::run(args, &mut out),
        Verb::Ls(args) => list::run(args, &mut out),
        Verb::Fork(args) => life::fork(args, &mut out),
        Verb::Rewind(args) => life::rewind(args, &mut out),
        Verb::Trim(args) => life::trim(args, &mut out),
        Verb::Name(args) => life::name(args, &mut out),
        Verb::Label(args) => life::label(args, &mut out),
        Verb::Data(args) => data::run(args, &mut out),
        Verb::Archive(args) => life::decide(args, &life::ARCHIVED, &mut out),
        Verb::Unarchive(args) => life::decide(args, &life::ACTIVE, &mut out),
        Verb::Rm(args) => life::delete(args, &mut out),
        Verb::Export(args) => export::run(args, &mut out),
        Verb::Retain(args) => retain::run(args, &mut out),
        Verb::Compact(args) => compact::run(args, &mut out),
        Verb::Cat(args) => cat::run(args, &mut out),
        Verb::Info { log, stream } => info::run(log, stream.as_deref(), &mut out),
        Verb::Verify(args) => verify::run(args, &mut out),
        Verb::Repair { log } => repair::run(log, &mut out),
        Verb::Backup { log, target } => backup::run(log, target, &mut out),
        Verb::Dump(args) => dump::run(args, &mut out),
    };
    // Output from before a failure is worth reading too.
    let flushed = out.flush();
    let verdict = verdict?;
    flushed?;
    Ok(verdict)
}
