//! The Socket.IO state machine of one session, without I/O. It takes a packet and returns a [`Step`] for the server.
//! <https://github.com/socketio/socket.io-protocol>, <https://github.com/socketio/engine.io-protocol>

use bytes::Bytes;
use confab_common::metrics::LIMITS;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;

use crate::event::Event;
use crate::frame::Frame;
use crate::packet::{EventPayload, Kind, Malformed, Packet};
use crate::rate_limit::RateLimit;

/// Packets per second from a client that has not connected, with bursts of twice that number.
const UNKNOWN_PER_SECOND: u32 = 50;
/// Longest ping from a client that is answered, in bytes.
const MAX_PING: usize = 125;

/// The server's action for a packet.
pub enum Step<'a> {
    Nothing,
    /// Queue this frame.
    Reply(Frame),
    /// Pass CONNECT to the application, which answers with [`Protocol::accept`].
    Connect(&'a str),
    /// Pass the event to the application.
    Event(Event<'a>),
    /// The packet waits for its attachments.
    Waiting,
    /// The client has left the namespace; it may connect again.
    Left,
    /// The client has sent DISCONNECT before it was connected: close the session.
    Disconnected,
    /// The client has closed the session.
    Closed,
}

/// The state of one session.
pub struct Protocol {
    // Held for one packet, never across an await or a call.
    state: Mutex<State>,
    /// Events per second of a connected client; 0: no limit.
    max_events_per_second: u32,
}

struct State {
    phase: Phase,
    /// The client has sent CONNECT for a namespace that does not exist.
    has_requested_other: bool,
    partial: Option<Box<Partial>>,
    was_connected: bool,
    rate_limit: RateLimit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Connecting,
    Connected,
    /// The client has left the namespace, and may connect again.
    Left,
    Ended,
}

/// A packet that waits for its attachments.
pub struct Partial {
    text: String,
    attachments: Vec<Bytes>,
    bytes: usize,
    expected: usize,
}

/// The outcome of an attachment.
pub enum Attachment {
    /// The packet waits for more attachments.
    Waiting,
    /// The packet is complete.
    Complete(Box<Partial>),
}

impl Partial {
    /// The bytes of the packets that it consists of so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Protocol {
    /// The state of a client that has not connected.
    pub fn new(max_events_per_second: u32) -> Self {
        let state = State {
            phase: Phase::New,
            has_requested_other: false,
            partial: None,
            was_connected: false,
            rate_limit: RateLimit::new(UNKNOWN_PER_SECOND),
        };
        Self { state: Mutex::new(state), max_events_per_second }
    }

    /// Whether [`text`](Self::text) may keep this packet until its attachments arrive. The caller counts its bytes before,
    /// so that no other task can release them first.
    pub fn may_wait(packet: &str) -> bool {
        packet.starts_with("45") || packet.starts_with("46")
    }

    /// Takes an Engine.IO text packet. `is_known` is whether the client is identified.
    ///
    /// # Errors
    /// [`Malformed`] for a packet that no conforming client sends. The server closes the session.
    pub fn text<'a>(&self, packet: &'a str, is_known: bool) -> Result<Step<'a>, Malformed> {
        let mut state = self.state.lock();
        if !is_known && state.phase == Phase::New && !state.rate_limit.admit() {
            return Err(too_many());
        }
        match packet.as_bytes().first() {
            Some(b'4') => Self::socket_text(state, packet),
            Some(b'3' | b'6') => Ok(Step::Nothing),
            Some(b'2') if packet.len() > MAX_PING => Err(Malformed("ping over 125 bytes")),
            Some(b'2') => Ok(Step::Reply(Frame::engine(&format!("3{}", packet.get(1..).unwrap_or_default())))),
            Some(b'1') => Ok(Step::Closed),
            _ => Err(Malformed("unknown Engine.IO packet")),
        }
    }

    fn socket_text<'a>(mut state: MutexGuard<'_, State>, received: &'a str) -> Result<Step<'a>, Malformed> {
        let text = &received[1..];
        let packet = Packet::parse(text)?;
        if state.partial.is_some() {
            return Err(Malformed("text before the announced attachments"));
        }
        if packet.namespace != "/" {
            return state.other_namespace(&packet);
        }
        if packet.attachments == 0 {
            return state.take(&packet, &[]);
        }
        if state.phase == Phase::New {
            return Err(Malformed("an attachment before CONNECT"));
        }
        let partial = Partial {
            text: text.to_owned(),
            attachments: Vec::new(),
            bytes: received.len(),
            expected: packet.attachments,
        };
        state.partial = Some(Box::new(partial));
        Ok(Step::Waiting)
    }

    /// Takes an attachment of a packet that may have `max_packet` bytes in total. [`complete`](Self::complete) then
    /// takes the complete packet. The caller counts its bytes before, as for [`text`](Self::text).
    ///
    /// # Errors
    /// [`Malformed`] when no packet waits for an attachment, or when the packet exceeds `max_packet`.
    pub fn binary(&self, data: Bytes, max_packet: usize) -> Result<Attachment, Malformed> {
        let mut state = self.state.lock();
        let partial = state.partial.as_mut().ok_or(Malformed("unexpected attachment"))?;
        if partial.bytes + data.len() > max_packet {
            LIMITS.hit("packet");
            return Err(Malformed("attachments over the limit"));
        }
        partial.bytes += data.len();
        partial.attachments.push(data);
        if partial.attachments.len() == partial.expected
            && let Some(partial) = state.partial.take()
        {
            return Ok(Attachment::Complete(partial));
        }
        Ok(Attachment::Waiting)
    }

    /// Takes a packet with its attachments.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn complete<'a>(&self, partial: &'a Partial) -> Result<Step<'a>, Malformed> {
        self.state.lock().take(&Packet::parse(&partial.text)?, &partial.attachments)
    }

    /// Connects the client after the application has accepted its CONNECT; `false` when the client has disconnected
    /// meanwhile. The first time, the rate limit on events replaces the one on packets before CONNECT.
    pub fn accept(&self) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Connecting {
            return false;
        }
        state.phase = Phase::Connected;
        if !std::mem::replace(&mut state.was_connected, true) {
            state.rate_limit = RateLimit::new(self.max_events_per_second);
        }
        true
    }

    /// Ends the protocol: later packets have no effect. Returns the bytes of an incomplete packet, which it drops.
    pub fn end(&self) -> usize {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        state.partial.take().map_or(0, |partial| partial.bytes)
    }
}

