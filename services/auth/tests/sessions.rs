//! Sessions: refresh, lists, and their end.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use confab_auth::AuthConfig;
use confab_common::clock::now_ms;
use confab_common::grpc::{Services, in_process};
use confab_common::process::Process;
use confab_common::testing::{database, directory};
use confab_common::{Code, Error, Secret};
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::*;
use futures::future::join_all;
use jsonwebtoken::jwk::JwkSet;
use support::*;
use uuid::Uuid;

const PASSWORD: &str = "correct horse";

#[tokio::test]
async fn a_session_is_refreshed() {
    let (mut client, _process) = start(directory(), bus()).await;
    let plain = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    assert_eq!((plain.refresh_token.as_str(), plain.refresh_expires_at_ms), ("", 0));
    let before = now_ms();
    let first = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let id = session_id(&first);
    assert!(first.refresh_token.starts_with(&format!("cfr_{id}_")), "{}", first.refresh_token);
    assert!((before + 7_200_000..=now_ms() + 7_200_000).contains(&first.refresh_expires_at_ms));
    let keys = client.get_jwks(call(GetJwksRequest {})).await.unwrap().into_inner().json;
    let keys = serde_json::from_str::<JwkSet>(&keys).unwrap();
    let mut session = first.clone();
    for _ in 0..3 {
        let next = refresh(&mut client, &session.refresh_token).await.unwrap();
        assert!(next.refresh_token != session.refresh_token && next.user == first.user);
        assert_eq!(session_id(&next), id, "all tokens of a session have its id");
        verify(&next.token, &keys);
        let claims = claims(&next);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
        session = next;
    }
    let listed = sessions(&mut client, &user_id(&first)).await;
    assert_eq!(listed, [id, session_id(&plain)]);
    for bad in ["", "x", &plain.token, &session.token, &format!("{}A", session.refresh_token)] {
        assert_eq!(refresh(&mut client, bad).await.unwrap_err().code, Code::Unauthorized, "{bad:.20}");
    }
}

#[tokio::test]
async fn twenty_concurrent_refreshes_have_one_lineage() {
    let key = Secret::from("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    for store in [None, Some(database().await)] {
        let config = AuthConfig { auth_store: store, signing_key: Some(key.clone()), ..config() };
        let (mut client, _process) = start_with(&config, directory(), bus(), Services::none()).await;
        signup(&mut client, "", "ada", PASSWORD).await.unwrap();
        let mut token = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap().refresh_token;
        for _ in 0..3 {
            let attempts = (0..20).map(|_| {
                let (mut client, token) = (client.clone(), token.clone());
                async move { refresh(&mut client, &token).await.unwrap().refresh_token }
            });
            let mut successors = join_all(attempts).await;
            successors.dedup();
            assert_eq!(successors.len(), 1);
            token = successors.remove(0);
        }
    }
}

