//! Rate limits over real Redis servers: exact over all replicas, and harmless in outages.

mod access;
mod deployments;
mod outages;
#[path = "../bus/redis_server.rs"]
#[allow(dead_code, reason = "the tests of the bus use all of it")]
mod redis_server;
mod replicas;

use std::time::Duration;

use confab_common::bus::Bus;
use confab_common::limit::Limiter;
use confab_common::{Secret, testing};
use tokio::time::timeout;

/// Longer than any expected condition takes.
const CONDITION_LIMIT: Duration = Duration::from_secs(20);
/// Longer than any test takes: no unit refills meanwhile.
const HOUR: Duration = Duration::from_secs(3600);

fn open(url: &Secret) -> Limiter {
    let bus = Bus::open(url, None).expect("a valid URL");
    Limiter::open(&bus, Some(&testing::cluster_key("a key").limits))
}

/// Opens a limiter that always uses Redis, however slow this machine is.
async fn patient(url: &Secret) -> Limiter {
    let bus = Bus::open(url, None).expect("a valid URL");
    let limiter = Limiter::patient(&bus, Some(&testing::cluster_key("a key").limits));
    until_shared(&limiter).await;
    limiter
}

async fn until_shared(limiter: &Limiter) {
    eventually("the limiter uses Redis", async || limiter.is_shared()).await;
}

/// Returns a key for this test only, because tests share one Redis.
fn key() -> String {
    uuid::Uuid::now_v7().to_string()
}

async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let becoming = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(CONDITION_LIMIT, becoming).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
