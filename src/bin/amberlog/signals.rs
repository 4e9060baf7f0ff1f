//! SIGINT and SIGTERM: the first ends the work in progress in good order, the second ends the
//! process.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Maximum number of bytes that are still read after a signal, if they were in the pipe before it:
/// a pipe holds no more.
const GIVEN_BYTES_MAX: u64 = 1 << 20;

/// Handlers of both signals.
#[derive(Debug)]
pub(crate) struct Signals {
    asked: Arc<AtomicUsize>,
    /// Becomes readable with the first signal.
    told: UnixStream,
}

impl Signals {
    /// Installs the handlers. A second signal ends the process with exit code 128 plus its number.
    pub(crate) fn watch() -> io::Result<Self> {
        let (told, tells) = UnixStream::pair()?;
        let asked = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        for (signal, number) in [(SIGINT, SIGINT as usize), (SIGTERM, SIGTERM as usize)] {
            let code = signal.saturating_add(128);
            flag::register_conditional_shutdown(signal, code, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&asked), number)?;
            low_level::pipe::register(signal, tells.try_clone()?)?;
        }
        Ok(Self { asked, told })
    }

    /// Returns the signal that arrived, if any.
    pub(crate) fn asked(&self) -> Option<&'static str> {
        match self.asked.load(Ordering::Acquire) {
            0 => None,
            number if number == SIGTERM as usize => Some("SIGTERM"),
            _ => Some("SIGINT"),
        }
    }

    /// Waits for a signal, at most `at_most`.
    pub(crate) fn wait(&self, at_most: Duration) -> Option<&'static str> {
        let most = Timespec::try_from(at_most).unwrap_or_default();
        // An interrupted wait was interrupted by one of the signals.
        let _ = poll(&mut [PollFd::new(&self.told, PollFlags::IN)], Some(&most));
        self.asked()
    }
}

/// Standard input that ends at a signal, after the bytes that were written before it.
pub(crate) struct StoppableInput<'a> {
    signals: &'a Signals,
    /// Number of bytes that may still be read, once a signal has arrived.
    left: Option<u64>,
}

impl<'a> StoppableInput<'a> {
    /// Reads on from the current place of standard input.
    pub(crate) fn new(signals: &'a Signals) -> Self {
        Self { signals, left: None }
    }

    /// Waits for input or a signal, and returns the number of bytes that may be read.
    fn allowed(&mut self, wanted: usize) -> io::Result<usize> {
        let stdin = io::stdin();
        while self.left.is_none() && self.signals.asked().is_none() {
            let both = [&stdin.as_fd(), &self.signals.told.as_fd()];
            let mut both = both.map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN));
            match poll(&mut both, None) {
                Ok(_) if both[1].revents().is_empty() => return Ok(wanted),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let given = || rustix::io::ioctl_fionread(&stdin).unwrap_or(0).min(GIVEN_BYTES_MAX);
        let left = *self.left.get_or_insert_with(given);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }
}

impl Read for StoppableInput<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed(into.len())?;
        if allowed == 0 {
            return Ok(0);
        }
        // Bypasses the buffer of the standard library, which is empty: nothing else reads standard
        // input.
        let read = rustix::io::read(io::stdin(), &mut into[..allowed])?;
        self.left = self.left.map(|left| left.saturating_sub(read as u64));
        Ok(read)
    }
}
