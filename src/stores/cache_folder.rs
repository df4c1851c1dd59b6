//! Pieces of remote files on a local disk, within a byte limit.
//!
//! `FOLDER/OBJECT/START-END` holds bytes `START..END` of an object and after them their xxh3, so that a piece that a crash
//! or a disk spoiled is recognised and fetched again. `OBJECT` names one state of one object. A piece appears by renaming,
//! whole or not at all. The folder is its own index: several processes may share it, each finds what it wrote and what was
//! there when it looked last, and a piece that another one evicted is merely missing.
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Context, Error, Result, Stage};

/// Longer reads are kept in pieces of this length: eviction and checking are by piece.
const PIECE_BYTES: usize = 1 << 20;
/// After each piece.
const HASH_BYTES: usize = 8;
/// Where pieces are written before they are renamed.
const WRITING: &str = "writing";
/// A piece that somebody began to write so long ago was given up.
const ABANDONED: Duration = Duration::from_secs(3_600);
/// Eviction frees this share of the limit at once, and the folder is looked through again after as many bytes.
const SHARE_FREED: u64 = 8;

/// `[scan.cache]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Folder that keeps what was read from object stores and web servers; made if it is not there.
    pub folder: PathBuf,
    /// Most bytes it may hold, in units of 2²⁰.
    pub megabytes: u64,
}

/// What the folder holds, as far as this process knows.
#[derive(Debug, Default)]
struct Index {
    /// Ends of pieces by object and start.
    pieces: HashMap<String, BTreeMap<u64, u64>>,
    bytes: u64,
    written_since_scan: u64,
}

/// Of a temporary file, unlike all others of this process.
static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// A folder of pieces. All methods block.
#[derive(Debug)]
pub struct CacheFolder {
    folder: PathBuf,
    limit_bytes: u64,
    index: Mutex<Index>,
    /// Set once the disk refused a piece: reads go on, nothing more is kept.
    refused: AtomicBool,
}

impl CacheFolder {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// It cannot be made, read or written.
    pub fn open(settings: &CacheSettings) -> Result<Self> {
        let place = settings.folder.display().to_string();
        let limit_bytes = settings.megabytes.saturating_mul(1 << 20);
        let cache = Self {
            folder: settings.folder.clone(),
            limit_bytes,
            index: Mutex::default(),
            refused: AtomicBool::new(false),
        };
        let remedy = "cannot be used as a cache; give another folder in scan.cache, or leave the cache out";
        if !may_hold_a_cache(&settings.folder) {
            let reason = "holds other files; give an empty or a new folder in scan.cache, or leave the cache out";
            return Err(Error::at(Stage::Select, place, reason));
        }
        cache.probe().context(Stage::Select, &place, remedy)?;
        let mut index = cache.lock();
        cache.make_room(&mut index, 0).context(Stage::Select, place, remedy)?;
        drop(index);
        Ok(cache)
    }

    /// Bytes of all pieces, as far as this process knows.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether the disk refused a piece, from when on nothing more is kept.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The parts of `wanted` that are kept, ascending and disjoint; each was checked.
    pub(super) fn read(&self, object: &str, wanted: &Range<u64>) -> Vec<(u64, Bytes)> {
        let mut found = Vec::new();
        let mut at = wanted.start;
        while at < wanted.end {
            let Some(piece) = self.piece_from(object, at).filter(|piece| piece.start < wanted.end) else { break };
            match self.read_piece(object, &piece) {
                Some(bytes) => {
                    let part = at.max(piece.start)..piece.end.min(wanted.end);
                    let inside = (part.start - piece.start) as usize..(part.end - piece.start) as usize;
                    found.push((part.start, bytes.slice(inside)));
                }
                None => self.forget(object, &piece),
            }
            at = piece.end;
        }
        found
    }

