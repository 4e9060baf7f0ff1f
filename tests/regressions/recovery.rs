//! Bugs of recovery and repair.

use std::fs;

use crate::support::verified::checked;
use amberlog::verify::DamageKind;
use amberlog::{ErrorKind, ReadView};
use tempfile::TempDir;

use super::support::{read_dir, segment, write_dir};
use super::{dir, small};

/// A closed log of two segments.
fn fill(dir: &TempDir) {
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..18_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    drop(stream);
    log.close().expect("closes");
}

/// All bytes of a log's only segment read as zeros. That was taken for a beginning that a crash had cut, and the
/// log began anew at the first position, without a word. Now a file has a header before it has its name.
#[test]
fn p6_f28_a_segment_of_zeros_is_no_beginning() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("event").expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    let length = fs::metadata(segment(dir.path(), 1)).expect("there").len() as usize;
    fs::write(segment(dir.path(), 1), vec![0; length]).expect("written");
    assert_eq!(checked(dir.path()).expect("readable").damages[0].kind, DamageKind::Header);
    assert!(matches!(
        small().open(dir.path()).expect_err("lost").kind(),
        ErrorKind::Corrupt { .. }
    ));
    assert!(amberlog::verify::repair(dir.path()).expect("repaired").went_on.is_some());
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("new").expect("room");
    assert!(stream.commit().wait().expect("committed").position.get() > 1, "never given again");
}

/// Something had been appended to the file of a log that was closed. Opening cleared it and wrote a tail record that
/// did not say any more that the log had been closed. If the process died then, the file, which a close had cut,
/// seemed to have lost its end, and the log could not be opened again.
#[test]
fn f25_what_stands_behind_a_clean_close_is_cleared_and_the_close_stays() {
    let (dir, copy) = (dir(), dir());
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("event").expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    let mut bytes = fs::read(segment(dir.path(), 1)).expect("readable");
    bytes.extend([7; 3000]);
    fs::write(segment(dir.path(), 1), bytes).expect("written");
    let log = small().open(dir.path()).expect("opens");
    assert_eq!(log.recovery_report().torn_tail.as_ref().map(|torn| torn.bytes), Some(3000));
    write_dir(copy.path(), &read_dir(dir.path()));
    drop(log);
    let log = small().open(copy.path()).expect("opens after a kill");
    assert!(
        log.recovery_report().is_sound() && log.recovery_report().torn_tail.is_none(),
        "{:?}",
        log.recovery_report()
    );
}

