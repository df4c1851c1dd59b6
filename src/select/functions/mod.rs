//! Functions for SQL, one per file, named as the user types them.
//!
//! | function | gives |
//! |---|---|
//! | [`image_width`], [`image_height`], [`image_format`], [`image_channels`] | what the header declares |
//! | [`image_megapixels`], [`image_aspect`] | the same, in one number |
//! | [`image_decodes`] | whether training could use it |
//! | [`image_phash`], [`image_dhash`], [`hamming`] | which images look alike |
//! | [`image_luma_mean`], [`image_sharpness`] | dark, blurred and empty images |
//! | [`image_sha256`] | the name of its bytes |
//! | [`resize_jpeg`] | a smaller copy |
//! | [`clip_score`] | how well a text fits an image, where a model is given |
//! | [`text_words`], [`text_chars`], [`text_sentences`], [`text_clip_tokens`] | how long a text is |
//! | [`text_language`], [`text_normalize`] | its language; one spelling of it |
//! | [`tokenize`] | what CLIP reads of it |
//! | [`series_steps`], [`series_seconds`], [`series_rms`], [`series_finite`] | how long, loud and whole a series is |
//! | [`series_windows`], [`series_slice`] | where windows of a series are, and what is in one |
//! | [`sample_uniform`] | a random number per sample, the same in every run |
//!
//! A function of an image is NULL for NULL and for what is no image: bad data is an answer, never an error.
use datafusion::logical_expr::ScalarUDF;

use super::shards::ShardSet;

pub mod clip_score;
pub(crate) mod encoded_images;
pub mod function;
pub mod hamming;
pub mod image_aspect;
pub mod image_channels;
pub mod image_decodes;
pub mod image_dhash;
pub mod image_format;
pub mod image_height;
pub mod image_luma_mean;
pub mod image_megapixels;
pub mod image_phash;
pub mod image_sha256;
pub mod image_sharpness;
pub mod image_width;
pub mod resize_jpeg;
pub mod sample_uniform;
mod series_argument;
pub mod series_finite;
pub mod series_rms;
pub mod series_seconds;
pub mod series_slice;
pub mod series_steps;
pub mod series_windows;
pub mod text_chars;
pub mod text_clip_tokens;
pub mod text_language;
pub mod text_normalize;
pub mod text_sentences;
pub mod text_words;
pub mod tokenize;

/// All of them, for a session over `set`.
///
/// `set` may lack shards of the whole: ids carry the ordinals that they have in it.
pub fn all(set: &ShardSet) -> Vec<ScalarUDF> {
    let mut fingerprints = vec![[0; 32]; set.shards.last().map_or(0, |shard| shard.ordinal as usize + 1)];
    for shard in &set.shards {
        fingerprints[shard.ordinal as usize] = shard.fingerprint;
    }
    over(fingerprints)
}

