//! What a query may not contain if its answer must be the same in every run, on every machine.
//!
//! A column decides others through the keys that DataFusion tracks from `sample_id`, the primary key of `shards`,
//! through projections, joins and groups. An order is total where its columns decide the whole row: rows that still tie
//! are equal in everything.
use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, Volatility, WindowFrameUnits, WindowFunctionDefinition,
};

use super::warning::Warning;
use crate::error::{Context, Error, Result, Stage};

/// Aggregates that give one of their inputs, or a list of them in order.
const ORDERED: [&str; 6] = ["any_value", "array_agg", "first_value", "last_value", "nth_value", "string_agg"];
/// Window functions that count rows in order.
const COUNTING: [&str; 4] = ["row_number", "ntile", "lag", "lead"];
/// Aggregates whose last bits depend on the order of addition.
const ADDING: [&str; 11] = [
    "sum",
    "avg",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_r2",
];

/// Checks a plan as SQL was written, before optimisers rewrite it.
///
/// # Errors
/// Everything in it that is not reproducible, each with the form that is.
pub(crate) fn check(plan: &LogicalPlan) -> Result<Vec<Warning>> {
    let mut findings = Findings::default();
    if unnests_and_chooses(plan).context(Stage::Internal, "", "cannot walk the plan of the query")? {
        findings.refuse(
            "`unnest` beside LIMIT, DISTINCT ON or a window: rows of one sample have no order among themselves; \
             choose in one query and unnest in none",
        );
    }
    plan.apply_with_subqueries(|node| {
        findings.node(node);
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                findings.expression(expr, node);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .context(Stage::Internal, "", "cannot walk the plan of the query")?;
    if findings.refused.is_empty() {
        return Ok(findings.warnings.into_iter().map(|text| Warning { place: "the query".into(), text }).collect());
    }
    let reasons: Vec<String> = findings.refused.into_iter().collect();
    let head = "its answer would not be the same in every run:";
    Err(Error::at(Stage::Sql, "the query", format!("{head}\n  {}", reasons.join("\n  "))))
}

/// Whether rows are multiplied and then chosen among. DataFusion keeps keys through `unnest`, where they are none.
fn unnests_and_chooses(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    let (mut unnests, mut chooses) = (false, false);
    plan.apply_with_subqueries(|node| {
        unnests |= matches!(node, LogicalPlan::Unnest(_));
        chooses |=
            matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::On(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(unnests && chooses)
}

/// Each once, however often a plan repeats an expression.
#[derive(Default)]
struct Findings {
    refused: BTreeSet<String>,
    warnings: BTreeSet<String>,
}

impl Findings {
    fn node(&mut self, node: &LogicalPlan) {
        match node {
            LogicalPlan::Limit(limit) if limit.fetch.is_some() || limit.skip.is_some() => {
                let is_total = match sort_below(&limit.input) {
                    Some((sort, schema)) => decides_all(schema, sort),
                    None => false,
                };
                if !is_total {
                    self.refuse(
                        "`LIMIT` or `OFFSET` without a total order; end it with sample_id: `ORDER BY sample_id LIMIT …`",
                    );
                }
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                let schema = on.input.schema();
                let sort = on.sort_expr.iter().flatten().map(|sort| &sort.expr);
                let decided = closure(schema, on.on_expr.iter().chain(sort));
                if !on.select_expr.iter().all(|expr| is_decided(schema, expr, &decided)) {
                    self.refuse("`DISTINCT ON` where ties decide which row is kept; end its ORDER BY with sample_id");
                }
            }
            _ => {}
        }
    }

    fn expression(&mut self, expr: &Expr, node: &LogicalPlan) {
        match expr {
            Expr::ScalarFunction(call) => self.volatility(call.name(), call.func.signature().volatility),
            Expr::AggregateFunction(call) => {
                self.volatility(call.func.name(), call.func.signature().volatility);
                if let LogicalPlan::Aggregate(aggregate) = node {
                    self.aggregate(call, aggregate.input.schema(), &aggregate.group_expr);
                }
            }
            Expr::WindowFunction(call) => {
                let signature = match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => function.signature(),
                    WindowFunctionDefinition::WindowUDF(function) => function.signature(),
                };
                self.volatility(call.fun.name(), signature.volatility);
                if let LogicalPlan::Window(window) = node {
                    self.window(call, window.input.schema());
                }
            }
            _ => {}
        }
    }

    fn volatility(&mut self, name: &str, volatility: Volatility) {
        let remedy = match (name, volatility) {
            (_, Volatility::Immutable) => return,
            ("file_row_index" | "input_file_name", _) => "sample_id says which shard and row",
            (_, Volatility::Stable) => "write the date or time as a literal",
            (_, Volatility::Volatile) => "use `sample_uniform(sample_id, seed)`, uniform in [0, 1)",
        };
        self.refuse(&format!("`{name}()` gives another value in every run; {remedy}"));
    }

    fn aggregate(&mut self, call: &AggregateFunction, input: &DFSchema, groups: &[Expr]) {
        let name = call.func.name();
        self.approximate(name);
        self.adding(name, &call.params.args, input);
        if ORDERED.contains(&name) {
            let order = call.params.order_by.iter().map(|sort| &sort.expr);
            let decided = closure(input, groups.iter().chain(order));
            if !call.params.args.iter().all(|argument| is_decided(input, argument, &decided)) {
                self.refuse(&format!(
                    "`{name}` where ties decide what it gives; write `{name}(… ORDER BY …, sample_id)`, or min or max"
                ));
            }
        }
    }

    fn window(&mut self, call: &WindowFunction, input: &DFSchema) {
        let (name, params) = (call.fun.name(), &call.params);
        self.approximate(name);
        self.adding(name, &params.args, input);
        let keys = || params.partition_by.iter().chain(params.order_by.iter().map(|sort| &sort.expr));
        let frame = &params.window_frame;
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        let counts_rows = COUNTING.contains(&name) || (frame.units == WindowFrameUnits::Rows && !is_whole);
        let is_fixed = if ["rank", "dense_rank", "percent_rank", "cume_dist"].contains(&name) {
            true
        } else if counts_rows {
            decides_all_by(input, keys())
        } else if ORDERED.contains(&name) {
            let decided = closure(input, keys());
            params.args.iter().all(|argument| is_decided(input, argument, &decided))
        } else {
            true
        };
        if !is_fixed {
            self.refuse(&format!("`{name} OVER (…)` where ties decide; end its ORDER BY with sample_id"));
        }
    }

    fn approximate(&mut self, name: &str) {
        if name.starts_with("approx_percentile") || name == "approx_median" {
            let exact = if name == "approx_median" { "median" } else { "percentile_cont" };
            self.refuse(&format!("`{name}` merges partial results in the order of threads; use `{exact}`"));
        }
    }

    fn adding(&mut self, name: &str, arguments: &[Expr], input: &DFSchema) {
        let is_float = |argument: &Expr| argument.get_type(input).is_ok_and(|data_type| data_type.is_floating());
        if ADDING.contains(&name) && arguments.iter().any(is_float) {
            self.warnings.insert(format!(
                "`{name}` of floats adds in the order of threads, so its last bits may differ between runs; \
                 compare it with a margin, or cast to DECIMAL first"
            ));
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.refused.insert(reason.to_owned());
    }
}

/// The sort that orders the rows of `plan`, and the schema it sorts.
fn sort_below(plan: &LogicalPlan) -> Option<(&[SortExpr], &DFSchema)> {
    match plan {
        LogicalPlan::Sort(sort) => Some((&sort.expr, sort.input.schema())),
        LogicalPlan::Projection(projection) => sort_below(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => sort_below(&alias.input),
        _ => None,
    }
}

fn decides_all(schema: &DFSchema, sort: &[SortExpr]) -> bool {
    decides_all_by(schema, sort.iter().map(|sort| &sort.expr))
}

fn decides_all_by<'a>(schema: &DFSchema, keys: impl Iterator<Item = &'a Expr>) -> bool {
    closure(schema, keys).len() == schema.fields().len()
}

/// The columns whose values are known where those of `keys` are.
fn closure<'a>(schema: &DFSchema, keys: impl Iterator<Item = &'a Expr>) -> BTreeSet<usize> {
    let mut decided: BTreeSet<usize> = keys.filter_map(|key| column_of(schema, key)).collect();
    loop {
        let before = decided.len();
        for dependence in schema.functional_dependencies().iter() {
            if dependence.source_indices.iter().all(|source| decided.contains(source)) {
                decided.extend(&dependence.target_indices);
            }
        }
        if decided.len() == before {
            return decided;
        }
    }
}

fn column_of(schema: &DFSchema, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_of(schema, &alias.expr),
        _ => None,
    }
}

/// Whether the value of `expr` follows from the `decided` columns. Columns of an outer query are constants here.
fn is_decided(schema: &DFSchema, expr: &Expr, decided: &BTreeSet<usize>) -> bool {
    let columns = expr.column_refs();
    columns.iter().filter_map(|column| schema.maybe_index_of_column(column)).all(|at| decided.contains(&at))
}