impl State {
    fn take<'a>(&mut self, packet: &Packet<'a>, attachments: &'a [Bytes]) -> Result<Step<'a>, Malformed> {
        match (packet.kind, self.phase) {
            (Kind::Connect, Phase::New) => {
                self.phase = Phase::Connecting;
                Ok(Step::Connect(packet.data))
            }
            (Kind::Connect, Phase::Left) if self.rate_limit.admit() => {
                self.phase = Phase::Connecting;
                Ok(Step::Connect(packet.data))
            }
            (Kind::Event, Phase::Connecting | Phase::Connected) => {
                let EventPayload { name, argument } = EventPayload::parse(packet.data)?;
                let over_limit = !self.rate_limit.admit();
                if over_limit {
                    LIMITS.hit("events_per_second");
                }
                let size = packet.data.len() + attachments.iter().map(Bytes::len).sum::<usize>();
                Ok(Step::Event(Event { name, argument, attachments, ack: packet.id, size, over_limit }))
            }
            (Kind::Disconnect, Phase::Connected) => {
                self.phase = Phase::Left;
                Ok(Step::Left)
            }
            (Kind::Disconnect, Phase::New | Phase::Connecting) => {
                self.phase = Phase::Ended;
                Ok(Step::Disconnected)
            }
            (Kind::Ack, _) | (_, Phase::Ended) | (Kind::Disconnect, Phase::Left) => Ok(Step::Nothing),
            (Kind::Connect, _) => Err(Malformed("CONNECT of a connected client")),
            (Kind::Event, Phase::New | Phase::Left) => Err(Malformed("an event before CONNECT")),
        }
    }

    /// Handles a packet for a namespace that does not exist: every namespace except `/`.
    fn other_namespace<'a>(&mut self, packet: &Packet<'a>) -> Result<Step<'a>, Malformed> {
        if packet.kind != Kind::Connect {
            return Ok(Step::Nothing);
        }
        match self.phase {
            Phase::New if std::mem::replace(&mut self.has_requested_other, true) => return Err(too_many()),
            Phase::Connecting | Phase::Connected if !self.rate_limit.admit() => {
                LIMITS.hit("events_per_second");
                return Ok(Step::Nothing);
            }
            _ => {}
        }
        let error = json!({ "message": "Invalid namespace", "data": { "code": "not_found", "status": 404 } });
        Ok(Step::Reply(Frame::connect_error(packet.namespace, &error)))
    }
}

