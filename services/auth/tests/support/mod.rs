//! Starts the service, and calls it as a gateway does.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use confab_auth::{AuthConfig, SignupMode};
use confab_common::bus::Bus;
use confab_common::grpc::{Services, Transport, in_process};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::{Error, Secret};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::*;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use uuid::Uuid;

pub type Client = AuthServiceClient<Transport>;

/// A call with a deadline that even a busy machine meets, because hashing is slow by design.
pub fn call<T>(message: T) -> tonic::Request<T> {
    confab_common::grpc::request(message, confab_common::grpc::Call::within(Duration::from_secs(60)))
}

/// An attempt of a call with this operation.
pub fn attempt<T>(operation: Uuid, message: T) -> tonic::Request<T> {
    let mut request = call(message);
    request.metadata_mut().insert("confab-operation", operation.to_string().parse().unwrap());
    request
}

pub fn bus() -> Bus {
    Bus::open(&Secret::from("local:"), None).unwrap()
}

pub fn config() -> AuthConfig {
    AuthConfig {
        auth_store: None,
        signing_key: None,
        token_ttl: Duration::from_secs(3600),
        refresh_ttl: Duration::from_secs(7200),
        signup: SignupMode::Open,
    }
}

pub fn storage(data_dir: PathBuf) -> StorageConfig {
    StorageConfig { data_dir, postgres: PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() } }
}

pub async fn start(data_dir: PathBuf, bus: Bus) -> (Client, Process) {
    start_with(&config(), data_dir, bus, Services::none()).await
}

pub async fn start_with(config: &AuthConfig, data_dir: PathBuf, bus: Bus, services: Services) -> (Client, Process) {
    let process = Process::new();
    let server = confab_auth::start(config, &storage(data_dir), bus, services, &process).await.unwrap();
    (AuthServiceClient::new(in_process(server)), process)
}

/// Starts the service after the database has been released: when the last task that uses it has ended.
pub async fn restart(data_dir: PathBuf, bus: Bus, services: Services) -> (Client, Process) {
    loop {
        let process = Process::new();
        let storage = storage(data_dir.clone());
        match confab_auth::start(&config(), &storage, bus.clone(), services.clone(), &process).await {
            Ok(server) => return (AuthServiceClient::new(in_process(server)), process),
            Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error:#}"),
        }
    }
}

pub async fn signup(client: &mut Client, user_id: &str, username: &str, password: &str) -> Result<Session, Error> {
    let (user_id, username, password) = (user_id.into(), username.into(), password.into());
    let request = SignupRequest { user_id, username, password, ..SignupRequest::default() };
    Ok(client.signup(call(request)).await?.into_inner())
}

pub async fn login(client: &mut Client, username: &str, password: &str) -> Result<Session, Error> {
    let request = LoginRequest { username: username.into(), password: password.into(), ..LoginRequest::default() };
    Ok(client.login(call(request)).await?.into_inner())
}

/// Opens a session with a refresh token.
pub async fn login_refreshable(client: &mut Client, username: &str, password: &str) -> Result<Session, Error> {
    let (username, password) = (username.into(), password.into());
    let request = LoginRequest { username, password, refresh: true, ..LoginRequest::default() };
    Ok(client.login(call(request)).await?.into_inner())
}

pub async fn refresh(client: &mut Client, refresh_token: &str) -> Result<Session, Error> {
    let request = RefreshRequest { refresh_token: refresh_token.into(), ..RefreshRequest::default() };
    Ok(client.refresh(call(request)).await?.into_inner())
}

pub async fn revocations(client: &mut Client) -> Vec<Revocation> {
    let request = ListRevocationsRequest { after: 0, limit: 0 };
    client.list_revocations(call(request)).await.unwrap().into_inner().revocations
}

/// The ids of a user's sessions, the last used one first.
pub async fn sessions(client: &mut Client, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest { user_id: user_id.into() };
    let listed = client.list_sessions(call(request)).await.unwrap().into_inner().sessions;
    listed.into_iter().map(|session| session.id).collect()
}

/// The id of the user of a session.
pub fn user_id(session: &Session) -> String {
    session.user.as_ref().unwrap().id.clone()
}

/// The claims of a session's token.
pub fn claims(session: &Session) -> serde_json::Value {
    jsonwebtoken::dangerous::insecure_decode_claims(&session.token).unwrap()
}

/// The id of a session: the `jti` of its tokens.
pub fn session_id(session: &Session) -> String {
    claims(session)["jti"].as_str().unwrap().into()
}

pub fn verify(token: &str, keys: &JwkSet) {
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["confab"]);
    jsonwebtoken::decode::<serde_json::Value>(
        token,
        &DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap(),
        &validation,
    )
    .unwrap();
}

/// What a revocation is about.
pub struct RevocationRef;

impl RevocationRef {
    pub fn of(revocation: &Revocation) -> (RevocationKind, String) {
        let id = if revocation.user_id.is_empty() { &revocation.session_id } else { &revocation.user_id };
        (revocation.kind(), id.clone())
    }
}
