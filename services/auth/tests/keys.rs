//! Server keys: their creation, the users that they manage, and the audit.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;
use confab_auth::{KeyCommand, Program};
use confab_common::clock::now_ms;
use confab_common::grpc::Services;
use confab_common::process::Process;
use confab_common::testing::directory;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use confab_proto::server_key::id_of;
use support::*;
use tonic::{Response, Status};
use uuid::Uuid;

const PASSWORD: &str = "correct horse";

async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Option<Code> {
    answer.await.err().map(|status| Error::from(status).code)
}

/// Creates a key as an operator does, while the service is stopped, and returns its id.
async fn operator_key(data_dir: &Path, scopes: &[&str]) -> String {
    let scopes = scopes.iter().map(|scope| scope.to_string()).collect();
    let create = KeyCommand::Create { scopes, name: "first".into() };
    loop {
        match confab_auth::keys(&config(), &storage(data_dir.into()), create.clone()).await {
            Ok(()) => break,
            Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error:#}"),
        }
    }
    let database = rusqlite::Connection::open(data_dir.join("auth.db")).unwrap();
    let sql = "SELECT id FROM server_keys ORDER BY created_at_ms DESC, id DESC LIMIT 1";
    Uuid::from_bytes(database.query_row(sql, [], |row| row.get(0)).unwrap()).to_string()
}

/// A running service with an operator's key that has these scopes.
async fn with_key(scopes: &[&str]) -> (Client, Process, Actor) {
    let data_dir = directory();
    let (client, process) = start(data_dir.clone(), bus()).await;
    drop(client);
    process.shutdown.cancel();
    let key_id = operator_key(&data_dir, scopes).await;
    let (client, process) = restart(data_dir, bus(), Services::none()).await;
    (client, process, Actor { key_id, request_id: "r1".into() })
}

async fn create(client: &mut Client, actor: &Actor, scopes: &[&str]) -> Result<CreateKeyResponse, Error> {
    let scopes = scopes.iter().map(|scope| scope.to_string()).collect();
    let request = CreateKeyRequest { scopes, name: " app ".into(), actor: Some(actor.clone()) };
    Ok(client.create_key(call(request)).await?.into_inner())
}

async fn audit(client: &mut Client) -> Vec<AuditEntry> {
    let request = ListAuditRequest { limit: 200, cursor: String::new() };
    client.list_audit(call(request)).await.unwrap().into_inner().entries
}

async fn put(client: &mut Client, actor: &Actor, user_id: &str, username: &str) -> Result<PutUserResponse, Error> {
    let (user_id, username, actor) = (user_id.into(), username.into(), Some(actor.clone()));
    let request = PutUserRequest { user_id, username, actor, ..PutUserRequest::default() };
    Ok(client.put_user(call(request)).await?.into_inner())
}

#[tokio::test]
async fn an_operator_creates_the_first_key() {
    let elsewhere = storage(directory());
    let create = KeyCommand::Create { scopes: vec!["keys".into()], name: String::new() };
    let missing = confab_auth::keys(&config(), &elsewhere, create).await.unwrap_err().to_string();
    assert!(missing.contains("there are no accounts in"), "{missing}");
    let (mut client, _process, actor) = with_key(&["rooms", "keys"]).await;
    let keys = client.list_keys(call(ListKeysRequest {})).await.unwrap().into_inner().keys;
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((&*key.name, &key.scopes[..]), ("first", &["keys".to_owned(), "rooms".into()][..]));
    assert!(key.sha256.is_empty() && key.id == actor.key_id && key.created_at_ms <= now_ms());
    let entries = audit(&mut client).await;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&*entry.act, &*entry.object, &*entry.key_id), ("key.create", &*key.id, ""));
}

