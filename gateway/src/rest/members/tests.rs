use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::keys::key;
use crate::testing::services::{BOB, PRIVATE, ROOM};
use crate::testing::{Answer, identity, send, send_body};

/// The id of no user.
const UNKNOWN: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02";

async fn gateway() -> axum::Router {
    gateway_with(&["--anonymous-read", "true"], &Files::default()).await
}

fn path(user: &str) -> String {
    format!("/api/rooms/{ROOM}/members/{user}")
}

async fn put(routes: &axum::Router, user: &str, body: impl Into<Body>) -> Answer {
    send_body(routes, authorized(Request::put(path(user))).header("Content-Type", "application/json"), body).await
}

fn member(id: &str, username: &str, role: &str) -> Value {
    json!({ "user": { "id": id, "username": username }, "role": role, "joinedAt": "1970-01-01T00:00:00.000Z" })
}

#[tokio::test]
async fn members_are_listed_in_pages() {
    let routes = gateway().await;
    let list = format!("/api/rooms/{ROOM}/members");
    for request in [Request::get(&list), authorized(Request::get(format!("{list}?limit=2")))] {
        let page = send(&routes, request).await;
        let owner = member(&identity().user.id, "zoë", "owner");
        assert_eq!((page.status, page.json), (200, json!({ "items": [owner], "nextCursor": null })));
    }
    let page = send(&routes, authorized(Request::get(format!("{list}?limit=1")))).await;
    assert_eq!(page.json["nextCursor"], "next");
    for query in ["limit=0", "limit=201", "cursor="] {
        let answer = send(&routes, authorized(Request::get(format!("{list}?{query}")))).await;
        assert_eq!(problem(&answer), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn members_are_added_by_id_name_or_me() {
    let routes = gateway().await;
    for user in [BOB, "@bob", "%40bob"] {
        let added = put(&routes, user, "{}").await;
        assert_eq!((added.status, added.json), (201, member(BOB, "bob", "member")), "{user}");
    }
    for role in ["member", "admin", "owner"] {
        let added = put(&routes, BOB, json!({ "role": role }).to_string()).await;
        assert_eq!((added.status, &added.json["role"]), (201, &json!(role)));
    }
    assert_eq!(problem(&put(&routes, "me", r#"{"role":"admin"}"#).await), (409, "conflict"));
    let unchanged = put(&routes, "me", "{}").await;
    assert_eq!((unchanged.status, &unchanged.json["role"]), (200, &json!("owner")));
    for user in ["x", "@", "@carol", "me%00", UNKNOWN] {
        let unknown = put(&routes, user, "{}").await;
        assert_eq!(
            (problem(&unknown), &unknown.json["detail"]),
            ((404, "not_found"), &json!("no such user")),
            "{user}"
        );
    }
}

#[tokio::test]
async fn an_absent_body_is_an_empty_object() {
    let routes = gateway().await;
    for body in ["", "{}", "null", r#"{"role":null,"id":"x"}"#] {
        assert_eq!(put(&routes, BOB, body).await.status, 201, "{body}");
    }
    let without_type = send(&routes, authorized(Request::put(path(BOB)))).await;
    assert_eq!(without_type.status, 201);
    let form = || authorized(Request::put(path(BOB))).header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(send(&routes, form()).await.status, 201);
    assert_eq!(problem(&send_body(&routes, form(), "role=admin").await), (415, "unsupported_media_type"));
    for (body, field) in [(r#"{"role":"guest"}"#, "role"), (r#"{"role":""}"#, "role"), (r#"{"role":1}"#, "role")] {
        let rejected = put(&routes, BOB, body).await;
        assert_eq!(
            (problem(&rejected), &rejected.json["errors"][0]["field"]),
            ((400, "invalid_request"), &json!(field))
        );
    }
    assert_eq!(problem(&put(&routes, BOB, "[]").await), (400, "invalid_request"));
    assert_eq!(problem(&put(&routes, BOB, "x".repeat(300_000)).await), (413, "too_large"));
}

#[tokio::test]
async fn members_are_removed_by_id_name_or_me() {
    let routes = gateway().await;
    let remove = async |user: &str| send(&routes, authorized(Request::delete(path(user)))).await;
    for user in [BOB, "@bob"] {
        assert_eq!(remove(user).await.status, 204, "{user}");
    }
    assert_eq!(problem(&remove("me").await), (409, "conflict"));
    for user in ["x", "@carol", "%ff", UNKNOWN] {
        assert_eq!(problem(&remove(user).await), (404, "not_found"), "{user}");
    }
}

#[tokio::test]
async fn changes_of_members_need_a_token_and_hidden_rooms_have_none() {
    let routes = gateway().await;
    for request in [Request::put(path("me")), Request::delete(path("me"))] {
        assert_eq!(problem(&send(&routes, request).await), (401, "unauthorized"));
    }
    for room in [PRIVATE, "x", UNKNOWN] {
        let list = send(&routes, authorized(Request::get(format!("/api/rooms/{room}/members")))).await;
        assert_eq!((problem(&list), &list.json["detail"]), ((404, "not_found"), &json!("no such room")));
        let path = format!("/api/rooms/{room}/members/{BOB}");
        for request in [Request::put(&path), Request::delete(&path)] {
            assert_eq!(problem(&send(&routes, authorized(request)).await), (404, "not_found"));
        }
    }
}

#[tokio::test]
async fn where_users_are_hidden_another_user_counts_as_a_look_up() {
    let routes =
        gateway_with(&["--user-directory", "shared", "--limit-user-directory", "3,1/h"], &Files::default()).await;
    let me = identity().user.id;
    let remove = async |user: &str| send(&routes, authorized(Request::delete(path(user)))).await;
    for (user, left) in [(BOB, 2), ("@bob", 1), (UNKNOWN, 0)] {
        let answer = put(&routes, user, "{}").await;
        let mut states = answer.headers.get_all("ratelimit").iter().map(|state| state.to_str().unwrap());
        let state = states.find(|state| state.starts_with("\"user_directory\";"));
        assert!(state.is_some_and(|state| state.contains(&format!(";r={left};"))), "{user}: {state:?}");
    }
    for user in [BOB, "@bob", UNKNOWN, "@carol"] {
        let limited = put(&routes, user, "{}").await;
        assert_eq!(problem(&limited), (429, "rate_limited"), "{user}");
        assert!(limited.headers.contains_key("retry-after"), "{user}");
    }
    assert_eq!(problem(&remove("@bob").await), (429, "rate_limited"));
    // These requests look up no other user.
    for user in ["me", &me] {
        assert_ne!(put(&routes, user, "{}").await.status, 429, "{user}");
    }
    assert_eq!(remove(BOB).await.status, 204);
    let by_key = Request::put(path(BOB)).header("Authorization", format!("Bearer {}", key("rooms")));
    assert_eq!(send(&routes, by_key).await.status, 201, "a server key without a user has no limit");
}
