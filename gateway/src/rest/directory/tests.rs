//! The directory of users, over scripted services.

use std::convert::Infallible;

use axum::Router;
use axum::http::Request;
use axum::http::request::Builder;
use bytes::Bytes;
use confab_common::Error;
use confab_common::grpc::{Services, Transport, in_process};
use confab_proto::auth::v1::*;
use confab_proto::room::v1::{FilterAcquaintancesRequest, FilterAcquaintancesResponse};
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;
use tower::service_fn;
use uuid::Uuid;

use crate::rest::tests::{authorized, gateway_of, problem};
use crate::testing::files::Files;
use crate::testing::keys::{MALLORY, key};
use crate::testing::services::{self, BOB};
use crate::testing::{Answer, fake, identity, send};

/// The users that a search finds: their ids are 1000, 1001, and so on.
const FOUND: u128 = 1300;
const FIRST: u128 = 1000;
/// A deleted user.
const GONE: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0dea";
const UNKNOWN: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02";

fn id(n: u128) -> String {
    Uuid::from_u128(FIRST + n).to_string()
}

/// A user that the scripted auth service has, in any state.
fn user(id: &str) -> Option<User> {
    let n = id.parse::<Uuid>().unwrap().as_u128();
    let (username, state) = match id {
        BOB => ("bob".to_owned(), AccountState::Active),
        MALLORY => ("mallory".into(), AccountState::Suspended),
        GONE => ("deleted".into(), AccountState::Deleted),
        _ if n == identity().user_id.as_u128() => ("zoë".into(), AccountState::Unspecified),
        _ if (FIRST..FIRST + FOUND).contains(&n) => (format!("user{:04}", n - FIRST), AccountState::Active),
        _ => return None,
    };
    Some(User { id: id.into(), username, state: state.into(), ..User::default() })
}

fn auth(method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
    match method {
        "GetUser" => {
            let asked = GetUserRequest::decode(body).unwrap();
            let found = if asked.username == "bob" {
                user(BOB)
            } else {
                asked.id.parse::<Uuid>().ok().and_then(|_| user(&asked.id))
            };
            found.map(|user| user.encode_to_vec()).ok_or_else(|| Error::not_found("user"))
        }
        "GetUsers" => {
            let ids = GetUsersRequest::decode(body).unwrap().ids;
            let active = |user: &User| matches!(user.state(), AccountState::Active | AccountState::Unspecified);
            let users = ids.iter().filter_map(|id| user(id)).filter(active).collect();
            Ok(GetUsersResponse { users }.encode_to_vec())
        }
        "SearchUsers" => {
            let SearchUsersRequest { query, limit, cursor } = SearchUsersRequest::decode(body).unwrap();
            if query.len() < 2 {
                return Err(Error::field("q", "must be 2 to 80 characters"));
            }
            let begin = cursor.parse::<u128>().unwrap_or(0);
            let end = FOUND.min(begin + u128::from(limit));
            let users = (begin..end).map(|n| FoundUser { user: user(&id(n)), cursor: (n + 1).to_string() }).collect();
            let next_cursor = if end < FOUND { end.to_string() } else { String::new() };
            Ok(SearchUsersResponse { users, next_cursor }.encode_to_vec())
        }
        _ => services::auth(method, body),
    }
}

/// A room service in which `zoë` shares rooms with the first 5 users and with every 300th one, and `bob` with no user.
fn room(method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
    if method != "FilterAcquaintances" {
        return services::room(method, body);
    }
    let FilterAcquaintancesRequest { user_id, other_ids } = FilterAcquaintancesRequest::decode(body).unwrap();
    assert!(other_ids.len() <= 200);
    let is_shared = |other: &String| {
        let n = other.parse::<Uuid>().unwrap().as_u128().wrapping_sub(FIRST);
        n < FOUND && (n < 5 || n % 300 == 299) && user_id == identity().user.id
    };
    let other_ids = other_ids.into_iter().filter(is_shared).collect();
    Ok(FilterAcquaintancesResponse { other_ids }.encode_to_vec())
}

async fn gateway_over(settings: &[&str], room: Transport) -> Router {
    let (message, file) = (fake(services::message()), Files::default().transport());
    gateway_of(settings, Services { auth: fake(auth), room, message, file }).await
}

async fn gateway(settings: &[&str]) -> Router {
    gateway_over(settings, fake(room)).await
}

async fn get(routes: &Router, path: &str) -> Answer {
    send(routes, authorized(Request::get(path))).await
}

fn by_key(scopes: &str, path: &str) -> Builder {
    Request::get(path).header("Authorization", format!("Bearer {}", key(scopes)))
}

