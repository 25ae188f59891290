//! WebSockets that request much and read little.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::line::Line;
use super::{Field, RETRY_PAUSE, pace};

/// Sockets that join.
const JOINERS: usize = 60;
/// Sockets that read slowly, and senders in their room.
const READERS: usize = 100;
const SPEAKERS: usize = 2;
/// Messages per second of each sender.
const RATE: u32 = 25;
const BYTES: usize = 4000;
/// Receive window in bytes, so small that the system buffers little for a reader.
const WINDOW: u32 = 4096;
/// Pause between two reads of a slow reader; each read takes all available bytes.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// Sockets that repeatedly join all rooms with their history, and never read.
pub fn joins(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    for number in 0..JOINERS {
        let field = field.clone();
        tasks.spawn_local(async move {
            sleep(Duration::from_millis(10) * number as u32).await;
            loop {
                let Err(error) = join_on(&field).await;
                field.tally.failed("sockets", &format!("{error:#}"));
                sleep(RETRY_PAUSE).await;
            }
        });
    }
}

async fn join_on(field: &Field) -> Result<std::convert::Infallible, anyhow::Error> {
    let epoch = {
        let mut line = Line::connect(field.route, None, &field.account.token).await?;
        line.must("joinRoom", &json!(field.rooms[0].0)).await?["epoch"].take()
    };
    let mut line = Line::connect(field.route, Some(WINDOW), &field.account.token).await?;
    field.tally.count("sockets", 1);
    let mut ticks = pace(Duration::from_millis(20));
    for (room, _) in field.rooms.iter().cycle() {
        ticks.tick().await;
        line.emit_later("joinRoom", &join(room, &epoch)).await?;
        line.emit_later("leaveRoom", &json!(room)).await?;
        field.tally.count("joins", 1);
    }
    anyhow::bail!("no rooms")
}

fn join(room: &str, epoch: &Value) -> Value {
    json!({"roomId": room, "after": 0, "epoch": epoch})
}

/// Sockets in a busy room that read now and then.
pub fn slow(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let room = json!(field.rooms[0].0);
    for _ in 0..READERS {
        let (field, room) = (field.clone(), room.clone());
        tasks.spawn_local(async move {
            loop {
                let read = async {
                    let mut line = Line::connect(field.route, Some(WINDOW), &field.account.token).await?;
                    line.must("joinRoom", &room).await?;
                    field.tally.count("readers", 1);
                    loop {
                        sleep(READ_INTERVAL).await;
                        line.receive().await?;
                    }
                };
                let Err(error): anyhow::Result<std::convert::Infallible> = read.await;
                field.tally.failed("readers", &format!("{error:#}"));
                sleep(RETRY_PAUSE).await;
            }
        });
    }
    let message = json!({"roomId": room, "content": "x".repeat(BYTES)});
    for _ in 0..SPEAKERS {
        let (field, message) = (field.clone(), message.clone());
        tasks.spawn_local(async move {
            let mut ticks = pace(Duration::from_secs(1) / RATE);
            loop {
                let speak = async {
                    let mut line = Line::connect(field.route, None, &field.account.token).await?;
                    loop {
                        ticks.tick().await;
                        line.emit("message", &message).await?;
                        field.tally.count("messages to slow readers", 1);
                    }
                };
                let Err(error): anyhow::Result<std::convert::Infallible> = speak.await;
                field.tally.failed("messages to slow readers", &format!("{error:#}"));
                sleep(RETRY_PAUSE).await;
            }
        });
    }
}
