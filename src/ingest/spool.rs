//! A file without a name, where pass 1 keeps what pass 2 cannot reach by itself.
//!
//! Compressed archives and Parquet pages have no random access, but rows are written in a random order. So their images
//! are written down once, as they come by, and read from there at their place. Cost: as much free space in the folder of
//! the import as the images need, and one write and read of each. A file without a name is gone when the process is,
//! however it ends.
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result, Stage};

const CANNOT_WRITE: &str = "cannot be written; the images of compressed sources are kept here while they are imported, so free \
                            as much space as they need, or name a folder on another disk";

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) bytes: u32,
}

/// Appended to in pass 1, read at any place in pass 2.
#[derive(Debug)]
pub(super) struct Spool {
    /// For errors.
    path: PathBuf,
    file: BufWriter<File>,
    end: u64,
}

impl Spool {
    /// Makes one in `folder`.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("spool-{}.tmp", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.context(Stage::Import, path.display().to_string(), CANNOT_WRITE)?;
        std::fs::remove_file(&path).context(Stage::Import, path.display().to_string(), CANNOT_WRITE)?;
        Ok(Self { path: folder.to_owned(), file: BufWriter::with_capacity(1 << 20, file), end: 0 })
    }

    /// # Errors
    /// They cannot be written, or are more than a span holds.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<Span> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::internal("a value of 4 GiB was to be kept"))?;
        self.file.write_all(bytes).context(Stage::Import, self.path.display().to_string(), CANNOT_WRITE)?;
        let span = Span { at: self.end, bytes: length };
        self.end += u64::from(length);
        Ok(span)
    }

    /// Copies `bytes` from `content`; whether they were there. The outer error is that of writing, the inner of reading.
    pub(super) fn copy(&mut self, content: &mut dyn Read, bytes: u32) -> Result<io::Result<Span>> {
        let span = Span { at: self.end, bytes };
        let mut left = bytes as usize;
        let mut buffer = [0; 1 << 14];
        while left > 0 {
            let wanted = left.min(buffer.len());
            let read = match content.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            self.file.write_all(&buffer[..read]).context(
                Stage::Import,
                self.path.display().to_string(),
                CANNOT_WRITE,
            )?;
            self.end += read as u64;
            left -= read;
        }
        Ok(Ok(span))
    }

    /// Everything that was appended can be read from here on.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.file.flush().context(Stage::Import, self.path.display().to_string(), CANNOT_WRITE)
    }

    /// # Errors
    /// They cannot be read.
    pub(super) fn read(&self, span: Span) -> Result<Vec<u8>> {
        read_span(self.file.get_ref(), span).context(
            Stage::Import,
            self.path.display().to_string(),
            "what was kept here cannot be read; check the disk, and import again",
        )
    }
}

/// Reads bytes at their place, several threads at once.
pub(super) fn read_span(file: &File, span: Span) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.bytes as usize];
    file.read_exact_at(&mut bytes, span.at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_at_its_place_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        let spans = [spool.append(b"abc").unwrap(), spool.append(b"").unwrap(), spool.append(b"de").unwrap()];
        let copied = spool.copy(&mut &[7_u8; 40_000][..], 39_999).unwrap().unwrap();
        assert!(spool.copy(&mut &b"short"[..], 6).unwrap().is_err());
        let after = spool.append(b"after").unwrap();
        spool.seal().unwrap();
        assert_eq!(spans.map(|span| spool.read(span).unwrap()), [b"abc".to_vec(), vec![], b"de".to_vec()]);
        assert_eq!(spool.read(copied).unwrap(), [7; 39_999]);
        assert_eq!(spool.read(after).unwrap(), b"after");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
