//! The plots: bars for one scenario, lines over the number of writers.

use super::svg::{Anchor, Colour, Drawing, Scale};
use super::table::{OURS, number, ranked};
use crate::contestants;
use crate::results::Results;
use crate::scenarios::{self, Scenario};

/// Plot with its file name, and its scenario if it belongs to one.
pub(super) struct Plot {
    pub(super) file: &'static str,
    pub(super) title: String,
    pub(super) scenario: Option<&'static str>,
    pub(super) svg: String,
}

/// Scenarios drawn as bars, each in one file, with their scale.
const BARS: [(&str, &str, Axis); 7] = [
    ("append-64", "append-64.svg", Axis::Powers),
    ("append-256", "append-256.svg", Axis::Powers),
    ("commit-1", "commit.svg", Axis::Even),
    ("fresh", "fresh.svg", Axis::Even),
    ("scan-streams", "scan-streams.svg", Axis::Even),
    ("scan-log", "scan-log.svg", Axis::Even),
    ("open-killed", "open.svg", Axis::Powers),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Even,
    Powers,
}

/// Scenarios with their numbers of writers.
const THREADS: [(&str, f64); 4] =
    [("commit-1", 1.0), ("group-8", 8.0), ("group-64", 64.0), ("group-256", 256.0)];
const TASKS: [(&str, f64); 2] = [("tasks-256", 256.0), ("tasks-4096", 4096.0)];

/// Returns all plots for which there are results.
pub(super) fn all(results: &Results) -> Vec<Plot> {
    let scenarios = scenarios::all();
    let latency = lines(
        results,
        "latency.svg",
        "Latency of a durable commit against the number of writers",
        ("p50_us", "p50, µs"),
    );
    let rate = lines(
        results,
        "throughput.svg",
        "Durable commits a second against the number of writers",
        ("per_s", "commits a second"),
    );
    let bars = BARS.iter().filter_map(|(name, file, axis)| {
        let scenario = scenarios.iter().find(|scenario| scenario.name == *name)?;
        bars(results, scenario, file, *axis)
    });
    [latency, rate].into_iter().flatten().chain(bars).collect()
}

fn colour(contestant: &str) -> Colour {
    if contestant == OURS {
        return Colour::Ours;
    }
    let at = |floors: bool| {
        let alike = contestants::all().iter().filter(|other| other.is_floor() == floors);
        alike.map(|other| other.name()).position(|name| name == contestant)
    };
    match at(true) {
        Some(floor) => Colour::Floor(floor),
        None => Colour::Peer(at(false).unwrap_or_default()),
    }
}

/// Formats a number at an axis, without needless decimals.
fn whole(value: f64) -> String {
    let text = number(value);
    match text.split_once('.') {
        Some((whole, rest)) if rest.chars().all(|digit| digit == '0') => whole.to_owned(),
        Some(_) => text.trim_end_matches('0').to_owned(),
        None => text,
    }
}

fn class(contestant: &str) -> &'static str {
    if contestant.starts_with(OURS) { "strong" } else { "label" }
}

fn bars(results: &Results, scenario: &Scenario, file: &'static str, axis: Axis) -> Option<Plot> {
    const LEFT: f64 = 190.0;
    const WIDTH: f64 = 720.0;
    const ROW: f64 = 24.0;
    const TOP: f64 = 44.0;
    let ranked = ranked(scenario, results.scenarios.get(scenario.name)?);
    if ranked.is_empty() {
        return None;
    }
    let bottom = TOP + ROW * ranked.len() as f64;
    let mut drawing = Drawing::new(WIDTH, bottom + 48.0, scenario.title);
    let values: Vec<f64> = ranked.iter().map(|(_, value)| *value).collect();
    let scale = match axis {
        Axis::Even => Scale::linear(&values, LEFT, WIDTH - 80.0),
        Axis::Powers => Scale::log(&values, LEFT, WIDTH - 80.0),
    };
    for tick in scale.ticks() {
        let x = scale.at(tick);
        drawing.grid((x, TOP - 4.0), (x, bottom));
        drawing.text(x, bottom + 16.0, Anchor::Middle, "label", &whole(tick));
    }
    let note = if axis == Axis::Powers { ", powers of ten" } else { "" };
    let heading = format!("{}{note}", scenario.columns[0].heading);
    drawing.text((LEFT + WIDTH - 80.0) / 2.0, bottom + 36.0, Anchor::Middle, "label", &heading);
    for (at, (entry, value)) in ranked.iter().enumerate() {
        let (y, name) = (TOP + ROW * at as f64, entry.contestant.as_str());
        drawing.text(LEFT - 8.0, y + 15.0, Anchor::End, class(name), name);
        let width = (scale.at(*value) - LEFT).max(1.0);
        drawing.bar(LEFT, y + 3.0, width, ROW - 7.0, colour(name));
        drawing.text(LEFT + width + 6.0, y + 15.0, Anchor::Start, class(name), &number(*value));
    }
    let (title, svg) = (scenario.title.to_owned(), drawing.finish());
    Some(Plot { file, title, scenario: Some(scenario.name), svg })
}

