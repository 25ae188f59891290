//! The transport of a session. <https://github.com/socketio/engine.io-protocol#transports>

use crate::metrics::METRICS;

/// The transport of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long-polling.
    Polling {
        /// Whether a GET is waiting.
        reading: bool,
    },
    /// HTTP long-polling while the client probes a WebSocket.
    /// <https://github.com/socketio/engine.io-protocol#upgrade>
    Probing {
        /// Whether a GET is waiting.
        reading: bool,
    },
    /// A WebSocket (RFC 6455).
    WebSocket,
    /// The session has ended and has no transport.
    Closed,
}

impl Transport {
    /// HTTP long-polling before the first GET.
    pub const POLLING: Self = Self::Polling { reading: false };

    /// Adds `by` (1 or -1) to the gauge of sessions with this transport.
    pub(crate) fn count(self, by: f64) {
        match self {
            Self::Polling { .. } | Self::Probing { .. } => METRICS.polling.increment(by),
            Self::WebSocket => METRICS.websocket.increment(by),
            Self::Closed => {}
        }
    }

    pub(crate) fn is_reading(self) -> bool {
        matches!(self, Self::Polling { reading: true } | Self::Probing { reading: true })
    }

    /// Whether the client polls, with or without a probe.
    pub(crate) fn is_polling(self) -> bool {
        matches!(self, Self::Polling { .. } | Self::Probing { .. })
    }
}
