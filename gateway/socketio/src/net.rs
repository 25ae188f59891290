//! What the engine shares with the HTTP server around it: the addresses and permits of connections, how far their requests
//! and answers have come, the bytes held for them, and the TCP streams under upgraded ones.
//!
//! An HTTP server that puts a [`ClientAddress`], a [`ConnectionPermit`] and a [`Tally`] into each request's extensions gets
//! bounds per address and exact answers to repeated polls. All three are optional: the engine also runs in `axum::serve`.

mod address;
mod body;
mod course;
mod permit;
mod tally;
mod upgraded;
pub mod wire;

pub use address::{ClientAddress, network};
pub use body::{collect_steadily, next_frame, too_large, too_slow};
pub use course::Course;
pub use permit::{ConnectionPermit, Share, Shares, TIMES_FREE};
pub use tally::{SharedBody, Tally};
pub use upgraded::{IntoTcp, from_hyper};