    /// Keeps bytes of an object from `start` on.
    pub(super) fn write(&self, object: &str, start: u64, bytes: &[u8]) {
        if self.is_refused() {
            return;
        }
        let mut at = start;
        for piece in bytes.chunks(PIECE_BYTES) {
            match self.write_piece(object, at, piece) {
                Ok(()) => {}
                // Another process evicts as this one writes.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => return self.refused.store(true, Ordering::Relaxed),
            }
            at += piece.len() as u64;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The piece that holds byte `at`, or the first one after it.
    fn piece_from(&self, object: &str, at: u64) -> Option<Range<u64>> {
        let index = self.lock();
        let pieces = index.pieces.get(object)?;
        let before = pieces.range(..=at).next_back().filter(|(_, end)| **end > at);
        before.or_else(|| pieces.range(at..).next()).map(|(start, end)| *start..*end)
    }

    fn path(&self, object: &str, piece: &Range<u64>) -> PathBuf {
        self.folder.join(object).join(format!("{}-{}", piece.start, piece.end))
    }

    /// `None` where it is gone or spoiled.
    fn read_piece(&self, object: &str, piece: &Range<u64>) -> Option<Bytes> {
        let path = self.path(object, piece);
        let mut bytes = fs::read(&path).ok()?;
        let length = (piece.end - piece.start) as usize;
        if bytes.len() != length + HASH_BYTES {
            return None;
        }
        let hash = bytes.split_off(length);
        if hash != xxh3_64_with_seed(&bytes, piece.start).to_le_bytes() {
            return None;
        }
        // Marks it as used; if that fails it is only evicted earlier.
        let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(bytes.into())
    }

    fn forget(&self, object: &str, piece: &Range<u64>) {
        // It may be gone already.
        let _ = fs::remove_file(self.path(object, piece));
        let mut index = self.lock();
        let known = index.pieces.get_mut(object).and_then(|pieces| pieces.remove(&piece.start));
        if known.is_some() {
            index.bytes = index.bytes.saturating_sub(on_disk(piece));
        }
    }

    fn write_piece(&self, object: &str, start: u64, bytes: &[u8]) -> io::Result<()> {
        let piece = start..start + bytes.len() as u64;
        let size = on_disk(&piece);
        if size > self.limit_bytes / SHARE_FREED {
            return Ok(());
        }
        let mut index = self.lock();
        if index.bytes + size > self.limit_bytes || index.written_since_scan > self.limit_bytes / SHARE_FREED {
            self.make_room(&mut index, size)?;
        }
        // Counted before it is written, so that two threads do not share the same room.
        index.bytes += size;
        index.written_since_scan += size;
        drop(index);
        let name = format!("{}-{}", std::process::id(), NEXT_NAME.fetch_add(1, Ordering::Relaxed));
        let temporary = self.folder.join(WRITING).join(name);
        let written = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.write_all(&xxh3_64_with_seed(bytes, start).to_le_bytes())?;
            drop(file);
            fs::create_dir_all(self.folder.join(object))?;
            fs::rename(&temporary, self.path(object, &piece))
        };
        let result = written();
        let mut index = self.lock();
        match &result {
            Ok(()) => {
                let old = index.pieces.entry(object.to_owned()).or_default().insert(piece.start, piece.end);
                if let Some(old) = old {
                    // The same start: one file took the other's place, or two of different length stand there now.
                    let replaced = if old == piece.end { size } else { 0 };
                    index.bytes = index.bytes.saturating_sub(replaced);
                }
            }
            Err(_) => {
                let _ = fs::remove_file(&temporary);
                index.bytes = index.bytes.saturating_sub(size);
            }
        }
        result
    }

    fn probe(&self) -> io::Result<()> {
        let writing = self.folder.join(WRITING);
        fs::create_dir_all(&writing)?;
        let probe = writing.join(format!("{}-probe", std::process::id()));
        File::create(&probe)?;
        fs::remove_file(probe)?;
        for entry in fs::read_dir(writing)?.flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // Somebody else may have removed it.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Looks through the folder, and evicts what was used least recently until `more` bytes and a share of the limit fit.
    fn make_room(&self, index: &mut Index, more: u64) -> io::Result<()> {
        let mut pieces = self.scan()?;
        let mut bytes: u64 = pieces.iter().map(|piece| on_disk(&piece.range)).sum();
        if bytes + more > self.limit_bytes {
            pieces.sort_by_key(|piece| std::cmp::Reverse(piece.used));
            let goal = self.limit_bytes - self.limit_bytes / SHARE_FREED;
            while bytes + more > goal
                && let Some(piece) = pieces.pop()
            {
                let _ = fs::remove_file(self.path(&piece.object, &piece.range));
                bytes -= on_disk(&piece.range);
            }
        }
        *index = Index { bytes, ..Index::default() };
        for piece in pieces {
            index.pieces.entry(piece.object).or_default().insert(piece.range.start, piece.range.end);
        }
        Ok(())
    }

    fn scan(&self) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for object in fs::read_dir(&self.folder)? {
            let object = object?;
            let Some(name) = object.file_name().to_str().map(str::to_owned) else { continue };
            if name == WRITING || !object.path().is_dir() {
                continue;
            }
            let Ok(entries) = fs::read_dir(object.path()) else { continue };
            // Others may remove pieces meanwhile.
            for entry in entries.flatten() {
                let Some(range) = entry.file_name().to_str().and_then(range_of) else { continue };
                let Ok(used) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
                pieces.push(Piece { object: name.clone(), range, used });
            }
        }
        Ok(pieces)
    }
}

struct Piece {
    object: String,
    range: Range<u64>,
    used: SystemTime,
}

fn on_disk(piece: &Range<u64>) -> u64 {
    piece.end - piece.start + HASH_BYTES as u64
}

fn range_of(name: &str) -> Option<Range<u64>> {
    let (start, end) = name.split_once('-')?;
    let range = start.parse().ok()?..end.parse().ok()?;
    (range.start < range.end).then_some(range)
}

/// The name of one state of an object: what identifies it, hashed.
pub(super) fn object_name(identity: &str) -> String {
    blake3::hash(identity.as_bytes()).to_hex()[..32].to_owned()
}

/// Whether `folder` is one of ours or may become one: eviction must never meet anybody else's files.
fn may_hold_a_cache(folder: &Path) -> bool {
    folder.join(WRITING).is_dir() || fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, megabytes: u64) -> CacheFolder {
        CacheFolder::open(&CacheSettings { folder: folder.to_owned(), megabytes }).unwrap()
    }

