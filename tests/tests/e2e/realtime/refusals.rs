//! Invalid events: each gets the documented error, and its socket continues.

use confab_tests::api::unique;
use confab_tests::raw::{Client, Polling, binary, text};
use confab_tests::stock::{Report, Stock, Transports};
use serde_json::{Value, json};
use uuid::Uuid;

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, fails};
use crate::world;

/// Invalid events with the expected errors.
fn wrong(room: &str) -> Vec<(&'static str, Value, u16, &'static str)> {
    let bad = |name, payload| (name, payload, 400, "invalid_request");
    let mut wrong = vec![
        ("nonsense", json!({}), 404, "not_found"),
        ("", json!({}), 404, "not_found"),
        ("joinroom", json!(room), 404, "not_found"),
        ("__proto__", json!({}), 404, "not_found"),
        ("message", json!({"roomId": Uuid::now_v7(), "content": "x"}), 404, "not_found"),
        ("joinRoom", json!(Uuid::now_v7()), 404, "not_found"),
        ("joinRoom", json!({"roomId": Uuid::nil()}), 404, "not_found"),
        ("message", json!({"roomId": room, "content": "x".repeat(16_385)}), 413, "too_large"),
        ("message", json!({"roomId": room, "content": "é".repeat(8193)}), 413, "too_large"),
        bad("message", json!({"roomId": room, "content": "x", "fileIds": ["no-such-file"]})),
        bad("message", json!({"roomId": room, "content": "x", "fileIds": "f"})),
    ];
    for payload in [json!(null), json!([]), json!(7), json!(true), json!("text"), json!({})] {
        wrong.push(bad("message", payload));
    }
    for content in [json!(null), json!(""), json!(7), json!([]), json!({"_placeholder": true, "num": 0}), json!("a\0b")]
    {
        wrong.push(bad("message", json!({"roomId": room, "content": content})));
    }
    wrong.push(bad("message", json!({"roomId": room})));
    wrong.push(bad("message", json!({"content": "x"})));
    for id in [
        json!(null),
        json!(""),
        json!("x"),
        json!("\0"),
        json!("x".repeat(10_000)),
        json!(7),
        json!([]),
        json!("' OR 1=1 --"),
    ] {
        wrong.push(bad("message", json!({"roomId": id, "content": "x"})));
        wrong.push(bad("joinRoom", id.clone()));
        wrong.push(bad("leaveRoom", json!({"roomId": id})));
    }
    let join = |field: &str, value: Value| json!({"roomId": room, field: value});
    for after in [json!(-1), json!(1.5), json!("1"), json!([])] {
        wrong.push(bad("joinRoom", join("after", after)));
    }
    for last in [json!(0), json!(201), json!(-1), json!("7"), json!(1e300)] {
        wrong.push(bad("joinRoom", join("last", last)));
    }
    wrong.push(bad("joinRoom", join("epoch", json!(7))));
    wrong.push(bad("joinRoom", json!({"roomId": room, "after": 1, "last": 1})));
    wrong
}

