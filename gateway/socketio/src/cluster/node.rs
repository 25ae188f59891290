//! The nodes of a cluster and their ids. An id is a keyed hash of an address. A node looks up another node among the
//! addresses that the configured names resolve to, so there is no registry, and no connection goes to an address that a
//! client chose.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use confab_common::cluster_key::SigningKey;
use confab_common::grpc::discovery::Discovery;

use crate::passage::NodeId;

/// A node logs a warning when its own address is missing from this many resolutions in a row.
const WARN_AFTER_ABSENCES: u32 = 12;
/// How long a request waits for a new resolution.
const RESOLVES_WITHIN: Duration = Duration::from_secs(1);

/// The two ids of one node. This release issues `former`, which the previous release understands. The next release
/// issues `derived`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    former: NodeId,
    derived: NodeId,
}

impl Ids {
    /// The id that this release issues.
    pub fn issued(&self) -> &NodeId {
        &self.former
    }

    /// Whether `id` is one of the two.
    pub fn contain(&self, id: NodeId) -> bool {
        self.former == id || self.derived == id
    }
}

/// The nodes at the configured names.
pub struct Nodes {
    key: SigningKey,
    known: Arc<Discovery<Node>>,
}

#[derive(Clone, Copy)]
struct Node {
    ids: Ids,
    address: SocketAddr,
}

impl Nodes {
    /// Starts to resolve these names (`host:port`). `own` is this node's address, and `key` the cluster's key.
    pub fn find(targets: Vec<String>, own: SocketAddr, key: SigningKey) -> Arc<Self> {
        let making = key.clone();
        let known = Discovery::start(targets, move |address| Ok(Node { ids: ids_of(&making, address), address }));
        let nodes = Arc::new(Self { key, known });
        tokio::spawn(warn_when_missing(Arc::downgrade(&nodes), own));
        nodes
    }

    pub fn ids_of(&self, address: SocketAddr) -> Ids {
        ids_of(&self.key, address)
    }

    /// The address of a node. An unknown node may be new, so this resolves the names once more, within 1 s.
    pub async fn address_of(&self, id: NodeId) -> Option<SocketAddr> {
        self.known.look(RESOLVES_WITHIN, |known| address_of(known, id)).await
    }
}

fn ids_of(key: &SigningKey, address: SocketAddr) -> Ids {
    let [former, derived] = [&key.former, &key.derived].map(|key| NodeId::of_address(key, address));
    Ids { former, derived }
}

fn address_of(known: &Discovery<Node>, id: NodeId) -> Option<SocketAddr> {
    known.find(|node| node.ids.contain(id)).map(|node| node.address)
}

/// Logs a warning when the names do not resolve to this node's address.
async fn warn_when_missing(nodes: Weak<Nodes>, own: SocketAddr) {
    let mut absences = 0_u32;
    while let Some(nodes) = nodes.upgrade() {
        let (id, known) = (*nodes.ids_of(own).issued(), nodes.known.clone());
        drop(nodes);
        known.resolved().await;
        absences = if address_of(&known, id).is_some() { 0 } else { absences.saturating_add(1) };
        if absences == WARN_AFTER_ABSENCES {
            tracing::warn!(
                %own,
                "CONFAB_GATEWAY_URL does not resolve to this gateway: other gateways cannot reach its sessions"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SigningKey {
        confab_common::testing::cluster_key(text).node
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_node_is_found_by_the_id_in_its_sessions() {
        let nodes = Nodes::find(vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()], address("127.0.0.1:1"), key("k"));
        let ids = nodes.ids_of(address("127.0.0.1:2"));
        let id = *ids.issued();
        let sid = format!("{}{}", id.as_str(), crate::session::secret());
        assert_eq!(NodeId::of_session(&sid), Some(id));
        assert_eq!(nodes.address_of(id).await, Some(address("127.0.0.1:2")));
        assert_eq!(nodes.address_of(nodes.ids_of(address("127.0.0.1:3")).former).await, None);
        assert_eq!(ids, nodes.ids_of(address("[::ffff:127.0.0.1]:2")));
        assert_ne!(id, NodeId::of_address(&key("another").former, address("127.0.0.1:2")));
        // The previous release finds the node by this id, and the next one issues the other.
        assert_eq!(id, NodeId::of_address(&key("k").former, address("127.0.0.1:2")));
        assert_ne!(ids.derived, id);
        assert_eq!(nodes.address_of(ids.derived).await, Some(address("127.0.0.1:2")));
    }
}