    fn bytes(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    }

    fn joined(parts: &[(u64, Bytes)]) -> Vec<u8> {
        parts.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect()
    }

    fn disk_bytes(folder: &Path) -> u64 {
        let size =
            |path: PathBuf| -> u64 { fs::read_dir(path).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum() };
        fs::read_dir(folder).unwrap().flatten().map(|entry| size(entry.path())).sum()
    }

    #[test]
    fn what_was_kept_is_found_again_in_any_cut_and_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let kept = bytes(3 << 20, 1);
        cache(folder.path(), 64).write("a", 100, &kept);
        let other = cache(folder.path(), 64);
        assert_eq!(joined(&other.read("a", &(100..100 + (3 << 20)))), kept);
        let part = other.read("a", &((1 << 20)..(1 << 20) + 500));
        assert_eq!(joined(&part), kept[(1 << 20) - 100..(1 << 20) + 400]);
        assert!(other.read("a", &(0..100)).is_empty() && other.read("b", &(100..200)).is_empty());
        let around = other.read("a", &(0..200));
        assert_eq!((around.len(), around[0].0, around[0].1.len()), (1, 100, 100));
    }

    /// File systems tell times apart only so far.
    fn until_the_clock_moves() {
        let probe = tempfile::NamedTempFile::new().unwrap();
        let touched = || {
            probe.as_file().write_all(b".").unwrap();
            probe.as_file().metadata().unwrap().modified().unwrap()
        };
        let before = touched();
        while touched() == before {}
    }

    #[test]
    fn the_limit_holds_and_what_was_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 2);
        let piece = bytes(100_000, 3);
        for number in 0..60_u64 {
            cache.write("a", number * 1_000_000, &piece);
            assert_eq!(cache.read("a", &(0..100_000)).len(), 1, "the first is in use, after {number}");
            assert!(disk_bytes(folder.path()) <= 2 << 20, "{} after {number}", disk_bytes(folder.path()));
            until_the_clock_moves();
        }
        assert!(cache.read("a", &(1_000_000..1_100_000)).is_empty(), "the second was not");
        assert!(disk_bytes(folder.path()) > 1 << 20, "and the room is used");
    }

    #[test]
    fn two_that_share_a_folder_never_read_wrong_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let piece = |number: u64| bytes(50_000, number as u8);
        std::thread::scope(|scope| {
            for megabytes in [1, 1, 2] {
                let cache = cache(folder.path(), megabytes);
                scope.spawn(move || {
                    for round in 0..150_u64 {
                        let number = (round * 7 + megabytes) % 40;
                        let range = number * 100_000..number * 100_000 + 50_000;
                        match cache.read("a", &range).as_slice() {
                            [] => cache.write("a", range.start, &piece(number)),
                            found => assert_eq!(joined(found), piece(number)),
                        }
                    }
                    assert!(!cache.is_refused());
                });
            }
        });
        assert!(disk_bytes(folder.path()) <= 3 << 20, "{}", disk_bytes(folder.path()));
    }

    #[test]
    fn spoiled_pieces_are_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 64);
        cache.write("a", 0, &bytes(1_000, 1));
        let path = folder.path().join("a/0-1000");
        let mut spoiled = fs::read(&path).unwrap();
        spoiled[500] ^= 1;
        fs::write(&path, &spoiled).unwrap();
        assert!(cache.read("a", &(0..1_000)).is_empty());
        cache.write("a", 0, &bytes(1_000, 1));
        assert_eq!(cache.read("a", &(0..1_000)).len(), 1);
        fs::write(&path, &spoiled[..300]).unwrap();
        assert!(cache.read("a", &(0..1_000)).is_empty(), "cut short");
        // The same bytes under another name.
        cache.write("a", 0, &bytes(1_000, 1));
        fs::rename(&path, folder.path().join("a/5-1005")).unwrap();
        assert!(tests::cache(folder.path(), 64).read("a", &(5..1_005)).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_written_or_holds_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let refusal =
            |folder: PathBuf| CacheFolder::open(&CacheSettings { folder, megabytes: 1 }).unwrap_err().to_string();
        assert!(refusal(file).contains("scan.cache"));
        assert!(refusal(folder.path().to_owned()).contains("holds other files"));
        assert!(folder.path().join("file").exists());
    }
}
