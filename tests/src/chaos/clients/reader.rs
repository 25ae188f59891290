//! The owner of the rooms, who marks messages as read and as unread on two devices.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::super::history::{Mark, Marker, Outcome};
use super::super::schedule::Dice;
use super::super::world::World;
use super::editor::emit;
use super::{ANSWER_LIMIT, rest_outcome};
use crate::api::Api;
use crate::wait::eventually;

/// The pause between two marks of a room, in milliseconds: at least, and at random in addition.
const PAUSE: (u64, u64) = (150, 500);
/// Time limit for the last reads.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Marks messages of a room, one mark after another, until the run ends.
///
/// # Errors
/// None; the signature is that of the other clients.
pub async fn mark(world: Arc<World>, room: Uuid, mut dice: Dice) -> anyhow::Result<()> {
    let mut head = 0;
    while !world.is_ending() {
        // The database is not restored meanwhile, so the marker stays.
        let acting = world.acting.read().await;
        let gateway = dice.below(2) as usize;
        if let Some(of_room) = unread(&world, &world.api).await.and_then(|all| of(&all, room)) {
            head = of_room["lastSeq"].as_u64().unwrap_or(head);
        }
        let (seq, back) = match dice.below(8) {
            0 => (dice.below(head + 1), true),
            1..5 => (head, false),
            _ => (dice.below(head + 2), false),
        };
        let by_socket = !back && dice.below(2) == 0;
        let begun = world.recorder.now();
        let answer = if by_socket {
            let marking = emit(&world, &world.owner, gateway, "read", json!({"roomId": room, "seq": seq}));
            let ack = timeout(ANSWER_LIMIT, marking).await.ok().and_then(Result::ok);
            ack.filter(|ack| ack["ok"] == true)
        } else {
            let (path, body) = (format!("/api/rooms/{room}/read"), json!({"seq": seq, "unread": back}));
            let marking = world.api.call(Method::PUT, &path, Some(&world.owner), Some(body));
            let answer = timeout(ANSWER_LIMIT, marking).await.ok();
            let body = answer.as_ref().and_then(|answer| answer.as_ref().ok()).filter(|answer| answer.status == 200);
            let body = body.map(|answer| answer.body.clone());
            world.recorder.called("a mark", begun, rest_outcome(answer));
            body
        };
        let (ended, stands_at) = (world.recorder.now(), answer.and_then(|answer| answer["readSeq"].as_u64()));
        let mark = Mark { room, seq, back, begun, ended, stands_at };
        world.recorder.note(|records| records.marks.push(mark));
        drop(acting);
        world.rest(Duration::from_millis(PAUSE.0 + dice.below(PAUSE.1))).await;
    }
    Ok(())
}

/// Returns the unread messages of the owner.
async fn unread(world: &World, api: &Api) -> Option<Value> {
    let begun = world.recorder.now();
    let answer = timeout(ANSWER_LIMIT, api.get("/api/unread", &world.owner)).await.ok();
    let body = answer.as_ref().and_then(|answer| answer.as_ref().ok()).filter(|answer| answer.status == 200);
    let body = body.map(|answer| answer.body.clone());
    let outcome = rest_outcome(answer);
    if outcome != Outcome::Done {
        world.recorder.called("unread messages", begun, outcome);
    }
    body
}

fn of(all: &Value, room: Uuid) -> Option<Value> {
    all["rooms"].as_array()?.iter().find(|of| of["roomId"] == json!(room)).cloned()
}

/// Reads the markers of the public rooms at each gateway, after the last change.
///
/// # Errors
/// When a gateway does not answer.
pub async fn markers(world: &World) -> anyhow::Result<Vec<Marker>> {
    let mut markers = Vec::new();
    for gateway in 0..world.gateways.len() {
        let api = Api::new(world.gateway(gateway));
        let all = eventually("unread messages are readable", READ_LIMIT, async || unread(world, &api).await).await?;
        for room in &world.rooms {
            let of_room = of(&all, *room).context("the owner is a member")?;
            let number = |field: &str| of_room[field].as_u64().context("a number");
            markers.push(Marker { room: *room, seq: number("readSeq")?, unread: number("unread")? });
        }
    }
    Ok(markers)
}
