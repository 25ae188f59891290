//! Searches of many messages by members of few and of many rooms.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use super::super::figures::Figures;
use super::super::histogram::Histogram;
use super::{Mark, Stage, each, send};
use crate::api::{Account, Api};

const ROOMS: usize = 300;
const FEW: usize = 3;
const SEARCHES: usize = 200;
/// Words of the messages; the rarer, the further back.
const WORDS: [&str; 8] = ["milk", "sugar", "cup", "kettle", "leaf", "lemon", "saucer", "samovar"];
/// How long a message may take until it is found.
const VISIBLE: Duration = Duration::from_secs(2);

pub async fn run(stage: &Stage, messages: usize, figures: &mut Figures) -> anyhow::Result<Vec<Mark>> {
    let api = stage.api(1);
    let (owner, few) = (api.signup().await?, api.signup().await?);
    let mut rooms = Vec::new();
    for n in 0..ROOMS {
        let room = json!({"name": crate::api::unique("searched"), "visibility": "private"});
        let room =
            api.post("/api/rooms", &owner, room).await?.expect(201)?["id"].as_str().unwrap_or_default().to_owned();
        if n < FEW {
            let path = format!("/api/rooms/{room}/members/{}", few.id);
            api.call(Method::PUT, &path, Some(&owner), Some(json!({}))).await?.expect(201)?;
        }
        rooms.push(room);
    }
    super::say(&format!("  {messages} messages are sent…"));
    let letters = (0..messages).map(|n| (rooms[n % ROOMS].clone(), text(n))).collect();
    let filling = {
        let (api, owner) = (api.clone(), owner.clone());
        move |(room, text): (String, String)| {
            let (api, owner) = (api.clone(), owner.clone());
            async move { send(&api, &owner, &room, text).await }
        }
    };
    let begun = Instant::now();
    each(letters, filling).await?;
    figures.add("search: messages stored", "/s", messages as f64 / begun.elapsed().as_secs_f64());
    let visible = visible(&api, &owner, &rooms[0]).await?;
    figures.add("search: a new message is found after", "ms", visible.as_secs_f64() * 1e3);
    let mut marks = vec![Mark {
        name: "seconds until a message is found",
        value: visible.as_secs_f64(),
        most: VISIBLE.as_secs_f64(),
    }];
    for (who, count) in [(&few, FEW), (&owner, ROOMS)] {
        let mut times = Histogram::default();
        for n in 0..SEARCHES {
            let begun = Instant::now();
            let path = format!("/api/search?q={}%20{}", WORDS[n % WORDS.len()], WORDS[(n / WORDS.len()) % WORDS.len()]);
            api.get(&path, who).await?.expect(200)?;
            times.record(begun.elapsed());
        }
        figures.add(format!("search: a member of {count} rooms, p50"), "ms", times.percentile(50.0));
        figures.add(format!("search: a member of {count} rooms, p99"), "ms", times.percentile(99.0));
        marks.push(Mark { name: "p99 of a search, in ms", value: times.percentile(99.0), most: 50.0 });
    }
    Ok(marks)
}

/// The text of the `n`th message: each word is half as frequent as the one before.
fn text(n: usize) -> String {
    let words = WORDS.iter().enumerate().filter(|(power, _)| (n / ROOMS).is_multiple_of(1 << power));
    let words = words.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
    format!("message {n} about {words}")
}

/// Waits until the indexer has caught up, then returns how long it takes until a new message is found.
async fn visible(api: &Api, who: &Account, room: &str) -> anyhow::Result<Duration> {
    let mut took = Duration::MAX;
    for attempt in ["earlgrey", "oolong"] {
        send(api, who, room, format!("the word {attempt}")).await?;
        let begun = Instant::now();
        while api.get(&format!("/api/search?q={attempt}"), who).await?.expect(200)?["items"] == json!([]) {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(600), "the message is not found within 10 minutes");
            sleep(Duration::from_millis(20)).await;
        }
        took = begun.elapsed();
    }
    Ok(took)
}
