//! The echo server of confab-socketio, a whole server that is not Confab: the cases of the official suites of Engine.IO 4 and
//! Socket.IO 5, and three stock clients over every transport.
//! <https://github.com/socketio/socket.io/tree/main/docs>: `engine.io-protocol/v4-test-suite`, `socket.io-protocol/v5-test-suite`.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::process::Stdio;
use std::time::Duration;

use confab_tests::programs;
use confab_tests::raw::{Polling, Refused, WebSocket};
use confab_tests::stock::{Stock, Transports, bytes};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

struct Echo {
    url: String,
    _process: Child,
}

impl Echo {
    async fn start() -> Self {
        let mut command = Command::new(programs().join("examples/echo"));
        let mut process = command.arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { url: lines.next_line().await.unwrap().unwrap(), _process: process }
    }

    /// A polling client that has connected.
    async fn polling(&self) -> Polling {
        let client = Polling::open(&self.url).await.unwrap();
        assert_eq!(client.post("40").await.unwrap().0, 200);
        assert!(client.get_until("40{").await.unwrap().contains("sid"));
        client
    }

    /// A WebSocket client that has connected.
    async fn websocket(&self) -> WebSocket {
        let mut client = WebSocket::open(&self.url).await.unwrap();
        client.send("40").await.unwrap();
        assert!(client.receive().await.unwrap().starts_with("40{"));
        client
    }
}

#[tokio::test]
async fn a_session_opens_over_both_transports_with_the_settings_of_the_server() {
    let echo = Echo::start().await;
    let polling = Polling::open(&echo.url).await.unwrap().open;
    let websocket = WebSocket::open(&echo.url).await.unwrap().open;
    assert_eq!((&polling["upgrades"], &websocket["upgrades"]), (&json!(["websocket"]), &json!([])));
    for open in [polling, websocket] {
        assert!(open["sid"].is_string(), "{open}");
        assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&json!(25_000), &json!(20_000)));
        assert_eq!(open["maxPayload"], 1_114_112);
    }
}

