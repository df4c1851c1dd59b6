//! Conditions that the SQL parser binds otherwise than SQL does: a selection must not keep what its text excludes.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr, visit_expressions},
    dialect::GenericDialect,
    parser::Parser,
};

use crate::error::{Error, Result, Stage};

/// Refuses `a IS [NOT] DISTINCT FROM b AND c`, which sqlparser 0.62 reads as `a IS DISTINCT FROM (b AND c)`.
///
/// # Errors
/// Shows each with parentheses. Text that is no SQL at all passes: the planner says more about it.
pub(crate) fn check(sql: &str) -> Result<()> {
    let Ok(statements) = Parser::parse_sql(&GenericDialect {}, sql) else { return Ok(()) };
    let mut swallowed = Vec::new();
    let _: ControlFlow<()> = visit_expressions(&statements, |expr| {
        let (left, right, words) = match expr {
            Expr::IsDistinctFrom(left, right) => (left, right, "IS DISTINCT FROM"),
            Expr::IsNotDistinctFrom(left, right) => (left, right, "IS NOT DISTINCT FROM"),
            _ => return ControlFlow::Continue(()),
        };
        if let Some(first) = first_operand(right) {
            swallowed.push(format!("put parentheses around the comparison: `({left} {words} {first}) …`"));
        }
        ControlFlow::Continue(())
    });
    if swallowed.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "an AND or OR after IS [NOT] DISTINCT FROM would become a part of what is compared; {}",
        swallowed.join(", ")
    );
    Err(Error::at(Stage::Sql, "the query", reason))
}

/// What was meant as the right side, where an AND or OR without parentheses follows it.
fn first_operand(right: &Expr) -> Option<&Expr> {
    match right {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. } => {
            Some(first_operand(left).unwrap_or(left))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(condition: &str) -> Option<String> {
        check(&format!("SELECT sample_id FROM shards WHERE {condition}")).err().map(|error| error.to_string())
    }

    #[test]
    fn what_a_comparison_would_swallow_is_refused_with_the_remedy() {
        for (condition, remedy) in [
            ("split IS DISTINCT FROM 'test' AND width >= 64", "`(split IS DISTINCT FROM 'test') …`"),
            ("split IS NOT DISTINCT FROM 'train' OR width >= 64", "`(split IS NOT DISTINCT FROM 'train') …`"),
            ("split IS DISTINCT FROM 'test' AND width >= 64 OR height > 3", "`(split IS DISTINCT FROM 'test') …`"),
            ("width > 3 AND NOT split IS DISTINCT FROM 'test' AND height > 3", "put parentheses"),
            ("sample_id IN (SELECT sample_id FROM shards WHERE split IS DISTINCT FROM 'a' AND width > 1)", "split"),
        ] {
            let text = told(condition).unwrap_or_else(|| panic!("{condition} passed"));
            assert!(text.contains(remedy), "{condition}: {text}");
        }
    }

    #[test]
    fn what_means_what_it_says_passes() {
        for condition in [
            "split IS DISTINCT FROM 'test'",
            "(split IS DISTINCT FROM 'test') AND width >= 64",
            "width >= 64 AND split IS DISTINCT FROM 'test'",
            "split IS DISTINCT FROM (label = 'a' AND width > 1)",
            "this is no SQL",
        ] {
            assert_eq!(told(condition), None, "{condition}");
        }
    }
}
