//! Certificates with which programs authenticate each other, made by the script that operators use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::manifests::root;

/// Makes the missing certificates in a directory, and those that expire soon.
///
/// # Errors
/// When `openssl` is not installed or fails.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    let script = root().join("scripts/make-certs.sh");
    let output = Command::new(&script).arg(directory).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Returns the settings of a program with its certificate in a directory.
pub fn settings(directory: &Path, program: &str) -> [(String, String); 3] {
    let file = |name: &str| directory.join(program).join(name).display().to_string();
    [
        ("CONFAB_TLS_CERT_FILE".into(), file("tls.crt")),
        ("CONFAB_TLS_KEY_FILE".into(), file("tls.key")),
        ("CONFAB_TLS_CA_FILE".into(), file("ca.crt")),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::guard::Guard;

    fn files(directory: &Path) -> Vec<Vec<u8>> {
        let programs = ["gateway", "auth", "room", "message", "file"].map(|program| directory.join(program));
        let names = ["tls.crt", "tls.key", "ca.crt"];
        programs.iter().flat_map(|program| names.map(|name| fs::read(program.join(name)).unwrap())).collect()
    }

    #[test]
    fn certificates_stay_unless_they_do_not_fit() {
        let guard = Guard::new("certificates").unwrap();
        let directory = guard.directory().join("tls");
        make(&directory).unwrap();
        let made = files(&directory);
        make(&directory).unwrap();
        assert!(files(&directory) == made, "current certificates stay");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("ca.key"))), (0o700, 0o600));

        fs::copy(directory.join("auth/tls.key"), directory.join("room/tls.key")).unwrap();
        fs::remove_file(directory.join("file/tls.crt")).unwrap();
        make(&directory).unwrap();
        let changed = files(&directory).iter().zip(&made).map(|(now, then)| now != then).collect::<Vec<_>>();
        // Certificates and keys of room and file; the authority stays.
        assert_eq!((0..15).filter(|at| changed[*at]).collect::<Vec<_>>(), [6, 7, 12, 13]);
    }
}
