//! What can a program write and read by serde?

use amberlog::maintenance::{
    ArchiveReport, BackgroundError, BackupReport, CompactReport, RetainReport,
};
use amberlog::typed::CodecId;
use amberlog::verify::{Record, RepairReport, VerifyReport};
use amberlog::{
    Commit, CommitId, Cursor, Durability, Error, ErrorKind, EventKind, Log, Page, Position, Query,
    Seq, StreamId, StreamInfo, StreamState, Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a value as JSON and in a format that is not for people, and reads it back from both.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, json: &str) {
    let text = serde_json::to_string(&value).expect("written");
    assert_eq!(text, json);
    assert_eq!(serde_json::from_str::<T>(&text).expect("read"), value);
    let config = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(&value, config).expect("written");
    let (read, used): (T, _) = bincode::serde::decode_from_slice(&bytes, config).expect("read");
    assert_eq!((read, used), (value, bytes.len()));
}

#[test]
fn ids_states_and_numbers_go_both_ways() {
    let text = "01937b2c-5a3e-7b1d-9c4f-2a1b3c4d5e6f";
    let id: StreamId = text.parse().expect("an id");
    both_ways(id, &format!("{text:?}"));
    both_ways(text.parse::<CommitId>().expect("an id"), &format!("{text:?}"));
    both_ways(Timestamp::from_micros(1_774_651_635_772_000), "\"2026-03-27T22:47:15.772000Z\"");
    both_ways(Seq::from(7), "7");
    both_ways(Position::from(8), "8");
    both_ways(EventKind(9), "9");
    both_ways(CodecId::JSON, "2");
    both_ways(StreamState::Archived, "\"archived\"");
    both_ways(Durability::Disk, "\"disk\"");
    let cursor = format!("0badf00d.5.{text}");
    both_ways(cursor.parse::<Cursor>().expect("a cursor"), &format!("{cursor:?}"));
    assert!(serde_json::from_str::<StreamId>("\"x\"").is_err());
}

#[test]
fn infos_errors_and_reports_are_written() {
    fn is_written<T: Serialize>() {}
    is_written::<Commit>();
    is_written::<Page>();
    is_written::<ArchiveReport>();
    is_written::<BackgroundError>();
    is_written::<BackupReport>();
    is_written::<CompactReport>();
    is_written::<RetainReport>();
    is_written::<Record>();
    is_written::<RepairReport>();
    is_written::<VerifyReport>();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("event").expect("room");
    stream.set_data(b"12").expect("room");
    stream.commit().wait().expect("committed");
    let info: StreamInfo = log.list(&Query::new()).expect("listed").streams.remove(0);
    let info = serde_json::to_value(&info).expect("written");
    assert_eq!((&info["head"], &info["state"]), (&1.into(), &"active".into()));
    assert_eq!((&info["data"], &info["is_durable"]), (&vec![49, 50].into(), &true.into()));
    let id = StreamId::new();
    let error: Error = log.open_stream(id).expect_err("unknown");
    assert_eq!(*error.kind(), ErrorKind::UnknownStream(id));
    let error = serde_json::to_value(&error).expect("written");
    assert_eq!(error["kind"]["unknown-stream"], id.to_string());
    assert!(error["message"].as_str().is_some_and(|text| text.contains("no stream")), "{error}");
    serde_json::to_string(log.recovery_report()).expect("written");
}
