//! Which objects a URL means: a prefix, a glob within a bucket, a manifest, or one object.
use std::collections::{BTreeMap, BTreeSet};

use datafusion::object_store::path::Path;
use datafusion::object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::format;
use super::glob::{Glob, is_glob};
use super::locate::{
    Found, Located, Manifests, head_and_glob, matching_below, path_below, shards_below, unfinished_problem,
};
use super::manifest::{MANIFEST_FILE, ManifestShard, ShardList};
use crate::error::{Cause, Error, Result, Stage};
use crate::ingest::IMPORTING_FILE;
use crate::stores::{address::Address, routing_store::Stores, version_of};

/// Sizes that are asked for side by side where nothing lists them.
const HEADS_AT_A_TIME: usize = 16;

/// What `address` means.
///
/// # Errors
/// The store cannot be reached or refuses; a broken manifest.
pub(super) async fn find(address: &Address, stores: &Stores) -> Result<Found> {
    let name = address.path.rsplit_once('/').map_or(address.path.as_str(), |(_, name)| name);
    if name == MANIFEST_FILE {
        return listed(address, stores).await;
    }
    if !address.can_list() {
        return single(address, stores).await;
    }
    if is_glob(&address.path) {
        return matching(address, stores).await;
    }
    // Some servers answer for a folder as if it were an object, so the name decides what is asked first.
    let object = if format::is_shard(name) { object(address, stores).await? } else { None };
    match object {
        Some(found) => Ok(found),
        None => {
            let found = folder(address, stores).await?;
            let is_nothing = found.located.is_empty() && found.problems.is_empty();
            match is_nothing && !format::is_shard(name) {
                true => Ok(object_or_nothing(address, stores).await?),
                false => Ok(found),
            }
        }
    }
}

async fn object_or_nothing(address: &Address, stores: &Stores) -> Result<Found> {
    if address.path.is_empty() {
        return Ok(Found::default());
    }
    Ok(object(address, stores).await?.unwrap_or_default())
}

/// The object at exactly this address, with what the manifest beside it says.
async fn object(address: &Address, stores: &Stores) -> Result<Option<Found>> {
    let Some(meta) = head(address, stores).await? else { return Ok(None) };
    let (folder, name) = address.path.rsplit_once('/').unwrap_or(("", &address.path));
    let manifest = manifest(&address.with_path(path_below(folder, MANIFEST_FILE)), stores).await?;
    let listed = manifest.and_then(|manifest| manifest.shards.into_iter().find(|shard| shard.file == name));
    let located = vec![one(meta, address.to_string(), listed)];
    Ok(Some(Found { located, ..Found::default() }))
}

/// One file of a server that lists nothing.
async fn single(address: &Address, stores: &Stores) -> Result<Found> {
    let no_listing = format!(
        "`{address}`: a web server lists no files; name one file, or the manifest of a data set ({}/…/{MANIFEST_FILE})",
        address.root
    );
    if address.path.is_empty() || is_glob(&address.path) {
        return Ok(Found { problems: vec![no_listing], ..Found::default() });
    }
    match head(address, stores).await? {
        Some(meta) => {
            let located = vec![one(meta, address.to_string(), None)];
            Ok(Found { located, ..Found::default() })
        }
        None => {
            let problem = format!("`{address}` is not there; a web server lists no files, so no folder can be named");
            Ok(Found { problems: vec![problem], ..Found::default() })
        }
    }
}

/// The shards of a manifest that is named itself: nothing is listed.
async fn listed(address: &Address, stores: &Stores) -> Result<Found> {
    let mut found = Found::default();
    let Some(manifest) = manifest(address, stores).await? else {
        found.problems.push(format!("`{address}` is not there; name the {MANIFEST_FILE} of a data set"));
        return Ok(found);
    };
    let folder = address.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let place = |shard: &ManifestShard| address.with_path(path_below(folder, &shard.file));
    let places: Vec<Address> = manifest.shards.iter().map(place).collect();
    let heads: Vec<_> = places.iter().map(|place| head(place, stores).boxed()).collect();
    let heads: Vec<_> = futures::stream::iter(heads).buffered(HEADS_AT_A_TIME).try_collect().await?;
    for (shard, head) in manifest.shards.into_iter().zip(heads) {
        let name = place(&shard).to_string();
        match head {
            Some(meta) => found.located.push(one(meta, name, Some(shard))),
            None => found.problems.push(format!("{name}: {MANIFEST_FILE} lists it, but it is not there")),
        }
    }
    Ok(found)
}

async fn folder(address: &Address, stores: &Stores) -> Result<Found> {
    let listing = Listing::below(address, stores).await?;
    let manifest = match listing.files.contains_key(MANIFEST_FILE) {
        true => manifest(&listing.address(MANIFEST_FILE), stores).await?,
        false => None,
    };
    let shards = shards_below(&listing.names(), manifest);
    let mut found = Found::default();
    shards.report(|file| listing.address(file).to_string(), &mut found);
    listing.add(shards.shards, &mut found);
    Ok(found)
}

