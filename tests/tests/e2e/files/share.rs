//! `fileUpload` by stock clients: every socket in the room receives it, in order among messages.

use std::time::Duration;

use confab_tests::api::unique;
use confab_tests::raw::{Client, PACKET_LIMIT, Polling};
use confab_tests::stock::{Report, Socket, Stock, Transports, bytes, bytes_as};
use serde_json::{Value, json};

use super::{Scene, url};

everywhere!(every_kind_of_bytes, in_order_among_messages, repeats, refusals, by_polling_alone);

impl Scene {
    async fn member(&self, stock: &Stock, url: &str, transports: Transports) -> Socket {
        let socket = stock.connect(url, &self.account.token, transports).await.unwrap();
        let ack = socket.emit("joinRoom", json!(self.room)).await.unwrap();
        assert_eq!(ack["ok"], true, "{ack}");
        socket
    }

    fn payload(&self, name: &str, data: Value) -> Value {
        json!({"roomId": self.room, "name": name, "contentType": "text/plain", "data": data})
    }
}

/// Returns everything that a socket received of the room, in order: messages under both event names.
fn received(socket: &Socket) -> Vec<Value> {
    let of_room = |report: &Report| match report {
        Report::Event(name, arguments) if name == "message" || name == "fileUpload" => {
            let message = arguments.first().cloned().unwrap_or_default();
            assert_eq!(message["type"], if name == "message" { "message" } else { "file" });
            Some(message)
        }
        _ => None,
    };
    socket.reports().iter().filter_map(of_room).collect()
}

async fn receives(socket: &Socket, history: &[Value]) {
    let all = |_: &[Report]| (received(socket).len() >= history.len()).then_some(());
    socket.until("all of the history", Duration::from_secs(20), all).await.unwrap();
    assert_eq!(received(socket), history);
}

async fn every_kind_of_bytes(scene: Scene) {
    let (node, browser, python) = (Stock::javascript().unwrap(), Stock::browser().unwrap(), Stock::python().unwrap());
    let listener = scene.member(&python, &scene.other.url, Transports::Upgrade).await;
    let text = (0..=255).collect::<Vec<u8>>().repeat(300);
    let mut files = Vec::new();
    for (stock, transports, data) in [
        (&node, Transports::WebSocket, bytes(&text)),
        (&node, Transports::Upgrade, bytes(&text)),
        (&node, Transports::WebSocket, bytes_as("Uint8Array", &text)),
        (&browser, Transports::WebSocket, bytes_as("Blob", &text)),
        (&browser, Transports::WebSocket, bytes_as("File", &text)),
        (&browser, Transports::WebSocket, bytes_as("Uint8Array", &text)),
        (&python, Transports::WebSocket, bytes(&text)),
        (&python, Transports::Upgrade, bytes(&text)),
        (&node, Transports::WebSocket, bytes(b"")),
    ] {
        let content = if data == bytes(b"") { &[] } else { text.as_slice() };
        let socket = stock.connect(&scene.one.url, &scene.account.token, transports).await.unwrap();
        let ack = socket.emit("fileUpload", scene.payload("bytes.bin", data)).await.unwrap();
        assert_eq!(ack.as_object().unwrap().len(), 3, "{ack}");
        assert_eq!(ack["ok"], true, "{ack}");
        scene.is_file(&ack["file"], Some(&scene.room), "bytes.bin", "text/plain", content);
        scene.is_share(&ack["message"], &ack["file"], None);
        assert_eq!(scene.get(url(&ack["file"])).await.bytes, content);
        files.push(ack["message"].clone());
    }
    assert_eq!(scene.history().await, files);
    receives(&listener, &files).await;
}

async fn in_order_among_messages(scene: Scene) {
    let (node, python) = (Stock::javascript().unwrap(), Stock::python().unwrap());
    let mut sockets = Vec::new();
    for (stock, url, transports) in [
        (&node, &scene.one.url, Transports::WebSocket),
        (&python, &scene.other.url, Transports::WebSocket),
        (&node, &scene.other.url, Transports::Upgrade),
        (&python, &scene.one.url, Transports::Polling),
    ] {
        sockets.push(scene.member(stock, url, transports).await);
    }
    // Each socket continues to send without waiting, and so do uploads by REST.
    let mut sends = Vec::new();
    for n in 0..10 {
        for (who, socket) in sockets.iter().enumerate() {
            let name = format!("{who}-{n}");
            let message = json!({"roomId": scene.room, "content": name});
            sends.push(socket.emit_later("message", vec![message]));
            sends.push(socket.emit_later("fileUpload", vec![scene.payload(&name, bytes(name.as_bytes()))]));
        }
        scene.one.share(&scene.account, Some(&scene.room), &format!("rest-{n}"), b"by REST").await.unwrap();
    }
    for ack in sends {
        let ack = ack.await.unwrap();
        assert_eq!(ack[0]["ok"], true, "{ack:?}");
    }
    let history = scene.history().await;
    assert_eq!(history.len(), 90);
    assert!(history.iter().enumerate().all(|(n, message)| message["seq"] == n + 1));
    for (who, socket) in sockets.iter().enumerate() {
        receives(socket, &history).await;
        // The history has one socket's sends to one room in the order of sending.
        let own =
            history.iter().map(|message| message["files"][0]["name"].as_str().or(message["content"].as_str()).unwrap());
        let own = own.filter(|name| name.starts_with(&format!("{who}-"))).map(String::from).collect::<Vec<_>>();
        let sent = (0..10).flat_map(|n| [format!("{who}-{n}"), format!("{who}-{n}")]).collect::<Vec<_>>();
        assert_eq!(own, sent);
    }
}

