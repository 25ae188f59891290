use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Builder;
use bytes::Bytes;
use confab_common::grpc::Services;
use confab_proto::auth::v1::RecordActRequest;
use confab_proto::message::v1::{AppendRequest, AppendResponse, Outcome, Refusal, outcome};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};

use crate::rest::tests::{authorized, gateway_of, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::keys::{key, key_id};
use crate::testing::services::{self, BOB, ROOM};
use crate::testing::{Answer, fake, identity, send, send_body};

fn path(rest: &str) -> String {
    format!("/api/rooms/{ROOM}/messages{rest}")
}

async fn gateway() -> Router {
    gateway_with(&[], &Files::default()).await
}

/// A gateway with a message of the user with seq 1.
async fn gateway_with_message() -> Router {
    let routes = gateway().await;
    let sent = body(&routes, authorized(Request::post(path(""))), json!({"content": "tea"})).await;
    assert_eq!((sent.status, &sent.json["seq"], &sent.json["revision"]), (201, &json!(1), &json!(1)));
    routes
}

async fn body(routes: &Router, request: Builder, body: Value) -> Answer {
    send_body(routes, request.header("Content-Type", "application/json"), body.to_string()).await
}

async fn edit(routes: &Router, change: Value) -> Answer {
    body(routes, authorized(Request::patch(path("/1"))), change).await
}

#[tokio::test]
async fn an_edit_returns_the_message_and_its_revision() {
    let routes = gateway_with_message().await;
    let edited = edit(&routes, json!({"content": "milk", "clientMessageId": "c1"})).await;
    assert_eq!((edited.status, &edited.headers[ETAG]), (200, &"\"2\"".parse().unwrap()));
    let expected = [&edited.json["content"], &edited.json["revision"], &edited.json["editedAt"], &edited.json["seq"]];
    assert_eq!(expected, [&json!("milk"), &json!(2), &json!("1970-01-01T00:00:00.001Z"), &json!(1)]);
    // A repeat, by the field or the header, and an edit that changes nothing.
    for request in [json!({"content": "other", "clientMessageId": "c1"}), json!({"content": "milk"})] {
        let again = edit(&routes, request).await;
        assert_eq!((again.status, &again.json), (200, &edited.json));
    }
    let shown = send(&routes, authorized(Request::get(path("/1")))).await;
    assert_eq!((shown.status, &shown.headers[ETAG], &shown.json), (200, &edited.headers[ETAG], &edited.json));
}

#[tokio::test]
async fn an_edit_holds_only_for_its_revision() {
    let routes = gateway_with_message().await;
    let edit_of = async |tag: &str, content: &str| {
        let request = authorized(Request::patch(path("/1"))).header(IF_MATCH, tag);
        body(&routes, request, json!({"content": content})).await
    };
    assert_eq!(edit_of("\"1\"", "milk").await.status, 200);
    assert_eq!(problem(&edit_of("\"1\"", "sugar").await), (412, "precondition_failed"));
    assert_eq!(edit_of("\"2\"", "sugar").await.status, 200);
    let malformed = edit_of("W/\"3\"", "x").await;
    assert_eq!(
        (problem(&malformed), &malformed.json["errors"][0]["field"]),
        ((400, "invalid_request"), &json!("If-Match"))
    );
}

#[tokio::test]
async fn invalid_changes_are_rejected() {
    let routes = gateway_with_message().await;
    for (change, field) in [
        (json!({}), "content"),
        (json!({"content": null}), "content"),
        (json!({"content": 5}), "content"),
        (json!({"content": "x", "id": "y"}), "id"),
        (json!({"content": "x", "clientMessageId": ""}), "clientMessageId"),
    ] {
        let answer = edit(&routes, change).await;
        assert_eq!((problem(&answer), &answer.json["errors"][0]["field"]), ((400, "invalid_request"), &json!(field)));
    }
    let long = edit(&routes, json!({"content": "x".repeat(16_385)})).await;
    assert_eq!(problem(&long), (413, "too_large"));
    assert_eq!(problem(&send_body(&routes, authorized(Request::patch(path("/1"))), "{}").await).0, 415);
    for seq in ["0", "-1", "x", "+1", "99", "99999999999999999999"] {
        let request = |method: &str, rest: &str| {
            authorized(Request::builder().method(method).uri(path(&format!("/{seq}{rest}"))))
        };
        for (method, rest) in [("DELETE", ""), ("PUT", "/pin"), ("DELETE", "/pin"), ("GET", "/versions"), ("GET", "")] {
            let answer = send(&routes, request(method, rest)).await;
            assert_eq!((problem(&answer), &answer.json["detail"]), ((404, "not_found"), &json!("no such message")));
        }
    }
    assert_eq!(problem(&send(&routes, authorized(Request::delete(path("/1?id=x")))).await), (400, "invalid_request"));
    for request in [Request::delete(path("/1")), Request::put(path("/1/pin")), Request::get(path("/1/versions"))] {
        assert_eq!(problem(&send(&routes, request).await), (401, "unauthorized"));
    }
}

#[tokio::test]
async fn messages_are_pinned_and_deleted() {
    let routes = gateway_with_message().await;
    let call = async |method: &str, rest: &str| {
        send(&routes, authorized(Request::builder().method(method).uri(path(rest)))).await
    };
    let pinned = call("PUT", "/1/pin").await;
    assert_eq!(
        (pinned.status, &pinned.json["pinned"], &pinned.headers[ETAG]),
        (200, &json!(true), &"\"2\"".parse().unwrap())
    );
    assert_eq!(call("PUT", "/1/pin").await.json, pinned.json);
    let pins = send(&routes, authorized(Request::get(format!("/api/rooms/{ROOM}/pins")))).await.json;
    assert_eq!(pins, json!({"items": [pinned.json], "lastSeq": 2, "epoch": "e"}));
    assert_eq!(call("DELETE", "/1/pin").await.json["pinned"], false);
    let versions = call("GET", "/1/versions").await.json;
    let by = json!({"id": identity().user.id, "username": identity().user.username});
    let at = "1970-01-01T00:00:00.000Z";
    assert_eq!(versions, json!({"items": [{"revision": 1, "content": "tea", "at": at, "by": by}]}));

    let deleted = call("DELETE", "/1").await;
    assert_eq!((deleted.status, &deleted.json["deleted"], &deleted.json["deletedBy"]), (200, &json!(true), &by));
    assert_eq!((&deleted.json["content"], &deleted.json["revision"]), (&json!(""), &json!(4)));
    assert_eq!(call("DELETE", "/1").await.json, deleted.json);
}

#[tokio::test]
async fn every_number_is_listed_on_request() {
    let routes = gateway_with_message().await;
    edit(&routes, json!({"content": "milk"})).await;
    for list in [path(""), format!("/api/messages/{ROOM}")] {
        let page = send(&routes, authorized(Request::get(format!("{list}?events=true")))).await.json;
        let items = page["items"].as_array().unwrap();
        let kinds = items.iter().map(|item| (item["seq"].as_u64(), item["type"].as_str())).collect::<Vec<_>>();
        assert_eq!(kinds, [(Some(1), Some("message")), (Some(2), Some("change"))]);
        assert_eq!((&items[1]["op"], &items[1]["target"]), (&json!("edit"), &json!(1)));
        assert_eq!((&page["lastSeq"], &page["epoch"]), (&json!(2), &json!("e")));
        let page = send(&routes, authorized(Request::get(list))).await.json;
        assert_eq!((page["items"].as_array().map(Vec::len), &page["lastSeq"]), (Some(1), &json!(2)));
    }
    let changes = format!("/api/rooms/{ROOM}/changes");
    let page = send(&routes, authorized(Request::get(format!("{changes}?after=1&from=1&upTo=9")))).await.json;
    assert_eq!((&page["items"][0]["content"], &page["lastSeq"]), (&json!("milk"), &json!(2)));
    let cursor = page["nextCursor"].as_str().unwrap();
    let next = send(&routes, authorized(Request::get(format!("{changes}?cursor={cursor}")))).await.json;
    assert_eq!(next["items"], json!([]));
    for query in ["", "after=-1", "after=1&from=0", "after=1&upTo=0", "after=1&cursor=x", "cursor=x", "limit=0&after=1"]
    {
        let answer = send(&routes, authorized(Request::get(format!("{changes}?{query}")))).await;
        assert_eq!(problem(&answer), (400, "invalid_request"), "{query}");
    }
    for query in ["around=0", "around=1&after=1", "events=1"] {
        let answer = send(&routes, authorized(Request::get(path(&format!("?{query}"))))).await;
        assert_eq!(problem(&answer), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn a_key_without_a_user_deletes_and_pins_and_its_acts_are_recorded_first() {
    let acts = Arc::<Mutex<Vec<(String, Value)>>>::default();
    let (recorded, log) = (acts.clone(), acts.clone());
    let auth = fake(move |method: &str, body: Bytes| {
        if method == "RecordAct" {
            let act = RecordActRequest::decode(body.clone()).unwrap();
            recorded.lock().push((act.act, serde_json::from_str(&act.details).unwrap_or_default()));
        }
        services::auth(method, body)
    });
    let messages = services::message();
    let message = fake(move |method: &str, body: Bytes| {
        if method == "Append" {
            for event in AppendRequest::decode(body.clone()).unwrap().events {
                let moderator = event.change.is_some_and(|change| change.moderator);
                log.lock().push(("append".into(), json!([moderator, event.sender.unwrap().username])));
            }
        }
        messages(method, body)
    });
    let (room, file) = (fake(services::room), Files::default().transport());
    let routes = gateway_of(&[], Services { auth, room, message, file }).await;
    body(&routes, authorized(Request::post(path(""))), json!({"content": "tea"})).await;
    acts.lock().clear();
    let by_key = |request: Builder| request.header("Authorization", format!("Bearer {}", key("messages")));
    assert_eq!(send(&routes, by_key(Request::put(path("/1/pin")))).await.status, 200);
    let deleted = send(&routes, by_key(Request::delete(path("/1")))).await;
    let system = json!({"id": key_id("messages"), "username": "system"});
    assert_eq!((deleted.status, &deleted.json["deletedBy"]), (200, &system));
    let (append, seq) = (("append".to_owned(), json!([true, "system"])), json!({"seq": 1}));
    let expected = [("message.pin".to_owned(), seq.clone()), append.clone(), ("message.delete".into(), seq), append];
    assert_eq!(*acts.lock(), expected);
    // An edit needs an author; a user on whose behalf the key acts has the rights of that user.
    let edit = body(&routes, by_key(Request::patch(path("/1"))), json!({"content": "x"})).await;
    assert_eq!((problem(&edit), &edit.json["errors"][0]["field"]), ((400, "invalid_request"), &json!("Confab-User")));
    let as_bob = by_key(Request::delete(path("/1"))).header("Confab-User", BOB);
    assert_eq!(problem(&send(&routes, as_bob).await), (403, "forbidden"));
    let other = Request::delete(path("/1")).header("Authorization", format!("Bearer {}", key("rooms")));
    assert_eq!(problem(&send(&routes, other).await), (403, "forbidden"));
}

#[tokio::test]
async fn changes_wait_for_the_upgrade_of_the_log() {
    let message = fake(|method: &str, body: Bytes| match method {
        "Append" => {
            let detail = "the log is being upgraded; changes come later".into();
            let refusal = outcome::Result::Refusal(Refusal { code: "unavailable".into(), detail });
            let outcomes = vec![Outcome { result: Some(refusal), duplicate: false }];
            Ok(AppendResponse { epoch: "e".into(), outcomes }.encode_to_vec())
        }
        _ => services::message()(method, body),
    });
    let (auth, room, file) = (fake(services::auth), fake(services::room), Files::default().transport());
    let routes = gateway_of(&[], Services { auth, room, message, file }).await;
    let by_key = Request::delete(path("/1")).header("Authorization", format!("Bearer {}", key("messages")));
    for request in [authorized(Request::delete(path("/1"))), by_key] {
        let answer = send(&routes, request).await;
        assert_eq!((problem(&answer), &answer.headers["retry-after"]), ((503, "unavailable"), &"30".parse().unwrap()));
    }
}
