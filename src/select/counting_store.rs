//! An object store that counts what goes over the wire.
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};
use futures::stream::BoxStream;
use serde::Serialize;

/// What was asked of a store between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// Reads and listings.
    pub requests: u64,
    /// Bytes of all reads, gaps between merged ranges included.
    pub bytes: u64,
    /// Those of `bytes` that lie in column chunks of blobs.
    pub blob_bytes: u64,
}

impl Wire {
    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            bytes: self.bytes - earlier.bytes,
            blob_bytes: self.blob_bytes - earlier.blob_bytes,
        }
    }
}

/// How several ranges of one file are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    /// In one call: the store underneath reads exactly the ranges it is given.
    Together,
    /// In one call each: the store underneath would merge ranges up to 1 MiB apart, which for a sparse selection
    /// triples the bytes.
    Apart,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    blob_bytes: AtomicU64,
}

/// Column chunks of blobs per file, sorted.
type BlobRanges = HashMap<Path, Arc<[Range<u64>]>>;

/// Store wrapper that counts requests and bytes on the wire, and bounds which ranges of a read may be merged.
///
/// ```
/// # use diptych::select::counting_store::CountingStore;
/// let store = CountingStore::local();
/// assert_eq!(store.wire().bytes, 0);
/// ```
#[derive(Debug, Clone)]
pub struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    fetch: Fetch,
    merge_gap_bytes: u64,
    counts: Arc<Counts>,
    blobs: Arc<RwLock<BlobRanges>>,
    /// Whether files that were not declared hold nothing but blobs.
    has_blobs_elsewhere: bool,
}

