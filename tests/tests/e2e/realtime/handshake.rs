//! The handshake: the protocol's error codes, the open packet, heartbeats, origins.

use std::time::{Duration, Instant};

use confab_tests::api::Api;
use confab_tests::raw::{Client, Polling, Refused, WebSocket};
use reqwest::Method;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, hasty};
use crate::world;

fn error(code: u64, message: &str) -> Value {
    json!({"code": code, "message": message})
}

#[tokio::test]
async fn wrong_handshake_gets_the_protocol_error() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let api = Api::new(server.url());
    let (transport, sid) = (error(0, "Transport unknown"), error(1, "Session ID unknown"));
    let (method, bad, version) =
        (error(2, "Bad handshake method"), error(3, "Bad request"), error(5, "Unsupported protocol version"));
    let cases = [
        (Method::GET, "EIO=3&transport=polling", &version),
        (Method::GET, "transport=polling", &version),
        (Method::GET, "EIO=four&transport=polling", &version),
        (Method::GET, "EIO=4", &transport),
        (Method::GET, "", &transport),
        (Method::GET, "EIO=4&transport=webtransport", &transport),
        (Method::GET, "EIO=4&transport=polling&sid=unknown", &sid),
        (Method::POST, "EIO=4&transport=polling&sid=", &method),
        (Method::POST, "EIO=4&transport=polling", &method),
        (Method::PUT, "EIO=4&transport=polling", &method),
        (Method::DELETE, "EIO=4&transport=polling", &method),
        (Method::POST, "EIO=4&transport=websocket", &method),
        (Method::GET, "EIO=4&transport=websocket", &bad),
        // The first of two equal parameters counts.
        (Method::GET, "EIO=4&transport=websocket&transport=polling", &bad),
        (Method::GET, "EIO=3&EIO=4&transport=polling", &version),
    ];
    for (method, query, expected) in cases {
        let answer = api.send(api.request(method.clone(), &format!("/socket.io/?{query}"))).await.unwrap();
        assert_eq!((answer.status, &answer.body), (400, expected), "{method} {query}");
    }
    let session = Polling::open(&server.url()).await.unwrap();
    let answer = session.request(Method::PUT).send().await.unwrap();
    assert_eq!((answer.status(), answer.json::<Value>().await.unwrap()), (reqwest::StatusCode::BAD_REQUEST, method));

    let refused = async |query: &str, headers: &[(&str, &str)]| {
        let Err(Refused(status, body)) = WebSocket::attempt_bare(&server.url(), query, headers).await.unwrap() else {
            panic!("{query} {headers:?} was taken");
        };
        (status, body)
    };
    let (key, upgrade) = (("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Upgrade", "websocket"));
    let (connection, thirteen) = (("Connection", "keep-alive, Upgrade"), ("Sec-WebSocket-Version", "13"));
    let query = "EIO=4&transport=websocket";
    for headers in [
        vec![upgrade, connection, thirteen],
        vec![key, connection, thirteen],
        vec![key, upgrade, thirteen],
        vec![key, upgrade, connection],
        vec![key, upgrade, connection, ("Sec-WebSocket-Version", "8")],
    ] {
        assert_eq!(refused(query, &headers).await, (400, bad.clone()), "{headers:?}");
    }
    let headers = [key, upgrade, connection, thirteen];
    assert_eq!(refused("EIO=4&transport=websocket&sid=unknown", &headers).await, (400, sid));
    assert_eq!(refused("EIO=3&transport=websocket", &headers).await, (400, version));
    assert!(WebSocket::attempt_bare(&server.url(), query, &headers).await.unwrap().is_ok());
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn open_packet_contains_the_settings() {
    let open = WebSocket::open(&world::embedded().await.url()).await.unwrap().open;
    let sid = open["sid"].as_str().unwrap();
    let expected =
        json!({"sid": sid, "upgrades": [], "pingInterval": 25_000, "pingTimeout": 20_000, "maxPayload": 1_114_112});
    assert_eq!(open, expected);
    assert!(sid.len() >= 20);
    let open = Polling::open(&hasty().await.url()).await.unwrap().open;
    let sid = open["sid"].as_str().unwrap();
    let expected = json!({"sid": sid, "upgrades": ["websocket"], "pingInterval": 500, "pingTimeout": 4000, "maxPayload": 1_114_112});
    assert_eq!(open, expected);
}