struct Series {
    name: String,
    colour: Colour,
    points: Vec<(f64, f64)>,
}

fn series(results: &Results, figure: &str) -> Vec<Series> {
    let through = |contestant: &str, scenarios: &[(&str, f64)]| -> Vec<(f64, f64)> {
        let point = |(name, writers): &(&str, f64)| {
            let entries = &results.scenarios.get(*name)?.entries;
            let entry = entries.iter().find(|entry| entry.contestant == contestant)?;
            Some((*writers, entry.figure(figure)?.0))
        };
        scenarios.iter().filter_map(point).collect()
    };
    let threads = contestants::all().iter().map(|contestant| {
        let name = contestant.name();
        Series { name: name.to_owned(), colour: colour(name), points: through(name, &THREADS) }
    });
    let tasks = Series {
        name: format!("{OURS}, tasks"),
        colour: Colour::OursToo,
        points: through(OURS, &TASKS),
    };
    let mut all: Vec<Series> = threads.chain([tasks]).collect();
    all.retain(|series| !series.points.is_empty());
    let last = |series: &Series| series.points.last().map_or(0.0, |(_, value)| *value);
    all.sort_by(|a, b| last(b).total_cmp(&last(a)));
    all
}

fn lines(
    results: &Results,
    file: &'static str,
    title: &str,
    (figure, heading): (&str, &str),
) -> Option<Plot> {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 420.0;
    const LEFT: f64 = 84.0;
    const RIGHT: f64 = WIDTH - 220.0;
    const TOP: f64 = 44.0;
    const BOTTOM: f64 = HEIGHT - 52.0;
    let all = series(results, figure);
    let values: Vec<f64> = all.iter().flat_map(|s| s.points.iter().map(|(_, v)| *v)).collect();
    if values.is_empty() {
        return None;
    }
    let mut drawing = Drawing::new(WIDTH, HEIGHT, title);
    let writers: Vec<f64> =
        THREADS.iter().chain(&TASKS[1..]).map(|(_, writers)| *writers).collect();
    let across = |writers: f64| LEFT + (RIGHT - LEFT) * writers.ln() / 4096_f64.ln();
    let up = Scale::log(&values, BOTTOM, TOP);
    for tick in up.ticks() {
        drawing.grid((LEFT, up.at(tick)), (RIGHT, up.at(tick)));
        drawing.text(LEFT - 8.0, up.at(tick) + 4.0, Anchor::End, "label", &whole(tick));
    }
    for writers in writers {
        let x = across(writers);
        drawing.grid((x, TOP), (x, BOTTOM));
        drawing.text(x, BOTTOM + 16.0, Anchor::Middle, "label", &whole(writers));
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let below = "writers at once, a stream each (threads; tasks on two threads)";
    drawing.text(middle, BOTTOM + 38.0, Anchor::Middle, "label", below);
    drawing.text_upwards(18.0, (TOP + BOTTOM) / 2.0, heading);
    for (at, series) in all.iter().enumerate() {
        let place = |(writers, value): &(f64, f64)| (across(*writers), up.at(*value));
        let points: Vec<(f64, f64)> = series.points.iter().map(place).collect();
        drawing.line(&points, series.colour);
        let y = TOP + 10.0 + 20.0 * at as f64;
        drawing.line(&[(RIGHT + 18.0, y), (RIGHT + 36.0, y)], series.colour);
        drawing.text(RIGHT + 46.0, y + 4.0, Anchor::Start, class(&series.name), &series.name);
    }
    Some(Plot { file, title: title.to_owned(), scenario: None, svg: drawing.finish() })
}
