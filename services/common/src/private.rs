//! Files that only the process's own user can access, independent of the umask and the directory's permissions.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The permission bits of the group and of all other users.
const OTHERS: u32 = 0o077;

/// Creates a directory and its parents unless they exist.
///
/// # Errors
/// When a directory cannot be created.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for writing, or creates it. Existing content is kept.
///
/// # Errors
/// When the file cannot be opened or created.
pub fn file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    close(path)?;
    Ok(file)
}

/// Removes other users' permissions from a file, if it exists. An earlier release or an operator may have granted them.
///
/// # Errors
/// When the file's metadata cannot be read.
pub fn close(path: &Path) -> io::Result<()> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if mode & OTHERS != 0 {
        let path_shown = path.display();
        match fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
            Ok(()) => {
                tracing::warn!(path = %path_shown, "this file was accessible to other users; their permissions are removed")
            }
            // The file belongs to another user, and this user has access to it.
            Err(error) => {
                tracing::warn!(path = %path_shown, %error, "other users have access to this file; run chmod 600 on it")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn new_and_existing_files_are_private() {
        let within = testing::directory();
        let (new, old) = (within.join("new"), within.join("old"));
        file(&new).unwrap();
        fs::write(&old, "it stays").unwrap();
        for given in [0o644, 0o666, 0o640, 0o604, 0o611, 0o600] {
            fs::set_permissions(&old, Permissions::from_mode(given)).unwrap();
            file(&old).unwrap();
            assert_eq!((mode(&new), mode(&old)), (0o600, 0o600), "{given:o}");
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "it stays");
        close(&within.join("nothing")).unwrap();
        directory(&within.join("a/b")).unwrap();
        assert_eq!((mode(&within.join("a")), mode(&within.join("a/b"))), (0o700, 0o700));
    }
}
