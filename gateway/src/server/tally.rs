//! Counts what is held for a request: its body while it arrives, and its answer until the connection has taken it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::wire::Answer;
use crate::address::ClientAddress;
use crate::memory::{Held, Holder, Memory, SMALL};

/// Counts for one request; it is in the request's extensions.
#[derive(Clone)]
pub struct Tally {
    memory: Arc<Memory>,
    address: ClientAddress,
    answer: Answer,
}

impl Tally {
    /// Counts for the client at this address.
    pub fn new(memory: Arc<Memory>, address: ClientAddress, answer: Answer) -> Self {
        Self { memory, address, answer }
    }

    /// The answer to the request.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// What is held for all clients.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The holder when the user is not known.
    pub fn address(&self) -> Holder {
        Holder::Address(self.address)
    }

    /// Counts for this holder.
    pub fn hold(&self, holder: Holder) -> Held {
        Held::of(self.memory.clone(), holder, Arc::downgrade(self.answer.wire()) as _)
    }

    /// Counts each part of the response from when the connection buffers it until it is written. A [`Holder`] in the response's
    /// extensions is charged, else the address.
    pub(super) fn count(self, mut response: Response) -> Response {
        let holder = response.extensions_mut().remove().unwrap_or(self.address());
        if response.body().size_hint().exact().is_some_and(|bytes| bytes <= SMALL as u64) {
            return response;
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                frame.map_data(|data| match data.len() {
                    0..=SMALL => data,
                    bytes => Bytes::from_owner(Counted { data, _held: self.hold(holder).with(bytes) }),
                })
            }))
        })
    }
}

/// A part of a response.
struct Counted {
    data: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
