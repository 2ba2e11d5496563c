//! How a pull ends.

use std::fs;

use crate::disk::at;
use crate::disk::error::StoreError;
use crate::disk::store::{Store, lock};

impl Store {
    /// Everything is had: the part file gets its name, at once or not at all, its manifest is kept beside
    /// it, and the journal goes. The store is that of a whole file afterwards. `replace`: an older file
    /// of that name is replaced; whoever has it open keeps it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Incomplete`], [`StoreError::Exists`], [`StoreError::Moved`]; when the disk does not
    /// want to.
    pub fn finish(&self, replace: bool) -> Result<(), StoreError> {
        let mut journal = lock(&self.journal);
        if journal.is_none() {
            return Ok(());
        }
        let missing = self.state().have.lacking();
        if missing > 0 {
            return Err(StoreError::Incomplete { path: self.path.clone(), missing });
        }
        self.sync_with(&mut journal)?;
        if !replace && self.path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(self.path.clone()));
        }
        self.in_place()?;
        // An older file's, which must not be taken for this one's.
        let _ = fs::remove_file(at::beside(&self.path, ".manifest"));
        fs::rename(self.part(), &self.path)
            .and_then(|()| at::sync_directory(&self.path))
            .map_err(StoreError::of(&self.path))?;
        *lock(&self.settled) = self.file.metadata().ok();
        let removed = journal.take().map_or(Ok(()), |journal| journal.remove());
        removed.map_err(|error| StoreError::io(&self.journal_path(), error))?;
        Ok(self.manifest.keep_beside(&self.path)?)
    }
}
