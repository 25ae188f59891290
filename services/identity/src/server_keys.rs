//! Verifies server keys, with the hashes that auth stores.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use confab_common::grpc::{Call, Transport, request};
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::GetKeyRequest;
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::server_key::Scopes;
use uuid::Uuid;

use crate::lookups::Lookups;

/// How long an answer about a key is used. With the time of a request, less than 5 s: then a deleted key is rejected.
const LIFE: Duration = Duration::from_secs(4);
/// Most keys, known and unknown, with a cached answer.
const CAPACITY: u64 = 1000;
const ASK: Call = Call::within(Duration::from_secs(2)).attempt(Duration::from_millis(500)).reading();

/// A server key that exists.
pub struct ServerKey {
    pub id: Uuid,
    pub scopes: Scopes,
    /// The SHA-256 of the whole key.
    sha256: Vec<u8>,
}

impl ServerKey {
    /// Whether this is the text of the key. Takes the same time for every wrong text.
    pub fn is(&self, text: &str) -> bool {
        self.has(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// Whether this is the SHA-256 of the key. Takes the same time for every wrong one.
    pub fn has(&self, sha256: &[u8]) -> bool {
        verify_slices_are_equal(sha256, &self.sha256).is_ok()
    }
}

/// The server keys; clones share the answers.
#[derive(Clone)]
pub struct ServerKeys(Arc<Inner>);

struct Inner {
    auth: AuthServiceClient<Transport>,
    answers: Lookups<Arc<ServerKey>>,
}

impl ServerKeys {
    pub fn new(auth: AuthServiceClient<Transport>) -> Self {
        Self(Arc::new(Inner { auth, answers: Lookups::new(CAPACITY, LIFE) }))
    }

    /// The key with this id in auth's last answer; it may have been deleted since.
    pub async fn last(&self, id: Uuid) -> Option<Arc<ServerKey>> {
        self.0.answers.last(id).await
    }

    /// The key with this id; `None` if it is unknown or deleted.
    ///
    /// # Errors
    /// `unavailable` when auth does not answer.
    pub async fn find(&self, id: Uuid) -> Result<Option<Arc<ServerKey>>> {
        self.0.answers.find(id, self.ask(id)).await
    }

    /// Rejects a key that this program has deleted.
    pub async fn forget(&self, id: Uuid) {
        self.0.answers.forget(id).await;
    }

    async fn ask(&self, id: Uuid) -> Result<Option<Arc<ServerKey>>> {
        match self.0.auth.clone().get_key(request(GetKeyRequest { id: id.to_string() }, ASK)).await.map_err(Error::from)
        {
            Ok(key) => {
                let key = key.into_inner();
                let scopes = Scopes::of_names(key.scopes.iter().map(String::as_str));
                Ok(Some(Arc::new(ServerKey { id, scopes, sha256: key.sha256 })))
            }
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(Error::unavailable("the auth service").because(error)),
        }
    }
}
