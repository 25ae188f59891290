use axum::body::Body;
use axum::http::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderValue,
    LOCATION,
};
use axum::middleware::map_request;
use clap::Parser;
use confab_common::grpc::{Services, Transport};
use confab_common::process::Process;
use confab_identity::testing::signed;
use serde_json::{Map, Value, json};

use super::*;
use crate::testing::files::Files;
use crate::testing::services::{self, PRIVATE, ROOM};
use crate::testing::{Answer, bus, claims, eventually, fake, send, send_body};

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    gateway: crate::config::GatewayConfig,
}

async fn gateway(settings: &[&str]) -> Router {
    gateway_with(settings, &Files::default()).await
}

/// All routes, over scripted services and this file service.
pub(super) async fn gateway_with(settings: &[&str], files: &Files) -> Router {
    gateway_over(settings, files.transport()).await
}

/// All routes, over the file service behind this transport.
pub(super) async fn gateway_over(settings: &[&str], file: Transport) -> Router {
    let (auth, room, message) = (fake(services::auth), fake(services::room), fake(services::message()));
    gateway_of(settings, Services { auth, room, message, file }).await
}

/// All routes, over these services.
pub(super) async fn gateway_of(settings: &[&str], services: Services) -> Router {
    let config = Settings::parse_from(["test"].iter().chain(settings)).gateway;
    let process = Process::new();
    let listen = ([127, 0, 0, 1], 0).into();
    let routes = crate::start(&config, listen, services, bus(), None, &process).await.unwrap().routes;
    process.readiness.started();
    eventually(|| {
        !process.readiness.missing().is_some_and(|missing| missing.contains("keys") || missing.contains("revocations"))
    })
    .await;
    routes.layer(map_request(|mut request: Request<Body>| async move {
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        request
    }))
}

pub(super) fn authorized(request: http::request::Builder) -> http::request::Builder {
    request.header("Authorization", format!("Bearer {}", signed(1, &claims(json!({})))))
}

async fn post(routes: &Router, path: &str, body: impl Into<axum::body::Body>) -> Answer {
    send_body(routes, authorized(Request::post(path)).header("Content-Type", "application/json"), body).await
}

pub(super) fn problem(answer: &Answer) -> (u16, &str) {
    assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
    (answer.status, answer.json["code"].as_str().unwrap())
}

#[tokio::test]
async fn reads_need_a_token_unless_anonymous_reads_are_allowed() {
    let files = Files::default();
    let file = files.put("a.txt", "text/plain", "some text");
    let (closed, open) = (gateway_with(&[], &files).await, gateway_with(&["--anonymous-read", "true"], &files).await);
    let file = format!("/api/files/{file}");
    let paths = [
        "/api/rooms".to_owned(),
        format!("/api/rooms/{ROOM}"),
        format!("/api/messages/{ROOM}"),
        format!("/api/files?roomId={ROOM}"),
        format!("{file}/link"),
        file,
    ];
    for path in &paths {
        let anonymous = send(&closed, Request::get(path)).await;
        assert_eq!(
            (problem(&anonymous), &anonymous.headers["www-authenticate"]),
            ((401, "unauthorized"), &"Bearer".parse().unwrap())
        );
        assert_eq!(send(&closed, authorized(Request::get(path))).await.status, 200, "{path}");
        assert_eq!(send(&open, Request::get(path)).await.status, 200, "{path}");
        for bad in ["Bearer x", "Basic eDp5", "Bearer", ""] {
            let answer = send(&open, Request::get(path).header("Authorization", bad)).await;
            assert_eq!(problem(&answer), (401, "unauthorized"), "{path} {bad:?}");
        }
        let token = signed(1, &claims(json!({})));
        assert_eq!(
            send(
                &closed,
                Request::get(format!(
                    "{path}{}token={token}&access_token={token}",
                    if path.contains('?') { "&" } else { "?" }
                ))
            )
            .await
            .status,
            401
        );
    }
    for request in [
        Request::post("/api/rooms"),
        Request::post("/api/messages"),
        Request::delete(&paths[1]),
        Request::get("/api/auth/me"),
        Request::get("/api/files"),
        Request::delete(&paths[5]),
        Request::post("/api/files/upload"),
    ] {
        assert_eq!(problem(&send(&open, request).await), (401, "unauthorized"));
    }
}

#[tokio::test]
async fn unknown_routes_and_ids_are_not_found() {
    let routes = gateway(&[]).await;
    for path in ["/x", "/api", "/api/nothing", "/api/rooms/", "/api/files/", &format!("/api/rooms/{ROOM}/x")] {
        assert_eq!(problem(&send(&routes, Request::get(path)).await), (404, "not_found"), "{path}");
        assert_eq!(problem(&send(&routes, authorized(Request::put(path))).await), (404, "not_found"), "{path}");
    }
    for id in ["x", "%00", "%ff", "0193A4C07D507CC398A52F6B8E1D0C01", "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02"] {
        assert_eq!(
            problem(&send(&routes, authorized(Request::get(format!("/api/rooms/{id}")))).await),
            (404, "not_found"),
            "{id}"
        );
        assert_eq!(
            problem(&send(&routes, authorized(Request::get(format!("/api/messages/{id}")))).await),
            (404, "not_found"),
            "{id}"
        );
    }
    let wrong = send(&routes, Request::put("/api/rooms")).await;
    assert_eq!(
        (problem(&wrong), &wrong.headers[ALLOW]),
        ((405, "method_not_allowed"), &"GET,HEAD,POST".parse().unwrap())
    );
}

