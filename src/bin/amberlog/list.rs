//! `amberlog ls`: one line for each stream.

use std::path::Path;

use amberlog::StreamInfo;
use serde::Serialize;

use crate::output::{Out, Outcome, Verdict};
use crate::reading::open;
use crate::units::{printable, rfc3339};

#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: String,
    events: u64,
    created: Option<String>,
    name: Option<&'a str>,
}

impl<'a> Listed<'a> {
    fn new(info: &'a StreamInfo) -> Self {
        Self {
            id: info.id.to_string(),
            events: info.head.get(),
            created: info.created.map(rfc3339),
            name: info.name.as_deref(),
        }
    }
}

/// Lists the streams of the log, in the order of their ids.
pub(crate) fn run(log: &Path, out: &mut Out) -> Outcome {
    let (snapshot, survey) = open(log)?;
    let streams = snapshot.streams();
    let most = streams.iter().map(|info| info.head.get()).max();
    let width = most.unwrap_or(0).to_string().len();
    for info in &streams {
        let listed = Listed::new(info);
        if out.is_json() {
            out.json(&listed)?;
        } else {
            let created = listed.created.as_deref().unwrap_or("-");
            let name = listed.name.map(printable).unwrap_or_default();
            let line = format!("{}  {:>width$}  {created}  {name}", listed.id, listed.events);
            out.line(line.trim_end())?;
        }
    }
    Ok(if survey.is_sound() { Verdict::Done } else { Verdict::Found })
}
