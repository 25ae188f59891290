//! Faults of clients: they stop reading, read slowly, vanish, connect all at once, or send everything three times.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::clients::sender::Letter;
use super::super::clients::{ANSWER_LIMIT, id, rest_outcome};
use super::super::history::Outcome;
use super::super::proxy::{Mode, Proxy};
use super::super::schedule::{Dice, Profile};
use super::super::world::World;
use crate::api::Api;
use crate::plan::Role;
use crate::raw::{Client, WebSocket};
use crate::wait::eventually;

/// The receive window of a stalled client, in bytes.
const WINDOW: u32 = 4096;
/// Messages of 16 KiB, more than an outbox and all buffers on the way hold; how many are in flight at once.
const FLOOD: usize = 2000;
const WAVE: usize = 10;
/// Time limit until the gateway closes a client that is too slow or has vanished.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// The rate of a slow reader, in bytes per second.
const SLOW_READER_RATE: u32 = 1024;
/// How many sockets disconnect at once; time limit for their return.
const CROWD: usize = 2000;
const LARGE_CROWD: usize = 5000;
const CROWD_ROOMS: usize = 50;
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// How many of them connect at once.
const CONCURRENT_CONNECTS: usize = 200;
/// Messages that are sent three times.
const THRICE: usize = 20;

/// Clients that stop reading.
pub(super) async fn stalled(world: &Arc<World>, n: u16) -> anyhow::Result<String> {
    let url = world.cluster.plan.url((Role::Gateway, n));
    overwhelmed(world, n, &url, "that read nothing").await
}

/// Clients that read one kilobyte per second.
pub(super) async fn slow(world: &Arc<World>, n: u16) -> anyhow::Result<String> {
    let proxy = Proxy::to(world.cluster.plan.port((Role::Gateway, n))).await?;
    proxy.set(Mode::Slow(SLOW_READER_RATE));
    let bit =
        overwhelmed(world, n, &format!("http://127.0.0.1:{}", proxy.port()), "that read a kilobyte a second").await?;
    ensure!(proxy.harm() > 0, "no bytes passed the proxy");
    Ok(bit)
}

/// Sends three clients in a separate room more than they read, until the gateway has closed them.
async fn overwhelmed(world: &Arc<World>, n: u16, url: &str, which: &str) -> anyhow::Result<String> {
    let room = world.api.room(&world.owner).await?;
    let closes = async || world.metric((Role::Gateway, n), "confab_outbox_closes_total").await;
    let before = closes().await?;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = WebSocket::open_narrow(url, WINDOW).await?;
        reader.enter(&world.owner.token).await?;
        let ack = reader.emit("joinRoom", json!(room)).await?;
        ensure!(ack["ok"] == true, "joinRoom: {ack}");
        readers.push(reader);
    }
    let mut writer = WebSocket::connect(&world.cluster.plan.url((Role::Gateway, 3 - n)), &world.owner.token).await?;
    let waves = vec![json!({"roomId": room, "content": "x".repeat(16_384)}); WAVE];
    let all_closed = async || Ok::<_, anyhow::Error>(closes().await? >= before + readers.len() as f64);
    for _ in 0..FLOOD / WAVE {
        for number in writer.emit_all("message", &waves).await? {
            let ack = timeout(ANSWER_LIMIT, writer.ack(number)).await.context("an acknowledgement")??;
            ensure!(ack["ok"] == true, "message: {ack}");
        }
        if all_closed().await? {
            break;
        }
    }
    let closed = async || all_closed().await.ok()?.then_some(());
    eventually("the gateway has closed them", CLOSE_LIMIT, closed).await?;
    Ok(format!("{} clients {which} were closed", readers.len()))
}

/// Clients that vanish without closing their connections.
pub(super) async fn vanished(world: &Arc<World>, n: u16) -> anyhow::Result<String> {
    const COUNT: usize = 20;
    let proxy = Proxy::to(world.cluster.plan.port((Role::Gateway, n))).await?;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let room = world.rooms[0].to_string();
    let mut sockets = Vec::new();
    for _ in 0..COUNT {
        let mut socket = WebSocket::connect(&url, &world.owner.token).await?;
        let ack = socket.emit("joinRoom", json!(room)).await?;
        ensure!(ack["ok"] == true, "joinRoom: {ack}");
        sockets.push(socket);
    }
    proxy.set(Mode::Blackhole);
    // The proxy swallows only bytes; it forwards the end of a connection by the gateway.
    let noticed = async {
        for socket in &mut sockets {
            socket.closed(CLOSE_LIMIT).await?;
        }
        anyhow::Ok(())
    };
    timeout(CLOSE_LIMIT, noticed).await.context("the gateway does not detect vanished clients")??;
    Ok(format!("{COUNT} clients vanished without closing their connections"))
}

