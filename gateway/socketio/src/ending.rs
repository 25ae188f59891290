//! The table of all causes that end a session. The metric `confab_session_ends_total`, the log and the documentation
//! use this table.

use std::{fmt, io};

use crate::packet::Malformed;

/// Why a session ended. The first of several causes counts. [`cause`](Self::cause) describes each variant, and
/// [`next`](Self::next) what a stock client does afterwards.
#[expect(missing_docs, reason = "`cause` describes each one")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    ClientClosed = 1,
    ConnectionLost,
    PingTimeout,
    ConnectTimeout,
    Refused,
    Disconnected,
    Returned,
    Draining,
    Malformed,
    TooLarge,
    NotUtf8,
    Overflow,
    OverBudget,
    Stuck,
    PendingLimit,
    AnswerLost,
}

/// What a stock client does after the end of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    Reconnects,
    MustFix,
}

/// A line of the table.
struct Line {
    code: &'static str,
    /// The close code of a WebSocket (RFC 6455 section 7.4), if a close frame is sent.
    close: Option<u16>,
    cause: &'static str,
    next: Next,
}

const fn line(code: &'static str, close: Option<u16>, cause: &'static str, next: Next) -> Line {
    Line { code, close, cause, next }
}

impl Ending {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::ClientClosed,
        Self::ConnectionLost,
        Self::PingTimeout,
        Self::ConnectTimeout,
        Self::Refused,
        Self::Disconnected,
        Self::Returned,
        Self::Draining,
        Self::Malformed,
        Self::TooLarge,
        Self::NotUtf8,
        Self::Overflow,
        Self::OverBudget,
        Self::Stuck,
        Self::PendingLimit,
        Self::AnswerLost,
    ];

    const fn line(self) -> Line {
        use Next::{MustFix, Nothing, Reconnects};
        match self {
            Self::ClientClosed => line("client_closed", Some(1000), "The client closed the session.", Nothing),
            Self::ConnectionLost => line("connection_lost", None, "The connection broke.", Reconnects),
            Self::PingTimeout => {
                line("ping_timeout", Some(1000), "The client sent no packet within the ping timeout.", Reconnects)
            }
            Self::ConnectTimeout => {
                line("connect_timeout", Some(1000), "The client did not connect within the time limit.", Reconnects)
            }
            Self::Refused => line("refused", Some(1000), "The server rejected CONNECT (`connect_error`).", MustFix),
            Self::Disconnected => {
                line("disconnected", Some(1000), "The server disconnected the socket (`sessionEnded`).", MustFix)
            }
            Self::Returned => line(
                "returned",
                Some(1001),
                "The server could not continue the session: the client must connect again.",
                Reconnects,
            ),
            Self::Draining => line("draining", Some(1000), "The server shut down (`serverGoingAway`).", Reconnects),
            Self::Malformed => line("malformed", Some(1002), "The client broke the protocol.", MustFix),
            Self::TooLarge => line("too_large", Some(1009), "A packet was larger than the limit.", MustFix),
            Self::NotUtf8 => line("not_utf8", Some(1007), "A text packet was not valid UTF-8.", MustFix),
            Self::Overflow => line(
                "overflow",
                Some(1001),
                "The client left over 1 MiB of events, 2 MiB of answers, or (before CONNECT) 16 KiB unread.",
                Reconnects,
            ),
            Self::OverBudget => line(
                "over_budget",
                Some(1001),
                "The memory limit of all clients was exceeded, and this client's owner held the most bytes.",
                Reconnects,
            ),
            Self::Stuck => line("stuck", None, "The client read none of its queued frames for 10 s.", Reconnects),
            Self::PendingLimit => line(
                "pending_limit",
                Some(1001),
                "Too many sessions had no identified client; this session was the oldest of the largest address.",
                Reconnects,
            ),
            Self::AnswerLost => line(
                "answer_lost",
                None,
                "The answer to a poll was lost, and the server could not distinguish its repeat from the next poll.",
                Reconnects,
            ),
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| *ending as u8 == number)
    }

    /// The name in the metric and in the log.
    pub const fn code(self) -> &'static str {
        self.line().code
    }

    /// The close code of a WebSocket (RFC 6455 section 7.4); `None` when no close frame is sent.
    pub const fn close_code(self) -> Option<u16> {
        self.line().close
    }

    /// The cause, as a sentence.
    pub const fn cause(self) -> &'static str {
        self.line().cause
    }

    /// What a stock client does next, as a sentence.
    pub const fn next(self) -> &'static str {
        match self.line().next {
            Next::Nothing => "It does not reconnect.",
            Next::Reconnects => "It reconnects by itself.",
            Next::MustFix => "Retries fail until the application fixes the cause.",
        }
    }

    /// The table of all causes in Markdown.
    pub fn table() -> String {
        let head =
            "| cause | close code | what happened | what a stock client does next |\n|---|---|---|---|\n".to_owned();
        Self::ALL.into_iter().fold(head, |table, ending| {
            let close = ending.close_code().map_or("none".into(), |code| code.to_string());
            table + &format!("| `{}` | {close} | {} | {} |\n", ending.code(), ending.cause(), ending.next())
        })
    }
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::ConnectionLost
    }
}

impl From<Malformed> for Ending {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_own_line() {
        for ending in Ending::ALL {
            assert_eq!(Ending::of_number(ending as u8), Some(ending));
            assert_eq!(Ending::ALL.iter().filter(|other| other.code() == ending.code()).count(), 1, "{ending}");
        }
        assert_eq!(Ending::of_number(0), None);
    }

    #[test]
    fn the_documents_have_this_table() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for document in ["README.md", "../../docs/realtime.md"] {
            let text = std::fs::read_to_string(root.join(document)).unwrap();
            assert!(text.contains(&Ending::table()), "{document} must contain:\n{}", Ending::table());
        }
    }

    #[test]
    fn the_table_has_one_line_for_each_ending() {
        assert_eq!(Ending::table().lines().count(), Ending::ALL.len() + 2);
    }
}