/// One of two used segments was overwritten with one of another log. The spare had the casting vote on whose log
/// it was; when a close removed the spare, all that had just been committed belonged to a stranger.
#[test]
fn f17_whose_log_it_is_does_not_change_with_a_spare() {
    let (dir, other) = (dir(), dir());
    for dir in [&dir, &other] {
        fill(dir);
    }
    fs::copy(segment(other.path(), 1), segment(dir.path(), 1)).expect("copied");
    let ids = |dir: &TempDir| {
        let (view, _) = ReadView::open(dir.path()).expect("readable");
        view.streams().into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    let before = ids(&dir);
    // A spare as an open log has it, and one that a kill leaves.
    let spare = spare_of(&dir, 3);
    fs::write(segment(dir.path(), 3), spare).expect("written");
    assert_eq!(ids(&dir), before);
}

/// An empty segment of the same log as segment 2.
fn spare_of(dir: &TempDir, number: u8) -> Vec<u8> {
    let from = fs::read(segment(dir.path(), 2)).expect("readable");
    let mut spare = vec![0; 16 << 10];
    spare[..4096].copy_from_slice(&from[..4096]);
    for at in [0, 2048] {
        spare[at + 32] = number;
        let crc = crc32fast::hash(&spare[at..at + 76]);
        spare[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
    }
    spare
}

/// A segment was lost, and of the one behind it nothing could be read. The log went on in that one, at the
/// positions that the lost one had given.
#[test]
fn p6_f17_nobody_goes_on_where_no_record_tells_the_position() {
    let dir = dir();
    fill(&dir);
    let mut behind = spare_of(&dir, 3);
    behind[5000..6000].fill(7);
    fs::write(segment(dir.path(), 3), behind).expect("written");
    fs::remove_file(segment(dir.path(), 2)).expect("removed");
    assert!(small().open(dir.path()).is_err(), "not before it is repaired");
    let report = amberlog::verify::repair(dir.path()).expect("repaired");
    assert!(report.went_on.expect("in segment 4").first.get() > 18);
    assert!(amberlog::verify::repair(dir.path()).expect("again").changed_nothing());
    assert!(!small().open(dir.path()).expect("opens").recovery_report().is_sound());
}

/// What seems to be a spare is looked at while the rest of the log is read, and what was read counts for nothing if
/// it is none: the first commits of the last segment read as zeros, more of it does not.
#[test]
fn p6_f28_a_segment_whose_first_commits_are_zeros_is_no_spare() {
    let (living, copy) = (dir(), dir());
    let log = small().open(living.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..18_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    write_dir(copy.path(), &read_dir(living.path()));
    let last = (1..9).rev().map(|number| segment(copy.path(), number)).find(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.len() > 4096 && bytes[4096..].iter().any(|byte| *byte != 0)
    });
    let last = last.expect("a segment with commits");
    let mut bytes = fs::read(&last).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    assert!(end > 4096 + 2000, "more than one commit");
    bytes[4096..4096 + 1000].fill(0);
    fs::write(&last, bytes).expect("written");
    let found = checked(copy.path()).expect("readable");
    assert!(!found.is_sound(), "the lost commit is told: {found:?}");
    assert_eq!(found.position.get(), 18, "and what stands behind it is there");
    let (view, quick) = ReadView::open(copy.path()).expect("readable");
    assert_eq!((quick.damages, view.position().get()), (found.damages, 18));
}

/// Writes the CRC of `parts`, from the salt of a segment's file on, at `at`.
fn put_crc(file: &mut [u8], parts: &[std::ops::Range<usize>], at: usize) {
    let salt = u32::from_le_bytes(file[72..76].try_into().expect("four bytes"));
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    parts.iter().for_each(|part| hasher.update(&file[part.clone()]));
    let crc = hasher.finalize().to_le_bytes();
    file[at..at + 4].copy_from_slice(&crc);
}

/// A log whose last tail record stands right behind commit 18 and says that 138 were acknowledged and 78 of them synced.
/// Returns the position behind the last commit that is there.
fn block(dir: &TempDir) -> u64 {
    fill(dir);
    let last = segment(dir.path(), 2);
    let mut file = fs::read(&last).expect("readable");
    let tail_record = file.len() - 40;
    assert_eq!(file[tail_record..tail_record + 3], *b"AMW");
    let next =
        u64::from_le_bytes(file[tail_record + 8..tail_record + 16].try_into().expect("eight"));
    file[tail_record + 3] = 2;
    file[tail_record + 8..tail_record + 16].copy_from_slice(&(next + 120).to_le_bytes());
    file[tail_record + 16..tail_record + 24].copy_from_slice(&(next + 60).to_le_bytes());
    let covered = tail_record..tail_record + 36;
    put_crc(&mut file, std::slice::from_ref(&covered), covered.end);
    let reserved = u64::from_le_bytes(file[56..64].try_into().expect("eight"));
    file.resize(reserved as usize, 0);
    fs::write(&last, file).expect("written");
    next
}

/// Commits an event, and says what is read of it when the log is opened again.
fn acknowledged(dir: &TempDir) -> Option<usize> {
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let id = stream.id();
    stream.append("acknowledged").expect("room");
    stream.commit().wait().expect("committed");
    drop((stream, log));
    let log = small().open(dir.path()).expect("opens again");
    log.read_view().events(id).ok().map(Iterator::count)
}

/// The log was opened, and the next commit took the place of the tail record. The opening after that took this commit
/// for a piece of another part of the file, since those before it had no room, and everything acknowledged since was
/// gone without a word. Now the log cannot go on there: what is lost is told, and a repair goes on behind it.
#[test]
fn p6_f27_nothing_is_written_where_no_recovery_would_believe_it() {
    let dir = dir();
    let next = block(&dir);
    let found = checked(dir.path()).expect("readable");
    let lost: Vec<_> = found.damages.iter().map(|damage| damage.positions.clone()).collect();
    assert_eq!(found.damages[0].kind, DamageKind::Hole);
    assert_eq!(lost, [amberlog::Position::from(next)..amberlog::Position::from(next + 120)]);
    let before = read_dir(dir.path());
    let refused = small().open(dir.path()).expect_err("it cannot go on there");
    assert!(matches!(refused.kind(), ErrorKind::Corrupt { .. }), "{refused:?}");
    assert_eq!(read_dir(dir.path()), before);
    assert!(amberlog::verify::repair(dir.path()).expect("repaired").went_on.is_some());
    assert_eq!(acknowledged(&dir), Some(1));
}

#[cfg(amberlog_sabotage)]
#[test]
fn control_a_commit_where_no_recovery_would_believe_it_is_noticed() {
    let dir = dir();
    block(&dir);
    let broken = std::panic::catch_unwind(|| {
        let _broken = amberlog::sabotage(amberlog::Sabotage::GoOnWhereBlocked);
        assert_eq!(acknowledged(&dir), Some(1));
    });
    assert!(broken.is_err(), "nobody noticed");
}

/// A commit with right checksums whose event had the greatest number that there is as its seq: reading by position
/// counted on, and panicked. No stream has such a seq: the commit is damaged, and everything else is read.
#[test]
fn p13_a_seq_that_no_stream_can_have_is_damage() {
    for seq in [u64::MAX, u64::MAX / 2 + 1] {
        let dir = dir();
        let log = small().open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for payload in ["first", "second", "third"] {
            stream.append(payload).expect("room");
            stream.commit().wait().expect("committed");
        }
        drop(stream);
        log.close().expect("closes");
        let mut file = fs::read(segment(dir.path(), 1)).expect("readable");
        let second = (4100..).find(|at| file[*at..*at + 3] == *b"AMC").expect("there");
        let end = second + usize::from(file[second + 4]);
        file[second + 56..second + 64].copy_from_slice(&seq.to_le_bytes());
        put_crc(&mut file, &[second + 36..second + 80, end - 8..end - 4], end - 4);
        fs::write(segment(dir.path(), 1), file).expect("written");
        let found = checked(dir.path()).expect("readable");
        assert_eq!(found.damages.len(), 1, "{found:?}");
        assert_eq!(found.damages[0].kind, DamageKind::Commit);
        let (view, _) = ReadView::open(dir.path()).expect("readable");
        let all = view.all_events(amberlog::Position::START).expect("in range");
        let told: Vec<bool> = all.map(|event| event.is_ok()).collect();
        assert_eq!(told, [true, false, true]);
        for info in view.streams() {
            let read = view.events(info.id).expect("listed").count();
            assert!(read <= 3 && view.events(info.id).expect("listed").rev().count() <= 3);
        }
    }
}

/// A sealed segment had lost both copies of its header, and a part of its middle. Its trailer was whole, and so it stood for the
/// header, although the file was not as long as the trailer says: what was read by that header was then no file of that
/// segment, and the whole log was refused. Found by fuzzing.
#[test]
fn p6_f44_a_trailer_that_does_not_fit_its_file_is_no_header() {
    let dir = dir();
    fill(&dir);
    let path = segment(dir.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[..4096].fill(7);
    bytes.drain(4096..8192);
    fs::write(&path, bytes).expect("written");
    let found = checked(dir.path()).expect("looked at");
    assert!(found.damages.iter().any(|one| one.place.segment == Some(1)), "{found:?}");
    let (view, _) = ReadView::open(dir.path()).expect("readable");
    let stream = view.streams().pop().expect("there").id;
    let whole = view.events(stream).expect("known").filter(Result::is_ok).count();
    assert!(whole > 0, "what the other segment holds is shown");
}

/// The commit that rewound a stream was lost with its segment. Footers have no generation, so what
/// a later, whole segment had of the stream was taken for the generation before the rewind, and
/// then refused as damage.
#[cfg(feature = "sim")]
#[test]
fn p6_f17_what_follows_a_lost_rewind_is_read_from_sealed_segments() {
    let disk = amberlog::sim::SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut filler = log.create_stream().expect("a stream");
    let mut fill = || {
        for _ in 0..8 {
            filler.append([b'f'; 3_000]).expect("room");
            filler.commit().wait().expect("committed");
        }
    };
    let with = |stream: &mut amberlog::Stream, events: &[&str]| {
        for event in events {
            stream.append(event).expect("room");
        }
        stream.commit().wait().expect("committed");
    };
    with(&mut stream, &["zero", "one", "two"]);
    fill();
    stream.rewind(1).expect("in range");
    with(&mut stream, &["replaced", "and", "more"]);
    fill();
    with(&mut stream, &["afterwards"]);
    fill();
    let id = stream.id();
    drop((stream, filler));
    log.close().expect("closes");
    let files = disk.files();
    let holds = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"replaced");
    let (lost, _) = files.iter().find(|(_, bytes)| holds(bytes)).expect("one");
    disk.remove_file(lost);
    let (view, found) = ReadView::open_on(&disk).expect("opens");
    assert!(!found.is_sound());
    let events = view.events(id).expect("known").filter_map(Result::ok);
    let events: Vec<_> = events
        .map(|event| (event.seq().get(), event.generation(), event.payload().to_vec()))
        .collect();
    let kept = [(0, 0, "zero"), (1, 0, "one"), (2, 0, "two"), (4, 1, "afterwards")];
    assert_eq!(events, kept.map(|(seq, generation, text)| (seq, generation, text.into())));
}

/// The commit that deleted a stream was damaged in a sealed segment. Opening read it, saw that, and
/// said nothing: the stream was back, under its name, in a log that was said to be sound.
#[cfg(feature = "sim")]
#[test]
fn p6_f14_a_change_that_cannot_be_read_is_told_at_opening() {
    let disk = amberlog::sim::SimDisk::new(1);
    let log = small().open_on(&disk).expect("opens");
    let mut stream = log.open_or_create("secret").expect("created");
    let mut filler = log.create_stream().expect("a stream");
    let mut fill = || {
        for _ in 0..8 {
            filler.append([b'f'; 3_000]).expect("room");
            filler.commit().wait().expect("committed");
        }
    };
    fill();
    let before = disk.files();
    let position = stream.delete().wait().expect("deleted").position;
    let after = disk.files();
    fill();
    drop((stream, filler));
    log.close().expect("closes");
    let first_change = |(path, now): (&String, &Vec<u8>)| {
        let then = before.get(path).filter(|_| path.ends_with(".seg"))?;
        Some((path.clone(), now.iter().zip(then).position(|(now, then)| now != then)?))
    };
    let (path, offset) = after.iter().find_map(first_change).expect("the commit");
    let whole = disk.files()[&path].clone();
    for at in offset..offset + 160 {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        disk.write_file(&path, &bytes);
        let (view, found) = ReadView::open_on(&disk).expect("opens");
        let is_told = found.damages.iter().any(|damage| damage.positions.contains(&position));
        assert!(is_told || view.find("secret").is_none(), "byte {at}: {:?}", found.damages);
    }
}
