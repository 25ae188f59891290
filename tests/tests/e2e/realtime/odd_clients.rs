//! Behaviour of some clients that no stock client of JavaScript or Python has: each is served.

use std::time::Duration;

use anyhow::Context;
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::raw::{Client, Http, PACKET_LIMIT, Polling, WebSocket, connect, event, text};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{CLOSE_LIMIT, Scene, fails, hasty};
use crate::world;

/// The rest of a correct upgrade.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Returns the head of the answer to an unmodified request, in lower case.
async fn head(url: &str, request: String) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").context("an http URL")?).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        anyhow::Ok(())
    };
    timeout(PACKET_LIMIT, read).await??;
    Ok(String::from_utf8(head)?.to_ascii_lowercase())
}

#[tokio::test]
async fn first_offered_subprotocol_is_selected() {
    let url = world::embedded().await.url();
    let line = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n";
    for (offered, chosen) in
        [("mine", "mine"), ("first, second", "first"), ("one\r\nSec-WebSocket-Protocol: two", "one")]
    {
        let answer = head(&url, format!("{line}{UPGRADE}Sec-WebSocket-Protocol: {offered}\r\n\r\n")).await.unwrap();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains(&format!("\r\nsec-websocket-protocol: {chosen}\r\n")), "{answer}");
    }
    let answer = head(&url, format!("{line}{UPGRADE}\r\n")).await.unwrap();
    assert!(answer.starts_with("http/1.1 101 ") && !answer.contains("sec-websocket-protocol"), "{answer}");
}

#[tokio::test]
async fn websocket_over_http_1_0_requires_http_1_1() {
    let url = world::embedded().await.url();
    let line = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.0\r\nHost: localhost\r\n";
    let answer = head(&url, format!("{line}{UPGRADE}\r\n")).await.unwrap();
    assert!(answer.split(' ').nth(1) == Some("426") && answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
}

#[tokio::test]
async fn empty_sid_opens_a_session_and_first_parameter_counts() {
    let scene = Scene::new().await.unwrap();
    for query in [
        "EIO=4&transport=polling&sid=",
        "sid=&EIO=4&transport=polling",
        "EIO=4&transport=polling&transport=websocket",
        "EIO=4&EIO=3&transport=polling",
        "EIO=4&transport=polling&sid=&sid=unknown",
    ] {
        let answer = scene.api.request(Method::GET, &format!("/socket.io/?{query}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{query}");
        assert!(answer.text().await.unwrap().starts_with("0{"), "{query}");
    }
    assert!(WebSocket::attempt(&scene.url, "EIO=4&transport=websocket&sid=", &[]).await.unwrap().is_ok());
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}&sid=unknown", client.sid());
    let answer = scene.api.request(Method::POST, &path).body("3").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "ok".into()));
}

#[tokio::test]
async fn own_page_may_name_the_default_port() {
    let url = world::embedded().await.url();
    for (origin, status) in [
        ("https://localhost:443", "200"),
        ("https://localhost", "200"),
        ("HTTPS://LocalHost", "200"),
        ("http://localhost:80", "200"),
        ("https://localhost:444", "403"),
        ("https://evil.example:443", "403"),
    ] {
        let request =
            format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
        let answer = head(&url, request).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{origin}: {answer}");
    }
}

