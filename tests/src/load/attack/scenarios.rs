//! Every attack, and its targets.

use std::fmt::Write;

use super::hostile::Attack;
use super::stage::Kind;
use super::target::Target;

/// An attack on one kind of server, and its targets.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The actions of the attackers.
    pub about: &'static str,
    /// The attacked server.
    pub kind: Kind,
    pub attack: Attack,
    /// Duration in seconds.
    pub seconds: u64,
    /// What must hold.
    pub targets: Targets,
}

/// Lists of targets, all of which must be met.
type Targets = &'static [&'static [Target]];

const SPARED: &[Target] = &[
    Target::Survives,
    Target::SendsAccepted,
    Target::SendsInTime,
    Target::NoneClosed,
    Target::NewcomersEnter,
    Target::AdminAnswers,
];
const MODEST: Targets = &[SPARED, &[Target::MemoryPeak(400), Target::MemoryAfter(40)]];
/// Connections without a request cost 14 KiB each, in addition to the counted memory.
const CROWD: Targets = &[SPARED, &[Target::MemoryPeak(600), Target::MemoryAfter(40)]];
const HANDSHAKES: &[Target] = &[
    Target::Survives,
    Target::SendsAccepted,
    Target::JoinsInTime,
    Target::NoneClosed,
    Target::NewcomersEnter,
    Target::AdminAnswers,
    Target::MemoryPeak(100),
    Target::MemoryAfter(40),
];
const LOGINS: &[Target] =
    &[Target::Survives, Target::LoginsInTime, Target::SendsAccepted, Target::SendsInTime, Target::NoneClosed];
const UPLOADS: &[Target] = &[
    Target::Survives,
    Target::UploadsStart,
    Target::SendsAccepted,
    Target::SendsInTime,
    Target::NoneClosed,
    Target::NewcomersEnter,
    Target::AdminAnswers,
];
const FULL: &[Target] = &[
    Target::Survives,
    Target::AdminAnswers,
    Target::TransfersGoOn,
    Target::NothingInternal,
    Target::SendsAccepted,
    Target::NoneClosed,
];

const fn scenario(
    name: &'static str,
    about: &'static str,
    kind: Kind,
    attack: Attack,
    seconds: u64,
    targets: Targets,
) -> Scenario {
    Scenario { name, about, kind, attack, seconds, targets }
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    scenario(
        "acks",
        "60 polling sessions of one account repeat 16 KB messages in 200 rooms and never GET",
        Kind::Embedded,
        Attack::Silent(false),
        20,
        MODEST,
    ),
    scenario(
        "acks-once",
        "the same, and each session GETs once before: the session with the most unread bytes must be closed, not honest ones",
        Kind::Embedded,
        Attack::Silent(true),
        20,
        MODEST,
    ),
    scenario(
        "handshakes",
        "400,000 handshakes from 2 connections",
        Kind::Embedded,
        Attack::Handshakes(0),
        40,
        &[HANDSHAKES],
    ),
    scenario(
        "headers",
        "handshakes with 30 kB of Authorization, 120 MB/s from 2 connections",
        Kind::Embedded,
        Attack::Handshakes(30_000),
        20,
        &[HANDSHAKES],
    ),
    scenario(
        "namespaces",
        "1 MB/s of CONNECTs to unknown namespaces over 8 WebSockets that do not read",
        Kind::Embedded,
        Attack::Namespaces,
        20,
        &[HANDSHAKES],
    ),
    scenario(
        "pending",
        "18 new polling sessions per second, each with 29 kB of CONNECTs to unknown namespaces and no GET",
        Kind::Embedded,
        Attack::Pending,
        30,
        &[HANDSHAKES],
    ),
    scenario(
        "halves",
        "300 sessions that hold half of a 1 MB packet before CONNECT",
        Kind::Embedded,
        Attack::Halves,
        20,
        &[HANDSHAKES],
    ),
    scenario(
        "logins",
        "800 connections that log in with a wrong password",
        Kind::Embedded,
        Attack::Logins,
        20,
        &[LOGINS],
    ),
    scenario(
        "uploads",
        "100 uploads of one account at 700 kB/s each",
        Kind::Embedded,
        Attack::Uploads(700_000),
        20,
        &[UPLOADS],
    ),
    scenario(
        "slow-uploads",
        "100 uploads of one account at 1.1 kB/s each",
        Kind::Embedded,
        Attack::Uploads(1100),
        20,
        &[UPLOADS],
    ),
    scenario(
        "cluster-uploads",
        "the uploads at 700 kB/s against a gateway and a file service",
        Kind::Cluster,
        Attack::Uploads(700_000),
        20,
        &[UPLOADS],
    ),
    scenario("search", "64 connections that search 100,000 rooms", Kind::Embedded, Attack::Searches, 20, &[SPARED]),
    scenario(
        "docs",
        "4 connections that ask for the HEAD of the documentation",
        Kind::Embedded,
        Attack::Docs,
        20,
        &[SPARED],
    ),
    scenario(
        "connections",
        "idle connections and half heads, 1.5 times the number of descriptors (1,024)",
        Kind::Narrow,
        Attack::Idle,
        20,
        &[FULL],
    ),
    scenario(
        "sockets",
        "the same number of idle WebSockets of one account",
        Kind::Narrow,
        Attack::Sockets,
        20,
        &[FULL],
    ),
    scenario(
        "joins",
        "60 WebSockets that join 200 rooms with their history and do not read",
        Kind::Embedded,
        Attack::Joins,
        20,
        MODEST,
    ),
    scenario(
        "pages",
        "300 connections of one account that each request three pages of 3 MB and do not read",
        Kind::Embedded,
        Attack::Pages,
        20,
        MODEST,
    ),
    scenario(
        "polls",
        "20 sessions of one account that poll repeatedly without reading",
        Kind::Embedded,
        Attack::Polls,
        20,
        MODEST,
    ),
    scenario(
        "bodies",
        "700 connections of one account that hold 250 kB of JSON",
        Kind::Embedded,
        Attack::Bodies,
        20,
        MODEST,
    ),
    scenario(
        "heads",
        "9,000 connections that hold 30 kB of a request's head",
        Kind::Embedded,
        Attack::Heads,
        20,
        CROWD,
    ),
    scenario(
        "slow-readers",
        "100 WebSockets in a busy room that read every 2 s",
        Kind::Embedded,
        Attack::Slow,
        20,
        MODEST,
    ),
];

/// Returns all names, for `--help`.
pub fn help() -> String {
    SCENARIOS.iter().fold("Attacks:\n".into(), |mut text, scenario| {
        let _ = writeln!(text, "  {:<16} {}", scenario.name, scenario.about);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_attacks_are_short() {
        let names = SCENARIOS.iter().map(|scenario| scenario.name).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(SCENARIOS.iter().all(|scenario| scenario.seconds <= 60 && !scenario.targets.is_empty()));
        assert!(help().contains("slow-uploads"));
    }
}