#[tokio::test]
async fn a_wrong_handshake_is_refused() {
    let echo = Echo::start().await;
    for (query, code) in [
        ("transport=polling", 5),
        ("EIO=abc&transport=polling", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport=polling&sid=unknown", 1),
    ] {
        let answer = reqwest::get(format!("{}/socket.io/?{query}", echo.url)).await.unwrap();
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code, "{query}");
    }
    for (method, status) in [(Method::POST, 400), (Method::PUT, 400)] {
        let url = format!("{}/socket.io/?EIO=4&transport=polling", echo.url);
        assert_eq!(reqwest::Client::new().request(method, url).send().await.unwrap().status(), status);
    }
    for query in ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4&transport=abc"] {
        let Err(Refused(status, _)) = WebSocket::attempt(&echo.url, query, &[]).await.unwrap() else {
            panic!("{query} was accepted");
        };
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_payload_of_several_packets_is_echoed_in_order() {
    let echo = Echo::start().await;
    let client = echo.polling().await;
    let event = r#"451-["bytes",{"_placeholder":true,"num":0}]"#;
    let payload = ["42[\"first\",1]", event, "bAQIDBA==", "427[\"ack\",\"✓\"]", "42[\"last\"]"].join("\u{1e}");
    assert_eq!(client.post(payload).await.unwrap(), (200, json!("ok")));
    let echoed = client.get_until("last").await.unwrap();
    let packets = ["42[\"first\",1]", event, "bAQIDBA==", "437[\"✓\"]", "42[\"last\",null]"].join("\u{1e}");
    assert_eq!(echoed, packets);
}

#[tokio::test]
async fn packets_over_a_websocket_are_echoed() {
    let echo = Echo::start().await;
    let mut client = echo.websocket().await;
    for (sent, received) in [
        (r#"42["a",{"b":[1,2,3]}]"#, r#"42["a",{"b":[1,2,3]}]"#),
        (r#"4212["a","é"]"#, r#"4312["é"]"#),
        ("2probe", "3probe"),
    ] {
        client.send(sent).await.unwrap();
        assert_eq!(client.receive().await.unwrap(), received);
    }
}

#[tokio::test]
async fn malformed_packets_end_the_session() {
    let echo = Echo::start().await;
    for bad in ["abc", "4abc", "42{}", "42[", "4299999999999999999999[]", "40"] {
        let mut client = echo.websocket().await;
        client.send(bad).await.unwrap();
        assert_eq!(client.closed(ANSWER_LIMIT).await.unwrap(), Some(1002), "{bad}");
        let client = echo.polling().await;
        assert_eq!(client.post(bad).await.unwrap().0, 400, "{bad}");
        assert_eq!(client.get().await.unwrap().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_client_closes_its_session() {
    let echo = Echo::start().await;
    let client = echo.polling().await;
    let (waiting, closing) = tokio::join!(client.get(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.post("1").await
    });
    assert_eq!((waiting.unwrap(), closing.unwrap().0), ((200, "6".into()), 200));
    assert_eq!(client.get().await.unwrap().0, 400);
    let mut client = echo.websocket().await;
    client.send("1").await.unwrap();
    assert_eq!(client.closed(ANSWER_LIMIT).await.unwrap(), Some(1000));
}

#[tokio::test]
async fn two_gets_at_once_end_the_session() {
    let echo = Echo::start().await;
    let client = echo.polling().await;
    let (one, other) = tokio::join!(client.get(), client.get());
    let mut answers = [one.unwrap().0, other.unwrap().0];
    answers.sort_unstable();
    assert_eq!(answers, [200, 400]);
    assert_eq!(client.post("3").await.unwrap().0, 400);
}

#[tokio::test]
async fn a_session_upgrades_and_refuses_its_old_transport() {
    let echo = Echo::start().await;
    let client = echo.polling().await;
    let mut socket = WebSocket::probe(&echo.url, client.sid()).await.unwrap().unwrap();
    socket.send("2probe").await.unwrap();
    assert_eq!(socket.receive().await.unwrap(), "3probe");
    socket.send("5").await.unwrap();
    socket.send(r#"42["upgraded"]"#).await.unwrap();
    assert_eq!(socket.receive().await.unwrap(), r#"42["upgraded",null]"#);
    assert_eq!((client.get().await.unwrap().0, client.post("3").await.unwrap().0), (400, 400));
    assert!(WebSocket::probe(&echo.url, client.sid()).await.unwrap().is_err());
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_and_disconnect_leaves_the_session_open() {
    let echo = Echo::start().await;
    let mut client = echo.websocket().await;
    client.send("40/random,").await.unwrap();
    let refused = client.receive().await.unwrap();
    assert!(refused.starts_with(r#"44/random,{"#) && refused.contains("Invalid namespace"), "{refused}");
    client.send("41").await.unwrap();
    client.send("2").await.unwrap();
    assert_eq!(client.receive().await.unwrap(), "3");
}

/// Echoes of one stock client over each transport, up to `largest` characters; `has_bytes`: it sends and receives bytes
/// within events.
async fn stock_clients_are_echoed(stock: Stock, has_bytes: bool, largest: usize) {
    let (echo, stock) = (Echo::start().await, stock.of_another_server());
    for transports in [Transports::Polling, Transports::WebSocket, Transports::Upgrade] {
        let socket = stock.connect(&echo.url, "none", transports).await.unwrap();
        for value in [json!("text ✓"), json!({"nested": [1, null, {"a": true}]}), json!("x".repeat(largest))] {
            assert_eq!(socket.emit("asked", value.clone()).await.unwrap(), value, "{transports:?}");
        }
        if has_bytes {
            let data = bytes(&[0, 1, 2, 255]);
            assert_eq!(socket.emit("bytes", data.clone()).await.unwrap(), data, "{transports:?}");
            socket.tell("bytes", vec![data.clone()]);
            let echoed = |_: &[_]| (!socket.events("bytes").is_empty()).then(|| socket.events("bytes"));
            assert_eq!(socket.until("its bytes", ANSWER_LIMIT, echoed).await.unwrap(), [data], "{transports:?}");
        }
        let numbers = (0..200).map(|number| json!(number)).collect::<Vec<_>>();
        numbers.iter().for_each(|number| socket.tell("number", vec![number.clone()]));
        let all = |_: &[_]| (socket.events("number").len() == 200).then(|| socket.events("number"));
        assert_eq!(socket.until("every number", ANSWER_LIMIT, all).await.unwrap(), numbers, "{transports:?}");
        socket.disconnect();
    }
}

#[tokio::test]
async fn the_javascript_client_is_echoed() {
    stock_clients_are_echoed(Stock::javascript().unwrap(), true, 100_000).await;
}

#[tokio::test]
async fn the_python_client_is_echoed() {
    stock_clients_are_echoed(Stock::python().unwrap(), true, 100_000).await;
}

#[tokio::test]
async fn the_rust_client_is_echoed() {
    // Over polling, rust_socketio 0.6 takes each piece of an answer that its HTTP client reads for a whole payload.
    stock_clients_are_echoed(Stock::rust().unwrap(), false, 4000).await;
}
