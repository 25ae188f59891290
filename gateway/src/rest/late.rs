//! Delays rejections on purpose.

use tokio::time::sleep;
use tonic::{Code, Status};

use crate::limits::LATE;

/// Delays the response when a service is overloaded (`unavailable`). Otherwise clients that retry at once would cost
/// more CPU time through rejections than through successful requests.
///
/// # Errors
/// The errors of the call.
pub async fn refuse_late<T>(called: Result<T, Status>) -> Result<T, Status> {
    if called.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
        sleep(LATE).await;
    }
    called
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_overload_rejections_are_delayed() {
        let begun = Instant::now();
        refuse_late(Ok(())).await.unwrap();
        refuse_late::<()>(Err(Status::unauthenticated("a wrong password"))).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        refuse_late::<()>(Err(Status::unavailable("too many logins"))).await.unwrap_err();
        assert_eq!(begun.elapsed(), LATE);
    }
}
