use axum::Router;
use axum::http::Request;
use axum::http::request::Builder;
use serde_json::{Value, json};

use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::keys::{MALLORY, key};
use crate::testing::services::BOB;
use crate::testing::{Answer, send, send_body};

const SCOPES: [&str; 4] = ["users", "tokens", "keys", "audit"];

async fn gateway() -> Router {
    gateway_with(&[], &Files::default()).await
}

fn with(scopes: &str, request: Builder) -> Builder {
    request.header("Authorization", format!("Bearer {}", key(scopes)))
}

async fn body(routes: &Router, request: Builder, body: Value) -> Answer {
    send_body(routes, request.header("Content-Type", "application/json"), body.to_string()).await
}

/// Every route with its scope.
fn all() -> Vec<(&'static str, Builder)> {
    let user = |rest: &str| format!("/api/admin/users/{BOB}{rest}");
    vec![
        ("keys", Request::get("/api/admin/keys")),
        ("keys", Request::post("/api/admin/keys")),
        ("keys", Request::delete(format!("/api/admin/keys/{MALLORY}"))),
        ("users", Request::post("/api/admin/invites")),
        ("tokens", Request::post("/api/admin/tokens")),
        ("users", Request::put(user(""))),
        ("users", Request::delete(user(""))),
        ("users", Request::post(user("/suspend"))),
        ("users", Request::post(user("/restore"))),
        ("users", Request::post(user("/end-sessions"))),
        ("audit", Request::get("/api/admin/audit")),
    ]
}

#[tokio::test]
async fn each_route_needs_a_key_with_its_scope() {
    let routes = gateway().await;
    for (_, request) in all() {
        assert_eq!(problem(&send(&routes, request).await), (401, "unauthorized"));
    }
    for (_, request) in all() {
        assert_eq!(problem(&send(&routes, authorized(request)).await), (403, "forbidden"));
    }
    for scope in SCOPES {
        for (needed, request) in all() {
            let status = send(&routes, with(scope, request)).await.status;
            assert_eq!(status == 403, scope != needed, "{scope} {needed}: {status}");
        }
    }
    for (scope, request) in all() {
        let answer = send(&routes, with(scope, request).header("Confab-User", BOB)).await;
        assert_eq!(problem(&answer), (403, "forbidden"), "a user has no right to administrate");
    }
}

#[tokio::test]
async fn keys_are_created_listed_and_deleted() {
    let routes = gateway().await;
    let create = async |new: Value| body(&routes, with("keys", Request::post("/api/admin/keys")), new).await;
    let created = create(json!({"scopes": ["keys"], "name": "shop", "id": "x"})).await;
    let expected = json!({"id": MALLORY, "name": "shop", "scopes": ["keys"], "createdAt": "1970-01-01T00:00:00.000Z",
        "key": "cfk_new"});
    assert_eq!((created.status, created.json), (201, expected));
    assert_eq!(create(json!({"scopes": ["keys"]})).await.status, 201);
    for wrong in [json!({}), json!({"scopes": "keys"}), json!({"scopes": [], "name": "\u{0}"})] {
        assert_eq!(problem(&create(wrong).await), (400, "invalid_request"));
    }
    let listed = send(&routes, with("keys", Request::get("/api/admin/keys"))).await;
    assert_eq!((listed.status, &listed.json["items"][0]["scopes"]), (200, &json!(["rooms"])));
    assert!(listed.json["items"][0].get("key").is_none());
    for (id, status) in [(MALLORY, 204), ("x", 404)] {
        let delete = Request::delete(format!("/api/admin/keys/{id}"));
        assert_eq!(send(&routes, with("keys", delete)).await.status, status, "{id}");
    }
}

