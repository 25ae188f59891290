//! SeaweedFS as the S3 store: all its parts in one process, on loopback only.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::secrets;

/// The id of the only access key, which has all permissions.
pub const KEY: &str = "confab";

/// How many ports it uses: S3's port and those of its parts, which no client needs.
pub const PORTS: u16 = 8;

/// Returns the ports of its parts.
pub fn inner_ports(port: u16) -> Range<u16> {
    port + 1..port + PORTS
}

/// Describes how to run it.
///
/// # Errors
/// When it is not installed.
pub fn daemon(work: PathBuf, port: u16, pid_file: PathBuf, log: PathBuf) -> anyhow::Result<Daemon> {
    let ports = [
        "s3.port",
        "s3.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
    ];
    let settings = [
        "dir=.",
        "ip=127.0.0.1",
        "ip.bind=127.0.0.1",
        "filer",
        "filer.localSocket=filer.sock",
        "s3",
        "s3.config=identities.json",
        "s3.localSocket=s3.sock",
        "s3.port.iceberg=0",
        "s3.port.lance=0",
        // Confab creates the bucket.
        "s3.autoCreateBucket=false",
        "master.telemetry=false",
        // A restarted server waits this long for other masters.
        "master.electionTimeout=500ms",
        // Every bucket needs a volume, and a count derived from the free space leaves too few on a nearly full disk.
        "master.volumeSizeLimitMB=256",
        "volume.max=4096",
        "volume.preStopSeconds=0",
    ];
    let mut arguments = vec!["-logtostderr=true".to_string(), "server".into()];
    arguments.extend(settings.iter().map(|setting| format!("-{setting}")));
    arguments.extend(ports.iter().zip(port..).map(|(name, port)| format!("-{name}={port}")));
    // A graceful shutdown would take 15 s; acknowledged objects are in its files either way.
    Ok(Daemon { arguments, stop: Signal::KILL, ..Daemon::new(program()?, work, pid_file, log) })
}

/// Writes its settings and the secret of its access key.
///
/// # Errors
/// When they cannot be written.
pub fn configure(daemon: &Daemon, secret: &str) -> anyhow::Result<()> {
    fs::create_dir_all(&daemon.work)?;
    // One volume per bucket, not seven at once.
    fs::write(daemon.work.join("master.toml"), "[master.volume_growth]\ncopy_1 = 1\n")?;
    let credentials = serde_json::json!([{"accessKey": KEY, "secretKey": secret}]);
    let identities =
        serde_json::json!({"identities": [{"name": KEY, "credentials": credentials, "actions": ["Admin"]}]});
    secrets::keep(&daemon.work.join("identities.json"), &identities.to_string())
}

/// Returns whether it accepts an object with the key's signature.
pub async fn is_ready(http: &reqwest::Client, port: u16, secret: &str) -> bool {
    // An empty object would not need a volume.
    for (path, bytes) in [("/ready", ""), ("/ready/probe", "x")] {
        let answer =
            http.put(format!("http://127.0.0.1:{port}{}", signed("PUT", path, secret))).body(bytes).send().await;
        // The bucket may exist from an earlier run.
        if !answer.is_ok_and(|answer| answer.status().is_success() || answer.status() == 409) {
            return false;
        }
    }
    true
}

/// Returns a path with a signature that is valid for one minute, in the older and shorter of the two schemes.
fn signed(method: &str, path: &str, secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = (now + Duration::from_secs(60)).as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{method}\n\n\n{expires}\n{path}").as_bytes());
    let signature = BASE64_STANDARD.encode(tag).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("{path}?AWSAccessKeyId={KEY}&Expires={expires}&Signature={signature}")
}

/// Returns the program that `scripts/ensure-seaweed.sh` installs, or the one on the PATH.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/seaweedfs/bin/weed");
    if ours.is_file() { Ok(ours.canonicalize()?) } else { super::program("weed") }
}
