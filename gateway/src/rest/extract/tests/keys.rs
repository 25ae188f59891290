//! Server keys on the routes of users.

use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use axum::http::request::Builder;
use bytes::Bytes;
use confab_common::grpc::Services;
use confab_common::{Code, Error};
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1::*;
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;

use crate::rest::tests::{authorized, gateway_of, gateway_with, problem};
use crate::testing::files::Files;
use crate::testing::keys::{MALLORY, Recorder, key, key_id};
use crate::testing::services::{self, BOB, ROOM};
use crate::testing::{Answer, fake, identity, send, send_body};

fn with(key: &str, request: Builder) -> Builder {
    request.header("Authorization", format!("Bearer {key}"))
}

async fn gateway() -> Router {
    gateway_with(&[], &Files::default()).await
}

/// The callers of the changes of rooms and members, and whether they are moderators.
type Callers = Arc<Mutex<Vec<(UserRef, bool)>>>;

/// A gateway whose auth service uses this recorder, and the callers that its room service has received.
async fn recorded(recorder: Arc<Recorder>) -> (Router, Callers) {
    let callers = Callers::default();
    let received = callers.clone();
    let room = move |method: &str, body: Bytes| {
        let moderated = match method {
            "UpdateRoom" => UpdateRoomRequest::decode(body.clone()).map(|ask| (ask.caller, ask.moderator)),
            "DeleteRoom" => DeleteRoomRequest::decode(body.clone()).map(|ask| (ask.caller, ask.moderator)),
            "SetMember" => SetMemberRequest::decode(body.clone()).map(|ask| (ask.caller, ask.moderator)),
            "RemoveMember" => RemoveMemberRequest::decode(body.clone()).map(|ask| (ask.caller, ask.moderator)),
            "GetRoom" => GetRoomRequest::decode(body.clone()).map(|ask| (ask.caller, ask.moderator)),
            _ => return services::room(method, body),
        };
        let (caller, moderator) = moderated.unwrap();
        received.lock().extend(caller.map(|caller| (caller, moderator)));
        services::room(method, body)
    };
    let auth = fake(move |method, body| match recorder.answer(method, &body) {
        Some(answer) => answer,
        None => services::auth(method, body),
    });
    let (message, file) = (fake(services::message()), Files::default().transport());
    (gateway_of(&[], Services { auth, room: fake(room), message, file }).await, callers)
}

async fn post(routes: &Router, request: Builder, body: serde_json::Value) -> Answer {
    send_body(routes, request.header("Content-Type", "application/json"), body.to_string()).await
}

#[tokio::test]
async fn a_wrong_key_gets_the_response_of_a_wrong_token() {
    let routes = gateway().await;
    let detail = async |token: &str| {
        let answer = send(&routes, with(token, Request::get("/api/rooms"))).await;
        assert_eq!(problem(&answer), (401, "unauthorized"), "{token}");
        answer.json["detail"].as_str().unwrap().to_owned()
    };
    let right = key("rooms");
    let of_token = detail("eyJ.x.y").await;
    let unknown = right.replace("e04_", "e0f_");
    for wrong in [&*right.replace("AAAA", "AAAB"), &*unknown, "cfk_", &right[..right.len() - 1], &right.to_uppercase()]
    {
        assert_eq!(detail(wrong).await, of_token, "{wrong}");
    }
    assert_eq!(send(&routes, with(&right, Request::get("/api/rooms"))).await.status, 200);
    let wrong_secret = right.replacen("_A", "_B", 1);
    assert_eq!(detail(&wrong_secret).await, of_token, "also while the key is cached");
}

#[tokio::test]
async fn a_web_page_cannot_use_a_key() {
    let routes = gateway().await;
    for origin in ["http://localhost:3000", "null"] {
        let request = with(&key("rooms"), Request::get("/api/rooms")).header("Origin", origin);
        assert_eq!(problem(&send(&routes, request).await), (401, "unauthorized"));
        let request = authorized(Request::get("/api/rooms")).header("Origin", origin);
        assert_eq!(send(&routes, request).await.status, 200);
    }
}

