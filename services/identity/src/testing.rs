//! Tokens and scripted services for tests.
//!
//! # Panics
//! All helpers panic when a test cannot go on.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{BufMut, Bytes, BytesMut};
use confab_common::Error;
use confab_common::bus::Bus;
use confab_common::grpc::{Peer, Role, Transport, in_process};
use confab_common::issuers::IssuersConfig;
use confab_common::process::Process;
pub use confab_common::testing::eventually;
use confab_proto::auth::v1::{GetUserRequest, Jwks, ListRevocationsResponse, ServerKey, User, UserRef};
use http::Response;
use http_body_util::{BodyExt, Full};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tonic::Status;
use tower::{ServiceExt, service_fn};
use uuid::Uuid;

use crate::callers::Callers;
use crate::claim::Claim;
use crate::config::CallersConfig;
use crate::credential::Credential;
use crate::tokens::Identity;

/// A gRPC service that answers each call's method name and message with the result of `answer`.
pub fn fake(answer: impl Fn(&str, Bytes) -> Result<Vec<u8>, Error> + Send + Sync + 'static) -> Transport {
    let answer = Arc::new(answer);
    in_process(service_fn(move |request: http::Request<tonic::body::Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let message = body.collect().await.unwrap().to_bytes().slice(5..);
            let method = head.uri.path().rsplit('/').next().unwrap();
            Ok(match answer(method, message) {
                Ok(message) => {
                    let mut frame = BytesMut::with_capacity(message.len() + 5);
                    frame.put_u8(0);
                    frame.put_u32(message.len() as u32);
                    frame.extend_from_slice(&message);
                    let head =
                        Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
                    head.body(tonic::body::Body::new(Full::new(frame.freeze()))).unwrap()
                }
                Err(error) => Status::from(error).into_http(),
            })
        }
    }))
}

/// An auth service that publishes the key 1 and has revoked nothing.
pub fn auth() -> Transport {
    fake(|method, _| match method {
        "GetJwks" => Ok(Jwks { json: jwks(&[1]) }.encode_to_vec()),
        "ListRevocations" => Ok(ListRevocationsResponse::default().encode_to_vec()),
        _ => Err(Error::not_found("key")),
    })
}

/// The id of the server key [`server_key`].
pub const KEY: Uuid = Uuid::from_u128(5);

/// A server key with the scope `messages`, in an auth service that looks keys up once they are released.
pub fn server_key() -> String {
    format!("cfk_{}_{}", KEY.simple(), "A".repeat(43))
}

/// An auth service like [`auth`], which has the server key [`server_key`] and any user. Look-ups of keys wait until
/// [`release`](Self::release).
#[derive(Default)]
pub struct SlowKeys {
    lookups: AtomicUsize,
    is_released: watch::Sender<bool>,
}

impl SlowKeys {
    /// How often a key was looked up.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }

    pub fn release(&self) {
        self.is_released.send_replace(true);
    }

    pub fn transport(self: &Arc<Self>) -> Transport {
        let answers = fake(|method, body| match method {
            "GetJwks" => Ok(Jwks { json: jwks(&[1]) }.encode_to_vec()),
            "ListRevocations" => Ok(ListRevocationsResponse::default().encode_to_vec()),
            "GetKey" => {
                let sha256 = digest(&SHA256, server_key().as_bytes()).as_ref().to_vec();
                let (id, scopes) = (KEY.to_string(), vec!["messages".to_owned()]);
                Ok(ServerKey { id, sha256, scopes, ..ServerKey::default() }.encode_to_vec())
            }
            _ => {
                let id = GetUserRequest::decode(body).unwrap().id;
                Ok(User { id, username: "ada".into(), ..User::default() }.encode_to_vec())
            }
        });
        let keys = self.clone();
        in_process(service_fn(move |request: http::Request<tonic::body::Body>| {
            let (keys, answers) = (keys.clone(), answers.clone());
            async move {
                if request.uri().path().ends_with("/GetKey") {
                    keys.lookups.fetch_add(1, Ordering::Relaxed);
                    drop(keys.is_released.subscribe().wait_for(|released| *released).await);
                }
                answers.oneshot(request).await
            }
        }))
    }
}

/// What a service with this auth service knows; it requires tokens.
pub fn callers(auth: Transport) -> Callers {
    let config = CallersConfig::strict(IssuersConfig::default());
    Callers::start(&config, Role::Message, auth, None, &Process::new()).unwrap()
}

/// The claim of a gateway's call with this credential.
pub async fn claim(callers: &Callers, credential: &Credential) -> Claim {
    let verified = callers.verify(credential).await.unwrap();
    let mut request = tonic::Request::new(());
    request.extensions_mut().insert(Claim::new(callers.clone(), verified));
    request.extensions_mut().insert(Peer::with(Role::Gateway));
    Claim::of(&request)
}

/// A valid token of the user with this id.
pub fn token_of(user: Uuid) -> String {
    signed(1, &claims(serde_json::json!({"sub": user, "name": format!("user-{}", user.as_u128())})))
}

/// The session id in the tests' tokens.
pub const SESSION: Uuid = Uuid::from_u128(9);

/// A new bus in this process.
pub fn bus() -> Bus {
    Bus::open(&"local:".into(), None).unwrap()
}

/// An arbitrary identity.
pub fn identity() -> Identity {
    let user_id = Uuid::from_u128(7);
    let user = UserRef { id: user_id.to_string(), username: "zoë".into() };
    Identity {
        user_id,
        user,
        session_id: SESSION,
        issued_at: 0,
        expires_at: i64::MAX,
        credential: Credential::default(),
    }
}

/// The claims of a valid token, with the claims in `change` replaced; null removes a claim.
pub fn claims(change: serde_json::Value) -> serde_json::Value {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims: HashMap<String, serde_json::Value> = serde_json::from_value(serde_json::json!({
        "iss": "confab", "aud": "confab", "sub": Uuid::from_u128(7).to_string(), "name": "zoë", "jti": SESSION,
        "iat": now, "nbf": now, "exp": now + 60,
    }))
    .unwrap();
    claims.extend(serde_json::from_value::<HashMap<_, _>>(change).unwrap());
    claims.retain(|_, value| !value.is_null());
    serde_json::to_value(claims).unwrap()
}

/// An Ed25519 key derived from one byte.
pub fn key(seed: u8) -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    EncodingKey::from_ed_der(&[&head[..], &[seed; 32]].concat())
}

pub fn jwks(seeds: &[u8]) -> String {
    let public = seeds.iter().map(|seed| {
        let mut public = Jwk::from_encoding_key(&key(*seed), Algorithm::EdDSA).unwrap();
        public.common.key_id = Some(format!("k{seed}"));
        public
    });
    serde_json::to_string(&JwkSet { keys: public.collect() }).unwrap()
}

pub fn signed(seed: u8, claims: &Value) -> String {
    signed_as(seed, &format!("k{seed}"), claims)
}

/// A token signed with this key, whose head names a key id.
pub fn signed_as(seed: u8, key_id: &str, claims: &Value) -> String {
    let header = Header { kid: Some(key_id.into()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key(seed)).unwrap()
}
