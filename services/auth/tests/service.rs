//! The service from its callers' view: the generated client over the in-process transport.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use confab_auth::AuthConfig;
use confab_common::bus::{Bus, Notice};
use confab_common::clock::now_ms;
use confab_common::grpc::{Transport, in_process};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::testing::{database, directory};
use confab_common::{Code, Error, Secret};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::*;
use confab_proto::channel;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use prost::Message;
use uuid::Uuid;

type Client = AuthServiceClient<Transport>;

/// A call with a deadline that even a busy machine meets, because hashing is slow by design.
fn call<T>(message: T) -> tonic::Request<T> {
    confab_common::grpc::request(message, confab_common::grpc::Call::within(Duration::from_secs(60)))
}

fn bus() -> Bus {
    Bus::open(&Secret::from("local:"), None).unwrap()
}

fn config() -> AuthConfig {
    AuthConfig { auth_store: None, signing_key: None, token_ttl: Duration::from_secs(3600) }
}

fn storage(data_dir: PathBuf) -> StorageConfig {
    StorageConfig { data_dir, postgres: PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() } }
}

async fn start(data_dir: PathBuf, bus: Bus) -> (Client, Process) {
    let process = Process::new();
    let server = confab_auth::start(&config(), &storage(data_dir), bus, &process).await.unwrap();
    (AuthServiceClient::new(in_process(server)), process)
}

/// Starts the service after the database has been released: when the last task that uses it has ended.
async fn restart(data_dir: PathBuf, bus: Bus) -> (Client, Process) {
    loop {
        let process = Process::new();
        match confab_auth::start(&config(), &storage(data_dir.clone()), bus.clone(), &process).await {
            Ok(server) => return (AuthServiceClient::new(in_process(server)), process),
            Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error:#}"),
        }
    }
}

async fn signup(client: &mut Client, user_id: &str, username: &str, password: &str) -> Result<Session, Error> {
    let request = SignupRequest {
        user_id: user_id.into(),
        username: username.into(),
        password: password.into(),
        client_address: String::new(),
    };
    Ok(client.signup(call(request)).await?.into_inner())
}

async fn login(client: &mut Client, username: &str, password: &str) -> Result<Session, Error> {
    let request = LoginRequest { username: username.into(), password: password.into(), client_address: String::new() };
    Ok(client.login(call(request)).await?.into_inner())
}

#[tokio::test]
async fn signup_then_login() {
    let (mut client, _process) = start(directory(), bus()).await;
    let session = signup(&mut client, "", " Zoe\u{308} ", "correct horse").await.unwrap();
    let user = session.user.unwrap();
    assert_eq!(user.username, "Zoë");
    assert_eq!(user.id.parse::<Uuid>().unwrap().get_version_num(), 7);
    assert!(session.expires_at_ms > user.created_at_ms);

    for name in ["Zoë", "ZOË", " zoe\u{308}"] {
        assert_eq!(login(&mut client, name, "correct horse").await.unwrap().user.unwrap(), user);
    }
    assert_eq!(client.get_user(call(GetUserRequest { id: user.id.clone() })).await.unwrap().into_inner(), user);
    for id in ["", "x", &Uuid::now_v7().to_string()] {
        let error = Error::from(client.get_user(call(GetUserRequest { id: id.into() })).await.unwrap_err());
        assert_eq!(error.code, Code::NotFound, "{id:?}");
    }
    let taken = signup(&mut client, "", "ZOË", "another horse").await.unwrap_err();
    assert_eq!(taken.code, Code::UsernameTaken);
}

#[tokio::test]
async fn wrong_name_and_wrong_password_get_the_same_error() {
    let (mut client, _process) = start(directory(), bus()).await;
    signup(&mut client, "", "ada", "correct horse").await.unwrap();
    let mut answers = Vec::new();
    for (name, password) in
        [("ada", "wrong horse"), ("unknown", "correct horse"), ("", ""), ("no such name!", &"x".repeat(300))]
    {
        let error = login(&mut client, name, password).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidCredentials, "{name:?}");
        answers.push(error.to_string());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (mut client, _process) = start(directory(), bus()).await;
    for (id, name, password, fields) in [
        ("", "ab", "correct horse", &["username"][..]),
        ("", "ada", "1234567", &["password"]),
        ("", "ada", "Password123", &["password"]),
        ("", "a\0a", "correct\0horse", &["username", "password"]),
        ("x", "ada", "correct horse", &["userId"]),
    ] {
        let error = signup(&mut client, id, name, password).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidRequest);
        assert_eq!(error.fields.iter().map(|field| field.field.as_str()).collect::<Vec<_>>(), fields);
    }
    assert_eq!(login(&mut client, "a\0a", "correct horse").await.unwrap_err().fields[0].field, "username");
    assert_eq!(login(&mut client, "ada", "correct\0horse").await.unwrap_err().fields[0].field, "password");
    let logout = |session_id: &str, user_id: &str, expires_at_ms| {
        call(LogoutRequest { session_id: session_id.into(), user_id: user_id.into(), expires_at_ms })
    };
    let id = Uuid::now_v7().to_string();
    for request in [logout("", &id, 1), logout(&id, "x", 1), logout(&id, &id, 0)] {
        assert_eq!(Error::from(client.logout(request).await.unwrap_err()).code, Code::InvalidRequest);
    }
}