async fn matching(address: &Address, stores: &Stores) -> Result<Found> {
    let (head, glob) = head_and_glob(&address.path);
    let listing = Listing::reached(&address.with_path(head), &glob, stores).await?;
    let mut by_folder = BTreeMap::new();
    let suffix = format!("/{MANIFEST_FILE}");
    for file in listing.files.keys() {
        let folder = if file == MANIFEST_FILE { Some("") } else { file.strip_suffix(&suffix) };
        if let Some(folder) = folder
            && let Some(manifest) = manifest(&listing.address(file), stores).await?
        {
            by_folder.insert(folder.to_owned(), manifest);
        }
    }
    let mut manifests = Manifests::new(|folder: &str| Ok(by_folder.get(folder).cloned()));
    let shards = matching_below(&listing.names(), &glob, &mut manifests)?;
    let mut found = Found::default();
    shards.report(|file| listing.address(file).to_string(), &mut found);
    listing.add(shards.shards, &mut found);
    Ok(found)
}

/// Objects of any kind that a glob matches.
pub(super) async fn remote_files(address: &Address, stores: &Stores) -> Result<Vec<ObjectMeta>> {
    let (head, glob) = head_and_glob(&address.path);
    let listing = Listing::reached(&address.with_path(head), &glob, stores).await?;
    let matching = listing.files.into_iter().filter(|(file, _)| glob.matches(&file.split('/').collect::<Vec<_>>()));
    Ok(matching.map(|(_, meta)| meta).collect())
}

/// The objects below a prefix.
struct Listing {
    base: Address,
    /// Relative to the base; hidden ones are passed over, as in local folders.
    files: BTreeMap<String, ObjectMeta>,
}

impl Listing {
    /// All of them.
    async fn below(base: &Address, stores: &Stores) -> Result<Self> {
        let prefix = stores.location(base)?;
        let objects = stores.list(Some(&prefix)).try_collect::<Vec<_>>().await;
        Ok(Self::of(base, &prefix, objects.map_err(|error| unreachable_store(base, error))?))
    }

    /// Those of the folders that a glob reaches, a request or more for each: what else a bucket holds is not listed.
    async fn reached(base: &Address, glob: &Glob, stores: &Stores) -> Result<Self> {
        if glob.any_depth() {
            return Self::below(base, stores).await;
        }
        let prefix = stores.location(base)?;
        let (mut folders, mut objects) = (vec![prefix.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            let listed = stores.list_with_delimiter(Some(&folder)).await;
            let listed = listed.map_err(|error| unreachable_store(base, error))?;
            objects.extend(listed.objects);
            folders.extend(listed.common_prefixes.into_iter().filter(|folder| {
                let parts = below(folder, &prefix).map(|path| path.split('/').collect::<Vec<_>>());
                parts.is_some_and(|parts| glob.reaches(&parts))
            }));
        }
        Ok(Self::of(base, &prefix, objects))
    }

    fn of(base: &Address, prefix: &Path, objects: Vec<ObjectMeta>) -> Self {
        let mut files = BTreeMap::new();
        for object in objects {
            let Some(relative) = below(&object.location, prefix) else { continue };
            if relative.split('/').all(|part| !part.starts_with('.')) {
                files.insert(relative.to_owned(), object.clone());
            }
        }
        Self { base: base.clone(), files }
    }

    fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn address(&self, file: &str) -> Address {
        self.base.with_path(path_below(&self.base.path, file))
    }

    fn add(&self, shards: Vec<(String, Option<ManifestShard>)>, found: &mut Found) {
        let mut folders = BTreeSet::new();
        for (file, listed) in shards {
            folders.insert(file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned());
            let Some(meta) = self.files.get(&file).cloned() else { continue };
            found.located.push(one(meta, self.address(&file).to_string(), listed));
        }
        for folder in folders {
            let has = |name: &str| self.files.contains_key(&path_below(&folder, name));
            if has(IMPORTING_FILE) && !has(MANIFEST_FILE) {
                found.problems.push(unfinished_problem(&self.address(&folder)));
            }
        }
    }
}

fn below<'a>(location: &'a Path, prefix: &Path) -> Option<&'a str> {
    location.as_ref().strip_prefix(prefix.as_ref())?.strip_prefix('/')
}

fn one(meta: ObjectMeta, name: String, listed: Option<ManifestShard>) -> Located {
    let version = version_of(&meta);
    Located { location: meta.location, address: name.clone(), name, bytes: meta.size, version, listed }
}

async fn head(address: &Address, stores: &Stores) -> Result<Option<ObjectMeta>> {
    let location = stores.location(address)?;
    match stores.head(&location).await {
        Ok(meta) => Ok(Some(ObjectMeta { location, ..meta })),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(unreachable_store(address, error)),
    }
}

async fn manifest(address: &Address, stores: &Stores) -> Result<Option<ShardList>> {
    let location = stores.location(address)?;
    let bytes = match stores.get(&location).await {
        Ok(result) => result.bytes().await,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| unreachable_store(address, error))?;
    ShardList::read(&bytes, &address.to_string()).map(Some)
}

/// The store's own words name the address, what is wrong and the remedy.
fn unreachable_store(address: &Address, error: StoreError) -> Error {
    let cause: Cause = match error {
        StoreError::NotFound { source, .. }
        | StoreError::PermissionDenied { source, .. }
        | StoreError::Unauthenticated { source, .. }
        | StoreError::Generic { source, .. } => source,
        other => other.into(),
    };
    Error::at(Stage::Select, address.to_string(), "cannot be read").caused_by(cause)
}
