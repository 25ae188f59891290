//! Server keys: their scopes, acts on behalf of a user and without one, and their deletion.

use std::time::Duration;

use confab_tests::embedded::Embedded;
use confab_tests::server_keys::holder;
use confab_tests::wait::eventually;

use super::*;

/// How long until all gateways reject a deleted key, a suspended user, or a name.
const SOON: Duration = Duration::from_secs(5);

/// A scene with a key that has all scopes.
struct Keyed {
    scene: Scene,
    key: Account,
}

impl Keyed {
    async fn embedded() -> Self {
        let (server, key) = world::embedded_with_key().await;
        let api = Api::new(server.url());
        Self { scene: Scene::at(api.clone(), api).await.unwrap(), key: key.clone() }
    }

    async fn cluster() -> Self {
        Self { scene: Scene::cluster().await.unwrap(), key: world::key_of_cluster().await.clone() }
    }

    /// Creates a key with these scopes. Returns its id and the key.
    async fn create(&self, scopes: &[&str]) -> (String, Account) {
        let created = self.scene.one.post("/api/admin/keys", &self.key, json!({"scopes": scopes})).await.unwrap();
        let created = created.expect(201).unwrap();
        (created["id"].as_str().unwrap().to_owned(), holder(created["key"].as_str().unwrap()))
    }

    /// Calls the other end with a key, on behalf of a user if one is given.
    async fn call(&self, key: &Account, user: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.scene.other.request(method, path).bearer_auth(&key.token);
        if let Some(user) = user {
            request = request.header("Confab-User", user);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.scene.other.send(request).await.unwrap()
    }

    /// Makes a request of administration.
    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.scene.one.call(method, path, Some(&self.key), body).await.unwrap()
    }

    /// Returns the entries of the audit about an object, the newest first.
    async fn entries(&self, object: &str) -> Vec<Value> {
        let (mut entries, mut path) = (Vec::new(), "/api/admin/audit?limit=200".to_owned());
        loop {
            let page = self.scene.other.get(&path, &self.key).await.unwrap().expect(200).unwrap();
            let items = page["items"].as_array().unwrap().iter();
            entries.extend(items.filter(|entry| entry["object"] == object).cloned());
            match page["nextCursor"].as_str() {
                Some(cursor) => path = format!("/api/admin/audit?limit=200&cursor={cursor}"),
                None => return entries,
            }
        }
    }

    /// Returns the names of the acts on an object, which must be those of this key, the newest first.
    async fn audit(&self, object: &str) -> Vec<String> {
        let own = self.own_id();
        let act = |entry: Value| {
            assert_eq!(entry["actor"]["keyId"].as_str().unwrap().replace('-', ""), own, "{entry}");
            assert!(entry["requestId"].is_string(), "{entry}");
            entry["act"].as_str().unwrap().to_owned()
        };
        self.entries(object).await.into_iter().map(act).collect()
    }

    /// The id in the key with all scopes, without hyphens.
    fn own_id(&self) -> String {
        self.key.token[4..36].to_owned()
    }
}

/// Runs each test on an embedded program, and in the cluster with a different gateway at each end.
macro_rules! with_a_key {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::access::keys::Keyed::embedded().await).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::access::keys::Keyed::cluster().await).await;
            })+
        }
    };
}

mod users;

with_a_key!(
    each_scope_opens_its_routes,
    a_key_creates_keys_with_its_own_scopes,
    a_deleted_key_is_rejected_everywhere,
    web_pages_and_sockets_cannot_use_a_key,
    a_key_has_exactly_the_rights_of_its_user,
    a_key_without_a_user_acts_in_every_room,
);

