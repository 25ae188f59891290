//! Presence: who has a socket at any gateway, and what each user says about it.
//!
//! Each gateway knows the users of its own sockets ([`own`]) and tells the others what changes. Of the users of other
//! gateways it knows only those that its clients watch ([`table`]). Both are plain data without I/O: the caller passes
//! the time.

pub mod own;
pub mod table;

use std::time::Duration;

/// A user whose last socket has ended is shown as before for this long, so that a reconnect is not noticed.
pub const GRACE: Duration = Duration::from_secs(10);
/// A gateway that was not received for this long has ended, with all its sockets.
pub const SILENCE: Duration = Duration::from_secs(35);
/// While the gateways cannot hear each other, what is known is shown for this long.
pub const LAST_KNOWN: Duration = Duration::from_secs(60);

/// What a user says at a socket, from the weakest to the strongest: the strongest of all sockets counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    Away,
    Online,
    Busy,
    /// The user is shown as offline. Other gateways must know it, because it also hides sockets there; clients must not.
    Invisible,
}

/// What clients see of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Online,
    Away,
    Busy,
    Offline,
    /// Not known now, or not for this client to see.
    Unknown,
}

impl Said {
    /// What clients see of a user with this strongest status.
    pub fn shown(self) -> Shown {
        match self {
            Self::Away => Shown::Away,
            Self::Online => Shown::Online,
            Self::Busy => Shown::Busy,
            Self::Invisible => Shown::Offline,
        }
    }
}

impl Shown {
    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        }
    }
}

/// What a gateway tells about a user of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// The user has a socket.
    Live(Said),
    /// The last socket has ended, after the user said this.
    Left(Said),
}
