//! How gateways know one another: each request between them carries a tag over its first line and the time.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;

/// Carries the seal: `<seconds since 1970>.<tag>`.
pub const SEAL: HeaderName = HeaderName::from_static("confab-forward");

/// How far two clocks may differ.
const CLOCKS_DIFFER: i64 = 60;

/// Makes and knows seals of one cluster.
#[derive(Clone)]
pub struct Sealer(hmac::Key);

impl Sealer {
    /// With the cluster's key.
    pub fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The seal of a request that is sent now to the node of that id.
    pub fn seal(&self, to: &str, method: &Method, uri: &Uri) -> HeaderValue {
        self.seal_at(Timestamp::now().as_second(), to, method, uri)
    }

    fn seal_at(&self, second: i64, to: &str, method: &Method, uri: &Uri) -> HeaderValue {
        let tag = hmac::sign(&self.0, line(second, to, method, uri).as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(tag);
        HeaderValue::try_from(format!("{second}.{tag}")).unwrap_or(const { HeaderValue::from_static("") })
    }

    /// Whether a gateway of this cluster sent this request to this node, just now.
    pub fn knows(&self, seal: Option<&HeaderValue>, to: &str, method: &Method, uri: &Uri) -> bool {
        let known = || {
            let (second, tag) = seal?.to_str().ok()?.split_once('.')?;
            let second: i64 = second.parse().ok()?;
            let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
            hmac::verify(&self.0, line(second, to, method, uri).as_bytes(), &tag).ok()?;
            (Timestamp::now().as_second().abs_diff(second) <= CLOCKS_DIFFER as u64).then_some(())
        };
        known().is_some()
    }
}

/// What the tag is over. The beginning keeps it apart from all else that is signed with the cluster's key.
fn line(second: i64, to: &str, method: &Method, uri: &Uri) -> String {
    format!("confab forward {second} {to} {method} {}", uri.path_and_query().map_or("/", |path| path.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_request_to_this_node_at_about_this_time() {
        let sealer = |key: &str| Sealer::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
        let (ours, theirs) = (sealer("ours"), sealer("theirs"));
        let uri = Uri::from_static("http://10.0.0.1:1/socket.io/?sid=x");
        let seal = ours.seal("node", &Method::GET, &uri);
        // The address is not part of it: what arrives has none.
        let arrived = Uri::from_static("/socket.io/?sid=x");
        assert!(ours.knows(Some(&seal), "node", &Method::GET, &arrived));
        assert!(!theirs.knows(Some(&seal), "node", &Method::GET, &arrived));
        assert!(!ours.knows(Some(&seal), "another", &Method::GET, &arrived));
        assert!(!ours.knows(Some(&seal), "node", &Method::POST, &arrived));
        assert!(!ours.knows(Some(&seal), "node", &Method::GET, &Uri::from_static("/socket.io/?sid=y")));

        let now = Timestamp::now().as_second();
        for (second, good) in [(now - 30, true), (now + 30, true), (now - 90, false), (now + 90, false), (i64::MIN, false)] {
            let seal = ours.seal_at(second, "node", &Method::GET, &uri);
            assert_eq!(ours.knows(Some(&seal), "node", &Method::GET, &uri), good, "{second}");
        }
        for bad in ["", ".", "1", "x.y", &format!("{now}."), &format!("{now}.AAAA")] {
            assert!(!ours.knows(HeaderValue::from_str(bad).ok().as_ref(), "node", &Method::GET, &uri), "{bad}");
        }
        assert!(!ours.knows(None, "node", &Method::GET, &uri));
    }
}