async fn each_scope_opens_its_routes(keyed: Keyed) {
    let user = format!("/api/admin/users/{}", keyed.scene.stranger.id);
    let room = keyed.scene.path("");
    let routes = [
        ("users", Method::POST, format!("{user}/restore"), 204),
        ("users", Method::GET, "/api/users?q=user".to_owned(), 200),
        ("users", Method::GET, format!("/api/users/{}", keyed.scene.stranger.id), 200),
        ("tokens", Method::POST, "/api/admin/tokens".to_owned(), 415),
        ("keys", Method::GET, "/api/admin/keys".to_owned(), 200),
        ("audit", Method::GET, "/api/admin/audit".to_owned(), 200),
        ("rooms", Method::GET, room.clone(), 200),
        ("rooms", Method::GET, format!("{room}/members"), 200),
        ("messages", Method::GET, format!("/api/messages/{}", keyed.scene.room), 200),
        ("messages", Method::GET, format!("{room}/messages"), 200),
        ("messages", Method::GET, format!("{room}/pins"), 200),
        ("messages", Method::GET, format!("{room}/changes?after=0"), 200),
        ("messages", Method::GET, format!("{room}/reads"), 200),
        ("messages", Method::GET, format!("/api/files?roomId={}", keyed.scene.room), 200),
        ("messages", Method::GET, format!("/api/search?q=x&roomId={}", keyed.scene.room), 200),
    ];
    for scope in ["users", "tokens", "keys", "audit", "rooms", "messages"] {
        let (_, key) = keyed.create(&[scope]).await;
        for (needed, method, path, status) in &routes {
            let answer = keyed.call(&key, None, method.clone(), path, None).await;
            let expected = if scope == *needed { *status } else { 403 };
            assert_eq!(answer.status, expected, "{scope}: {method} {path}: {}", answer.body);
        }
        let answer = keyed.call(&key, Some(&keyed.scene.owner.id), Method::GET, "/api/auth/me", None).await;
        fails(&answer, 401, "unauthorized");
    }
    for (_, method, path, _) in routes.iter().filter(|(_, _, path, _)| path.starts_with("/api/admin")) {
        let answer = keyed.scene.other.call(method.clone(), path, Some(&keyed.scene.owner), None).await.unwrap();
        fails(&answer, 403, "forbidden");
        fails(&keyed.scene.other.call(method.clone(), path, None, None).await.unwrap(), 401, "unauthorized");
    }
    // The scope for rooms does not open their messages.
    assert_eq!(keyed.scene.post(&keyed.scene.owner, "secret").await.status, 201);
    let (_, key) = keyed.create(&["rooms"]).await;
    for user in [None, Some(&*keyed.scene.owner.id)] {
        let shown = keyed.call(&key, user, Method::GET, &room, None).await.expect(200).unwrap();
        let messages = &shown["messages"];
        assert_eq!((&messages["items"], &messages["nextCursor"]), (&json!([]), &json!(null)));
    }
}

async fn a_key_creates_keys_with_its_own_scopes(keyed: Keyed) {
    let (_, key) = keyed.create(&["keys", "rooms"]).await;
    let create = async |scopes: Value| {
        keyed.call(&key, None, Method::POST, "/api/admin/keys", Some(json!({"scopes": scopes, "name": "x"}))).await
    };
    for scopes in [json!(["users"]), json!(["keys", "audit"])] {
        fails(&create(scopes).await, 403, "forbidden");
    }
    for scopes in [json!([]), json!(["tea"])] {
        fails(&create(scopes).await, 400, "invalid_request");
    }
    let created = create(json!(["rooms"])).await.expect(201).unwrap();
    assert_eq!((&created["scopes"], &created["name"]), (&json!(["rooms"]), &json!("x")));
    let listed = keyed.call(&key, None, Method::GET, "/api/admin/keys", None).await.expect(200).unwrap();
    let found = listed["items"].as_array().unwrap().iter().find(|item| item["id"] == created["id"]).unwrap();
    assert!(found.get("key").is_none() && found["scopes"] == json!(["rooms"]), "{found}");
}

async fn a_deleted_key_is_rejected_everywhere(keyed: Keyed) {
    let (id, key) = keyed.create(&["rooms"]).await;
    for api in [&keyed.scene.one, &keyed.scene.other] {
        assert_eq!(api.get("/api/rooms", &key).await.unwrap().status, 200);
    }
    let path = format!("/api/admin/keys/{id}");
    assert_eq!(keyed.admin(Method::DELETE, &path, None).await.status, 204);
    fails(&keyed.admin(Method::DELETE, &path, None).await, 404, "not_found");
    let of_token = keyed.scene.one.get("/api/rooms", &holder("eyJ.x.y")).await.unwrap();
    fails(&keyed.scene.one.get("/api/rooms", &key).await.unwrap(), 401, "unauthorized");
    for api in [&keyed.scene.one, &keyed.scene.other] {
        let rejected = async || {
            let answer = api.get("/api/rooms", &key).await.ok()?;
            (answer.status == 401 && answer.body["detail"] == of_token.body["detail"]).then_some(())
        };
        eventually("the key is rejected", SOON, rejected).await.unwrap();
    }
    assert_eq!(keyed.audit(&id).await, ["key.delete", "key.create"]);
}

async fn web_pages_and_sockets_cannot_use_a_key(keyed: Keyed) {
    let request = keyed.scene.one.request(Method::GET, "/api/rooms").bearer_auth(&keyed.key.token);
    let answer = keyed.scene.one.send(request.header("Origin", "http://localhost:3000")).await.unwrap();
    fails(&answer, 401, "unauthorized");
    let mut socket = WebSocket::open(&keyed.scene.other.url).await.unwrap();
    socket.enter(&keyed.key.token).await.unwrap_err();
    assert_eq!(socket.refused().await.unwrap()["data"], json!({"code": "unauthorized", "status": 401}));
    let mut socket = WebSocket::connect(&keyed.scene.other.url, &keyed.scene.owner.token).await.unwrap();
    let ack = socket.emit("auth", json!({"token": keyed.key.token})).await.unwrap();
    assert_eq!(ack["error"]["code"], "unauthorized", "{ack}");
}

