//! Traces: the whole work that a message causes is visible, no secret is, and a missing collector does no harm.

mod away;
mod journey;
mod secrets;

use confab_tests::cluster::Cluster;
use confab_tests::collector::Collector;
use confab_tests::embedded::Embedded;
use tokio::sync::OnceCell;

/// Settings that log everything.
const TALKATIVE: [(&str, &str); 2] = [("CONFAB_LOG", "trace"), ("CONFAB_LOG_FORMAT", "json")];

/// A cluster of two gateways that logs everything and exports everything to a collector.
async fn cluster() -> &'static (Collector, Cluster) {
    static SHARED: OnceCell<(Collector, Cluster)> = OnceCell::const_new();
    let start = async || {
        let collector = Collector::start()?;
        let mut cluster = Cluster::planned(2, 1)?;
        cluster.set(collector.settings());
        cluster.set(TALKATIVE.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        cluster.up().await?;
        anyhow::Ok((collector, cluster))
    };
    SHARED.get_or_init(async || start().await.expect("the cluster starts")).await
}

/// Starts the embedded program with the same settings.
async fn embedded(settings: &[(&str, &str)]) -> anyhow::Result<(Collector, Embedded)> {
    let collector = Collector::start()?;
    let exporting = collector.settings();
    let exporting = exporting.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let server = Embedded::start(&exporting.chain(settings.iter().copied()).collect::<Vec<_>>()).await?;
    Ok((collector, server))
}
