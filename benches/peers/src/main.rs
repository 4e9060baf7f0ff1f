//! A race of amberlog and its peers: the same work, the same durability, in turns on one machine.
//!
//! `all` races, counts system calls, and writes the page. Each step can be run alone.

mod child;
mod contestant;
mod contestants;
mod machine;
mod measure;
mod race;
mod report;
mod results;
mod scenarios;
mod syncs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use contestant::Contestant;
use machine::Machine;
use race::Plan;
use results::{Entry, Raced, Refusal, Results};
use scenarios::Scenario;

#[derive(Parser)]
#[command(about = "Races amberlog and its peers, and writes the page about it")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Race, count system calls, write the page
    All(Choice),
    /// Race only; adds to the results
    Race(Choice),
    /// Count the system calls of a commit, with strace; adds to the results
    Syncs(Choice),
    /// Write the page and the plots from the results
    Report(Choice),
    /// List scenarios and contestants, with what they take no part in
    List,
    /// Fill a store, for another process of this program
    #[command(hide = true)]
    Fill {
        contestant: String,
        dir: PathBuf,
        end: String,
        streams: u64,
        commits: u64,
        events: usize,
        event_bytes: usize,
    },
    /// Open a store, for another process of this program
    #[command(hide = true)]
    Open { contestant: String, dir: PathBuf },
    /// Commit, for another process of this program
    #[command(hide = true)]
    Commit { contestant: String, dir: PathBuf, commits: u64 },
}

#[derive(Args, Clone)]
struct Choice {
    /// Only scenarios whose names begin like this; several with commas
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Only this contestant; may be repeated
    #[arg(long = "contestant")]
    contestants: Vec<String>,
    /// Runs of each scenario; the page shows their median
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds for each contestant in each run of a timed scenario
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short run with little data, to check that everything works; its page is not written to
    /// docs/
    #[arg(long)]
    quick: bool,
    /// Directory for the stores, on the disk to measure [default: in the build directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Directory for results, page and plots [default: docs/benchmarks, or the build directory if
    /// quick]
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Choice {
    fn plan(&self) -> Plan {
        let dir = self.dir.clone().unwrap_or_else(|| build_dir().join("race"));
        std::fs::create_dir_all(&dir).expect("the directory can be made");
        let (runs, seconds) = if self.quick { (1, 0.2) } else { (self.runs, self.seconds) };
        Plan { dir, runs, seconds, quick: self.quick }
    }

    fn out(&self) -> PathBuf {
        let docs = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks");
        let default = || if self.quick { build_dir().join("race-quick") } else { docs() };
        self.out.clone().unwrap_or_else(default)
    }

    fn contestants(&self) -> Vec<&'static dyn Contestant> {
        for name in &self.contestants {
            assert!(contestants::by_name(name).is_some(), "there is no contestant {name:?}");
        }
        let all = contestants::all().iter().copied();
        let chosen = |contestant: &&dyn Contestant| {
            self.contestants.is_empty() || self.contestants.iter().any(|n| n == contestant.name())
        };
        all.filter(chosen).collect()
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let chosen = |scenario: &Scenario| {
            let begins = |name: &String| scenario.name.starts_with(name.as_str());
            self.scenarios.is_empty() || self.scenarios.iter().any(begins)
        };
        scenarios::all().into_iter().filter(chosen).collect()
    }
}

/// Returns the directory that cargo built this program in.
fn build_dir() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    program.ancestors().nth(2).expect("it is in a profile's directory").to_owned()
}

fn run_race(choice: &Choice) {
    let (plan, file) = (choice.plan(), choice.out().join("results.json"));
    let contestants = choice.contestants();
    let mut results = Results::to_add_to(&file, Machine::of(&plan.dir));
    results.versions.extend(machine::versions(&contestants));
    for scenario in choice.scenarios() {
        let raced = run_scenario(&plan, &contestants, &scenario);
        results.scenarios.insert(scenario.name.to_owned(), raced);
        results.save(&file);
    }
}

fn run_scenario(plan: &Plan, contestants: &[&dyn Contestant], scenario: &Scenario) -> Raced {
    let takes_part = |c: &&&dyn Contestant| c.refuses(scenario.work).is_none();
    let racing: Vec<_> = contestants.iter().filter(takes_part).copied().collect();
    let load_before = machine::load();
    println!("\n{}: {}; load average {load_before}", scenario.name, scenario.title);
    let mut outcome = (scenario.race)(plan, &racing);
    for value in outcome.iter_mut().flatten().flat_map(|figures| figures.values_mut()) {
        *value = measure::rounded(*value);
    }
    let entries = racing.iter().zip(outcome);
    let entries = entries.map(|(c, runs)| Entry { contestant: c.name().to_owned(), runs });
    let refusals = contestants.iter().filter_map(|c| {
        let reason = c.refuses(scenario.work)?.to_owned();
        Some(Refusal { contestant: c.name().to_owned(), reason })
    });
    let raced = Raced {
        date: machine::today(),
        load_before,
        load_after: machine::load(),
        seconds: plan.seconds,
        quick: plan.quick,
        entries: entries.collect(),
        refusals: refusals.collect(),
    };
    print!("{}", report::table_text(scenario, &raced));
    println!("load average afterwards {}", raced.load_after);
    raced
}

fn run_syncs(choice: &Choice) {
    const COMMITS: u64 = 200;
    let (plan, file) = (choice.plan(), choice.out().join("results.json"));
    let mut results = Results::to_add_to(&file, Machine::of(&plan.dir));
    if let Some(counted) = syncs::count(&plan, &choice.contestants(), COMMITS) {
        for line in &counted {
            println!("{:24} {}", line.contestant, report::calls_per_commit(line));
        }
        results.syncs.retain(|old| counted.iter().all(|new| new.contestant != old.contestant));
        results.syncs.extend(counted);
        results.save(&file);
    }
}

fn run_report(choice: &Choice) {
    let out = choice.out();
    let Some(results) = Results::load(&out.join("results.json")) else {
        eprintln!("there are no results: race first");
        return;
    };
    report::write(&results, &out);
    println!("\nthe page: {}", out.join("README.md").display());
}

fn list() {
    println!("scenarios");
    for scenario in scenarios::all() {
        println!("  {:14} {}", scenario.name, scenario.title);
        for contestant in contestants::all() {
            if let Some(reason) = contestant.refuses(scenario.work) {
                println!("  {:14}   without {}: {reason}", "", contestant.name());
            }
        }
    }
    println!("contestants");
    for contestant in contestants::all() {
        println!("  {:24} {}", contestant.name(), contestant.setup());
    }
}

fn main() {
    match Cli::parse().command {
        Action::All(choice) => {
            run_race(&choice);
            run_syncs(&choice);
            run_report(&choice);
        }
        Action::Race(choice) => run_race(&choice),
        Action::Syncs(choice) => run_syncs(&choice),
        Action::Report(choice) => run_report(&choice),
        Action::List => list(),
        Action::Fill { contestant, dir, end, streams, commits, events, event_bytes } => {
            let fill = child::Fill { streams, commits, events, event_bytes };
            child::be_filler(&contestant, &dir, &end, fill);
        }
        Action::Open { contestant, dir } => child::be_opener(&contestant, &dir),
        Action::Commit { contestant, dir, commits } => {
            child::be_committer(&contestant, &dir, commits);
        }
    }
}
