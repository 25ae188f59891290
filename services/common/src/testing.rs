//! Real servers for contract tests, and what tests of several crates share. `make test` starts the servers and sets their
//! addresses.

mod leaving;
mod silence;
mod tls;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Request;
use tonic::body::Body;
use tower::service_fn;
use tower::util::{BoxCloneSyncService, ServiceExt};

use crate::Secret;
use crate::cluster_key::ClusterKey;
use crate::grpc::{Call, Transport};

pub use leaving::leave_in_silence;
pub use silence::SilentProxy;
pub use tls::{Authority, Front};

/// Creates an empty directory.
///
/// # Panics
/// When it cannot be created.
pub fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = std::env::temp_dir().join(format!(
        "confab-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary directory");
    path
}

/// Returns a transport for a busy machine: a call without options has a deadline of one minute.
pub fn patient(transport: Transport) -> Transport {
    BoxCloneSyncService::new(service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().get_or_insert(Call::within(Duration::from_secs(60)));
        transport.clone().oneshot(request)
    }))
}

/// Creates an empty database on the test run's Postgres server and returns its URL.
///
/// # Panics
/// When `TEST_POSTGRES_URL` is not set or the server rejects the request.
pub async fn database() -> Secret {
    let server = variable("TEST_POSTGRES_URL");
    let (client, connection) =
        tokio_postgres::connect(&server, tokio_postgres::NoTls).await.expect("the test run's Postgres");
    tokio::spawn(connection);
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a fresh database");
    let (address, _) = server.rsplit_once('/').expect("a URL that names a database");
    Secret::from(format!("{address}/{name}"))
}

/// Returns the URL of the test run's Redis server.
///
/// # Panics
/// When `TEST_REDIS_URL` is not set.
pub fn redis() -> Secret {
    Secret::from(variable("TEST_REDIS_URL"))
}

/// Derives a cluster key; the same text yields the same key.
///
/// # Panics
/// Never: a digest is random enough.
pub fn cluster_key(text: &str) -> ClusterKey {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    ClusterKey::parse(&Secret::from(hex)).expect("a key of 32 bytes")
}

pub struct S3 {
    pub endpoint: String,
    /// The id of an access key with all permissions.
    pub key: String,
    /// The secret of the access key.
    pub secret: Secret,
}

/// Returns the test run's S3 store and its credentials.
///
/// # Panics
/// When `TEST_S3_URL` is not set.
pub fn s3() -> S3 {
    let url = variable("TEST_S3_URL");
    let parts = || {
        let (scheme, rest) = url.split_once("://")?;
        let (account, host) = rest.split_once('@')?;
        let (key, secret) = account.split_once(':')?;
        Some(S3 { endpoint: format!("{scheme}://{host}"), key: key.into(), secret: secret.into() })
    };
    parts().expect("a URL with an access key and its secret")
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within 10 s.
pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the condition to hold within 10 s");
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` starts the servers and sets it"))
}
