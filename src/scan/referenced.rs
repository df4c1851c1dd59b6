//! Blobs of reference shards: read where they lie, neighbours in one request, under the same budget as pages.
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::fetch::{BLOB, Fetcher, Reading};
use crate::error::{Context, Error, Result, Stage};
use crate::select::reference::{COLUMNS, References, column, location};

/// Files that are read side by side for one row group.
const FILES_AT_A_TIME: usize = 8;

impl Fetcher {
    /// The arranged rows with the blobs to which `read` refers: the same rows with the columns of the shard.
    ///
    /// # Errors
    /// A file cannot be read or is shorter than the reference says: no bad data, since nothing says that the sample is.
    pub(super) async fn with_referenced(
        &self,
        arranged: &RecordBatch,
        read: &RecordBatch,
        reading: &Reading,
        place: &str,
    ) -> Result<RecordBatch> {
        let [uri, offset, length] = COLUMNS.map(|(name, _)| read.column_by_name(name));
        let (Some(uri), Some(offset), Some(length)) = (uri, offset, length) else {
            return Err(Error::internal(format!("{place}: references were not fetched")));
        };
        let references = References::new([uri, offset, length], place)?;
        let files = references.by_file(0..read.num_rows())?;
        let reads = files.into_iter().map(|(uri, blobs)| async move {
            let ranges: Vec<Range<u64>> = blobs.iter().map(|blob| blob.range.clone()).collect();
            let fetched = self.fetch(&location(uri)?, uri, &ranges, reading).await?;
            Ok::<Vec<(usize, Bytes)>, Error>(blobs.into_iter().map(|blob| blob.row).zip(fetched).collect())
        });
        let reads: Vec<_> = reads.map(FutureExt::boxed).collect();
        let fetched: Vec<Vec<(usize, Bytes)>> = stream::iter(reads).buffered(FILES_AT_A_TIME).try_collect().await?;
        // The bytes as they were fetched: their charge lives as long as they do.
        let blobs = column(read.num_rows(), fetched.into_iter().flatten())?;
        let mut columns = arranged.columns().to_vec();
        columns[BLOB] = Arc::new(blobs);
        RecordBatch::try_new(arranged.schema(), columns).context(Stage::Internal, place, "cannot carry its blobs")
    }
}
