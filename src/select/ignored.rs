//! Clauses that the SQL planner reads and then ignores: a selection must not seem to have obeyed them.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use crate::error::{Error, Result, Stage};

/// Refuses clauses of other databases that DataFusion 55 parses without effect.
///
/// # Errors
/// Lists each, with what to write instead. Text that is no SQL at all passes: the planner says more about it.
pub(crate) fn check(sql: &str) -> Result<()> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let mut ignored: Vec<String> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let is_ignored = match keyword(token) {
            Some(Keyword::TABLESAMPLE | Keyword::PREWHERE | Keyword::SETTINGS) => {
                // A column may carry the name; a clause has something after it that no column has.
                !matches!(
                    next,
                    None | Some(Token::Comma | Token::RParen | Token::Period | Token::Eq | Token::Lt | Token::Gt)
                ) && !matches!(next.and_then(keyword), Some(Keyword::FROM | Keyword::AS | Keyword::AND | Keyword::OR))
            }
            Some(Keyword::SAMPLE) => matches!(next, Some(Token::Number(..))),
            Some(Keyword::CONNECT) => next.and_then(keyword) == Some(Keyword::BY),
            Some(Keyword::PARTITION) => matches!(next, Some(Token::LParen)),
            Some(Keyword::FOR) => matches!(next.and_then(keyword), Some(Keyword::UPDATE | Keyword::SHARE)),
            _ => false,
        };
        if is_ignored {
            ignored.push(format!("`{token}`"));
        }
    }
    if ignored.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "{} would be ignored; to sample write WHERE sample_uniform(sample_id, 0) < 0.1, to filter write WHERE",
        ignored.join(", ")
    );
    Err(Error::at(Stage::Sql, "the query", reason))
}

fn keyword(token: &Token) -> Option<Keyword> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_without_effect_are_refused_with_the_remedy() {
        for clause in [
            "TABLESAMPLE (10 PERCENT)",
            "TABLESAMPLE BERNOULLI (1)",
            "SAMPLE 0.1",
            "PREWHERE width < 0",
            "CONNECT BY width = 1",
            "SETTINGS x = 1",
            "PARTITION (p0)",
            "FOR UPDATE",
        ] {
            let error = check(&format!("SELECT sample_id FROM shards {clause}")).expect_err(clause).to_string();
            assert!(error.contains("sample_uniform"), "{error}");
        }
    }

    #[test]
    fn the_same_words_elsewhere_pass() {
        for sql in [
            "SELECT sample_id, row_number() OVER (PARTITION BY label ORDER BY sample_id) AS sample FROM shards",
            "SELECT sample_id FROM shards WHERE substring(caption FROM 1 FOR 3) = 'for'",
            "SELECT sample_id FROM shards WHERE caption = 'TABLESAMPLE (10 PERCENT)' AND \"settings\" = 1",
            "SELECT settings FROM shards WHERE settings = 1 -- FOR UPDATE",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }
}
