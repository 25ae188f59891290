//! Accounts, rooms and messages over HTTP, against the embedded program.

use confab_tests::api::{Account, Answer, Api, repeated, unique};
use confab_tests::embedded::Embedded;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world;

const PASSWORD: &str = "correct horse battery";

async fn api() -> Api {
    Api::new(world::embedded().await.url())
}

/// Checks a failure: status, code, and the form of RFC 9457.
#[track_caller]
fn fails(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["status"], status);
    assert!(answer.body["title"].is_string() && answer.body["requestId"].is_string(), "{}", answer.body);
}

#[tokio::test]
async fn signup_to_logout() {
    let api = api().await;
    let username = unique("Ann");
    let credentials = json!({"username": username, "password": PASSWORD});
    let signup =
        api.call(Method::POST, "/api/auth/signup", None, Some(credentials.clone())).await.unwrap().expect(201).unwrap();
    assert_eq!((&signup["tokenType"], &signup["user"]["username"]), (&json!("Bearer"), &json!(username)));
    assert!(signup["expiresAt"].as_str().unwrap().ends_with('Z') && signup["user"]["createdAt"].is_string());

    let again = json!({"username": username.to_lowercase(), "password": PASSWORD});
    fails(&api.call(Method::POST, "/api/auth/signup", None, Some(again)).await.unwrap(), 409, "username_taken");

    let login = api.call(Method::POST, "/api/auth/login", None, Some(credentials)).await.unwrap().expect(200).unwrap();
    assert_eq!(login["user"], signup["user"]);
    let account = Account::of(&login).unwrap();
    assert_eq!(api.get("/api/auth/me", &account).await.unwrap().expect(200).unwrap(), signup["user"]);

    let refuse = async |username: &str, password: &str| {
        let credentials = json!({"username": username, "password": password});
        let answer = api.call(Method::POST, "/api/auth/login", None, Some(credentials)).await.unwrap();
        fails(&answer, 401, "invalid_credentials");
        answer.body["detail"].clone()
    };
    assert_eq!(refuse(&username, "wrong horse battery").await, refuse(&unique("unknown"), PASSWORD).await);

    assert_eq!(api.get("/api/auth/logout", &account).await.unwrap().expect(200).unwrap(), json!({"ok": true}));
    let refused = api.get("/api/auth/me", &account).await.unwrap();
    fails(&refused, 401, "unauthorized");
    assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
    // Another token of the same account is another session.
    let first = Account::of(&signup).unwrap();
    api.get("/api/auth/me", &first).await.unwrap().expect(200).unwrap();

    let keys = api.call(Method::GET, "/.well-known/jwks.json", None, None).await.unwrap().expect(200).unwrap();
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["crv"]), (&json!("OKP"), &json!("Ed25519")));
}

