//! The sockets of a thread: they join a room, send the next message after an acknowledgement, and check the order.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::crowd::{Crowd, Handler, Outgoing};
use super::wire::{Finder, Packet};
use super::worker::{Counts, Member, Seen};

/// Length of a message's content, which begins with its send time.
const CONTENT: usize = 100;
/// The acknowledgement number of `joinRoom`; messages have higher ones.
const JOIN: u64 = 0;

pub struct Conversation {
    /// Counts since they were last taken.
    pub counts: Counts,
    /// How many sockets are connected and, if they join a room, have joined it.
    pub ready: usize,
    pub unanswered: usize,
    pub stopped: bool,
    speakers: Vec<Speaker>,
    /// When each socket began to connect.
    opened: Vec<Instant>,
    /// The origin of times in messages.
    epoch: Instant,
    seq: Finder,
    sent: Finder,
    line: Vec<u8>,
}

struct Speaker {
    room: Option<Arc<str>>,
    joins: bool,
    in_flight: usize,
    /// The `seq` of the last message received; `None` before the socket has joined, or after it was closed.
    seq: Option<u64>,
    next: u64,
    pending: Vec<(u64, Instant)>,
}

impl Conversation {
    /// Creates the initial state: no socket is connected.
    pub fn new(members: &[Member], epoch: Instant) -> Self {
        let speaker = |member: &Member| Speaker {
            room: member.room.clone(),
            joins: member.joins,
            in_flight: member.in_flight,
            seq: None,
            next: JOIN + 1,
            pending: Vec::with_capacity(member.in_flight),
        };
        Self {
            counts: Counts::default(),
            ready: 0,
            unanswered: 0,
            stopped: true,
            speakers: members.iter().map(speaker).collect(),
            opened: Vec::with_capacity(members.len()),
            epoch,
            seq: Finder::default(),
            sent: Finder::default(),
            line: Vec::new(),
        }
    }

    /// Records that the next socket begins to connect.
    pub fn opened(&mut self, now: Instant) {
        self.opened.push(now);
    }

    /// Makes all senders send as many messages as they may, each in one write, like a client that emits several
    /// messages in a row.
    pub fn begin(&mut self, crowd: &mut Crowd) {
        for number in 0..self.speakers.len() {
            let mut lines = Outgoing::default();
            for _ in 0..self.speakers[number].in_flight {
                self.compose(number, Instant::now());
                lines.text(&self.line);
            }
            crowd.send(number, self, lines);
        }
    }

    /// Returns the last message of its room that each socket received.
    pub fn seen(&self) -> Vec<Seen> {
        self.speakers.iter().filter_map(|speaker| Some((speaker.room.clone()?, speaker.seq?))).collect()
    }

    /// Writes a socket's next message into `line`.
    fn compose(&mut self, number: usize, now: Instant) {
        let speaker = &mut self.speakers[number];
        let id = speaker.next;
        speaker.next += 1;
        speaker.pending.push((id, now));
        self.unanswered += 1;
        let room = speaker.room.as_deref().unwrap_or_default();
        let time = now.duration_since(self.epoch).as_nanos();
        self.line.clear();
        // Writing to a vector cannot fail.
        let _ = write!(
            self.line,
            r#"42{id}["message",{{"roomId":"{room}","content":"T{time:019} {:.<pad$}"}}]"#,
            "",
            pad = CONTENT - 21
        );
    }

    fn received(&mut self, number: usize, event: &[u8], now: Instant) {
        if !event.starts_with(b"[\"message\",") {
            return;
        }
        self.counts.deliveries += 1;
        let speaker = &mut self.speakers[number];
        let seq = self.seq.number(event, b"\"seq\":");
        if seq.is_none() || seq != speaker.seq.map(|seq| seq + 1) {
            self.counts.violations += 1;
            let expected = speaker.seq;
            self.counts.blame(|| format!("after {expected:?} came {}", text(event)));
        }
        speaker.seq = seq.or(speaker.seq);
        if let Some(sent) = self.sent.number(event, b"\"content\":\"T") {
            let elapsed = now.duration_since(self.epoch).saturating_sub(Duration::from_nanos(sent));
            self.counts.delivery_time.record(elapsed);
        }
    }

    fn joined(&mut self, number: usize, answer: &[u8], now: Instant) {
        let parsed = serde_json::from_slice::<Value>(answer).unwrap_or_default();
        match parsed[0]["lastSeq"].as_u64() {
            Some(seq) => {
                self.speakers[number].seq = Some(seq);
                self.is_ready(number, now);
            }
            None => {
                self.counts.refusals += 1;
                self.counts.blame(|| format!("joinRoom was answered {}", text(answer)));
            }
        }
    }

    fn is_ready(&mut self, number: usize, now: Instant) {
        self.ready += 1;
        self.counts.ready_time.record(now.duration_since(self.opened[number]));
    }

    fn answered(&mut self, number: usize, id: u64, answer: &[u8], out: &mut Outgoing, now: Instant) {
        let speaker = &mut self.speakers[number];
        let Some(place) = speaker.pending.iter().position(|(pending, _)| *pending == id) else { return };
        let (_, sent) = speaker.pending.swap_remove(place);
        self.unanswered -= 1;
        if answer.starts_with(b"[{\"ok\":true") {
            self.counts.acks += 1;
            self.counts.ack_time.record(now.duration_since(sent));
        } else {
            self.counts.refusals += 1;
            self.counts.blame(|| format!("a message was answered {}", text(answer)));
        }
        if !self.stopped {
            self.compose(number, now);
            out.text(&self.line);
        }
    }
}

impl Handler for Conversation {
    fn packet(&mut self, socket: usize, packet: Packet<'_>, out: &mut Outgoing, now: Instant) {
        match packet {
            Packet::Event(event) => self.received(socket, event, now),
            Packet::Ack(JOIN, answer) => self.joined(socket, answer, now),
            Packet::Ack(id, answer) => self.answered(socket, id, answer, out, now),
            Packet::Connected => match &self.speakers[socket] {
                Speaker { joins: true, room: Some(room), .. } => {
                    out.text(format!(r#"42{JOIN}["joinRoom","{room}"]"#).as_bytes())
                }
                _ => self.is_ready(socket, now),
            },
            Packet::Open | Packet::Ping | Packet::End(_) | Packet::Other => {}
        }
    }

    fn closed(&mut self, socket: usize, why: &str) {
        let speaker = &mut self.speakers[socket];
        self.unanswered -= speaker.pending.len();
        speaker.pending.clear();
        speaker.seq = None;
        self.counts.closed += 1;
        self.counts.blame(|| why.into());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}
