//! Faults of Postgres and Redis: they die, freeze, return empty, or publish wrong data.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::super::history::Restored;
use super::super::proxy::Mode;
use super::super::world::World;
use super::processes::{Leaver, freeze, thaw};
use crate::plan::Role;
use crate::wait::eventually;

/// How long the network loses every packet.
const PACKET_LOSS_TIME: Duration = Duration::from_secs(6);
/// Time limit, when faults overlap, until clients chat again.
const CHAT_AGAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long Redis is frozen after a user has logged out.
const REDIS_FREEZE: Duration = Duration::from_secs(6);
/// How long events are appended between the copy of the database and its restore, which loses these events.
const LOST_LOG_TIME: Duration = Duration::from_secs(2);
/// Time limit for an event that must happen soon.
const EVENT_LIMIT: Duration = Duration::from_secs(20);

/// Kills servers with `kill -9` and restarts them after a while.
pub(super) async fn away(world: &World, role: Role, hold: Duration) -> anyhow::Result<String> {
    world.cluster.kill((role, 1)).await?;
    sleep(hold).await;
    world.cluster.start((role, 1)).await?;
    Ok(format!("{} was away for {hold:?}", role.name()))
}

/// Freezes Redis; meanwhile a user logs out.
pub(super) async fn redis_stopped(world: &Arc<World>) -> anyhow::Result<String> {
    let leaver = Leaver::arrive(world, 1).await?;
    let frozen = freeze(world, (Role::Redis, 1)).await?;
    let left = leaver.leave(world, &[2, 1]).await;
    sleep(REDIS_FREEZE).await;
    thaw(&frozen);
    left?;
    Ok(format!("redis was frozen for more than {REDIS_FREEZE:?}, and a user logged out during that time"))
}

/// Checks that most events reach the gateways as hints, not by reading the log.
pub(super) async fn hints_arrive(world: &World, within: Duration) -> anyhow::Result<()> {
    let plan = &world.cluster.plan;
    let sum = async |role: Role, name: &str| {
        let mut values = Vec::new();
        for n in 1..=plan.count(role) {
            values.push(world.metric((role, n), name).await?);
        }
        anyhow::Ok(values)
    };
    let look = async || {
        let appended = sum(Role::Message, "confab_message_appended_total").await?.into_iter().sum::<f64>();
        anyhow::Ok((appended, sum(Role::Gateway, "confab_follower_repaired_events_total").await?))
    };
    let give_up = Instant::now() + CHAT_AGAIN_LIMIT;
    let mut deadline = Instant::now() + within;
    loop {
        let in_time = Instant::now() <= deadline;
        let before = look().await;
        sleep(Duration::from_secs(1)).await;
        // While an overlapping fault stops a program or prevents all clients from sending, no hint can arrive.
        let talk = match (before, look().await) {
            (Ok((appended, repaired)), Ok((since, repaired_since))) if since > appended => {
                Some((since - appended, repaired, repaired_since))
            }
            _ => None,
        };
        let Some((said, repaired, repaired_since)) = talk else {
            ensure!(Instant::now() < give_up, "the programs do not answer, or no client sends");
            deadline = Instant::now() + within;
            continue;
        };
        if repaired.iter().zip(&repaired_since).all(|(before, since)| since - before < said / 2.0) {
            return Ok(());
        }
        ensure!(
            in_time,
            "of {said} events the gateways read {repaired:?} to {repaired_since:?} from the log: hints do not arrive"
        );
    }
}

/// Loses every packet to and from Redis, without closing connections.
pub(super) async fn redis_blackholed(world: &World) -> anyhow::Result<String> {
    let before = world.bus.harm();
    world.bus.set(Mode::Blackhole);
    sleep(PACKET_LOSS_TIME).await;
    world.bus.set(Mode::Pass);
    let swallowed = world.bus.harm() - before;
    ensure!(swallowed > 0, "no bytes were in transit");
    Ok(format!("{swallowed} chunks were swallowed within {PACKET_LOSS_TIME:?}"))
}

/// Shuts Postgres down gracefully and restarts it.
pub(super) async fn postgres_restarted(world: &World) -> anyhow::Result<String> {
    world.cluster.stop((Role::Postgres, 1)).await?;
    world.cluster.start((Role::Postgres, 1)).await?;
    Ok("postgres was restarted".into())
}

