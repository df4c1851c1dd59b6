//! What a query may not contain if its answer must be the same in every run, on every machine.
//!
//! A column decides others through the keys that DataFusion tracks from `sample_id`, the primary key of `shards`,
//! through projections, joins and groups. An order is total where its columns decide the whole row: rows that still tie
//! are equal in everything.
use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, Operator, Volatility, WindowFrameUnits, WindowFunctionDefinition,
};

use super::provider::SAMPLE_ID;
use super::warning::Warning;
use crate::error::{Context, Error, Result, Stage};

/// Aggregates that give one of their inputs, or a list of them in order.
const ORDERED: [&str; 6] = ["any_value", "array_agg", "first_value", "last_value", "nth_value", "string_agg"];
/// Window functions that count rows in order.
const COUNTING: [&str; 4] = ["row_number", "ntile", "lag", "lead"];
/// Aggregates of floats whose last bits depend on the order of addition.
const ADDING: [&str; 2] = ["sum", "avg"];
/// Aggregates that add floats whatever they are given.
const MOMENTS: [&str; 15] = [
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
];

/// Checks a plan as SQL was written, before optimisers rewrite it.
///
/// # Errors
/// Everything in it that is not reproducible, each with the form that is.
pub(crate) fn check(plan: &LogicalPlan) -> Result<Vec<Warning>> {
    let mut findings = Findings::default();
    if unnests_and_chooses(plan).context(Stage::Internal, "", "cannot walk the plan of the query")? {
        findings.refuse(
            "`unnest` beside LIMIT, DISTINCT ON, a window or an aggregate that keeps an order: rows of one sample have no \
             order among themselves; choose in one query and unnest in none",
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
        if matches!(node, LogicalPlan::Aggregate(_)) {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    chooses |= matches!(expr, Expr::AggregateFunction(call) if ORDERED.contains(&call.func.name()));
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
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
                let (sorted, open) = match sort_below(&limit.input) {
                    Some((sort, input)) => ("…, ", undecided(input, sort.iter().map(|sort| &sort.expr))),
                    None => ("", vec![SAMPLE_ID.to_owned()]),
                };
                if !open.is_empty() {
                    let is_id = open.iter().any(|name| name == SAMPLE_ID);
                    let columns = if is_id { SAMPLE_ID.to_owned() } else { open.join(", ") };
                    self.refuse(&format!(
                        "`LIMIT` or `OFFSET` without a total order: ties decide; end it with what tells rows apart: \
                         `ORDER BY {sorted}{columns} LIMIT …`"
                    ));
                }
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                let sort = on.sort_expr.iter().flatten().map(|sort| &sort.expr);
                let decided = closure(&on.input, on.on_expr.iter().chain(sort));
                if !on.select_expr.iter().all(|expr| is_decided(on.input.schema(), expr, &decided)) {
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
                    self.aggregate(call, &aggregate.input, &aggregate.group_expr);
                }
            }
            Expr::WindowFunction(call) => {
                let signature = match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => function.signature(),
                    WindowFunctionDefinition::WindowUDF(function) => function.signature(),
                };
                self.volatility(call.fun.name(), signature.volatility);
                if let LogicalPlan::Window(window) = node {
                    self.window(call, &window.input);
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

    fn aggregate(&mut self, call: &AggregateFunction, input: &LogicalPlan, groups: &[Expr]) {
        let name = call.func.name();
        self.approximate(name);
        self.adding(name, &call.params.args, input.schema());
        if ORDERED.contains(&name) {
            let order = call.params.order_by.iter().map(|sort| &sort.expr);
            let decided = closure(input, groups.iter().chain(order));
            if !call.params.args.iter().all(|argument| is_decided(input.schema(), argument, &decided)) {
                self.refuse(&format!(
                    "`{name}` where ties decide what it gives; write `{name}(… ORDER BY …, sample_id)`, or min or max"
                ));
            }
        }
    }

    fn window(&mut self, call: &WindowFunction, input: &LogicalPlan) {
        let (name, params) = (call.fun.name(), &call.params);
        self.approximate(name);
        self.adding(name, &params.args, input.schema());
        let keys = || params.partition_by.iter().chain(params.order_by.iter().map(|sort| &sort.expr));
        let frame = &params.window_frame;
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        let counts_rows = COUNTING.contains(&name) || (frame.units == WindowFrameUnits::Rows && !is_whole);
        let is_fixed = if ["rank", "dense_rank", "percent_rank", "cume_dist"].contains(&name) {
            true
        } else if counts_rows {
            undecided(input, keys()).is_empty()
        } else if ORDERED.contains(&name) {
            let decided = closure(input, keys());
            params.args.iter().all(|argument| is_decided(input.schema(), argument, &decided))
        } else {
            true
        };
        if !is_fixed {
            self.refuse(&format!("`{name} OVER (…)` where ties decide; end its ORDER BY with sample_id"));
        }
    }

    fn approximate(&mut self, name: &str) {
        match name {
            "approx_distinct" => self.refuse(
                "`approx_distinct` hashes as the processor and the version of the program do; use `count(DISTINCT …)`",
            ),
            "approx_median" => {
                self.refuse(
                    "`approx_median` merges partial results in the order of threads; use `median`, which is exact",
                );
            }
            _ if name.starts_with("approx_percentile") => self.refuse(&format!(
                "`{name}` merges partial results in the order of threads; use `percentile_cont`, which is exact: \
                 `percentile_cont(0.9) WITHIN GROUP (ORDER BY …)`"
            )),
            _ => {}
        }
    }

    fn adding(&mut self, name: &str, arguments: &[Expr], input: &DFSchema) {
        let data_type = |argument: &Expr| argument.get_type(input).unwrap_or(DataType::Null);
        // The mean of whole numbers is made of floats as well.
        let is_float = |argument: &Expr| match name {
            "avg" => !data_type(argument).is_decimal(),
            _ => data_type(argument).is_floating(),
        };
        if ADDING.contains(&name) && arguments.iter().any(is_float) {
            self.warnings.insert(format!(
                "`{name}` of floats adds in the order of threads, so its last bits may differ between runs; \
                 cast to DECIMAL first: `{name}(CAST(… AS DECIMAL(18, 6)))`, or compare it with a margin"
            ));
        }
        if MOMENTS.contains(&name) {
            self.warnings.insert(format!(
                "`{name}` adds floats in the order of threads, so its last bits may differ between runs; \
                 compare it with a margin, or round it: `round({name}(…), 6)`"
            ));
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.refused.insert(reason.to_owned());
    }
}

/// The sort that orders the rows of `plan`, and what it sorts.
fn sort_below(plan: &LogicalPlan) -> Option<(&[SortExpr], &LogicalPlan)> {
    match plan {
        LogicalPlan::Sort(sort) => Some((&sort.expr, &sort.input)),
        LogicalPlan::Projection(projection) => sort_below(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => sort_below(&alias.input),
        _ => None,
    }
}

/// Columns whose values the keys do not tell.
fn undecided<'a>(input: &LogicalPlan, keys: impl Iterator<Item = &'a Expr>) -> Vec<String> {
    let decided = closure(input, keys);
    let fields = input.schema().fields().iter().enumerate();
    fields.filter(|(at, _)| !decided.contains(at)).map(|(_, field)| field.name().clone()).collect()
}

/// The columns of `input` whose values are known where those of `keys` are.
fn closure<'a>(input: &LogicalPlan, keys: impl Iterator<Item = &'a Expr>) -> BTreeSet<usize> {
    let schema = input.schema();
    let mut equal = Vec::new();
    equal_columns(input, &mut equal);
    let at = |column: &Column| schema.maybe_index_of_column(column);
    let equal: Vec<(usize, usize)> = equal.iter().filter_map(|(a, b)| at(a).zip(at(b))).collect();
    let mut decided: BTreeSet<usize> = keys.filter_map(|key| column_of(schema, key)).collect();
    loop {
        let before = decided.len();
        for dependence in schema.functional_dependencies().iter() {
            if dependence.source_indices.iter().all(|source| decided.contains(source)) {
                decided.extend(&dependence.target_indices);
            }
        }
        for (a, b) in &equal {
            if decided.contains(a) || decided.contains(b) {
                decided.extend([*a, *b]);
            }
        }
        if decided.len() == before {
            return decided;
        }
    }
}

/// Pairs of columns that inner joins make equal. Names mean the same only up to the next alias.
fn equal_columns(plan: &LogicalPlan, found: &mut Vec<(Column, Column)>) {
    match plan {
        LogicalPlan::Join(join) => {
            if join.join_type == JoinType::Inner {
                let on = join.on.iter().map(|(a, b)| (a, b));
                let filter = join.filter.iter().flat_map(split_conjunction).filter_map(|expr| match expr {
                    Expr::BinaryExpr(equal) if equal.op == Operator::Eq => Some((&*equal.left, &*equal.right)),
                    _ => None,
                });
                found.extend(on.chain(filter).filter_map(|pair| match pair {
                    (Expr::Column(a), Expr::Column(b)) => Some((a.clone(), b.clone())),
                    _ => None,
                }));
            }
            // The side that an outer join fills with NULLs keeps its equalities: NULL equals NULL here.
            equal_columns(&join.left, found);
            equal_columns(&join.right, found);
        }
        LogicalPlan::Filter(filter) => equal_columns(&filter.input, found),
        LogicalPlan::Projection(projection) => equal_columns(&projection.input, found),
        LogicalPlan::Sort(sort) => equal_columns(&sort.input, found),
        LogicalPlan::Window(window) => equal_columns(&window.input, found),
        _ => {}
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
