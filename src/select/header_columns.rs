//! Functions of an image's header become columns of the schema, so that no image is read to know its width.
use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, FieldRef},
    common::{
        Column, DFSchema, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode as _},
    },
    datasource::source_as_provider,
    functions::core::expr_fn::{greatest, least},
    logical_expr::{Distinct, Expr, JoinType, LogicalPlan, cast, expr_rewriter::NamePreserver, lit},
    optimizer::AnalyzerRule,
};

use super::provider::ShardTable;

/// The blob whose header the columns describe.
const IMAGE: &str = "image";

/// Rewrites `image_width(image)` and the like to columns of the table `shards`, wherever these are in reach.
///
/// A column is in reach where image and column come from the same scan and both are among the inputs of the expression,
/// whatever aliases, joins, filters and subqueries lie between. Where a subquery hands on the image alone, the function
/// stays, and reads images.
#[derive(Debug)]
pub(crate) struct HeaderColumns;

impl AnalyzerRule for HeaderColumns {
    fn name(&self) -> &str {
        "header_columns"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).map(|rewritten| rewritten.data)
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !calls_header_function(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let mut scans = 0;
    let inputs: Vec<Input> = plan
        .inputs()
        .into_iter()
        .map(|input| Input { schema: Arc::clone(input.schema()), origins: origins(input, &mut scans) })
        .collect();
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| {
            Ok(match column_instead(&expr, &inputs) {
                Some(column) => Transformed::yes(column),
                None => Transformed::no(expr),
            })
        })?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    match rewritten.transformed {
        true => rewritten.map_data(LogicalPlan::recompute_schema),
        false => Ok(rewritten),
    }
}

fn calls_header_function(plan: &LogicalPlan) -> Result<bool> {
    let mut calls = false;
    plan.apply_expressions(|expr| {
        calls |=
            expr.exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(call) if columns_for(call.name()).is_some())))?;
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(calls)
}

/// The columns that a function is made of, with the types that they must have.
fn columns_for(function: &str) -> Option<&'static [(&'static str, DataType)]> {
    const WIDTH: (&str, DataType) = ("width", DataType::UInt32);
    const HEIGHT: (&str, DataType) = ("height", DataType::UInt32);
    Some(match function {
        "image_width" => const { &[WIDTH] },
        "image_height" => const { &[HEIGHT] },
        "image_format" => const { &[("format", DataType::Utf8View)] },
        "image_megapixels" | "image_aspect" => const { &[WIDTH, HEIGHT] },
        _ => return None,
    })
}

fn column_instead(expr: &Expr, inputs: &[Input]) -> Option<Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let wanted = columns_for(call.name())?;
    let [argument] = call.args.as_slice() else { return None };
    let image = column_of(argument)?;
    let (input, at) = inputs.iter().find_map(|input| Some((input, input.schema.maybe_index_of_column(image)?)))?;
    let origin = input.origins.get(at)?.as_ref().filter(|origin| origin.column == IMAGE)?;
    let columns: Vec<Expr> =
        wanted.iter().map(|(name, data_type)| input.column(origin.scan, name, data_type)).collect::<Option<_>>()?;
    let number = |at: usize| cast(columns[at].clone(), DataType::Float64);
    Some(match call.name() {
        "image_megapixels" => number(0) * number(1) / lit(1e6),
        "image_aspect" => greatest(vec![number(0), number(1)]) / least(vec![number(0), number(1)]),
        _ => columns[0].clone(),
    })
}

/// What an expression may refer to.
struct Input {
    schema: Arc<DFSchema>,
    origins: Vec<Option<Origin>>,
}

/// Where an unchanged column of the table `shards` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// Number of the scan: in a self-join every side has its own.
    scan: usize,
    column: String,
}

impl Input {
    fn column(&self, scan: usize, name: &str, data_type: &DataType) -> Option<Expr> {
        let is_wanted = |origin: &Option<Origin>| origin.as_ref().is_some_and(|o| o.scan == scan && o.column == name);
        let at = self.origins.iter().position(is_wanted)?;
        let (qualifier, field) = self.schema.qualified_field(at);
        (field.data_type() == data_type).then(|| Expr::Column(Column::new(qualifier.cloned(), field.name())))
    }
}

/// Origins of the columns of a plan; `scans` counts the scans met so far.
fn origins(plan: &LogicalPlan, scans: &mut usize) -> Vec<Option<Origin>> {
    let found = match plan {
        LogicalPlan::TableScan(scan) => {
            let is_shards = source_as_provider(&scan.source).is_ok_and(|provider| provider.is::<ShardTable>());
            *scans += 1;
            let number = *scans;
            // Import fills these columns in every row; one with gaps is somebody else's.
            let is_filled = |field: &FieldRef| field.name() == IMAGE || !field.is_nullable();
            let origin = |field: &FieldRef| {
                (is_shards && is_filled(field)).then(|| Origin { scan: number, column: field.name().clone() })
            };
            scan.projected_schema.fields().iter().map(origin).collect()
        }
        LogicalPlan::Projection(projection) => {
            let below = origins(&projection.input, scans);
            let schema = projection.input.schema();
            let origin = |expr: &Expr| below.get(schema.maybe_index_of_column(column_of(expr)?)?)?.clone();
            projection.expr.iter().map(origin).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => origins(&alias.input, scans),
        LogicalPlan::Filter(filter) => origins(&filter.input, scans),
        LogicalPlan::Sort(sort) => origins(&sort.input, scans),
        LogicalPlan::Limit(limit) => origins(&limit.input, scans),
        LogicalPlan::Distinct(Distinct::All(input)) => origins(input, scans),
        LogicalPlan::Window(window) => {
            let mut found = origins(&window.input, scans);
            found.resize(plan.schema().fields().len(), None);
            found
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (origins(&join.left, scans), origins(&join.right, scans));
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => [left, right].concat(),
                JoinType::LeftSemi | JoinType::LeftAnti => left,
                JoinType::RightSemi | JoinType::RightAnti => right,
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let columns = plan.schema().fields().len();
    if found.len() == columns { found } else { vec![None; columns] }
}

fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr),
        _ => None,
    }
}
