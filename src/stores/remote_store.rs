//! One bucket or web server, read so that what arrives is what was asked for, or an error.
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, ObjectMeta, ObjectStore, Result,
};
use futures::stream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::StoreSettings;
use super::address::Address;
use super::refusal::{RANGES_REFUSED, Unusable, explained};
use super::{changed_at, strong_tag};

/// Ranges of one call that are asked for side by side.
const RANGES_AT_A_TIME: usize = 8;
/// Requests under way at a time, over all calls: with 8 MiB each, a link of 40 Mbit/s still ends them within 30 seconds.
const REQUESTS_AT_A_TIME: usize = 16;
/// Before the first repetition; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Room made for a body before it arrives: its length is what a server claims.
const MOST_ROOM_BYTES: u64 = 16 << 20;
/// How the library words requests that failed after all its own repetitions; other errors are about an answer.
const LIBRARY_GAVE_UP: &str = "Error performing ";

/// What tells one state of an object from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    bytes: u64,
    e_tag: Option<String>,
    /// Microseconds of its last change; some servers and proxies leave out the one or the other.
    changed: Option<i64>,
}

impl Version {
    /// Whether these are two states of an object, by what both answers tell.
    fn differs(&self, other: &Self) -> bool {
        let differ = match (&self.e_tag, &other.e_tag) {
            (Some(one), Some(two)) => one != two,
            _ => self.changed.zip(other.changed).is_some_and(|(one, two)| one != two),
        };
        differ || self.bytes != other.bytes
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, e-tag {}", self.bytes, self.e_tag.as_deref().unwrap_or("none"))?;
        self.changed.map_or(Ok(()), |changed| write!(f, ", changed at {changed} µs"))
    }
}

/// A store behind a network.
#[derive(Debug)]
pub(super) struct RemoteStore {
    inner: Arc<dyn ObjectStore>,
    root: Address,
    settings: StoreSettings,
    /// As the first answer described each object.
    versions: Mutex<HashMap<Path, Version>>,
    requests: Semaphore,
}

/// An object, or a range of one, that arrived whole.
struct Arrived {
    meta: ObjectMeta,
    attributes: Attributes,
    range: Range<u64>,
    bytes: Bytes,
}

/// What went wrong with one attempt.
struct Failure {
    error: Error,
    /// Whether another attempt may fare better.
    may_pass: bool,
}

impl Failure {
    /// Of a request; what the library has repeated in vain is not repeated again.
    fn of(error: Error) -> Self {
        let text = match &error {
            Error::Generic { source, .. } => source.to_string(),
            _ => String::new(),
        };
        Self { may_pass: !text.is_empty() && !text.contains(LIBRARY_GAVE_UP) && !text.contains(RANGES_REFUSED), error }
    }

    /// Of an answer.
    fn unusable(reason: String, may_pass: bool) -> Self {
        Self { error: Error::Generic { store: "remote", source: Box::new(Unusable(reason)) }, may_pass }
    }
}

impl RemoteStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, root: Address, settings: StoreSettings) -> Self {
        Self { inner, root, settings, versions: Mutex::default(), requests: Semaphore::new(REQUESTS_AT_A_TIME) }
    }

    /// An object or a range, whole: meant for footers, pages and manifests, which are kept in memory anyway.
    pub(super) async fn get(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.inner.get_opts(key, options).await.map_err(|error| self.explain(key, error));
        }
        let Arrived { meta, attributes, range, bytes } = self.read(key, options).await?;
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    /// These ranges, no byte more.
    pub(super) async fn ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = |range: Range<u64>| {
            let options = GetOptions::new().with_range(Some(range));
            // Boxed: the compiler cannot see that the borrowed future is `Send` otherwise.
            async move { self.read(key, options).await.map(|arrived| arrived.bytes) }.boxed()
        };
        let reads: Vec<_> = ranges.iter().cloned().map(read).collect();
        stream::iter(reads).buffered(RANGES_AT_A_TIME).try_collect().await
    }

    /// Everything below a prefix.
    pub(super) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>> {
        self.patiently(prefix, || async { self.inner.list(Some(prefix)).try_collect().await.map_err(Failure::of) })
            .await
    }

    /// The objects of one folder, and the folders in it.
    pub(super) async fn list_folder(&self, prefix: &Path) -> Result<ListResult> {
        self.patiently(prefix, || async { self.inner.list_with_delimiter(Some(prefix)).await.map_err(Failure::of) })
            .await
    }

    /// Repeats what may pass.
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        key: &Path,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let (started, patience) = (Instant::now(), Duration::from_secs(self.settings.retry_seconds));
        let mut pause = FIRST_PAUSE;
        let mut left = self.settings.retries;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Failure { may_pass: true, .. }) if left > 0 && started.elapsed() + pause <= patience => {}
                Err(failure) => return Err(self.explain(key, failure.error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            left -= 1;
        }
    }

    fn explain(&self, key: &Path, error: Error) -> Error {
        explained(&self.root.with_path(key.as_ref()), error)
    }

    async fn read(&self, key: &Path, options: GetOptions) -> Result<Arrived> {
        self.patiently(key, || self.attempt(key, options.clone())).await
    }

    async fn attempt(&self, key: &Path, options: GetOptions) -> Result<Arrived, Failure> {
        let wanted = options.range.clone();
        // Never closed.
        let _request = self.requests.acquire().await.ok();
        let result = self.inner.get_opts(key, options).await.map_err(Failure::of)?;
        let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
        self.check_version(key, &meta)?;
        if let Some(GetRange::Bounded(wanted)) = wanted
            && wanted != range
        {
            let reason =
                format!("it has {} bytes and should reach byte {}; it has changed, start again", meta.size, wanted.end);
            return Err(Failure::unusable(reason, false));
        }
        let expected = range.end - range.start;
        let mut bytes = BytesMut::with_capacity(expected.min(MOST_ROOM_BYTES) as usize);
        let mut body = result.into_stream();
        while let Some(piece) = body.try_next().await.map_err(|error| Failure { error, may_pass: true })? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > expected {
                break;
            }
        }
        if bytes.len() as u64 != expected {
            let than = if (bytes.len() as u64) < expected { "ended after" } else { "went on after" };
            let reason = format!(
                "its server's answer {than} {} of {expected} bytes, again and again; check what stands between",
                bytes.len().min(expected as usize)
            );
            return Err(Failure::unusable(reason, true));
        }
        Ok(Arrived { meta, attributes, range, bytes: bytes.freeze() })
    }

    /// Parts of two states of an object must never meet in one file.
    fn check_version(&self, key: &Path, meta: &ObjectMeta) -> Result<(), Failure> {
        let now = Version { bytes: meta.size, e_tag: strong_tag(meta), changed: changed_at(meta) };
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let first = versions.entry(key.clone()).or_insert_with(|| now.clone());
        match first.differs(&now) {
            false => {
                first.e_tag = first.e_tag.take().or(now.e_tag);
                first.changed = first.changed.or(now.changed);
                Ok(())
            }
            true => {
                let reason = format!("it changed while it was being read: it had {first}, now {now}; start again");
                Err(Failure::unusable(reason, false))
            }
        }
    }
}
