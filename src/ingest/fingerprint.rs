//! The fingerprint of a shard: BLAKE3 of its size (u64, little endian) and its footer bytes.
//!
//! The footer bytes are the Thrift metadata, its length and the closing magic, as they stand at the end of the file. They
//! hold every page's place, the statistics, and the hash of the content that import writes, so two shards that differ have
//! different fingerprints, and it costs one small read to take.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Context, Error, Result, Stage};

/// Length of the metadata (4 bytes) and magic (4 bytes) that end a Parquet file.
pub const TRAILER_BYTES: u64 = 8;

/// From the size of a file and its last bytes: metadata, length and magic.
pub fn of_footer(file_bytes: u64, footer: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file_bytes.to_le_bytes());
    hasher.update(footer);
    *hasher.finalize().as_bytes()
}

/// Of a file on disk.
///
/// # Errors
/// It cannot be read, or does not end as Parquet does.
pub fn of_file(path: &Path) -> Result<[u8; 32]> {
    let place = path.display().to_string();
    let cannot_read = "cannot read the footer; check that the file is there and may be read";
    let mut file = File::open(path).context(Stage::Import, &place, cannot_read)?;
    let file_bytes = file.metadata().context(Stage::Import, &place, cannot_read)?.len();
    let no_parquet = || Error::at(Stage::Import, &place, "is no complete Parquet file; import it again");
    let mut trailer = [0_u8; TRAILER_BYTES as usize];
    let trailer_at = file_bytes.checked_sub(TRAILER_BYTES).ok_or_else(no_parquet)?;
    file.seek(SeekFrom::Start(trailer_at)).context(Stage::Import, &place, cannot_read)?;
    file.read_exact(&mut trailer).context(Stage::Import, &place, cannot_read)?;
    let [a, b, c, d, magic @ ..] = trailer;
    let footer_bytes = u64::from(u32::from_le_bytes([a, b, c, d])) + TRAILER_BYTES;
    if &magic != b"PAR1" || footer_bytes > file_bytes {
        return Err(no_parquet());
    }
    file.seek(SeekFrom::Start(file_bytes - footer_bytes)).context(Stage::Import, &place, cannot_read)?;
    let mut footer = Vec::new();
    file.take(footer_bytes).read_to_end(&mut footer).context(Stage::Import, &place, cannot_read)?;
    Ok(of_footer(file_bytes, &footer))
}

/// 64 lower-case hexadecimal digits, as the manifest writes it.
pub fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_parquet_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for content in [&b""[..], b"short", b"PAR1....\x04\0\0\0PAR2", b"PAR1\xff\xff\0\0PAR1"] {
            std::fs::write(&path, content).unwrap();
            assert!(of_file(&path).unwrap_err().to_string().contains("no complete Parquet"), "{content:?}");
        }
    }

    #[test]
    fn size_and_footer_both_count_and_the_rest_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let take = |content: &[u8]| {
            let path = folder.path().join("a.parquet");
            std::fs::write(&path, content).unwrap();
            of_file(&path).unwrap()
        };
        let base = take(b"PAR1aaaafoot\x04\0\0\0PAR1");
        assert_eq!(base, take(b"PAR1bbbbfoot\x04\0\0\0PAR1"));
        assert_ne!(base, take(b"PAR1aaaaFOOT\x04\0\0\0PAR1"));
        assert_ne!(base, take(b"PAR1aaaaafoot\x04\0\0\0PAR1"));
        assert_eq!(base, of_footer(20, b"foot\x04\0\0\0PAR1"));
    }
}