#[tokio::test]
async fn listed_origins_may_send_credentials_and_any_header() {
    let origins = "https://chat.example, null, file://";
    let server = Embedded::start(&[("CONFAB_ALLOWED_ORIGINS", origins)]).await.unwrap();
    let api = confab_tests::api::Api::new(server.url());
    for (origin, listed) in [
        ("https://chat.example", true),
        ("https://Chat.example:443", true),
        ("null", true),
        ("file://", true),
        ("https://evil.example", false),
        ("https://chat.example:444", false),
    ] {
        for path in ["/socket.io/?EIO=4&transport=polling", "/.well-known/jwks.json"] {
            let answer = api.request(Method::GET, path).header("origin", origin).send().await.unwrap();
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header("access-control-allow-origin"), listed.then(|| origin.to_owned()), "{origin} {path}");
            assert_eq!(
                header("access-control-allow-credentials").is_some_and(|value| value == "true"),
                listed,
                "{origin} {path}"
            );

            let asked = "baggage,sentry-trace,x-requested-with,cache-control,authorization";
            let preflight = api
                .request(Method::OPTIONS, path)
                .header("origin", origin)
                .header("access-control-request-method", "POST");
            let answer = preflight.header("access-control-request-headers", asked).send().await.unwrap();
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header("access-control-allow-origin").is_some(), listed, "{origin} {path}");
            if listed {
                assert_eq!(header("access-control-allow-headers").as_deref(), Some(asked), "{origin} {path}");
            }
        }
    }
}

#[tokio::test]
async fn rejections_follow_the_answer_to_connect() {
    let scene = Scene::new().await.unwrap();
    let flight = |token: &str| {
        let events = [event("message", &json!({}), 1), event("nonsense", &json!({}), 2), r#"42["nonsense"]"#.into()];
        [text(&connect(token)), events.map(|packet| text(&packet)).concat()].concat()
    };
    let mut socket = WebSocket::open(&scene.url).await.unwrap();
    socket.write(&flight(&scene.account.token)).await.unwrap();
    let first = socket.receive().await.unwrap();
    assert!(first.starts_with("40{"), "{first}");
    fails(&socket.ack(1).await.unwrap(), 400, "invalid_request");
    fails(&socket.ack(2).await.unwrap(), 404, "not_found");
    assert_eq!(socket.event("error").await.unwrap()["code"], "not_found");

    let mut socket = WebSocket::open(&scene.url).await.unwrap();
    socket.write(&flight("garbage")).await.unwrap();
    let first = socket.receive().await.unwrap();
    assert!(first.starts_with("44{"), "{first}");
    socket.closed(CLOSE_LIMIT).await.unwrap();
    assert_eq!((socket.taken_ack(1), socket.taken_ack(2), socket.taken_events()), (None, None, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_payload_is_accepted_while_bytes_arrive() {
    let scene = Scene::at(hasty().await).await.unwrap();
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let body = event("message", &scene.message("x".repeat(10_000)), 1);
    // Longer than the time limit for a silent client, and than the lifetime of a client that answers no ping.
    let sending = client.post_slowly(&scene.url, &body, 24, Duration::from_millis(500));
    // Stock clients make one POST at a time, so the pings are not answered meanwhile.
    let (posted, fetched) = tokio::try_join!(sending, client.get_until("431[")).unwrap();
    assert_eq!((posted.status, posted.bytes), (200, b"ok".to_vec()));
    assert!(fetched.contains(r#""seq":1"#), "{fetched}");
}

#[tokio::test]
async fn truncated_payload_is_not_too_large() {
    let server = Embedded::start(&[]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let over = async || {
        let exposition = Exposition::scrape(server.admin_port()).await.unwrap();
        exposition.value("confab_limits_total{limit=\"packet\"}").unwrap_or_default()
    };
    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let line = format!("POST /socket.io/?EIO=4&transport=polling&sid={}", client.sid());
    let mut post = Http::begin(&scene.url, &line, "Content-Length: 100000\r\n").await.unwrap();
    post.write(b"42[\"message\",").await.unwrap();
    drop(post);
    let ended = async || (client.post("3").await.ok()?.0 == 400).then_some(());
    eventually("its session ends", CLOSE_LIMIT, ended).await.unwrap();
    assert_eq!(over().await, 0.0);

    let client = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let (status, body): (u16, Value) = client.post("x".repeat(2_000_000)).await.unwrap();
    assert_eq!((status, &body["code"]), (413, &json!(3)));
    assert_eq!(over().await, 1.0);
}
