//! The conversation of twenty stock clients, over polling and WebSocket. `make cluster-test` has it on a cluster that runs.

use confab_tests::conversation::converse;
use confab_tests::plan::Role;

use crate::world;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_cluster() {
    let cluster = world::cluster().await;
    let gateways = world::gateways(cluster).into_iter().map(|api| api.url).collect::<Vec<_>>();
    converse(&gateways, &cluster.plan.url((Role::Lb, 1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let url = world::embedded().await.url();
    converse(std::slice::from_ref(&url), &url).await.unwrap();
}
