//! What does each operation answer in each state? The table of `docs/states.md`, walked cell by cell (P8, P9).
//!
//! The page is the expectation: every cell is tried on a stream of its own, and what comes out is compared with the
//! word that stands there.

use amberlog::{AppendError, Error, ErrorKind, Log, Query, Result, Stream, StreamId, StreamState};

const PAGE: &str = include_str!("../../docs/states.md");

/// The rows of the table: an operation, and what it answers in each state.
fn table() -> (Vec<String>, Vec<Vec<String>>) {
    let cells = |line: &str| {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>()
    };
    let table = PAGE.split("<!-- states -->").nth(1).expect("the mark");
    let mut lines = table.lines().skip_while(|line| !line.starts_with('|'));
    let states = cells(lines.next().expect("a head"))[1..].to_vec();
    let rows = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    (states, rows)
}

/// A stream in a state, with the handle that brought it there, if there is one.
struct Subject {
    log: Log,
    id: StreamId,
    handle: Option<Stream>,
    _dir: tempfile::TempDir,
}

impl Subject {
    fn in_state(state: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::open(dir.path().join("log")).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        let id = stream.id();
        for n in 0..6 {
            stream.append(format!("{n}")).expect("room");
        }
        if !state.starts_with("volatile") && state != "unknown" {
            stream.commit().wait().expect("committed");
        }
        let mut handle = Some(stream);
        let own = handle.as_mut().expect("just made");
        match state {
            "volatile" | "durable" => {}
            "archived" | "volatile archived" => drop(own.archive().wait().expect("archived")),
            "trimmed" => {
                own.trim(3).expect("staged");
                own.commit().wait().expect("trimmed");
            }
            "deleted" => drop(own.delete().wait().expect("deleted")),
            "unknown" => handle = None,
            "closed" => log.clone().close().expect("closes"),
            other => panic!("no such state: {other}"),
        }
        let subject = Self { log, id, handle, _dir: dir };
        assert!(subject.handle.is_some() || state == "unknown");
        subject
    }

    /// The handle; where there is none, what opening it answers.
    fn handle(&mut self) -> Result<&mut Stream> {
        if self.handle.is_none() {
            self.handle = Some(self.log.open_stream(self.id)?);
        }
        Ok(self.handle.as_mut().expect("just opened"))
    }

    fn run(&mut self, operation: &str) -> String {
        let done = |outcome: Result<()>| match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => word(&error),
        };
        let id = self.id;
        match operation {
            "state" => {
                return self.log.state(id).map_or("—".into(), |state| format!("{state:?}"));
            }
            "is durable" => {
                let info = self.handle.as_ref().map(Stream::info);
                return if info.is_some_and(|info| info.is_durable) { "yes" } else { "no" }.into();
            }
            "open" => return done(self.log.open_stream(id).map(drop)),
            "list" => {
                let page = self.log.list(&Query::new()).expect("listed");
                return if page.streams.iter().any(|info| info.id == id) {
                    "listed"
                } else {
                    "—"
                }
                .into();
            }
            "list with all states" => {
                let every = Query::new()
                    .state(StreamState::Active)
                    .state(StreamState::Archived)
                    .state(StreamState::Deleted)
                    .volatile();
                let page = self.log.list(&every).expect("listed");
                return if page.streams.iter().any(|info| info.id == id) {
                    "listed"
                } else {
                    "—"
                }
                .into();
            }
            "read in a read view" => {
                let events = self.log.read_view().events(id);
                return done(
                    events.map(|events| events.for_each(|event| drop(event.expect("readable")))),
                );
            }
            _ => {}
        }
        let handle = match self.handle() {
            Ok(handle) => handle,
            Err(error) => return word(&error),
        };
        let first = |mut events: amberlog::Events| events.next().expect("there").map(drop);
        done(match operation {
            "append" => match handle.append("more") {
                Ok(_) => Ok(()),
                Err(refused) => Err(refused.into()),
            },
            "commit" => handle.commit().wait().map(drop),
            "append, commit" => {
                // A handle that does not know of the state yet: the commit is refused.
                let _ = handle.append("more");
                handle.commit().wait().map(drop)
            }
            "read" => handle.events().and_then(first),
            "read from 0" => handle.events().map(|events| events.range(0_u64..)).and_then(first),
            "read from 0, clamped" => {
                handle.events().map(|events| events.range_clamped(0_u64..)).and_then(first)
            }
            "fork at 4" => handle.fork_at(4).map(drop),
            "fork at 1" => handle.fork_at(1).map(drop),
            "fork at 99" => handle.fork_at(99).map(drop),
            "rewind to 4, commit" => {
                handle.rewind(4).and_then(|()| handle.commit().wait()).map(drop)
            }
            "append, commit, rewind to 4, append, commit" => {
                let _ = handle.append("in flight");
                let first = handle.commit();
                let cut = handle.rewind(4).and_then(|()| Ok(handle.append("behind it")?));
                let outcome = cut.and_then(|_| handle.commit().wait());
                let first = first.wait();
                outcome.and_then(|_| first.map(drop))
            }
            "append, commit, trim to 7, commit" => {
                let _ = handle.append("in flight");
                let first = handle.commit();
                let trimmed = handle.trim(7).and_then(|()| handle.commit().wait());
                trimmed.and_then(|_| first.wait().map(drop))
            }
            "rewind to 1" => handle.rewind(1),
            "rewind to 99" => handle.rewind(99),
            "rename, commit" => {
                handle.rename("a name").and_then(|()| handle.commit().wait()).map(drop)
            }
            "label, commit" => {
                handle.set_label("k", "v").and_then(|()| handle.commit().wait()).map(drop)
            }
            "archive" => handle.archive().wait().map(drop),
            "unarchive" => handle.unarchive().wait().map(drop),
            "trim to 4, commit" => handle.trim(4).and_then(|()| handle.commit().wait()).map(drop),
            "trim to 99" => handle.trim(99),
            "delete" => handle.delete().wait().map(drop),
            "discard" => handle.discard_to(handle.savepoint()).map(drop),
            other => panic!("no such operation: {other}"),
        })
    }
}

