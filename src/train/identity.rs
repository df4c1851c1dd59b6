//! What must not change between a checkpoint and its continuation, and what merely should not.
use std::fmt::Write as _;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::device::{Machine, describe};
use crate::error::{Error, Result, Stage};

/// What decides which batches a run sees and what it does with them. A change is refused unless it is accepted by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Digest of the selection, hexadecimal. Name of a change: `selection`.
    pub selection_digest: String,
    /// Version of the order, lanes and windows, in words. Name: `order`.
    pub order: String,
    /// The run's seed. Name: `seed`.
    pub seed: u64,
    /// Items of a global batch. Name: `batch`.
    pub batch_rows: usize,
    /// Pairing and augmentation, in words. Name: `recipe`.
    pub recipe: String,
    /// Encoder, head and loss, in words. Name: `method`.
    pub method: String,
    /// The optimizer and its settings, in words. Name: `optimizer`.
    pub optimizer: String,
}

impl Identity {
    /// The names by which changes may be accepted.
    pub const NAMES: [&str; 7] = ["selection", "order", "seed", "batch", "recipe", "method", "optimizer"];

    /// Whether these are names of changes.
    ///
    /// # Errors
    /// Lists those that are not, and those that there are.
    pub fn check_names(accepted: &[String]) -> Result<()> {
        let unknown: Vec<&str> =
            accepted.iter().map(String::as_str).filter(|name| !Self::NAMES.contains(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let reason = format!("no change has the name {}; there are {}", unknown.join(", "), Self::NAMES.join(", "));
        Err(Error::at(Stage::CommandLine, "--accept-change", reason))
    }

    fn parts(&self) -> [(&'static str, String); 7] {
        let [selection, order, seed, batch, recipe, method, optimizer] = Self::NAMES;
        [
            (selection, self.selection_digest.clone()),
            (order, self.order.clone()),
            (seed, self.seed.to_string()),
            (batch, self.batch_rows.to_string()),
            (recipe, self.recipe.clone()),
            (method, self.method.clone()),
            (optimizer, self.optimizer.clone()),
        ]
    }

    /// Compares a checkpoint's identity with `self`, the one about to continue it.
    ///
    /// The names of accepted changes come back. After one, the cursor still counts batches: items of the epoch under way
    /// may be seen twice or not at all.
    ///
    /// # Errors
    /// Lists every change that `accepted` does not name.
    pub fn check(&self, saved: &Self, accepted: &[String]) -> Result<Vec<&'static str>> {
        let mut changes = Vec::new();
        let mut refused = String::new();
        for ((name, now), (_, was)) in self.parts().into_iter().zip(saved.parts()) {
            if now == was {
                continue;
            }
            if accepted.iter().any(|accepted| accepted == name) {
                changes.push(name);
            } else {
                // Writing to a String cannot fail.
                let _ =
                    write!(refused, "\n  {name} was {was}, is {now}; `--accept-change {name}` goes on all the same");
            }
        }
        if refused.is_empty() {
            return Ok(changes);
        }
        Err(Error::at(Stage::Checkpoint, "", format!("the run would not continue as it began:{refused}")))
    }
}

/// Where a checkpoint was written. Elsewhere a run continues, but not to the bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Device, kind of CPU, threads.
    #[serde(flatten)]
    pub machine: Machine,
    /// BLAKE3 of the running binary, hexadecimal.
    pub binary: String,
}

impl Origin {
    /// This machine with the device of that name, this binary.
    pub fn here(device: &str) -> Self {
        static BINARY: OnceLock<String> = OnceLock::new();
        let hash = || std::env::current_exe().and_then(std::fs::read).map(|b| blake3::hash(&b).to_hex().to_string());
        let binary = BINARY.get_or_init(|| hash().unwrap_or_else(|_| "unknown".to_owned())).clone();
        Self { machine: describe(device), binary }
    }

    /// What differs from where the checkpoint was written, in words.
    pub fn differences(&self, saved: &Self) -> Vec<String> {
        let parts = [
            ("device", &self.machine.device, &saved.machine.device),
            ("kind of CPU", &self.machine.processor, &saved.machine.processor),
            ("number of threads", &self.machine.threads.to_string(), &saved.machine.threads.to_string()),
            ("binary", &self.binary, &saved.binary),
        ];
        let differing = parts.into_iter().filter(|(_, now, was)| now != was);
        differing.map(|(name, now, was)| format!("the {name} was {was}, is {now}: the last bits may differ")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            selection_digest: "ab".into(),
            order: "v1, 8 lanes".into(),
            seed: 1,
            batch_rows: 256,
            recipe: "two_views".into(),
            method: "simclr".into(),
            optimizer: "sgd".into(),
        }
    }

    #[test]
    fn every_change_is_listed_and_may_be_accepted_by_name() {
        let now = Identity { seed: 2, batch_rows: 128, ..identity() };
        assert_eq!(identity().check(&identity(), &[]).unwrap(), Vec::<&str>::new());
        let error = now.check(&identity(), &[]).unwrap_err().to_string();
        assert!(error.contains("seed was 1, is 2") && error.contains("batch was 256, is 128"), "{error}");
        let error = now.check(&identity(), &["seed".into()]).unwrap_err().to_string();
        assert!(!error.contains("seed was") && error.contains("batch was"), "{error}");
        assert_eq!(now.check(&identity(), &["seed".into(), "batch".into()]).unwrap(), ["seed", "batch"]);
    }

    #[test]
    fn a_name_that_no_change_has_is_a_mistake_of_the_command_line() {
        Identity::check_names(&["seed".into(), "batch".into()]).unwrap();
        let error = Identity::check_names(&["seed".into(), "bogus".into()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("name bogus; there are selection, order, seed"), "{error}");
    }

    #[test]
    fn another_machine_is_told_apart() {
        let here = Origin::here("cpu");
        assert!(here.differences(&here).is_empty());
        let mut other = here.clone();
        other.machine.threads += 1;
        assert_eq!(here.differences(&other).len(), 1);
        assert_eq!(serde_json::from_str::<Origin>(&serde_json::to_string(&here).unwrap()).unwrap(), here);
    }
}
