//! Agent threads: thousands are opened, most are abandoned, and the first message of a user is what makes one real. Then
//! they are forked, taken back, archived, and found again after the program was killed.
//!
//! `cargo run --example agent_threads`

use std::error::Error;
use std::path::Path;
use std::process::Command;

use amberlog::{
    ErrorKind, EventKind, Log, NewEvent, Query, Snapshot, Status, Stream, StreamId, StreamOptions,
};

/// What the host says of a thread: its model, its folder. Nothing that is worth a file.
const SETUP: EventKind = EventKind(1);
const USER: EventKind = EventKind(2);
const AGENT: EventKind = EventKind(3);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A thread as every window opens one: it has its id at once, and costs the disk nothing.
fn open_thread(log: &Log) -> Result<Stream> {
    let mut thread = log.stream()?;
    thread.append(NewEvent::new(SETUP, "model: small, folder: ~/bread"))?;
    Ok(thread)
}

/// A message of the user is the moment that counts: the thread becomes durable, from its first event on.
fn ask(thread: &mut Stream, text: &str) -> Result<()> {
    thread.append(NewEvent::new(USER, text)).map_err(amberlog::Error::from)?;
    thread.commit().wait()?;
    Ok(())
}

fn answer(thread: &mut Stream, text: &str) -> Result<()> {
    thread.append(NewEvent::new(AGENT, text)).map_err(amberlog::Error::from)?;
    thread.commit().wait()?;
    Ok(())
}

fn main() -> Result<()> {
    // The second life of this program, which ends without a word.
    if let Some(path) = std::env::args().nth(1) {
        return be_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("threads");
    let log = Log::open(&path)?;

    let mut abandoned = 0;
    for _ in 0..5_000 {
        let thread = open_thread(&log)?;
        assert_eq!(log.status(thread.id()), Status::Volatile);
        abandoned += 1;
    }
    assert!(!path.exists());
    println!("{abandoned} threads were opened and abandoned: no file, no row, no lock");

    let mut thread = open_thread(&log)?;
    thread.rename("sourdough")?;
    thread.set_label("user", "7")?;
    ask(&mut thread, "how wet should the dough be?")?;
    answer(&mut thread, "about 70 % of the flour's weight")?;
    ask(&mut thread, "and with rye?")?;
    answer(&mut thread, "no idea")?;

    // Another try from the same question. It shares what is before, and copies nothing.
    let mut other = thread.fork_with(3_u64, &StreamOptions::new().name("sourdough, again"))?;
    ask(&mut other, "and with whole rye?")?;
    answer(&mut other, "80 %, it drinks more")?;

    // The first one goes back to before its last answer. Who reads an older snapshot still sees it.
    let before = log.snapshot();
    thread.rewind(4_u64)?;
    answer(&mut thread, "a little more: 75 %")?;
    print("now", &log.snapshot(), thread.id())?;
    print("as it was", &before, thread.id())?;

    // A title is worth as much as the events: it is committed with them, in one place.
    other.set_label("title", "Rye")?;
    other.archive().wait()?;
    let refused = other.append("?").expect_err("an archived thread is only read");
    println!("archived: {}", refused.reason);
    let (archived, id) = (other.id(), thread.id());
    drop((thread, other));
    log.close()?;

    // The same log in a process that is killed in the middle of an answer.
    let killed = Command::new(std::env::current_exe()?).arg(&path).status()?;
    assert!(!killed.success());

    let log = Log::open(&path)?;
    let listed = log.list(&Query::new().label_is("user", "7")).streams;
    assert_eq!(listed.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    let mut thread = log.resume(id)?;
    println!("after the kill the thread ends at {}: the question is there", thread.head());
    assert_eq!(thread.head().get(), 6);
    answer(&mut thread, "yes: 75 % is fine for bread of spelt as well")?;

    let mut old = log.resume(archived)?;
    old.unarchive().wait()?;
    old.delete().wait()?;
    let gone = log.resume(archived).expect_err("it was deleted");
    assert!(matches!(gone.kind(), ErrorKind::Deleted(_)));
    print("at last", &log.snapshot(), id)?;
    log.close()?;
    Ok(())
}

/// Asks, and dies while the answer is still being written.
fn be_killed(path: &Path) -> Result<()> {
    let log = Log::open(path)?;
    let id = log.snapshot().find("sourdough").ok_or("no such thread")?;
    let mut thread = log.resume(id)?;
    ask(&mut thread, "and with spelt?")?;
    thread.append(NewEvent::new(AGENT, "let me think, with spe"))?;
    // No commit, no close, no destructor: what was asked is there, what was not committed is not.
    std::process::abort()
}

fn print(when: &str, snapshot: &Snapshot, id: StreamId) -> Result<()> {
    println!("{when}:");
    for event in snapshot.events(id)? {
        let event = event?;
        let who = match event.kind() {
            USER => "user",
            AGENT => "agent",
            _ => "host",
        };
        println!("  {} {who:>5}: {}", event.seq(), String::from_utf8_lossy(event.payload()));
    }
    Ok(())
}
