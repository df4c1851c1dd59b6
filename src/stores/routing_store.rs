//! Every store of a data set behind one: local files under their absolute paths, others under `s3:/bucket/key`.
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::StoreSettings;
use super::address::Address;
use super::cache_folder::{CacheFolder, CacheSettings};
use super::connect::connect;
use super::refusal::meaning;
use super::remote_store::RemoteStore;
use crate::error::{Error as OurError, Stage};

/// Local files, and every bucket and web server that an [`Address`] has named. Reads only.
#[derive(Debug, Default)]
pub struct Stores {
    settings: StoreSettings,
    options: Vec<(String, String)>,
    local: LocalFileSystem,
    remotes: RwLock<BTreeMap<String, Arc<RemoteStore>>>,
    cache: Option<Arc<CacheFolder>>,
}

impl Stores {
    /// With the patience of `settings`; credentials and endpoints come from the environment.
    pub fn new(settings: &StoreSettings) -> Self {
        Self { settings: settings.clone(), ..Self::default() }
    }

    /// As `[scan.store]` and `[scan.cache]` of a pipeline say.
    ///
    /// # Errors
    /// The cache's folder cannot be used.
    pub fn of_pipeline(settings: &StoreSettings, cache: Option<&CacheSettings>) -> crate::Result<Self> {
        Ok(Self::new(settings).with_cache(cache.map(CacheFolder::open).transpose()?))
    }

    /// Options named as environment variables are, which win over those: `("AWS_ENDPOINT_URL", "http://…")`.
    #[must_use]
    pub fn with_options(self, options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { options, ..self }
    }

    /// What is read from afar is kept in `folder`.
    #[must_use]
    pub fn with_cache(self, folder: Option<CacheFolder>) -> Self {
        Self { cache: folder.map(Arc::new), ..self }
    }

    /// The folder that keeps what is read from afar.
    pub fn cache(&self) -> Option<&Arc<CacheFolder>> {
        self.cache.as_ref()
    }

    /// Where this store keeps what is at `address`, whose bucket or server is opened; nothing is sent yet.
    ///
    /// # Errors
    /// The address cannot be right, or the environment contradicts itself.
    pub fn location(&self, address: &Address) -> crate::Result<Path> {
        let refused = |reason: String| OurError::at(Stage::Select, address.to_string(), reason);
        let location = address.location().map_err(refused)?;
        self.remote(&address.route(), address).map_err(|error| refused(meaning(address, &error)).caused_by(error))?;
        Ok(location)
    }

    /// The store at the root of `address`, made on first use.
    fn remote(&self, route: &str, address: &Address) -> Result<Arc<RemoteStore>> {
        let known = self.remotes.read().unwrap_or_else(PoisonError::into_inner).get(route).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let root = address.with_path("");
        let inner = connect(&root, &self.settings, &self.options)?;
        let made = Arc::new(RemoteStore::new(inner, root, self.settings.clone()));
        let mut remotes = self.remotes.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(remotes.entry(route.to_owned()).or_insert(made)))
    }

    /// The remote store and the key in it; `None` for local files.
    fn route<'a>(&self, location: &'a Path) -> Result<Option<(&'a str, Arc<RemoteStore>, Path)>> {
        let Some((route, root, key)) = routed(location) else { return Ok(None) };
        let remote = self.remote(route, &root)?;
        Ok(Some((route, remote, Path::parse(key)?)))
    }

    fn refuse<T>(&self, operation: &str) -> Result<T> {
        Err(Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() })
    }
}

/// Whether what is at `location` comes from a bucket or a web server.
pub fn is_remote(location: &Path) -> bool {
    routed(location).is_some()
}

/// Route, root and key of a remote location.
fn routed(location: &Path) -> Option<(&str, Address, &str)> {
    let text = location.as_ref();
    let (scheme, rest) = text.split_once('/').filter(|(scheme, _)| scheme.ends_with(':'))?;
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    let route = &text[..scheme.len() + 1 + authority.len()];
    Some((route, Address::of_route(route)?, key))
}

fn under(route: &str, key: &Path) -> Result<Path> {
    Ok(Path::parse(format!("{route}/{key}"))?)
}

impl fmt::Display for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Stores {
    async fn put_opts(&self, _location: &Path, _payload: PutPayload, _opts: PutOptions) -> Result<PutResult> {
        self.refuse("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.refuse("put_multipart")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.route(location)? {
            None => self.local.get_opts(location, options).await,
            Some((_, remote, key)) => {
                let mut result = remote.get(&key, options).await?;
                result.meta.location = location.clone();
                Ok(result)
            }
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.route(location)? {
            None => self.local.get_ranges(location, ranges).await,
            Some((_, remote, key)) => remote.ranges(&key, ranges).await,
        }
    }

    fn delete_stream(&self, _locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([self.refuse("delete")]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let routed = match prefix {
            None => Ok(None),
            Some(prefix) => self.route(prefix),
        };
        match routed {
            Err(error) => stream::iter([Err(error)]).boxed(),
            Ok(None) => self.local.list(prefix),
            Ok(Some((route, remote, key))) => {
                let route = route.to_owned();
                let listing = async move {
                    let objects =
                        remote.list(&key).await?.into_iter().map(move |meta| {
                            under(&route, &meta.location).map(|location| ObjectMeta { location, ..meta })
                        });
                    Ok::<_, Error>(stream::iter(objects))
                };
                stream::once(listing).try_flatten().boxed()
            }
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix).try_filter(move |meta| std::future::ready(meta.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let routed = prefix.map(|prefix| self.route(prefix)).transpose()?.flatten();
        let Some((route, remote, key)) = routed else { return self.local.list_with_delimiter(prefix).await };
        let ListResult { common_prefixes, objects } = remote.list_folder(&key).await?;
        let placed = |meta: ObjectMeta| under(route, &meta.location).map(|location| ObjectMeta { location, ..meta });
        Ok(ListResult {
            common_prefixes: common_prefixes.iter().map(|folder| under(route, folder)).collect::<Result<_>>()?,
            objects: objects.into_iter().map(placed).collect::<Result<_>>()?,
        })
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        self.refuse("copy")
    }

    async fn rename_opts(&self, _from: &Path, _to: &Path, _options: RenameOptions) -> Result<()> {
        self.refuse("rename")
    }
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::ObjectStoreExt;

    use super::*;

    #[test]
    fn locations_of_two_buckets_never_meet() {
        let stores = Stores::default();
        let location = |text: &str| stores.location(&Address::parse(text).unwrap().unwrap()).unwrap();
        let (one, two) = (location("https://one.test/x.parquet"), location("https://two.test/x.parquet"));
        assert_eq!(one.as_ref(), "https:/one.test/x.parquet");
        let (route, _, key) = stores.route(&two).unwrap().unwrap();
        assert_eq!((route, key.as_ref()), ("https:/two.test", "x.parquet"));
        assert!(is_remote(&two) && !is_remote(&Path::from("home/x")) && !is_remote(&Path::from("odd:/x/y")));
    }

    #[tokio::test]
    async fn local_files_lie_under_their_absolute_paths() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"0123456789").unwrap();
        let location = Path::from_absolute_path(folder.path().join("a")).unwrap();
        let stores = Stores::default();
        assert_eq!(stores.get_range(&location, 2..5).await.unwrap(), "234");
        assert_eq!(stores.get_ranges(&location, &[0..1, 8..10]).await.unwrap(), ["0", "89"]);
        assert!(stores.put(&location, "x".into()).await.is_err(), "shards are only read");
    }
}
