//! A cluster's keys and passwords: generated once, kept, readable only for their owner.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

/// The prefix of the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Generates the missing secrets.
///
/// # Errors
/// When they cannot be written.
pub fn prepare(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let missing = |name: &str| Some(directory.join(name)).filter(|file| !file.exists());
    if let Some(file) = missing("signing-key.pem") {
        keep(&file, &signing_key()?)?;
    }
    for name in ["cluster-key", "postgres-password", "s3-secret-access-key"] {
        if let Some(file) = missing(name) {
            keep(&file, &BASE64_URL_SAFE_NO_PAD.encode(random()?))?;
        }
    }
    Ok(())
}

/// Writes a secret atomically.
///
/// # Errors
/// When it cannot be written.
pub fn keep(file: &Path, secret: &str) -> anyhow::Result<()> {
    let draft = file.with_extension("new");
    let _ = fs::remove_file(&draft);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?.write_all(secret.as_bytes())?;
    Ok(fs::rename(draft, file)?)
}

fn signing_key() -> anyhow::Result<String> {
    let der = [ED25519_PKCS8.as_slice(), &random()?].concat();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der)))
}

fn random() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_and_private() {
        let directory = std::env::temp_dir().join(format!("secrets-{}", std::process::id()));
        prepare(&directory).unwrap();
        let key = fs::read_to_string(directory.join("signing-key.pem")).unwrap();
        prepare(&directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join("signing-key.pem")).unwrap(), key);
        for file in fs::read_dir(&directory).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
