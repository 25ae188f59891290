use axum::Router;
use axum::http::Request;
use serde_json::{Value, json};

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::services::ROOM;
use crate::testing::{Answer, send, send_body};

/// A gateway with a message of the user with seq 1.
async fn gateway_with_message() -> Router {
    let routes = gateway_with(&[], &Files::default()).await;
    let post = authorized(Request::post(format!("/api/rooms/{ROOM}/messages")));
    let sent = send_body(&routes, post.header("Content-Type", "application/json"), r#"{"content": "tea"}"#).await;
    assert_eq!((sent.status, &sent.json["reactions"]), (201, &json!([])));
    routes
}

async fn call(routes: &Router, method: &str, rest: &str) -> Answer {
    let uri = format!("/api/rooms/{ROOM}/messages{rest}");
    send(routes, authorized(Request::builder().method(method).uri(uri))).await
}

#[tokio::test]
async fn a_reaction_is_set_and_ends() {
    let routes = gateway_with_message().await;
    let of = |name: &str| json!({"name": name, "count": 1, "mine": true});
    for _ in 0..2 {
        let set = call(&routes, "PUT", "/1/reactions/%F0%9F%91%8D").await;
        assert_eq!((set.status, &set.json), (200, &json!({"reactions": [of("👍")]})));
    }
    let set = call(&routes, "PUT", "/1/reactions/a%2Fb%20c").await;
    assert_eq!(set.json, json!({"reactions": [of("👍"), of("a/b c")]}));
    let shown = call(&routes, "GET", "/1").await;
    assert_eq!((&shown.json["reactions"], &shown.json["revision"]), (&set.json["reactions"], &json!(3)));
    for rest in ["", "?events=true"] {
        assert_eq!(call(&routes, "GET", rest).await.json["items"][0]["reactions"], set.json["reactions"]);
    }
    let listed = call(&routes, "GET", "/1/reactions?name=a%2Fb%20c").await;
    let items = listed.json["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["name"], &listed.json["nextCursor"]), (1, &json!("a/b c"), &Value::Null));
    assert_eq!((&items[0]["at"], items[0]["user"]["id"].is_string()), (&json!("1970-01-01T00:00:00.000Z"), true));
    for _ in 0..2 {
        let ended = call(&routes, "DELETE", "/1/reactions/%F0%9F%91%8D").await;
        assert_eq!((ended.status, &ended.json), (200, &json!({"reactions": [of("a/b c")]})));
    }
}

#[tokio::test]
async fn invalid_reactions_are_rejected() {
    let routes = gateway_with_message().await;
    let long = format!("/1/reactions/{}", "x".repeat(65));
    // A decomposed letter and control characters.
    for rest in [&*long, "/1/reactions/e%CC%81", "/1/reactions/a%0Ab", "/1/reactions/a%00"] {
        for method in ["PUT", "DELETE"] {
            let answer = call(&routes, method, rest).await;
            assert_eq!(problem(&answer), (400, "invalid_request"), "{rest}");
            assert_eq!(answer.json["errors"][0]["field"], "name", "{rest}");
        }
    }
    assert_eq!(call(&routes, "PUT", &format!("/1/reactions/{}", "x".repeat(64))).await.status, 200);
    for (method, rest) in [("PUT", "/9/reactions/x"), ("DELETE", "/x/reactions/x"), ("GET", "/9/reactions")] {
        assert_eq!(problem(&call(&routes, method, rest).await), (404, "not_found"), "{method} {rest}");
    }
    for rest in ["/1/reactions?limit=0", "/1/reactions?name=", "/1/reactions?cursor="] {
        assert_eq!(problem(&call(&routes, "GET", rest).await), (400, "invalid_request"), "{rest}");
    }
    let uri = format!("/api/rooms/{ROOM}/messages/1/reactions/x");
    assert_eq!(problem(&send(&routes, Request::put(uri)).await), (401, "unauthorized"));
}
