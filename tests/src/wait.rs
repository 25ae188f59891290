//! Tests wait for conditions, never for a fixed time.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// Calls `probe` repeatedly until it returns a value.
///
/// # Errors
/// When it has returned none within `limit`; the message contains `what`.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        // A slow probe does not use up the time: a probe that begins in time counts.
        let last = Instant::now() >= deadline;
        if let Some(value) = probe().await {
            return Ok(value);
        }
        if last {
            bail!("not within {limit:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_condition_and_names_it_on_timeout() {
        let mut left = 3;
        let counted = eventually("three probes", Duration::from_secs(5), async || {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!(counted.await.unwrap(), "done");
        let never = eventually("the impossible", Duration::ZERO, async || None::<()>).await.unwrap_err();
        assert!(never.to_string().ends_with("the impossible"));
    }
}
