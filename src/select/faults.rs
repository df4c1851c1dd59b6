//! Many failures as one error.
use crate::error::{Error, Result, Stage};

/// Faults that one error names.
const MAX_FAULTS_NAMED: usize = 20;

/// Failures of many shards on their way into one error.
#[derive(Default)]
pub(crate) struct Faults(Vec<Error>);

impl Faults {
    /// The value, or nothing and one fault more.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// # Errors
    /// All faults, if there are any.
    pub(crate) fn into_result(mut self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            count => {
                let stage = self.0.iter().find_map(|error| match error {
                    Error::Stage { stage, .. } => Some(*stage),
                    _ => None,
                });
                let mut reason = format!("{count} faults in the shards:");
                for error in self.0.iter().take(MAX_FAULTS_NAMED) {
                    reason.push_str("\n  ");
                    reason.push_str(&error.report().replace('\n', "\n  "));
                }
                if count > MAX_FAULTS_NAMED {
                    reason.push_str(&format!("\n  and {} more", count - MAX_FAULTS_NAMED));
                }
                Err(Error::at(stage.unwrap_or(Stage::Select), "", reason))
            }
        }
    }
}
