//! What becomes of a log that uses a feature of a newer version?

use std::fs;

use crate::support::segment;
use amberlog::maintenance::CompactOptions;
use amberlog::verify::{RecordBody, RecordDump};
use amberlog::{Error, ErrorKind, Log, ReadView};

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
        let records = RecordDump::open(dir.path()).expect("readable").map(Result::unwrap);
        let commits = records.filter_map(|record| match record.body {
            RecordBody::Commit { bytes, .. } => Some((record.offset as usize, bytes as usize)),
            _ => None,
        });
        let (at, length) = commits.collect::<Vec<_>>()[1];
        let path = segment(dir.path(), 1);
        let mut bytes = fs::read(&path).expect("readable");
        let salt = u32::from_le_bytes(bytes[72..76].try_into().expect("four"));
        let checked = |seed: u32, parts: &[&[u8]]| {
            let mut hasher = crc32fast::Hasher::new_with_initial(seed);
            parts.iter().for_each(|part| hasher.update(part));
            hasher.finalize()
        };
        bytes[if batch { at + 40 + 36 } else { at + 3 }] = if batch { 1 } else { 2 };
        let header = checked(salt, &[&bytes[at..at + 36]]);
        bytes[at + 36..at + 40].copy_from_slice(&header.to_le_bytes());
        let entry = checked(header, &[&bytes[at + 40..at + 84]]);
        bytes[at + 84..at + 88].copy_from_slice(&entry.to_le_bytes());
        let marker = checked(salt, &[&header.to_le_bytes(), &(length as u32).to_le_bytes()]);
        bytes[at + length - 4..at + length].copy_from_slice(&marker.to_le_bytes());
        fs::write(&path, bytes).expect("written");
        let is_refused = |error: &Error| *error.kind() == ErrorKind::UnsupportedFeature;
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