/// Many sockets disconnect at once; all return and receive every message.
pub(super) async fn crowd_dropped(world: &Arc<World>, profile: Profile) -> anyhow::Result<String> {
    let count = if profile == Profile::Long { LARGE_CROWD } else { CROWD };
    let mut proxies = Vec::new();
    for n in 1..=world.cluster.plan.gateways {
        proxies.push(Proxy::to(world.cluster.plan.port((Role::Gateway, n))).await?);
    }
    let urls = proxies.iter().map(|proxy| format!("http://127.0.0.1:{}", proxy.port())).collect::<Vec<_>>();
    let mut rooms = Vec::new();
    for _ in 0..CROWD_ROOMS {
        rooms.push(world.api.room(&world.owner).await?);
    }
    let mut crowd =
        (0..count).map(|n| Visitor { room: rooms[n % rooms.len()].clone(), last_seq: None, socket: None }).collect();
    crowd = arrive(world, &urls, crowd).await?;
    proxies.iter().for_each(Proxy::cut);
    let begin = Instant::now();
    for visitor in &mut crowd {
        visitor.socket = None;
    }
    // The message that they miss.
    for room in &rooms {
        let said = world
            .api
            .post("/api/messages", &world.owner, json!({"roomId": room, "content": "while you were away"}))
            .await?;
        ensure!(said.status == 201, "{}", said.body);
    }
    let crowd =
        timeout(RETURN_LIMIT, arrive(world, &urls, crowd)).await.context("not all clients returned in time")??;
    ensure!(crowd.iter().all(|visitor| visitor.last_seq == Some(1)), "not all clients are complete");
    Ok(format!("{count} sockets disconnected at once and returned within {:.1} s", begin.elapsed().as_secs_f32()))
}

/// One of many clients.
struct Visitor {
    room: String,
    last_seq: Option<u64>,
    socket: Option<WebSocket>,
}

async fn arrive(world: &Arc<World>, urls: &[String], crowd: Vec<Visitor>) -> anyhow::Result<Vec<Visitor>> {
    let (mut arriving, mut arrived) = (JoinSet::new(), Vec::new());
    for (n, mut visitor) in crowd.into_iter().enumerate() {
        let (url, token) = (urls[n % urls.len()].clone(), world.owner.token.clone());
        arriving.spawn(async move {
            loop {
                // A client that is rejected or gets no answer retries.
                if let Ok(Ok(())) = timeout(ANSWER_LIMIT, visitor.arrive(&url, &token)).await {
                    return visitor;
                }
            }
        });
        if arriving.len() >= CONCURRENT_CONNECTS {
            arrived.extend(arriving.join_next().await.transpose()?);
        }
    }
    while let Some(visitor) = arriving.join_next().await {
        arrived.push(visitor?);
    }
    Ok(arrived)
}

impl Visitor {
    async fn arrive(&mut self, url: &str, token: &str) -> anyhow::Result<()> {
        let mut socket = WebSocket::connect(url, token).await?;
        let mut join = async |after: Option<u64>| {
            let argument = match after {
                None => json!({"roomId": self.room}),
                Some(after) => json!({"roomId": self.room, "after": after}),
            };
            let ack = socket.emit("joinRoom", argument).await?;
            ensure!(ack["ok"] == true, "joinRoom: {ack}");
            Ok((ack["lastSeq"].as_u64().context("lastSeq")?, ack))
        };
        let (mut last_seq, mut ack) = join(self.last_seq).await?;
        if let Some(mut upto) = self.last_seq {
            // One answer may not contain all messages; the next one continues.
            loop {
                for message in ack["messages"].as_array().context("messages")? {
                    assert_eq!(message["seq"], upto + 1, "after {upto} of {last_seq}");
                    upto += 1;
                }
                if ack["complete"] == true {
                    break;
                }
                (last_seq, ack) = join(Some(upto)).await?;
            }
            assert_eq!(upto, last_seq);
        }
        self.last_seq = Some(last_seq);
        self.socket = Some(socket);
        Ok(())
    }
}

/// Makes each send three times at once, through different gateways.
pub(super) async fn sent_thrice(world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<String> {
    let account = world.api.signup().await?;
    let sender = id(&account)?;
    let gateways = [world.gateway(0), world.gateway(1), world.api.url.clone()];
    for _ in 0..THRICE {
        let letter = Letter::new(world, sender, &world.rooms, dice);
        let send = async |url: &String| {
            let (api, begun) = (Api::new(url.clone()), world.recorder.now());
            let answer = timeout(ANSWER_LIMIT, api.post("/api/messages", &account, letter.payload.clone())).await;
            let outcome = rest_outcome(answer.ok());
            world.recorder.tried(letter.number, begun, None, outcome.clone());
            outcome
        };
        let (first, second, third) = tokio::join!(send(&gateways[0]), send(&gateways[1]), send(&gateways[2]));
        let one = matches!(first, Outcome::Acked(_)) && first == second && second == third;
        ensure!(one, "three answers: {first:?} {second:?} {third:?}");
    }
    Ok(format!("{THRICE} messages were sent three times at once"))
}