#[tokio::test]
async fn invalid_event_is_rejected_in_its_acknowledgement() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    for (name, payload, status, code) in wrong(&scene.room) {
        fails(&socket.emit(name, payload.clone()).await.unwrap(), status, code);
        fails(&polling.emit(name, payload).await.unwrap(), status, code);
    }
    // Without any argument.
    for name in ["message", "joinRoom", "leaveRoom"] {
        socket.send(&format!(r#"42900["{name}"]"#)).await.unwrap();
        fails(&socket.ack(900).await.unwrap(), 400, "invalid_request");
    }
    assert_eq!(socket.emit("message", scene.message("x".repeat(16_384))).await.unwrap()["message"]["seq"], 1);
    assert_eq!(polling.emit("message", scene.message("é".repeat(8192))).await.unwrap()["message"]["seq"], 2);
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn failure_without_acknowledgement_is_an_error_event() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    for (name, payload, status, code) in wrong(&scene.room) {
        socket.send(&format!("42{}", json!([name, payload]))).await.unwrap();
        let error = socket.event("error").await.unwrap();
        assert_eq!((&error["code"], &error["status"]), (&json!(code), &json!(status)), "{name} {error}");
        assert!(error["detail"].is_string());
    }
    // Success is not reported.
    socket.send(&format!("42{}", json!(["joinRoom", scene.room]))).await.unwrap();
    socket.send(&format!("42{}", json!(["message", scene.message("hi")]))).await.unwrap();
    assert_eq!(socket.event("message").await.unwrap()["content"], "hi");
    assert_eq!(socket.taken_events(), []);
}

#[tokio::test]
async fn event_whose_name_is_not_text_is_unknown() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    let names = [
        "7",
        "-1.5e3",
        "null",
        "true",
        "[]",
        r#"["message"]"#,
        "{}",
        r#"{"toString":"message"}"#,
        r#""\ud800""#,
        r#""a\udc00b""#,
    ];
    for (name, number) in names.into_iter().zip(1..) {
        let packet = format!("42{number}[{name},{}]", scene.message("x"));
        socket.send(&packet).await.unwrap();
        fails(&socket.ack(number).await.unwrap(), 404, "not_found");
        polling.send_all(&[packet]).await.unwrap();
        fails(&polling.ack(number).await.unwrap(), 404, "not_found");
        socket.send(&format!("42[{name}]")).await.unwrap();
        assert_eq!(socket.event("error").await.unwrap()["code"], "not_found", "{name}");
    }
    // An escaped name is the same name.
    socket.send(&format!(r#"4299["\u006dessage",{}]"#, scene.message("escaped"))).await.unwrap();
    assert_eq!(socket.ack(99).await.unwrap()["message"]["seq"], 1);
}

#[tokio::test]
async fn binary_instead_of_text_is_rejected() {
    let bystanders = Bystanders::at(world::embedded().await).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let event = json!(["message", scene.message(json!({"_placeholder": true, "num": 0}))]);
    socket.write(&[text(&format!("451-7{event}")), binary(b"bytes")].concat()).await.unwrap();
    fails(&socket.ack(7).await.unwrap(), 400, "invalid_request");
    let event_of_two = json!(["message", {"_placeholder": true, "num": 0}, {"_placeholder": true, "num": 1}]);
    socket
        .write(&[text(&format!("452-8{event_of_two}")), binary(b""), binary(&[0xff; 70_000])].concat())
        .await
        .unwrap();
    fails(&socket.ack(8).await.unwrap(), 400, "invalid_request");
    // Without attachments it is a plain event.
    socket.send(&format!("450-9{}", json!(["message", scene.message("plain")]))).await.unwrap();
    assert_eq!(socket.ack(9).await.unwrap()["message"]["seq"], 1);
    let mut polling = Polling::connect(&scene.url, &scene.account.token).await.unwrap();
    fails(&polling.emit_binary(&event.to_string(), &[0, 1, 2, 0xff]).await.unwrap(), 400, "invalid_request");
    assert_eq!(polling.emit("message", scene.message("goes on")).await.unwrap()["message"]["seq"], 2);
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn stock_clients_get_the_same_errors() {
    let bystanders = Bystanders::at(world::embedded().await).await.unwrap();
    let scene = Scene::new().await.unwrap();
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        for transports in [Transports::Upgrade, Transports::WebSocket, Transports::Polling] {
            let socket = stock.connect(&scene.url, &scene.account.token, transports).await.unwrap();
            for (name, payload, status, code) in wrong(&scene.room) {
                // "connect" and similar names belong to the libraries; some of them reject an empty name themselves.
                if !name.is_empty() {
                    fails(&socket.emit(name, payload).await.unwrap(), status, code);
                }
            }
            let bytes = json!({"base64": "AAEC/w=="});
            fails(&socket.emit("message", scene.message(bytes.clone())).await.unwrap(), 400, "invalid_request");
            fails(&socket.emit("message", bytes.clone()).await.unwrap(), 400, "invalid_request");
            fails(&socket.emit("joinRoom", bytes).await.unwrap(), 400, "invalid_request");
            socket.tell(&unique("unknown"), vec![]);
            let error = |reports: &[Report]| {
                reports.iter().find_map(|report| match report {
                    Report::Event(name, arguments) if name == "error" => Some(arguments[0].clone()),
                    _ => None,
                })
            };
            assert_eq!(socket.until("an error event", CLOSE_LIMIT, error).await.unwrap()["code"], "not_found");
            assert_eq!(socket.emit("message", scene.message("fine")).await.unwrap()["ok"], true);
            assert!(
                !socket.reports().iter().any(|report| matches!(report, Report::State(kind, _) if kind == "disconnect"))
            );
        }
    }
    bystanders.noticed_nothing().await;
}
