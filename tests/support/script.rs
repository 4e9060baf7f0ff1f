//! Scripts of chance: each is played, and the first that fails is printed as short as it can be.

use std::fmt::Debug;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Plays a script; a panic is a failure as well.
pub(crate) fn played<T>(play: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let outcome = catch_unwind(AssertUnwindSafe(play));
    outcome.unwrap_or_else(|panic| match panic.downcast::<String>() {
        Ok(text) => Err(format!("a panic: {text}")),
        Err(_) => Err("a panic without words".into()),
    })
}

/// Plays the script of each of these seeds, and returns what came of them.
pub(crate) fn every_life<Op: Clone + Debug, T>(
    seeds: Range<u64>,
    script: impl Fn(u64) -> Vec<Op>,
    run: impl Fn(u64, &[Op]) -> Result<T, String>,
) -> Vec<T> {
    let life = |seed| {
        run(seed, &script(seed)).unwrap_or_else(|_| {
            let script = shorten(script(seed), |script| run(seed, script).is_err());
            let what = run(seed, &script).err().expect("it failed before");
            panic!("AMBERLOG_FROM={seed}: {what}\nby this script: {script:#?}");
        })
    };
    seeds.map(life).collect()
}

/// Takes away all that the failure does not need.
fn shorten<Op: Clone>(mut script: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut part = script.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < script.len() {
            let mut shorter = script.clone();
            shorter.drain(at..(at + part).min(script.len()));
            if fails(&shorter) {
                script = shorter;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    script
}