#[tokio::test]
async fn an_old_refresh_token_ends_the_session() {
    let data_dir = directory();
    let (mut client, _process) = start(data_dir.clone(), bus()).await;
    let session = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let first = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let second = refresh(&mut client, &first.refresh_token).await.unwrap();
    let third = refresh(&mut client, &second.refresh_token).await.unwrap();
    let again = refresh(&mut client, &first.refresh_token).await.unwrap();
    assert_eq!(again.refresh_token, second.refresh_token, "within 10 s of the successor's use");
    // An invented token of the session ends nothing.
    let forged = format!("{}{}", &first.refresh_token[..41], "A".repeat(64));
    assert_eq!(refresh(&mut client, &forged).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(sessions(&mut client, &user_id(&session)).await.len(), 2);

    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let moved = "UPDATE sessions SET used_at_ms = used_at_ms - 10001 WHERE used_at_ms IS NOT NULL";
    assert_eq!(database.execute(moved, []).unwrap(), 1);
    assert_eq!(refresh(&mut client, &first.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(refresh(&mut client, &third.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    let ended = revocations(&mut client).await;
    assert_eq!(ended.iter().map(|ended| ended.session_id.clone()).collect::<Vec<_>>(), [session_id(&first)]);
    assert!(ended[0].expires_at_ms >= again.expires_at_ms, "until the last access token expires");
    assert_eq!(sessions(&mut client, &user_id(&session)).await, [session_id(&session)]);
}

#[tokio::test]
async fn refresh_tokens_survive_a_rotation_of_the_signing_key() {
    let (old, new) = ("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=");
    let (store, process) = (database().await, Process::new());
    let replica = async |keys: &str| {
        let config = AuthConfig { auth_store: Some(store.clone()), signing_key: Some(Secret::from(keys)), ..config() };
        let server =
            confab_auth::start(&config, &storage(directory()), bus(), Services::none(), &process).await.unwrap();
        AuthServiceClient::new(in_process(server))
    };
    let mut before = replica(old).await;
    signup(&mut before, "", "ada", PASSWORD).await.unwrap();
    let first = login_refreshable(&mut before, "ada", PASSWORD).await.unwrap();
    let second = refresh(&mut before, &first.refresh_token).await.unwrap();
    let mut turned = replica(&format!("{new},{old}")).await;
    let repeated = refresh(&mut turned, &first.refresh_token).await.unwrap();
    assert_eq!(repeated.refresh_token, second.refresh_token, "the key that derived the successor is still there");
    let mut after = replica(new).await;
    let third = refresh(&mut after, &second.refresh_token).await.unwrap();
    let fourth = refresh(&mut after, &third.refresh_token).await.unwrap();
    assert!(fourth.refresh_token != third.refresh_token);
}

#[tokio::test]
async fn an_unused_refresh_token_expires() {
    let config = AuthConfig { refresh_ttl: Duration::from_secs(1), ..config() };
    let (mut client, _process) = start_with(&config, directory(), bus(), Services::none()).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let session = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    assert!(session.expires_at_ms <= session.refresh_expires_at_ms);
    while now_ms() < session.refresh_expires_at_ms {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refresh(&mut client, &session.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(sessions(&mut client, &user_id(&session)).await.len(), 1, "that of the signup");
}

#[tokio::test]
async fn sessions_show_where_they_are_used() {
    let (mut client, _process) = start(directory(), bus()).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let request = LoginRequest {
        username: "ada".into(),
        password: PASSWORD.into(),
        client_address: "203.0.113.77".into(),
        user_agent: "Phone\u{7} 1.0".into(),
        refresh: true,
    };
    let session = client.login(call(request)).await.unwrap().into_inner();
    let list = ListSessionsRequest { user_id: user_id(&session) };
    let listed = client.list_sessions(call(list.clone())).await.unwrap().into_inner().sessions.remove(0);
    assert_eq!((listed.user_agent.as_str(), listed.address.as_str()), ("Phone 1.0", "203.0.113.0/24"));
    assert!(listed.created_at_ms == listed.last_seen_at_ms && listed.id == session_id(&session));
    let moved = RefreshRequest {
        refresh_token: session.refresh_token,
        client_address: "2001:db8:1:2::".into(),
        user_agent: "Phone 1.1".into(),
    };
    client.refresh(call(moved)).await.unwrap();
    let listed = client.list_sessions(call(list)).await.unwrap().into_inner().sessions.remove(0);
    assert_eq!((listed.user_agent.as_str(), listed.address.as_str()), ("Phone 1.1", "2001:db8:1::/48"));
}

#[tokio::test]
async fn users_end_single_and_all_sessions() {
    let (mut client, _process) = start(directory(), bus()).await;
    let first = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let second = login(&mut client, "ada", PASSWORD).await.unwrap();
    let third = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let foreign = signup(&mut client, "", "eve", PASSWORD).await.unwrap();
    let ada = user_id(&first);
    let end = |id: &str| call(EndSessionRequest { user_id: ada.clone(), session_id: id.into() });
    for unknown in ["", "x", &session_id(&foreign), &Uuid::now_v7().to_string()] {
        let error = Error::from(client.end_session(end(unknown)).await.unwrap_err());
        assert_eq!(error.code, Code::NotFound, "{unknown}");
    }
    for _ in 0..2 {
        let ended = client.end_session(end(&session_id(&second))).await.unwrap().into_inner().revocations.remove(0);
        assert_eq!((ended.number, ended.session_id), (1, session_id(&second)));
    }
    let all =
        |except: &str| call(EndSessionsRequest { user_id: ada.clone(), except_session_id: except.into(), actor: None });
    let ended = client.end_sessions(all(&session_id(&third))).await.unwrap().into_inner().revocations;
    assert_eq!(ended[0].session_id, session_id(&first));
    let cut = &ended[1];
    assert_eq!((cut.kind(), cut.session_id.as_str()), (RevocationKind::NotBefore, ""));
    assert_eq!((&cut.user_id, &cut.except_session_id), (&ada, &session_id(&third)));
    assert!(cut.not_before * 1000 > now_ms() - 60_000 && cut.not_before > claims(&third)["iat"].as_i64().unwrap());
    assert_eq!(sessions(&mut client, &ada).await, [session_id(&third)]);
    let third = refresh(&mut client, &third.refresh_token).await.unwrap();

    client.end_sessions(all("")).await.unwrap();
    assert!(sessions(&mut client, &ada).await.is_empty());
    assert_eq!(refresh(&mut client, &third.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(sessions(&mut client, &user_id(&foreign)).await.len(), 1);
    let cut = revocations(&mut client).await.pop().unwrap();
    // A login in the same second gets a token that the revocation does not end.
    let next = login(&mut client, "ada", PASSWORD).await.unwrap();
    assert!(claims(&next)["iat"].as_i64().unwrap() >= cut.not_before);
    assert_eq!(sessions(&mut client, &ada).await, [session_id(&next)]);
}

#[tokio::test]
async fn logout_ends_the_session_of_a_refresh_token() {
    let (mut client, _process) = start(directory(), bus()).await;
    signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let first = login_refreshable(&mut client, "ada", PASSWORD).await.unwrap();
    let second = refresh(&mut client, &first.refresh_token).await.unwrap();
    let (session_id, user_id) = (session_id(&first), user_id(&first));
    client.logout(call(LogoutRequest { session_id, user_id, expires_at_ms: first.expires_at_ms })).await.unwrap();
    assert!(revocations(&mut client).await[0].expires_at_ms >= second.expires_at_ms);
    for session in [first, second] {
        assert_eq!(refresh(&mut client, &session.refresh_token).await.unwrap_err().code, Code::Unauthorized);
    }
}
