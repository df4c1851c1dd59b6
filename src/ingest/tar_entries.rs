//! One tar archive, entry by entry. Archives come from strangers: nothing is unpacked, and no length in them is believed.
//!
//! The entries that describe other entries (GNU long names, PAX) are read here rather than by the `tar` crate, which
//! would take a name of as many gigabytes as an archive declares into memory.
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Context, Error, Result, Stage};

/// The longest name of an entry, and the most that PAX may say about one.
const MAX_NAME_BYTES: u64 = 1 << 16;
const MAX_PAX_BYTES: u64 = 1 << 20;
/// Entries of one archive: each costs memory until the archive is read.
const MAX_ENTRIES: usize = 1 << 24;
const BLOCK_BYTES: u64 = 512;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const CANNOT_READ: &str = "cannot be read; check permissions and the disk";

/// What an archive holds.
pub(super) enum TarEntry<'a> {
    /// A file.
    File {
        /// Below the archive, without `./`.
        name: String,
        /// Where its content is; `None` in a compressed archive.
        at: Option<u64>,
        bytes: u64,
        content: &'a mut dyn Read,
    },
    /// Something that is not imported; without a name it is the archive, from some place on.
    Refused {
        name: String,
        reason: String,
        /// Whether it was the last of an archive that is cut off or damaged.
        is_cut_off: bool,
    },
}

/// Why a visitor stops.
pub(super) enum Stop {
    /// The archive is damaged here.
    Archive(io::Error),
    /// The import cannot go on.
    Import(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Import(error)
    }
}

/// The end of an archive's entries.
enum End {
    /// Where the mark of the end must be.
    At(u64),
    /// Said already.
    CutOff,
}

