//! A selection as one file, `*.selection`.
//!
//! ```text
//! "DIPTYSEL" │ version u32 │ header bytes u64 │ header (JSON) │ groups … │ extra values │ BLAKE3 of all before, 32 bytes
//! group: shard u32 (position in the header's list) │ row group u32 │ first row u64
//!        │ bitmap bytes u64 │ bitmap (standard Roaring format) │ repeats u32 │ (row u32, times u32) …
//! extra values: where the header names columns, a Parquet file with a row per item in the order of the items
//! ```
//! Numbers are little endian.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::extra_file;
use super::selection::{Provenance, SELECTION_VERSION, SelectedGroup, SelectedShard, Selection};
use super::shards::{ShardSet, hex};
use super::twins::{self, Twin};
use crate::error::{Context, Error, Result, Stage};

const MAGIC: &[u8; 8] = b"DIPTYSEL";
const CHECKSUM_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Header {
    digest: String,
    items: u64,
    total_rows: u64,
    groups: u64,
    shards: Vec<HeaderShard>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    blobs_from: BTreeMap<String, String>,
    provenance: Provenance,
    /// Names of the extra columns, and the bytes of the file that holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra_columns: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    extra_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
struct HeaderShard {
    name: String,
    fingerprint: String,
    #[serde(default, skip_serializing_if = "Twin::is_alone")]
    twin: Twin,
}

impl Selection {
    /// Writes the selection to `path`: under another name first, so that a crash leaves the old file or the new one. It
    /// replaces a selection that is there, and nothing else.
    ///
    /// # Errors
    /// The folder cannot be written to; another kind of file is there.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = encode(self)?;
        let place = path.display().to_string();
        if !is_free(path) {
            return Err(Error::at(Stage::Select, place, "is there already and no selection; name another file"));
        }
        replace(path, &bytes).context(Stage::Select, place, "cannot write the selection")
    }

    /// Reads a selection and renumbers its shards as `set` does, which knows them by their fingerprints, and those of one
    /// fingerprint by their names.
    ///
    /// # Errors
    /// The file is no selection, cut short, corrupt or of another version; the set lacks shards, or has
    /// several that could be meant, all of which are named.
    pub fn load(path: &Path, set: &ShardSet) -> Result<Self> {
        SavedSelection::read(path)?.bind(set)
    }
}

/// A selection as its file holds it: whole, but of shards that need not be at hand.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedSelection {
    selection: Selection,
    place: String,
}

impl SavedSelection {
    /// A selection whose ordinals are the positions in its list of shards.
    pub(crate) fn new(selection: Selection, place: String) -> Self {
        Self { selection, place }
    }

    /// The same of a selection that belongs to a set.
    ///
    /// # Errors
    /// Ours.
    pub fn of(selection: Selection, place: String) -> Result<Self> {
        let renumbered = |(ordinal, shard): (u32, &SelectedShard)| SelectedShard { ordinal, ..shard.clone() };
        let shards: Vec<SelectedShard> = (0..).zip(selection.shards()).map(renumbered).collect();
        let position: BTreeMap<u32, u32> =
            (0..).zip(selection.shards()).map(|(position, shard)| (shard.ordinal, position)).collect();
        let (total_rows, provenance) = (selection.total_rows, selection.provenance().clone());
        let blobs_from = selection.blobs_from().clone();
        let (mut groups, extra) = selection.into_parts();
        for group in &mut groups {
            group.shard = position.get(&group.shard).copied().unwrap_or(u32::MAX);
        }
        Ok(Self { selection: Selection::unbound(shards, blobs_from, groups, extra, total_rows, provenance)?, place })
    }

