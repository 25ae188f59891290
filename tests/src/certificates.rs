//! Certificates with which programs authenticate each other, made by the script that operators use; and those of the
//! servers that programs use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use parking_lot::Mutex;

use crate::guard::Guard;

/// The programs with a certificate.
const PROGRAMS: [&str; 5] = ["gateway", "auth", "room", "message", "file"];
/// The files of each of them.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// The serial number of the next certificate of a server.
static SERIAL: AtomicU32 = AtomicU32::new(1);

/// Makes the missing certificates in a directory, and those that expire soon.
///
/// # Errors
/// When `openssl` is not installed or fails.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/make-certs.sh");
    let output = Command::new(script).arg(directory).output().with_context(|| format!("cannot run {script}"))?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Returns the content of a program's files, by name. All programs have the same authority, which is made once in each
/// process.
///
/// # Errors
/// When there is no such program, or `openssl` fails.
pub fn files(program: &str) -> anyhow::Result<BTreeMap<String, String>> {
    // Locked while the files are made, so that they are made once.
    static MADE: Mutex<BTreeMap<String, BTreeMap<String, String>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock();
    if made.is_empty() {
        let guard = Guard::new("certificates")?;
        make(guard.directory())?;
        for program in PROGRAMS {
            let content = |name: &str| fs::read_to_string(guard.directory().join(program).join(name));
            let files = FILES.map(|name| content(name).map(|content| (name.to_owned(), content)));
            made.insert(program.to_owned(), files.into_iter().collect::<std::io::Result<_>>()?);
        }
    }
    made.get(program).cloned().with_context(|| format!("there is no certificate for {program}"))
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

/// A private authority that issues the certificates of servers.
pub struct Authority(PathBuf);

impl Authority {
    /// Creates an authority in a new directory.
    ///
    /// # Errors
    /// When the directory exists, or `openssl` fails.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir(directory)?;
        let subject = "-days 2 -subj /CN=authority";
        openssl(directory, &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem {subject}"))?;
        Ok(Self(directory.to_path_buf()))
    }

    /// Returns the file of its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Issues a certificate for names such as `DNS:localhost` or `IP:127.0.0.1`. Returns its file and that of its key.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn issue(&self, file: &str, names: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let extensions = format!("-addext subjectAltName={names} -addext basicConstraints=CA:FALSE");
        openssl(&self.0, &format!("req {NEW_KEY} -keyout {file}.key -out {file}.csr -subj /CN={file} {extensions}"))?;
        // A file with the next serial number would be read while another test writes it.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let authority = format!("-CA ca.pem -CAkey ca.key -set_serial {serial}");
        openssl(
            &self.0,
            &format!("x509 -req -in {file}.csr -out {file}.pem {authority} -days 2 -copy_extensions copyall"),
        )?;
        Ok((self.0.join(format!("{file}.pem")), self.0.join(format!("{file}.key"))))
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc";

fn openssl(directory: &Path, arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(directory).output()?;
    ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(directory: &Path) -> Vec<Vec<u8>> {
        let programs = PROGRAMS.map(|program| directory.join(program));
        programs.iter().flat_map(|program| FILES.map(|name| fs::read(program.join(name)).unwrap())).collect()
    }

    #[test]
    fn certificates_stay_unless_they_do_not_fit() {
        let guard = Guard::new("certificates").unwrap();
        let directory = guard.directory().join("tls");
        make(&directory).unwrap();
        let made = read(&directory);
        make(&directory).unwrap();
        assert!(read(&directory) == made, "current certificates stay");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("ca.key"))), (0o700, 0o600));

        fs::copy(directory.join("auth/tls.key"), directory.join("room/tls.key")).unwrap();
        fs::remove_file(directory.join("file/tls.crt")).unwrap();
        make(&directory).unwrap();
        let changed = read(&directory).iter().zip(&made).map(|(now, then)| now != then).collect::<Vec<_>>();
        // Certificates and keys of room and file; the authority stays.
        assert_eq!((0..15).filter(|at| changed[*at]).collect::<Vec<_>>(), [6, 7, 12, 13]);
    }
}
