//! The routes of accounts, sessions and passwords, over a scripted auth service.

use axum::Router;
use axum::http::Request;
use confab_identity::testing::signed;
use serde_json::{Value, json};

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::services::{OTHER, ROOM};
use crate::testing::{Answer, SESSION, claims, send, send_body};

async fn gateway() -> Router {
    gateway_with(&[], &Files::default()).await
}

async fn call(routes: &Router, request: axum::http::request::Builder, body: Value) -> Answer {
    send_body(routes, request.header("Content-Type", "application/json"), body.to_string()).await
}

/// Whether the gateway accepts a token of this session.
async fn accepts(routes: &Router, session: &str) -> bool {
    let token = signed(1, &claims(json!({ "jti": session })));
    let request = Request::get("/api/rooms").header("Authorization", format!("Bearer {token}"));
    send(routes, request).await.status == 200
}

#[tokio::test]
async fn a_session_is_refreshed_with_its_refresh_token() {
    let routes = gateway().await;
    let good = call(&routes, Request::post("/api/auth/refresh"), json!({"refreshToken": "cfr_good"})).await;
    assert_eq!((good.status, &good.json["token"], &good.json["refreshToken"]), (200, &json!("t"), &json!("cfr_next")));
    assert_eq!(good.json["refreshExpiresAt"], "1970-01-01T00:00:01.000Z");
    for bad in ["x", &signed(1, &claims(json!({})))] {
        let answer = call(&routes, Request::post("/api/auth/refresh"), json!({ "refreshToken": bad })).await;
        assert_eq!(problem(&answer), (401, "unauthorized"));
    }
    let missing = call(&routes, Request::post("/api/auth/refresh"), json!({})).await;
    assert_eq!(problem(&missing), (400, "invalid_request"));
    let credentials = json!({"username": "zoë", "password": "correct horse"});
    let plain = call(&routes, Request::post("/api/auth/signup"), credentials).await.json;
    assert!(plain["token"].is_string() && plain.get("refreshToken").is_none(), "{plain}");
}

#[tokio::test]
async fn wrong_reset_tokens_of_an_address_are_limited() {
    let routes = gateway_with(&["--limit-wrong-token", "3,1/h"], &Files::default()).await;
    let refresh =
        async |token: &str| call(&routes, Request::post("/api/auth/refresh"), json!({ "refreshToken": token })).await;
    let reset = async || {
        let body = json!({"token": "cfp_x", "newPassword": "another horse"});
        call(&routes, Request::post("/api/auth/reset-password"), body).await
    };
    for _ in 0..2 {
        assert_eq!(problem(&reset().await), (403, "forbidden"));
    }
    let third = reset().await;
    assert_eq!(problem(&third), (403, "forbidden"));
    let states = third.headers.get_all("RateLimit").iter().map(|state| state.to_str().unwrap()).collect::<Vec<_>>();
    assert!(states.iter().any(|state| state.starts_with("\"wrong_token\";r=0;")), "{states:?}");
    let rejected = reset().await;
    assert_eq!(problem(&rejected), (429, "rate_limited"));
    let detail = rejected.json["detail"].as_str().unwrap();
    assert!(detail.starts_with("too many wrong tokens from this address"), "{detail}");
    // A client must not block the refreshes of others behind its address.
    for _ in 0..5 {
        assert_eq!(problem(&refresh("cfr_bad").await), (401, "unauthorized"));
    }
    assert_eq!(refresh("cfr_good").await.status, 200);
}

#[tokio::test]
async fn refreshes_of_an_address_are_limited() {
    let routes = gateway_with(&["--limit-refresh", "2,1/h"], &Files::default()).await;
    let refresh = async || call(&routes, Request::post("/api/auth/refresh"), json!({"refreshToken": "cfr_good"})).await;
    for state in ["\"refresh\";r=1;t=3600", "\"refresh\";r=0;t=3600"] {
        let refreshed = refresh().await;
        assert_eq!((refreshed.status, &refreshed.headers["RateLimit"]), (200, &state.parse().unwrap()));
    }
    assert_eq!(problem(&refresh().await), (429, "rate_limited"));
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let routes = gateway().await;
    assert_eq!(problem(&send(&routes, Request::get("/api/auth/sessions")).await), (401, "unauthorized"));
    let listed = send(&routes, authorized(Request::get("/api/auth/sessions"))).await.json;
    let time = "1970-01-01T00:00:00.000Z";
    let session = |id: &str, current: bool, user_agent: Value, address: Value| {
        let mut session = json!({"id": id, "current": current, "userAgent": user_agent, "address": address});
        session["createdAt"] = json!(time);
        session["lastSeenAt"] = json!(time);
        session
    };
    let current = session(&SESSION.to_string(), true, Value::Null, Value::Null);
    assert_eq!(listed, json!({"items": [current, session(OTHER, false, json!("phone"), json!("203.0.113.0/24"))]}));
    for id in ["x", ROOM, "%ff"] {
        let ended = send(&routes, authorized(Request::delete(format!("/api/auth/sessions/{id}")))).await;
        assert_eq!(problem(&ended), (404, "not_found"), "{id}");
    }
    assert!(accepts(&routes, OTHER).await);
    let ended = send(&routes, authorized(Request::delete(format!("/api/auth/sessions/{OTHER}")))).await;
    assert_eq!((ended.status, accepts(&routes, OTHER).await), (204, false));
}

