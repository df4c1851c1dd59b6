//! Which blobs a query is going to read, before it reads them.
use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    datasource::{physical_plan::FileScanConfig, source::DataSourceExec, source_as_provider},
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
};

use super::{
    columns::is_binary,
    provider::{STORE_URL, ShardTable},
    report::Bytes,
    warning::Warning,
};

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
pub(crate) fn of_files(plan: &LogicalPlan, physical: &Arc<dyn ExecutionPlan>) -> Result<Option<Warning>> {
    let mut columns = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && source_as_provider(&scan.source).is_ok_and(|provider| !provider.is::<ShardTable>())
        {
            let of_filters = scan.filters.iter().flat_map(|filter| filter.column_refs());
            let of_filters = of_filters.map(|column| column.name.as_str());
            let of_output = scan.projected_schema.fields().iter().map(|field| field.name().as_str());
            let schema = scan.source.schema();
            let is_blob = |name: &str| schema.field_with_name(name).is_ok_and(|field| is_binary(field.data_type()));
            columns.extend(of_filters.chain(of_output).filter(|name| is_blob(name)).map(str::to_owned));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if columns.is_empty() {
        return Ok(None);
    }
    let mut bytes = 0;
    visit(physical, &mut |scan| {
        let is_foreign = !scan.object_store_url.as_str().starts_with(STORE_URL);
        if is_foreign && scan.file_schema().fields().iter().any(|field| columns.contains(field.name())) {
            bytes += scan.file_groups.iter().flat_map(|group| group.iter()).map(|f| f.effective_size()).sum::<u64>();
        }
    });
    let columns: Vec<String> = columns.into_iter().collect();
    let text = format!("reads {} from files of {} together", columns.join(", "), Bytes(bytes));
    Ok(Some(Warning { place: "the query".into(), text }))
}

fn visit(plan: &Arc<dyn ExecutionPlan>, of_scan: &mut impl FnMut(&FileScanConfig)) {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>()
        && let Some(scan) = source.data_source().downcast_ref::<FileScanConfig>()
    {
        of_scan(scan);
    }
    plan.children().into_iter().for_each(|child| visit(child, of_scan));
}