/// Shows every entry of the archive at `path`, compressed if its first bytes say so.
///
/// A damaged archive is no error: what is before the damage is shown, and then why there is no more.
///
/// # Errors
/// The disk's and the visitor's.
pub(super) fn visit(path: &Path, visitor: &mut dyn FnMut(TarEntry<'_>) -> std::result::Result<(), Stop>) -> Result<()> {
    let place = || path.display().to_string();
    let tape = Tape::open(path).context(Stage::Import, place(), CANNOT_READ)?;
    let archive_bytes = tape.archive_bytes();
    let mut archive = tar::Archive::new(tape);
    let end = entries(&mut archive, archive_bytes, visitor);
    let tape = archive.into_inner();
    let reason = match end {
        Err(Stop::Import(error)) => return Err(error),
        Err(Stop::Archive(error)) if tape.disk_failed() => {
            return Err(error).context(Stage::Import, place(), CANNOT_READ);
        }
        Err(Stop::Archive(error)) => format!("is cut off or damaged, and what follows was not imported: {error}"),
        Ok(End::At(end)) if archive_bytes.unwrap_or(tape.read_bytes) <= end => {
            "has no mark at its end, so it may be cut off".to_owned()
        }
        Ok(_) => return Ok(()),
    };
    match visitor(TarEntry::Refused { name: String::new(), reason, is_cut_off: true }) {
        Err(Stop::Import(error)) => Err(error),
        _ => Ok(()),
    }
}

fn entries(
    archive: &mut tar::Archive<Tape>,
    archive_bytes: Option<u64>,
    visitor: &mut dyn FnMut(TarEntry<'_>) -> std::result::Result<(), Stop>,
) -> std::result::Result<End, Stop> {
    let entries = if archive_bytes.is_some() { archive.entries_with_seek() } else { archive.entries() };
    let mut described = Described::default();
    let mut end = 0;
    for (number, entry) in entries.map_err(Stop::Archive)?.raw(true).enumerate() {
        let mut entry = entry.map_err(Stop::Archive)?;
        let (at, bytes) = (entry.raw_file_position(), entry.size());
        if number >= MAX_ENTRIES {
            return Err(Stop::Archive(io::Error::other(format!("more than {MAX_ENTRIES} entries"))));
        }
        let kind = entry.header().entry_type();
        let name = described.name.clone().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        if archive_bytes.is_some_and(|all| bytes > all.saturating_sub(at)) {
            let left = archive_bytes.unwrap_or(0).saturating_sub(at);
            let reason =
                format!("declares {bytes} bytes where the archive has {left} left; what follows was not imported");
            visitor(TarEntry::Refused { name: shown(&name), reason, is_cut_off: true })?;
            return Ok(End::CutOff);
        }
        end = at.saturating_add(bytes).saturating_add(BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            described.read(&mut entry, kind, bytes)?;
            continue;
        }
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            continue;
        }
        let described = std::mem::take(&mut described);
        if described.bytes.is_some_and(|said| said != bytes) {
            let error = format!("{} has two different lengths", shown(&name));
            return Err(Stop::Archive(io::Error::other(error)));
        }
        // Old archives have no type for folders.
        if kind.is_dir() || name.ends_with(b"/") {
            continue;
        }
        let refused = match unsafe_name(&name) {
            Some(reason) => Some(reason),
            None if described.is_sparse || kind.is_gnu_sparse() => Some("is a sparse file"),
            None if kind.is_file() || kind.is_contiguous() => None,
            None if kind.is_symlink() || kind.is_hard_link() => Some("is a link"),
            None => Some("is no file"),
        };
        match refused {
            Some(reason) => {
                let reason = format!("{reason}; it was not imported");
                visitor(TarEntry::Refused { name: shown(&name), reason, is_cut_off: false })?;
            }
            None => {
                let at = archive_bytes.map(|_| at);
                visitor(TarEntry::File { name: clean(&name), at, bytes, content: &mut entry })?;
            }
        }
    }
    Ok(End::At(end))
}

/// What entries say about the one after them.
#[derive(Default)]
struct Described {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    is_sparse: bool,
}

impl Described {
    fn read(&mut self, entry: &mut dyn Read, kind: tar::EntryType, bytes: u64) -> std::result::Result<(), Stop> {
        let limit = if kind.is_gnu_longname() { MAX_NAME_BYTES } else { MAX_PAX_BYTES };
        if bytes > limit {
            let error = format!("a name or description of {bytes} bytes, and {limit} are allowed");
            return Err(Stop::Archive(io::Error::other(error)));
        }
        let mut content = Vec::new();
        entry.take(limit).read_to_end(&mut content).map_err(Stop::Archive)?;
        if content.len() as u64 != bytes {
            return Err(Stop::Archive(io::ErrorKind::UnexpectedEof.into()));
        }
        if kind.is_gnu_longname() {
            let end = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
            content.truncate(end);
            self.name = Some(content);
            return Ok(());
        }
        // Records that cannot be read are those of attributes that hold a newline: nothing that matters here.
        for extension in tar::PaxExtensions::new(&content).flatten() {
            match extension.key_bytes() {
                b"path" => self.name = Some(extension.value_bytes().to_vec()),
                b"size" => self.bytes = extension.value().ok().and_then(|value| value.parse().ok()).or(Some(u64::MAX)),
                key => self.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }
}

/// Names never reach the disk; an archive that tries to lead out of itself deserves no trust for the sample either.
fn unsafe_name(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() || name.contains(&0) {
        Some("has no name")
    } else if name.len() as u64 > MAX_NAME_BYTES {
        Some("has too long a name")
    } else if name.starts_with(b"/") {
        Some("has an absolute path")
    } else if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        Some("leads out of the archive")
    } else {
        None
    }
}

fn clean(name: &[u8]) -> String {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    String::from_utf8_lossy(&parts.collect::<Vec<_>>().join(&b'/')).into_owned()
}

/// A name in an error, however long.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(200)]).escape_debug().to_string()
}

/// The bytes of an archive, uncompressed, counted.
struct Tape {
    reader: Reader,
    read_bytes: u64,
}

enum Reader {
    Plain(Watched, u64),
    Gzip(Box<MultiGzDecoder<BufReader<Watched>>>),
}

/// A file that remembers whether it was the disk that failed: everything else is damage.
struct Watched {
    file: File,
    has_failed: bool,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        self.has_failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

impl Tape {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        (&file).take(2).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let archive_bytes = file.metadata()?.len();
        let file = Watched { file, has_failed: false };
        let reader = if magic == GZIP_MAGIC {
            Reader::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 17, file))))
        } else {
            Reader::Plain(file, archive_bytes)
        };
        Ok(Self { reader, read_bytes: 0 })
    }

    /// Known where nothing is compressed.
    fn archive_bytes(&self) -> Option<u64> {
        match self.reader {
            Reader::Plain(_, bytes) => Some(bytes),
            Reader::Gzip(_) => None,
        }
    }

    fn disk_failed(&self) -> bool {
        match &self.reader {
            Reader::Plain(file, _) => file.has_failed,
            Reader::Gzip(decoder) => decoder.get_ref().get_ref().has_failed,
        }
    }
}

