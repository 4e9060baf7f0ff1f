//! Results, hints, errors and exit codes.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use amberlog::{Error, ErrorKind, Log};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::screen::{Form, Screen, on_one_line};

/// Size of the output buffer.
const OUT_BYTES: usize = 256 << 10;

/// Findings of a verb that ran to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum ExitVerdict {
    /// All is well. Exit code 0.
    Done,
    /// Damage or differences exist. Exit code 1.
    Found,
    /// Part of the work could not be done. Exit code 2.
    Incomplete,
}

/// Failure of a verb. Exit code 2.
#[derive(Debug)]
pub(crate) enum VerbFailure {
    /// Error of the library.
    Log {
        /// Path of the log, as given.
        path: PathBuf,
        /// The library's error.
        error: Error,
    },
    /// Error of an input other than the log.
    Input {
        /// Name of the input.
        what: String,
        /// Cause.
        error: io::Error,
    },
    /// Error of standard output.
    Output(io::Error),
    /// Any other failure, in words.
    Said(String),
}

impl ExitVerdict {
    /// Returns the verdict for errors that did not stop a verb: damage, or work not done.
    pub(crate) fn of_refused(refused: &[Error]) -> Self {
        let is_damage = |error: &Error| matches!(error.kind(), ErrorKind::Corrupt { .. });
        match refused {
            [] => Self::Done,
            refused if refused.iter().all(is_damage) => Self::Found,
            _ => Self::Incomplete,
        }
    }

    /// Returns the verdict for a log, sound or not.
    pub(crate) fn of_log(is_sound: bool) -> Self {
        if is_sound { Self::Done } else { Self::Found }
    }
}

/// Result of a verb.
pub(crate) type Outcome = Result<ExitVerdict, VerbFailure>;

impl From<io::Error> for VerbFailure {
    /// Converts an error of standard output, the only I/O error left to `?`.
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Display for VerbFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The text of the error names the path.
            Self::Log { path, error } if error.place().is_some_and(|at| at.path == *path) => {
                error.fmt(f)
            }
            Self::Log { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Input { what, error } => write!(f, "{what}: {error}"),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Said(text) => f.write_str(text),
        }
    }
}

impl VerbFailure {
    fn hint(&self) -> Option<String> {
        let Self::Log { path, error } = self else {
            return None;
        };
        let log = path.display();
        Some(match error.kind() {
            ErrorKind::UnknownName(_)
            | ErrorKind::AmbiguousPrefix(_)
            | ErrorKind::UnknownStream(_) => format!("`amberlog ls {log}` lists them"),
            ErrorKind::NoLog => "check the path".into(),
            ErrorKind::Locked { .. } => {
                "ls, cat, info, data, export, backup, verify and dump work beside a writer".into()
            }
            ErrorKind::NotEmpty => "a backup needs a new or empty directory".into(),
            ErrorKind::Archived(id) => {
                format!("`amberlog unarchive {log} {id}` makes it active again")
            }
            ErrorKind::StreamExists(_) => {
                "an export needs a log that has none of its streams; --resume finishes an \
                 interrupted import"
                    .into()
            }
            ErrorKind::Corrupt { .. } => format!("`amberlog verify {log}` reports details"),
            _ => return None,
        })
    }
}

/// Returns a function that turns the library's errors into failures of the log at `path`.
pub(crate) fn in_log(path: &Path) -> impl Fn(Error) -> VerbFailure + '_ {
    move |error| VerbFailure::Log { path: path.to_owned(), error }
}

/// Prints a note on one line of standard error. Ignores errors of doing so.
pub(crate) fn note(text: impl Display) {
    let text = text.to_string();
    let _ = writeln!(io::stderr(), "amberlog: {}", on_one_line(&text));
}

/// Prints the background errors of the log at `path`, and closes it.
pub(crate) fn close(log: Log, path: &Path) -> Result<(), VerbFailure> {
    log.background_errors().iter().for_each(note);
    log.close().map_err(in_log(path))
}

/// Prints a message about the command line, of one or more lines, on standard error.
pub(crate) fn tell_usage(text: &str) {
    let mut screen = Screen::new(io::stderr().lock(), Form::Text);
    let _ = screen.write_all(text.as_bytes()).and_then(|()| screen.flush());
}

/// Prints a failure, and a hint if one may help.
pub(crate) fn complain(failure: &VerbFailure) {
    note(failure);
    if let Some(hint) = failure.hint() {
        note(format_args!("hint: {hint}"));
    }
}

/// Creates a progress bar, visible on terminals only.
pub(crate) fn progress(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Shows a spinner during work of unknown length.
pub(crate) fn waiting<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let bar = progress(0, "{spinner} {msg} {elapsed}");
    bar.set_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let done = work();
    bar.finish_and_clear();
    done
}

/// Buffered standard output. Terminals get control characters escaped.
pub(crate) struct Out {
    form: Form,
    to: BufWriter<Box<dyn Write>>,
}

impl Out {
    /// Takes standard output for the rest of the process.
    pub(crate) fn new(form: Form) -> Self {
        let stdout = io::stdout().lock();
        // Escapes keep the value of JSON, and some readers end lines at more than `\n`.
        let to: Box<dyn Write> = match stdout.is_terminal() || form == Form::Json {
            true => Box::new(Screen::new(stdout, form)),
            false => Box::new(stdout),
        };
        Self { form, to: BufWriter::with_capacity(OUT_BYTES, to) }
    }

    /// Returns whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Returns the writer for bytes as they are; a terminal gets them escaped.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.to
    }

    /// Prints bytes as they are; a terminal gets them escaped.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Prints one line of text; control characters inside it are escaped.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        writeln!(self.to, "{}", on_one_line(&text))
    }

    /// Prints a result: as a JSON object, or as text by `print`.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        result: &T,
        print: impl FnOnce(&T, &mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.is_json() { self.json(result) } else { print(result, self) }
    }

    /// Prints one JSON object on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, object)?;
        self.to.write_all(b"\n")
    }

    /// Writes out the buffer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
