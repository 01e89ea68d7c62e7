//! Keys that a passphrase has unlocked, kept as ssh-agent keeps them, so that a reconnection asks nobody.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key_file::{KeyFile, Unlocked};

/// Keys unlocked so far. Clones share them; when the last one is gone the keys are wiped.
#[derive(Clone, Default)]
pub(in super::super) struct Keyring(Arc<Mutex<Vec<(PathBuf, Unlocked)>>>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.list().len())
    }
}

impl Keyring {
    fn list(&self) -> MutexGuard<'_, Vec<(PathBuf, Unlocked)>> {
        // The list is whole at every moment, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what `file` holds.
    pub(super) fn keep(&self, file: &KeyFile, unlocked: &Unlocked) {
        let mut list = self.list();
        list.retain(|(path, _)| *path != file.path);
        list.push((file.path.clone(), unlocked.clone()));
    }

    /// The key that `file` holds, unless the file has another one now.
    pub(super) fn recall(&self, file: &KeyFile) -> Option<Unlocked> {
        let list = self.list();
        let (_, unlocked) = list.iter().find(|(path, _)| *path == file.path)?;
        let is_same = match &file.public {
            Some(public) => public.key_data() == unlocked.key.public_key().key_data(),
            None => true,
        };
        is_same.then(|| unlocked.clone())
    }
}
