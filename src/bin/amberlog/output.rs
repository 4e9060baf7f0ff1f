//! Where results, hints and errors go, and how a verb ends.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::{Path, PathBuf};

use amberlog::{Error, ErrorKind};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How much is printed at once.
const OUT_BYTES: usize = 256 << 10;

/// For people or for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Lines to read.
    Text,
    /// JSON.
    Json,
}

/// How a verb that ran to its end found things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    /// All is well. Exit code 0.
    Done,
    /// Damage, or differences. Exit code 1.
    Found,
    /// A part could not be done. Exit code 2.
    Incomplete,
}

/// Why a verb could not be done. Exit code 2.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library says so.
    Log {
        /// The log, as it was named.
        path: PathBuf,
        /// What it says.
        error: Error,
    },
    /// Something else than the log cannot be read.
    Input {
        /// What.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// Standard output does not take more.
    Output(io::Error),
    /// Anything else, in words.
    Said(String),
}

/// What a verb comes to.
pub(crate) type Outcome = Result<Verdict, Failure>;

impl From<io::Error> for Failure {
    /// Only writing to standard output is left to `?`.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Input { what, error } => write!(f, "{what}: {error}"),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Said(text) => f.write_str(text),
        }
    }
}

impl Failure {
    fn hint(&self) -> Option<String> {
        let Self::Log { path, error } = self else {
            return None;
        };
        let log = path.display();
        match error.kind() {
            ErrorKind::UnknownName(_)
            | ErrorKind::AmbiguousPrefix(_)
            | ErrorKind::UnknownStream(_) => Some(format!("`amberlog ls {log}` lists them")),
            ErrorKind::NoLog => Some("a log is made by its first commit".into()),
            ErrorKind::Locked { .. } => Some(
                "ls, cat, info, data, export, backup, verify and dump work all the same".into(),
            ),
            ErrorKind::NotEmpty => Some("a backup needs a directory of its own".into()),
            ErrorKind::Archived(id) => {
                Some(format!("`amberlog unarchive {log} {id}` takes that back"))
            }
            ErrorKind::StreamExists(_) => Some(
                "an export is imported into a log that has none of its streams; --resume goes on \
                     with an import that was cut off"
                    .into(),
            ),
            ErrorKind::ArchiveMissing(_) | ErrorKind::WrongArchive(_) => {
                Some("everything else can be read meanwhile".into())
            }
            ErrorKind::Corrupt { .. } => Some(format!("`amberlog verify {log}` tells more")),
            _ => None,
        }
    }
}

/// Makes a failure of what the library says of the log at `path`.
pub(crate) fn in_log(path: &Path) -> impl Fn(Error) -> Failure + '_ {
    move |error| Failure::Log { path: path.to_owned(), error }
}

/// Says something on standard error. If nobody listens there, so be it.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "amberlog: {text}");
}

/// Says why a verb could not be done, and what may help.
pub(crate) fn complain(failure: &Failure) {
    note(failure);
    if let Some(hint) = failure.hint() {
        note(format_args!("hint: {hint}"));
    }
}

/// A bar that shows how far a long work is, where somebody may be looking.
pub(crate) fn progress(length: u64, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The same where nobody knows how much there is to do.
pub(crate) fn waiting(what: &'static str) -> ProgressBar {
    let bar = progress(0, "{spinner} {msg} {elapsed}");
    bar.set_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// Standard output, buffered.
#[derive(Debug)]
pub(crate) struct Out {
    form: Form,
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    /// Takes standard output for the rest of the process.
    pub(crate) fn new(form: Form) -> Self {
        Self { form, to: BufWriter::with_capacity(OUT_BYTES, io::stdout().lock()) }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Where bytes go as they are.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.to
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.to, "{text}")
    }

    /// Prints one object of JSON on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, object)?;
        self.to.write_all(b"\n")
    }

    /// Sends everything on its way.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
