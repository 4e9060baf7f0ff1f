//! Many tasks, one disk: each task commits its own stream and awaits its ticket. Commits that
//! arrive together share one write and one sync.
//!
//! `cargo run --example async_commits --features tokio`

use std::error::Error;

use amberlog::{Log, Options, Result, StreamId};

const TASKS: u64 = 200;
const COMMITS: u64 = 5;

async fn work(log: Log, task: u64) -> Result<StreamId> {
    let mut stream = log.create_stream()?;
    for n in 0..COMMITS {
        // `append` makes no system call, and awaiting a ticket blocks no thread of the runtime.
        if stream.append(format!("task {task}, step {n}")).is_err() {
            break;
        }
        stream.commit().await?;
    }
    Ok(stream.id())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // Opening and closing wait for the disk, so they run on the runtime's blocking threads.
    let log = Options::new().open_async(dir.path().join("log")).await?;

    let started = std::time::Instant::now();
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(work(log.clone(), task))).collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await??);
    }
    let (took, commits) = (started.elapsed(), TASKS * COMMITS);
    println!("{commits} commits of {TASKS} streams in {took:.1?}");
    assert_eq!(log.read_view().position().get(), commits);

    let mut events = log.read_view().events(ids[0])?.into_async();
    while let Some(event) = events.next().await {
        println!("{}", String::from_utf8_lossy(event?.payload()));
    }
    log.close_async().await?;
    Ok(())
}
