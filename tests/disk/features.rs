//! What becomes of a log whose checksums are right, and whose content no writer of this version writes?

use std::fs;
use std::path::Path;

use crate::support::segment;
use amberlog::maintenance::CompactOptions;
use amberlog::verify::{RecordBody, RecordDump};
use amberlog::{Error, ErrorKind, Event, Log, ReadView, StreamId};

/// Edits the `nth` commit of the first segment, and makes the checksums of its header, its first batch, the header of
/// that batch and its marker right again.
fn forge(dir: &Path, nth: usize, edit: impl Fn(&mut [u8])) {
    let records = RecordDump::open(dir).expect("readable").map(|record| record.expect("readable"));
    let commits = records.filter_map(|record| match record.body {
        RecordBody::Commit { bytes, .. } => Some((record.offset as usize, bytes as usize)),
        _ => None,
    });
    let (at, length) = commits.collect::<Vec<_>>()[nth];
    let path = segment(dir, 1);
    let mut bytes = fs::read(&path).expect("readable");
    let salt = u32::from_le_bytes(bytes[72..76].try_into().expect("four"));
    let checked = |seed: u32, parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    };
    let commit = &mut bytes[at..at + length];
    edit(commit);
    let header = checked(salt, &[&commit[..36]]);
    commit[36..40].copy_from_slice(&header.to_le_bytes());
    let word = |at: usize| u32::from_le_bytes(commit[at..at + 4].try_into().expect("four"));
    let body = 40 + 48 * word(32) as usize..word(40 + 28) as usize;
    let batch = checked(u32::from_le_bytes(*b"ambr"), &[&commit[body]]);
    commit[80..84].copy_from_slice(&batch.to_le_bytes());
    let entry = checked(header, &[&commit[40..84]]);
    commit[84..88].copy_from_slice(&entry.to_le_bytes());
    commit[length - 4..].copy_from_slice(&(!header).to_le_bytes());
    fs::write(&path, bytes).expect("written");
}

/// P13: a batch claims a seq that no stream reaches. Readers end, also behind a rewind and a compaction.
#[test]
fn p13_reading_ends_where_a_batch_claims_a_far_seq() {
    const FAR: u64 = 1 << 62;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("first").expect("room");
    stream.commit().wait().expect("committed");
    stream.rename("a name").expect("free");
    stream.append("second").expect("room");
    stream.commit().wait().expect("committed");
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    forge(dir.path(), 1, |commit| commit[40 + 16..40 + 24].copy_from_slice(&FAR.to_le_bytes()));
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.open_stream(id).expect("known");
    stream.append("third").expect("room");
    stream.commit().wait().expect("committed");
    stream.rewind(stream.head().saturating_sub(2)).expect("in range");
    stream.commit().wait().expect("committed");
    log.compact(CompactOptions::new().purge()).expect("compacted");
    for view in [log.read_view(), ReadView::open(dir.path()).expect("opens").0] {
        let (forwards, backwards) = (view.events(id), view.events(id));
        assert!(forwards.expect("known").take(100).count() < 10);
        assert!(backwards.expect("known").rev().take(100).count() < 10);
    }
}

/// P15: what a newer version wrote is refused where it is read, in a sealed segment too, by stream and by position.
#[test]
fn p15_an_unknown_feature_in_a_sealed_segment_is_refused_when_it_is_read() {
    for (batch, sealed) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for event in ["first", "second", "third"] {
            stream.append(event).expect("room");
            stream.commit().wait().expect("committed");
        }
        if sealed {
            log.compact(CompactOptions::new().purge()).expect("ends the segment");
        }
        let id = stream.id();
        drop(stream);
        log.close().expect("closes");
        let edit = |bytes: &mut [u8]| match batch {
            true => bytes[40 + 36] = 1,
            false => bytes[3] = 2,
        };
        forge(dir.path(), 1, edit);
        assert!(is_refused(&amberlog::verify::verify(dir.path()).expect_err("a newer feature")));
        match ReadView::open(dir.path()) {
            Err(error) => assert!(!sealed && is_refused(&error), "{error}"),
            Ok((view, _)) => {
                let forwards = view.events(id).expect("known").find_map(Result::err);
                let backwards = view.events(id).expect("known").rev().find_map(Result::err);
                let all = view.all_events(0).expect("in range").find_map(Result::err);
                let errors = [forwards, backwards, all].map(|error| error.expect("refused"));
                assert!(sealed && errors.iter().all(is_refused), "{errors:?}");
            }
        }
    }
}

