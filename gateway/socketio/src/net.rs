//! The interface to the HTTP server that serves the routes: addresses and permits of connections, the progress of
//! requests and answers, the bytes held for them, and the TCP streams of upgraded connections.
//!
//! An HTTP server can put a [`ClientAddress`], a [`ConnectionPermit`] and a [`Tally`] into the extensions of each
//! request. They give the server limits per address and exact answers to repeated polls. All three are optional: the
//! routes also work with `axum::serve`.

mod address;
mod body;
mod permit;
mod requests;
mod tally;
mod upgraded;
pub mod wire;

pub use address::{ClientAddress, network};
pub use body::{collect_steadily, next_frame, too_large, too_slow};
pub use permit::{ConnectionPermit, Share, Shares, TIMES_FREE};
pub use requests::Requests;
pub use tally::{SharedBody, Tally};
pub use upgraded::{IntoTcp, from_hyper};
