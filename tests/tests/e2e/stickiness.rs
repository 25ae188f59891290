//! No stickiness: any gateway may receive a request of a session.

use std::time::Duration;

use confab_tests::api::{Account, Api};
use confab_tests::cluster::Cluster;
use confab_tests::plan::Role;
use confab_tests::raw::{Client, Polling, event};
use confab_tests::stock::{Report, Socket, Stock, Transports};
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The large test: the number of stock clients, and how many share a process, a room, and connect at once.
const CLIENTS: usize = 1000;
const PROCESS: usize = 250;
const ROOM: usize = 20;
const CONCURRENT_CONNECTS: usize = 50;

/// Returns three gateways behind a round-robin load balancer.
async fn three() -> MutexGuard<'static, Cluster> {
    static SHARED: OnceCell<Mutex<Cluster>> = OnceCell::const_new();
    let shared =
        SHARED.get_or_init(async || Mutex::new(Cluster::scratch(3, 1, &[]).await.expect("the cluster starts")));
    let cluster = shared.await.lock().await;
    cluster.up().await.expect("the cluster is complete");
    cluster
}

fn balancer(cluster: &Cluster) -> Api {
    Api::new(cluster.plan.url((Role::Lb, 1)))
}

fn states(socket: &Socket, kind: &str) -> usize {
    socket.reports().iter().filter(|report| matches!(report, Report::State(name, _) if name == kind)).count()
}

/// Returns the received contents, in order.
fn received(socket: &Socket) -> Vec<Value> {
    socket.events("message")
}

async fn joined(
    stock: &Stock,
    url: &str,
    account: &Account,
    transports: Transports,
    room: &str,
) -> anyhow::Result<Socket> {
    let socket = stock.connect(url, &account.token, transports).await?;
    let ack = socket.emit("joinRoom", json!({"roomId": room, "after": 0})).await?;
    anyhow::ensure!(ack["ok"] == true, "joinRoom: {ack}");
    Ok(socket)
}

