//! Senders at an even pace, independent of other clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::histogram::Histogram;
use crate::raw::{Client, WebSocket};

/// The pace and size of messages.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The number of senders.
    pub speakers: u32,
    /// Messages per second of all senders together.
    pub rate: u32,
    /// Length of a message in bytes.
    pub bytes: usize,
}

/// A conversation in progress, on its own thread.
pub struct Talk {
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    said: Mutex<Said>,
}

/// Measurements since they were last taken.
#[derive(Debug, Default)]
pub struct Said {
    /// The newest `seq` of each room.
    pub heads: HashMap<String, u64>,
    /// The time from when a message was due to its acknowledgement.
    pub ack_time: Histogram,
    pub acks: u64,
    pub refusals: u64,
    /// The first rejection as text.
    pub fault: Option<String>,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock()
    }
}

impl Talk {
    /// Starts to send in these rooms in turn, without listening.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn begin(url: &str, token: &str, rooms: &[Arc<str>], pace: &Pace) -> anyhow::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (url, token, rooms, pace, theirs) =
            (url.to_owned(), token.to_owned(), rooms.to_vec(), pace.clone(), shared.clone());
        let talk = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut speakers = JoinSet::new();
                for number in 0..pace.speakers {
                    let socket = WebSocket::connect(&url, &token).await?;
                    speakers.spawn(speak(socket, number, rooms.clone(), pace.clone(), theirs.clone()));
                }
                while let Some(ended) = speakers.join_next().await {
                    ended??;
                }
                Ok(())
            })
        };
        Ok(Self { shared, thread: thread::Builder::new().name("talk".into()).spawn(talk)? })
    }

    /// Returns the measurements since the last call; the heads are cumulative.
    pub fn take(&self) -> Said {
        let mut said = self.shared.said();
        let heads = said.heads.clone();
        std::mem::replace(&mut *said, Said { heads, ..Said::default() })
    }

    /// Ends the conversation. Returns the measurements since the last call.
    ///
    /// # Errors
    /// When a sender failed.
    pub fn end(self) -> anyhow::Result<Said> {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a speaker panicked")??;
        Ok(std::mem::take(&mut *self.shared.said()))
    }
}

async fn speak(
    mut socket: WebSocket,
    number: u32,
    rooms: Vec<Arc<str>>,
    pace: Pace,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    let gap = Duration::from_secs(1) * pace.speakers / pace.rate;
    let content = "x".repeat(pace.bytes);
    let mut due = Instant::now() + gap * number / pace.speakers;
    for room in rooms.iter().cycle().skip(number as usize) {
        sleep_until(due).await;
        if shared.over.load(Ordering::Relaxed) {
            break;
        }
        let ack = socket.emit("message", json!({"roomId": **room, "content": content})).await?;
        let mut said = shared.said();
        match ack["message"]["seq"].as_u64() {
            Some(seq) => {
                said.acks += 1;
                said.ack_time.record(due.elapsed());
                let head = said.heads.entry(room.to_string()).or_default();
                *head = seq.max(*head);
            }
            None => {
                said.refusals += 1;
                said.fault.get_or_insert_with(|| ack.to_string());
            }
        }
        due += gap;
    }
    Ok(())
}
