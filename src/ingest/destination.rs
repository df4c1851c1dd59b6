//! The folder an import writes into: claimed by one import, and never showing half a file.
//!
//! `diptych.importing` stands in the folder, locked, for as long as an import runs. It is also a journal: a file's name is
//! in it before the file is begun, so that the next import removes exactly what a crashed one left. Every file is written
//! as `NAME.tmp`, fsynced, renamed, and its folder fsynced.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::made_folders::MadeFolders;
use super::manifest::{Manifest, is_plain_name};
use super::{IMPORTING_FILE, MANIFEST_FILE, QUARANTINE_FILE};
use crate::error::{Context, Error, Result, Stage};

/// A folder in the folder, where the successor of a data set is written.
const BESIDE: &str = "diptych.replacing";

const CANNOT_WRITE: &str = "cannot be written; check permissions and free space, and import again";

/// A claimed folder.
#[derive(Debug)]
pub struct Destination {
    folder: PathBuf,
    made: MadeFolders,
    /// Locked until dropped; other processes see an import running.
    journal: File,
}

impl Destination {
    /// Claims a folder, which is made where there is none. Nothing in it changes yet.
    ///
    /// # Errors
    /// Another import is running in it; it holds a data set and `overwrite` is off; it holds Parquet files that no
    /// import wrote.
    pub fn claim(folder: &Path, overwrite: bool) -> Result<Self> {
        let place = folder.display().to_string();
        let made = MadeFolders::make(folder).context(Stage::Import, &place, "cannot be made a folder; name another")?;
        refuse_occupied(folder, overwrite)?;
        let path = folder.join(IMPORTING_FILE);
        let journal = OpenOptions::new().read(true).append(true).create(true).open(&path).context(
            Stage::Import,
            path.display().to_string(),
            CANNOT_WRITE,
        )?;
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let reason = "another import is writing into this folder; wait for it, or name another folder";
                return Err(Error::at(Stage::Import, place, reason));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(
                    Stage::Import,
                    place,
                    "cannot be locked; name a folder on another file system",
                );
            }
        }
        let claimed = Self { folder: folder.to_owned(), made, journal };
        // The other import can have finished between the first look and the lock.
        if let Err(error) = refuse_occupied(folder, overwrite) {
            claimed.abandon();
            return Err(error);
        }
        if folder.join(MANIFEST_FILE).exists() {
            // An import that ended between its manifest and here: its files are a data set, and none of them a leftover.
            claimed.journal.set_len(0).context(Stage::Import, claimed.place(IMPORTING_FILE), CANNOT_WRITE)?;
        }
        Ok(claimed)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a data set is there, which the import is to replace.
    pub fn holds_data_set(&self) -> bool {
        self.folder.join(MANIFEST_FILE).exists()
    }

    /// Claims the folder where the successor of the data set is written, so that the old one stays whole meanwhile.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub fn claim_beside(&self) -> Result<Self> {
        Self::claim(&self.folder.join(BESIDE), true)
    }

    /// Removes the old data set and moves the files of the new one here; the manifest is still to be written.
    ///
    /// # Errors
    /// A file cannot be removed or moved. The new data set is still whole in its own folder if none was moved yet.
    pub fn take_from_beside(&mut self, manifest: &Manifest) -> Result<()> {
        let beside = self.folder.join(BESIDE);
        self.clear()?;
        let names = manifest.shards.iter().map(|shard| shard.file.as_str()).chain([QUARANTINE_FILE]);
        for name in names.filter(|name| beside.join(name).exists()) {
            self.note(name)?;
            let moved = std::fs::rename(beside.join(name), self.folder.join(name));
            moved.context(Stage::Import, self.place(name), CANNOT_WRITE)?;
        }
        self.sync_folder()
    }

    /// Whether every shard of the successor still lies in its own folder.
    fn is_whole_beside(&self) -> bool {
        let beside = self.folder.join(BESIDE);
        let manifest = Manifest::load(&beside).ok().flatten();
        manifest.is_some_and(|manifest| manifest.shards.iter().all(|shard| beside.join(&shard.file).exists()))
    }

    fn remove_beside(&self) {
        // Nothing reads what may be left there, and the next import that replaces this data set empties it.
        let _ = std::fs::remove_dir_all(self.folder.join(BESIDE));
    }

    /// Removes what a crashed import left and, where overwriting was allowed, the data set that is there.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        let mut names = self.journalled()?;
        if let Some(old) = Manifest::load(&self.folder)? {
            // In the journal before the manifest goes: a crash in between leaves nothing that nobody would remove.
            for shard in old.shards {
                self.note(&shard.file)?;
                names.push(shard.file);
            }
            self.note(QUARANTINE_FILE)?;
            names.push(QUARANTINE_FILE.to_owned());
            self.remove(MANIFEST_FILE)?;
            self.sync_folder()?;
        }
        for name in names {
            self.remove(&name)?;
            self.remove(&temporary(&name))?;
        }
        self.remove(&temporary(MANIFEST_FILE))?;
        self.sync_folder()
    }

    /// Begins a file: notes its name and opens it under a temporary one.
    ///
    /// # Errors
    /// Either fails.
    pub fn begin(&mut self, name: &str) -> Result<File> {
        self.note(name)?;
        let path = self.folder.join(temporary(name));
        File::create(&path).context(Stage::Import, path.display().to_string(), CANNOT_WRITE)
    }

    /// Makes a file that was begun appear, complete, under its name.
    ///
    /// # Errors
    /// It cannot be flushed to the disk or renamed.
    pub fn publish(&self, name: &str, file: &File) -> Result<()> {
        let path = self.folder.join(name);
        let place = path.display().to_string();
        file.sync_all().context(Stage::Import, &place, CANNOT_WRITE)?;
        std::fs::rename(self.folder.join(temporary(name)), &path).context(Stage::Import, &place, CANNOT_WRITE)?;
        self.sync_folder()
    }

    /// Writes the manifest, after everything else, and gives the folder back.
    ///
    /// # Errors
    /// It cannot be written; the data set is then not there.
    pub fn finish(mut self, manifest: &Manifest) -> Result<()> {
        let text = manifest.to_json()?;
        let result = self.begin(MANIFEST_FILE).and_then(|mut file| {
            file.write_all(text.as_bytes()).context(Stage::Import, MANIFEST_FILE, CANNOT_WRITE)?;
            self.publish(MANIFEST_FILE, &file)
        });
        if let Err(error) = result {
            self.abandon();
            return Err(error);
        }
        self.remove_beside();
        self.remove(IMPORTING_FILE)?;
        self.sync_folder()
    }

    /// Removes what this import wrote and gives the folder back. What cannot be removed stays in the journal.
    ///
    /// A successor that is whole in its own folder stays there where its predecessor is gone: it is the only one left.
    pub fn abandon(self) {
        if self.folder.join(MANIFEST_FILE).exists() {
            // The old data set is whole as long as its manifest is there, whatever the journal was about to do with it.
            self.remove_beside();
            let _ = self.remove(IMPORTING_FILE);
            return;
        }
        if !self.is_whole_beside() {
            self.remove_beside();
        }
        let names = self.journalled().unwrap_or_default();
        let removed = names.iter().all(|name| self.remove(name).is_ok() && self.remove(&temporary(name)).is_ok());
        if removed {
            // A journal that stays behind does no harm: the next import empties it.
            let _ = self.remove(IMPORTING_FILE);
            self.made.remove_if_empty();
        }
    }

    fn note(&mut self, name: &str) -> Result<()> {
        let line = format!("{name}\n");
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.sync_data());
        written.context(Stage::Import, self.place(IMPORTING_FILE), CANNOT_WRITE)
    }

    fn journalled(&self) -> Result<Vec<String>> {
        let path = self.folder.join(IMPORTING_FILE);
        let mut text = String::new();
        File::open(&path).and_then(|mut file| file.read_to_string(&mut text)).context(
            Stage::Import,
            path.display().to_string(),
            "cannot be read; remove it if no import is running",
        )?;
        Ok(text.lines().filter(|name| is_plain_name(name)).map(str::to_owned).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        match std::fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(Stage::Import, self.place(name), "cannot be removed; check permissions")
            }
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> Result<()> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.context(Stage::Import, self.folder.display().to_string(), CANNOT_WRITE)
    }

    fn place(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

fn refuse_occupied(folder: &Path, overwrite: bool) -> Result<()> {
    let place = folder.display().to_string();
    if Manifest::load(folder)?.is_some() {
        if overwrite {
            return Ok(());
        }
        let reason = "holds a data set already; name another folder, or replace it with --overwrite";
        return Err(Error::at(Stage::Import, place, reason));
    }
    if folder.join(IMPORTING_FILE).exists() {
        return Ok(());
    }
    let cannot_list = "cannot be listed; check permissions";
    for entry in std::fs::read_dir(folder).context(Stage::Import, &place, cannot_list)? {
        let name = entry.context(Stage::Import, &place, cannot_list)?.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "parquet") {
            let reason = format!("holds {}, which no import wrote; name another folder", name.display());
            return Err(Error::at(Stage::Import, place, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::manifest::ManifestShard;
    use crate::schema::Schema;

    fn manifest(files: &[&str]) -> Manifest {
        let shards = files.iter().zip(0..).map(|(file, ordinal)| ManifestShard {
            ordinal,
            file: (*file).to_owned(),
            rows: 1,
            bytes: 1,
            fingerprint: String::new(),
        });
        Manifest::new(&Schema::named("image_text").unwrap(), shards.collect())
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(destination: &mut Destination, name: &str) {
        let mut file = destination.begin(name).unwrap();
        file.write_all(b"rows").unwrap();
        destination.publish(name, &file).unwrap();
    }

    #[test]
    fn a_file_is_invisible_until_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let mut destination = Destination::claim(folder.path(), false).unwrap();
        let file = destination.begin("a.parquet").unwrap();
        assert!(!names(folder.path()).contains(&"a.parquet".to_owned()));
        destination.publish("a.parquet", &file).unwrap();
        destination.finish(&manifest(&["a.parquet"])).unwrap();
        assert_eq!(names(folder.path()), ["a.parquet", "diptych.json"]);
    }

    #[test]
    fn what_a_crash_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut crashed = Destination::claim(folder.path(), false).unwrap();
        write(&mut crashed, "a.parquet");
        crashed.begin("b.parquet").unwrap();
        drop(crashed);
        std::fs::write(folder.path().join("mine.parquet"), b"").unwrap();
        let mut next = Destination::claim(folder.path(), false).unwrap();
        next.clear().unwrap();
        assert_eq!(names(folder.path()), ["diptych.importing", "mine.parquet"]);
        next.abandon();
        assert_eq!(names(folder.path()), ["mine.parquet"]);
    }

    #[test]
    fn one_import_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Destination::claim(folder.path(), false).unwrap();
        let second = Destination::claim(folder.path(), false).unwrap_err().to_string();
        assert!(second.contains("another import is writing"), "{second}");
        drop(first);
        Destination::claim(folder.path(), false).unwrap();
    }

    #[test]
    fn a_data_set_is_replaced_only_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Destination::claim(folder.path(), false).unwrap();
        write(&mut first, "a.parquet");
        first.finish(&manifest(&["a.parquet"])).unwrap();
        let refused = Destination::claim(folder.path(), false).unwrap_err().to_string();
        assert!(refused.contains("--overwrite"), "{refused}");
        assert_eq!(names(folder.path()), ["a.parquet", "diptych.json"]);
        let mut second = Destination::claim(folder.path(), true).unwrap();
        assert!(folder.path().join("a.parquet").exists(), "claiming alone must not destroy");
        second.clear().unwrap();
        assert_eq!(names(folder.path()), ["diptych.importing"]);
    }

    #[test]
    fn giving_up_before_the_first_row_leaves_the_old_data_set_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Destination::claim(folder.path(), false).unwrap();
        write(&mut first, "a.parquet");
        first.finish(&manifest(&["a.parquet"])).unwrap();
        // As if the process had died after its manifest, with the journal still there.
        std::fs::write(folder.path().join(IMPORTING_FILE), "a.parquet\n").unwrap();
        assert!(Destination::claim(folder.path(), false).is_err());
        Destination::claim(folder.path(), true).unwrap().abandon();
        assert_eq!(names(folder.path()), ["a.parquet", "diptych.json"]);
    }

    #[test]
    fn a_successor_that_cannot_be_moved_stays_only_where_it_is_whole() {
        for (blocked, left) in [("b.parquet", Some(["b.parquet", "c.parquet", "diptych.json"])), ("c.parquet", None)] {
            let folder = tempfile::tempdir().unwrap();
            let mut first = Destination::claim(folder.path(), false).unwrap();
            write(&mut first, "a.parquet");
            first.finish(&manifest(&["a.parquet"])).unwrap();
            let mut next = Destination::claim(folder.path(), true).unwrap();
            let mut beside = next.claim_beside().unwrap();
            let successor = manifest(&["b.parquet", "c.parquet"]);
            write(&mut beside, "b.parquet");
            write(&mut beside, "c.parquet");
            beside.finish(&successor).unwrap();
            // No file can be moved onto a folder.
            std::fs::create_dir(folder.path().join(blocked)).unwrap();
            next.take_from_beside(&successor).unwrap_err();
            next.abandon();
            let beside = folder.path().join(BESIDE);
            assert_eq!(beside.exists().then(|| names(&beside)), left.map(|names| names.map(str::to_owned).to_vec()));
            let files = names(folder.path()).into_iter().filter(|name| folder.path().join(name).is_file());
            assert_eq!(files.collect::<Vec<_>>(), ["diptych.importing"], "the folder in the way stays in the journal");
        }
    }

    #[test]
    fn foreign_parquet_files_are_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.parquet"), b"").unwrap();
        for overwrite in [false, true] {
            let refused = Destination::claim(folder.path(), overwrite).unwrap_err().to_string();
            assert!(refused.contains("mine.parquet, which no import wrote"), "{refused}");
        }
        assert_eq!(names(folder.path()), ["mine.parquet"]);
    }
}
