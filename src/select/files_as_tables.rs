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
    execution::{SessionState, object_store::ObjectStoreUrl},
    object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path as Location},
    prelude::SessionContext,
};
use futures::TryStreamExt as _;

use super::columns::is_binary;
use super::glob::is_glob;
use super::locate::local_files;
use super::locate_remote::remote_files;
use crate::ingest::BESIDE_SHARDS;
use crate::stores::{address::Address, routing_store::Stores};

/// Lets the SQL of a session name files where a table may stand.
///
/// Local, or by URL in `stores`, which stand behind the local root for both. Parquet, CSV and TSV with a header line, JSON
/// lines and Arrow IPC, told apart by their extensions; a folder or glob is one table and holds files of one kind. A folder's
/// `key=value` folders are columns.
///
/// # Errors
/// Ours.
pub(crate) fn allow_files(context: &SessionContext, stores: Arc<Stores>) -> Result<()> {
    let root = ObjectStoreUrl::parse(LOCAL_ROOT)?;
    context.register_object_store(root.as_ref(), Arc::clone(&stores) as _);
    let factory = Arc::new(FilesAsTables { session: DynamicListTableFactory::default(), stores });
    let catalogs = Arc::clone(context.state().catalog_list());
    context.register_catalog_list(Arc::new(DynamicFileCatalog::new(catalogs, Arc::clone(&factory) as _)));
    factory.session.session_store().with_state(context.state_weak_ref());
    Ok(())
}

#[derive(Debug)]
struct FilesAsTables {
    /// DataFusion's own factory, for the reference to the session that it holds.
    session: DynamicListTableFactory,
    stores: Arc<Stores>,
}

impl FilesAsTables {
    fn state(&self) -> Result<SessionState> {
        let session = self.session.session_store().get_session().upgrade();
        let state = session.and_then(|session| session.read().as_any().downcast_ref::<SessionState>().cloned());
        state.ok_or_else(|| plan_datafusion_err!("the session of this table has ended"))
    }

    /// What stands at a URL.
    async fn remote(&self, address: &Address, name: &str) -> Result<Named> {
        if is_glob(&address.path) {
            let files = remote_files(address, &self.stores).await.map_err(external)?;
            return Ok(Named { listed: LOCAL_ROOT.to_owned(), expanded: Some(files) });
        }
        let location = self.stores.location(address).map_err(external)?;
        let end = if name.ends_with('/') { "/" } else { "" };
        Ok(Named { listed: format!("{LOCAL_ROOT}{location}{end}"), expanded: None })
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
        let Named { listed, expanded } = match Address::parse(name) {
            Some(address) => {
                let address = address.map_err(|problem| plan_datafusion_err!("{problem}"))?;
                self.remote(&address, name).await?
            }
            None => local(&self.stores, name).await?,
        };
        let url = ListingTableUrl::parse(&listed)?;
        let is_expanded = expanded.is_some();
        let listed = match expanded {
            Some(files) if files.is_empty() => return nothing_there(name),
            Some(files) => files,
            None => files(&state, &url, name).await?,
        };
        let count = listed.len();
        // A file that is named by itself is meant, whatever it is called.
        let is_meant = |file: &ObjectMeta| {
            let is_hidden =
                || url.strip_prefix(&file.location).is_some_and(|mut parts| parts.any(|p| p.starts_with('.')));
            name.ends_with(file_name(file)) || (has_rows(file) && (is_expanded || !is_hidden()))
        };
        let rows: Vec<ObjectMeta> = listed.into_iter().filter(is_meant).collect();
        let kind = kind(&rows, name)?;
        let is_filtered = is_expanded || rows.len() < count;
        let store = state.runtime_env().object_store(&url)?;
        if kind == Kind::ArrowIpc {
            one_ipc_layout(store.as_ref(), &rows, name).await?;
        }
        let format = kind.format(&state, false);
        let schema = match format.infer_schema(&state, &store, &rows).await {
            Ok(schema) => schema,
            Err(error) => {
                let mut broken = name;
                for file in &rows {
                    if format.infer_schema(&state, &store, std::slice::from_ref(file)).await.is_err() {
                        broken = file.location.as_ref();
                        break;
                    }
                }
                return Err(error.context(format!("'{broken}' cannot be read as {}", kind.name())));
            }
        };
        let has_blobs = schema.fields().iter().any(|field| is_binary(field.data_type()));
        let options = ListingOptions::new(kind.format(&state, has_blobs)).with_file_extension("");
        let config = if is_filtered {
            let each = |file: &ObjectMeta| ListingTableUrl::parse(format!("{}{}", url.object_store(), file.location));
            let urls = rows.iter().map(each).collect::<Result<_>>()?;
            ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options)
        } else {
            let config = ListingTableConfig::new(url.clone()).with_listing_options(options);
            let config = config.infer_partitions_from_path(&state).await?;
            check_partitions(&config, &url, &rows, name)?;
            config
        };
        let table = ListingTable::try_new(config.with_schema(schema))?;
        Ok(Some(Arc::new(table)))
    }
}

