//! Agent threads: thousands are opened and most are abandoned. The first message of a user makes a
//! thread durable. Then threads are forked, rewound, archived, and found again after a kill.
//!
//! `cargo run --example agent_threads`

use std::error::Error;
use std::path::Path;
use std::process::Command;

use amberlog::{
    ErrorKind, EventKind, Log, NewEvent, Query, ReadView, Stream, StreamId, StreamOptions,
};

/// Settings of a thread, written by the host: its model, its folder. Not worth a file.
const SETUP: EventKind = EventKind(1);
const USER: EventKind = EventKind(2);
const AGENT: EventKind = EventKind(3);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Opens a thread, as every window does. It has its id at once and costs the disk nothing.
fn open_thread(log: &Log) -> Result<Stream> {
    let mut thread = log.create_stream()?;
    thread.append(NewEvent::new(SETUP, "model: small, folder: ~/bread"))?;
    Ok(thread)
}

/// Commits a message of the user, which makes the thread durable from its first event on.
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
    // The second process, which is killed.
    if let Some(path) = std::env::args().nth(1) {
        return be_killed(Path::new(&path));
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("threads");
    let log = Log::open(&path)?;

    let mut abandoned = 0;
    for _ in 0..5_000 {
        let thread = open_thread(&log)?;
        assert!(!thread.is_durable());
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

    // A second attempt at the same question. The fork shares the earlier events and copies nothing.
    let mut other = thread.fork_with(3_u64, &StreamOptions::new().name("sourdough, again"))?;
    ask(&mut other, "and with whole rye?")?;
    answer(&mut other, "80 %, it drinks more")?;

    // Rewinds the first thread to before its last answer, which an older read view still shows.
    let before = log.read_view();
    thread.rewind(4_u64)?;
    answer(&mut thread, "a little more: 75 %")?;
    print("now", &log.read_view(), thread.id())?;
    print("as it was", &before, thread.id())?;

    // A title is committed together with the events.
    other.set_label("title", "Rye")?;
    other.archive().wait()?;
    let refused = other.append("?").expect_err("an archived thread is only read");
    println!("archived: {}", refused);
    let (archived, id) = (other.id(), thread.id());
    drop((thread, other));
    log.close()?;

    // Opens the same log in a process that is killed in the middle of an answer.
    let killed = Command::new(std::env::current_exe()?).arg(&path).status()?;
    assert!(!killed.success());

    let log = Log::open(&path)?;
    let listed = log.list(&Query::new().label("user", "7"))?.streams;
    assert_eq!(listed.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    let mut thread = log.open_stream(id)?;
    println!("after the kill the thread ends at {}: the question survived", thread.head());
    assert_eq!(thread.head().get(), 6);
    answer(&mut thread, "yes: 75 % is fine for bread of spelt as well")?;

    let mut old = log.open_stream(archived)?;
    old.unarchive().wait()?;
    old.delete().wait()?;
    let gone = log.open_stream(archived).expect_err("it was deleted");
    assert!(matches!(gone.kind(), ErrorKind::Deleted(_)));
    print("at last", &log.read_view(), id)?;
    log.close()?;
    Ok(())
}

/// Asks a question and aborts while the answer is still being written.
fn be_killed(path: &Path) -> Result<()> {
    let log = Log::open(path)?;
    let id = log.read_view().find("sourdough").ok_or("no such thread")?;
    let mut thread = log.open_stream(id)?;
    ask(&mut thread, "and with spelt?")?;
    thread.append(NewEvent::new(AGENT, "let me think, with spe"))?;
    // No commit, no close, no destructor: the question is durable, the partial answer is lost.
    std::process::abort()
}

fn print(when: &str, view: &ReadView, id: StreamId) -> Result<()> {
    println!("{when}:");
    for event in view.events(id)? {
        let event = event?;
        let author = match event.kind() {
            USER => "user",
            AGENT => "agent",
            _ => "host",
        };
        println!("  {} {author:>5}: {}", event.seq(), String::from_utf8_lossy(event.payload()));
    }
    Ok(())
}