impl Read for Tape {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.reader {
            Reader::Plain(file, _) => file.read(buffer)?,
            Reader::Gzip(decoder) => decoder.read(buffer)?,
        };
        self.read_bytes += read as u64;
        Ok(read)
    }
}

impl Seek for Tape {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.reader {
            Reader::Plain(file, _) => file.file.seek(to),
            Reader::Gzip(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn header(name: &str, kind: tar::EntryType, bytes: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        // `set_path` refuses what this is about.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_cksum();
        header
    }

    fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, content) in entries {
            bytes.extend(header(name, *kind, content.len() as u64).as_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// `name: content` of files, `name! reason` of the rest.
    fn seen(archive: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive).unwrap();
        let mut seen = Vec::new();
        visit(&path, &mut |entry| {
            seen.push(match entry {
                TarEntry::File { name, at, bytes, content } => {
                    let mut text = String::new();
                    content.read_to_string(&mut text).map_err(Stop::Archive)?;
                    if let Some(at) = at {
                        let at = at as usize;
                        assert_eq!(&archive[at..at + bytes as usize], text.as_bytes());
                    }
                    format!("{name}: {text}")
                }
                TarEntry::Refused { name, reason, .. } => format!("{name}! {reason}"),
            });
            Ok(())
        })
        .unwrap();
        seen
    }

    use tar::EntryType as T;

    #[test]
    fn files_are_shown_with_their_places_and_folders_are_not() {
        let bytes = tar(&[
            ("./a/", T::Directory, b""),
            ("./a/1.txt", T::Regular, b"one"),
            ("b//2.txt", T::Continuous, b""),
            ("old/", T::Regular, b""),
        ]);
        for archive in [bytes.clone(), gzip(&bytes)] {
            assert_eq!(seen(&archive), ["a/1.txt: one", "b/2.txt: "]);
        }
    }

    #[test]
    fn long_names_of_both_kinds_are_read() {
        let long = "d/".repeat(120) + "x.txt";
        let gnu = [long.as_bytes(), b"\0"].concat();
        let record = format!(" path={long}\n");
        let pax = format!("{}{record}", record.len() + 3);
        for (kind, content) in [(T::GNULongName, &gnu[..]), (T::XHeader, pax.as_bytes())] {
            let link = [("l", T::GNULongLink, &b"somewhere"[..]), ("n", kind, content), ("cut", T::Regular, b"text")];
            assert_eq!(seen(&tar(&link)), [format!("{long}: text")]);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused_and_the_rest_is_shown() {
        let bytes = tar(&[
            ("../x.jpg", T::Regular, b"1"),
            ("/etc/x.jpg", T::Regular, b"2"),
            ("a/../../x.jpg", T::Regular, b"3"),
            ("s.jpg", T::Symlink, b""),
            ("h.jpg", T::Link, b""),
            ("d.jpg", T::Char, b""),
            ("f.jpg", T::Fifo, b""),
            ("", T::Regular, b""),
            ("good.txt", T::Regular, b"4"),
        ]);
        for archive in [bytes.clone(), gzip(&bytes)] {
            let seen = seen(&archive);
            assert_eq!(seen.len(), 9, "{seen:?}");
            assert!(seen[0].starts_with("../x.jpg! leads out") && seen[1].contains("absolute path"), "{seen:?}");
            assert!(seen[2].contains("leads out") && seen[3].contains("link") && seen[4].contains("link"), "{seen:?}");
            assert!(seen[5].contains("no file") && seen[6].contains("no file") && seen[7].contains("no name"));
            assert_eq!(seen[8], "good.txt: 4");
        }
    }

    #[test]
    fn absurd_lengths_end_the_archive_with_a_reason() {
        let mut bytes = tar(&[("a.txt", T::Regular, b"a")]);
        bytes.truncate(1024);
        for (kind, declared) in [(T::Regular, 8 << 30), (T::GNULongName, 8 << 30), (T::Regular, u64::MAX)] {
            let archive = [&bytes[..], header("b.jpg", kind, declared).as_bytes(), &[1; 2048]].concat();
            for archive in [archive.clone(), gzip(&archive)] {
                let seen = seen(&archive);
                assert_eq!(seen[0], "a.txt: a");
                assert!(seen.last().unwrap().contains('!'), "{kind:?} {declared}: {seen:?}");
            }
        }
    }

    #[test]
    fn names_of_a_gigabyte_are_not_read_into_memory() {
        // Long enough to be there, so that only the limit stops it.
        let content = vec![b'x'; (MAX_NAME_BYTES + 1) as usize];
        let seen = seen(&tar(&[("n", T::GNULongName, &content), ("a.txt", T::Regular, b"a")]));
        assert_eq!(seen.len(), 1);
        assert!(seen[0].contains("65536 are allowed"), "{seen:?}");
    }

    #[test]
    fn an_archive_cut_off_anywhere_shows_what_is_before_and_says_so() {
        let bytes =
            tar(&[("a.txt", T::Regular, b"a"), ("b.txt", T::Regular, &[b'b'; 700]), ("c.txt", T::Regular, b"")]);
        assert_eq!(seen(&bytes).len(), 3);
        for cut in (0..bytes.len() - 1024).step_by(128) {
            let seen = seen(&bytes[..cut]);
            assert!(seen.last().unwrap().contains('!'), "cut at {cut}: {seen:?}");
            assert_eq!(seen.iter().filter(|entry| entry.contains('!')).count(), 1, "cut at {cut}: {seen:?}");
            assert_eq!(seen[0] == "a.txt: a", cut >= 513, "cut at {cut}: {seen:?}");
        }
        let packed = gzip(&bytes);
        let mut noticed = 0;
        for cut in 2..packed.len() {
            let seen = seen(&packed[..cut]);
            // The last bytes of a gzip are its checksum and zeros that nobody needs.
            let is_cut = seen.last().is_some_and(|entry| entry.contains('!'));
            assert!(is_cut || seen.len() == 3, "cut at {cut}: {seen:?}");
            noticed += usize::from(is_cut);
        }
        assert!(noticed > packed.len() / 2, "{noticed} of {} cuts", packed.len());
    }

    #[test]
    fn a_second_length_is_not_believed() {
        let record = "15 size=999999\n";
        let entries = [("x", T::XHeader, record.as_bytes()), ("a.jpg", T::Regular, b"abc"), ("b.txt", T::Regular, b"")];
        let seen = seen(&tar(&entries));
        assert_eq!(seen.len(), 1);
        assert!(seen[0].contains("two different lengths"), "{seen:?}");
    }
}
