//! Refusals that come late on purpose.

use std::time::Duration;

use tokio::time::sleep;
use tonic::{Code, Status};

/// How long a refusal is held back.
const LATE: Duration = Duration::from_secs(1);

/// Holds back the answer that a service has too much to do. Clients that ask again at once would otherwise take more of the processor
/// by being refused than by being served.
///
/// # Errors
/// Those of the call.
pub async fn refuse_late<T>(called: Result<T, Status>) -> Result<T, Status> {
    if called.as_ref().is_err_and(|status| status.code() == Code::Unavailable) {
        sleep(LATE).await;
    }
    called
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_refused_for_overload_comes_late() {
        let begun = Instant::now();
        refuse_late(Ok(())).await.unwrap();
        refuse_late::<()>(Err(Status::unauthenticated("a wrong password"))).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        refuse_late::<()>(Err(Status::unavailable("too many logins"))).await.unwrap_err();
        assert_eq!(begun.elapsed(), LATE);
    }
}
