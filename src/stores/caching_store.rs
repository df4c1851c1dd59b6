//! A store that keeps what it read from afar on a local disk.
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use futures::stream::BoxStream;

use super::cache_folder::{CacheFolder, object_name};
use super::routing_store::is_remote;
use super::version_of;

/// Store wrapper that answers ranges from a [`CacheFolder`] and asks `inner` for what is missing there.
///
/// Another state of the same object has another identity. That of shards is [declared](Self::declare); that of other
/// remote files, which reference shards lead to, is asked for once: without a version they are not kept.
#[derive(Debug)]
pub struct CachingStore {
    inner: Arc<dyn ObjectStore>,
    folder: Arc<CacheFolder>,
    /// Names in the folder; `None` for what is not kept.
    objects: RwLock<HashMap<Path, Option<String>>>,
    bytes_found: AtomicU64,
}

impl CachingStore {
    /// Over `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, folder: Arc<CacheFolder>) -> Self {
        Self { inner, folder, objects: RwLock::default(), bytes_found: AtomicU64::new(0) }
    }

    /// From now on ranges of the object at `location` are kept, under `identity`: its URL and what tells its states apart.
    pub fn declare(&self, location: Path, identity: &str) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(location, Some(object_name(identity)));
    }

    /// Bytes answered from the folder so far.
    pub fn bytes_found(&self) -> u64 {
        self.bytes_found.load(Ordering::Relaxed)
    }

    async fn object(&self, location: &Path) -> Result<Option<String>> {
        if let Some(known) = self.objects.read().unwrap_or_else(PoisonError::into_inner).get(location) {
            return Ok(known.clone());
        }
        let object = match is_remote(location) {
            false => None,
            true => {
                let meta = self.inner.head(location).await?;
                version_of(&meta).map(|version| object_name(&format!("{location} {} {version}", meta.size)))
            }
        };
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(location.clone(), object.clone());
        Ok(object)
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })
    }
}

/// What of `range` is missing among `parts`, which are ascending, disjoint and inside it.
fn gaps(range: &Range<u64>, parts: &[(u64, Bytes)]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    for (start, bytes) in parts {
        if *start > at {
            gaps.push(at..*start);
        }
        at = start + bytes.len() as u64;
    }
    if at < range.end {
        gaps.push(at..range.end);
    }
    gaps
}

/// Ascending, disjoint parts as one.
fn join(mut parts: Vec<(u64, Bytes)>) -> Bytes {
    parts.sort_by_key(|(start, _)| *start);
    match parts.as_slice() {
        [(_, whole)] => whole.clone(),
        parts => {
            let mut joined = BytesMut::with_capacity(parts.iter().map(|(_, bytes)| bytes.len()).sum());
            parts.iter().for_each(|(_, bytes)| joined.extend_from_slice(bytes));
            joined.freeze()
        }
    }
}

impl fmt::Display for CachingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachingStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for CachingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    // Footers come here, which must be fresh: they tell whether the file is still the same.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(object) = self.object(location).await? else {
            return self.inner.get_ranges(location, ranges).await;
        };
        let (folder, name, wanted) = (Arc::clone(&self.folder), object.clone(), ranges.to_vec());
        let mut found: Vec<Vec<(u64, Bytes)>> =
            Self::blocking(move || wanted.iter().map(|range| folder.read(&name, range)).collect()).await?;
        let bytes_found: usize = found.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
        self.bytes_found.fetch_add(bytes_found as u64, Ordering::Relaxed);

        let missing: Vec<(usize, Range<u64>)> = ranges
            .iter()
            .zip(&found)
            .enumerate()
            .flat_map(|(number, (range, parts))| gaps(range, parts).into_iter().map(move |gap| (number, gap)))
            .collect();
        if !missing.is_empty() {
            let gaps: Vec<Range<u64>> = missing.iter().map(|(_, gap)| gap.clone()).collect();
            let fetched = self.inner.get_ranges(location, &gaps).await?;
            let mut fresh = Vec::with_capacity(fetched.len());
            for ((number, gap), bytes) in missing.into_iter().zip(fetched) {
                found[number].push((gap.start, bytes.clone()));
                fresh.push((gap.start, bytes));
            }
            let folder = Arc::clone(&self.folder);
            Self::blocking(move || fresh.iter().for_each(|(start, bytes)| folder.write(&object, *start, bytes)))
                .await?;
        }
        Ok(found.into_iter().map(join).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;

    use super::*;
    use crate::stores::cache_folder::CacheSettings;

    #[tokio::test]
    async fn whatever_is_asked_for_is_what_the_object_holds() {
        let folder = tempfile::tempdir().unwrap();
        let settings = CacheSettings { folder: folder.path().to_owned(), megabytes: 16 };
        let inner = InMemory::new();
        let location = Path::from("a");
        let whole: Vec<u8> = (0..50_000_u32).map(|i| (i % 251) as u8).collect();
        inner.put(&location, Bytes::from(whole.clone()).into()).await.unwrap();
        let store = CachingStore::new(Arc::new(inner), Arc::new(CacheFolder::open(&settings).unwrap()));
        store.declare(location.clone(), "a v1");
        let mut state = 1_u64;
        for _ in 0..200 {
            let mut draw = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let ranges: Vec<Range<u64>> = (0..3)
                .map(|_| {
                    let start = draw(49_000);
                    start..start + 1 + draw(1_000)
                })
                .collect();
            let read = store.get_ranges(&location, &ranges).await.unwrap();
            for (range, bytes) in ranges.iter().zip(read) {
                assert_eq!(bytes, whole[range.start as usize..range.end as usize], "{range:?}");
            }
        }
        assert!(store.bytes_found() > 100_000, "{}", store.bytes_found());
    }

    #[test]
    fn gaps_are_what_parts_leave() {
        let part = |start: u64, length: usize| (start, Bytes::from(vec![0; length]));
        assert_eq!(gaps(&(10..20), &[part(12, 3), part(18, 2)]), [10..12, 15..18]);
        assert_eq!(gaps(&(10..20), &[]), vec![10..20]);
        assert!(gaps(&(10..20), &[part(10, 10)]).is_empty());
    }
}
