//! Texts and numbers that an attacker chooses.

use std::time::Duration;

use confab_tests::api::{Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::{fails, raw};
use crate::world;

const SCRIPT: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>";

#[tokio::test]
async fn texts_of_users_are_returned_as_json_only() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let new = json!({"name": format!("<b>{}</b>", unique("room")), "description": SCRIPT});
    let room = api.post("/api/rooms", &account, new.clone()).await.unwrap().expect(201).unwrap();
    let id = room["id"].as_str().unwrap();
    let sent = json!({"roomId": id, "content": SCRIPT});
    api.post("/api/messages", &account, sent).await.unwrap().expect(201).unwrap();
    let profile = json!({"displayName": "<svg onload=alert(1)>", "data": {"html": SCRIPT}});
    api.call(Method::PATCH, "/api/auth/me", Some(&account), Some(profile)).await.unwrap().expect(200).unwrap();
    for path in [format!("/api/rooms/{id}"), format!("/api/messages/{id}"), "/api/auth/me".into(), "/api/rooms".into()]
    {
        // As a browser that opens the address.
        let request = api.request(Method::GET, &path).bearer_auth(&account.token).header("accept", "text/html,*/*");
        let answer = api.send(request).await.unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let shown = api.get(&format!("/api/rooms/{id}"), &account).await.unwrap().expect(200).unwrap();
    assert_eq!((&shown["name"], &shown["description"]), (&new["name"], &new["description"]));
    // Nor does an error repeat what the client has sent as anything other than JSON.
    let answer = api.get("/api/%3Cscript%3Ealert(1)%3C%2Fscript%3E", &account).await.unwrap();
    fails(&answer, 404, "not_found");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn page_sizes_and_cursors_of_other_lists_are_rejected() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let (mark, mut rooms) = (unique("page"), Vec::new());
    for n in 0..2 {
        let new = json!({"name": format!("{mark} {n}")});
        let room = api.post("/api/rooms", &account, new).await.unwrap().expect(201).unwrap();
        rooms.push(room["id"].as_str().unwrap().to_owned());
        for _ in 0..2 {
            let message = json!({"roomId": room["id"], "content": "x"});
            api.post("/api/messages", &account, message).await.unwrap().expect(201).unwrap();
        }
    }
    let lists =
        [format!("/api/messages/{}", rooms[0]), "/api/rooms".into(), format!("/api/rooms/{}/members", rooms[0])];
    for list in &lists {
        for limit in ["1000000000", "99999999999999999999", "0", "-1", "1.5", "1e3", "NaN", "0x10", "many"] {
            let answer = api.get(&format!("{list}?limit={limit}"), &account).await.unwrap();
            assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{list} {limit}");
        }
    }
    let next = async |path: &str| {
        let page = api.get(path, &account).await.unwrap().expect(200).unwrap();
        page["nextCursor"].as_str().unwrap_or_else(|| panic!("{path}: {page}")).to_owned()
    };
    let of_rooms = next(&format!("/api/rooms?q={mark}&limit=1")).await;
    let of_messages = next(&format!("/api/messages/{}?limit=1", rooms[0])).await;
    api.get(&format!("/api/messages/{}?cursor={of_messages}", rooms[0]), &account).await.unwrap().expect(200).unwrap();
    for foreign in [
        format!("/api/messages/{}?cursor={of_rooms}", rooms[0]),
        format!("/api/messages/{}?cursor={of_messages}", rooms[1]),
        format!("/api/rooms?q={mark}&cursor={of_messages}"),
        format!("/api/rooms/{}/members?cursor={of_rooms}", rooms[0]),
        format!("/api/files?cursor={of_messages}"),
    ] {
        fails(&api.get(&foreign, &account).await.unwrap(), 400, "invalid_request");
    }
}

#[tokio::test]
async fn control_characters_of_clients_do_not_reach_the_log() {
    let server = Embedded::start(&[("CONFAB_LOG", "info")]).await.unwrap();
    let end = "\r\nConnection: close\r\n";
    // 0x9b begins an escape sequence of terminals; 0x202e reverses the direction of the text after it.
    for request in [
        format!("GET /api/first\u{9b}31m HTTP/1.1\r\nHost: localhost{end}\r\n"),
        format!("GET /api/second\u{202e}txt HTTP/1.1\r\nHost: localhost{end}\r\n"),
        format!("GET /api/third HTTP/1.1\r\nHost: localhost\u{9b}31m{end}\r\n"),
        format!("GET /api/fourth HTTP/1.1\r\nHost: localhost{end}Origin: http://evil\u{9b}31m.example\r\n\r\n"),
        format!("GET /api/fifth HTTP/1.1\r\nHost: localhost{end}X-Request-Id: a\u{9b}31m\r\n\r\n"),
        format!("GET /api/sixth%0d%0aforged%1b[31m HTTP/1.1\r\nHost: localhost{end}\r\n"),
        format!("GET /api/last HTTP/1.1\r\nHost: localhost{end}\r\n"),
    ] {
        let answer = raw(&server.url(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    let is_logged = async || std::fs::read_to_string(&server.daemon().log).ok().filter(|log| log.contains("/api/last"));
    let log = eventually("the requests are logged", Duration::from_secs(20), is_logged).await.unwrap();
    assert!(log.contains("/api/first") && log.contains("/api/second"), "{log}");
    for line in log.lines() {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!line.starts_with("forged"), "{line:?}");
    }
}

#[tokio::test]
async fn passwords_are_checked_before_they_are_hashed_and_never_cut() {
    let api = Api::new(world::embedded().await.url());
    let signup = async |username: &str, password: String| {
        let body = json!({"username": username, "password": password});
        api.call(Method::POST, "/api/auth/signup", None, Some(body)).await.unwrap()
    };
    for bad in ["x".repeat(257), "x".repeat(12_000), "short12".into(), "password123".into(), "qwertyuiop".into()] {
        let answer = signup(&unique("ada"), bad).await;
        fails(&answer, 400, "invalid_request");
        assert_eq!(answer.body["errors"][0]["field"], "password", "{}", answer.body);
    }
    // The last of 256 bytes counts.
    let (name, long) = (unique("ada"), format!("{}a", "correct ".repeat(31) + "battery"));
    assert_eq!(long.len(), 256);
    assert_eq!(signup(&name, long.clone()).await.status, 201);
    let login = async |password: String| {
        let body = json!({"username": name, "password": password});
        api.call(Method::POST, "/api/auth/login", None, Some(body)).await.unwrap()
    };
    fails(&login(format!("{}b", &long[..255])).await, 401, "invalid_credentials");
    fails(&login(long[..64].to_owned()).await, 401, "invalid_credentials");
    assert_eq!(login(long).await.expect(200).unwrap()["user"]["username"], Value::from(name.clone()));
}
