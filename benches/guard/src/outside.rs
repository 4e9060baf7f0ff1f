//! Tools that count from outside the process.

use std::collections::BTreeMap;
use std::process::{Command, Output};

/// Tool that runs a process and counts its instructions or calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    Valgrind,
    Strace,
}

/// Calls whose number depends on the scheduler, on the allocator's earlier calls, or on the clock:
/// the writer also compares names after 100 ms (`newfstatat`; the simulated disk counts it
/// exactly).
const NOT_COUNTED: [&str; 9] = [
    "newfstatat",
    "futex",
    "sched_yield",
    "brk",
    "madvise",
    "restart_syscall",
    "rt_sigprocmask",
    "total",
    "getrandom",
];

impl Tool {
    pub const ALL: [Self; 2] = [Self::Valgrind, Self::Strace];

    /// Counted quantity, in words.
    pub fn counts(self) -> &'static str {
        match self {
            Self::Valgrind => "instructions",
            Self::Strace => "system calls",
        }
    }

    /// Returns true if these tools count the figure with this name.
    pub fn is_counted(figure: &str, tools: &[Self]) -> bool {
        if figure == "instructions" {
            tools.contains(&Self::Valgrind)
        } else {
            !figure.starts_with("call ") || tools.contains(&Self::Strace)
        }
    }

    /// Returns true if the tool is installed and permitted.
    pub fn works(self) -> Result<(), String> {
        let output = self.around("true".as_ref()).output();
        match output {
            Err(error) => Err(format!("{}: {error}", self.program())),
            Ok(output) if !output.status.success() => Err(said(&output)),
            Ok(_) => Ok(()),
        }
    }

    /// Runs `name` the given number of times in a process and returns its figures.
    pub fn count(
        self,
        name: &str,
        times: u64,
        regressed: bool,
    ) -> Result<BTreeMap<String, u64>, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let how = if regressed { "regressed" } else { "as it is" };
        let output = self
            .around(this.as_os_str())
            .args(["run", name, &times.to_string(), how])
            .output()
            .map_err(|error| format!("{}: {error}", self.program()))?;
        if !output.status.success() {
            return Err(format!("{name} under {}: {}", self.program(), said(&output)));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let counts = match self {
            Self::Valgrind => instructions(&text),
            Self::Strace => calls(&text),
        };
        if counts.is_empty() {
            return Err(format!("{} counted nothing: {text}", self.program()));
        }
        Ok(counts)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Valgrind => "valgrind",
            Self::Strace => "strace",
        }
    }

    fn around(self, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Valgrind => command.args([
                "--tool=cachegrind",
                "--cache-sim=no",
                "--branch-sim=no",
                "--cachegrind-out-file=/dev/null",
            ]),
            Self::Strace => command.args(["-f", "-qq", "-c", "-U", "calls,name"]),
        };
        command.arg(program);
        command
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned()
}

/// Parses `==123== I   refs:      1,234,567`.
fn instructions(text: &str) -> BTreeMap<String, u64> {
    let line = text.lines().find(|line| line.contains("I") && line.contains("refs:"));
    let number = line.and_then(|line| line.rsplit_once(':')).map(|(_, number)| number);
    let number = number.and_then(|number| number.trim().replace(',', "").parse().ok());
    number.map(|number| ("instructions".to_owned(), number)).into_iter().collect()
}

/// Parses lines of a number and a name.
fn calls(text: &str) -> BTreeMap<String, u64> {
    let of_line = |line: &str| {
        let (number, name) = line.trim().split_once(char::is_whitespace)?;
        let name = name.trim();
        let counts = !NOT_COUNTED.contains(&name);
        Some((format!("call {name}"), number.parse().ok()?)).filter(|_| counts)
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_understood() {
        let said = "==7== Cachegrind\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(instructions(said), [("instructions".to_owned(), 1_234_567)].into());
        assert!(instructions("==7== nothing").is_empty());
        let said = "    calls syscall\n--------- ----------------\n       12 pwrite64\n        3 futex\n       15 total\n";
        assert_eq!(calls(said), [("call pwrite64".to_owned(), 12)].into());
    }
}