#[tokio::test]
async fn signup_can_be_repeated_by_id() {
    let (client, _process) = start(directory(), bus()).await;
    let id = Uuid::now_v7().to_string();
    let attempts = (0..3).map(|_| {
        let (mut client, id) = (client.clone(), id.clone());
        async move { signup(&mut client, &id, "Ada", "correct horse").await.unwrap() }
    });
    let sessions = futures::future::join_all(attempts).await;
    assert!(sessions.iter().all(|session| session.user == sessions[0].user && session.user.as_ref().unwrap().id == id));

    let mut client = client;
    for (name, password) in [("Ada", "another horse"), ("Eve", "correct horse")] {
        assert_eq!(signup(&mut client, &id, name, password).await.unwrap_err().code, Code::Conflict);
    }
    let other = Uuid::now_v7().to_string();
    assert_eq!(signup(&mut client, &other, "ada", "correct horse").await.unwrap_err().code, Code::UsernameTaken);
}

#[tokio::test]
async fn logout_is_announced_and_survives_a_restart() {
    let (data_dir, bus) = (directory(), bus());
    let (subscriptions, mut notices) = bus.listen();
    subscriptions.subscribe(channel::REVOCATIONS).await;
    let (mut client, process) = start(data_dir.clone(), bus.clone()).await;
    let (session_id, user_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let expires_at_ms = now_ms() + 3_600_000;
    let request = LogoutRequest { session_id: session_id.clone(), user_id, expires_at_ms };
    let revocation = Revocation { number: 1, session_id, expires_at_ms };
    for _ in 0..2 {
        client.logout(call(request.clone())).await.unwrap();
        let payload = loop {
            if let Notice::Message { payload, .. } = notices.next().await.unwrap() {
                break payload;
            }
        };
        assert_eq!(Revocation::decode(payload).unwrap(), revocation);
    }
    let jwks = client.get_jwks(call(GetJwksRequest {})).await.unwrap().into_inner();
    drop(client);
    process.shutdown.cancel();

    let (mut client, _process) = restart(data_dir, bus).await;
    let page = client.list_revocations(call(ListRevocationsRequest { after: 0, limit: 0 })).await.unwrap().into_inner();
    assert_eq!(page, ListRevocationsResponse { revocations: vec![revocation], head: 1 });
    assert_eq!(client.get_jwks(call(GetJwksRequest {})).await.unwrap().into_inner(), jwks, "the same key");
}

#[tokio::test]
async fn revocations_expire_with_the_longest_token() {
    const LONGEST: i64 = 8760 * 3_600_000;
    let (mut client, _process) = start(directory(), bus()).await;
    let before = now_ms();
    for expires_at_ms in [1 << 62, i64::MAX, before + 2 * LONGEST, before + LONGEST / 2] {
        let (session_id, user_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        client.logout(call(LogoutRequest { session_id, user_id, expires_at_ms })).await.unwrap();
    }
    let after = now_ms();
    let page = client.list_revocations(call(ListRevocationsRequest { after: 0, limit: 0 })).await.unwrap().into_inner();
    let expiries = page.revocations.iter().map(|revocation| revocation.expires_at_ms).collect::<Vec<_>>();
    assert_eq!((expiries.len(), expiries[3]), (4, before + LONGEST / 2));
    assert!(expiries[..3].iter().all(|expiry| (before + LONGEST..=after + LONGEST).contains(expiry)), "{expiries:?}");
}

#[tokio::test]
async fn replicas_on_postgres_require_a_key() {
    let config = AuthConfig { auth_store: Some(database().await), ..config() };
    let (storage, process) = (storage(directory()), Process::new());
    let error = confab_auth::start(&config, &storage, bus(), &process).await.err().unwrap().to_string();
    assert!(
        error.contains("CONFAB_SIGNING_KEY is not set") && error.contains("openssl genpkey -algorithm ed25519"),
        "{error}"
    );

    let key = Secret::from("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    let config = AuthConfig { signing_key: Some(key), ..config };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let server = confab_auth::start(&config, &storage, bus(), &process).await.unwrap();
        replicas.push(AuthServiceClient::new(in_process(server)));
    }
    signup(&mut replicas[0], "", "ada", "correct horse").await.unwrap();
    login(&mut replicas[1], "ADA", "correct horse").await.unwrap();
    let error = login(&mut replicas[1], "ada", "wrong horse").await.unwrap_err();
    assert_eq!(error.code, Code::InvalidCredentials);
}

#[tokio::test]
async fn lookalike_names_are_one_name() {
    let (mut client, _process) = start(directory(), bus()).await;
    let ace = signup(&mut client, "", "Ace", "correct horse").await.unwrap().user.unwrap();
    for taken in ["асе", "АСЕ", "ＡＣＥ", "ace"] {
        assert_eq!(
            signup(&mut client, "", taken, "correct horse").await.unwrap_err().code,
            Code::UsernameTaken,
            "{taken}"
        );
    }
    for bad in ["аce", "ace\u{3164}", "ａｄｍｉｎ", "𝐚𝐜𝐞", "ac\u{200D}e"] {
        let error = signup(&mut client, "", bad, "correct horse").await.unwrap_err();
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "username"), "{bad}");
    }
    assert_eq!(login(&mut client, "ａｃｅ", "correct horse").await.unwrap().user.unwrap(), ace);
    // The name would belong to another user, if that user had an account.
    assert_eq!(login(&mut client, "асе", "correct horse").await.unwrap_err().code, Code::InvalidCredentials);
    let name = signup(&mut client, "", "हिन्दी", "correct horse").await.unwrap().user.unwrap().username;
    assert_eq!(name, "हिन्दी");
}

