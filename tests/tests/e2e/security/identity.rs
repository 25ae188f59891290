//! The server alone decides who the caller is, and what it assigns itself.

use std::time::{Duration, Instant};

use confab_tests::api::{Account, Api, PASSWORD, unique};
use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, WebSocket};
use reqwest::Method;
use serde_json::{Value, json};

use super::{fails, shown};
use crate::world;

/// Headers with which proxies and other servers name a user.
const NAMES: [&str; 8] = [
    "x-user-id",
    "x-user",
    "x-forwarded-user",
    "x-remote-user",
    "remote-user",
    "x-auth-request-user",
    "x-authenticated-userid",
    "x-confab-user",
];

#[tokio::test]
async fn headers_do_not_name_the_caller() {
    let api = Api::new(world::embedded().await.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    for name in NAMES {
        for value in [&bob.id, &bob.username] {
            let request = || api.request(Method::GET, "/api/auth/me").header(name, value);
            let me = api.send(request().bearer_auth(&ada.token)).await.unwrap().expect(200).unwrap();
            assert_eq!(me["id"], json!(ada.id), "{name}");
            fails(&api.send(request()).await.unwrap(), 401, "unauthorized");
        }
    }
    // Only a server key may act on behalf of a user.
    let request = api.request(Method::GET, "/api/rooms").header("confab-user", &bob.id);
    fails(&api.send(request.bearer_auth(&ada.token)).await.unwrap(), 400, "invalid_request");
    let anonymous = api.request(Method::GET, "/api/rooms").header("confab-user", &bob.id);
    assert!([400, 401].contains(&api.send(anonymous).await.unwrap().status));
}

#[tokio::test]
async fn addresses_in_headers_do_not_count_without_a_trusted_proxy() {
    let server = Embedded::start(&[("CONFAB_LIMIT_LOGIN", "3,1/h")]).await.unwrap();
    let api = Api::new(server.url());
    let from = |request: reqwest::RequestBuilder, host: usize| {
        let address = format!("203.0.113.{host}");
        let request = request.header("x-forwarded-for", &address).header("x-real-ip", &address);
        request.header("forwarded", format!("for={address}")).header("cf-connecting-ip", &address)
    };
    let credentials = json!({"username": unique("ada"), "password": PASSWORD});
    let signup = from(api.request(Method::POST, "/api/auth/signup").json(&credentials), 1);
    let account = Account::of(&api.send(signup).await.unwrap().expect(201).unwrap()).unwrap();
    let sessions = api.get("/api/auth/sessions", &account).await.unwrap().expect(200).unwrap();
    assert_eq!(sessions["items"][0]["address"], "127.0.0.0/24", "{sessions}");
    // Four logins that claim four addresses are four logins of one address.
    let (mut answers, mut took) = (Vec::new(), Duration::ZERO);
    for host in 1..=4 {
        let login = api.request(Method::POST, "/api/auth/login").json(&credentials);
        let began = Instant::now();
        answers.push(api.send(from(login, host)).await.unwrap());
        took = began.elapsed();
    }
    let statuses = answers.iter().map(|answer| answer.status).collect::<Vec<_>>();
    assert_eq!(statuses, [200, 200, 200, 429]);
    fails(&answers[3], 429, "rate_limited");
    assert!(!answers[3].header("retry-after").is_empty());
    assert!(took >= Duration::from_secs(1), "the rejection is delayed");
}

#[tokio::test]
async fn fields_that_the_server_assigns_are_ignored_in_bodies() {
    let api = Api::new(world::embedded().await.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let past = "2001-01-01T00:00:00.000Z";
    let given = |own: Value| {
        let mut body = json!({
            "id": bob.id, "userId": bob.id, "user_id": bob.id, "sender": {"id": bob.id, "username": bob.username},
            "senderId": bob.id, "sender_id": bob.id, "createdBy": {"id": bob.id}, "seq": 77, "lastSeq": 77,
            "type": "system", "event": "roomDeleted", "role": "admin", "isAdmin": true, "is_admin": true,
            "scopes": ["users"], "state": "active", "createdAt": past, "created_at": past, "duplicate": true,
        });
        body.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        body
    };
    let room = api.post("/api/rooms", &ada, given(json!({"name": unique("room")}))).await.unwrap().expect(201).unwrap();
    assert_eq!(
        (&room["createdBy"]["id"], &room["role"], &room["lastSeq"]),
        (&json!(ada.id), &json!("owner"), &json!(0))
    );
    assert!(room["id"] != json!(bob.id) && room["createdAt"] != past, "{room}");

    let is_plain = |message: &Value, seq: u64| {
        assert_eq!(message["sender"], json!({"id": ada.id, "username": ada.username}));
        assert_eq!((&message["seq"], &message["type"]), (&json!(seq), &json!("message")));
        assert!(message["id"] != json!(bob.id) && message["createdAt"] != past, "{message}");
        assert!(message["duplicate"] != true, "{message}");
    };
    let message = given(json!({"roomId": room["id"], "content": "mine"}));
    is_plain(&api.post("/api/messages", &ada, message.clone()).await.unwrap().expect(201).unwrap(), 1);
    let mut socket = WebSocket::connect(&api.url, &ada.token).await.unwrap();
    let ack = socket.emit("message", message).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    is_plain(&ack["message"], 2);

    let signup = given(json!({"username": unique("eve"), "password": PASSWORD}));
    let answer = api.call(Method::POST, "/api/auth/signup", None, Some(signup)).await.unwrap().expect(201).unwrap();
    let eve = Account::of(&answer).unwrap();
    assert!(eve.id != bob.id && answer["user"]["createdAt"] != past, "{answer}");
    let profile = given(json!({"displayName": "Eve"}));
    let changed =
        api.call(Method::PATCH, "/api/auth/me", Some(&eve), Some(profile)).await.unwrap().expect(200).unwrap();
    assert_eq!((&changed["id"], &changed["username"]), (&json!(eve.id), &json!(eve.username)));
    fails(&api.get("/api/admin/keys", &eve).await.unwrap(), 403, "forbidden");
    // The role of a member is decided by the owner, not by the user who joins.
    let me = format!("/api/rooms/{}/members/me", room["id"].as_str().unwrap());
    let joined = api.call(Method::PUT, &me, Some(&eve), Some(json!({"role": "admin"}))).await.unwrap();
    assert!([400, 403].contains(&joined.status), "{} {}", joined.status, joined.body);
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_password_get_the_same_answer() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let login = async |username: &str, password: &str| {
        let body = json!({"username": username, "password": password});
        api.call(Method::POST, "/api/auth/login", None, Some(body)).await.unwrap()
    };
    let known = login(&account.username, "a wrong password").await;
    fails(&known, 401, "invalid_credentials");
    for unknown in [unique("unknown-name").as_str(), "Система", &"y".repeat(32)] {
        assert_eq!(shown(&login(unknown, PASSWORD).await), shown(&known), "{unknown}");
    }
}

#[tokio::test]
async fn rest_and_sockets_answer_an_act_alike() {
    let api = Api::new(world::embedded().await.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let room = api.room(&ada).await.unwrap();
    let hidden = json!({"name": unique("hidden"), "visibility": "private"});
    let hidden = api.post("/api/rooms", &bob, hidden).await.unwrap().expect(201).unwrap()["id"].clone();
    let file = api.share(&bob, None, "theirs.txt", b"theirs").await.unwrap()["id"].clone();
    let unknown = uuid::Uuid::now_v7();
    let mut socket = WebSocket::connect(&api.url, &ada.token).await.unwrap();
    for message in [
        json!({"roomId": room, "content": "fine"}),
        json!({"roomId": room, "content": ""}),
        json!({"roomId": room, "content": "x".repeat(16_385)}),
        json!({"roomId": room, "content": "nul\u{0}"}),
        json!({"roomId": room, "content": 7}),
        json!({"roomId": room}),
        json!({"roomId": room, "content": "x", "clientMessageId": ""}),
        json!({"roomId": room, "content": "x", "clientMessageId": "y".repeat(129)}),
        json!({"roomId": room, "content": "x", "fileIds": [file]}),
        json!({"roomId": room, "content": "x", "fileIds": [unknown]}),
        json!({"roomId": room, "content": "x", "fileIds": ["nonsense"]}),
        json!({"roomId": "nonsense", "content": "x"}),
        json!({"roomId": unknown, "content": "x"}),
        json!({"roomId": hidden, "content": "x"}),
    ] {
        let answer = api.post("/api/messages", &ada, message.clone()).await.unwrap();
        let ack = socket.emit("message", message.clone()).await.unwrap();
        let over_socket = if ack["ok"] == true {
            (201, String::new())
        } else {
            (
                ack["error"]["status"].as_u64().unwrap_or_default(),
                ack["error"]["code"].as_str().unwrap_or_default().into(),
            )
        };
        assert_eq!((u64::from(answer.status), answer.code().to_owned()), over_socket, "{message:.120} {ack}");
    }
    for (room, status) in [(json!(unknown), 404), (hidden, 404), (json!(room), 200)] {
        let answer = api.get(&format!("/api/messages/{}", room.as_str().unwrap()), &ada).await.unwrap();
        let ack = socket.emit("joinRoom", json!({"roomId": room, "last": 1})).await.unwrap();
        let joined = if ack["ok"] == true { 200 } else { ack["error"]["status"].as_u64().unwrap_or_default() };
        assert_eq!((answer.status, joined), (status, u64::from(status)), "{room}: {ack}");
    }
}
