//! CONNECT, its data, and the permanent end of a connection.

use std::time::{Duration, Instant};

use confab_tests::api::Api;
use confab_tests::embedded::Embedded;
use confab_tests::raw::{Client, Polling, WebSocket, connect, event, text};
use confab_tests::stock::{Report, Stock, Transports};
use confab_tests::wait::eventually;
use serde_json::{Value, json};

use super::bystanders::Bystanders;
use super::{CLOSE_LIMIT, Scene};
use crate::world;

#[tokio::test]
async fn bad_token_is_a_connect_error_and_ends_the_socket() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let revoked = scene.api.signup().await.unwrap();
    scene.api.get("/api/auth/logout", &revoked).await.unwrap().expect(200).unwrap();
    let [head, body, _] = scene.account.token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut packets =
        vec!["40".to_string(), "40{}".into(), "40[]".into(), "40nonsense".into(), r#"40{"token":7}"#.into()];
    packets.extend(["", "garbage", "a.b.c", &format!("{head}.{body}.AAAA"), &revoked.token].map(connect));
    for packet in packets {
        let mut socket = WebSocket::open(&scene.url).await.unwrap();
        socket.send(&packet).await.unwrap();
        let refused = socket.refused().await.unwrap();
        assert_eq!(refused["data"], json!({"code": "unauthorized", "status": 401}), "{packet}");
        assert!(refused["message"].as_str().is_some_and(|message| !message.is_empty()));
        socket.closed(CLOSE_LIMIT).await.unwrap();
    }
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn stock_clients_do_not_reconnect_after_a_rejection() {
    let url = world::embedded().await.url();
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        for transports in [json!(["polling", "websocket"]), json!(["websocket"])] {
            let socket = stock.open(&url, json!({"auth": {"token": "garbage"}, "transports": transports}));
            let error = socket.state("connect_error").await.unwrap();
            assert_eq!(error["data"], json!({"code": "unauthorized", "status": 401}), "{error}");
        }
    }
}

#[tokio::test]
async fn the_authorization_header_also_authenticates() {
    let scene = Scene::new().await.unwrap();
    let bearer = format!("Bearer {}", scene.account.token);
    let mut socket = WebSocket::open_with(&scene.url, &[("Authorization", &bearer)]).await.unwrap();
    socket.send("40").await.unwrap();
    assert!(socket.entered().await.unwrap()["sid"].as_str().unwrap() != socket.open["sid"].as_str().unwrap());
    assert_eq!(
        socket.emit("message", scene.message("hi")).await.unwrap()["message"]["sender"]["id"],
        *scene.account.id
    );
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        let options = json!({"extraHeaders": {"Authorization": bearer}, "transports": ["polling", "websocket"]});
        stock.open(&scene.url, options).state("connect").await.unwrap();
    }
}

#[tokio::test]
async fn only_one_namespace_and_one_connect_are_accepted() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut socket = scene.socket().await.unwrap();
    socket.send(&format!("40/admin,{}", json!({"token": scene.account.token}))).await.unwrap();
    let refused = socket.receive().await.unwrap();
    let data = serde_json::from_str::<Value>(refused.strip_prefix("44/admin,").unwrap()).unwrap();
    assert_eq!(data["data"], json!({"code": "not_found", "status": 404}));
    // An event to that namespace is ignored, and `/` continues.
    socket.send(r#"42/admin,["message",{}]"#).await.unwrap();
    assert_eq!(socket.emit("message", scene.message("still here")).await.unwrap()["ok"], true);

    socket.send(&connect(&scene.account.token)).await.unwrap();
    assert_eq!(socket.closed(CLOSE_LIMIT).await.unwrap(), Some(1002));

    let mut early = WebSocket::open(&scene.url).await.unwrap();
    early.send(&event("message", &scene.message("too early"), 1)).await.unwrap();
    assert_eq!(early.closed(CLOSE_LIMIT).await.unwrap(), Some(1002));
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn packets_in_one_write_with_connect_are_handled_after_it_in_order() {
    let scene = Scene::new().await.unwrap();
    for round in 0..20 {
        let mut socket = WebSocket::open(&scene.url).await.unwrap();
        let mut flight = text(&connect(&scene.account.token));
        flight.extend(text(&event("joinRoom", &json!(scene.room), 1)));
        flight.extend((0..5).flat_map(|n| text(&event("message", &scene.message(format!("{round} {n}")), 2 + n))));
        socket.write(&flight).await.unwrap();
        socket.entered().await.unwrap();
        let joined = socket.ack(1).await.unwrap();
        assert_eq!(joined["lastSeq"], round * 5, "{joined}");
        for n in 0..5 {
            let ack = socket.ack(2 + n).await.unwrap();
            assert_eq!(
                (&ack["message"]["seq"], &ack["message"]["content"]),
                (&json!(round * 5 + n + 1), &json!(format!("{round} {n}")))
            );
            assert_eq!(socket.event("message").await.unwrap(), ack["message"]);
        }
    }
    let polling = async |packets: &[String]| {
        let mut client = Polling::open(&scene.url).await?;
        client.send_all(packets).await?;
        anyhow::Ok((client.ack(1).await?, client.ack(2).await?, client.event("message").await?))
    };
    let packets = [
        connect(&scene.account.token),
        event("joinRoom", &json!(scene.room), 1),
        event("message", &scene.message("p"), 2),
    ];
    let (joined, sent, received) = polling(&packets).await.unwrap();
    assert_eq!((&joined["lastSeq"], &sent["message"]["seq"]), (&json!(100), &json!(101)));
    assert_eq!(received, sent["message"]);
}

#[tokio::test]
async fn stock_clients_may_emit_before_they_are_connected() {
    let scene = Scene::new().await.unwrap();
    let stock = Stock::javascript().unwrap();
    for (round, transports) in
        [json!(["polling", "websocket"]), json!(["websocket"]), json!(["polling"])].into_iter().enumerate()
    {
        let socket = stock.open(&scene.url, json!({"auth": {"token": scene.account.token}, "transports": transports}));
        let joined = socket.emit_later("joinRoom", vec![json!(scene.room)]);
        let sent = socket.emit_later("message", vec![scene.message("early")]);
        assert_eq!(joined.await.unwrap()[0]["lastSeq"], round);
        let sent = sent.await.unwrap();
        assert_eq!(sent[0]["message"]["seq"], round + 1);
        let received = |reports: &[Report]| {
            let mine = |report: &Report| matches!(report, Report::Event(name, received) if name == "message" && received[0] == sent[0]["message"]);
            (reports.iter().filter(|report| mine(report)).count() == 1).then_some(())
        };
        socket.until("its own message", CLOSE_LIMIT, received).await.unwrap();
    }
}

#[tokio::test]
async fn logout_ends_its_sockets_permanently() {
    let server = world::embedded().await;
    let bystanders = Bystanders::at(server).await.unwrap();
    let scene = Scene::new().await.unwrap();
    let mut stock = Vec::new();
    for client in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        for transports in [Transports::Upgrade, Transports::WebSocket, Transports::Polling] {
            stock.push(client.connect(&scene.url, &scene.account.token, transports).await.unwrap());
        }
    }
    let mut socket = scene.member().await.unwrap();
    scene.api.get("/api/auth/logout", &scene.account).await.unwrap().expect(200).unwrap();
    assert_eq!(socket.event("sessionEnded").await.unwrap(), json!({"code": "logged_out"}));
    socket.disconnected().await.unwrap();
    socket.closed(CLOSE_LIMIT).await.unwrap();
    for client in &stock {
        client.state("disconnect").await.unwrap();
        assert_eq!(client.events("sessionEnded"), [json!({"code": "logged_out"})]);
    }
    // A stock client that reconnects would have done so after one second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again =
        |report: &Report| matches!(report, Report::State(kind, _) if kind == "reconnect" || kind == "connect_error");
    assert!(stock.iter().all(|client| !client.reports().iter().any(again)));
    bystanders.noticed_nothing().await;
}

