//! Files, globs and folders as names of tables: `SELECT … FROM 'dir/*.parquet'`.
use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::{DynamicFileCatalog, TableProvider, UrlTableFactory},
    common::{DataFusionError, Result, plan_datafusion_err, plan_err},
    datasource::{
        dynamic_file::DynamicListTableFactory,
        file_format::{FileFormat, arrow::ArrowFormat, csv::CsvFormat, json::JsonFormat, parquet::ParquetFormat},
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    execution::SessionState,
    object_store::{self, ObjectMeta},
    prelude::SessionContext,
};
use futures::TryStreamExt as _;

use super::columns::is_binary;
use crate::ingest::{IMPORTING_FILE, MANIFEST_FILE, QUARANTINE_FILE};

/// Files that lie beside shards and hold no rows of theirs.
const BESIDE_SHARDS: [&str; 3] = [MANIFEST_FILE, QUARANTINE_FILE, IMPORTING_FILE];

/// Lets the SQL of a session name files where a table may stand.
///
/// Parquet, CSV and TSV with a header line, JSON lines and Arrow IPC, told apart by their extensions; a folder or glob is
/// one table and holds files of one kind. A folder's `key=value` folders are columns.
pub(crate) fn allow_files(context: &SessionContext) {
    let factory = Arc::new(FilesAsTables::default());
    let catalogs = Arc::clone(context.state().catalog_list());
    context.register_catalog_list(Arc::new(DynamicFileCatalog::new(catalogs, Arc::clone(&factory) as _)));
    factory.session.session_store().with_state(context.state_weak_ref());
}

#[derive(Debug, Default)]
struct FilesAsTables {
    /// DataFusion's own factory, for the reference to the session that it holds.
    session: DynamicListTableFactory,
}

impl FilesAsTables {
    fn state(&self) -> Result<SessionState> {
        let session = self.session.session_store().get_session().upgrade();
        let state = session.and_then(|session| session.read().as_any().downcast_ref::<SessionState>().cloned());
        state.ok_or_else(|| plan_datafusion_err!("the session of this table has ended"))
    }
}

#[async_trait]
impl UrlTableFactory for FilesAsTables {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let is_path = name.contains(['/', '.', '*']) || std::path::Path::new(name).exists();
        if !is_path {
            // A mistyped table, about which the planner says more.
            return Ok(None);
        }
        let state = self.state()?;
        let url = ListingTableUrl::parse(name)?;
        let listed = files(&state, &url, name).await?;
        let count = listed.len();
        // A file that is named by itself is meant, whatever it is called.
        let is_meant = |file: &ObjectMeta| has_rows(file) || name.ends_with(file_name(file));
        let rows: Vec<ObjectMeta> = listed.into_iter().filter(is_meant).collect();
        let kind = kind(&rows, name)?;
        let is_filtered = rows.len() < count;
        let store = state.runtime_env().object_store(&url)?;
        let schema = kind
            .format(&state, false)
            .infer_schema(&state, &store, &rows)
            .await
            .map_err(|error| error.context(format!("'{name}' cannot be read as {}", kind.name())))?;
        let has_blobs = schema.fields().iter().any(|field| is_binary(field.data_type()));
        let options = ListingOptions::new(kind.format(&state, has_blobs)).with_file_extension("");
        let config = if is_filtered {
            let each = |file: &ObjectMeta| ListingTableUrl::parse(format!("{}{}", url.object_store(), file.location));
            let urls = rows.iter().map(each).collect::<Result<_>>()?;
            ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options)
        } else {
            let config = ListingTableConfig::new(url).with_listing_options(options);
            config.infer_partitions_from_path(&state).await?
        };
        let table = ListingTable::try_new(config.with_schema(schema))?;
        Ok(Some(Arc::new(table)))
    }
}

/// Whether a file is neither hidden nor one of those that lie beside shards.
fn has_rows(file: &ObjectMeta) -> bool {
    let name = file_name(file);
    !name.starts_with('.') && !BESIDE_SHARDS.contains(&name)
}

/// What lies there.
async fn files(state: &SessionState, url: &ListingTableUrl, name: &str) -> Result<Vec<ObjectMeta>> {
    let store = state.runtime_env().object_store(url)?;
    let listed = url.list_all_files(state, store.as_ref(), "").await;
    let files = match listed {
        Ok(files) => files.try_collect::<Vec<_>>().await,
        Err(error) => Err(error),
    };
    let files = match files {
        Ok(files) => files,
        Err(DataFusionError::ObjectStore(error)) if is_not_found(&error) => Vec::new(),
        Err(error) => return Err(error.context(format!("'{name}' cannot be listed"))),
    };
    if files.is_empty() {
        return plan_err!("'{name}' is no file, no folder with files and no glob that matches any");
    }
    Ok(files)
}

fn is_not_found(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

fn file_name(file: &ObjectMeta) -> &str {
    file.location.filename().unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Parquet,
    Csv,
    Tsv,
    JsonLines,
    ArrowIpc,
}

impl Kind {
    fn of(file: &str) -> Option<Self> {
        Some(match file.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "parquet" => Self::Parquet,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "json" | "jsonl" | "ndjson" => Self::JsonLines,
            "arrow" | "feather" | "ipc" => Self::ArrowIpc,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::JsonLines => "JSON lines",
            Self::ArrowIpc => "Arrow IPC",
        }
    }

    fn format(self, state: &SessionState, has_blobs: bool) -> Arc<dyn FileFormat> {
        let options = state.default_table_options();
        match self {
            Self::Parquet => {
                let mut parquet = options.parquet;
                // Narrow filters first, then only the blob pages that are left.
                parquet.global.pushdown_filters |= has_blobs;
                parquet.global.reorder_filters |= has_blobs;
                Arc::new(ParquetFormat::default().with_options(parquet))
            }
            Self::Csv => Arc::new(CsvFormat::default().with_options(options.csv).with_has_header(true)),
            Self::Tsv => {
                Arc::new(CsvFormat::default().with_options(options.csv).with_has_header(true).with_delimiter(b'\t'))
            }
            Self::JsonLines => Arc::new(JsonFormat::default().with_options(options.json)),
            Self::ArrowIpc => Arc::new(ArrowFormat),
        }
    }
}

/// The one kind of all files.
fn kind(files: &[ObjectMeta], name: &str) -> Result<Kind> {
    let mut kinds = BTreeSet::new();
    for file in files.iter().map(file_name) {
        match Kind::of(file) {
            Some(kind) => kinds.insert(kind),
            None => {
                return plan_err!(
                    "'{name}' holds {file}, which is no Parquet, CSV, TSV, JSON or Arrow file by its extension; \
                     name a glob such as 'dir/*.parquet'"
                );
            }
        };
    }
    match Vec::from_iter(kinds).as_slice() {
        [kind] => Ok(*kind),
        [] => plan_err!("'{name}' holds no files with rows"),
        several => {
            let names: Vec<&str> = several.iter().map(|kind| kind.name()).collect();
            plan_err!("'{name}' holds {}; name files of one kind, as in 'dir/*.parquet'", names.join(" and "))
        }
    }
}