/// The word for what went wrong.
fn word(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Refused(AppendError::Archived) | ErrorKind::Archived(_) => "Archived".into(),
        ErrorKind::Refused(AppendError::Deleted) | ErrorKind::Deleted(_) => "Deleted".into(),
        ErrorKind::Refused(AppendError::Closed) | ErrorKind::Closed => "Closed".into(),
        ErrorKind::UnknownStream(_) => "UnknownStream".into(),
        ErrorKind::NotMaterialized { .. } => "NotMaterialized".into(),
        ErrorKind::Trimmed { start, .. } => format!("Trimmed({start})"),
        ErrorKind::SeqOutOfRange { .. } => "SeqOutOfRange".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn p8_p9_every_operation_answers_in_every_state_what_the_page_says() {
    let (states, rows) = table();
    assert!(states.len() >= 8 && rows.len() >= 20);
    let mut wrong = Vec::new();
    for row in &rows {
        assert_eq!(row.len(), states.len() + 1, "{row:?}");
        for (state, says) in states.iter().zip(&row[1..]) {
            let mut subject = Subject::in_state(state);
            let is = subject.run(&row[0]);
            if is != *says {
                wrong.push(format!("{} on {state}: {is}, the page says {says}", row[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The page about states also holds after the log was opened again, with a new handle.
#[test]
fn p6_states_are_the_same_after_reopening() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let make = |name: &str| {
        let mut stream = log.create_stream().expect("a stream");
        stream.rename(name).expect("free");
        for n in 0..6 {
            stream.append(format!("{n}")).expect("room");
        }
        stream.commit().wait().expect("committed");
        stream
    };
    let [mut archived, mut deleted, mut trimmed, mut back] =
        ["archived", "deleted", "trimmed", "back"].map(make);
    let child = {
        let mut child = deleted.fork_at(5).expect("forked");
        child.append("own").expect("room");
        child.commit().wait().expect("committed");
        child.id()
    };
    archived.archive().wait().expect("archived");
    deleted.delete().wait().expect("deleted");
    trimmed.trim(2).expect("staged");
    trimmed.commit().wait().expect("trimmed");
    back.archive().wait().expect("archived");
    back.unarchive().wait().expect("unarchived");
    let mut heir = log.create_stream().expect("a stream");
    heir.rename("deleted").expect("the name is free at once");
    heir.commit().wait().expect("committed");
    let ids = [archived.id(), deleted.id(), trimmed.id(), back.id()];
    let check = |log: &Log| {
        let states = ids.map(|id| log.state(id).expect("known"));
        let [archived, deleted, active] =
            [StreamState::Archived, StreamState::Deleted, StreamState::Active];
        assert_eq!(states, [archived, deleted, active, active]);
        let view = log.read_view();
        assert!(matches!(view.events(ids[1]).expect_err("gone").kind(), ErrorKind::Deleted(_)));
        assert!(matches!(log.open_stream(ids[1]).expect_err("gone").kind(), ErrorKind::Deleted(_)));
        assert_eq!(view.events(ids[2]).expect("known").count(), 4);
        assert_eq!(view.events(child).expect("known").count(), 6, "forks keep what they share");
        assert_eq!(view.find("deleted"), Some(heir.id()));
        assert_eq!(view.find("archived"), Some(ids[0]));
        let mut again = log.open_stream(ids[0]).expect("known");
        let refused = again.append("no").expect_err("archived");
        assert_eq!(refused, AppendError::Archived);
    };
    check(&log);
    drop((archived, deleted, trimmed, back));
    let id = heir.id();
    log.close().expect("closes");
    let log = Log::open(dir.path()).expect("opens again");
    assert_eq!(log.read_view().find("deleted"), Some(id));
    check(&log);
}

/// A handle learns from its failed commit that another one archived or deleted the stream: its next append is refused.
fn a_handle_learns_from_its_failed_commit() {
    for deletes in [false, true] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::options().open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        stream.append("first").expect("room");
        stream.commit().wait().expect("committed");
        let mut late = log.open_stream(stream.id()).expect("there");
        let locks = if deletes { Stream::delete } else { Stream::archive };
        locks(&mut stream).wait().expect("nobody was quicker");
        late.append("kept").expect("it does not know yet");
        late.commit().wait().expect_err("it may not be written");
        let refused = late.append("no").expect_err("it knows");
        let reason = if deletes { AppendError::Deleted } else { AppendError::Archived };
        assert_eq!((refused, late.buffered()), (reason, 1));
        if !deletes {
            late.unarchive().wait().expect("taken back");
            late.append("then").expect("taken again");
            assert_eq!(late.commit().wait().expect("committed").seqs.end.get(), 3);
        }
    }
}

#[test]
fn p8_a_handle_refuses_to_append_from_its_failed_commit_on() {
    a_handle_learns_from_its_failed_commit();
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_an_append_after_the_failed_commit_is_noticed() {
    let _broken = amberlog::sabotage(amberlog::Sabotage::AppendAfterAll);
    std::panic::catch_unwind(a_handle_learns_from_its_failed_commit).expect_err("noticed");
}