/// Restores the database to an older copy of its files, and renews the epoch as an operator would.
pub(super) async fn postgres_restored(world: &World) -> anyhow::Result<String> {
    let postgres = (Role::Postgres, 1);
    let data = world.cluster.daemon(postgres)?.work;
    let copy = data.with_extension("copy");
    world.cluster.stop(postgres).await?;
    let copied = world.recorder.now();
    copy_files(&data, &copy)?;
    world.cluster.start(postgres).await?;
    let acknowledged = world.recorder.acknowledged();
    let goes_on = async || (world.recorder.acknowledged() > acknowledged).then_some(());
    eventually("a message that will be lost is acknowledged", EVENT_LIMIT, goes_on).await?;
    sleep(LOST_LOG_TIME).await;
    world.cluster.kill(postgres).await?;
    let ended = world.recorder.now();
    let lost = world.recorder.acknowledged() - acknowledged;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&copy, &data)?;
    world.cluster.start(postgres).await?;
    let message = world.cluster.daemon((Role::Message, 1))?;
    let mut renew = Command::new(&message.program);
    renew.arg("renew-epoch").current_dir(&message.work).envs(message.environment);
    let renewed = tokio::task::spawn_blocking(move || renew.output()).await??;
    ensure!(renewed.status.success(), "renew-epoch: {}", String::from_utf8_lossy(&renewed.stderr));
    let renewed = world.recorder.now();
    world.recorder.note(|records| records.restored = Some(Restored { copied, ended, renewed }));
    Ok(format!("postgres was restored to {:?} earlier; {lost} acknowledged messages are lost", ended - copied))
}

/// Copies files with owners and modes, which Postgres requires.
fn copy_files(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// Publishes garbage, and truncated, forged, repeated and huge messages, on the channels of the log.
pub(super) async fn garbage(world: &World) -> anyhow::Result<String> {
    let dropped = async || {
        let mut sum = 0.0;
        for n in 1..=world.cluster.plan.gateways {
            sum += world.metric((Role::Gateway, n), "confab_bus_dropped_total").await?;
        }
        anyhow::Ok(sum)
    };
    let before = dropped().await?;
    let mut redis = Redis::connect(world.cluster.plan.port((Role::Redis, 1))).await?;
    let (channel, genuine) =
        timeout(EVENT_LIMIT, redis.intercept("confab.log.*")).await.context("no message on the bus")??;
    let mut redis = Redis::connect(world.cluster.plan.port((Role::Redis, 1))).await?;
    let mut forged = genuine.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let huge = vec![0x5a; 5_000_000];
    let payloads: [&[u8]; 6] = [b"", b"garbage", &genuine[..genuine.len() / 2], &forged, &genuine, &huge];
    for payload in payloads {
        let received = redis.publish(&channel, payload).await?;
        ensure!(received > 0, "{channel} has no subscriber");
    }
    let noticed = async || (dropped().await.ok()? > before + 3.0).then_some(());
    eventually("the gateways drop the messages", EVENT_LIMIT, noticed).await?;
    Ok(format!("{} invalid publications on {channel}; {} were dropped", payloads.len(), dropped().await? - before))
}

/// A connection with RESP 2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
struct Redis {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Redis {
    async fn connect(port: u16) -> anyhow::Result<Self> {
        Ok(Self { stream: TcpStream::connect(("127.0.0.1", port)).await?, read: Vec::new() })
    }

    async fn send(&mut self, parts: &[&[u8]]) -> anyhow::Result<()> {
        let mut command = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            command.extend(format!("${}\r\n", part.len()).into_bytes());
            command.extend_from_slice(part);
            command.extend_from_slice(b"\r\n");
        }
        Ok(self.stream.write_all(&command).await?)
    }

    /// Publishes; returns the number of receivers.
    async fn publish(&mut self, channel: &str, payload: &[u8]) -> anyhow::Result<u64> {
        self.send(&[b"PUBLISH", channel.as_bytes(), payload]).await?;
        let line = self.line().await?;
        line.strip_prefix(':').context(line.clone())?.parse().map_err(Into::into)
    }

    /// Returns the next publication on a channel that matches the pattern.
    async fn intercept(&mut self, pattern: &str) -> anyhow::Result<(String, Vec<u8>)> {
        self.send(&[b"PSUBSCRIBE", pattern.as_bytes()]).await?;
        loop {
            let count = self.line().await?.strip_prefix('*').context("an array")?.parse::<usize>()?;
            let mut parts = Vec::new();
            for _ in 0..count {
                let line = self.line().await?;
                if let Some(length) = line.strip_prefix('$') {
                    parts.push(self.bytes(length.parse()?).await?);
                }
            }
            if let [kind, _, channel, payload] = &parts[..]
                && kind == b"pmessage"
            {
                return Ok((String::from_utf8(channel.clone())?, payload.clone()));
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.drain(..end + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8(line[..end].to_vec())?);
            }
            self.fill().await?;
        }
    }

    async fn bytes(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        while self.read.len() < length + 2 {
            self.fill().await?;
        }
        let mut bytes = self.read.drain(..length + 2).collect::<Vec<_>>();
        bytes.truncate(length);
        Ok(bytes)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        ensure!(
            timeout(EVENT_LIMIT, self.stream.read_buf(&mut self.read)).await?? > 0,
            "Redis has closed the connection"
        );
        Ok(())
    }
}
