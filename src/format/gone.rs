//! File name of a stand-in for segments that were compacted away entirely. The file is empty, so a
//! full disk has room for it.

use super::segment::Covers;

/// Suffix of the file name.
const SUFFIX: &str = ".gone";

/// Decoded file name of a stand-in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gone {
    /// Number of the last compacted segment.
    pub(crate) number: u32,
    /// Positions that the compacted segments covered.
    pub(crate) covers: Covers,
    /// Checksum that ties the name to its log.
    pub(crate) check: u32,
}

impl Gone {
    pub(crate) fn new(log_id: [u8; 16], number: u32, covers: Covers) -> Self {
        Self { number, covers, check: check(log_id, number, covers) }
    }

    /// Reports whether the name belongs to the log of this id and is intact.
    pub(crate) fn is_of(&self, log_id: [u8; 16]) -> bool {
        self.check == check(log_id, self.number, self.covers)
    }

    pub(crate) fn file_name(&self) -> String {
        let Covers { first, last } = self.covers;
        format!("{:010}.{first:x}-{last:x}.{:08x}{SUFFIX}", self.number, self.check)
    }

    /// Parses a file name. Strict: accepts only names that [`Gone::file_name`] returns.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('.');
        let number = parts.next()?;
        let covers = parts.next()?;
        let check = parts.next()?;
        let (first, last) = covers.split_once('-')?;
        let position = |text| u64::from_str_radix(text, 16).ok();
        let covers = Covers { first: position(first)?, last: position(last)? };
        let check = u32::from_str_radix(check, 16).ok()?;
        let gone = Self { number: number.parse().ok()?, covers, check };
        let is_range = covers.first >= 1 && covers.first <= covers.last;
        (is_range && covers.last <= super::POSITION_MAX && gone.file_name() == name).then_some(gone)
    }
}

/// Returns the CRC-32 of the log's id, the number and the positions.
fn check(log_id: [u8; 16], number: u32, covers: Covers) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log_id);
    crc.update(&number.to_le_bytes());
    crc.update(&covers.first.to_le_bytes());
    crc.update(&covers.last.to_le_bytes());
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p15_only_the_exact_name_parses() {
        let covers = Covers { first: 17, last: 4_711 };
        let gone = Gone::new([7; 16], 8, covers);
        let name = gone.file_name();
        assert_eq!(name, "0000000008.11-1267.e950e919.gone");
        assert_eq!(Gone::parse(&name), Some(gone));
        assert!(gone.is_of([7; 16]) && !gone.is_of([8; 16]));
        for at in 0..name.len() {
            for byte in [b'0', b'1', b'f', b'F', b'.', b'-', b'+', b' ', b'x'] {
                let mut other = name.clone().into_bytes();
                if std::mem::replace(&mut other[at], byte) != byte {
                    let other = String::from_utf8(other).expect("ASCII");
                    let is_accepted = Gone::parse(&other).is_some_and(|gone| gone.is_of([7; 16]));
                    assert!(!is_accepted, "{other}");
                }
            }
            assert_eq!(Gone::parse(&name[..at]), None);
        }
        assert_eq!(Gone::parse(&format!("{name}.new")), None);
    }
}
