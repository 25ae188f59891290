//! Node ids, and the identification of a GET that one node proxies to another node's session.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Length of a node id within a session id, in characters.
const LENGTH: usize = 8;
/// Length of the rest of a session id, in characters; see [`secret`](crate::session::secret).
const SECRET: usize = 22;

/// The header that identifies the proxying node and the GET: `<node>.<number>`.
pub const PASSAGE: HeaderName = HeaderName::from_static("confab-forward-passage");

/// The id of the node that owns a session: the first part of the session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId([u8; LENGTH]);

impl NodeId {
    pub(crate) fn of_address(key: &hmac::Key, address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let tag = hmac::sign(key, format!("confab node {address}").as_bytes());
        let mut id = [0; LENGTH];
        // Six bytes encode to eight characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(&tag.as_ref()[..LENGTH / 4 * 3], &mut id);
        Self(id)
    }

    /// The node that issued a session id; `None` when no node of a cluster issues ids of this form.
    pub fn of_session(sid: &str) -> Option<Self> {
        let well_formed = sid.len() == LENGTH + SECRET
            && sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        Some(Self(*sid.as_bytes().first_chunk().filter(|_| well_formed)?))
    }

    /// Parses a node id of 8 characters.
    pub fn of_text(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// The id as text, 8 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A GET that a node proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// The proxying node.
    pub node: NodeId,
    /// The proxying node's number for the GET.
    pub number: u64,
}

impl Passage {
    /// Reads the header [`PASSAGE`] of a proxied request; earlier releases do not send it.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (node, number) = headers.get(PASSAGE)?.to_str().ok()?.split_once('.')?;
        Some(Self { node: NodeId::of_text(node)?, number: number.parse().ok()? })
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::try_from(format!("{}.{}", self.node.as_str(), self.number))
            .unwrap_or(const { HeaderValue::from_static("") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_session_ids_have_no_node() {
        let good = "x".repeat(LENGTH + SECRET);
        assert!(NodeId::of_session(&good).is_some());
        for bad in ["", "x", &good[1..], &format!("{good}x"), &good.replacen('x', "/", 1), &format!("ä{}", &good[2..])]
        {
            assert_eq!(NodeId::of_session(bad), None, "{bad}");
        }
        assert_eq!(crate::session::secret().len(), SECRET);
    }
}
