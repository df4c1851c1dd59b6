//! `clip_score(image, caption)`: a function that somebody has to supply, since the model is not of this half.
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{AsArray as _, Float32Array},
        datatypes::DataType,
    },
    common::{DataFusionError, Result, exec_err, plan_err},
    logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::{
    encoded_images::EncodedImages,
    function::{Group, IMAGE, Takes},
};
use crate::select::tables::TableProvenance;

/// As SQL writes it.
pub const NAME: &str = "clip_score";
/// Rows that go to the model with one call: what they decode to is in memory together.
const ROWS_AT_ONCE: usize = 256;

/// One score per row; `None` where image or text is missing or the image is bad.
pub type PairScores = dyn Fn(&[Option<&[u8]>], &[Option<&str>]) -> crate::Result<Vec<Option<f32>>> + Send + Sync;

/// A model's scores, for sessions.
#[derive(Clone)]
pub struct ClipScores {
    scores: Arc<PairScores>,
    provenance: TableProvenance,
}

impl fmt::Debug for ClipScores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipScores").field("provenance", &self.provenance).finish_non_exhaustive()
    }
}

impl ClipScores {
    /// `provenance` tells models and variants apart: its hash decides whether two are the same function.
    pub fn new(scores: Arc<PairScores>, provenance: TableProvenance) -> Self {
        Self { scores, provenance }
    }

    /// What a selection remembers of the model.
    pub fn provenance(&self) -> &TableProvenance {
        &self.provenance
    }

    /// For a session.
    pub fn into_udf(self) -> ScalarUDF {
        ScalarUDF::new_from_impl(Function::new(Some(self)))
    }
}

/// The function of a session without a model: calling it is an error that says how to give one.
pub fn without_weights() -> ScalarUDF {
    ScalarUDF::new_from_impl(Function::new(None))
}

/// What `diptych functions` prints.
pub fn documentation() -> Documentation {
    let description = "How well a text fits an image by a CLIP: the CLIPScore of --clip-score's variant. The model is named by \
                       --weights, or --run, of `diptych sql` and `diptych select`, and by [scan.clip_score] of a pipeline; without \
                       one the function cannot be called. \
                       NULL where the image is bad. A score is the same to the last bits of an f32 whatever rows stand \
                       beside it.";
    Documentation::builder(Group::Image.section(), description, "clip_score(image, caption)")
        .with_argument(IMAGE.0, IMAGE.1)
        .with_argument("caption", "A text; what the model does not read of a long one is cut off.")
        .with_sql_example(
            "```sql\n> SELECT sample_id FROM (SELECT sample_id, percent_rank() OVER (ORDER BY score DESC NULLS LAST) AS share \
             FROM (SELECT sample_id, clip_score(image, caption) AS score FROM shards)) WHERE share <= 0.3;\n```",
        )
        .build()
}

#[derive(Debug)]
struct Function {
    model: Option<ClipScores>,
    documentation: Documentation,
    signature: Signature,
}

impl Function {
    fn new(model: Option<ClipScores>) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { model, documentation: documentation(), signature }
    }

    fn identity(&self) -> Option<&str> {
        self.model.as_ref().map(|model| model.provenance.blake3.as_str())
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        if self.model.is_none() {
            return plan_err!(
                "{NAME}(image, caption) needs a CLIP: name its weights with --weights of `diptych sql` or `diptych select`, \
                 or a trained run with --run; a pipeline names it in [scan.clip_score]"
            );
        }
        let [image, text] = given else {
            return plan_err!("{NAME}(image, caption) was given {} arguments", given.len());
        };
        let coerce = |takes: Takes, given: &DataType| match takes.coerce(given) {
            Some(data_type) => Ok(data_type),
            None => plan_err!("{NAME}(image, caption) takes {takes}, not {given}"),
        };
        Ok(vec![coerce(Takes::Image, image)?, coerce(Takes::Text, text)?])
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float32)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(model) = &self.model else { return exec_err!("{NAME} without a model") };
        let rows = args.number_rows;
        let arrays = args.args.into_iter().map(|argument| argument.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let [images, texts] = &arrays[..] else { return exec_err!("{NAME} takes two arguments") };
        let (images, texts) = (EncodedImages::new(images)?, texts.as_string_view());
        let images: Vec<Option<&[u8]>> = (0..rows).map(|row| images.get(row)).collect();
        let texts: Vec<Option<&str>> = texts.iter().collect();
        let mut scores = Vec::with_capacity(rows);
        for (images, texts) in images.chunks(ROWS_AT_ONCE).zip(texts.chunks(ROWS_AT_ONCE)) {
            scores.extend((model.scores)(images, texts).map_err(|error| DataFusionError::External(Box::new(error)))?);
        }
        Ok(ColumnarValue::Array(Arc::new(Float32Array::from(scores))))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{arrow::datatypes::Float32Type, prelude::SessionContext};

    use super::*;

    /// Bytes of the image less letters of the text.
    fn lengths() -> ClipScores {
        let score = |(image, text): (&Option<&[u8]>, &Option<&str>)| {
            Some(image.as_ref()?.len() as f32 - text.as_ref()?.len() as f32)
        };
        let scores = move |images: &[Option<&[u8]>], texts: &[Option<&str>]| {
            assert!(images.len() <= ROWS_AT_ONCE, "{} rows at once", images.len());
            Ok(images.iter().zip(texts).map(score).collect())
        };
        let provenance = TableProvenance { name: NAME.into(), files: vec![], blake3: "00".into() };
        ClipScores::new(Arc::new(scores), provenance)
    }

    #[tokio::test]
    async fn rows_reach_the_model_in_pieces_and_nulls_are_null() {
        let session = SessionContext::new();
        session.register_udf(lengths().into_udf());
        let sql = "SELECT clip_score(image, text) AS score FROM (SELECT X'0011223344' AS image, \
                   CASE WHEN i % 2 = 0 THEN 'abc' END AS text FROM (SELECT unnest(range(0, 1000)) AS i)) ORDER BY 1";
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        let scores: Vec<Option<f32>> =
            batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Float32Type>().iter()).collect();
        assert_eq!((scores.len(), scores[0], scores[499], scores[500]), (1_000, Some(2.0), Some(2.0), None));
        let one = session.sql("SELECT clip_score(X'00', 'ab')").await.unwrap().collect().await.unwrap();
        assert_eq!(one[0].column(0).as_primitive::<Float32Type>().value(0), -1.0);
    }

    #[tokio::test]
    async fn other_arguments_are_refused_by_name() {
        let session = SessionContext::new();
        session.register_udf(lengths().into_udf());
        for (call, part) in [
            ("clip_score(X'00')", "was given 1 arguments"),
            ("clip_score('a.jpg', 'a')", "takes an encoded image"),
            ("clip_score(X'00', 1)", "takes text, not Int64"),
        ] {
            let error = session.sql(&format!("SELECT {call}")).await.unwrap_err().to_string();
            assert!(error.contains(part), "{call}: {error}");
        }
    }

    #[tokio::test]
    async fn without_a_model_the_error_names_the_option() {
        let session = SessionContext::new();
        session.register_udf(without_weights());
        let error = session.sql("SELECT clip_score(X'00', 'a')").await.unwrap_err().to_string();
        assert!(error.contains("--weights") && error.contains("--run"), "{error}");
        session.register_udf(lengths().into_udf());
        session.sql("SELECT clip_score(X'00', 'a')").await.expect("the later one counts");
    }
}
