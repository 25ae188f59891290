//! The acts of honest clients, and their durations.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout, timeout_at};

use super::super::line::Line;
use super::super::net::Http;
use super::super::tally::Tally;
use super::{ACT_LIMIT, People};
use crate::api::PASSWORD;
use crate::form::{Form, content_type};
use crate::raw::connect as connect_packet;

/// How long a client that lost its connection waits before it reconnects.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Longer than a server holds a poll.
const POLL_LIMIT: Duration = Duration::from_secs(60);
/// Size of a file in bytes.
const FILE: usize = 64 * 1024;
/// Separates the packets of a payload.
const SEPARATOR: u8 = 0x1e;

/// Performs an act at even intervals, each time without waiting for the previous one.
pub async fn again<F>(
    what: &'static str,
    tally: Arc<Tally>,
    gap: Duration,
    people: Arc<People>,
    act: impl Fn(Arc<People>) -> F,
) where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut ticks = interval(gap);
    loop {
        let due = ticks.tick().await;
        let (act, tally) = (act(people.clone()), tally.clone());
        tokio::spawn(async move {
            let result = timeout_at(due + ACT_LIMIT, act).await.context("too late").flatten();
            tally.note(what, due.elapsed(), &result);
        });
    }
}

/// Sends in the hall and listens to it.
pub async fn speak(people: Arc<People>, tally: Arc<Tally>, number: u32, gap: Duration, after: Duration) {
    let token = &people.accounts[number as usize % people.accounts.len()].token;
    let content = json!({"roomId": people.hall, "content": "x".repeat(200)});
    let mut ticks = interval_at(Instant::now() + after, gap);
    // A client that was disconnected does not send the messages that it missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let entered = timeout(ACT_LIMIT, async {
            let mut line = Line::connect(people.route, None, token).await?;
            line.must("joinRoom", &json!(people.hall)).await?;
            anyhow::Ok(line)
        });
        let mut line = match entered.await.context("too late").flatten() {
            Ok(line) => line,
            Err(error) => {
                tally.failed("come back", &format!("{error:#}"));
                sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        let ended = loop {
            let due = tokio::select! {
                due = ticks.tick() => due,
                received = line.receive() => match received {
                    Ok(()) => continue,
                    Err(error) => break error,
                },
            };
            // A late acknowledgement is a failure, but the connection may still be good.
            match timeout_at(due + 2 * ACT_LIMIT, line.emit("message", &content)).await {
                Ok(Ok(ack)) if ack["ok"] == true => tally.done("send", due.elapsed()),
                Ok(Ok(ack)) => tally.failed("send", &ack.to_string()),
                Ok(Err(error)) => break error,
                Err(_) => tally.failed("send", "no acknowledgement"),
            }
        };
        tally.failed("stay", &format!("a speaker: {ended:#}"));
        sleep(RECONNECT_PAUSE).await;
    }
}

/// Listens to the hall over long-polling.
pub async fn poll(people: Arc<People>, tally: Arc<Tally>, number: u32) {
    let token = &people.accounts[number as usize % people.accounts.len()].token;
    loop {
        let mut entered = false;
        let Err(error) = poll_once(&people, &tally, token, &mut entered).await;
        tally.failed(if entered { "stay" } else { "come back" }, &format!("a poller: {error:#}"));
        sleep(RECONNECT_PAUSE).await;
    }
}

enum Never {}

async fn poll_once(people: &People, tally: &Tally, token: &str, entered: &mut bool) -> Result<Never, anyhow::Error> {
    let mut gets = people.route.http().await?;
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = timeout(ACT_LIMIT, gets.get(&format!("GET {path}"), "")).await??.expect(200)?;
    let open: Value = serde_json::from_slice(open.body.strip_prefix(b"0").context("an open packet")?)?;
    let path = format!("{path}&sid={}", open["sid"].as_str().context("a session id")?);
    let join = format!("421{}", json!(["joinRoom", people.hall]));
    for packet in [connect_packet(token), join] {
        post(people, &path, packet.as_bytes()).await?;
    }
    loop {
        let answer = timeout(POLL_LIMIT, gets.get(&format!("GET {path}"), ""))
            .await
            .context("no answer to a poll")??
            .expect(200)?;
        for packet in answer.body.split(|byte| *byte == SEPARATOR) {
            match packet {
                b"1" => anyhow::bail!("closed by the server"),
                b"2" => post(people, &path, b"3").await?,
                [b'4', b'2', ..] => tally.count("hear by polling", 1),
                [b'4', b'3', answer @ ..] => {
                    ensure!(
                        answer.windows(9).any(|part| part == b"\"ok\":true"),
                        "joinRoom: {}",
                        String::from_utf8_lossy(answer)
                    );
                    *entered = true;
                }
                _ => {}
            }
        }
    }
}