#[tokio::test]
async fn logout_at_one_gateway_ends_the_sockets_at_the_other() {
    let [first, second]: [Api; 2] =
        world::gateways(world::cluster().await).try_into().unwrap_or_else(|_| panic!("two gateways"));
    // The promise is one second; on a busy machine the best of five attempts shows it.
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let account = first.signup().await.unwrap();
        let mut socket = WebSocket::connect(&second.url, &account.token).await.unwrap();
        let mut polling = Polling::connect(&first.url, &account.token).await.unwrap();
        first.get("/api/auth/logout", &account).await.unwrap().expect(200).unwrap();
        let began = Instant::now();
        assert_eq!(socket.event("sessionEnded").await.unwrap(), json!({"code": "logged_out"}));
        assert_eq!(polling.event("sessionEnded").await.unwrap(), json!({"code": "logged_out"}));
        fastest = fastest.min(began.elapsed());
        socket.closed(CLOSE_LIMIT).await.unwrap();
        let refused = async || {
            let mut again = WebSocket::open(&second.url).await.ok()?;
            again.send(&connect(&account.token)).await.ok()?;
            again.refused().await.ok()
        };
        assert_eq!(refused().await.unwrap()["data"]["code"], "unauthorized");
    }
    assert!(fastest <= Duration::from_secs(1), "{fastest:?}");
}

#[tokio::test]
async fn token_expires_while_its_socket_is_open() {
    let server = Embedded::start(&[("CONFAB_TOKEN_TTL", "2s")]).await.unwrap();
    let scene = Scene::at(&server).await.unwrap();
    let account = scene.api.signup().await.unwrap();
    let mut socket = WebSocket::connect(&server.url(), &account.token).await.unwrap();
    let mut polling = Polling::connect(&server.url(), &account.token).await.unwrap();
    let idle = Polling::connect(&server.url(), &account.token).await.unwrap();
    for ended in [socket.event("sessionEnded").await, polling.event("sessionEnded").await] {
        assert_eq!(ended.unwrap(), json!({"code": "expired"}));
    }
    socket.disconnected().await.unwrap();
    socket.closed(CLOSE_LIMIT).await.unwrap();
    // A client that does not read the end costs no CPU time while it waits.
    let before = busy(&server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(busy(&server) - before < 30, "{} ticks of CPU in one second", busy(&server) - before);
    drop(idle);
    // Clocks may differ by some seconds; then the token is rejected permanently.
    let refused = async || {
        let mut late = WebSocket::open(&server.url()).await.ok()?;
        late.send(&connect(&account.token)).await.ok()?;
        late.refused().await.ok()
    };
    let refused = eventually("the token is rejected", Duration::from_secs(20), refused).await.unwrap();
    assert_eq!(refused["data"], json!({"code": "unauthorized", "status": 401}));
}

/// Returns the CPU time that a server has used, in ticks of 10 ms.
fn busy(server: &Embedded) -> u64 {
    let pid = server.daemon().running().expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its figures");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect::<Vec<_>>();
    fields[11..13].iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
