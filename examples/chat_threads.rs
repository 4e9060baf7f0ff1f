//! Chat threads: opened by the dozen, kept only when somebody says something that matters.
//!
//! `cargo run --example chat_threads`

use std::error::Error;

use amberlog::{Log, Status, StreamOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("threads");
    let log = Log::open(&path)?;

    // A thread has its id at once, and nothing on disk.
    for n in 0..100 {
        let mut thread = log.stream()?;
        thread.append(format!("model chosen, window {n} opened"))?;
        assert_eq!(log.status(thread.id()), Status::Volatile);
        // Dropped: nobody ever wrote a message.
    }
    println!("after 100 abandoned threads: {} exists: {}", path.display(), path.exists());

    // This one gets a message. Everything from its start becomes durable, with its name, or nothing does.
    let mut thread = log.stream_with(&StreamOptions::new().name("sourdough"))?;
    thread.append("model chosen")?;
    thread.append("user: how wet should the dough be?")?;
    let commit = thread.commit().wait()?;
    println!(
        "commit {} holds events {} to {}",
        commit.position,
        commit.seqs.start,
        commit.seqs.end.get() - 1
    );

    // The answer streams in. If the program dies now, the message is there and the answer is not.
    thread.append("assistant: about 70 % water by weight of flour")?;
    let (id, committed_to) = (thread.id(), commit.seqs.end);
    drop(thread);
    log.close()?;

    // Another day.
    let log = Log::open(&path)?;
    let mut thread = log.resume(id)?;
    assert_eq!(thread.head(), committed_to);
    thread.append("assistant: 70 %, and a little more for rye")?;
    thread.commit().wait()?;
    let snapshot = log.snapshot();
    for event in snapshot.events(snapshot.resolve("sourdough")?)? {
        let event = event?;
        println!("{} {}", event.seq(), String::from_utf8_lossy(event.payload()));
    }
    log.close()?;
    Ok(())
}
