//! One bucket or web server under its own keys, as DataFusion's tables of URLs want it.
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::routing_store::Stores;

/// What lies below `root` in [`Stores`]; reads only. `PrefixStore` leaves the prefix in what it says of an object.
#[derive(Debug, Clone)]
pub(crate) struct RootedStore {
    stores: Arc<Stores>,
    root: Path,
}

impl RootedStore {
    /// Below a location of `stores`.
    pub(crate) fn new(stores: Arc<Stores>, root: Path) -> Self {
        Self { stores, root }
    }

    fn full(&self, key: &Path) -> Path {
        self.root.parts().chain(key.parts()).collect()
    }

    fn keyed(&self, meta: ObjectMeta) -> ObjectMeta {
        let key = meta.location.prefix_match(&self.root).map(Iterator::collect);
        ObjectMeta { location: key.unwrap_or_else(|| meta.location.clone()), ..meta }
    }

    fn refuse<T>(&self, operation: &str) -> Result<T> {
        Err(Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() })
    }
}

impl fmt::Display for RootedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootedStore({})", self.root)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RootedStore {
    async fn put_opts(&self, _location: &Path, _payload: PutPayload, _opts: PutOptions) -> Result<PutResult> {
        self.refuse("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.refuse("put_multipart")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.stores.get_opts(&self.full(location), options).await?;
        Ok(GetResult { meta: self.keyed(result.meta.clone()), ..result })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.stores.get_ranges(&self.full(location), ranges).await
    }

    fn delete_stream(&self, _locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([self.refuse("delete")]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (own, full) = (self.clone(), prefix.map_or_else(|| self.root.clone(), |prefix| self.full(prefix)));
        self.stores.list(Some(&full)).map_ok(move |meta| own.keyed(meta)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix).try_filter(move |meta| std::future::ready(meta.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        self.refuse("list_with_delimiter")
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        self.refuse("copy")
    }

    async fn rename_opts(&self, _from: &Path, _to: &Path, _options: RenameOptions) -> Result<()> {
        self.refuse("rename")
    }
}
