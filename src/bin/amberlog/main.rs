//! The command line: what can be asked, and who answers.
//!
//! A shell around the library's public API. Results go to standard output; progress, hints and errors to
//! standard error. Verbs that read take no lock and change nothing, whoever may be writing the log.

mod backup;
mod cat;
mod collect;
mod data;
mod dump;
mod export;
mod flight;
mod import;
mod info;
mod life;
mod lines;
mod list;
mod output;
mod reading;
mod record;
mod repair;
mod retain;
mod sources;
mod units;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::life::Fate;
use crate::output::{Failure, Form, Out, Outcome, Verdict, complain};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  damage or differences were found; they are listed
  2  it could not be done, or not all of it

Only a commit puts events on disk. ls, cat, info, data, export, verify, dump and
backup change nothing in the log, take no lock, and work while another process writes
the log; data --set and --clear do not.";

/// An embedded event log, from the command line.
#[derive(Debug, Parser)]
#[command(name = "amberlog", version, after_help = AFTER_HELP)]
struct Args {
    /// Print JSON: one object a line from ls, cat, dump and import --jsonl, one object from the others
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a stream of each text file, an event of each line
    Import(import::Args),
    /// Write the lines of standard input into one stream
    Record(record::Args),
    /// List streams: by state, label, name, parent and time
    Ls(list::Args),
    /// Print the events of a stream
    Cat(cat::Args),
    /// Tell what is known of a log, or of one stream
    Info {
        /// The log's directory
        log: PathBuf,
        /// A stream: its id, the beginning of its id, or its name
        stream: Option<String>,
    },
    /// Make a stream that begins as another one does; nothing is copied
    Fork(life::ForkArgs),
    /// Drop the events of a stream from a seq on; forks keep what they share
    Rewind(life::Place),
    /// Forget the events of a stream before a seq; forks keep what they share
    Trim(life::Place),
    /// Give a stream a name, another one, or none
    Name(life::NameArgs),
    /// Set labels of a stream, and take them away
    Label(life::LabelArgs),
    /// Print the data that the host keeps with a stream, set it, or take it away
    Data(data::Args),
    /// Archive streams: they are read as before, and neither listed nor written
    Archive(life::ArchiveArgs),
    /// Take that back
    Unarchive(life::Streams),
    /// Delete streams, for good; forks keep what they share, `collect` gives the space back
    Rm(life::Streams),
    /// Write streams as JSON Lines, which `import --jsonl` takes without loss
    Export(export::Args),
    /// Forget what is too old or too much: trim events, delete idle streams
    Retain(retain::Args),
    /// Give back the space of what was deleted, trimmed, rewound and moved
    Collect(collect::Args),
    /// Read every byte of a log and report what is damaged; repairs nothing
    Verify {
        /// The log's directory
        log: PathBuf,
    },
    /// Clear a torn tail, and set aside what keeps a log from going on; drops nothing that may count
    Repair {
        /// The log's directory
        log: PathBuf,
    },
    /// Make a second log of this one, in a directory that is empty or not there yet, while it is written
    Backup {
        /// The log's directory
        log: PathBuf,
        /// The backup's directory
        target: PathBuf,
    },
    /// Take a log apart, record by record, as it lies on disk
    Dump(dump::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let form = if args.json { Form::Json } else { Form::Text };
    match run(&args.verb, form) {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(1),
        Ok(Verdict::Incomplete) => ExitCode::from(2),
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // Whoever read the output has seen enough.
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(&failure);
            ExitCode::from(2)
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
        Verb::Archive(args) => life::archive(args, &mut out),
        Verb::Unarchive(args) => life::decide(args, Fate::Unarchive, &mut out),
        Verb::Rm(args) => life::decide(args, Fate::Delete, &mut out),
        Verb::Export(args) => export::run(args, &mut out),
        Verb::Retain(args) => retain::run(args, &mut out),
        Verb::Collect(args) => collect::run(args, &mut out),
        Verb::Cat(args) => cat::run(args, &mut out),
        Verb::Info { log, stream } => info::run(log, stream.as_deref(), &mut out),
        Verb::Verify { log } => verify::run(log, &mut out),
        Verb::Repair { log } => repair::run(log, &mut out),
        Verb::Backup { log, target } => backup::run(log, target, &mut out),
        Verb::Dump(args) => dump::run(args, &mut out),
    };
    // What was printed before a failure is worth reading too.
    let flushed = out.flush();
    let verdict = verdict?;
    flushed?;
    Ok(verdict)
}
