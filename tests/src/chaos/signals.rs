//! What clients do and receive beside the log: markers, presence and typing.

use std::time::Duration;

use uuid::Uuid;

use super::history::{At, Attempt};

/// All signals of a run.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    pub marks: Vec<Mark>,
    /// In any order.
    pub readings: Vec<Reading>,
    pub stays: Vec<Stay>,
    pub watches: Vec<Watch>,
    pub typed: Vec<Typed>,
    pub typing: Vec<TypingShown>,
}

/// A request of a member to move the marker of a room.
#[derive(Debug, Clone)]
pub struct Mark {
    pub user: Uuid,
    pub room: Uuid,
    pub seq: u64,
    /// Whether the marker moves backwards, too.
    pub unread: bool,
    pub attempt: Attempt,
}

/// The marker and the unread count of a member, as a device received them.
#[derive(Debug, Clone)]
pub struct Reading {
    pub user: Uuid,
    pub room: Uuid,
    /// A description of the device, for the evidence.
    pub device: &'static str,
    /// When the request began; `None` for an event, which may come late.
    pub begun: Option<At>,
    pub at: At,
    pub read_seq: u64,
    pub unread: u64,
    /// Whether it is the last one of the device, after the run was quiet.
    pub last: bool,
}

/// A time in which a socket of a user was connected.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    pub user: Uuid,
    pub from: At,
    pub until: At,
}

/// A client that watches a user without interruption.
#[derive(Debug, Clone)]
pub struct Watch {
    /// A description of the client, for the evidence.
    pub name: &'static str,
    pub user: Uuid,
    pub from: At,
    pub until: At,
    /// What it received, in order; the first is the answer to `watch`.
    pub shown: Vec<(At, Status)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Online, away or busy.
    Online,
    Offline,
    Unknown,
}

/// A `typing` that a client emitted.
#[derive(Debug, Clone, Copy)]
pub struct Typed {
    pub user: Uuid,
    pub room: Uuid,
    pub begun: At,
    /// When it was acknowledged, or the client stopped waiting.
    pub ended: At,
}

/// A `typing` event with `on: true`.
#[derive(Debug, Clone, Copy)]
pub struct TypingShown {
    pub user: Uuid,
    pub room: Uuid,
    pub at: At,
    /// How long a client shows it.
    pub expires_in: Duration,
}
