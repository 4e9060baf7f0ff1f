//! SVG drawings: a few shapes, in one style for light and dark pages.

use std::fmt::Write as _;

/// Colours of the peers, of medium lightness: visible on white and on black.
const COLOURS: [&str; 12] = [
    "#4f83cc", "#3a9d7e", "#c2577a", "#8b6fc9", "#5a9bb0", "#a8843a", "#7d9a3c", "#c96f4a",
    "#6b7bd6", "#b065b8", "#4a9a55", "#c04f4f",
];
const AMBER: &str = "#d9860b";
const GREY: &str = "#8b929c";

/// Colour of a shape.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Ours,
    /// amberlog, used in another way.
    OursToo,
    /// Floor with this number.
    Floor(usize),
    Peer(usize),
}

impl Colour {
    fn text(self) -> &'static str {
        match self {
            Self::Ours | Self::OursToo => AMBER,
            Self::Floor(_) => GREY,
            Self::Peer(n) => COLOURS[n % COLOURS.len()],
        }
    }
}

/// Anchor of a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Drawing in progress.
pub(super) struct Drawing {
    body: String,
    width: f64,
    height: f64,
}

impl Drawing {
    /// Creates an empty drawing with a title.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut drawing = Self { body: String::new(), width, height };
        let _ = writeln!(drawing.body, "<title>{}</title>", escaped(title));
        drawing.text(16.0, 24.0, Anchor::Start, "title", title);
        drawing
    }

    /// Adds a text in one of the classes `title`, `label`, `strong`.
    pub(super) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        );
    }

    /// Adds a text that runs upwards.
    pub(super) fn text_upwards(&mut self, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\" \
             class=\"label\">{text}</text>"
        );
    }

    /// Adds a thin line of the grid.
    pub(super) fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"grid\"/>"
        );
    }

    /// Adds a filled bar.
    pub(super) fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Colour) {
        let colour = colour.text();
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" \
             fill=\"{colour}\"/>"
        );
    }

    /// Adds a line through points, with a mark on each.
    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: Colour) {
        let text = colour.text();
        let (width, dash) = match colour {
            Colour::Ours => (3.0, "none"),
            Colour::OursToo => (3.0, "7 4"),
            Colour::Floor(0) => (1.6, "5 4"),
            Colour::Floor(_) => (1.6, "1 3"),
            Colour::Peer(_) => (1.6, "none"),
        };
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{text}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dash}\"/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                self.body,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{text}\"/>",
                width + 1.2
            );
        }
    }

    /// Returns the whole file.
    pub(super) fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
             <style>\n\
             text {{ font: 12px system-ui, sans-serif; fill: #57606a; }}\n\
             .title {{ font-size: 14px; font-weight: 600; fill: #24292f; }}\n\
             .strong {{ font-weight: 600; fill: #24292f; }}\n\
             .grid {{ stroke: #8b929c; stroke-opacity: 0.3; }}\n\
             @media (prefers-color-scheme: dark) {{\n\
             text {{ fill: #9da7b3; }}\n\
             .title, .strong {{ fill: #e6edf3; }}\n\
             }}\n\
             </style>\n\
             {body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Scale from values to a range of the drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    is_log: bool,
    start: f64,
    end: f64,
}

impl Scale {
    /// Creates a logarithmic scale, from the power of ten below the least value to the one above
    /// the greatest.
    pub(super) fn log(values: &[f64], start: f64, end: f64) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min).max(1e-6);
        let greatest = values.iter().copied().fold(least, f64::max);
        let from = 10_f64.powf((least * 0.999).log10().floor());
        let to = 10_f64.powf((greatest * 1.001).log10().ceil());
        Self { from, to, is_log: true, start, end }
    }

    /// Creates a linear scale, from 0 to slightly above the greatest value.
    pub(super) fn linear(values: &[f64], start: f64, end: f64) -> Self {
        let to = values.iter().copied().fold(1e-9, f64::max) * 1.05;
        Self { from: 0.0, to, is_log: false, start, end }
    }

    /// Returns the place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + part * (self.end - self.start)
    }

    /// Returns the values to label at the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let powers = (self.to / self.from).log10().round() as i32;
            return (0..=powers).map(|power| self.from * 10_f64.powi(power)).collect();
        }
        let rough = self.to / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(rough);
        (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_are_evenly_spaced() {
        let scale = Scale::log(&[12.0, 900.0], 0.0, 100.0);
        assert_eq!(scale.ticks().len(), 3);
        assert!((scale.at(100.0) - 50.0).abs() < 1e-9);
        assert!(scale.at(10.0).abs() < 1e-9);
    }

    #[test]
    fn even_ticks_are_round() {
        let scale = Scale::linear(&[8.2], 0.0, 100.0);
        assert_eq!(scale.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }
}
