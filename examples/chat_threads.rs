//! Chat threads: opened by the dozen, and kept only once a user writes a message.
//!
//! `cargo run --example chat_threads`

use std::error::Error;

use amberlog::{Log, StreamOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("threads");
    let log = Log::open(&path)?;

    // A new thread has its id at once and nothing on disk.
    for n in 0..100 {
        let mut thread = log.create_stream()?;
        thread.append(format!("model chosen, window {n} opened"))?;
        assert!(!thread.is_durable());
        // Dropped without a message.
    }
    println!("after 100 abandoned threads: {} exists: {}", path.display(), path.exists());

    // This thread gets a message. The commit makes all its events and its name durable, or nothing.
    let mut thread = log.create_stream_with(&StreamOptions::new().name("sourdough"))?;
    thread.append("model chosen")?;
    thread.append("user: how wet should the dough be?")?;
    let commit = thread.commit().wait()?;
    println!(
        "commit {} holds events {} to {}",
        commit.position,
        commit.seqs.start,
        commit.seqs.end.get() - 1
    );

    // The answer streams in. If the program dies now, the message survives and the answer does not.
    thread.append("assistant: about 70 % water by weight of flour")?;
    let (id, committed_to) = (thread.id(), commit.seqs.end);
    drop(thread);
    log.close()?;

    // The next day.
    let log = Log::open(&path)?;
    let mut thread = log.open_stream(id)?;
    assert_eq!(thread.head(), committed_to);
    thread.append("assistant: 70 %, and a little more for rye")?;
    thread.commit().wait()?;
    let view = log.read_view();
    for event in view.events(view.resolve("sourdough")?)? {
        let event = event?;
        println!("{} {}", event.seq(), String::from_utf8_lossy(event.payload()));
    }
    log.close()?;
    Ok(())
}
