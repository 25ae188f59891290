//! The rows of gRPC methods: `curl` calls the services of the cluster with the certificates of each caller.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use confab_tests::certificates;
use confab_tests::cluster::Cluster;
use confab_tests::guard::Guard;
use confab_tests::plan::Role;
use tokio::process::Command;

use super::operations::HEALTH;
use super::table::Section;

/// The columns of the section, in order.
pub const CALLERS: [&str; 9] = ["gateway", "auth", "room", "message", "file", "name", "alien", "none", "plain"];

/// The numbers of gRPC statuses.
const PERMISSION_DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";

/// Certificates of two authorities.
pub struct Callers {
    /// Of the cluster's authority.
    own: Guard,
    /// Of another authority.
    other: Guard,
}

impl Callers {
    /// Makes the certificates.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let (own, other) = (Guard::new("callers")?, Guard::new("callers")?);
        for file in ["ca.key", "ca.crt"] {
            fs::copy(cluster.plan.certificates().join(file), own.directory().join(file))?;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/make-certs.sh");
        let made = Command::new(script).arg(own.directory()).arg("name").output().await?;
        ensure!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
        certificates::make(other.directory())?;
        Ok(Self { own, other })
    }

    /// Calls methods of a service as one caller. Returns what happens to each, in the words of the table.
    ///
    /// # Errors
    /// When `curl` is not installed, or an answer is none of gRPC.
    pub async fn call(
        &self,
        cluster: &Cluster,
        role: Role,
        caller: &str,
        methods: &[&str],
    ) -> anyhow::Result<Vec<String>> {
        let mut curl = Command::new("curl");
        // Without the settings of the machine's user.
        curl.arg("--disable");
        for (at, method) in methods.iter().enumerate() {
            // Each URL has all options again; the connection is shared.
            curl.args((at > 0).then_some("--next"));
            self.add(&mut curl, cluster, role, caller, method);
        }
        let output = curl.kill_on_drop(true).output().await.context("curl is not installed")?;
        let answers = String::from_utf8(output.stdout)?;
        let answers = answers.lines().map(outcome).collect::<anyhow::Result<Vec<_>>>();
        let answers = answers.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        ensure!(answers.len() == methods.len(), "{} answers to {} calls", answers.len(), methods.len());
        Ok(answers)
    }

    fn add(&self, curl: &mut Command, cluster: &Cluster, role: Role, caller: &str, method: &str) {
        let (port, name) = (cluster.plan.port((role, 1)), format!("{}.confab", role.name()));
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code} %header{grpc-status}\n"]);
        curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
        // Without a message: a service rejects such a call after it has checked the caller, so that the call changes
        // nothing. It compares the user in a message with the credential of the call only after decoding;
        // `credentials.rs` tests that. A service also resets the stream of a body that it does not read.
        curl.args(["--data-binary", ""]);
        if caller == "plain" {
            curl.arg("--http2-prior-knowledge").arg(format!("http://127.0.0.1:{port}/{method}"));
            return;
        }
        curl.arg("--cacert").arg(self.own.directory().join("ca.crt"));
        if let Some(certificate) = self.certificate(caller) {
            curl.arg("--cert").arg(certificate.join("tls.crt")).arg("--key").arg(certificate.join("tls.key"));
        }
        curl.arg("--connect-to").arg(format!("{name}:{port}:127.0.0.1:{port}"));
        curl.arg("--http2").arg(format!("https://{name}:{port}/{method}"));
    }

    /// Returns the directory with the caller's certificate.
    fn certificate(&self, caller: &str) -> Option<PathBuf> {
        let of = |directory: &Path, name: &str| Some(directory.join(name));
        match caller {
            "none" => None,
            "alien" => of(self.other.directory(), "gateway"),
            name => of(self.own.directory(), name),
        }
    }
}

/// Returns the word of the table for an answer: the status of HTTP, and that of gRPC if the answer has no body.
fn outcome(line: &str) -> anyhow::Result<String> {
    let (http, grpc) = line.split_once(' ').with_context(|| format!("{line:?} is no answer"))?;
    Ok(match (http, grpc.trim()) {
        ("000", _) => "-",
        ("200", PERMISSION_DENIED) => "no",
        ("200", UNIMPLEMENTED) => "unimplemented",
        ("200", _) => "yes",
        _ => return Err(anyhow::anyhow!("not an answer of gRPC: {line}")),
    }
    .to_owned())
}

/// Returns the services that have a method: the service of its package, or all.
pub fn services(method: &str) -> Vec<Role> {
    let of_package = |role: &Role| method == HEALTH || method.starts_with(&format!("confab.{}.", role.name()));
    Role::SERVICES.into_iter().filter(of_package).collect()
}

/// Returns the expected words of a caller by service and method.
pub fn expected(section: &Section, caller: usize) -> BTreeMap<(Role, &str), &str> {
    let rows = section.rows.iter().flat_map(|row| services(&row.request).into_iter().map(move |role| (role, row)));
    rows.map(|(role, row)| ((role, &*row.request), &*row.lines[0].cells[caller])).collect()
}

#[test]
fn answers_have_words() {
    for (line, word) in
        [("200 7", "no"), ("200 13", "yes"), ("200 ", "yes"), ("200 12", "unimplemented"), ("000 ", "-")]
    {
        assert_eq!(outcome(line).unwrap(), word, "{line}");
    }
    assert!(outcome("404 ").is_err() && outcome("200").is_err());
}
