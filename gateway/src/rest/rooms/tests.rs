use axum::http::Request;
use serde_json::json;

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::send;

#[tokio::test]
async fn own_rooms_are_listed_for_users_alone() {
    let routes = gateway_with(&["--anonymous-read", "true"], &Files::default()).await;
    let list = async |query: &str| send(&routes, authorized(Request::get(format!("/api/rooms?{query}")))).await;
    let own = list("mine=true&q=tea&cursor=next").await;
    assert_eq!((own.status, &own.json["nextCursor"]), (200, &json!("next")));
    let room = &own.json["items"][0];
    assert_eq!((&room["name"], &room["lastSeq"]), (&json!("zoë tea"), &json!(3)));
    let own = list("mine=true").await;
    assert_eq!((&own.json["items"][0]["name"], &own.json["nextCursor"]), (&json!("zoë "), &json!(null)));
    for all in ["mine=false", ""] {
        assert_eq!(list(all).await.json["items"][0]["name"], "Tea", "{all}");
    }
    for malformed in ["mine=", "mine=1", "mine=True", "mine=yes", "mine=true&mine=true"] {
        let answer = list(malformed).await;
        assert_eq!((problem(&answer), &answer.json["errors"][0]["field"]), ((400, "invalid_request"), &json!("mine")));
    }
    assert_eq!(problem(&list("mine=true&limit=0").await), (400, "invalid_request"));
    // An anonymous caller may list public rooms, but has no own rooms.
    assert_eq!(send(&routes, Request::get("/api/rooms")).await.status, 200);
    let answer = send(&routes, Request::get("/api/rooms?mine=true")).await;
    assert_eq!(problem(&answer), (401, "unauthorized"));
}
