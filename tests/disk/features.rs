//! What becomes of a log whose checksums are right, and whose content no writer of this version writes?

use std::fs;
use std::path::Path;

use crate::support::segment;
use amberlog::maintenance::CompactOptions;
use amberlog::verify::{RecordBody, RecordDump};
use amberlog::{Error, ErrorKind, Log, ReadView};

/// Edits the `nth` commit of the first segment, and makes the checksums of its header, its first batch header and its
/// marker right again.
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
