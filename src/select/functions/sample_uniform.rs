//! `sample_uniform(sample_id, seed)`: what `random()` is for, reproducibly.
use std::sync::Arc;

use datafusion::arrow::array::{Array, Float64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::{as_int64_array, as_uint64_array};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::function::{Group, documented};
use crate::seed;
use crate::select::shards::{MAX_ROWS, ROW_BITS};

/// Uniform in [0, 1), a pure function of seed and sample.
///
/// The sample is known by its shard's fingerprint and its row, so the number stays when files are moved or renamed and
/// when shards are added. NULL where an argument is NULL.
///
/// ```
/// # use datafusion::logical_expr::ScalarUDF;
/// # use datafusion::prelude::SessionContext;
/// # use diptych::select::functions::sample_uniform::SampleUniform;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> datafusion::error::Result<()> {
/// # let session = SessionContext::new();
/// # session.register_udf(ScalarUDF::from(SampleUniform::new([[7; 32]])));
/// let sql = "SELECT count(*) FROM (SELECT CAST(unnest(range(0, 1000)) AS BIGINT UNSIGNED) AS sample_id)
///            WHERE sample_uniform(sample_id, 42) < 0.1";
/// # let rows = session.sql(sql).await?.collect().await?;
/// # let count = datafusion::common::cast::as_int64_array(rows[0].column(0))?.value(0);
/// assert!((70..130).contains(&count), "{count}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SampleUniform {
    signature: Signature,
    /// First 16 bytes of each shard's fingerprint as two numbers, by ordinal.
    shards: Arc<[[u64; 2]]>,
    documentation: Documentation,
}

impl SampleUniform {
    /// For a set whose shards have these fingerprints, in the order of their ordinals.
    pub fn new(fingerprints: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| (number << 8) | u64::from(byte));
        let shards = fingerprints.into_iter().map(|bytes| [number(&bytes[..8]), number(&bytes[8..16])]);
        let signature = Signature::exact(vec![DataType::UInt64, DataType::Int64], Volatility::Immutable);
        Self { signature, shards: shards.collect(), documentation: documentation() }
    }
}

fn documentation() -> Documentation {
    documented(
        Group::Sampling,
        "sample_uniform(sample_id, seed)",
        "A random number in [0, 1) per sample, the same in every run: what `random()` is for, reproducibly. It follows \
         the shard's fingerprint and the row, so it stays when files are moved or renamed and when shards are added.",
        &[("sample_id", "That of the table `shards`, unchanged."), ("seed", "A whole number that names the draw.")],
        "> SELECT count(*) BETWEEN 70 AND 130 AS about_a_tenth FROM shards WHERE sample_uniform(sample_id, 42) < 0.1;
+---------------+
| about_a_tenth |
+---------------+
| true          |
+---------------+",
    )
}

impl ScalarUDFImpl for SampleUniform {
    fn name(&self) -> &'static str {
        "sample_uniform"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (ids, seeds) = (as_uint64_array(&arrays[0])?, as_int64_array(&arrays[1])?);
        let mut numbers = Vec::with_capacity(ids.len());
        for at in 0..ids.len() {
            if ids.is_null(at) || seeds.is_null(at) {
                numbers.push(None);
                continue;
            }
            let id = ids.value(at);
            let Some(&[low, high]) = self.shards.get((id >> ROW_BITS) as usize) else {
                return exec_err!("sample_uniform: {id} is no sample_id of these shards");
            };
            let seed = seeds.value(at).cast_unsigned();
            numbers.push(Some(seed::draws(seed, "sample_uniform", &[low, high, id & (MAX_ROWS - 1)]).uniform()));
        }
        Ok(ColumnarValue::Array(Arc::new(Float64Array::from(numbers))))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::ScalarUDF;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn numbers(fingerprints: &[[u8; 32]], arguments: &str) -> Result<Vec<Option<f64>>> {
        let session = SessionContext::new();
        session.register_udf(ScalarUDF::from(SampleUniform::new(fingerprints.iter().copied())));
        let sql = format!("SELECT sample_uniform({arguments}) FROM (VALUES (0), (1), (NULL)) AS t(n)");
        let batches = session.sql(&sql).await?.collect().await?;
        let column = datafusion::common::cast::as_float64_array(batches[0].column(0))?;
        Ok(column.iter().collect())
    }

    #[tokio::test]
    async fn numbers_follow_seed_and_row_and_keep_nulls() {
        let id = "CAST(n AS BIGINT UNSIGNED)";
        let seven = numbers(&[[1; 32]], &format!("{id}, 7")).await.unwrap();
        assert_eq!(seven, numbers(&[[1; 32]], &format!("{id}, 7")).await.unwrap());
        assert_eq!(seven[2], None);
        assert_ne!(seven[0], seven[1]);
        assert_ne!(seven, numbers(&[[1; 32]], &format!("{id}, 8")).await.unwrap());
        assert_ne!(seven, numbers(&[[2; 32]], &format!("{id}, 7")).await.unwrap());
    }

    #[tokio::test]
    async fn a_shard_that_moves_to_another_ordinal_keeps_its_numbers() {
        let first = numbers(&[[1; 32]], "CAST(n AS BIGINT UNSIGNED), 7").await.unwrap();
        let second = format!("CAST(n + {} AS BIGINT UNSIGNED), 7", 1_u64 << ROW_BITS);
        assert_eq!(first, numbers(&[[2; 32], [1; 32]], &second).await.unwrap());
        let text = numbers(&[[1; 32]], &second).await.unwrap_err().to_string();
        assert!(text.contains("is no sample_id"), "{text}");
    }
}
