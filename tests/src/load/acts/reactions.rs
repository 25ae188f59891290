//! Many users react to one message at the same time, while another user sends messages elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::figures::Figures;
use super::{Mark, Stage, each, pace, send};
use crate::api::{Account, Api};

/// How long messages are sent without a storm.
const CALM: Duration = Duration::from_secs(5);

pub async fn run(stage: &Stage, reactors: usize, figures: &mut Figures) -> anyhow::Result<Vec<Mark>> {
    let (api, other) = (stage.api(1), stage.api(2));
    let users = stage.users(reactors, "reactor").await?;
    let (author, sender) = (api.signup().await?, api.signup().await?);
    let (room, quiet) = (api.room(&author).await?, api.room(&sender).await?);
    let seq = send(&api, &author, &room, "react to this".into()).await?;
    let calm = pace(other.clone(), sender.clone(), quiet.clone(), sleep(CALM)).await?;
    let (done, ended) = oneshot::channel::<()>();
    let beside = tokio::spawn(pace(other, sender, quiet, async move { drop(ended.await) }));
    let path = format!("/api/rooms/{room}/messages/{seq}/reactions/tea");
    let begun = Instant::now();
    let react = {
        let api = api.clone();
        move |user: Account| {
            let (api, path) = (api.clone(), path.clone());
            async move { api.call(Method::PUT, &path, Some(&user), None).await?.expect(200) }
        }
    };
    let times = each(users, react).await?;
    let took = begun.elapsed();
    let _ = done.send(());
    let stormy = beside.await??;
    let message = api.get(&format!("/api/rooms/{room}/messages/{seq}"), &author).await?.expect(200)?;
    ensure!(message["reactions"][0]["count"] == reactors as u64, "wrong count: {}", message["reactions"]);
    let events = events(&api, &author, &room, seq).await?;
    figures.add(format!("reactions: {reactors} users, all within"), "s", took.as_secs_f64());
    figures.add("reactions: one request, p99", "ms", times.percentile(99.0));
    figures.add("reactions: events in the log", "", events as f64);
    let (base, storm) = (calm.percentile(99.0), stormy.percentile(99.0));
    figures.add("reactions: a message of another user, p99 before", "ms", base);
    figures.add("reactions: a message of another user, p99 meanwhile", "ms", storm);
    // The log has at most one event of reactions to a message each 100 ms, of at most 256 reactions.
    let most = (took.as_millis() as f64 / 100.0).max(reactors as f64 / 256.0).ceil() + 2.0;
    Ok(vec![
        Mark { name: "events of the storm", value: events as f64, most },
        Mark { name: "p99 of others in the storm, against before", value: storm / base, most: 2.0 },
    ])
}

/// Returns how many events follow a message in the log.
async fn events(api: &Api, reader: &Account, room: &str, after: u64) -> anyhow::Result<u64> {
    let shown = api.get(&format!("/api/rooms/{room}"), reader).await?.expect(200)?;
    let last: &Value = &shown["lastSeq"];
    Ok(last.as_u64().context("a seq")? - after)
}
