//! Opening a log to read it, and what there is to say about how it was found.

use std::path::Path;

use amberlog::{Snapshot, StreamId, Survey};

use crate::output::{Failure, in_log, note};
use crate::units::count;

/// Opens the log at `path` without a lock, and says on standard error what a reader should know.
pub(crate) fn open(path: &Path) -> Result<(Snapshot, Survey), Failure> {
    let (snapshot, survey) = Snapshot::open(path).map_err(in_log(path))?;
    let hidden = survey.position.get().saturating_sub(survey.acknowledged.get());
    if hidden > 0 {
        note(format_args!(
            "{} past the watermark not shown: being written right now, or waiting for the next writer \
             to open the log",
            count(hidden, "commit")
        ));
    }
    tell_damage(&survey, path);
    Ok((snapshot, survey))
}

/// Says on standard error that a log is damaged, and returns whether it is sound.
pub(crate) fn tell_damage(survey: &Survey, path: &Path) -> bool {
    if !survey.is_sound() {
        note(format_args!(
            "the log is damaged in {}; `amberlog verify {}` tells where",
            count(survey.damages.len() as u64, "place"),
            path.display()
        ));
    }
    survey.is_sound()
}

/// The stream that `text` names.
pub(crate) fn resolve(snapshot: &Snapshot, path: &Path, text: &str) -> Result<StreamId, Failure> {
    snapshot.resolve(text).map_err(in_log(path))
}
