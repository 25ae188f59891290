//! One request for the unread messages of many rooms.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::super::figures::Figures;
use super::super::histogram::Histogram;
use super::{Mark, Stage, each, send};

const ROOMS: usize = 200;
const REQUESTS: usize = 500;

pub async fn run(stage: &Stage, unread: usize, figures: &mut Figures) -> anyhow::Result<Vec<Mark>> {
    let (api, owner, reader) = (stage.api(1), stage.api(1).signup().await?, stage.api(1).signup().await?);
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let room = api.room(&owner).await?;
        api.call(Method::PUT, &format!("/api/rooms/{room}/members/me"), Some(&reader), Some(json!({}))).await?;
        rooms.push(room);
    }
    let letters = (0..ROOMS * unread).map(|n| rooms[n % ROOMS].clone()).collect();
    let filling = {
        let (api, owner) = (api.clone(), owner.clone());
        move |room: String| {
            let (api, owner) = (api.clone(), owner.clone());
            async move { send(&api, &owner, &room, "unread".into()).await }
        }
    };
    super::say(&format!("  {} messages are sent…", ROOMS * unread));
    each(letters, filling).await?;
    let mut times = Histogram::default();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let answer = api.get("/api/unread", &reader).await?.expect(200)?;
        times.record(begun.elapsed());
        anyhow::ensure!(answer["total"] == (ROOMS * unread) as u64, "wrong total: {}", answer["total"]);
    }
    let p99 = times.percentile(99.0);
    figures.add(format!("unread: {ROOMS} rooms with {unread} messages, p50"), "ms", times.percentile(50.0));
    figures.add(format!("unread: {ROOMS} rooms with {unread} messages, p99"), "ms", p99);
    Ok(vec![Mark { name: "p99 of the unread messages, in ms", value: p99, most: 10.0 }])
}
