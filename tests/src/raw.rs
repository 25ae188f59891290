//! Raw Engine.IO, Socket.IO and HTTP clients. They can send bytes that no library would send, and see every packet.

mod client;
mod frames;
mod handshakes;
mod http;
mod polling;
mod websocket;

pub use client::Client;
pub use frames::{binary, frame, text};
pub use handshakes::open_and_forget;
pub use http::Http;
pub use polling::Polling;
pub use websocket::{Refused, WebSocket};

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::contract::events as contract;

/// Time limit for an expected packet.
pub const PACKET_LIMIT: Duration = Duration::from_secs(20);

/// Received packets that were not taken yet.
#[derive(Default)]
pub struct Inbox {
    /// The names of events that requested an acknowledgement; the first one has number 1.
    asked: Vec<String>,
    acks: HashMap<u64, Value>,
    events: VecDeque<(String, Value)>,
    /// The last argument of each event, if it is a text; stock clients keep the newest as the offset for their
    /// recovery.
    offsets: Vec<String>,
    /// The answer to CONNECT.
    connected: Option<Value>,
    /// CONNECT_ERROR.
    refused: Option<Value>,
    disconnected: bool,
}

impl Inbox {
    /// Stores an Engine.IO message; returns `false` when the inbox does not handle its kind.
    fn take(&mut self, packet: &str) -> anyhow::Result<bool> {
        let json = |text: &str| serde_json::from_str::<Value>(text).with_context(|| format!("not JSON: {text}"));
        match packet.get(..2) {
            Some("40") => self.connected = Some(json(&packet[2..])?),
            Some("41") => self.disconnected = true,
            Some("44") => self.refused = Some(json(&packet[2..])?),
            Some("42") => {
                let mut event = json(&packet[2..])?;
                let name = event[0].as_str().context("an event has a name")?.to_string();
                let last = event.as_array().filter(|parts| parts.len() > 1).and_then(|parts| parts.last());
                self.offsets.extend(last.and_then(Value::as_str).map(str::to_owned));
                let argument = event[1].take();
                contract::event(&name, &argument)?;
                self.events.push_back((name, argument));
            }
            Some("43") => {
                let split = packet.find('[').context("an acknowledgement has arguments")?;
                let (number, answer) = (packet[2..split].parse::<u64>()?, json(&packet[split..])?[0].take());
                if let Some(asked) = number.checked_sub(1).and_then(|index| self.asked.get(index as usize)) {
                    contract::answer(asked, &answer)?;
                }
                self.acks.insert(number, answer);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the acknowledgement number of the next event.
    fn next_ack(&mut self, name: &str) -> u64 {
        self.asked.push(name.to_owned());
        self.asked.len() as u64
    }

    fn event(&mut self, name: &str) -> Option<Value> {
        let index = self.events.iter().position(|(event, _)| event == name)?;
        self.events.remove(index).map(|(_, argument)| argument)
    }
}

/// Returns CONNECT with a token, as an Engine.IO message.
pub fn connect(token: &str) -> String {
    format!("40{}", json!({ "token": token }))
}

/// Returns an event as an Engine.IO message, with its acknowledgement number.
pub fn event(name: &str, argument: &Value, ack: u64) -> String {
    format!("42{ack}{}", json!([name, argument]))
}