async fn repeats(scene: Scene) {
    let (node, python) = (Stock::javascript().unwrap(), Stock::python().unwrap());
    let id = unique("repeat");
    let mut payload = scene.payload("first.txt", bytes(b"first"));
    payload["clientMessageId"] = json!(id);
    let socket = scene.member(&node, &scene.one.url, Transports::WebSocket).await;
    let first = socket.emit("fileUpload", payload.clone()).await.unwrap();
    assert_eq!(first["ok"], true, "{first}");
    scene.is_share(&first["message"], &first["file"], Some(&id));
    payload["data"] = bytes(b"second");
    let other = scene.member(&python, &scene.other.url, Transports::WebSocket).await;
    let again = other.emit("fileUpload", payload).await.unwrap();
    assert_eq!((&again["file"], &again["message"]), (&first["file"], &first["message"]));
    // The `clientMessageId` is the same as over REST.
    let form = confab_tests::form::Form::new()
        .field("clientMessageId", &id)
        .field("roomId", &scene.room)
        .file("x", "a/b", b"third");
    assert_eq!(scene.one.upload(&scene.account, form).await.unwrap().expect(200).unwrap(), first["file"]);
    assert_eq!(scene.get(url(&first["file"])).await.bytes, b"first");
    receives(&socket, &scene.history().await).await;
    assert_eq!(received(&socket).len(), 1);
}

async fn refusals(scene: Scene) {
    let node = Stock::javascript().unwrap();
    let socket = scene.member(&node, &scene.one.url, Transports::WebSocket).await;
    let mebibyte = vec![b'x'; 1024 * 1024];
    let over = vec![b'x'; 1024 * 1024 + 1];
    let unknown = json!({"roomId": uuid::Uuid::now_v7(), "name": "a", "data": bytes(b"a")});
    let without = |field: &str| {
        let mut payload = scene.payload("a", bytes(b"a"));
        payload.as_object_mut().unwrap().remove(field);
        payload
    };
    let with = |field: &str, value: Value| {
        let mut payload = scene.payload("a", bytes(b"a"));
        payload[field] = value;
        payload
    };
    for (payload, status, code) in [
        (scene.payload("a", bytes(&over)), 413, "too_large"),
        (unknown, 404, "not_found"),
        (without("roomId"), 400, "invalid_request"),
        (without("name"), 400, "invalid_request"),
        (without("data"), 400, "invalid_request"),
        (with("data", json!("text")), 400, "invalid_request"),
        (with("data", json!({"_placeholder": true, "num": 5})), 400, "invalid_request"),
        (with("data", json!({})), 400, "invalid_request"),
        (with("data", json!([bytes(b"a")])), 400, "invalid_request"),
        (with("name", bytes(b"a")), 400, "invalid_request"),
        (with("name", json!(7)), 400, "invalid_request"),
        (with("roomId", json!("nonsense")), 400, "invalid_request"),
        (with("clientMessageId", json!("")), 400, "invalid_request"),
        (with("clientMessageId", json!("x".repeat(129))), 400, "invalid_request"),
        (with("clientMessageId", json!("a\0b")), 400, "invalid_request"),
        (json!(null), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
        (bytes(b"a"), 400, "invalid_request"),
        (json!("text"), 400, "invalid_request"),
    ] {
        let ack = socket.emit("fileUpload", payload.clone()).await.unwrap();
        let got = (&ack["ok"], &ack["error"]["status"], &ack["error"]["code"]);
        let shown = payload.to_string().chars().take(100).collect::<String>();
        assert_eq!(got, (&json!(false), &json!(status), &json!(code)), "{shown}: {ack}");
    }
    // Without a callback the failure arrives as an `error` event.
    socket.tell("fileUpload", vec![json!({})]);
    let arrived = |_: &[Report]| (!socket.events("error").is_empty()).then_some(());
    socket.until("an error", PACKET_LIMIT, arrived).await.unwrap();
    assert_eq!(socket.events("error")[0]["code"], "invalid_request");

    // The largest allowed file, still over the same socket.
    let ack = socket.emit("fileUpload", scene.payload("mebibyte", bytes(&mebibyte))).await.unwrap();
    assert_eq!((&ack["ok"], &ack["file"]["size"]), (&json!(true), &json!(1024 * 1024)), "{ack}");
    assert_eq!(scene.get(url(&ack["file"])).await.bytes, mebibyte);
    assert_eq!(scene.history().await, [ack["message"].clone()]);
    let gone = socket.reports().iter().any(|report| matches!(report, Report::State(kind, _) if kind == "disconnect"));
    assert!(!gone, "the socket was closed");
}

async fn by_polling_alone(scene: Scene) {
    let mut raw = Polling::connect(&scene.one.url, &scene.account.token).await.unwrap();
    assert_eq!(raw.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let event = format!(
        r#"["fileUpload",{{"roomId":"{}","name":"a.bin","data":{{"_placeholder":true,"num":0}}}}]"#,
        scene.room
    );
    let ack = raw.emit_binary(&event, b"\0\xff\x1e bytes").await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    assert_eq!(raw.event("fileUpload").await.unwrap(), ack["message"]);
    assert_eq!(scene.get(url(&ack["file"])).await.bytes, b"\0\xff\x1e bytes");

    let node = Stock::javascript().unwrap();
    let socket = scene.member(&node, &scene.other.url, Transports::Polling).await;
    let large = vec![7; 700_000];
    let ack = socket.emit("fileUpload", scene.payload("large.bin", bytes(&large))).await.unwrap();
    assert_eq!(ack["ok"], true, "{ack}");
    assert_eq!(scene.get(url(&ack["file"])).await.bytes, large);
    assert_eq!(raw.event("fileUpload").await.unwrap(), ack["message"]);
}
