//! The page and its plots, made from the results alone.

mod page;
mod plots;
mod svg;
mod table;

use std::path::Path;

use crate::results::Results;

pub(crate) use table::{calls_per_commit, table_text};

/// Writes the page and the plots into a directory.
pub(crate) fn write(results: &Results, out: &Path) {
    let plots = plots::all(results);
    for plot in &plots {
        std::fs::write(out.join(plot.file), &plot.svg).expect("writable");
    }
    std::fs::write(out.join("README.md"), page::text(results, &plots)).expect("writable");
}
