//! Our errors on their way through DataFusion, and back.

use std::any::Any;

use datafusion::error::DataFusionError;

use crate::error::{Error, Stage};

/// As a plan's stream carries it.
pub fn into_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error that went in, or DataFusion's own as a failure of `stage`.
pub fn from_datafusion(error: DataFusionError, stage: Stage) -> Error {
    match error {
        DataFusionError::External(cause) => match cause.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(cause) => Error::at(stage, "", "the plan failed").caused_by(cause),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner, stage),
        other => Error::at(stage, "", "the plan failed").caused_by(other),
    }
}

/// What a panic said.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_come_back_as_they_went_in() {
        let error = into_datafusion(Error::at(Stage::Scan, "a row", "is gone")).context("while reading");
        assert_eq!(from_datafusion(error, Stage::Prefetch).to_string(), "scan: a row: is gone");
        let foreign = from_datafusion(DataFusionError::Plan("odd".into()), Stage::Prefetch);
        assert!(foreign.report().contains("odd"), "{}", foreign.report());
    }
}