#[tokio::test]
async fn users_are_put_by_id_or_name() {
    let routes = gateway().await;
    let put = async |user: &str, new: Value| {
        body(&routes, with("users", Request::put(format!("/api/admin/users/{user}"))), new).await
    };
    let created = put(MALLORY, json!({"username": "new", "displayName": "New", "data": {"a": 1}})).await;
    assert_eq!((created.status, &created.json["id"], &created.json["data"]), (201, &json!(MALLORY), &json!({"a": 1})));
    let changed = put("@bob", json!({"username": "rob", "displayName": null})).await;
    assert_eq!((changed.status, &changed.json["id"], &changed.json["displayName"]), (200, &json!(BOB), &Value::Null));
    for (user, new, expected) in [
        ("x", json!({"username": "rob"}), (404, "not_found")),
        ("@carol", json!({"username": "rob"}), (404, "not_found")),
        ("me", json!({"username": "rob"}), (400, "invalid_request")),
        (BOB, json!({}), (400, "invalid_request")),
        (BOB, json!({"username": "rob", "data": []}), (400, "invalid_request")),
        (BOB, json!({"username": "rob", "displayName": ""}), (400, "invalid_request")),
        (BOB, json!({"username": "rob", "data": {"a": "x".repeat(4096)}}), (413, "too_large")),
    ] {
        assert_eq!(problem(&put(user, new.clone()).await), expected, "{user} {new:.80}");
    }
}

#[tokio::test]
async fn the_states_of_users_are_changed() {
    let routes = gateway().await;
    for user in [BOB, "@bob"] {
        for act in ["suspend", "restore", "end-sessions"] {
            let request = Request::post(format!("/api/admin/users/{user}/{act}"));
            assert_eq!(send(&routes, with("users", request)).await.status, 204, "{act}");
        }
        let delete = Request::delete(format!("/api/admin/users/{user}"));
        assert_eq!(send(&routes, with("users", delete)).await.status, 204);
    }
    let unknown = Request::post("/api/admin/users/x/suspend");
    assert_eq!(problem(&send(&routes, with("users", unknown)).await), (404, "not_found"));
}

#[tokio::test]
async fn invites_and_tokens_are_created() {
    let routes = gateway().await;
    let invite = async |new: Value| body(&routes, with("users", Request::post("/api/admin/invites")), new).await;
    let created = invite(json!({"uses": 3, "expiresAt": "2030-01-01T00:00:00Z"})).await;
    assert_eq!((created.status, created.json), (201, json!({"code": "CODE", "expiresAt": "2030-01-01T00:00:00.000Z"})));
    assert_eq!(send(&routes, with("users", Request::post("/api/admin/invites"))).await.status, 201);
    for wrong in [json!({"expiresAt": "tomorrow"}), json!({"expiresAt": "1960-01-01T00:00:00Z"}), json!({"uses": -1})] {
        assert_eq!(problem(&invite(wrong).await), (400, "invalid_request"));
    }
    let issue = async |new: Value| body(&routes, with("tokens", Request::post("/api/admin/tokens")), new).await;
    let issued = issue(json!({"userId": BOB, "ttl": 5})).await;
    assert_eq!(
        (issued.status, &issued.json["tokenType"], &issued.json["user"]["id"]),
        (200, &json!("Bearer"), &json!(BOB))
    );
    for wrong in
        [json!({"userId": "x"}), json!({"userId": BOB, "ttl": 0}), json!({"userId": BOB, "ttl": "1h"}), json!({})]
    {
        assert_eq!(problem(&issue(wrong).await), (400, "invalid_request"));
    }
}

#[tokio::test]
async fn the_audit_is_listed_in_pages() {
    let routes = gateway().await;
    let list = async |query: &str| send(&routes, with("audit", Request::get(format!("/api/admin/audit{query}")))).await;
    let first = list("?limit=1").await;
    assert_eq!((first.status, &first.json["nextCursor"]), (200, &json!("next")));
    let entry = &first.json["items"][0];
    assert_eq!(
        (&entry["actor"], &entry["requestId"], &entry["details"]),
        (&json!({"keyId": null}), &Value::Null, &Value::Null)
    );
    let last = list("?cursor=next").await.json;
    assert_eq!((&last["items"][0]["requestId"], &last["nextCursor"]), (&json!("next"), &Value::Null));
    assert_eq!(problem(&list("?limit=0").await), (400, "invalid_request"));
}
