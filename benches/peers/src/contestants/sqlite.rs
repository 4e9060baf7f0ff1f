//! SQLite in its usual setup for this purpose: WAL, `synchronous = FULL`, one connection that
//! writes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

use super::buffer::Buffer;
use crate::contestant::{Contestant, Purpose, Reason, Sink, Store, Work, Writer};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (stream INTEGER, seq INTEGER, payload BLOB, \
                     PRIMARY KEY (stream, seq)) WITHOUT ROWID";
const INSERT: &str = "INSERT INTO events VALUES (?1, ?2, ?3)";
const SELECT: &str = "SELECT payload FROM events WHERE stream = ?1 ORDER BY seq";

pub(super) struct Sqlite;

impl Contestant for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn package(&self) -> Option<&'static str> {
        Some("libsqlite3-sys")
    }

    fn setup(&self) -> &'static str {
        "`journal_mode = WAL`, `synchronous = FULL`, a table of (stream, seq) without rowid, prepared \
         statements, one connection behind a lock; append is an insert into an open transaction"
    }

    fn refuses(&self, work: Work) -> Option<Reason> {
        match work {
            Work::ScanLog => Some("the table is ordered by stream, not by commit"),
            Work::Tasks => Some("it has no asynchronous commit"),
            _ => None,
        }
    }

    fn open(&self, dir: &Path, _purpose: Purpose) -> Box<dyn Store> {
        let path = dir.join("events.sqlite");
        let connection = connect(&path);
        connection.execute_batch(TABLE).expect("a table");
        let writer = Mutex::new(Connected { connection, synced: true });
        Box::new(Open { path, writer, readers: Mutex::default() })
    }
}

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("opens");
    connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
    connection
}

struct Open {
    path: PathBuf,
    writer: Mutex<Connected>,
    /// Idle connections of readers.
    readers: Mutex<Vec<Connection>>,
}

struct Connected {
    connection: Connection,
    synced: bool,
}

impl Store for Open {
    fn writer<'a>(&'a self, stream: u64) -> Box<dyn Writer + 'a> {
        let buffer = Buffer::default();
        Box::new(Transacting { database: &self.writer, stream, seq: 0, buffer })
    }

    fn appender<'a>(&'a self) -> Box<dyn Writer + 'a> {
        Box::new(Inserting { database: &self.writer, seq: 0, begun: false })
    }

    fn read_stream(&self, stream: u64, sink: &mut Sink) {
        let idle = lock(&self.readers).pop();
        let reader = idle.unwrap_or_else(|| connect(&self.path));
        {
            let mut select = reader.prepare_cached(SELECT).expect("prepared");
            let mut rows = select.query(params![stream as i64]).expect("readable");
            while let Some(row) = rows.next().expect("sound") {
                let payload = row.get_ref(0).expect("a column");
                sink.take(payload.as_blob().expect("a blob"));
            }
        }
        lock(&self.readers).push(reader);
    }
}

struct Transacting<'a> {
    database: &'a Mutex<Connected>,
    stream: u64,
    seq: i64,
    buffer: Buffer,
}

impl Transacting<'_> {
    fn commit_with(&mut self, synced: bool) {
        let mut database = lock(self.database);
        if database.synced != synced {
            let level = if synced { "FULL" } else { "OFF" };
            database.connection.pragma_update(None, "synchronous", level).expect("a level");
            database.synced = synced;
        }
        let transaction = database.connection.transaction().expect("begins");
        {
            let mut insert = transaction.prepare_cached(INSERT).expect("prepared");
            for payload in self.buffer.iter() {
                insert.execute(params![self.stream as i64, self.seq, payload]).expect("inserted");
                self.seq += 1;
            }
        }
        transaction.commit().expect("committed");
        self.buffer.clear();
    }
}

impl Writer for Transacting<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.buffer.push(payload);
    }

    fn commit(&mut self) {
        self.commit_with(true);
    }

    fn commit_unsynced(&mut self) {
        self.commit_with(false);
    }
}

/// Appends to an open transaction, to measure its cost.
struct Inserting<'a> {
    database: &'a Mutex<Connected>,
    seq: i64,
    begun: bool,
}

impl Writer for Inserting<'_> {
    fn append(&mut self, payload: &[u8]) {
        self.append_many(payload, 1);
    }

    fn append_many(&mut self, payload: &[u8], count: usize) {
        let database = lock(self.database);
        if !self.begun {
            database.connection.execute_batch("BEGIN").expect("begins");
            self.begun = true;
        }
        let mut insert = database.connection.prepare_cached(INSERT).expect("prepared");
        for _ in 0..count {
            insert.execute(params![0, self.seq, payload]).expect("inserted");
            self.seq += 1;
        }
    }

    fn commit(&mut self) {
        unreachable!("it measures appends only");
    }

    fn discard(&mut self) {
        lock(self.database).connection.execute_batch("ROLLBACK").expect("rolled back");
        self.begun = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