async fn receives(socket: &Socket, history: &[Value]) -> anyhow::Result<()> {
    let all = |_: &[Report]| (received(socket).len() >= history.len()).then_some(());
    socket.until("all of the room", Duration::from_secs(60), all).await?;
    anyhow::ensure!(received(socket) == history, "received {:?} instead of {history:?}", received(socket));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_stock_clients_upgrade_through_round_robin() {
    let cluster = three().await;
    let api = balancer(&cluster);
    let account = api.signup().await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..CLIENTS / ROOM {
        rooms.push(api.room(&account).await.unwrap());
    }
    let processes = (0..CLIENTS / PROCESS).map(|_| Stock::javascript().unwrap()).collect::<Vec<_>>();
    let mut sockets = Vec::new();
    let mut connecting = JoinSet::new();
    for n in 0..CLIENTS {
        let (stock, url, account, room) =
            (processes[n % processes.len()].clone(), api.url.clone(), account.clone(), rooms[n / ROOM].clone());
        connecting.spawn(async move {
            let socket = joined(&stock, &url, &account, Transports::Upgrade, &room).await?;
            socket.state("upgrade").await?;
            anyhow::Ok((room, socket))
        });
        if connecting.len() >= CONCURRENT_CONNECTS {
            sockets.push(connecting.join_next().await.unwrap().unwrap().unwrap());
        }
    }
    while let Some(connected) = connecting.join_next().await {
        sockets.push(connected.unwrap().unwrap());
    }
    let say = |(room, socket): &(String, Socket)| {
        socket.emit_later("message", vec![json!({"roomId": room, "content": "here"})])
    };
    let sends = sockets.iter().map(say).collect::<Vec<_>>();
    for ack in sends {
        assert_eq!(ack.await.unwrap()[0]["ok"], true);
    }
    for room in &rooms {
        let history = api.history(room, &account, 200).await.unwrap();
        assert_eq!(history.len(), ROOM);
        for (_, socket) in sockets.iter().filter(|(of, _)| of == room) {
            receives(socket, &history).await.unwrap();
        }
    }
    for (_, socket) in &sockets {
        let seen = ["connect", "upgrade", "connect_error", "disconnect", "reconnect"].map(|kind| states(socket, kind));
        assert_eq!(seen, [1, 1, 0, 0, 0], "{:?}", socket.reports());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_client_may_use_any_gateway() {
    let cluster = three().await;
    let api = balancer(&cluster);
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let mut sockets = Vec::new();
    for stock in [Stock::javascript().unwrap(), Stock::python().unwrap()] {
        for transports in [Transports::Polling, Transports::Polling, Transports::Upgrade] {
            sockets.push(joined(&stock, &api.url, &account, transports, &room).await.unwrap());
        }
    }
    for round in 0..10 {
        for socket in &sockets {
            let ack =
                socket.emit("message", json!({"roomId": room, "content": format!("round {round}")})).await.unwrap();
            assert_eq!(ack["ok"], true, "{ack}");
        }
    }
    let history = api.history(&room, &account, 200).await.unwrap();
    assert_eq!(history.len(), sockets.len() * 10);
    for socket in &sockets {
        receives(socket, &history).await.unwrap();
        assert_eq!(states(socket, "disconnect"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_payload_through_another_gateway_is_accepted() {
    let settings = [("CONFAB_PING_INTERVAL", "500ms"), ("CONFAB_PING_TIMEOUT", "4s")];
    let cluster = Cluster::scratch(2, 1, &settings).await.unwrap();
    let [own, other] = [1, 2].map(|n| cluster.plan.url((Role::Gateway, n)));
    let api = Api::new(own.clone());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let client = Polling::connect(&own, &account.token).await.unwrap();
    let body = event("message", &json!({"roomId": room, "content": "x".repeat(10_000)}), 1);
    let sending = client.post_slowly(&other, &body, 24, Duration::from_millis(500));
    let (posted, fetched) = tokio::try_join!(sending, client.get_until("431[")).unwrap();
    assert_eq!((posted.status, posted.bytes), (200, b"ok".to_vec()));
    assert!(fetched.contains(r#""seq":1"#), "{fetched}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_dead_gateway_are_unknown_and_clients_restart() {
    let cluster = three().await;
    let api = balancer(&cluster);
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let mut sockets = Vec::new();
    for n in 0..12 {
        let transports = if n % 2 == 0 { Transports::Polling } else { Transports::Upgrade };
        sockets.push(joined(&stock, &api.url, &account, transports, &room).await.unwrap());
    }
    cluster.kill((Role::Gateway, 2)).await.unwrap();
    for socket in &sockets {
        // Clients at the dead gateway, or with a WebSocket through it, reconnect; the others are not affected.
        let again = async || {
            let (connected, left) = (states(socket, "connect"), states(socket, "disconnect"));
            if connected <= left {
                return None;
            }
            // A client that loses its session meanwhile never gets an answer.
            let ack =
                timeout(Duration::from_secs(3), socket.emit("joinRoom", json!({"roomId": room}))).await.ok()?.ok()?;
            (ack["ok"] == true && states(socket, "disconnect") == left).then_some(())
        };
        eventually("it is back in its room", Duration::from_secs(30), again).await.unwrap();
    }
    let returned = sockets.iter().filter(|socket| states(socket, "connect") > 1).count();
    assert!((1..sockets.len()).contains(&returned), "{returned}");
    let said = api
        .post("/api/messages", &account, json!({"roomId": room, "content": "still here"}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    for socket in &sockets {
        let all = |_: &[Report]| received(socket).contains(&said).then_some(());
        socket.until("a message", Duration::from_secs(10), all).await.unwrap();
    }
}

/// Sends a request of a session through the given gateway.
async fn poll(cluster: &Cluster, n: u16, method: Method, sid: &str, more: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={sid}{more}", cluster.plan.url((Role::Gateway, n)));
    let answer = reqwest::Client::new().request(method, url).body("6").send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Returns a member of a new room that polls by hand, its room and its account; the session is at gateway 1.
async fn polling(cluster: &Cluster) -> (Api, Account, String, Polling) {
    let api = Api::new(cluster.plan.url((Role::Gateway, 1)));
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let mut client = Polling::connect(&api.url, &account.token).await.unwrap();
    assert_eq!(client.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    (api, account, room, client)
}

async fn say(api: &Api, account: &Account, room: &str, content: &str) {
    api.post("/api/messages", account, json!({"roomId": room, "content": content})).await.unwrap().expect(201).unwrap();
}

/// Returns the stamps of various clients: seconds, milliseconds, a checksum of the time, the JavaScript client's own.
fn stamps() -> [String; 4] {
    let now = jiff::Timestamp::now();
    [now.as_second().to_string(), now.as_millisecond().to_string(), "3421780262".into(), "7hw2kq3x".into()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_with_equal_stamps_get_each_event_once_by_any_route() {
    let cluster = three().await;
    let (api, account, room, client) = polling(&cluster).await;
    let kept = reqwest::Client::new();
    let mut received = String::new();
    for t in stamps() {
        for round in 0..12 {
            let content = format!("{t} round {round}.");
            say(&api, &account, &room, &content).await;
            // Through the load balancer, or through one gateway after another; on new or existing connections.
            let via = if round % 2 == 0 { (Role::Lb, 1) } else { (Role::Gateway, round / 2 % 3 + 1) };
            let url =
                format!("{}/socket.io/?EIO=4&transport=polling&sid={}&t={t}", cluster.plan.url(via), client.sid());
            let http = if round % 3 == 0 { kept.clone() } else { reqwest::Client::new() };
            while !received.contains(&content) {
                let answer = http.get(&url).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{content}");
                received.push_str(&answer.text().await.unwrap());
            }
        }
        for round in 0..12 {
            assert_eq!(received.matches(&format!("{t} round {round}.")).count(), 1, "{t} {round}: {received}");
        }
    }
}

/// Sends a GET whose connection breaks with its answer unread.
async fn lose(cluster: &Cluster, n: u16, sid: &str, t: &str) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(([127, 0, 0, 1], cluster.plan.port((Role::Gateway, n))).into()).await.unwrap();
    let request = format!("GET /socket.io/?EIO=4&transport=polling&sid={sid}&t={t} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'H');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_poll_answer_is_repeated_by_any_route() {
    let cluster = three().await;
    let (api, account, room, client) = polling(&cluster).await;
    let sid = client.sid().to_owned();
    let get = async |n, t: &str| poll(&cluster, n, Method::GET, &sid, &format!("&t={t}")).await.unwrap();
    for (round, (lost, again)) in [(1, 2), (2, 1), (2, 3), (3, 3)].into_iter().enumerate() {
        let t = format!("7hw2kq{round}x");
        // More than TCP accepts for a client that reads nothing.
        for part in 0..16 {
            say(&api, &account, &room, &format!("round {round} part {part} {}", "x".repeat(16_000))).await;
        }
        // All waiting packets are in one answer, or in two.
        lose(&cluster, lost, &sid, &t).await;
        let mut received = get(again, &t).await.1;
        while !received.contains(&format!("round {round} part 15 ")) {
            received.push_str(&get(again, "next").await.1);
        }
        for part in 0..16 {
            assert_eq!(received.matches(&format!("round {round} part {part} ")).count(), 1, "{round} {part}");
        }
    }
    // Also while the first attempt waits.
    let sent = say(&api, &account, &room, "at last");
    let (first, again, ()) = tokio::join!(get(2, "last"), get(3, "last"), sent);
    assert!(first.1.contains("at last"), "{first:?}");
    assert_eq!(first, again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_between_gateways_rejects_other_clients() {
    let cluster = three().await;
    let api = Api::new(cluster.plan.url((Role::Gateway, 1)));
    let account = api.signup().await.unwrap();
    let client = Polling::connect(&api.url, &account.token).await.unwrap();
    let url = format!(
        "http://127.0.0.1:{}/socket.io/?EIO=4&transport=polling&sid={}",
        cluster.plan.forward_port(1),
        client.sid()
    );
    let http = reqwest::Client::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let forged = format!("{now}.{}", "A".repeat(43));
    for method in [Method::GET, Method::POST, Method::DELETE] {
        assert_eq!(http.request(method.clone(), &url).send().await.unwrap().status(), 403);
        assert_eq!(http.request(method, &url).header("confab-forward", &forged).send().await.unwrap().status(), 403);
    }
    // A session id that names no node, or an unknown one, gets the protocol's own error.
    let unknown = ["x".repeat(30), "x".repeat(22), format!("{}x", &client.sid()[1..])];
    for sid in &unknown {
        let (status, body) = poll(&cluster, 2, Method::GET, sid, "").await.unwrap();
        assert_eq!((status, body), (400, r#"{"code":1,"message":"Session ID unknown"}"#.into()), "{sid}");
    }
}