#[tokio::test]
async fn room_creation_to_deletion() {
    let api = api().await;
    let (owner, other) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let name = unique("Gespräch");
    let created = api
        .post("/api/rooms", &owner, json!({"name": format!("  {name} "), "description": "über alles"}))
        .await
        .unwrap();
    let location = created.headers["location"].to_str().unwrap().to_string();
    let room = created.expect(201).unwrap();
    let id = room["id"].as_str().unwrap();
    assert_eq!(
        (&room["name"], &room["role"], &room["lastSeq"], &room["visibility"]),
        (&json!(name), &json!("owner"), &json!(0), &json!("public"))
    );
    assert_eq!(room["createdBy"], json!({"id": owner.id, "username": owner.username}));
    assert_eq!(location, format!("/api/rooms/{id}"));
    fails(&api.post("/api/rooms", &other, json!({"name": name.to_uppercase()})).await.unwrap(), 409, "room_name_taken");

    let list =
        api.get(&format!("/api/rooms?q={}", &name[name.len() - 16..]), &other).await.unwrap().expect(200).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["role"]), (&json!(id), &Value::Null));

    let sent = api
        .post("/api/messages", &other, json!({"roomId": id, "content": "hallo"}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let details = api.get(&format!("/api/rooms/{id}?limit=5"), &owner).await.unwrap().expect(200).unwrap();
    assert_eq!((&details["messages"]["items"], &details["lastSeq"]), (&json!([sent]), &json!(1)));

    let path = format!("/api/rooms/{id}");
    fails(
        &api.call(Method::PATCH, &path, Some(&other), Some(json!({"name": "mine"}))).await.unwrap(),
        403,
        "forbidden",
    );
    fails(&api.call(Method::DELETE, &path, Some(&other), None).await.unwrap(), 403, "forbidden");
    let patched = api
        .call(Method::PATCH, &path, Some(&owner), Some(json!({"description": "neu"})))
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    assert_eq!((&patched["description"], &patched["name"]), (&json!("neu"), &json!(name)));
    let history = api.history(id, &other, 50).await.unwrap();
    assert_eq!(
        (&history[1]["type"], &history[1]["event"], &history[1]["seq"]),
        (&json!("system"), &json!("roomUpdated"), &json!(2))
    );

    assert_eq!(api.call(Method::DELETE, &path, Some(&owner), None).await.unwrap().status, 204);
    fails(&api.get(&path, &owner).await.unwrap(), 404, "not_found");
    fails(
        &api.post("/api/messages", &owner, json!({"roomId": id, "content": "late"})).await.unwrap(),
        404,
        "not_found",
    );
    api.post("/api/rooms", &other, json!({"name": name})).await.unwrap().expect(201).unwrap();
}

#[tokio::test]
async fn room_lists_page_without_gap_or_repeat() {
    let api = api().await;
    let owner = api.signup().await.unwrap();
    let mark = unique("list");
    for n in 0..7 {
        api.post("/api/rooms", &owner, json!({"name": format!("{mark} {n}")})).await.unwrap().expect(201).unwrap();
    }
    let mut names = Vec::new();
    let mut path = format!("/api/rooms?q={mark}&limit=3");
    loop {
        let page = api.get(&path, &owner).await.unwrap().expect(200).unwrap();
        names.extend(page["items"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_string()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/api/rooms?q={mark}&limit=3&cursor={cursor}");
    }
    names.sort();
    assert_eq!(names, (0..7).map(|n| format!("{mark} {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn message_is_sent_once_and_read_in_both_directions() {
    let api = api().await;
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let message = json!({"roomId": room, "content": "first", "clientMessageId": "a"});
    let first = api.post("/api/messages", &account, message).await.unwrap().expect(201).unwrap();
    assert_eq!((&first["seq"], &first["type"], &first["clientMessageId"]), (&json!(1), &json!("message"), &json!("a")));
    assert_eq!(first["sender"], json!({"id": account.id, "username": account.username}));

    // The same identity in a header, with other content: the first message is returned.
    let by_header = async |key: &str, body: Value| {
        let request = api
            .request(Method::POST, "/api/messages")
            .bearer_auth(&account.token)
            .header("Idempotency-Key", key)
            .json(&body);
        api.send(request).await.unwrap()
    };
    let by_key = by_header("a", json!({"roomId": room, "content": "second"})).await;
    assert_eq!(by_key.expect(200).unwrap(), repeated(&first));
    let both = by_header("b", json!({"roomId": room, "content": "second", "clientMessageId": "a"})).await;
    fails(&both, 400, "invalid_request");

    for n in 2..=7 {
        api.post("/api/messages", &account, json!({"roomId": room, "content": n.to_string()}))
            .await
            .unwrap()
            .expect(201)
            .unwrap();
    }
    let seqs = async |query: &str| {
        let page = api.get(&format!("/api/messages/{room}?{query}"), &account).await.unwrap().expect(200).unwrap();
        let seqs = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["seq"].as_u64().unwrap())
            .collect::<Vec<_>>();
        (seqs, page["nextCursor"].as_str().map(String::from))
    };
    assert_eq!(seqs("limit=3").await.0, [5, 6, 7]);
    let (page, cursor) = seqs("limit=2&before=5").await;
    assert_eq!(page, [3, 4]);
    assert_eq!(seqs(&format!("limit=2&cursor={}", cursor.unwrap())).await, (vec![1, 2], None));
    let (page, cursor) = seqs("limit=4&after=1").await;
    assert_eq!(page, [2, 3, 4, 5]);
    assert_eq!(seqs(&format!("limit=4&cursor={}", cursor.unwrap())).await, (vec![6, 7], None));
}

#[tokio::test]
async fn invalid_input_gets_the_documented_error() {
    let api = api().await;
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let strange = uuid::Uuid::now_v7();
    let credentials = |username: &str, password: &str| json!({"username": username, "password": password});
    let message = |content: &str| json!({"roomId": room, "content": content});
    let path = |query: &str| format!("/api/messages/{room}?{query}");
    let (get, post) = (Method::GET, Method::POST);
    let cases = [
        (post.clone(), "/api/auth/signup".to_string(), credentials("ab", PASSWORD), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), credentials("a b c", PASSWORD), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), credentials(&"x".repeat(33), PASSWORD), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), credentials("nul\0nul", PASSWORD), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), credentials(&unique("short"), "1234567"), 400, "invalid_request"),
        (
            post.clone(),
            "/api/auth/signup".into(),
            credentials(&unique("long"), &"x".repeat(257)),
            400,
            "invalid_request",
        ),
        (post.clone(), "/api/auth/signup".into(), credentials(&unique("common"), "password"), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), json!({"username": 5, "password": PASSWORD}), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), json!({"password": PASSWORD}), 400, "invalid_request"),
        (post.clone(), "/api/auth/signup".into(), json!([]), 400, "invalid_request"),
        (post.clone(), "/api/auth/login".into(), json!({"username": unique("no")}), 400, "invalid_request"),
        (post.clone(), "/api/rooms".into(), json!({"name": "  "}), 400, "invalid_request"),
        (post.clone(), "/api/rooms".into(), json!({"name": "x".repeat(81)}), 400, "invalid_request"),
        (post.clone(), "/api/rooms".into(), json!({"name": "nul\0nul"}), 400, "invalid_request"),
        (
            post.clone(),
            "/api/rooms".into(),
            json!({"name": unique("r"), "description": "x".repeat(501)}),
            400,
            "invalid_request",
        ),
        (
            post.clone(),
            "/api/rooms".into(),
            json!({"name": unique("r"), "visibility": "secret"}),
            400,
            "invalid_request",
        ),
        (post.clone(), "/api/messages".into(), message(""), 400, "invalid_request"),
        (post.clone(), "/api/messages".into(), message("nul\0nul"), 400, "invalid_request"),
        (post.clone(), "/api/messages".into(), message(&"x".repeat(16_385)), 413, "too_large"),
        (post.clone(), "/api/messages".into(), json!({"roomId": room}), 400, "invalid_request"),
        (post.clone(), "/api/messages".into(), json!({"roomId": room, "content": 7}), 400, "invalid_request"),
        (
            post.clone(),
            "/api/messages".into(),
            json!({"roomId": room, "content": "x", "clientMessageId": ""}),
            400,
            "invalid_request",
        ),
        (
            post.clone(),
            "/api/messages".into(),
            json!({"roomId": room, "content": "x", "clientMessageId": "x".repeat(129)}),
            400,
            "invalid_request",
        ),
        (post.clone(), "/api/messages".into(), json!({"roomId": strange, "content": "x"}), 404, "not_found"),
        (get.clone(), format!("/api/rooms/{strange}"), Value::Null, 404, "not_found"),
        (get.clone(), "/api/rooms/nonsense".into(), Value::Null, 404, "not_found"),
        (get.clone(), format!("/api/messages/{strange}"), Value::Null, 404, "not_found"),
        (get.clone(), "/api/rooms?limit=0".into(), Value::Null, 400, "invalid_request"),
        (get.clone(), "/api/rooms?limit=201".into(), Value::Null, 400, "invalid_request"),
        (get.clone(), "/api/rooms?limit=many".into(), Value::Null, 400, "invalid_request"),
        (get.clone(), "/api/rooms?cursor=nonsense".into(), Value::Null, 400, "invalid_request"),
        (get.clone(), path("cursor=nonsense"), Value::Null, 400, "invalid_request"),
        (get.clone(), path("limit=-1"), Value::Null, 400, "invalid_request"),
        (get.clone(), path("after=x"), Value::Null, 400, "invalid_request"),
        (get.clone(), "/api/nothing".into(), Value::Null, 404, "not_found"),
        (Method::PUT, "/api/rooms".into(), json!({}), 405, "method_not_allowed"),
        (Method::PUT, "/api/auth/me".into(), Value::Null, 405, "method_not_allowed"),
        (Method::PATCH, format!("/api/rooms/{strange}"), json!({"name": "x"}), 404, "not_found"),
        (Method::DELETE, "/api/rooms/nonsense".into(), Value::Null, 404, "not_found"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, status, code) in cases {
        let answer = api
            .call(method.clone(), &path, Some(&account), Some(body.clone()).filter(|body| !body.is_null()))
            .await
            .unwrap();
        let form = answer.headers.get("content-type").is_some_and(|form| form == "application/problem+json");
        if (answer.status, answer.code(), form) != (status, code, true) {
            let body = body.to_string().chars().take(80).collect::<String>();
            wrong.push(format!(
                "{method} {path} {body}: expected {status} {code}, got {} {}",
                answer.status, answer.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Names may have exactly this length, counted in characters.
    let longest = format!("{}{}", unique("ж"), "ж".repeat(80 - 18));
    api.post("/api/rooms", &account, json!({"name": longest, "description": "字".repeat(500)}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    api.post("/api/messages", &account, message(&"я".repeat(8_192))).await.unwrap().expect(201).unwrap();
}

#[tokio::test]
async fn bodies_that_are_not_json_or_too_large_are_rejected() {
    let api = api().await;
    let account = api.signup().await.unwrap();
    let send = async |kind: &str, body: Vec<u8>| {
        let request =
            api.request(Method::POST, "/api/rooms").bearer_auth(&account.token).header("content-type", kind).body(body);
        api.send(request).await.unwrap()
    };
    fails(&send("application/json", b"{\"name\": ".to_vec()).await, 400, "invalid_request");
    fails(&send("application/json", b"{\"name\": \"\xff\xfe\"}".to_vec()).await, 400, "invalid_request");
    fails(&send("application/json", vec![]).await, 400, "invalid_request");
    fails(&send("text/plain", b"{\"name\": \"x\"}".to_vec()).await, 415, "unsupported_media_type");
    fails(&send("application/json", vec![b' '; 300 * 1024]).await, 413, "too_large");
    fails(
        &send("application/json", [b"[".repeat(100_000), b"]".repeat(100_000)].concat()).await,
        400,
        "invalid_request",
    );
}

#[tokio::test]
async fn bad_and_missing_tokens_are_rejected() {
    let api = api().await;
    let account = api.signup().await.unwrap();
    let with = async |header: &str| {
        api.send(api.request(Method::GET, "/api/auth/me").header("authorization", header)).await.unwrap()
    };
    let [head, body, signature] = account.token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let forged = format!("{head}.{body}.{}", signature.chars().rev().collect::<String>());
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{body}.");
    let headers =
        [forged, unsigned, "x".into(), "x".repeat(5000), String::new()].map(|token| format!("Bearer {token}"));
    for header in headers.iter().map(String::as_str).chain(["Basic eDp5", "Bearer"]) {
        let answer = with(header).await;
        fails(&answer, 401, "unauthorized");
        let challenge = if header.starts_with("Bearer ") && header != "Bearer " {
            "Bearer error=\"invalid_token\""
        } else {
            "Bearer"
        };
        assert_eq!(answer.headers["www-authenticate"], challenge, "{header}");
    }
    for path in ["/api/auth/me", "/api/rooms", &format!("/api/rooms?token={0}&access_token={0}", account.token)] {
        fails(&api.call(Method::GET, path, None, None).await.unwrap(), 401, "unauthorized");
    }
    with(&format!("bearer {}", account.token)).await.expect(200).unwrap();
    fails(&api.call(Method::GET, "/api/nothing", None, None).await.unwrap(), 404, "not_found");
}

#[tokio::test]
async fn anonymous_reading_is_a_setting() {
    let open = Embedded::start(&[("CONFAB_ANONYMOUS_READ", "true")]).await.unwrap();
    for (api, may_read) in [(Api::new(open.url()), true), (api().await, false)] {
        let account = api.signup().await.unwrap();
        let room = api.room(&account).await.unwrap();
        api.post("/api/messages", &account, json!({"roomId": room, "content": "public"}))
            .await
            .unwrap()
            .expect(201)
            .unwrap();
        for path in ["/api/rooms".into(), format!("/api/rooms/{room}"), format!("/api/messages/{room}")] {
            let answer = api.call(Method::GET, &path, None, None).await.unwrap();
            assert_eq!(answer.status, if may_read { 200 } else { 401 }, "{path}");
        }
        let message = json!({"roomId": room, "content": "without a token"});
        fails(&api.call(Method::POST, "/api/messages", None, Some(message)).await.unwrap(), 401, "unauthorized");
        fails(&api.call(Method::GET, "/api/auth/me", None, None).await.unwrap(), 401, "unauthorized");
        // A bad token differs from a missing token.
        let bad = api.request(Method::GET, "/api/rooms").bearer_auth("nonsense");
        fails(&api.send(bad).await.unwrap(), 401, "unauthorized");
    }
}