#[tokio::test]
async fn all_sessions_end_and_the_current_one_may_stay() {
    for (body, stays) in [(None, true), (Some(json!({})), true), (Some(json!({"current": true})), false)] {
        let routes = gateway().await;
        let request = authorized(Request::post("/api/auth/logout-all"));
        let ended = match &body {
            None => send(&routes, request).await,
            Some(body) => call(&routes, request, body.clone()).await,
        };
        assert_eq!(ended.status, 204, "{body:?}");
        assert_eq!(
            (accepts(&routes, &SESSION.to_string()).await, accepts(&routes, OTHER).await),
            (stays, false),
            "{body:?}"
        );
    }
    let routes = gateway().await;
    let request = || authorized(Request::post("/api/auth/logout-all"));
    assert_eq!(problem(&call(&routes, request(), json!({"current": 7})).await), (400, "invalid_request"));
    assert_eq!(problem(&send_body(&routes, request(), "{}").await), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn a_password_change_needs_the_current_password() {
    let routes = gateway().await;
    let change = |current: &str| json!({"currentPassword": current, "newPassword": "another horse"});
    let request = || authorized(Request::put("/api/auth/password"));
    assert_eq!(problem(&call(&routes, request(), change("wrong horse")).await), (403, "forbidden"));
    assert!(accepts(&routes, OTHER).await);
    assert_eq!(call(&routes, request(), change("correct horse")).await.status, 204);
    assert_eq!((accepts(&routes, &SESSION.to_string()).await, accepts(&routes, OTHER).await), (true, false));
    let reset = json!({"token": "cfp_x", "newPassword": "another horse"});
    let reset = call(&routes, Request::post("/api/auth/reset-password"), reset).await;
    assert_eq!(problem(&reset), (403, "forbidden"));
}

#[tokio::test]
async fn an_account_is_changed_field_by_field() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let patch = || authorized(Request::patch("/api/auth/me"));
    let file = files.put("a.png", "image/png", "some bytes");
    let change = json!({"displayName": "Zoë", "avatarFileId": file, "data": {"a": [1, null]}, "unknown": 1});
    let changed = call(&routes, patch(), change).await;
    let url = format!("/api/avatars/{file}");
    assert_eq!((changed.status, &changed.json["displayName"]), (200, &json!("Zoë")));
    assert_eq!((&changed.json["avatarUrl"], &changed.json["data"]), (&json!(url), &json!({"a": [1, null]})));
    let cleared = call(&routes, patch(), json!({"displayName": null, "avatarFileId": null, "data": null})).await.json;
    assert_eq!(
        (&cleared["displayName"], &cleared["avatarUrl"], &cleared["data"]),
        (&Value::Null, &Value::Null, &json!({}))
    );
    for (bad, field) in [
        (json!({"displayName": 7}), "displayName"),
        (json!({"displayName": ""}), "displayName"),
        (json!({"avatarFileId": ""}), "avatarFileId"),
        (json!({"data": []}), "data"),
        (json!({"data": "{}"}), "data"),
    ] {
        let refused = call(&routes, patch(), bad).await;
        assert_eq!((problem(&refused), &refused.json["errors"][0]["field"]), ((400, "invalid_request"), &json!(field)));
    }
    let of_length = |bytes: usize| json!({"data": {"a": "x".repeat(bytes - 8)}});
    assert_eq!(call(&routes, patch(), of_length(4096)).await.status, 200);
    assert_eq!(problem(&call(&routes, patch(), of_length(4097)).await), (413, "too_large"));
}

#[tokio::test]
async fn data_is_kept_as_it_is_sent() {
    let routes = gateway().await;
    let text = r#"{ "b":1.0, "a" : 1E2,"a":12345678901234567890123, "c":"\u00e9\/é", "data":{"data":-0.0}	}"#;
    for body in [
        format!(r#"{{"data":{text}}}"#),
        format!("\u{feff} {{ \"d\\u0061ta\" : \n {text} , \"displayName\": null}}"),
        format!(r#"{{"data":{{"a":1}}, "data":{text}}}"#),
    ] {
        let request = authorized(Request::patch("/api/auth/me")).header("Content-Type", "application/json");
        let changed = send_body(&routes, request, body.clone()).await;
        let answer = String::from_utf8(changed.bytes.to_vec()).unwrap();
        assert!(changed.status == 200 && answer.contains(&format!("\"data\":{text},")), "{body}: {answer}");
    }
    let spaces = format!(r#"{{"data":{{{}}}}}"#, " ".repeat(4095));
    let request = authorized(Request::patch("/api/auth/me")).header("Content-Type", "application/json");
    assert_eq!(problem(&send_body(&routes, request, spaces).await), (413, "too_large"));
}

#[tokio::test]
async fn a_deleted_account_rejects_its_tokens_at_once() {
    let routes = gateway().await;
    let delete = || authorized(Request::delete("/api/auth/me"));
    assert_eq!(problem(&call(&routes, delete(), json!({"password": "wrong horse"})).await), (403, "forbidden"));
    assert!(accepts(&routes, OTHER).await);
    assert_eq!(call(&routes, delete(), json!({"password": "correct horse"})).await.status, 204);
    assert!(!accepts(&routes, OTHER).await && !accepts(&routes, &SESSION.to_string()).await);
}
