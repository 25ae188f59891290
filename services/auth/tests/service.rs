//! The service from its callers' view: the generated client over the in-process transport.

#![allow(clippy::unwrap_used)]

mod support;

use confab_auth::AuthConfig;
use confab_common::bus::Notice;
use confab_common::clock::now_ms;
use confab_common::grpc::{Services, in_process};
use confab_common::process::Process;
use confab_common::testing::{database, directory};
use confab_common::{Code, Error, Secret};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::*;
use confab_proto::channel;
use jsonwebtoken::jwk::JwkSet;
use prost::Message;
use support::{bus, call, config, login, restart, signup, start, storage, verify};
use uuid::Uuid;

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
    let by_id = |id: &str| call(GetUserRequest { id: id.into(), username: String::new() });
    let by_name = |username: &str| call(GetUserRequest { id: String::new(), username: username.into() });
    for found in [by_id(&user.id), by_name("ZOË"), by_name(" zoe\u{308}")] {
        assert_eq!(client.get_user(found).await.unwrap().into_inner(), user);
    }
    for unknown in [by_id(""), by_id("x"), by_id(&Uuid::now_v7().to_string()), by_name("zo"), by_name("z\0")] {
        let error = Error::from(client.get_user(unknown).await.unwrap_err());
        assert_eq!(error.code, Code::NotFound);
    }
    let both = call(GetUserRequest { id: user.id.clone(), username: "zoë".into() });
    assert_eq!(Error::from(client.get_user(both).await.unwrap_err()).code, Code::InvalidRequest);
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
    let revocation = Revocation { number: 1, session_id, expires_at_ms, ..Revocation::default() };
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

    let (mut client, _process) = restart(data_dir, bus, Services::none()).await;
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
    let error =
        confab_auth::start(&config, &storage, bus(), Services::none(), &process).await.err().unwrap().to_string();
    assert!(
        error.contains("CONFAB_SIGNING_KEY is not set") && error.contains("openssl genpkey -algorithm ed25519"),
        "{error}"
    );

    let key = Secret::from("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    let config = AuthConfig { signing_key: Some(key), ..config };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let server = confab_auth::start(&config, &storage, bus(), Services::none(), &process).await.unwrap();
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

    let (mut client, _process) = restart(data_dir, bus, Services::none()).await;
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
        AuthServiceClient::new(in_process(
            confab_auth::start(&config, &storage, bus(), Services::none(), &process).await.unwrap(),
        ))
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
