//! Servers that the tests share, so that each is started once; they end with the test run, see `confab_tests::guard`.

use confab_tests::api::{Account, Api};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::plan::Role;
use confab_tests::server_keys;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The embedded program with its defaults.
pub async fn embedded() -> &'static Embedded {
    static SHARED: OnceCell<Embedded> = OnceCell::const_new();
    SHARED.get_or_init(async || Embedded::start(&[]).await.expect("confab starts")).await
}

/// Another embedded program with its defaults, and a server key with all scopes.
pub async fn embedded_with_key() -> &'static (Embedded, Account) {
    static SHARED: OnceCell<(Embedded, Account)> = OnceCell::const_new();
    let start = async || {
        let server = Embedded::start(&[]).await.expect("confab starts");
        let key = server_keys::of_embedded(&server, server_keys::ALL).await.expect("a key");
        (server, key)
    };
    SHARED.get_or_init(start).await
}

/// A server key of [`cluster`] with all scopes.
pub async fn key_of_cluster() -> &'static Account {
    static SHARED: OnceCell<Account> = OnceCell::const_new();
    let create = async || server_keys::of_cluster(cluster().await, server_keys::ALL).await.expect("a key");
    SHARED.get_or_init(create).await
}

/// Two gateways and two replicas of each service, for tests that inject no faults.
pub async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(async || Cluster::scratch(2, 2, &[]).await.expect("the cluster starts")).await
}

/// Another cluster, for tests that inject faults: one at a time, and each leaves it intact.
pub async fn breakable() -> MutexGuard<'static, Cluster> {
    static SHARED: OnceCell<Mutex<Cluster>> = OnceCell::const_new();
    // Leftovers of interrupted uploads must be swept while a test waits for it.
    let settings = [("CONFAB_SWEEP_EVERY", "1s"), ("CONFAB_ORPHAN_AGE", "6s")];
    let shared =
        SHARED.get_or_init(async || Mutex::new(Cluster::scratch(2, 2, &settings).await.expect("the cluster starts")));
    let cluster = shared.await.lock().await;
    // The previous test may have failed midway.
    cluster.up().await.expect("the cluster is complete");
    cluster
}

/// Returns a client of each gateway.
pub fn gateways(cluster: &Cluster) -> Vec<Api> {
    (1..=cluster.plan.gateways).map(|n| Api::new(cluster.plan.url((Role::Gateway, n)))).collect()
}