fn too_many() -> Malformed {
    LIMITS.hit("before_connect");
    Malformed("too many packets before CONNECT")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the step for a packet.
    fn step(protocol: &Protocol, packet: &str) -> &'static str {
        match protocol.text(packet, false) {
            Ok(Step::Nothing) => "nothing",
            Ok(Step::Reply(_)) => "reply",
            Ok(Step::Connect(_)) => "connect",
            Ok(Step::Event(event)) if event.over_limit => "over",
            Ok(Step::Event(_)) => "event",
            Ok(Step::Waiting) => "waiting",
            Ok(Step::Left) => "left",
            Ok(Step::Disconnected) => "disconnected",
            Ok(Step::Closed) => "closed",
            Err(_) => "malformed",
        }
    }

    /// The names of the steps for these packets; `accept` stands for the application's answer to CONNECT.
    fn steps(packets: &[&str]) -> Vec<&'static str> {
        let protocol = Protocol::new(0);
        let one = |packet: &&str| match *packet {
            "accept" if protocol.accept() => "accepted",
            "accept" => "gone",
            packet => step(&protocol, packet),
        };
        packets.iter().map(one).collect()
    }

    #[test]
    fn every_phase_of_a_client() {
        let usual = [
            "2",
            "40{}",
            r#"42["early"]"#,
            "accept",
            r#"42["late"]"#,
            "3",
            "41",
            "40{}",
            "accept",
            r#"42["again"]"#,
            "1",
        ];
        let expected = [
            "reply", "connect", "event", "accepted", "event", "nothing", "left", "connect", "accepted", "event",
            "closed",
        ];
        assert_eq!(steps(&usual), expected);
        assert_eq!(steps(&["40", "41", "accept", r#"42["x"]"#]), ["connect", "disconnected", "gone", "nothing"]);
        assert_eq!(steps(&["41"]), ["disconnected"]);
        assert_eq!(
            steps(&["40", "accept", "41", "41", r#"42["x"]"#]),
            ["connect", "accepted", "left", "nothing", "malformed"]
        );
        assert_eq!(steps(&[r#"42["x"]"#]), ["malformed"]);
        assert_eq!(steps(&["40", "40"]), ["connect", "malformed"]);
        assert_eq!(steps(&["40/a,", "40", "40/b,", "42/b,[]"]), ["reply", "connect", "reply", "nothing"]);
    }

    #[test]
    fn attachments_come_before_any_other_text() {
        let protocol = Protocol::new(0);
        assert_eq!([step(&protocol, "40"), step(&protocol, r#"452-["x",1]"#)], ["connect", "waiting"]);
        assert!(matches!(protocol.binary(Bytes::from_static(b"one"), 100), Ok(Attachment::Waiting)));
        assert_eq!(step(&protocol, r#"42["y"]"#), "malformed");
        let Ok(Attachment::Complete(partial)) = protocol.binary(Bytes::from_static(b"two"), 100) else {
            panic!("complete")
        };
        let Ok(Step::Event(event)) = protocol.complete(&partial) else { panic!("an event") };
        assert_eq!((&*event.name, event.attachments.len(), event.size, partial.bytes()), ("x", 2, 7 + 6, 11 + 6));
        assert!(protocol.binary(Bytes::new(), 100).is_err(), "no packet awaits it");
        assert_eq!(step(&protocol, r#"451-["x"]"#), "waiting");
        assert!(protocol.binary(vec![0; 100].into(), 100).is_err(), "too large with its text");
        assert_eq!(protocol.end(), 9);
    }

    #[test]
    fn packets_before_connect_are_limited() {
        for packet in ["2", "3", "6", "41/x,", "42/x,[]"] {
            let protocol = Protocol::new(0);
            let taken = (0..1000).take_while(|_| step(&protocol, packet) != "malformed").count();
            assert!((100..200).contains(&taken), "{packet} is accepted {taken} times");
        }
        for bad in [r#"451-["fileUpload",{}]"#, "461-[]", &format!("2{}", "x".repeat(1000)), "", "5", "é"] {
            assert_eq!(steps(&[bad]), ["malformed"], "{bad}");
        }
        assert_eq!(steps(&["40/a,", "3", "40/b,"]), ["reply", "nothing", "malformed"]);
    }

    #[test]
    fn events_over_the_limit_are_marked() {
        let protocol = Protocol::new(10);
        assert_eq!(step(&protocol, "40"), "connect");
        assert!(protocol.accept());
        let over = (0..100).filter(|_| step(&protocol, r#"42["x"]"#) == "over").count();
        assert!((75..=80).contains(&over), "{over}");
    }
}