#[tokio::test]
async fn wrong_keys_are_limited_by_address() {
    let routes = gateway_with(&["--limit-login", "3,1/h"], &Files::default()).await;
    let right = key("rooms");
    assert_eq!(send(&routes, with(&right, Request::get("/api/rooms"))).await.status, 200);
    let wrong = right.replacen("_A", "_B", 1);
    for expected in [401, 401, 401, 429, 429] {
        assert_eq!(send(&routes, with(&wrong, Request::get("/api/rooms"))).await.status, expected);
    }
    let known = send(&routes, with(&right, Request::get("/api/rooms"))).await;
    assert_eq!(known.status, 200, "a key that was verified before needs no attempt");
}

#[tokio::test]
async fn each_route_needs_its_scope() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let file = format!("/api/files/{}", files.put("a.txt", "text/plain", "some text"));
    for (scope, other, path) in [
        ("rooms", "messages", "/api/rooms"),
        ("rooms", "messages", &format!("/api/rooms/{ROOM}")),
        ("rooms", "messages", &format!("/api/rooms/{ROOM}/members")),
        ("messages", "rooms", &format!("/api/messages/{ROOM}")),
        ("messages", "rooms", &format!("/api/files?roomId={ROOM}")),
        ("messages", "rooms", &file),
    ] {
        for user in [None, Some(BOB)] {
            let get = |scope: &str| {
                let request = with(&key(scope), Request::get(path));
                user.into_iter().fold(request, |request, user| request.header("Confab-User", user))
            };
            assert_eq!(send(&routes, get(scope)).await.status, 200, "{path}");
            assert_eq!(problem(&send(&routes, get(other)).await), (403, "forbidden"), "{path}");
        }
    }
    for path in ["/api/auth/me", "/api/auth/sessions", "/api/auth/logout"] {
        let request = with(&key("rooms messages"), Request::get(path)).header("Confab-User", BOB);
        assert_eq!(problem(&send(&routes, request).await), (401, "unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn messages_of_a_room_need_their_scope() {
    let routes = gateway().await;
    let send_one = with(&key("messages"), Request::post("/api/messages")).header("Confab-User", BOB);
    let sent = post(&routes, send_one, json!({"roomId": ROOM, "content": "hi"})).await;
    assert_eq!((sent.status, &sent.json["sender"]), (201, &json!({"id": BOB, "username": "bob"})));
    // The scripted log ignores the limit, so only the answer of the real one is empty: see the end-to-end test.
    let shown = send(&routes, with(&key("rooms messages"), Request::get(format!("/api/rooms/{ROOM}")))).await.json;
    assert_eq!(
        (&shown["messages"]["items"][0]["content"], &shown["can"]),
        (&json!("hi"), &json!(["invite", "manage"]))
    );
}

#[tokio::test]
async fn the_user_must_exist_and_not_be_suspended() {
    let routes = gateway().await;
    let get = |user: &str| with(&key("rooms"), Request::get("/api/rooms")).header("Confab-User", user);
    assert_eq!(send(&routes, get(BOB)).await.status, 200);
    for unknown in ["0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", "x", "@bob", "me"] {
        assert_eq!(problem(&send(&routes, get(unknown)).await), (404, "not_found"), "{unknown}");
    }
    assert_eq!(problem(&send(&routes, get(MALLORY)).await), (403, "forbidden"));
    assert_eq!(problem(&send(&routes, get(BOB).header("Confab-User", BOB)).await), (400, "invalid_request"));
    // The header has no meaning beside a token, so it cannot be ignored by mistake.
    let of_token = authorized(Request::get("/api/rooms")).header("Confab-User", BOB);
    assert_eq!(problem(&send(&routes, of_token).await), (400, "invalid_request"));
}

#[tokio::test]
async fn what_needs_an_author_needs_a_user() {
    let routes = gateway().await;
    let both = key("rooms messages");
    for request in [
        Request::post("/api/rooms"),
        Request::put(format!("/api/rooms/{ROOM}/members/me")),
        Request::delete(format!("/api/rooms/{ROOM}/members/me")),
        Request::post("/api/messages"),
        Request::post("/api/files/upload"),
        Request::get("/api/files"),
        Request::get("/api/rooms?mine=true"),
        Request::get(format!("/api/files/{BOB}/link")),
    ] {
        let answer = post(&routes, with(&both, request), json!({"name": "Tea", "roomId": ROOM, "content": "x"})).await;
        assert_eq!(problem(&answer), (400, "invalid_request"));
        assert_eq!(answer.json["errors"][0]["field"], "Confab-User");
    }
}

#[tokio::test]
async fn a_key_without_a_user_moderates_and_is_recorded() {
    let recorder = Arc::<Recorder>::default();
    let (routes, callers) = recorded(recorder.clone()).await;
    let acts = || {
        let room = format!("/api/rooms/{ROOM}");
        let member = format!("{room}/members/{BOB}");
        [
            ("room.change", Request::patch(&room), 200),
            ("member.set", Request::put(&member), 201),
            ("member.remove", Request::delete(&member), 204),
            // The scripted room service rejects it.
            ("room.delete", Request::delete(&room), 403),
        ]
    };
    let moderator = UserRef { id: key_id("rooms").to_string(), username: "system".into() };
    for (act, request, status) in acts() {
        let answer = post(&routes, with(&key("rooms"), request), json!({"name": "Coffee", "role": "admin"})).await;
        assert_eq!(answer.status, status, "{act}");
        let recorded = recorder.take();
        assert_eq!(recorded.iter().map(|(act, _)| act.as_str()).collect::<Vec<_>>(), [act]);
        assert_eq!(std::mem::take(&mut *callers.lock()), [(moderator.clone(), true)], "{act}");
    }
    // On behalf of a user, a key has the rights of the user; that is recorded once.
    for (act, request, status) in acts() {
        let request = with(&key("rooms"), request).header("Confab-User", BOB);
        assert_eq!(post(&routes, request, json!({"name": "Coffee"})).await.status, status, "{act}");
        let caller = UserRef { id: BOB.into(), username: "bob".into() };
        assert_eq!(std::mem::take(&mut *callers.lock()), [(caller, false)], "{act}");
    }
    let recorded = recorder.take();
    // A new hour may begin during the test.
    assert!((1..=2).contains(&recorded.len()) && recorded[0].0 == "act_as", "{recorded:?}");
    // Reads and users' own acts are not recorded.
    send(&routes, with(&key("rooms"), Request::get(format!("/api/rooms/{ROOM}")))).await;
    post(&routes, authorized(Request::patch(format!("/api/rooms/{ROOM}"))), json!({"name": "Tea"})).await;
    assert_eq!(*callers.lock(), [(moderator, true), (identity().user, false)]);
    assert_eq!(recorder.take(), []);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let (routes, callers) = recorded(Arc::new(Recorder::down())).await;
    let room = format!("/api/rooms/{ROOM}");
    let delete = with(&key("rooms"), Request::delete(&room));
    assert_eq!(problem(&send(&routes, delete).await), (503, "unavailable"));
    let acting = with(&key("rooms"), Request::get(&room)).header("Confab-User", BOB);
    assert_eq!(problem(&send(&routes, acting).await), (503, "unavailable"));
    assert_eq!(*callers.lock(), []);
    assert_eq!(send(&routes, with(&key("rooms"), Request::get("/api/rooms"))).await.status, 200);
}

#[tokio::test]
async fn without_the_auth_service_an_unknown_key_is_unavailable() {
    let auth = fake(|method, body| match method {
        "GetKey" => Err(Error::new(Code::Unavailable, "the database")),
        _ => services::auth(method, body),
    });
    let (room, message, file) = (fake(services::room), fake(services::message()), Files::default().transport());
    let routes = gateway_of(&[], Services { auth, room, message, file }).await;
    let answer = send(&routes, with(&key("rooms"), Request::get("/api/rooms"))).await;
    assert_eq!(problem(&answer), (503, "unavailable"));
}