/// P15: an event with a flag of a newer version is refused where it is read, and nothing else is.
#[test]
fn p15_an_event_with_an_unknown_flag_is_refused_when_it_is_read_and_no_other() {
    for (flag, sealed) in (0..8).flat_map(|flag| [(flag, false), (flag, true)]) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for turn in 0..3_u8 {
            (0..3).for_each(|n| assert!(stream.append([turn * 3 + n; 10]).is_ok()));
            stream.commit().wait().expect("committed");
        }
        let id = stream.id();
        if sealed {
            log.compact(CompactOptions::new().purge()).expect("ends the segment");
        }
        drop(stream);
        log.close().expect("closes");
        // The last byte of the second head, behind the first frame of 26 bytes.
        let at = 40 + 48 + 26 + 15;
        forge(dir.path(), 1, |commit| commit[at] = 1 << flag);
        only_the_fifth_event_is_refused(&ReadView::open(dir.path()).expect("opens").0, id);
        assert!(amberlog::verify::verify_quick(dir.path()).expect("readable").is_sound());
        assert!(is_refused(&amberlog::verify::verify(dir.path()).expect_err("a newer feature")));
        let dumped = RecordDump::open(dir.path()).expect("readable").flatten();
        let unread = dumped.filter(|record| record.body == RecordBody::Unreadable { bytes: 26 });
        assert_eq!(unread.count(), 1, "the dump shows the event as unreadable");

        let log = Log::open(dir.path()).expect("opens for writing");
        let mut stream = log.open_stream(id).expect("known");
        stream.append("more").expect("room");
        stream.commit().wait().expect("committed");
        stream.trim(1).expect("staged");
        stream.commit().wait().expect("committed");
        log.compact(CompactOptions::new().purge()).expect("copies batches as they are");
        only_the_fifth_event_is_refused(&log.read_view(), id);
        assert!(is_refused(&log.write_archive(id).expect_err("it holds events")));
        #[cfg(feature = "json")]
        assert!(is_refused(&log.read_view().export_jsonl(std::io::sink()).expect_err("so it is")));
    }
}

fn is_refused(error: &Error) -> bool {
    *error.kind() == ErrorKind::UnsupportedFeature
}

/// Payloads up to the first error, which is the refusal, names its segment, and ends the iteration.
#[track_caller]
fn until_refused(mut events: impl Iterator<Item = amberlog::Result<Event>>) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        match events.next().expect("refused before the end") {
            Ok(event) => whole.push(event.payload()[0]),
            Err(error) => {
                assert!(is_refused(&error), "{error}");
                assert_eq!(error.place().and_then(|place| place.segment), Some(1), "{error}");
                assert!(events.next().is_none());
                return whole;
            }
        }
    }
}

/// Reads from both ends, by position, and around the event of seq 4.
fn only_the_fifth_event_is_refused(view: &ReadView, id: StreamId) {
    let info = view.info(id).expect("known");
    let (start, head) = (info.start.get(), info.head.get());
    let events = || view.events(id).expect("known");
    assert_eq!(until_refused(events()), (start as u8..4).collect::<Vec<_>>());
    assert_eq!(until_refused(events().range(..9).rev()), [8, 7, 6, 5]);
    let before = until_refused(view.all_events(0).expect("in range"));
    assert!(before.ends_with(&[1, 2, 3]), "{before:?}");
    // Walks pass over the event without an error.
    let around: Vec<Event> =
        events().range(5..).chain(events().range(..4)).collect::<Result<_, _>>().expect("known");
    assert_eq!(around.len() as u64, head - start - 1);
}

/// P15: an attribute that a newer version wrote, and that older ones may skip, survives a compaction beside metadata that
/// was superseded.
#[test]
fn p15_a_compaction_keeps_an_attribute_that_it_does_not_know() {
    const KEY: &[u8] = b"of a newer version";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = options.clone().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.set_label("of a newer version", "yes").expect("fits");
    stream.commit().wait().expect("committed");
    for value in ["1", "2", "3"] {
        stream.set_label("known", value).expect("fits");
        stream.commit().wait().expect("committed");
    }
    let mut filler = log.create_stream().expect("a stream");
    for _ in 0..10 {
        filler.append([1; 4_000]).expect("room");
        filler.commit().wait().expect("committed");
    }
    filler.delete().wait().expect("deleted");
    log.close().expect("closes");
    // The first commit has one batch, and that one attribute.
    let path = segment(dir.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    let checked = |seed: u32, bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    };
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four"));
    let commit = &mut bytes[4096..];
    let end = word(&commit[40 + 28..40 + 32]) as usize;
    commit[89] |= 0x80;
    let crc = checked(0x7262_6D61, &commit[88..end]);
    commit[80..84].copy_from_slice(&crc);
    let crc = checked(word(&commit[36..40]), &commit[40..84]);
    commit[84..88].copy_from_slice(&crc);
    fs::write(&path, &bytes).expect("written");

    let log = options.clone().open(dir.path()).expect("opens");
    let labels = |log: &Log| log.read_view().info(stream.id()).expect("known").labels;
    let before = labels(&log);
    assert_eq!(before.get("known").map(String::as_str), Some("3"));
    assert!(!before.contains_key("of a newer version"));
    let report = log.compact(CompactOptions::new().purge()).expect("purged");
    assert!(report.refused.is_empty() && !report.runs.is_empty(), "{report:?}");
    assert_eq!(labels(&log), before);
    log.close().expect("closes");
    let files = crate::support::read_dir(&dir.path().join("segments"));
    let has_key = |bytes: &Vec<u8>| bytes.windows(KEY.len()).any(|window| window == KEY);
    assert!(files.values().any(has_key), "the attribute is gone");
    let log = options.clone().open(dir.path()).expect("opens");
    assert_eq!(labels(&log), before);
}
