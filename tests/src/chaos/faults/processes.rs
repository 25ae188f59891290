//! Programs that are killed, frozen, or shut down.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::clients::bystander::Bystander;
use super::super::clients::{ANSWER_LIMIT, id, listener, rest_outcome};
use super::super::history::{Outcome, Receiver};
use super::super::world::World;
use crate::api::{Account, Api, PASSWORD, unique};
use crate::form::Form;
use crate::plan::{Member, Role};
use crate::wait::eventually;

/// How long a killed process is away.
const DOWNTIME: Duration = Duration::from_secs(3);
/// The connections of two gateways to two replicas; each may send one more call after the replica died.
const LAST_WRITTEN: usize = 4;
/// Fewer acknowledgements during the fault mean that chat was affected.
const CHAT: usize = 20;

/// Kills processes with `kill -9` and restarts them.
pub(super) async fn killed(world: &World, members: &[Member]) -> anyhow::Result<String> {
    kill(world, members).await?;
    sleep(DOWNTIME).await;
    start(world, members).await?;
    Ok(format!("killed {}", names(members)))
}

/// A replica dies immediately before a commit, or after a commit before any hint or answer. The other replica
/// continues.
pub(super) async fn killed_at(world: &World, point: &'static str) -> anyhow::Result<String> {
    let replicas = (1..=world.cluster.plan.replicas).map(|n| (Role::Message, n)).collect::<Vec<_>>();
    let appended = async |member: &Member| world.metric(*member, "confab_message_appended_total").await;
    let mut before = Vec::new();
    for member in &replicas {
        before.push(appended(member).await?);
    }
    // A replica that has something to commit.
    let busy = async || {
        for (member, before) in replicas.iter().zip(&before) {
            if appended(member).await.ok()? > *before {
                return Some(*member);
            }
        }
        None
    };
    let member = eventually("a replica appends", Duration::from_secs(20), busy).await?;
    let daemon = world.cluster.daemon(member)?;
    world.arm(member, point, "abort").await?;
    let died = async || daemon.running().is_none().then_some(());
    eventually("it dies", Duration::from_secs(20), died).await?;
    sleep(DOWNTIME).await;
    start(world, &[member]).await?;
    Ok(format!("{} died {}", names(&[member]), point.replace('-', " ")))
}

/// Kills all replicas of a service. Open sockets continue to chat, and requests that need the service are rejected in
/// time.
pub(super) async fn service_killed(world: &World, role: Role) -> anyhow::Result<String> {
    let members = [(role, 1), (role, 2)];
    kill(world, &members).await?;
    let before = world.recorder.acknowledged();
    let refused = refused(world, role).await;
    sleep(DOWNTIME).await;
    let chatted = world.recorder.acknowledged() - before;
    start(world, &members).await?;
    refused?;
    ensure!(chatted >= CHAT, "only {chatted} messages were acknowledged during the fault");
    Ok(format!("killed {}; {chatted} messages were acknowledged during the fault", names(&members)))
}

/// Checks that a request that needs the service fails with 503. The first calls may be written to connections that have
/// just broken: their outcome is unknown to the gateway, which answers 504.
async fn refused(world: &World, role: Role) -> anyhow::Result<()> {
    for _ in 0..LAST_WRITTEN {
        let answered = called(world, role).await;
        if answered != Outcome::Refused(504, "timeout".into()) {
            ensure!(
                answered == Outcome::Refused(503, "unavailable".into()),
                "a request that needs the service got {answered:?}"
            );
            return Ok(());
        }
    }
    bail!("requests that need the service got 504 {LAST_WRITTEN} times")
}

/// Returns the outcome of a request that needs the service.
async fn called(world: &World, role: Role) -> Outcome {
    let begun = world.recorder.now();
    let answer = async {
        let owner = &world.owner;
        match role {
            Role::Auth => {
                let credentials = json!({"username": owner.username, "password": PASSWORD});
                world.api.call(Method::POST, "/api/auth/login", None, Some(credentials)).await
            }
            Role::Room => world.api.post("/api/rooms", owner, json!({"name": unique("room")})).await,
            _ => world.api.upload(owner, Form::new().file("x", "text/plain", b"x")).await,
        }
    };
    let outcome = rest_outcome(tokio::time::timeout(ANSWER_LIMIT, answer).await.ok());
    world.recorder.called(format!("a request that needs {}", role.name()), begun, outcome.clone());
    outcome
}

/// SIGSTOP, and SIGCONT after a while.
pub(super) async fn stopped(world: &World, member: Member, hold: Duration) -> anyhow::Result<String> {
    let frozen = freeze(world, member).await?;
    sleep(hold).await;
    thaw(&frozen);
    Ok(format!("{} processes of {}-{} stood still for {hold:?}", frozen.len(), member.0.name(), member.1))
}

