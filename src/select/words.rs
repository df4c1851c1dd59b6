//! What a query names, literals and comments aside; for questions that come before it is planned.
use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, Tokenizer},
};

/// Whether `sql` has the identifier `name`, in any case. False for text that is no SQL: the planner says more about it.
pub fn names(sql: &str, name: &str) -> bool {
    tokens(sql).iter().any(|token| is(token, name))
}

/// Whether `sql` calls the function `name`.
pub fn calls(sql: &str, name: &str) -> bool {
    tokens(sql).windows(2).any(|pair| is(&pair[0], name) && pair[1] == Token::LParen)
}

fn is(token: &Token, name: &str) -> bool {
    matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(name))
}

fn tokens(sql: &str) -> Vec<Token> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_comments_and_longer_names_are_no_names() {
        assert!(names("SELECT 1 FROM shards WHERE Sentences >= 8", "sentences"));
        assert!(names(r#"SELECT "sentences" FROM shards"#, "sentences"));
        for sql in [
            "SELECT 1 FROM shards WHERE text_sentences(text, 'sentences') >= 8",
            "SELECT 1 FROM shards -- not of sentences",
            "SELECT 1 /* sentences */ FROM shards",
            "SELECT 'sentences",
        ] {
            assert!(!names(sql, "sentences"), "{sql}");
        }
    }

    #[test]
    fn a_column_of_the_name_is_no_call() {
        assert!(calls("SELECT clip_score (image, caption) FROM shards", "clip_score"));
        assert!(calls("SELECT CLIP_SCORE(image, caption) FROM shards", "clip_score"));
        for sql in ["SELECT clip_score FROM shards", "SELECT my_clip_score(1) FROM shards", "SELECT 'clip_score(1)'"] {
            assert!(!calls(sql, "clip_score"), "{sql}");
        }
    }
}