    /// Reads a file that [`Selection::save`] wrote.
    ///
    /// # Errors
    /// The file is no selection, cut short, corrupt or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        if path.is_dir() {
            let reason = "is a folder, as several sources are saved; name one of the selections in it";
            return Err(Error::at(Stage::Select, place, reason));
        }
        let bytes = fs::read(path).context(Stage::Select, &place, "cannot read the selection")?;
        Ok(Self { selection: decode(&bytes, &place)?, place })
    }

    /// As the user named it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What it holds. Its ordinals are positions in its own list of shards: [`Self::bind`] makes it one to train on.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Writes it as [`Selection::save`] does.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.selection.save(path)
    }

    /// The selection with the ordinals of `set`.
    ///
    /// # Errors
    /// The set lacks shards, or has several that could be meant, all of which are named; it has blobs in other columns.
    pub fn bind(self, set: &ShardSet) -> Result<Selection> {
        let Self { selection, place } = self;
        if *selection.blobs_from() != set.blobs_from {
            let reason = format!(
                "was selected with {} and [scan.columns] now means {}; set them as they were, or select again",
                columns_of(selection.blobs_from()),
                columns_of(&set.blobs_from)
            );
            return Err(Error::at(Stage::Select, place, reason));
        }
        let ordinals = twins::ordinals(selection.shards(), set, &place)?;
        // Which twin a shard was stays with it: it is part of the digest, and other sets may have other numbers of them.
        let twins: BTreeMap<u32, Twin> =
            ordinals.iter().copied().zip(selection.shards()).map(|(ordinal, shard)| (ordinal, shard.twin)).collect();
        let (total_rows, digest) = (selection.total_rows, selection.digest());
        let provenance = selection.provenance().clone();
        let (groups, extra) = selection.into_parts();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        let ordinal = |at: usize| ordinals.get(groups[at].shard as usize).copied();
        order.sort_by_key(|&at| (ordinal(at), groups[at].row_group));
        let extra = extra.map(|extra| extra.permuted(&order));
        let mut bound = Vec::with_capacity(groups.len());
        for at in order {
            let shard = ordinal(at).ok_or_else(|| Error::internal("a selected row group belongs to no shard"))?;
            bound.push(SelectedGroup { shard, ..groups[at].clone() });
        }
        let mut shards = Selection::shards_of(set, &bound)?;
        for shard in &mut shards {
            shard.twin = twins.get(&shard.ordinal).copied().unwrap_or_default();
        }
        let selection = Selection::unbound(shards, set.blobs_from.clone(), bound, extra, total_rows, provenance)?;
        if selection.digest() != digest {
            let reason = "does not hold what its digest says; select again";
            return Err(Error::at(Stage::Select, place, reason));
        }
        Ok(selection)
    }
}

/// Whether nothing is at `path` but a selection.
fn is_free(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    match File::open(path) {
        Ok(mut file) => path.is_file() && file.read_exact(&mut magic).is_ok() && magic == *MAGIC,
        Err(_) => !path.exists(),
    }
}

/// As `[scan.columns]` has it.
pub(super) fn columns_of(blobs_from: &BTreeMap<String, String>) -> String {
    let columns: Vec<String> = blobs_from.iter().map(|(name, place)| format!("{name} = {place:?}")).collect();
    if columns.is_empty() { "blobs under their own names".to_owned() } else { columns.join(", ") }
}

