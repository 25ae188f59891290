//! Sessions that cause many answers and never read them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::line::Line;
use super::super::net::{Http, open_session};
use super::{Field, RETRY_PAUSE, again, pace};
use crate::raw::{connect, event};

/// Polling sessions of one account.
const SESSIONS: usize = 60;
/// Pause between the POSTs of a session. Each POST repeats the message of every room: about 4 MB/s in total.
const POST_INTERVAL: Duration = Duration::from_millis(400);
/// Separates the packets of a payload.
const SEPARATOR: &str = "\u{1e}";
/// A packet that connects to an unknown namespace.
const NAMESPACE: &[u8] = b"40/x,";
/// WebSockets that send such packets, and their total rate in bytes per second, including frames.
const NAMESPACE_SOCKETS: usize = 8;
const NAMESPACE_RATE: usize = 1_000_000;
/// New polling sessions per second, and the bytes of such packets in each.
const PENDING_RATE: u32 = 18;
const PENDING_BYTES: usize = 29_000;
/// Sessions that hold half of a packet; the size of the packet in bytes.
const HALVES: usize = 300;
const HALF: usize = 1_000_000;

/// Sessions that repeat long messages in all rooms.
pub fn begin(field: &Arc<Field>, tasks: &mut JoinSet<()>, asks_once: bool) {
    let payload = payload(&field.rooms);
    for number in 0..SESSIONS {
        let (field, payload) = (field.clone(), payload.clone());
        tasks.spawn_local(async move {
            sleep(POST_INTERVAL * number as u32 / SESSIONS as u32).await;
            let mut session = None;
            let mut ticks = pace(POST_INTERVAL);
            again(field, "payloads of repeats", async |field: &Field, http: &mut Http| {
                ticks.tick().await;
                let path = match &session {
                    Some(path) => path,
                    None => session.insert(enter(field, http, asks_once).await?),
                };
                let answered = http.post(path, "", payload.as_bytes()).await.and_then(|answer| answer.expect(200));
                if answered.is_err() {
                    session = None;
                }
                answered.map(drop)
            })
            .await;
        });
    }
}

/// Returns a payload that repeats the message of each room.
pub(super) fn payload(rooms: &[(String, String)]) -> String {
    let repeat = |(number, (room, key)): (usize, &(String, String))| {
        event("message", &json!({"roomId": room, "content": "x", "clientMessageId": key}), number as u64)
    };
    rooms.iter().enumerate().map(repeat).collect::<Vec<_>>().join(SEPARATOR)
}

/// Opens a session and connects. Returns the path of its requests.
pub(super) async fn enter(field: &Field, http: &mut Http, asks_once: bool) -> anyhow::Result<String> {
    let path = open_session(http).await?;
    http.post(&path, "", connect(&field.account.token).as_bytes()).await?.expect(200)?;
    if asks_once {
        http.get(&format!("GET {path}"), "").await?.expect(200)?;
    }
    field.tally.count("sessions", 1);
    Ok(path)
}

/// WebSockets that connect to unknown namespaces and do not read the answers.
pub fn namespaces(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    // Each packet has six bytes of frame.
    let each = NAMESPACE_RATE / NAMESPACE_SOCKETS / 20 / (NAMESPACE.len() + 6);
    for _ in 0..NAMESPACE_SOCKETS {
        let field = field.clone();
        tasks.spawn_local(async move {
            let mut ticks = pace(Duration::from_millis(50));
            loop {
                let flood = async {
                    let mut line = Line::open(field.route, Some(4096)).await?;
                    loop {
                        ticks.tick().await;
                        line.send_often(NAMESPACE, each).await?;
                        field.tally.count("CONNECTs to no namespace", each as u64);
                    }
                };
                let Err(error): anyhow::Result<std::convert::Infallible> = flood.await;
                field.tally.failed("sessions", &format!("{error:#}"));
                sleep(RETRY_PAUSE).await;
            }
        });
    }
}

/// New polling sessions that connect to unknown namespaces, and are abandoned.
pub fn pending(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let packet = format!("40/a,{SEPARATOR}");
    let payload = packet.repeat(PENDING_BYTES / packet.len());
    let payload = payload.trim_end_matches(SEPARATOR).to_owned();
    let field = field.clone();
    tasks.spawn_local(async move {
        let mut ticks = pace(Duration::from_secs(1) / PENDING_RATE);
        again(field, "sessions with 29 kB", async |_: &Field, http: &mut Http| {
            ticks.tick().await;
            let path = open_session(http).await?;
            http.post(&path, "", payload.as_bytes()).await?.expect(200).map(drop)
        })
        .await;
    });
}

/// Sessions that begin a packet with an attachment before CONNECT, and never end it.
pub fn halves(field: &Arc<Field>, tasks: &mut JoinSet<()>) {
    let packet = format!("452-[\"message\",\"{}\"]", "x".repeat(HALF));
    for number in 0..HALVES {
        let (field, packet) = (field.clone(), packet.clone());
        tasks.spawn_local(async move {
            sleep(Duration::from_millis(20) * number as u32).await;
            loop {
                let hold = async {
                    let mut http = field.route.http().await?;
                    let path = open_session(&mut http).await?;
                    http.post(&path, "", packet.as_bytes()).await?.expect(200)?;
                    field.tally.count("halves of packets", 1);
                    http.stream().flush().await?;
                    sleep(Duration::from_secs(15)).await;
                    anyhow::Ok(())
                };
                if let Err(error) = hold.await {
                    field.tally.failed("halves of packets", &format!("{error:#}"));
                    sleep(10 * RETRY_PAUSE).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_repeats_the_message_of_every_room() {
        let rooms = [("a".to_owned(), "k".to_owned()), ("b".to_owned(), "l".to_owned())];
        let packets = payload(&rooms);
        let packets = packets.split('\u{1e}').collect::<Vec<_>>();
        assert_eq!(packets[1], r#"421["message",{"clientMessageId":"l","content":"x","roomId":"b"}]"#);
        assert_eq!(packets.len(), 2);
    }
}
