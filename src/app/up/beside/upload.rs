//! The helper that a server may be sent: a file, opened anew each time.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::plan::BesidePlan;
use crate::udp::{Image, LOOKED_AT, Upload, UploadError};

/// What is in `file`.
pub(super) fn of(file: PathBuf) -> Upload {
    Upload::new(Box::new(move || {
        let (file, size) = open(&file)?;
        Ok(Image {
            size,
            bytes: Box::new(tokio::fs::File::from_std(file)),
        })
    }))
}

/// Looks at the file that `plan` names, while somebody is there who can name another one.
///
/// # Errors
/// [`UploadError`].
pub(in crate::app) fn check(plan: &BesidePlan) -> Result<(), UploadError> {
    let Some(file) = &plan.upload else {
        return Ok(());
    };
    let first = first(file).map_err(|error| UploadError::NotRead(error.to_string()))?;
    Upload::check(&first)
}

fn first(file: &Path) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    let (file, _) = open(file)?;
    file.take(LOOKED_AT).read_to_end(&mut first)?;
    Ok(first)
}

fn open(file: &Path) -> io::Result<(File, u64)> {
    let opened = || {
        // A pipe would be waited for.
        let found = std::fs::metadata(file)?;
        if !found.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        Ok((File::open(file)?, found.len()))
    };
    opened().map_err(|error| io::Error::other(format!("{}: {error}", file.display())))
}