fn encode(selection: &Selection) -> Result<Vec<u8>> {
    let shard = |shard: &SelectedShard| HeaderShard {
        name: shard.name.clone(),
        fingerprint: hex(&shard.fingerprint),
        twin: shard.twin,
    };
    let extra_values = match selection.extra() {
        Some(extra) => extra_file::encode(extra)?,
        None => Vec::new(),
    };
    let names = selection.extra().into_iter().flat_map(super::extra::ExtraColumns::names);
    let header = Header {
        digest: hex(&selection.digest()),
        items: selection.items(),
        total_rows: selection.total_rows,
        groups: selection.groups.len() as u64,
        shards: selection.shards().iter().map(shard).collect(),
        blobs_from: selection.blobs_from().clone(),
        provenance: selection.provenance().clone(),
        extra_columns: names.map(str::to_owned).collect(),
        extra_bytes: extra_values.len() as u64,
    };
    let header = serde_json::to_vec(&header).context(Stage::Internal, "", "cannot write the header of a selection")?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&SELECTION_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    let position: BTreeMap<u32, u32> =
        selection.shards().iter().enumerate().map(|(at, shard)| (shard.ordinal, at as u32)).collect();
    for group in &selection.groups {
        let Some(shard) = position.get(&group.shard) else {
            return Err(Error::internal("a selected row group belongs to no shard"));
        };
        bytes.extend_from_slice(&shard.to_le_bytes());
        bytes.extend_from_slice(&group.row_group.to_le_bytes());
        bytes.extend_from_slice(&group.first_row.to_le_bytes());
        bytes.extend_from_slice(&(group.rows.serialized_size() as u64).to_le_bytes());
        group.rows.serialize_into(&mut bytes).context(Stage::Internal, "", "cannot write a bitmap")?;
        bytes.extend_from_slice(&(group.repeats.len() as u32).to_le_bytes());
        for (row, times) in &group.repeats {
            bytes.extend_from_slice(&row.to_le_bytes());
            bytes.extend_from_slice(&times.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&extra_values);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The process id keeps two writers of one file apart.
    let temporary = folder.join(format!(".{}.{}.tmp", name.display(), std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to tell.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    // Without this the rename itself may be lost with the power.
    File::open(folder)?.sync_all()
}

fn decode(bytes: &[u8], place: &str) -> Result<Selection> {
    let wrong = |reason: &str| Error::at(Stage::Select, place, format!("{reason}; select again"));
    if !bytes.starts_with(MAGIC) {
        return Err(wrong("is no selection file"));
    }
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(wrong("was cut short"));
    };
    let mut rest = Reader { bytes: content, position: MAGIC.len(), place };
    let version = rest.u32()?;
    if version != SELECTION_VERSION {
        let reason = format!("has version {version}, and this program reads {SELECTION_VERSION}");
        return Err(wrong(&reason));
    }
    if blake3::hash(content) != blake3::Hash::from_bytes(*checksum) {
        return Err(wrong("was cut short or changed: its checksum is wrong"));
    }
    let header_bytes = rest.u64()?;
    let header: Header = serde_json::from_slice(rest.take(header_bytes)?).context(
        Stage::Select,
        place,
        "has a malformed header; select again",
    )?;
    let mut shards = Vec::with_capacity(header.shards.len());
    let mut known = BTreeSet::new();
    for (ordinal, shard) in (0..).zip(header.shards) {
        let Ok(fingerprint) = blake3::Hash::from_hex(&shard.fingerprint) else {
            return Err(wrong("has a malformed fingerprint"));
        };
        let (name, fingerprint, twin) = (shard.name, *fingerprint.as_bytes(), shard.twin);
        if !known.insert((fingerprint, twin.number)) {
            return Err(wrong(&format!("does not say which of the shards with one fingerprint {name} is")));
        }
        shards.push(SelectedShard { ordinal, name, fingerprint, twin });
    }
    let mut groups = Vec::new();
    for _ in 0..header.groups {
        let shard = rest.u32()?;
        if shard as usize >= shards.len() {
            return Err(wrong("names a shard that it does not list"));
        }
        let (row_group, first_row, bitmap_bytes) = (rest.u32()?, rest.u64()?, rest.u64()?);
        let at = rest.position;
        let rows = RoaringBitmap::deserialize_from(rest.take(bitmap_bytes)?).context(
            Stage::Select,
            format!("{place} byte {at}"),
            "has a malformed bitmap; select again",
        )?;
        let mut repeats = BTreeMap::new();
        for _ in 0..rest.u32()? {
            repeats.insert(rest.u32()?, rest.u32()?);
        }
        groups.push(SelectedGroup { shard, row_group, first_row, rows, repeats });
    }
    let extra = match header.extra_columns.is_empty() {
        true => None,
        false => Some(extra_file::decode(rest.take(header.extra_bytes)?, &groups, place)?),
    };
    if rest.position != content.len() {
        return Err(wrong("has more bytes than it should"));
    }
    let selection = Selection::unbound(shards, header.blobs_from, groups, extra, header.total_rows, header.provenance)?;
    if hex(&selection.digest()) != header.digest {
        return Err(wrong("does not hold what its digest says"));
    }
    Ok(selection)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    place: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(count).ok().and_then(|count| self.position.checked_add(count));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            let place = format!("{} byte {}", self.place, self.position);
            return Err(Error::at(Stage::Select, place, "ends here, in the middle of a value; select again"));
        };
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