#[tokio::test]
async fn accounts_can_sign_up_and_log_out() {
    let routes = gateway(&[]).await;
    let created = post(&routes, "/api/auth/signup", r#"{"username":"zoë","password":"correct horse"}"#).await;
    assert_eq!(
        (created.status, &created.json["tokenType"], &created.json["user"]["username"]),
        (201, &json!("Bearer"), &json!("zoë"))
    );
    assert_eq!(created.json["expiresAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(
        problem(&post(&routes, "/api/auth/login", r#"{"username":"z","password":"p"}"#).await),
        (401, "invalid_credentials")
    );
    let nul = post(&routes, "/api/auth/login", r#"{"username":"z\u0000","password":"p"}"#).await;
    assert_eq!((problem(&nul), &nul.json["errors"][0]["field"]), ((400, "invalid_request"), &json!("username")));
    assert_eq!(problem(&send(&routes, authorized(Request::get("/api/auth/me"))).await), (401, "unauthorized"));

    let keys = send(&routes, Request::get("/.well-known/jwks.json")).await;
    assert_eq!((keys.status, &keys.json["keys"][0]["kid"]), (200, &json!("k1")));

    let logout = send(&routes, authorized(Request::get("/api/auth/logout"))).await;
    assert_eq!((logout.status, logout.json), (200, json!({"ok": true})));
    assert_eq!(problem(&send(&routes, authorized(Request::post("/api/auth/logout"))).await), (401, "unauthorized"));
}

#[tokio::test]
async fn rooms_can_be_created_listed_and_changed() {
    let routes = gateway(&[]).await;
    let created = post(&routes, "/api/rooms", r#"{"name":"Tea","description":null,"id":"x","lastSeq":9}"#).await;
    assert_eq!((created.status, &created.json["lastSeq"]), (201, &json!(0)));
    assert_eq!(created.headers[LOCATION], format!("/api/rooms/{}", created.json["id"].as_str().unwrap()));
    for (visibility, is_valid) in [("private", true), ("public", true), ("x", false), ("", false), ("Public", false)] {
        let body = json!({"name": "Tea", "visibility": visibility}).to_string();
        let patch = authorized(Request::patch(format!("/api/rooms/{ROOM}"))).header("Content-Type", "application/json");
        for answer in [post(&routes, "/api/rooms", body.clone()).await, send_body(&routes, patch, body).await] {
            if is_valid {
                assert_eq!((answer.status < 300, &answer.json["visibility"]), (true, &json!(visibility)));
                continue;
            }
            let field = &answer.json["errors"][0]["field"];
            assert_eq!((problem(&answer), field), ((400, "invalid_request"), &json!("visibility")), "{visibility}");
        }
    }
    let listed = send(&routes, authorized(Request::get("/api/rooms?limit=1&q=te"))).await.json;
    assert_eq!((&listed["items"][0]["lastSeq"], &listed["nextCursor"]), (&json!(3), &json!("next")));
    let shown = send(&routes, authorized(Request::get(format!("/api/rooms/{ROOM}")))).await.json;
    assert_eq!((&shown["name"], &shown["messages"]["items"]), (&json!("Tea"), &json!([])));

    let patch = authorized(Request::patch(format!("/api/rooms/{ROOM}")))
        .header("Content-Type", "application/json; charset=utf-8");
    let changed = send_body(&routes, patch, r#"{"name":"Coffee"}"#).await;
    assert_eq!((changed.status, &changed.json["name"], &changed.json["lastSeq"]), (200, &json!("Coffee"), &json!(3)));
    assert_eq!(
        problem(&send(&routes, authorized(Request::delete(format!("/api/rooms/{ROOM}")))).await),
        (403, "forbidden")
    );
}

#[tokio::test]
async fn a_hidden_room_gets_the_response_of_a_room_that_does_not_exist() {
    let routes = gateway(&["--anonymous-read", "true"]).await;
    let unknown = PRIVATE.replace("c0f", "c02");
    let stranger = format!("Bearer {}", signed(1, &claims(json!({"sub": uuid::Uuid::from_u128(8)}))));
    for path in ["/api/rooms/", "/api/messages/"] {
        let member = send(&routes, authorized(Request::get(format!("{path}{PRIVATE}")))).await;
        assert_eq!(member.status, 200, "{path}");
        for token in [None, Some(&stranger)] {
            let read = async |room: &str| {
                let request = Request::get(format!("{path}{room}"));
                let request = token.into_iter().fold(request, |request, token| request.header("Authorization", token));
                let mut answer = send(&routes, request).await;
                assert!(answer.json.as_object_mut().unwrap().remove("requestId").is_some());
                answer.headers.remove("x-request-id");
                (answer.status, answer.headers, answer.json.to_string())
            };
            let hidden = read(PRIVATE).await;
            assert!(hidden.0 == 404 && hidden.2.contains("no such room"), "{hidden:?}");
            assert_eq!(hidden, read(&unknown).await);
        }
    }
}

#[tokio::test]
async fn a_room_lists_what_the_caller_may_do() {
    let routes = gateway(&["--anonymous-read", "true"]).await;
    let path = format!("/api/rooms/{ROOM}");
    let (reader, anonymous) = (authorized(Request::get(&path)), Request::get(&path));
    let can = async |request| send(&routes, request).await.json["can"].clone();
    assert_eq!((can(reader).await, can(anonymous).await), (json!(["post", "edit"]), json!([])));
    let created = post(&routes, "/api/rooms", r#"{"name":"Tea"}"#).await.json;
    assert_eq!(
        (&created["role"], &created["can"]),
        (&json!("owner"), &json!(["post", "edit", "delete", "invite", "manage", "pin"]))
    );
    let listed = send(&routes, Request::get("/api/rooms")).await.json;
    assert_eq!((&listed["items"][0]["can"], &listed["items"][0]["role"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn messages_can_be_sent_and_paged() {
    let routes = gateway(&[]).await;
    let body = json!({"roomId": ROOM, "content": "hi", "clientMessageId": "c1"}).to_string();
    let first = post(&routes, "/api/messages", body.clone()).await;
    assert_eq!((first.status, &first.json["seq"], &first.json["clientMessageId"]), (201, &json!(1), &json!("c1")));
    let again = post(&routes, "/api/messages", body).await;
    let repeated =
        |first: &Value| [first.as_object().unwrap().clone(), Map::from_iter([("duplicate".into(), json!(true))])];
    assert_eq!((again.status, again.json), (200, repeated(&first.json).into_iter().flatten().collect()));
    let keyed = authorized(Request::post("/api/messages"))
        .header("Content-Type", "application/json")
        .header("Idempotency-Key", "c1");
    let keyed = send_body(&routes, keyed, json!({"roomId": ROOM, "content": "hi"}).to_string()).await;
    assert_eq!((keyed.status, &keyed.json["id"]), (200, &first.json["id"]));

    let page = send(&routes, authorized(Request::get(format!("/api/messages/{ROOM}")))).await.json;
    let cursor = page["nextCursor"].as_str().unwrap();
    assert_eq!(
        send(&routes, authorized(Request::get(format!("/api/messages/{ROOM}?cursor={cursor}")))).await.status,
        200
    );
    let other = ROOM.replace("c01", "c02");
    for (room, query) in [
        (other.as_str(), format!("cursor={cursor}")),
        (ROOM, format!("cursor={cursor}&before=2")),
        (ROOM, "cursor=x".into()),
        (ROOM, "before=2&after=1".into()),
        (ROOM, "before=0".into()),
        (ROOM, "after=-1".into()),
        (ROOM, "limit=0".into()),
    ] {
        let answer = send(&routes, authorized(Request::get(format!("/api/messages/{room}?{query}")))).await;
        assert_eq!(problem(&answer), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn invalid_bodies_are_rejected() {
    let routes = gateway(&[]).await;
    for kind in ["text/plain", "", "application/jsonp"] {
        let request = authorized(Request::post("/api/messages")).header("Content-Type", kind);
        assert_eq!(problem(&send_body(&routes, request, "{}").await), (415, "unsupported_media_type"), "{kind}");
    }
    assert_eq!(problem(&post(&routes, "/api/messages", "{").await), (400, "invalid_request"));
    let huge = post(&routes, "/api/messages", "x".repeat(300_000)).await;
    assert_eq!((problem(&huge), &huge.headers[CONNECTION]), ((413, "too_large"), &"close".parse().unwrap()));
    let long = json!({"roomId": ROOM, "content": "x".repeat(16_385)}).to_string();
    let long = post(&routes, "/api/messages", long).await;
    assert_eq!((problem(&long), long.headers.contains_key(CONNECTION)), ((413, "too_large"), false));
}

#[tokio::test]
async fn cors_headers_follow_the_setting() {
    let routes = gateway(&["--allowed-origins", "https://chat.example"]).await;
    let preflight = |origin: &str| {
        let request =
            Request::options("/api/messages").header("Origin", origin).header("Access-Control-Request-Method", "POST");
        request.header("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
    };
    let good = send(&routes, preflight("https://chat.example")).await;
    assert_eq!(
        (good.status, &good.headers[ACCESS_CONTROL_ALLOW_ORIGIN]),
        (200, &"https://chat.example".parse().unwrap())
    );
    assert!(good.headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().contains("idempotency-key"));
    for foreign in ["https://evil.example", "null", "http://localhost:3000"] {
        assert!(
            !send(&routes, preflight(foreign)).await.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
            "{foreign}"
        );
        let refused = send(&routes, Request::get("/api/rooms").header("Origin", foreign)).await;
        assert!(!refused.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{foreign}");
    }
}