impl CountingStore {
    /// Counts what is asked of `inner`. Only touching ranges are merged.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            fetch: Fetch::Apart,
            merge_gap_bytes: 0,
            counts: Arc::default(),
            blobs: Arc::default(),
            has_blobs_elsewhere: false,
        }
    }

    /// Counts what is asked of the local file system; locations are absolute paths.
    pub fn local() -> Self {
        Self::exact(Arc::new(LocalFileSystem::new()))
    }

    /// Counts what is asked of `inner`, whose `get_ranges` reads exactly the ranges that it is given.
    pub fn exact(inner: Arc<dyn ObjectStore>) -> Self {
        Self { fetch: Fetch::Together, ..Self::new(inner) }
    }

    /// The same store and counters; what is read of files that were not declared counts as blobs.
    #[must_use]
    pub fn with_blobs_elsewhere(self) -> Self {
        Self { has_blobs_elsewhere: true, ..self }
    }

    /// The same store and counters; ranges up to `merge_gap_bytes` apart become one request.
    ///
    /// A gap costs its bytes and saves a request. Above 0, a read of narrow columns may run over blobs between them.
    #[must_use]
    pub fn with_merge_gap_bytes(&self, merge_gap_bytes: u64) -> Self {
        Self { merge_gap_bytes, ..self.clone() }
    }

    /// Everything counted so far, by this store and all that share its counters.
    pub fn wire(&self) -> Wire {
        Wire {
            requests: self.counts.requests.load(Ordering::Relaxed),
            bytes: self.counts.bytes.load(Ordering::Relaxed),
            blob_bytes: self.counts.blob_bytes.load(Ordering::Relaxed),
        }
    }

    /// Declares where the blobs of a file are, from when on their bytes are counted apart.
    pub fn declare_blobs(&self, location: Path, mut ranges: Vec<Range<u64>>) {
        ranges.sort_unstable_by_key(|range| range.start);
        self.blobs.write().unwrap_or_else(PoisonError::into_inner).insert(location, ranges.into());
    }

    fn count(&self, location: &Path, ranges: &[Range<u64>]) {
        let blobs = self.blobs.read().unwrap_or_else(PoisonError::into_inner).get(location).cloned();
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        let blob_bytes = match blobs.as_deref() {
            Some(blobs) => ranges.iter().map(|range| overlap_bytes(blobs, range)).sum(),
            None if self.has_blobs_elsewhere => bytes,
            None => 0,
        };
        self.counts.requests.fetch_add(ranges.len() as u64, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counts.blob_bytes.fetch_add(blob_bytes, Ordering::Relaxed);
    }

    fn count_request(&self) {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes of `range` inside `blobs`, which are sorted and disjoint.
fn overlap_bytes(blobs: &[Range<u64>], range: &Range<u64>) -> u64 {
    let first = blobs.partition_point(|blob| blob.end <= range.start);
    blobs[first..]
        .iter()
        .take_while(|blob| blob.start < range.end)
        .map(|blob| blob.end.min(range.end) - blob.start.max(range.start))
        .sum()
}

/// Sorted ranges that cover `ranges` and swallow gaps of at most `gap_bytes`.
fn merged(ranges: &[Range<u64>], gap_bytes: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap_bytes) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountingStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.count_request();
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.count_request();
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        if head {
            self.count_request();
        } else {
            self.count(location, std::slice::from_ref(&result.range));
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.fetch {
            Fetch::Apart => {
                coalesce_ranges(ranges, |range| self.get_range(location, range), self.merge_gap_bytes).await
            }
            Fetch::Together => {
                let merged = merged(ranges, self.merge_gap_bytes);
                let fetched = self.inner.get_ranges(location, &merged).await?;
                self.count(location, &merged);
                let slice = |range: &Range<u64>| {
                    let at = merged.partition_point(|whole| whole.start <= range.start) - 1;
                    let start = (range.start - merged[at].start) as usize;
                    let end = ((range.end - merged[at].start) as usize).min(fetched[at].len());
                    fetched[at].slice(start.min(end)..end)
                };
                Ok(ranges.iter().map(slice).collect())
            }
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.count_request();
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_request();
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_request();
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count_request();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count_request();
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.count_request();
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;

    use super::*;

    async fn stored() -> (Arc<dyn ObjectStore>, Path) {
        let inner = InMemory::new();
        let location = Path::from("a.parquet");
        inner.put(&location, Bytes::from((0..=255).collect::<Vec<u8>>()).into()).await.unwrap();
        (Arc::new(inner), location)
    }

    #[tokio::test]
    async fn bytes_of_blobs_are_counted_apart() {
        let (inner, location) = stored().await;
        let store = CountingStore::new(inner);
        store.declare_blobs(location.clone(), vec![100..150, 40..60]);
        let ranges = [50..110, 0..10];
        let parts = store.get_ranges(&location, &ranges).await.unwrap();
        assert_eq!((parts[0][0], parts[0].len(), parts[1].len()), (50, 60, 10));
        assert_eq!(store.wire(), Wire { requests: 2, bytes: 70, blob_bytes: 20 });
        let before = store.wire();
        store.get_range(&location, 140..256).await.unwrap();
        assert_eq!(store.wire().since(before), Wire { requests: 1, bytes: 116, blob_bytes: 10 });
    }

    #[tokio::test]
    async fn only_gaps_within_the_bound_are_merged() {
        let (inner, location) = stored().await;
        let ranges = [0..10, 10..20, 25..30, 200..210];
        for (fetch, gap, requests, bytes) in [
            (Fetch::Apart, 0, 3, 35),
            (Fetch::Apart, 5, 2, 40),
            (Fetch::Together, 0, 3, 35),
            (Fetch::Together, 5, 2, 40),
        ] {
            let store = CountingStore { fetch, ..CountingStore::new(Arc::clone(&inner)) }.with_merge_gap_bytes(gap);
            let parts = store.get_ranges(&location, &ranges).await.unwrap();
            let firsts: Vec<u8> = parts.iter().map(|part| part[0]).collect();
            assert_eq!(firsts, [0, 10, 25, 200], "{fetch:?} {gap}");
            assert_eq!(store.wire(), Wire { requests, bytes, blob_bytes: 0 }, "{fetch:?} {gap}");
        }
    }
}