#[tokio::test]
async fn wrong_arguments_create_no_key() {
    let data_dir = directory();
    let (client, process) = start(data_dir.clone(), bus()).await;
    drop(client);
    process.shutdown.cancel();
    operator_key(&data_dir, &["users"]).await;
    let data = data_dir.to_str().unwrap();
    for arguments in [["--scopes", "tea"], ["--scopes", ""], ["--scopes", "users,tea"]] {
        let all = ["confab-auth", "key", "create", "--data-dir", data].into_iter().chain(arguments);
        let ran = confab_auth::run(Program::parse_from(all), Process::new()).await;
        assert!(ran.unwrap_err().to_string().contains("scopes must be at least one of users, tokens"), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_key_creates_keys_with_its_own_scopes() {
    let (mut client, _process, actor) = with_key(&["keys", "users"]).await;
    let CreateKeyResponse { key, details } = create(&mut client, &actor, &["users"]).await.unwrap();
    let details = details.unwrap();
    assert_eq!((id_of(&key).unwrap().to_string(), &*details.name), (details.id.clone(), "app"));
    let get = |id: &str| call(GetKeyRequest { id: id.into() });
    let stored = client.get_key(get(&details.id)).await.unwrap().into_inner();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    assert_eq!((&stored.sha256[..], &stored.scopes), (hash.as_ref(), &vec!["users".to_owned()]));
    for (scopes, refused) in [
        (&["rooms"][..], Code::Forbidden),
        (&["users", "tokens"], Code::Forbidden),
        (&[], Code::InvalidRequest),
        (&["tea"], Code::InvalidRequest),
        (&["Users"], Code::InvalidRequest),
    ] {
        assert_eq!(create(&mut client, &actor, scopes).await.unwrap_err().code, refused, "{scopes:?}");
    }
    let deleted = Actor { key_id: details.id.clone(), request_id: "r2".into() };
    let delete = |id: &str| call(DeleteKeyRequest { id: id.into(), actor: Some(actor.clone()) });
    // The caller of the second attempt has received no answer to the first.
    let operation = Uuid::now_v7();
    for _ in 0..2 {
        let message = delete(&details.id).into_inner();
        client.delete_key(attempt(operation, message)).await.unwrap();
    }
    for id in [&*details.id, "x", ""] {
        assert_eq!(code(client.delete_key(delete(id))).await, Some(Code::NotFound));
        assert_eq!(code(client.get_key(get(id))).await, Some(Code::NotFound));
    }
    assert_eq!(create(&mut client, &deleted, &["users"]).await.unwrap_err().code, Code::Unauthorized);
    let entries = audit(&mut client).await;
    assert_eq!(entries.iter().map(|entry| &*entry.act).collect::<Vec<_>>(), ["key.delete", "key.create", "key.create"]);
    assert_eq!((&entries[1].key_id, &*entries[1].request_id), (&actor.key_id, "r1"));
    assert_eq!(entries[1].details, r#"{"name":"app","scopes":["users"]}"#);
}

#[tokio::test]
async fn there_are_at_most_100_keys() {
    let (mut client, _process, actor) = with_key(&["keys"]).await;
    for _ in 1..100 {
        create(&mut client, &actor, &["keys"]).await.unwrap();
    }
    assert_eq!(create(&mut client, &actor, &["keys"]).await.unwrap_err().code, Code::Conflict);
}

#[tokio::test]
async fn a_key_manages_users() {
    let (mut client, _process, actor) = with_key(&["users"]).await;
    let id = Uuid::new_v4().to_string();
    let created = put(&mut client, &actor, &id, " Ada ").await.unwrap();
    let user = created.user.unwrap();
    assert_eq!((created.created, &*user.id, &*user.username, &*user.data), (true, &*id, "Ada", "{}"));
    assert_eq!(login(&mut client, "ada", PASSWORD).await.unwrap_err().code, Code::InvalidCredentials);
    let request = PutUserRequest {
        user_id: id.clone(),
        username: "eve".into(),
        display_name: Some("Eve".into()),
        data: Some(r#"{"a":1}"#.into()),
        actor: Some(actor.clone()),
    };
    let changed = client.put_user(call(request)).await.unwrap().into_inner();
    let user = changed.user.unwrap();
    assert_eq!(
        (changed.created, &*user.username, &*user.display_name, &*user.data),
        (false, "eve", "Eve", r#"{"a":1}"#)
    );
    // No other user gets the former name while tokens may carry it; this user may take it back.
    let other = Uuid::now_v7().to_string();
    assert_eq!(signup(&mut client, "", "ADA", PASSWORD).await.unwrap_err().code, Code::UsernameTaken);
    assert_eq!(put(&mut client, &actor, &other, "ada").await.unwrap_err().code, Code::UsernameTaken);
    for name in ["Ada", "eve"] {
        assert_eq!(put(&mut client, &actor, &id, name).await.unwrap().user.unwrap().username, name);
    }
    // Absent fields stay.
    let user = put(&mut client, &actor, &id, "eve").await.unwrap().user.unwrap();
    assert_eq!((&*user.display_name, &*user.data), ("Eve", r#"{"a":1}"#));
    signup(&mut client, "", "zoe", PASSWORD).await.unwrap();
    for (id, name, refused) in [
        (&*id, "ZOE", Code::UsernameTaken),
        (&*Uuid::now_v7().to_string(), "eve", Code::UsernameTaken),
        (&id, "e", Code::InvalidRequest),
        (&id, "system", Code::InvalidRequest),
        ("x", "abc", Code::InvalidRequest),
        (&Uuid::nil().to_string(), "abc", Code::InvalidRequest),
    ] {
        assert_eq!(put(&mut client, &actor, id, name).await.unwrap_err().code, refused, "{id} {name}");
    }
    let by = || Some(actor.clone());
    client.suspend_user(call(SuspendUserRequest { user_id: id.clone(), actor: by() })).await.unwrap();
    client.restore_user(call(RestoreUserRequest { user_id: id.clone(), actor: by() })).await.unwrap();
    let end = EndSessionsRequest { user_id: id.clone(), except_session_id: String::new(), actor: by() };
    client.end_sessions(call(end)).await.unwrap();
    let invite = CreateInviteRequest { uses: 1, expires_at_ms: 0, actor: by() };
    client.create_invite(call(invite)).await.unwrap();
    client.delete_user(call(DeleteUserRequest { user_id: id.clone(), actor: by() })).await.unwrap();
    assert_eq!(put(&mut client, &actor, &id, "eve").await.unwrap_err().code, Code::Conflict);
    let mut counts = BTreeMap::<String, u32>::new();
    for entry in audit(&mut client).await.into_iter().filter(|entry| entry.key_id == actor.key_id) {
        *counts.entry(entry.act).or_default() += 1;
    }
    let counts = counts.iter().map(|(act, count)| (act.as_str(), *count)).collect::<Vec<_>>();
    let expected = [
        ("invite.create", 1),
        ("user.change", 4),
        ("user.create", 1),
        ("user.delete", 1),
        ("user.end_sessions", 1),
        ("user.restore", 1),
        ("user.suspend", 1),
    ];
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_key_issues_tokens() {
    let (mut client, _process, actor) = with_key(&["tokens"]).await;
    let user_id = Uuid::now_v7().to_string();
    put(&mut client, &actor, &user_id, "ada").await.unwrap();
    let issue =
        |user_id: &str, ttl_s| call(IssueTokenRequest { user_id: user_id.into(), ttl_s, actor: Some(actor.clone()) });
    for (ttl_s, life) in [(0, 900), (1, 1), (86_400, 86_400)] {
        let session = client.issue_token(issue(&user_id, ttl_s)).await.unwrap().into_inner();
        let claims = claims(&session);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), life);
        assert_eq!((claims["sub"].as_str(), claims["name"].as_str()), (Some(&*user_id), Some("ada")));
        assert_eq!((session.user.unwrap().id, &*session.refresh_token), (user_id.clone(), ""));
    }
    assert_eq!(code(client.issue_token(issue(&user_id, 86_401))).await, Some(Code::InvalidRequest));
    for unknown in [&*Uuid::now_v7().to_string(), "x"] {
        assert_eq!(code(client.issue_token(issue(unknown, 60))).await, Some(Code::NotFound));
    }
    let suspend = SuspendUserRequest { user_id: user_id.clone(), actor: None };
    client.suspend_user(call(suspend)).await.unwrap();
    assert_eq!(code(client.issue_token(issue(&user_id, 60))).await, Some(Code::Forbidden));
    client.delete_user(call(DeleteUserRequest { user_id: user_id.clone(), actor: None })).await.unwrap();
    assert_eq!(code(client.issue_token(issue(&user_id, 60))).await, Some(Code::NotFound));
    let deleted = revocations(&mut client).await.into_iter().rfind(|entry| entry.user_id == user_id).unwrap();
    assert!(deleted.kind() == RevocationKind::Blocked && deleted.deleted);
    let issued = audit(&mut client).await.into_iter().filter(|entry| entry.act == "token.create").count();
    assert_eq!(issued, 3);
}

#[tokio::test]
async fn acts_of_other_services_are_recorded_once() {
    let (mut client, _process, actor) = with_key(&["rooms"]).await;
    let id = Uuid::now_v7().to_string();
    let record = RecordActRequest {
        id: id.clone(),
        actor: Some(actor.clone()),
        act: "room.delete".into(),
        object: "the room".into(),
        details: r#"{"a":1}"#.into(),
    };
    for _ in 0..2 {
        client.record_act(call(record.clone())).await.unwrap();
    }
    let wrong = [
        RecordActRequest { id: "x".into(), ..record.clone() },
        RecordActRequest { actor: None, ..record.clone() },
        RecordActRequest { act: String::new(), ..record.clone() },
        RecordActRequest { act: "x".repeat(65), ..record.clone() },
        RecordActRequest { object: "x".repeat(129), ..record.clone() },
        RecordActRequest { details: "[]".into(), ..record.clone() },
        RecordActRequest { details: format!("{{\"a\":\"{}\"}}", "x".repeat(4096)), ..record.clone() },
    ];
    for wrong in wrong {
        assert_eq!(code(client.record_act(call(wrong.clone()))).await, Some(Code::InvalidRequest), "{wrong:?}");
    }
    let page = |limit, cursor: &str| {
        let (mut client, cursor) = (client.clone(), cursor.to_owned());
        async move { client.list_audit(call(ListAuditRequest { limit, cursor })).await.map(Response::into_inner) }
    };
    let first = page(1, "").await.unwrap();
    let entry = &first.entries[0];
    assert_eq!((&entry.id, &*entry.act, &*entry.details), (&id, "room.delete", r#"{"a":1}"#));
    let second = page(1, &first.next_cursor).await.unwrap();
    assert_eq!((&*second.entries[0].act, &*second.next_cursor), ("key.create", ""));
    for (limit, cursor) in [(0, ""), (201, ""), (1, "x")] {
        let refused = Error::from(page(limit, cursor).await.unwrap_err());
        assert_eq!(refused.code, Code::InvalidRequest, "{limit} {cursor}");
    }
}

#[tokio::test]
async fn a_picture_is_found_by_its_file() {
    let (mut client, _process) = start(directory(), bus()).await;
    let ada = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let file_id = Uuid::now_v7().to_string();
    let find = |file_id: &str| call(GetAvatarRequest { file_id: file_id.into() });
    assert_eq!(code(client.get_avatar(find(&file_id))).await, Some(Code::NotFound));
    let (user_id, avatar_file_id) = (user_id(&ada), Some(file_id.clone()));
    let change = UpdateProfileRequest { user_id: user_id.clone(), avatar_file_id, ..UpdateProfileRequest::default() };
    client.update_profile(call(change)).await.unwrap();
    assert_eq!(client.get_avatar(find(&file_id)).await.unwrap().into_inner().id, user_id);
    assert_eq!(code(client.get_avatar(find("x"))).await, Some(Code::NotFound));
}
