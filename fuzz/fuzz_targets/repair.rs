//! A valid log, and any damage to it: a repair keeps what can be proven, names what is lost, loses no byte itself,
//! and does nothing the second time.
//!
//! The first byte of the input chooses the log, each eight that follow are one edit of its files. The log lies on
//! a simulated disk. What may be lost is known from the bytes (`tests/support/oracle.rs`).

#![no_main]

#[path = "../../tests/support/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../../tests/support/verified.rs"]
#[allow(dead_code)]
mod verified;

use std::sync::OnceLock;

use oracle::{Files, How, Sample, Strictness, segment_path};

const EDITS_MAX: usize = 6;
const SECTOR: usize = 512;
const FILE_BYTES_MAX: usize = 64 << 10;

/// No leak checks: retired entries of a lock-free map are freed some runs later, and to look for them
/// after every run takes longer than the run.
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const std::ffi::c_char {
    c"detect_leaks=0:malloc_context_size=0".as_ptr()
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((which, edits)) = input.split_first() else { return };
    let samples = samples();
    let sample = &samples[usize::from(*which) % samples.len()];
    let mut files = sample.files.clone();
    let mut in_place = 0;
    let mut edited = 0;
    for edit in edits.chunks_exact(8).take(EDITS_MAX) {
        in_place += usize::from(apply(sample, &mut files, edit));
        edited += 1;
    }
    // One change in place costs exactly what it hits; of several together one may hide what another proves.
    let exact = edited == 1 && in_place == 1;
    sample.check(&files, if exact { Strictness::Exact } else { Strictness::Named });
});

fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let of = |how| [Sample::new(how, 6), Sample::new(how, 60)];
        [How::Closed, How::Killed, How::Unsynced].into_iter().flat_map(of).collect()
    })
}

/// One edit: what, which file, which other, a place, another place, a byte. True: bytes were changed in place.
fn apply(sample: &Sample, files: &mut Files, edit: &[u8]) -> bool {
    let &[what, file, other, low, high, low_2, high_2, value] = edit else { return false };
    let paths: Vec<String> = files.keys().filter(|path| path.ends_with(".seg")).cloned().collect();
    if paths.is_empty() {
        return false;
    }
    let path = &paths[usize::from(file) % paths.len()];
    let other = &paths[usize::from(other) % paths.len()];
    let number = 1 + u32::from(value) % (sample.segments + 3);
    let at = usize::from(u16::from_le_bytes([low, high]));
    let to = usize::from(u16::from_le_bytes([low_2, high_2]));
    let mut bytes = files[path].clone();
    let in_place = what % 12 < 3;
    match what % 12 {
        // Flip bits of one byte.
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
        // Write the same byte over a stretch.
        1 => bytes.iter_mut().skip(at).take(to % 1024).for_each(|byte| *byte = value),
        // Zero a sector.
        2 => bytes.iter_mut().skip(at / SECTOR * SECTOR).take(SECTOR).for_each(|byte| *byte = 0),
        // Copy a stretch, or a sector, of any file.
        3 | 4 => {
            let (at, to, length) = match what % 12 {
                3 => (at & !7, to & !7, 8 * usize::from(value)),
                _ => (at / SECTOR * SECTOR, to / SECTOR * SECTOR, SECTOR),
            };
            let from = &files[other];
            let piece = from[at.min(from.len())..from.len().min(at + length)].to_vec();
            for (byte, new) in bytes.iter_mut().skip(to).zip(piece) {
                *byte = new;
            }
        }
        // Swap two sectors.
        5 => {
            let sectors = bytes.len() / SECTOR;
            if let (Some(a), Some(b)) =
                ((at / SECTOR).checked_rem(sectors), (to / SECTOR).checked_rem(sectors))
            {
                (0..SECTOR).for_each(|n| bytes.swap(a * SECTOR + n, b * SECTOR + n));
            }
        }
        6 => bytes.truncate(at),
        7 => bytes.resize((bytes.len() + at).min(FILE_BYTES_MAX.max(bytes.len())), value),
        8 => {
            files.remove(path);
            return false;
        }
        // The file again, under another name, or over another file.
        9 => {
            files.insert(segment_path(number), bytes);
            return false;
        }
        10 => {
            files.remove(path);
            files.insert(segment_path(number), bytes);
            return false;
        }
        // A file of another log.
        _ => {
            let foreign = &samples()[usize::from(value) % samples().len()].files;
            if let Some(foreign) = foreign.get(path) {
                bytes.clone_from(foreign);
            }
        }
    }
    files.insert(path.clone(), bytes);
    in_place
}
