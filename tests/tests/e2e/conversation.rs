//! The conversation of twenty stock clients, over polling and WebSocket. `make cluster-test` runs it on a running
//! cluster.

use confab_tests::conversation::converse;
use confab_tests::plan::Role;

use crate::world;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_cluster() {
    converse(&world::cluster().await.plan.url((Role::Lb, 1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    converse(&world::embedded().await.url()).await.unwrap();
}
