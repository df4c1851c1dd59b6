//! Folders that a command made and takes away again where it fails.
use std::io;
use std::path::{Path, PathBuf};

/// Folders that were not there before, the innermost first.
#[derive(Debug, Clone, Default)]
pub(crate) struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    /// Makes `folder` and those above it where they are not there.
    pub(crate) fn make(folder: &Path) -> io::Result<Self> {
        let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = folder.ancestors().take_while(is_new).map(Path::to_owned).collect();
        std::fs::create_dir_all(folder)?;
        Ok(Self(made))
    }

    /// Removes those that are empty: what somebody put there meanwhile stays.
    pub(crate) fn remove_if_empty(&self) {
        let _ = self.0.iter().try_for_each(std::fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_and_empty_folders_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let inner = parent.path().join("old/a/b");
        std::fs::create_dir(parent.path().join("old")).unwrap();
        let made = MadeFolders::make(&inner).unwrap();
        assert!(inner.is_dir());
        std::fs::write(parent.path().join("old/a/mine"), "x").unwrap();
        made.remove_if_empty();
        assert!(!inner.exists() && parent.path().join("old/a/mine").exists());
        std::fs::remove_file(parent.path().join("old/a/mine")).unwrap();
        std::fs::remove_dir(parent.path().join("old/a")).unwrap();
        MadeFolders::make(&inner).unwrap().remove_if_empty();
        assert!(parent.path().join("old").is_dir() && !parent.path().join("old/a").exists());
        MadeFolders::make(&parent.path().join("old")).unwrap().remove_if_empty();
        assert!(parent.path().join("old").is_dir());
    }
}
