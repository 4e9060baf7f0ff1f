//! A bank account as an aggregate: its state is the fold of its events. A decision based on that
//! state is committed only if the account did not change meanwhile. A repeated request takes
//! effect once.
//!
//! `cargo run --example bank --features json`

use std::error::Error;
use std::thread;

use amberlog::typed::{Json, TypedEvents};
use amberlog::{
    CommitId, CommitOptions, ErrorKind, EventKind, Expect, Log, Seq, StreamId, StreamOptions,
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

/// State of an account, and the number of its events.
#[derive(Default)]
struct Account {
    cents: u64,
    version: Seq,
}

impl Account {
    fn load(log: &Log, id: StreamId) -> Result<Self> {
        let mut account = Self::default();
        let events: TypedEvents<Moved, Json> = log.read_view().events(id)?.typed();
        for event in events {
            let (event, moved) = event?;
            match moved {
                Moved::Opened { .. } => {}
                Moved::Deposited { cents } => account.cents += cents,
                Moved::Withdrawn { cents } => account.cents -= cents,
            }
            account.version = event.seq().next();
        }
        Ok(account)
    }
}

/// Outcome of a request.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Done,
    DoneBefore,
    NotEnough,
}

/// Withdraws money from an account, at most its balance. A repeated request takes effect once.
fn withdraw(log: &Log, id: StreamId, cents: u64, request: CommitId) -> Result<Answer> {
    loop {
        let account = Account::load(log, id)?;
        let enough = account.cents >= cents;
        let mut stream = log.open_stream(id)?;
        if enough {
            stream.typed::<Moved, Json>().append_as(MOVED, &Moved::Withdrawn { cents })?;
        }
        // Even an empty commit reports whether this request was done before.
        let options = CommitOptions::new().id(request).expect(Expect::At(account.version));
        match stream.commit_with(options).wait() {
            Ok(_) if enough => return Ok(Answer::Done),
            Ok(_) => return Ok(Answer::NotEnough),
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyCommitted { .. }) => {
                return Ok(Answer::DoneBefore);
            }
            // Another teller committed first: load the account again and decide again.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = Log::open(dir.path().join("bank"))?;
    let mut account = log.create_stream_with(&StreamOptions::new().name("account of Ada"))?;
    let id = account.id();
    let mut typed = account.typed::<Moved, Json>();
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

    // The reply to a request is lost, so the client repeats it, once more after a restart.
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
