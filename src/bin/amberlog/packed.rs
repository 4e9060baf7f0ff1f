//! Contents of files, compressed or not, and of inputs that cannot be read twice.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Size of the buffer that files are read with.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Compression of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// None.
    Plain,
    /// gzip: `.gz`.
    Gzip,
    /// Zstandard: `.zst`.
    Zstd,
}

impl Packing {
    /// Returns the compression that the name of a file announces.
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Returns the compression that the first bytes of a file show.
    pub(crate) fn seems(head: &[u8]) -> Self {
        match head {
            [0x1F, 0x8B, ..] => Self::Gzip,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Returns the name of the content: the path without the suffix of the compression.
    pub(crate) fn name_inside(path: &Path) -> PathBuf {
        if Self::of(path) == Self::Plain { path.to_owned() } else { path.with_extension("") }
    }
}

/// Reads the content of a file.
pub(crate) fn unpack(path: &Path, file: File) -> Box<dyn Read> {
    let from = BufReader::with_capacity(READ_BYTES, file);
    match Packing::of(path) {
        Packing::Plain => Box::new(from),
        Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
        Packing::Zstd => Box::new(ZstdDecoder::new(from)),
    }
}

/// Opens the content of a file, of standard input (`-`) or of a pipe for reading it more than once;
/// returns its length, too. An input that cannot be read twice is copied to a temporary file
/// without a name.
pub(crate) fn open_twice(path: &Path) -> io::Result<(u64, File)> {
    if path == Path::new("-") {
        return keep(&mut io::stdin().lock());
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && Packing::of(path) == Packing::Plain {
        return Ok((meta.len(), file));
    }
    keep(&mut unpack(path, file))
}

fn keep(from: &mut dyn Read) -> io::Result<(u64, File)> {
    let name = format!("amberlog-{}-{}", std::process::id(), amberlog::StreamId::new());
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    let bytes = io::copy(from, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok((bytes, file))
}

/// Decoder of Zstandard files: a sequence of frames, some of which are to be skipped.
struct ZstdDecoder<R> {
    from: R,
    frame: FrameDecoder,
    is_begun: bool,
}

impl<R: BufRead> ZstdDecoder<R> {
    fn new(from: R) -> Self {
        Self { from, frame: FrameDecoder::new(), is_begun: false }
    }

    /// Starts the next frame. `Ok(false)`: the file has no more.
    fn begin(&mut self) -> io::Result<bool> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        while !self.from.fill_buf()?.is_empty() {
            match self.frame.init(&mut self.from) {
                Ok(()) => {
                    self.is_begun = true;
                    return Ok(true);
                }
                Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.from.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(false)
    }

    /// Ends a frame that was read to its end, and checks its checksum.
    fn end(&mut self) -> io::Result<()> {
        self.is_begun = false;
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(written), Some(read)) if written != read => Err(wrong("wrong checksum")),
            _ => Ok(()),
        }
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<R: BufRead> Read for ZstdDecoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.is_begun || self.begin()? {
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.from, step).map_err(wrong)?;
            }
            let read = self.frame.read(into)?;
            if read > 0 {
                return Ok(read);
            }
            self.end()?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn unzstd(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        ZstdDecoder::new(bytes).read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn frames_follow_each_other_and_what_is_cut_or_wrong_is_told() {
        let large: Vec<u8> = (0..400_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let first = compress_to_vec(&large[..], CompressionLevel::Fastest);
        let two = compress_to_vec(&b"and more"[..], CompressionLevel::Fastest);
        let skipped = [0x53, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 7, 7, 7];
        let all = [&first[..], &skipped, &two].concat();
        assert_eq!(unzstd(&all).expect("whole"), [&large[..], b"and more"].concat());
        assert_eq!(unzstd(b"").expect("nothing"), b"");
        for cut in [1, 3, 5, first.len() / 2, first.len() - 1, first.len() + 9, all.len() - 1] {
            assert!(unzstd(&all[..cut]).is_err(), "cut at {cut}");
        }
        for at in [0, first.len() / 2, first.len() - 1, all.len() - 1] {
            let mut changed = all.clone();
            changed[at] ^= 1;
            assert!(unzstd(&changed).is_err(), "byte {at}");
        }
    }
}
