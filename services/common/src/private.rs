//! Files for the process's own user alone, whatever the umask is and whatever their directory lets others do.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What others may do.
const OTHERS: u32 = 0o077;

/// Makes a directory, and those above it, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file to write, or makes it. What is in it stays.
///
/// # Errors
/// When it cannot be opened or made.
pub fn file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    close(path)?;
    Ok(file)
}

/// Takes from others what they may do with a file, if it is there. An earlier version, or a person, may have given it to them.
///
/// # Errors
/// When the file cannot be looked at.
pub fn close(path: &Path) -> io::Result<()> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if mode & OTHERS != 0 {
        let path_shown = path.display();
        match fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
            Ok(()) => tracing::warn!(path = %path_shown, "others could use this file; now they cannot"),
            // It belongs to another user, who lets this one use it.
            Err(error) => tracing::warn!(path = %path_shown, %error, "others can use this file; take it from them with chmod 600"),
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
    fn others_may_do_nothing_with_what_is_made_or_was_there() {
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