async fn a_key_has_exactly_the_rights_of_its_user(keyed: Keyed) {
    let Scene { guest, stranger, room, .. } = &keyed.scene;
    let (_, key) = keyed.create(&["rooms", "messages"]).await;
    let post = async |user: &str| {
        let body = json!({"roomId": room, "content": "from the app", "clientMessageId": "m1"});
        keyed.call(&key, Some(user), Method::POST, "/api/messages", Some(body)).await
    };
    let sent = post(&guest.id).await.expect(201).unwrap();
    assert_eq!(sent["sender"], json!({"id": guest.id, "username": guest.username}));
    assert_eq!(post(&guest.id).await.status, 200, "a repeat");
    fails(&post(&stranger.id).await, 404, "not_found");
    let path = keyed.scene.path("");
    assert_eq!(keyed.call(&key, Some(&guest.id), Method::GET, &path, None).await.status, 200);
    fails(&keyed.call(&key, Some(&stranger.id), Method::GET, &path, None).await, 404, "not_found");
    let rename = Some(json!({"name": "mine"}));
    fails(&keyed.call(&key, Some(&guest.id), Method::PATCH, &path, rename).await, 403, "forbidden");
    let me = keyed.scene.path("/members/me");
    assert_eq!(keyed.call(&key, Some(&guest.id), Method::DELETE, &me, None).await.status, 204);
    fails(&post("not a user").await, 404, "not_found");
    fails(&post(&uuid::Uuid::now_v7().to_string()).await, 404, "not_found");
    // Each user's first act in an hour is recorded, with the key.
    let acts = keyed.entries(&guest.id).await.into_iter().map(|entry| entry["act"].clone()).collect::<Vec<_>>();
    // A new hour may begin during the test.
    assert!((1..=2).contains(&acts.len()) && acts[0] == "act_as", "{acts:?}");
}

async fn a_key_without_a_user_acts_in_every_room(keyed: Keyed) {
    let Scene { guest, owner, stranger, room, .. } = &keyed.scene;
    let (path, both) = (keyed.scene.path(""), &keyed.key);
    assert_eq!(keyed.scene.post(owner, "hello").await.status, 201);
    let file = keyed.scene.one.share(guest, Some(room), "a.txt", b"text").await.unwrap();
    let file = format!("/api/files/{}", file["id"].as_str().unwrap());
    let call = async |method: Method, path: &str, body: Option<Value>| keyed.call(both, None, method, path, body).await;
    let shown = call(Method::GET, &path, None).await.expect(200).unwrap();
    assert_eq!((&shown["role"], &shown["can"]), (&Value::Null, &json!(["invite", "manage"])));
    let history = call(Method::GET, &format!("/api/messages/{room}"), None).await.expect(200).unwrap();
    assert!(history["items"].as_array().unwrap().iter().any(|item| item["content"] == "hello"), "{history}");
    assert_eq!(call(Method::GET, &file, None).await.bytes, b"text");
    // What needs an author needs a user.
    for (method, path, body) in [
        (Method::POST, "/api/messages".to_owned(), json!({"roomId": room, "content": "x"})),
        (Method::POST, "/api/rooms".to_owned(), json!({"name": "x"})),
        (Method::PUT, keyed.scene.path("/members/me"), json!({})),
        (Method::GET, "/api/files".to_owned(), Value::Null),
        (Method::GET, format!("{file}/link"), Value::Null),
    ] {
        let answer = call(method, &path, Some(body)).await;
        fails(&answer, 400, "invalid_request");
        assert_eq!(answer.body["errors"][0]["field"], "Confab-User", "{path}");
    }
    let (mut witness, _) = keyed.scene.joined(owner, json!({})).await;
    let renamed = call(Method::PATCH, &path, Some(json!({"description": "moderated"}))).await.expect(200).unwrap();
    assert_eq!(renamed["description"], "moderated");
    let event = witness.event("roomUpdated").await.unwrap();
    assert_eq!(event["sender"]["username"], "system", "{event}");
    assert_eq!(event["sender"]["id"].as_str().unwrap().replace('-', ""), keyed.own_id());
    let member = keyed.scene.path(&format!("/members/{}", stranger.id));
    assert_eq!(call(Method::PUT, &member, Some(json!({"role": "admin"}))).await.status, 201);
    assert_eq!(call(Method::DELETE, &member, None).await.status, 204);
    let of_owner = keyed.scene.path(&format!("/members/{}", owner.id));
    fails(&call(Method::DELETE, &of_owner, None).await, 409, "conflict");
    assert_eq!(call(Method::DELETE, &file, None).await.status, 204);
    fails(&keyed.scene.one.get(&file, guest).await.unwrap(), 404, "not_found");
    assert_eq!(call(Method::DELETE, &path, None).await.status, 204);
    fails(&keyed.scene.one.get(&path, owner).await.unwrap(), 404, "not_found");
    let acts = keyed.audit(room).await;
    // The removal of the owner was recorded before it was rejected.
    assert_eq!(acts, ["room.delete", "member.remove", "member.remove", "member.set", "room.change"]);
    assert_eq!(keyed.audit(file.rsplit('/').next().unwrap()).await, ["file.delete"]);
}

#[tokio::test]
async fn a_running_embedded_server_keeps_its_database() {
    let server = Embedded::start(&[]).await.unwrap();
    let refused = server.daemon().output(&["key", "create", "--scopes", "users"]).await.unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
}