/// Kills a gateway with `kill -9` and restarts it. A client at another gateway must not notice.
pub(super) async fn gateway_killed(world: &Arc<World>, n: u16) -> anyhow::Result<String> {
    let bystander = Bystander::arrive(world, other(n)).await?;
    let killed = killed(world, &[(Role::Gateway, n)]).await;
    Ok(format!("{}; {}", killed?, bystander.leave().await?))
}

/// Freezes a gateway; meanwhile a user with a socket at it logs out at another gateway.
pub(super) async fn gateway_stopped(world: &Arc<World>, n: u16, hold: Duration) -> anyhow::Result<String> {
    let leaver = Leaver::arrive(world, n).await?;
    let bystander = Bystander::arrive(world, other(n)).await?;
    let frozen = freeze(world, (Role::Gateway, n)).await?;
    sleep(Duration::from_secs(1)).await;
    let left = leaver.leave(world, &[other(n)]).await;
    sleep(hold).await;
    thaw(&frozen);
    left?;
    Ok(format!(
        "gateway-{n} stood still for {hold:?}, and a user logged out during that time; {}",
        bystander.leave().await?
    ))
}

/// Returns the other of two gateways.
fn other(gateway: u16) -> u16 {
    3 - gateway
}

/// Shuts down and restarts each program, one after another.
pub(super) async fn rolling_restart(world: &World) -> anyhow::Result<String> {
    let members = world.cluster.plan.members().into_iter().filter(|member| member.0.is_ours()).collect::<Vec<_>>();
    for member in &members {
        let daemon = world.cluster.daemon(*member)?;
        daemon.leave(Duration::from_secs(20)).await.with_context(|| names(&[*member]))?;
        world.cluster.start(*member).await?;
    }
    Ok(format!("{} programs were restarted", members.len()))
}

/// A user with a socket at one gateway who logs out at another gateway.
pub(super) struct Leaver {
    account: Account,
    receiver: usize,
    listening: tokio::task::JoinHandle<()>,
}

impl Leaver {
    pub(super) async fn arrive(world: &Arc<World>, gateway: u16) -> anyhow::Result<Self> {
        let account = world.api.signup().await?;
        let (name, rooms) = (format!("user who logs out, at gateway {gateway}"), world.rooms.clone());
        let receiver = world.recorder.receiver(Receiver { name, user: id(&account)?, rooms, ..Receiver::default() });
        let listening =
            tokio::spawn(listener::listen(world.clone(), account.clone(), receiver, usize::from(gateway) - 1, true));
        let received = async || world.recorder.has_joined(receiver).then_some(());
        eventually("it listens", Duration::from_secs(20), received).await?;
        Ok(Self { account, receiver, listening })
    }

    /// Logs out through the first of these gateways, bypassing its proxy; soon all of them reject the token.
    pub(super) async fn leave(self, world: &World, gateways: &[u16]) -> anyhow::Result<()> {
        let apis = gateways.iter().map(|n| Api::new(world.cluster.plan.url((Role::Gateway, *n)))).collect::<Vec<_>>();
        let begun = world.recorder.now();
        let answer =
            tokio::time::timeout(ANSWER_LIMIT, apis[0].post("/api/auth/logout", &self.account, Value::Null)).await;
        let outcome = rest_outcome(answer.ok());
        world.recorder.called("logout", begun, outcome.clone());
        let at = world.recorder.now();
        world.recorder.note(|records| records.receivers[self.receiver].logged_out = Some(at));
        ensure!(outcome == Outcome::Done, "logout: {outcome:?}");
        // The socket listens until the run ends, since late events are violations.
        drop(self.listening);
        for api in &apis {
            let refused = async || (api.get("/api/auth/me", &self.account).await.ok()?.status == 401).then_some(());
            eventually("the token is rejected", Duration::from_secs(5), refused).await?;
        }
        Ok(())
    }
}

async fn kill(world: &World, members: &[Member]) -> anyhow::Result<()> {
    for member in members {
        ensure!(world.cluster.daemon(*member)?.running().is_some(), "{} does not run", names(&[*member]));
        world.cluster.kill(*member).await?;
    }
    Ok(())
}

async fn start(world: &World, members: &[Member]) -> anyhow::Result<()> {
    for member in members {
        world.cluster.start(*member).await?;
    }
    Ok(())
}

/// Stops a process and its children. Returns their ids.
pub(super) async fn freeze(world: &World, member: Member) -> anyhow::Result<Vec<i32>> {
    let root = world.cluster.daemon(member)?.running().context("it does not run")?;
    let mut family = vec![root];
    // The parent is stopped first, so that it starts no further child.
    send(root, Signal::STOP);
    family.extend(children(root));
    family[1..].iter().for_each(|pid| send(*pid, Signal::STOP));
    Ok(family)
}

/// Continues the stopped processes.
pub(super) fn thaw(family: &[i32]) {
    family.iter().rev().for_each(|pid| send(*pid, Signal::CONT));
}

fn children(parent: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent_of = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    pids.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn names(members: &[Member]) -> String {
    members.iter().map(|(role, n)| format!("{}-{n}", role.name())).collect::<Vec<_>>().join(" and ")
}
