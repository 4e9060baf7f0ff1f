//! A bank account as an aggregate: its state is the fold of its events, a decision is taken on what was read, and it is
//! committed only if nothing happened meanwhile. A request that is sent twice happens once.
//!
//! `cargo run --example bank`

use std::error::Error;
use std::thread;

use amberlog::{
    Bincode, CommitId, CommitOptions, ErrorKind, EventKind, Expect, Log, Seq, StreamId,
    StreamOptions, TypedEvents,
};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const MOVED: EventKind = EventKind(1);

#[derive(Serialize, Deserialize)]
enum Moved {
    Opened { owner: String },
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}

/// What an account is after its events, and how many those were.
#[derive(Default)]
struct Account {
    cents: u64,
    version: Seq,
}

impl Account {
    fn load(log: &Log, id: StreamId) -> Result<Self> {
        let mut account = Self::default();
        let events: TypedEvents<Moved, Bincode> = log.snapshot().events(id)?.typed();
        for event in events {
            let (event, moved) = event?;
            match moved {
                Moved::Opened { .. } => {}
                Moved::Deposited { cents } => account.cents += cents,
                Moved::Withdrawn { cents } => account.cents -= cents,
            }
            account.version = Seq::from(event.seq().get() + 1);
        }
        Ok(account)
    }
}

/// What became of a request.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Done,
    DoneBefore,
    NotEnough,
}

/// Takes money out of an account, once for each request however often it is sent, and never more than there is.
fn withdraw(log: &Log, id: StreamId, cents: u64, request: CommitId) -> Result<Answer> {
    loop {
        let account = Account::load(log, id)?;
        let enough = account.cents >= cents;
        let mut stream = log.resume(id)?;
        if enough {
            stream.typed::<Moved>().append_as(MOVED, &Moved::Withdrawn { cents })?;
        }
        // A commit of nothing still tells whether this request was done before.
        let options = CommitOptions::new().id(request).expect(Expect::At(account.version));
        match stream.commit_with(options).wait() {
            Ok(_) if enough => return Ok(Answer::Done),
            Ok(_) => return Ok(Answer::NotEnough),
            Err(error) => match error.kind() {
                ErrorKind::AlreadyCommitted { .. } => return Ok(Answer::DoneBefore),
                // Somebody was faster: look again, decide again.
                ErrorKind::Conflict { .. } => {}
                _ => return Err(error.into()),
            },
        }
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = Log::open(dir.path().join("bank"))?;
    let mut account = log.stream_with(&StreamOptions::new().name("account of Ada"))?;
    let id = account.id();
    let mut typed = account.typed::<Moved>();
    typed.append_as(MOVED, &Moved::Opened { owner: "Ada".into() })?;
    typed.append_as(MOVED, &Moved::Deposited { cents: 1_000 })?;
    account.commit_with(CommitOptions::new().expect(Expect::NoStream)).wait()?;
    drop(account);

    // Eight tellers at once want 300 each; there is enough for three.
    let tellers: Vec<_> = (0..8)
        .map(|_| {
            let log = log.clone();
            thread::spawn(move || withdraw(&log, id, 300, CommitId::new()))
        })
        .collect();
    let mut done = 0;
    for teller in tellers {
        let answer = teller.join().map_err(|_| "a teller panicked")??;
        done += u32::from(answer == Answer::Done);
    }
    println!("{done} of 8 withdrawals were done, {} left", Account::load(&log, id)?.cents);
    assert_eq!((done, Account::load(&log, id)?.cents), (3, 100));

    // The answer to a request is lost, and it is sent again, also after a restart.
    let request = CommitId::new();
    assert_eq!(withdraw(&log, id, 40, request)?, Answer::Done);
    assert_eq!(withdraw(&log, id, 40, request)?, Answer::DoneBefore);
    log.close()?;
    let log = Log::open(dir.path().join("bank"))?;
    assert_eq!(withdraw(&log, id, 40, request)?, Answer::DoneBefore);
    assert_eq!(Account::load(&log, id)?.cents, 60);
    println!("one request, sent three times, was done once: 60 left");
    log.close()?;
    Ok(())
}
