use axum::Router;
use axum::http::Request;
use serde_json::json;

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::services::{BOB, PRIVATE, ROOM};
use crate::testing::{Answer, identity, send, send_body};

async fn gateway() -> Router {
    let routes = gateway_with(&["--limit-search=20,1/h"], &Files::default()).await;
    let message = authorized(Request::post(format!("/api/rooms/{ROOM}/messages")));
    let message = message.header("Content-Type", "application/json");
    assert_eq!(send_body(&routes, message, json!({"content": "tea and milk"}).to_string()).await.status, 201);
    routes
}

async fn search(routes: &Router, query: &str) -> Answer {
    send(routes, authorized(Request::get(format!("/api/search?{query}")))).await
}

#[tokio::test]
async fn found_messages_have_highlights() {
    let routes = gateway().await;
    let found = search(&routes, &format!("q=tea&roomId={ROOM}&before=1970-01-01T00:00:01.5Z&cursor=next")).await;
    assert_eq!((found.status, &found.json["items"][0]["message"]["content"]), (200, &json!("tea and milk")));
    assert_eq!(found.json["items"][0]["highlights"], json!([[0, 3]]));
    assert_eq!((&found.json["nextCursor"], &found.json["upTo"]), (&json!("next"), &json!("1970-01-01T00:00:01.500Z")));
    assert_eq!(search(&routes, "q=coffee").await.json["items"], json!([]));
}

#[tokio::test]
async fn senders_are_named_by_id_name_or_me() {
    let routes = gateway().await;
    let me = identity().user.id;
    for (from, found) in [("me", 1), (me.as_str(), 1), (BOB, 0), ("@bob", 0), ("@unknown", 0)] {
        let answer = search(&routes, &format!("q=tea&from={from}")).await;
        assert_eq!((answer.status, answer.json["items"].as_array().map(Vec::len)), (200, Some(found)), "{from}");
    }
}

#[tokio::test]
async fn wrong_searches_are_rejected() {
    let routes = gateway().await;
    for (query, field) in [
        ("", "q"),
        ("q=", "q"),
        ("q=x&roomId=x", "roomId"),
        ("q=x&from=x", "from"),
        ("q=x&from=@", "from"),
        ("q=x&before=yesterday", "before"),
        ("q=x&limit=0", "limit"),
        ("q=x&cursor=", "cursor"),
    ] {
        let answer = search(&routes, query).await;
        let field = json!(field);
        assert_eq!((problem(&answer), &answer.json["errors"][0]["field"]), ((400, "invalid_request"), &field));
    }
    let anonymous = send(&routes, Request::get("/api/search?q=tea")).await;
    assert_eq!(problem(&anonymous), (401, "unauthorized"));
}

#[tokio::test]
async fn searches_are_limited_and_hidden_rooms_are_not_found() {
    let routes = gateway().await;
    assert_eq!(search(&routes, &format!("q=tea&roomId={PRIVATE}")).await.status, 200);
    let unknown = search(&routes, "q=tea&roomId=0193a4c0-7d50-7cc3-98a5-2f6b8e1d0cff").await;
    assert_eq!((problem(&unknown), &unknown.json["detail"]), ((404, "not_found"), &json!("no such room")));
    for _ in 0..18 {
        assert_eq!(search(&routes, "q=tea").await.status, 200);
    }
    assert_eq!(problem(&search(&routes, "q=tea").await), (429, "rate_limited"));
}
