//! How large the payload of a POST may be, and reading one whole that passes from gateway to gateway.

use axum::body::{Body, Bytes};
use confab_common::Code;

use super::refusal::Refusal;
use crate::edge::body;
use crate::memory::Held;

/// Largest payload of a POST: attachments arrive as base64.
pub fn max_payload(max_packet: usize) -> usize {
    max_packet.div_ceil(3).saturating_mul(4)
}

/// The whole payload of a signed request between gateways, counted in `held` while it arrives.
pub async fn whole_payload(body: Body, max_packet: usize, held: Option<&mut Held>) -> Result<Bytes, Refusal> {
    body::collect_steadily(body, max_payload(max_packet), held).await.map_err(|error| match error.code {
        Code::TooLarge => Refusal::too_large(),
        _ => Refusal::BadRequest,
    })
}