#[tokio::test]
async fn socket_without_pongs_is_closed() {
    let server = hasty().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::at(server).await.unwrap();
    let (mut good, mut dead) = (scene.socket().await.unwrap(), scene.socket().await.unwrap());
    let mut polling = Polling::connect(&server.url(), &scene.account.token).await.unwrap();
    dead.pongs = false;
    let ending = tokio::spawn(async move {
        let began = Instant::now();
        dead.closed(CLOSE_LIMIT).await.map(|_| began.elapsed())
    });
    // Longer than the lifetime of a socket without pongs.
    while polling.pings < 10 {
        polling.poll().await.unwrap();
        assert_eq!(good.emit("leaveRoom", json!(scene.room)).await.unwrap(), json!({"ok": true}));
    }
    assert!(good.pings >= 9, "only {} pings", good.pings);
    // Not before the time limit for the pong.
    let lived = ending.await.unwrap().unwrap();
    assert!(lived > Duration::from_secs(4), "{lived:?}");
    // The server answers a client's ping as well.
    good.send("2probe").await.unwrap();
    assert_eq!(good.receive().await.unwrap(), "3probe");
    good.write(&confab_tests::raw::frame(0x89, b"protocol")).await.unwrap();
    assert_eq!(good.emit("leaveRoom", json!(scene.room)).await.unwrap(), json!({"ok": true}));
    assert_eq!(good.protocol_pongs, 1);
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn abandoned_polling_session_is_closed() {
    let server = hasty().await;
    let scene = Scene::at(server).await.unwrap();
    let client = Polling::connect(&server.url(), &scene.account.token).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500 + 4000)).await;
    let gone = async || match client.get().await {
        Ok((400, body)) => Some(body),
        _ => None,
    };
    let body = confab_tests::wait::eventually("the session is unknown", CLOSE_LIMIT, gone).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), error(1, "Session ID unknown"));
}

#[tokio::test]
async fn session_without_connect_is_closed() {
    let server = hasty().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let mut idle = WebSocket::open(&server.url()).await.unwrap();
    // Neither other packets nor another namespace count as CONNECT.
    let mut elsewhere = WebSocket::open(&server.url()).await.unwrap();
    elsewhere.send("40/admin,{}").await.unwrap();
    assert_eq!(elsewhere.receive().await.unwrap().get(..9), Some("44/admin,"));
    let mut polling = Polling::open(&server.url()).await.unwrap();
    let end = async { while polling.poll().await.is_ok() {} };
    let (idle, elsewhere, polling) =
        tokio::join!(idle.closed(CLOSE_LIMIT), elsewhere.closed(CLOSE_LIMIT), tokio::time::timeout(CLOSE_LIMIT, end));
    idle.and(elsewhere).unwrap();
    polling.unwrap();
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn foreign_pages_are_rejected() {
    let server = world::embedded().await;
    let url = server.url();
    let api = Api::new(&url);
    let open = |origin: &str| {
        let request = api.request(Method::GET, "/socket.io/?EIO=4&transport=polling").header("origin", origin);
        async { request.send().await.unwrap() }
    };
    for origin in ["https://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1.evil.example:80"]
    {
        let answer = open(origin).await;
        assert_eq!(answer.status(), 403, "{origin}");
        assert!(answer.headers().get("access-control-allow-origin").is_none(), "{origin}");
        assert_eq!(answer.json::<Value>().await.unwrap(), error(4, "Forbidden"));
        let websocket = WebSocket::attempt(&url, "EIO=4&transport=websocket", &[("Origin", origin)]).await.unwrap();
        assert!(matches!(websocket, Err(Refused(403, body)) if body == error(4, "Forbidden")), "{origin}");
    }
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "http://localhost"] {
        let answer = open(origin).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
            (200, &origin.parse().unwrap())
        );
        let websocket = WebSocket::attempt(&url, "EIO=4&transport=websocket", &[("Origin", origin)]).await.unwrap();
        assert!(websocket.is_ok(), "{origin}");
    }
    let preflight =
        api.request(Method::OPTIONS, "/socket.io/?EIO=4&transport=polling").header("origin", "http://localhost:5173");
    let answer = preflight.header("access-control-request-method", "POST").send().await.unwrap();
    assert!(answer.status().is_success());
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:5173");
}