/// All of them, for a session over shards with these fingerprints, by ordinal; there may be none.
pub fn over(fingerprints: impl IntoIterator<Item = [u8; 32]>) -> Vec<ScalarUDF> {
    vec![
        image_width::image_width(),
        image_height::image_height(),
        image_format::image_format(),
        image_channels::image_channels(),
        image_megapixels::image_megapixels(),
        image_aspect::image_aspect(),
        image_decodes::image_decodes(),
        image_phash::image_phash(),
        image_dhash::image_dhash(),
        hamming::hamming(),
        image_luma_mean::image_luma_mean(),
        image_sharpness::image_sharpness(),
        image_sha256::image_sha256(),
        resize_jpeg::resize_jpeg(),
        text_words::text_words(),
        text_chars::text_chars(),
        text_sentences::text_sentences(),
        text_language::text_language(),
        text_normalize::text_normalize(),
        text_clip_tokens::text_clip_tokens(),
        tokenize::tokenize(),
        series_steps::series_steps(),
        series_seconds::series_seconds(),
        series_rms::series_rms(),
        series_finite::series_finite(),
        series_windows::series_windows(),
        series_slice::series_slice(),
        ScalarUDF::from(sample_uniform::SampleUniform::new(fingerprints)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use datafusion::{
        arrow::util::pretty::pretty_format_batches,
        logical_expr::Documentation,
        prelude::{SessionConfig, SessionContext},
    };

    use super::*;

    fn documentation(function: &ScalarUDF) -> &Documentation {
        function.documentation().unwrap_or_else(|| panic!("{} has no documentation", function.name()))
    }

    #[test]
    fn names_are_unique_and_shadow_nothing() {
        let ours: Vec<String> = over([]).iter().map(|function| function.name().to_owned()).collect();
        assert_eq!(ours.iter().collect::<BTreeSet<_>>().len(), ours.len());
        let theirs = SessionContext::new().state();
        assert!(ours.iter().all(|name| !theirs.scalar_functions().contains_key(name)));
    }

    #[test]
    fn every_function_says_what_it_takes_and_gives() {
        let groups = function::Group::ALL.map(|group| group.name());
        for function in over([]) {
            let documentation = documentation(&function);
            assert!(groups.contains(&documentation.doc_section.label), "{}", function.name());
            assert!(documentation.syntax_example.starts_with(&format!("{}(", function.name())));
            assert!(documentation.arguments.as_ref().is_some_and(|arguments| !arguments.is_empty()));
            assert!(documentation.description.len() > 20 && documentation.sql_example.is_some());
        }
    }

    /// SQL and the table it prints, out of a documentation's example.
    fn example(documentation: &Documentation) -> (String, String) {
        let text = documentation.sql_example.as_deref().unwrap();
        let text = text.strip_prefix("```sql\n> ").and_then(|text| text.strip_suffix("\n```"));
        let (sql, table) = text.and_then(|text| text.split_once(";\n")).expect("`> SQL;` and a table");
        (sql.to_owned(), table.to_owned())
    }

    #[tokio::test]
    async fn examples_print_what_the_documentation_says() {
        // Examples of sampling look at these rows.
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let rows = "CREATE VIEW shards AS SELECT CAST(unnest(range(0, 1000)) AS BIGINT UNSIGNED) AS sample_id";
        session.sql(rows).await.unwrap();
        for function in over([[7; 32]]) {
            session.register_udf(function);
        }
        for function in over([]) {
            let (sql, expected) = example(documentation(&function));
            let context = format!("{}: {sql}", function.name());
            let frame = session.sql(&sql).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            let batches = frame.collect().await.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(pretty_format_batches(&batches).unwrap().to_string(), expected, "{context}");
        }
    }

    #[tokio::test]
    async fn null_and_garbage_are_answers_for_every_function_of_an_image() {
        let session = SessionContext::new();
        let mut calls = Vec::new();
        for function in over([]) {
            let documentation = documentation(&function);
            if documentation.arguments.iter().flatten().any(|(name, _)| name == "image") {
                let call = documentation.syntax_example.replace("side", "8").replace("quality", "80");
                calls.push(format!("CAST({call} AS VARCHAR) AS {}", function.name()));
            }
            session.register_udf(function);
        }
        assert_eq!(calls.len(), 13);
        let images = "(VALUES (NULL), (X''), (X'ffd8ff'), (X'89504e470d0a1a0a'), (X'6e6f20696d616765')) AS t(image)";
        for layout in [
            "image",
            "arrow_cast(image, 'BinaryView')",
            "arrow_cast(image, 'LargeBinary')",
            "named_struct('bytes', image, 'path', 'a.jpg')",
        ] {
            let sql = format!("SELECT {} FROM (SELECT {layout} AS image FROM {images})", calls.join(", "));
            let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
            for batch in batches {
                let schema = batch.schema();
                for (field, column) in schema.fields().iter().zip(batch.columns()) {
                    let of_bytes = ["image_decodes", "image_sha256"].contains(&field.name().as_str());
                    let nulls = if of_bytes { 1 } else { 5 };
                    assert_eq!((column.len(), column.null_count()), (5, nulls), "{} of {layout}", field.name());
                }
            }
        }
    }

    #[tokio::test]
    async fn windows_end_within_their_series_and_slices_are_what_they_say() {
        let session = SessionContext::new();
        over([]).into_iter().for_each(|function| session.register_udf(function));
        let printed = async |sql: &str| {
            let batches = session.sql(sql).await?.collect().await?;
            Ok::<_, datafusion::error::DataFusionError>(pretty_format_batches(&batches)?.to_string())
        };
        // Every number of every window, of series of other lengths and types, one of them too short and one NULL.
        let series = "(VALUES (1, [1, 2, 3, 4, 5, 6]), (2, [7, 8]), (3, NULL), (4, [9, 10, 11]), (5, [12, 13, 14, 15])) AS t(id, s)";
        for layout in ["s", "arrow_cast(s, 'LargeList(Int16)')"] {
            let sql = format!(
                "SELECT id, series_slice(s, 2, w.start, w.length) AS part FROM (SELECT id, s, unnest(series_windows(s, 2, 2, 1)) AS w \
                 FROM (SELECT id, {layout} AS s FROM {series})) ORDER BY id, w.start"
            );
            let table = printed(&sql).await.unwrap();
            let parts: Vec<&str> = table.lines().filter(|line| line.contains('[')).collect();
            let expected = ["| 1  | [1, 2, 3, 4]     |", "| 1  | [3, 4, 5, 6]     |", "| 5  | [12, 13, 14, 15] |"];
            assert_eq!(parts, expected, "{table}");
        }
        let table =
            printed("SELECT series_slice([1, 2], 1, 1, 2) AS a, series_slice([1, 2], 1, 2, 0) AS b").await.unwrap();
        assert!(table.contains("|   | [] |"), "{table}");
        for (call, part) in [("series_windows([1], 1, 1, 0)", "above 0"), ("series_slice([1], 0, 0, 1)", "0 channels")]
        {
            let error = printed(&format!("SELECT {call}")).await.unwrap_err().to_string();
            assert!(error.contains(part), "{call}: {error}");
        }
    }

    #[tokio::test]
    async fn other_arguments_are_refused_by_name() {
        let session = SessionContext::new();
        over([]).into_iter().for_each(|function| session.register_udf(function));
        for (call, part) in [
            ("image_width('a.jpg')", "image_width(image) takes an encoded image"),
            ("image_width(X'00', 1)", "image_width(image) was given 2 arguments"),
            ("image_width(named_struct('path', 'a'))", "struct with the field `bytes`"),
            ("text_words(3)", "text_words(text) takes text, not Int64"),
            ("series_rms(['a'])", "takes a list of numbers"),
            ("series_windows([1.0], 1, 1)", "was given 3 arguments"),
            ("hamming(1.5, 2)", "takes a whole number"),
        ] {
            let error = session.sql(&format!("SELECT {call}")).await.unwrap_err().to_string();
            assert!(error.contains(part), "{call}: {error}");
        }
    }
}
