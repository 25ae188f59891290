//! The transport of a session. <https://github.com/socketio/engine.io-protocol#transports>

use crate::metrics::METRICS;

/// The transport of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Long-polling.
    Polling {
        /// A GET is waiting.
        reading: bool,
    },
    /// Long-polling, while the client probes a WebSocket.
    Probing {
        /// A GET is waiting.
        reading: bool,
    },
    /// A WebSocket.
    WebSocket,
    /// None: the session is over.
    Closed,
}

impl Transport {
    /// Long-polling, before the first GET.
    pub const POLLING: Self = Self::Polling { reading: false };

    /// Counts a session that starts or stops using this transport.
    pub(crate) fn count(self, by: f64) {
        match self {
            Self::Polling { .. } | Self::Probing { .. } => METRICS.polling.increment(by),
            Self::WebSocket => METRICS.websocket.increment(by),
            Self::Closed => {}
        }
    }

    /// Whether a GET is waiting.
    pub(crate) fn is_reading(self) -> bool {
        matches!(self, Self::Polling { reading: true } | Self::Probing { reading: true })
    }

    /// Whether the client polls, also while it probes a WebSocket.
    pub(crate) fn is_polling(self) -> bool {
        matches!(self, Self::Polling { .. } | Self::Probing { .. })
    }
}
