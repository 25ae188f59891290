//! Delays rejections on purpose.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use confab_common::metrics::LIMITS;
use confab_socketio::net::{ClientAddress, Shares};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// How long a rejection is delayed.
pub const LATE: Duration = Duration::from_secs(1);
/// The label in `confab_limits_total` of rejections that are not delayed because too many others are.
pub(super) const TOO_MANY: &str = "late_rejections";
/// Maximum number of rejections that are delayed at the same time.
const MAX_LATE: usize = 16_384;

/// The rejections that are delayed at present. Each also holds the connection of its request, because HTTP/1.1 has one
/// response at a time.
pub struct LateRejections {
    permits: Semaphore,
    /// One address alone can take four fifths of the permits.
    shares: Arc<Shares>,
}

impl Default for LateRejections {
    fn default() -> Self {
        Self::of(MAX_LATE)
    }
}

impl LateRejections {
    fn of(most: usize) -> Self {
        Self { permits: Semaphore::new(most), shares: Shares::of(most) }
    }

    /// Delays a rejection. Clients that log in again at once would otherwise take CPU time from all other clients. If
    /// too many rejections are delayed already, the client receives this one at once, and must reconnect.
    pub async fn delay(&self, address: ClientAddress, response: &mut Response) {
        match self.permits.try_acquire().ok().zip(self.shares.take(address)) {
            Some(_permits) => sleep(LATE).await,
            None => {
                LIMITS.hit(TOO_MANY);
                response.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures::future::join_all;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delayed_rejections_are_bounded_for_an_address_and_in_all() {
        let late = LateRejections::of(5);
        let reject = |host: u8| {
            let (late, address) = (&late, IpAddr::from(Ipv4Addr::new(203, 0, 113, host)).into());
            async move {
                let (begun, mut response) = (Instant::now(), Response::default());
                late.delay(address, &mut response).await;
                let is_late = !response.headers().contains_key(CONNECTION);
                assert_eq!(begun.elapsed(), if is_late { LATE } else { Duration::ZERO });
                is_late
            }
        };
        // The first address gets four of five permits, and the second one the last permit.
        let are_late = join_all([1, 1, 1, 1, 1, 1, 2, 2, 3].map(reject)).await;
        assert_eq!(are_late, [true, true, true, true, false, false, true, false, false]);
        assert!(join_all([3, 2, 1].map(reject)).await.iter().all(|is_late| *is_late), "the permits return");
    }
}