#[tokio::test]
async fn password_is_the_same_in_every_typed_form() {
    let (mut client, _process) = start(directory(), bus()).await;
    signup(&mut client, "", "ada", "cafe\u{301} au lait").await.unwrap();
    for password in ["café au lait", "cafe\u{301}\u{A0}au\u{3000}lait"] {
        login(&mut client, "ada", password).await.unwrap();
    }
    for password in ["cafe au lait", "café au lait ", "café\tau lait"] {
        assert_eq!(
            login(&mut client, "ada", password).await.unwrap_err().code,
            Code::InvalidCredentials,
            "{password:?}"
        );
    }
    for password in ["        ", "Lovelace", "tab\tinside"] {
        assert_eq!(
            signup(&mut client, "", "lovelace", password).await.unwrap_err().fields[0].field,
            "password",
            "{password:?}"
        );
    }
}

#[tokio::test]
async fn account_of_an_earlier_release_can_log_in() {
    let (data_dir, bus) = (directory(), bus());
    let (mut client, process) = start(data_dir.clone(), bus.clone()).await;
    signup(&mut client, "", "Straße", "correct horse").await.unwrap();
    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let earlier = "UPDATE users SET username_folded = 'straße', username_skeleton = NULL";
    assert_eq!(database.execute(earlier, []).unwrap(), 1);
    login(&mut client, "Straße", "correct horse").await.unwrap();
    assert_eq!(signup(&mut client, "", "straße", "correct horse").await.unwrap_err().code, Code::UsernameTaken);
    drop(client);
    process.shutdown.cancel();

    let (mut client, _process) = restart(data_dir, bus).await;
    let unfilled = || {
        database.query_row("SELECT count(*) FROM users WHERE username_skeleton IS NULL", [], |row| row.get::<_, i64>(0))
    };
    while unfilled().unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(signup(&mut client, "", "STRASSE", "correct horse").await.unwrap_err().code, Code::UsernameTaken);
    login(&mut client, "straße", "correct horse").await.unwrap();
}

#[tokio::test]
async fn signing_key_is_rotated_replica_by_replica() {
    let (old, new) = ("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=");
    let (store, storage, process) = (database().await, storage(directory()), Process::new());
    let replica = async |keys: String| {
        let config =
            AuthConfig { auth_store: Some(store.clone()), signing_key: Some(Secret::from(keys.as_str())), ..config() };
        AuthServiceClient::new(in_process(confab_auth::start(&config, &storage, bus(), &process).await.unwrap()))
    };
    let [mut before, mut appended, mut turned, mut after] = [
        replica(old.into()).await,
        replica(format!("{old},{new}")).await,
        replica(format!("{new},{old}")).await,
        replica(new.into()).await,
    ];
    signup(&mut before, "", "ada", "correct horse").await.unwrap();

    let mut steps = Vec::new();
    for client in [&mut before, &mut appended, &mut turned, &mut after] {
        let token = login(client, "ada", "correct horse").await.unwrap().token;
        let json = client.get_jwks(call(GetJwksRequest {})).await.unwrap().into_inner().json;
        steps.push((token, serde_json::from_str::<JwkSet>(&json).unwrap()));
    }
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let signers = steps.iter().map(|(token, _)| kid(token)).collect::<Vec<_>>();
    assert!(signers[0] == signers[1] && signers[1] != signers[2] && signers[2] == signers[3], "{signers:?}");
    // During an upgrade, a token of one step verifies with the keys of other steps: those of the replicas that run at
    // the same time, and of later replicas while the token is valid.
    for (token, keys) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)] {
        verify(&steps[token].0, &steps[keys].1);
    }
    assert!(steps[3].1.find(&signers[0]).is_none(), "the old key is gone");
}

fn verify(token: &str, keys: &JwkSet) {
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