/// The numbers in the names of the users on a page.
fn numbers(page: &Answer) -> Vec<u128> {
    let number = |item: &Value| item["username"].as_str().unwrap()["user".len()..].parse().unwrap();
    assert_eq!(page.status, 200, "{}", page.json);
    page.json["items"].as_array().unwrap().iter().map(number).collect()
}

fn profile(id: &str, username: &str) -> Value {
    json!({"id": id, "username": username, "displayName": null, "avatarUrl": null})
}

#[tokio::test]
async fn the_directory_needs_a_token() {
    let routes = gateway(&["--anonymous-read", "true"]).await;
    for path in ["/api/users?q=user", &format!("/api/users?ids={BOB}"), &format!("/api/users/{BOB}")] {
        assert_eq!(problem(&send(&routes, Request::get(path)).await), (401, "unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn a_user_is_found_by_id_name_or_me() {
    let me = identity().user;
    for mode in ["all", "shared"] {
        let routes = gateway(&["--user-directory", mode]).await;
        for path in [id(3), me.id.clone(), "me".into()] {
            let shown = get(&routes, &format!("/api/users/{path}")).await;
            let expected = if path == id(3) { profile(&path, "user0003") } else { profile(&me.id, "zoë") };
            assert_eq!((shown.status, shown.json), (200, expected), "{path}");
        }
        let mut answers = Vec::new();
        for path in [UNKNOWN, MALLORY, GONE, "x", "@", "@carol"] {
            let mut missing = get(&routes, &format!("/api/users/{path}")).await;
            assert_eq!(
                (problem(&missing), &missing.json["detail"]),
                ((404, "not_found"), &json!("no such user")),
                "{path}"
            );
            missing.json["requestId"] = Value::Null;
            answers.push(missing.json);
        }
        for path in [BOB.to_owned(), "@bob".into(), id(7)] {
            let mut shown = get(&routes, &format!("/api/users/{path}")).await;
            if mode == "all" {
                assert_eq!(shown.status, 200, "{path}");
                continue;
            }
            assert_eq!(problem(&shown), (404, "not_found"), "{path}");
            shown.json["requestId"] = Value::Null;
            assert_eq!(shown.json, answers[0], "a hidden user has the response of an unknown one");
        }
    }
}

#[tokio::test]
async fn users_are_listed_by_their_ids() {
    let (all, shared) = (gateway(&[]).await, gateway(&["--user-directory", "shared"]).await);
    let ids = [id(4), UNKNOWN.into(), BOB.into(), MALLORY.into(), GONE.into(), id(1), id(7)].join(",");
    let path = format!("/api/users?ids={ids}");
    let found = get(&all, &path).await;
    let expected =
        [profile(&id(4), "user0004"), profile(BOB, "bob"), profile(&id(1), "user0001"), profile(&id(7), "user0007")];
    assert_eq!((found.status, &found.json), (200, &json!({"items": expected, "nextCursor": null})));
    assert_eq!(numbers(&get(&shared, &path).await), [4, 1]);
    let me = get(&shared, &format!("/api/users?ids={}", identity().user.id)).await;
    assert_eq!(me.json["items"], json!([profile(&identity().user.id, "zoë")]));
    let many = |count: u128| (0..count).map(id).collect::<Vec<_>>().join(",");
    assert_eq!(numbers(&get(&all, &format!("/api/users?ids={}", many(100))).await).len(), 100);
    for ids in ["", ",", "x", "me", &format!("{BOB},"), &format!("{BOB} "), &many(101)] {
        let rejected = get(&all, &format!("/api/users?ids={}", ids.replace(' ', "%20"))).await;
        let field = &rejected.json["errors"][0]["field"];
        assert_eq!((problem(&rejected), field), ((400, "invalid_request"), &json!("ids")), "{ids}");
    }
}

#[tokio::test]
async fn invalid_searches_are_rejected() {
    let routes = gateway(&[]).await;
    for (query, field) in [
        ("", "q"),
        ("?q=", "q"),
        ("?q=a", "q"),
        (&format!("?q=ab&ids={BOB}"), "ids"),
        ("?q=ab&limit=0", "limit"),
        ("?q=ab&limit=201", "limit"),
        ("?q=ab&cursor=", "cursor"),
        ("?q=ab&q=ac", "q"),
    ] {
        let rejected = get(&routes, &format!("/api/users{query}")).await;
        let named = &rejected.json["errors"][0]["field"];
        assert_eq!((problem(&rejected), named), ((400, "invalid_request"), &json!(field)), "{query}");
    }
}

/// Reads all pages of a search.
async fn pages(routes: &Router, limit: u32) -> Vec<Vec<u128>> {
    let (mut pages, mut path) = (Vec::new(), format!("/api/users?q=user&limit={limit}"));
    loop {
        let page = get(routes, &path).await;
        pages.push(numbers(&page));
        assert!(pages.len() <= FOUND as usize);
        match page.json["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/users?q=user&limit={limit}&cursor={cursor}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn a_search_lists_every_visible_user_once() {
    let routes = gateway(&[]).await;
    let all = pages(&routes, 200).await;
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [200, 200, 200, 200, 200, 200, 100]);
    assert_eq!(all.concat(), (0..FOUND).collect::<Vec<_>>());
    let shared = gateway(&["--user-directory", "shared"]).await;
    // A page ends after 1000 users that the caller may not see.
    let pages_of: [(u32, Vec<Vec<u128>>); 3] = [
        (200, vec![vec![0, 1, 2, 3, 4, 299, 599, 899], vec![1199]]),
        (2, vec![vec![0, 1], vec![2, 3], vec![4, 299], vec![599, 899], vec![1199]]),
        (5, vec![vec![0, 1, 2, 3, 4], vec![299, 599, 899, 1199], vec![]]),
    ];
    for (limit, expected) in pages_of {
        assert_eq!(pages(&shared, limit).await, expected, "{limit}");
    }
}

#[tokio::test]
async fn a_key_needs_the_scope_and_alone_finds_all_users() {
    let routes = gateway(&["--user-directory", "shared"]).await;
    for path in ["/api/users?q=user".to_owned(), format!("/api/users?ids={}", id(7)), format!("/api/users/{}", id(7))] {
        let found = send(&routes, by_key("users", &path)).await;
        assert_eq!(found.status, 200, "{path}");
        if path.contains('?') {
            assert!(numbers(&found).contains(&7), "{path}");
        }
        let without_scope = send(&routes, by_key("rooms messages", &path)).await;
        assert_eq!(problem(&without_scope), (403, "forbidden"), "{path}");
        // With the rights of a user who shares no room.
        let of_user = send(&routes, by_key("users", &path).header("Confab-User", BOB)).await;
        if path.contains('?') {
            assert_eq!(numbers(&of_user), [0; 0], "{path}");
        } else {
            assert_eq!(problem(&of_user), (404, "not_found"));
        }
    }
    let me = send(&routes, by_key("users", "/api/users/me")).await;
    assert_eq!((problem(&me), &me.json["errors"][0]["field"]), ((400, "invalid_request"), &json!("Confab-User")));
    let me = send(&routes, by_key("users", "/api/users/me").header("Confab-User", BOB)).await;
    assert_eq!(me.json, profile(BOB, "bob"));
}

#[tokio::test]
async fn every_form_of_a_look_up_counts() {
    let routes = gateway(&["--limit-user-directory", "4,1/h"]).await;
    let paths = [
        "/api/users?q=user".to_owned(),
        format!("/api/users?ids={BOB}"),
        format!("/api/users/{BOB}"),
        "/api/users/@bob".into(),
    ];
    for (path, left) in paths.iter().zip([3, 2, 1, 0]) {
        let found = get(&routes, path).await;
        assert_eq!(found.status, 200, "{path}");
        let state = found.headers["ratelimit"].to_str().unwrap();
        assert!(state.starts_with(&format!("\"user_directory\";r={left};")), "{path}: {state}");
        assert_eq!(found.headers["ratelimit-policy"], "\"user_directory\";q=4;w=14400");
    }
    for path in &paths {
        let rejected = get(&routes, path).await;
        assert_eq!(problem(&rejected), (429, "rate_limited"), "{path}");
        assert!(rejected.headers.contains_key("retry-after"), "{path}");
        let unlimited = send(&routes, by_key("users", path)).await;
        assert_eq!((unlimited.status, unlimited.headers.contains_key("ratelimit")), (200, false), "{path}");
    }
}

#[tokio::test]
async fn a_room_service_of_the_previous_release_makes_the_directory_unavailable() {
    let older = in_process(service_fn(|_: http::Request<tonic::body::Body>| async {
        Ok::<_, Infallible>(Status::unimplemented("unknown method").into_http::<tonic::body::Body>())
    }));
    let routes = gateway_over(&["--user-directory", "shared"], older).await;
    for path in ["/api/users?q=user".to_owned(), format!("/api/users?ids={BOB}"), format!("/api/users/{BOB}")] {
        assert_eq!(problem(&get(&routes, &path).await), (503, "unavailable"), "{path}");
    }
}
