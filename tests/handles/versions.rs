//! Does an old read view still show what a stream was, and is it forgotten once no view can show it?
//!
//! P7, P12. That it is forgotten is counted in `tests/memory.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use amberlog::{CommitOptions, Durability, Log, ReadView, Stream, StreamId};

fn os() -> CommitOptions {
    CommitOptions::new().durability(Durability::Os)
}

/// Says the number of the commit that says it, so that a position tells what is to be seen.
fn say(stream: &mut Stream, n: u64) {
    stream.set_label("n", &n.to_string()).expect("fine");
    stream.rename(&format!("name {}", n % 7)).expect("free");
    assert_eq!(stream.commit_with(os()).wait().expect("committed").position.get(), n);
}

/// Checks that the read view shows what was true at its position.
fn sees(view: &ReadView, id: StreamId) -> Result<(), String> {
    let n = view.position().get();
    let info = view.info(id).ok_or("not there")?;
    let label = info.labels.get("n").cloned().unwrap_or_default();
    let name = info.name.unwrap_or_default();
    let is_right = label == n.to_string() && name == format!("name {}", n % 7);
    let found = view.find(&name).ok_or("not found by its name")?;
    if is_right && found == id { Ok(()) } else { Err(format!("at {n}: {label}, {name}")) }
}

/// Keeps some read views for long and some for a while, and looks at them again and again.
fn pinned_readers_see_what_was() -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    let (mut long, mut late) = (Vec::new(), VecDeque::new());
    for n in 1..=3_000_u64 {
        say(&mut stream, n);
        match n {
            5 | 700 | 701 | 2_500 => long.push(log.read_view()),
            1_600 => long.clear(),
            _ => {}
        }
        if n % 3 == 0 {
            late.push_back(log.read_view());
        }
        if late.len() > (n % 400) as usize {
            late.pop_front();
        }
        if n % 50 == 0 {
            long.iter().chain(&late).try_for_each(|view| sees(view, id))?;
        }
    }
    drop((stream, long, late));
    log.close().expect("closes");
    sees(&ReadView::open(dir.path()).expect("readable").0, id)
}

#[test]
fn p12_pinned_readers_see_what_was() {
    pinned_readers_see_what_was().expect("what was true");
}

#[cfg(amberlog_sabotage)]
#[test]
fn p12_what_is_forgotten_too_early_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::ForgetVersions);
    assert!(pinned_readers_see_what_was().is_err());
}

#[test]
fn p12_readers_look_while_older_versions_go() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    say(&mut stream, 1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for keeps in [1, 40] {
            let (log, is_over) = (&log, &is_over);
            scope.spawn(move || {
                let mut kept = VecDeque::new();
                while !is_over.load(Ordering::Relaxed) {
                    kept.push_back(log.read_view());
                    if kept.len() > keeps {
                        kept.pop_front();
                    }
                    kept.iter().for_each(|view| sees(view, id).expect("what was true"));
                }
            });
        }
        (2..=4_000).for_each(|n| say(&mut stream, n));
        is_over.store(true, Ordering::Relaxed);
    });
}
