//! Packets and frames that no conforming client sends, over WebSocket.

use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, WebSocket, binary, frame, text};
use serde_json::json;

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene, fails, memory};
use crate::world;

/// How much the server's memory may grow during the abuse: memory that its allocator keeps, not a leak per packet.
const GROWTH: u64 = 24 * 1024 * 1024;

/// The expected reaction.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// The socket is closed with this code.
    Closed(u16),
    /// No reaction.
    Ignored,
}
use Then::{Closed, Ignored};

/// Returns the description, the bytes and the expected reaction of each malformed packet.
fn wrong() -> Vec<(String, Vec<u8>, Then)> {
    let packets = [
        "",
        "0",
        "0{}",
        "5",
        "5probe",
        "7",
        "9",
        "x",
        " 4",
        "é",
        "b",
        "bAAAA",
        "4",
        "4x",
        "4abc",
        "47",
        "49[]",
        "44{}",
        "4é",
        "45-[]",
        "45[]",
        "451000000-[]",
        "4511-[]",
        r#"45-1["message",{}]"#,
        "450-",
        "451",
        "42",
        "42{",
        r#"42["message""#,
        "42[]",
        "42{}",
        r#"42{"a":1}"#,
        r#"42["message",{}] "x""#,
        r#"42["message",]"#,
        r#"42['message']"#,
        r#"42999999999999999999999["message",{}]"#,
        r#"4218446744073709551616["message",{}]"#,
        r#"42-1["message",{}]"#,
        r#"42abc["message",{}]"#,
        r#"421.5["message",{}]"#,
        "40",
        "40{}",
    ];
    let mut wrong = packets.map(|packet| (packet.to_string(), text(packet), Closed(1002))).to_vec();
    let ignored = ["3", "3probe", "43", "4312[]", "43[]", "4399[1,2]", r#"42/other,["message",{}]"#, "41/other,", "6"];
    wrong.extend(ignored.map(|packet| (packet.to_string(), text(packet), Ignored)));
    let mut add = |name: &str, bytes: Vec<u8>, then| wrong.push((name.to_string(), bytes, then));

    let announced = text(r#"451-["message",{"_placeholder":true,"num":0}]"#);
    add("text while an attachment is awaited", [&announced[..], &text(r#"42["x"]"#)].concat(), Closed(1002));
    add("an announcement while an attachment is awaited", announced.repeat(2), Closed(1002));
    add("an attachment not announced", binary(b"bytes"), Closed(1002));
    add("one attachment too many", [&announced[..], &binary(b"1"), &binary(b"2")].concat(), Closed(1002));
    let large = binary(&vec![7; 700_000]);
    add(
        "attachments over the limit together",
        [&text(r#"452-["message",{}]"#)[..], &large, &large].concat(),
        Closed(1002),
    );
    add("binary event that is no JSON", [&text("451-[")[..], &binary(b"1")].concat(), Closed(1002));
    add("acknowledgement with an attachment", [&text("461-7[]")[..], &binary(b"1"), &text("6")].concat(), Ignored);

    let deep = |depth: usize| text(&format!("42{}", "[".repeat(depth)));
    add("deep JSON", deep(10_000), Closed(1002));
    add("very deep JSON", deep(1_000_000), Closed(1002));
    add("text cut within a character", frame(0x81, b"42[\"a\xe4\xb8"), Closed(1007));
    add("text that is no UTF-8", frame(0x81, b"42[\"\xff\xfe\"]"), Closed(1007));
    add("unmasked", b"\x81\x012".to_vec(), Closed(1002));
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f] {
        add(&format!("reserved bits or opcode {first:#x}"), frame(first, b"2"), Closed(1002));
    }
    add("continuation of nothing", frame(0x80, b"2"), Closed(1002));
    add("text within a fragmented text", [frame(0x01, b"4"), text("2")].concat(), Closed(1002));
    add("fragmented ping", frame(0x09, b"x"), Closed(1002));
    add("ping of 126 bytes", frame(0x89, &[b'x'; 126]), Closed(1002));
    add("text over the limit", text(&"4".repeat(1_200_000)), Closed(1009));
    add(
        "header that announces 4 GiB",
        [&[0x81, 0xff][..], &(1u64 << 32).to_be_bytes(), &[0; 4]].concat(),
        Closed(1009),
    );
    add(
        "header that announces everything",
        [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(),
        Closed(1009),
    );
    let piece = frame(0x00, &[b'x'; 60_000]);
    add("fragments over the limit together", [frame(0x01, b"4"), piece.repeat(20)].concat(), Closed(1009));
    add(
        "a fragmented text of odd pieces",
        [frame(0x01, b""), frame(0x89, b"p"), frame(0x00, b"4"), frame(0x80, b"3")].concat(),
        Ignored,
    );
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_packet_costs_at_most_its_own_socket() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let wrong = wrong();
    assert!(wrong.len() > 50);
    for (name, bytes, then) in &wrong {
        let mut socket = scene.socket().await.unwrap();
        socket.write(bytes).await.unwrap();
        match then {
            Closed(code) => {
                let closed = socket.closed(CLOSE_LIMIT).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(closed, Some(*code), "{name}");
            }
            Ignored => {
                let ack = socket.emit("message", scene.message("unharmed")).await;
                assert_eq!(ack.unwrap_or_else(|error| panic!("{name}: {error:#}"))["ok"], true, "{name}");
                assert_eq!(socket.taken_events(), [], "{name}");
            }
        }
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn malformed_packets_are_rejected_before_connect() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    for packet in ["4", "4abc", "42[", "45-", "47", "9", r#"42["message",{}]"#, r#"42["message""#] {
        let mut socket = WebSocket::open(&server.url()).await.unwrap();
        socket.send(packet).await.unwrap();
        assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1002), "{packet}");
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn absurd_but_well_formed_packets_are_rejected() {
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (number, name) in ["message", "joinRoom", "leaveRoom"].into_iter().enumerate() {
        socket.send(&format!(r#"42{number}["{name}",{deep}]"#)).await.unwrap();
        fails(&socket.ack(number as u64).await.unwrap(), 400, "invalid_request");
    }
    // Ignored fields may have any content.
    let message = scene.message("deep");
    let future = message.to_string().replacen('{', &format!(r#"{{"future":{deep},"#), 1);
    socket.send(&format!(r#"4210["message",{message},{deep}]"#)).await.unwrap();
    assert_eq!(socket.ack(10).await.unwrap()["ok"], true);
    socket.send(&format!(r#"4211["message",{future}]"#)).await.unwrap();
    assert!(socket.ack(11).await.unwrap()["ok"].is_boolean());
    socket.send(&format!("4218446744073709551615{}", json!(["message", message]))).await.unwrap();
    assert_eq!(socket.ack(u64::MAX).await.unwrap()["ok"], true);
    // A duplicate name, a very long name, and every control character escaped.
    socket
        .send(&format!(r#"4212["message",{{"roomId":"{0}","roomId":"{0}","content":"twice"}}]"#, scene.room))
        .await
        .unwrap();
    fails(&socket.ack(12).await.unwrap(), 400, "invalid_request");
    fails(&socket.emit(&"n".repeat(500_000), json!({})).await.unwrap(), 404, "not_found");
    let controls = (1..32u8).map(char::from).collect::<String>();
    assert_eq!(socket.emit("message", scene.message(controls.clone())).await.unwrap()["message"]["content"], controls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_tiny_fragments_does_not_delay_other_clients() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    socket.write(&frame(0x01, b"42")).await.unwrap();
    let (empty, tiny) = (frame(0x00, b"").repeat(1000), frame(0x00, b" ").repeat(1000));
    for _ in 0..50 {
        socket.write(&empty).await.unwrap();
        socket.write(&tiny).await.unwrap();
    }
    // The message is complete in the end: an event after fifty thousand blanks.
    let event = json!(["message", scene.message("at last")]).to_string();
    socket.write(&frame(0x80, event.as_bytes())).await.unwrap();
    let said =
        async || scene.api.history(&scene.room, &scene.account, 50).await.ok().filter(|history| history.len() == 1);
    confab_tests::wait::eventually("the message arrives", CLOSE_LIMIT, said).await.unwrap();
    bystanders.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_does_not_leak_memory() {
    let server = Embedded::start(&[]).await.unwrap();
    let bystanders = Bystanders::at(&server).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let wrong = wrong();
    let round = async || {
        for (_, bytes, _) in &wrong {
            let mut socket = scene.socket().await?;
            socket.write(bytes).await?;
            // Some sockets are closed, the others simply disconnect.
            let _ = socket.emit("leaveRoom", json!(scene.room)).await;
        }
        anyhow::Ok(())
    };
    round().await.unwrap();
    let before = memory(&server);
    for _ in 0..5 {
        round().await.unwrap();
    }
    // The last sockets may still be closing.
    let as_before = async || (memory(&server).saturating_sub(before) < GROWTH).then_some(());
    confab_tests::wait::eventually("memory is back to normal", CLOSE_LIMIT, as_before).await.unwrap();
    bystanders.noticed_nothing().await;

    // Announced attachments that never arrive cost next to nothing while their sockets live.
    let before = memory(&server);
    let mut sockets = Vec::new();
    for n in 0..200 {
        let mut socket = WebSocket::open(&server.url()).await.unwrap();
        if n % 2 == 0 {
            socket.enter(&scene.account.token).await.unwrap();
        }
        socket.write(&[&[0x82, 0xff][..], &1_000_000u64.to_be_bytes(), &[0; 4]].concat()).await.unwrap();
        sockets.push(socket);
    }
    let mut one = scene.socket().await.unwrap();
    assert_eq!(one.emit("message", scene.message("here")).await.unwrap()["ok"], true);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more for {} sockets", sockets.len());
}
