//! Which blobs a query is going to read, before it reads them.
use std::sync::Arc;

use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    datasource::{physical_plan::FileScanConfig, source::DataSourceExec, source_as_provider},
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
};

use super::{columns::is_binary, provider::ShardTable, report::Bytes, warning::Warning};

/// What the scans of `shards` in an optimised plan read of blobs, as one warning; nothing where they read none.
///
/// An upper bound: rows that narrow columns exclude are not read.
pub(crate) fn of_shards(plan: &LogicalPlan) -> Result<Option<Warning>> {
    let mut columns = Vec::new();
    let mut bytes = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<ShardTable>()
        {
            for field in scan.projected_schema.fields() {
                if let Some(blob_bytes) = table.blob_bytes_of(field.name()) {
                    bytes += blob_bytes;
                    columns.push(field.name().clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    columns.sort_unstable();
    columns.dedup();
    let text = format!("reads up to {} of {}; columns such as width cost less", Bytes(bytes), columns.join(", "));
    Ok((!columns.is_empty()).then(|| Warning { place: "the query".into(), text }))
}

/// What the scans of other files read of binary columns: at most those files.
pub(crate) fn of_files(plan: &Arc<dyn ExecutionPlan>) -> Option<Warning> {
    let (mut bytes, mut columns) = (0, Vec::new());
    visit(plan, &mut |scan| {
        if scan.object_store_url.as_str().starts_with(super::provider::STORE_URL) {
            return;
        }
        let Ok(schema) = scan.projected_schema() else { return };
        let blobs = schema.fields().iter().filter(|field| is_binary(field.data_type())).map(|f| f.name().clone());
        let before = columns.len();
        columns.extend(blobs);
        if columns.len() > before {
            bytes += scan.file_groups.iter().flat_map(|group| group.iter()).map(|f| f.effective_size()).sum::<u64>();
        }
    });
    columns.sort_unstable();
    columns.dedup();
    let text = format!("reads {} from files of {} together", columns.join(", "), Bytes(bytes));
    (!columns.is_empty()).then(|| Warning { place: "the query".into(), text })
}

fn visit(plan: &Arc<dyn ExecutionPlan>, of_scan: &mut impl FnMut(&FileScanConfig)) {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>()
        && let Some(scan) = source.data_source().downcast_ref::<FileScanConfig>()
    {
        of_scan(scan);
    }
    plan.children().into_iter().for_each(|child| visit(child, of_scan));
}
