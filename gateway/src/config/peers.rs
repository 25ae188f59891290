//! The settings of the traffic between gateways, checked and resolved.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use confab_common::cluster_key::{ClusterKey, SigningKey};
use confab_common::grpc;
use confab_socketio::cluster::{Cluster, ClusterConfig};

use super::{ForwardConfig, OwnAddress, detect};

/// Checked settings of the traffic between gateways.
struct Peers {
    targets: Vec<String>,
    listen: SocketAddr,
    /// This gateway's address as other gateways see it; `None`: to be detected.
    own: Option<OwnAddress>,
    node_key: SigningKey,
    signing_key: SigningKey,
}

impl Peers {
    fn of(config: &ForwardConfig, key: Option<&ClusterKey>) -> anyhow::Result<Option<Self>> {
        let (Some(urls), Some(listen)) = (&config.gateway_url, config.forward_listen) else { return Ok(None) };
        let key =
            key.context("CONFAB_GATEWAY_URL needs CONFAB_CLUSTER_KEY: gateways authenticate one another with it")?;
        let own = config.forward_address.clone();
        own.as_ref().map_or(Ok(()), |own| own.check(listen.port()))?;
        let (node_key, signing_key) = (key.node.clone(), key.forward.clone());
        Ok(Some(Self {
            targets: grpc::targets(urls).context("CONFAB_GATEWAY_URL")?,
            listen,
            own,
            node_key,
            signing_key,
        }))
    }
}

/// Checks the settings.
///
/// # Errors
/// When they are wrong.
pub fn check(config: &ForwardConfig, key: Option<&ClusterKey>) -> anyhow::Result<()> {
    Peers::of(config, key).map(drop)
}

/// Starts finding the other gateways; `None` when the settings name none. `answers_within`: the longest time to an answer.
///
/// # Errors
/// When the settings are wrong, or this gateway cannot detect its own address.
pub async fn open(
    config: &ForwardConfig,
    key: Option<&ClusterKey>,
    answers_within: Duration,
) -> anyhow::Result<Option<Cluster>> {
    let Some(Peers { targets, listen, own, node_key, signing_key }) = Peers::of(config, key)? else { return Ok(None) };
    let own = match own {
        Some(own) => own.resolve(listen.port()).await?,
        None if !listen.ip().is_unspecified() => listen,
        None => detect::find(&targets, listen.port()).await?,
    };
    tracing::info!(%own, "other gateways reach this one");
    Ok(Some(Cluster::start(ClusterConfig { targets, own, node_key, signing_key, answers_within })))
}

#[cfg(test)]
mod tests {
    use confab_common::testing::cluster_key;

    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let config = ForwardConfig {
            gateway_url: Some("http://gateways:7250".into()),
            forward_listen: Some("10.0.0.1:7250".parse().unwrap()),
            forward_address: None,
        };
        assert!(check(&config, Some(&cluster_key("a key"))).is_ok());
        assert!(check(&config, None).unwrap_err().to_string().contains("CONFAB_CLUSTER_KEY"));
    }
}
