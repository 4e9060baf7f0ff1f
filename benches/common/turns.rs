//! Contestants and floors in turns: in each round every one of them runs once, so that other load
//! on the machine affects all alike, and compared times are of the same minute.

use std::time::{Duration, Instant};

/// Contestant: its name and its work. The work measures its own time, so that preparations do not
/// count.
pub(crate) struct Turn<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Duration + 'a>,
    times: Vec<Duration>,
}

impl<'a> Turn<'a> {
    /// Creates a contestant whose whole work is timed.
    pub(crate) fn new(name: &'static str, mut run: impl FnMut() + 'a) -> Self {
        Self::timed(name, move || {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
    }

    /// Creates a contestant whose work returns its own time.
    pub(crate) fn timed(name: &'static str, run: impl FnMut() -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run), times: Vec::new() }
    }
}

/// Returns true if this run only checks that everything works (`cargo test --benches`).
pub(crate) fn is_trial() -> bool {
    !std::env::args().any(|arg| arg == "--bench")
}

/// Returns true if this case was selected; without a name on the command line, all are.
pub(crate) fn is_wanted(case: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|name| case.contains(&name) || name.contains(case))
}

/// Runs all in turns and prints for each the median, the least and the greatest time, the rate for
/// `amount` of `unit`, and the ratio to the first one, which is the floor.
pub(crate) fn race(
    case: &str,
    rounds: usize,
    (amount, unit): (f64, &str),
    mut turns: Vec<Turn<'_>>,
) {
    if !is_wanted(case) {
        return;
    }
    let rounds = if is_trial() { 1 } else { rounds };
    for round in 0..=rounds {
        for turn in &mut turns {
            let time = (turn.run)();
            // The first round is a warm-up.
            if round > 0 || rounds == 1 {
                turn.times.push(time);
            }
        }
    }
    println!("{case} (load {}):", super::load());
    let mut floor = None;
    for turn in &mut turns {
        turn.times.sort_unstable();
        let median = turn.times[turn.times.len() / 2].as_secs_f64();
        let floor = *floor.get_or_insert(median);
        let [least, most] = [turn.times.first(), turn.times.last()]
            .map(|time| time.map_or(0.0, Duration::as_secs_f64));
        println!(
            "  {:<28} {:>9.3} ms  [{:.3} .. {:.3}]  {:>10.3} {unit}  {:>5.2} x floor",
            turn.name,
            median * 1e3,
            least * 1e3,
            most * 1e3,
            amount / median,
            median / floor,
        );
    }
}