/// Names the store of local files.
const LOCAL_ROOT: &str = "file:///";

/// What stands for a table in SQL.
struct Named {
    /// File, folder or URL that DataFusion lists.
    listed: String,
    /// The files of a glob: locally found without listing a folder in which it cannot match.
    expanded: Option<Vec<ObjectMeta>>,
}

fn external(error: crate::error::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

async fn local(stores: &Stores, name: &str) -> Result<Named> {
    let as_written = |listed: &str| Ok(Named { listed: listed.to_owned(), expanded: None });
    if !is_glob(name) || std::path::Path::new(name).exists() {
        return as_written(name);
    }
    let matching = |glob: &str| local_files(glob).map_err(external);
    let (base, files) = matching(name)?;
    let has_columns = |file: &String| file.rsplit_once('/').is_some_and(|(folders, _)| folders.contains('='));
    if files.iter().any(has_columns) {
        // Columns in the names of folders are seen from above: where the glob means all that is there, the folder does too.
        let folder = base.display().to_string();
        if matching(&format!("{folder}/**"))?.1.len() == files.len() {
            return as_written(&folder);
        }
    }
    let mut expanded = Vec::with_capacity(files.len());
    for file in &files {
        let location = Location::from_absolute_path(std::path::absolute(base.join(file))?)?;
        expanded.push(stores.head(&location).await?);
    }
    Ok(Named { listed: LOCAL_ROOT.to_owned(), expanded: Some(expanded) })
}

/// DataFusion reads every file as it reads the first, and would name none of those that are laid out otherwise.
async fn one_ipc_layout(store: &dyn ObjectStore, files: &[ObjectMeta], name: &str) -> Result<()> {
    let (mut file, mut stream): (Option<&str>, Option<&str>) = (None, None);
    for found in files {
        let magic = store.get_range(&found.location, 0..found.size.min(IPC_FILE_MAGIC.len() as u64)).await?;
        let is_file = *magic == IPC_FILE_MAGIC;
        let first = if is_file { &mut file } else { &mut stream };
        first.get_or_insert(found.location.as_ref());
    }
    match (file, stream) {
        (Some(file), Some(stream)) => plan_err!(
            "'{name}' holds Arrow IPC files such as {file} and IPC streams such as {stream}; name them apart, or read both \
             as the table `shards` with --shards"
        ),
        _ => Ok(()),
    }
}

/// First bytes of the file format, which a stream has not.
const IPC_FILE_MAGIC: [u8; 6] = *b"ARROW1";

/// A file below folders that are no columns would be left out without a word.
fn check_partitions(config: &ListingTableConfig, url: &ListingTableUrl, rows: &[ObjectMeta], name: &str) -> Result<()> {
    let columns = config.options.as_ref().map(|options| options.table_partition_cols.as_slice()).unwrap_or_default();
    let fits = |file: &&ObjectMeta| {
        let parts: Vec<&str> = url.strip_prefix(&file.location).into_iter().flatten().collect();
        let values = columns
            .iter()
            .zip(&parts)
            .filter(|((column, _), part)| part.split_once('=').is_some_and(|(key, _)| key == column));
        values.count() == columns.len()
    };
    match rows.iter().find(|file| !fits(file)) {
        Some(file) => plan_err!(
            "'{name}' has columns in the names of its folders, and {} does not lie in such folders; name its folder apart",
            file.location
        ),
        None => Ok(()),
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
        return nothing_there(name);
    }
    Ok(files)
}

fn nothing_there<T>(name: &str) -> Result<T> {
    plan_err!("'{name}' is no file, no folder with files and no glob that matches any")
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
