//! Hostile clients, which take as much as they can get. Each attack is a future that runs until it is dropped, and
//! counts its actions.

mod connections;
mod handshakes;
mod readers;
mod requests;
mod silent;
mod unread;
mod uploads;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::net::{Http, Route};
use super::stage::Stage;
use super::tally::{Counts, Tally};
use crate::api::{Account, unique};

/// How long an attacker that was rejected waits before it retries.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The attacker's rooms, and the length of the one message in each.
const ROOMS: usize = 200;
const BYTES: usize = 16_000;

/// The shared state of the attackers.
#[derive(Debug)]
pub struct Field {
    /// The route to the server.
    pub route: Route,
    pub account: Account,
    /// The attacker's rooms with a long message in each, and that message's `clientMessageId`.
    pub rooms: Vec<(String, String)>,
    /// The counts of their actions.
    pub tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Polling sessions that repeat long messages and never GET the answers; with `true`, each GETs once.
    Silent(bool),
    /// Sessions before CONNECT, with headers of this number of bytes.
    Handshakes(usize),
    /// CONNECT to unknown namespaces, over WebSockets that do not read.
    Namespaces,
    /// CONNECT to unknown namespaces by POST to polling sessions that never GET, 18 new sessions per second.
    Pending,
    /// Half of a large packet in each of many sessions before CONNECT.
    Halves,
    /// Logins with a wrong password.
    Logins,
    /// Uploads of one account, each at this number of bytes per second.
    Uploads(u64),
    /// Searches for a room that does not exist.
    Searches,
    /// HEAD of a large page of the documentation.
    Docs,
    /// Connections that send nothing, or half of a request's head.
    Idle,
    /// Pages of history that are requested but not read.
    Pages,
    /// Polls that are not read, followed by further polls.
    Polls,
    /// Request bodies without their end.
    Bodies,
    /// Request heads without their end.
    Heads,
    /// Idle WebSockets of one account.
    Sockets,
    /// Joins with history of many rooms, whose answers are not read.
    Joins,
    /// Readers of a busy room that read a little now and then.
    Slow,
}

/// A running attack, on its own thread.
pub struct Hostile {
    field: Arc<Field>,
    over: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Attack {
    /// Prepares the attack before the measurement.
    ///
    /// # Errors
    /// When a request is rejected.
    pub async fn prepare(self, stage: &Stage) -> anyhow::Result<Arc<Field>> {
        let account = stage.attacker.clone();
        let mut rooms = Vec::new();
        let needed = match self {
            Self::Silent(_) | Self::Joins | Self::Polls => ROOMS,
            Self::Slow | Self::Pages => 1,
            _ => 0,
        };
        for _ in 0..needed {
            let (room, key) = (stage.api.room(&account).await?, unique("original"));
            let message = json!({"roomId": room, "content": "x".repeat(BYTES), "clientMessageId": key});
            stage.api.post("/api/messages", &account, message).await?.expect(201)?;
            rooms.push((room, key));
        }
        if self == Self::Pages {
            for _ in 0..199 {
                let message = json!({"roomId": rooms[0].0, "content": "x".repeat(BYTES)});
                stage.api.post("/api/messages", &account, message).await?.expect(201)?;
            }
        }
        if self == Self::Searches {
            requests::make_rooms(stage).await?;
        }
        Ok(Arc::new(Field { route: stage.hostile, account, rooms, tally: Tally::default() }))
    }

    async fn run(self, field: &Arc<Field>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        match self {
            Self::Silent(asks_once) => silent::begin(field, &mut tasks, asks_once),
            Self::Handshakes(header) => handshakes::begin(field, &mut tasks, header),
            Self::Namespaces => silent::namespaces(field, &mut tasks),
            Self::Pending => silent::pending(field, &mut tasks),
            Self::Halves => silent::halves(field, &mut tasks),
            Self::Logins => requests::logins(field, &mut tasks),
            Self::Uploads(rate) => uploads::begin(field, &mut tasks, rate),
            Self::Searches => requests::searches(field, &mut tasks),
            Self::Docs => requests::docs(field, &mut tasks),
            Self::Pages => unread::pages(field, &mut tasks),
            Self::Polls => unread::polls(field, &mut tasks),
            Self::Bodies => unread::bodies(field, &mut tasks),
            Self::Heads => unread::heads(field, &mut tasks),
            Self::Idle => connections::idle(field, &mut tasks),
            Self::Sockets => connections::sockets(field, &mut tasks),
            Self::Joins => readers::joins(field, &mut tasks),
            Self::Slow => readers::slow(field, &mut tasks),
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Hostile {
    /// Starts the attack.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn begin(attack: Attack, field: Arc<Field>) -> anyhow::Result<Self> {
        let (over, ended) = oneshot::channel();
        let theirs = field.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let attack = async {
                tokio::select! {
                    result = attack.run(&theirs) => {
                        if let Err(error) = result {
                            super::say(&format!("An attacker panicked: {error:#}"));
                        }
                    }
                    _ = ended => {}
                }
            };
            LocalSet::new().block_on(&runtime, attack);
        };
        Ok(Self { field, over, thread: thread::Builder::new().name("hostile".into()).spawn(work)? })
    }

    /// Returns whether the attack is complete.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Closes all connections of the attack. Returns its counts.
    pub fn end(self) -> Counts {
        let _ = self.over.send(());
        let _ = self.thread.join();
        self.field.tally.take()
    }
}

/// Repeats an act on a separate connection, which is reopened after each failure.
async fn again(
    field: Arc<Field>,
    what: &'static str,
    mut act: impl AsyncFnMut(&Field, &mut Http) -> anyhow::Result<()>,
) {
    loop {
        let begun = Instant::now();
        let Ok(mut http) = field.route.http().await else {
            field.tally.failed("connection", "refused");
            sleep(RETRY_PAUSE).await;
            continue;
        };
        let error = loop {
            match act(&field, &mut http).await {
                Ok(()) => field.tally.count(what, 1),
                Err(error) => break error,
            }
        };
        field.tally.failed(what, &format!("{error:#}"));
        // After a long act the attacker may retry at once.
        sleep(RETRY_PAUSE.saturating_sub(begun.elapsed())).await;
    }
}

/// Returns an interval that skips missed ticks.
fn pace(gap: Duration) -> tokio::time::Interval {
    let mut ticks = interval(gap);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