/// Sends POSTs on a separate connection: between pings a connection would be idle for longer than the server keeps it.
async fn post(people: &People, path: &str, body: &[u8]) -> anyhow::Result<()> {
    let mut http = people.route.http().await?;
    timeout(POLL_LIMIT, http.post(path, "", body)).await.context("no answer to a POST")??.expect(200).map(drop)
}

/// Joins and leaves a room, on one connection.
pub async fn join(people: Arc<People>, tally: Arc<Tally>, gap: Duration) {
    let token = &people.accounts[0].token;
    let mut ticks = interval(gap);
    let mut line = None;
    for room in people.rooms.iter().cycle() {
        let due = ticks.tick().await;
        if line.is_none() {
            line =
                timeout(ACT_LIMIT, Line::connect(people.route, None, token)).await.context("too late").flatten().ok();
        }
        let Some(there) = &mut line else {
            tally.failed("joinRoom", "no connection");
            continue;
        };
        let joined =
            timeout_at(due + ACT_LIMIT, there.must("joinRoom", &json!(room))).await.context("too late").flatten();
        tally.note("joinRoom", due.elapsed(), &joined);
        let left = timeout(ACT_LIMIT, there.emit("leaveRoom", &json!(room))).await.context("too late").flatten();
        if left.is_err() {
            line = None;
        }
    }
}

/// Uploads a file and downloads it, on an established connection.
pub async fn transfer(people: Arc<People>, tally: Arc<Tally>, gap: Duration) {
    let mut ticks = interval(gap);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut inside = None;
    loop {
        let due = ticks.tick().await;
        if inside.is_none() {
            inside = timeout(ACT_LIMIT, people.route.http()).await.context("too late").flatten().ok();
        }
        let Some(http) = &mut inside else {
            tally.failed("upload", "no connection");
            continue;
        };
        let up = timeout_at(due + ACT_LIMIT, upload(http, &people)).await.context("too late").flatten();
        tally.note("upload", due.elapsed(), &up);
        let Ok(url) = up else {
            inside = None;
            continue;
        };
        let begun = Instant::now();
        let authorization = bearer(&people);
        let down = timeout(ACT_LIMIT, http.get(&format!("GET {url}"), &authorization)).await.context("too late");
        let down = down.flatten().and_then(|answer| answer.expect(200));
        let whole = down.and_then(|answer| {
            ensure!(answer.body.len() == FILE, "{} bytes were returned", answer.body.len());
            Ok(())
        });
        tally.note("download", begun.elapsed(), &whole);
        if whole.is_err() {
            inside = None;
        }
    }
}

/// Uploads a file; returns its URL.
async fn upload(http: &mut Http, people: &People) -> anyhow::Result<String> {
    let form = Form::new().file("note.bin", "application/octet-stream", &vec![b'x'; FILE]).into_body();
    let headers = format!("{}Content-Type: {}\r\n", bearer(people), content_type());
    let file = http.post("/api/files/upload", &headers, &form).await?.expect(201)?;
    let file: Value = serde_json::from_slice(&file.body)?;
    Ok(file["url"].as_str().context("a file has a url")?.to_owned())
}

fn bearer(people: &People) -> String {
    // A separate account, so that other acts do not count against its limits.
    format!("Authorization: Bearer {}\r\n", people.accounts[people.accounts.len() - 1].token)
}

/// Uploads a file on a new connection.
pub async fn upload_as_newcomer(people: Arc<People>) -> anyhow::Result<()> {
    upload(&mut people.route.http().await?, &people).await.map(drop)
}

/// Opens a new connection and joins a room.
pub async fn connect(people: Arc<People>) -> anyhow::Result<()> {
    let account = &people.accounts[0];
    let mut line = Line::connect(people.route, None, &account.token).await?;
    line.must("joinRoom", &json!(people.hall)).await.map(drop)
}

/// Logs in with the correct password, to each account in turn.
pub async fn login(people: Arc<People>, turn: usize) -> anyhow::Result<()> {
    let account = &people.login_accounts[turn % people.login_accounts.len()];
    let body = json!({"username": account.username, "password": PASSWORD}).to_string();
    let mut http = people.route.http().await?;
    http.post("/api/auth/login", "Content-Type: application/json\r\n", body.as_bytes()).await?.expect(200).map(drop)
}

/// Requests `/readyz` from the admin port.
pub async fn look(people: Arc<People>) -> anyhow::Result<()> {
    people.admin.http().await?.get("GET /readyz", "").await?.expect(200).map(drop)
}
