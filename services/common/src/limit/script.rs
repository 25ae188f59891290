//! Charges a bucket in Redis with one script: one GET, one SET, and the time of Redis, so that the clocks of the
//! replicas do not matter.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind};

use super::gcra::{Charge, Outcome};

const SOURCE: &str = include_str!("bucket.lua");
/// The name under which Redis keeps the script.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, SOURCE.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
});

/// Charges the bucket at a key.
///
/// # Errors
/// When Redis cannot run the script.
pub async fn charge(redis: &mut MultiplexedConnection, key: &str, charge: Charge) -> RedisResult<Outcome> {
    match outcome(command("EVALSHA", &HASH, key, charge), redis).await {
        // Redis has forgotten the script, or does not know it yet. EVAL also stores it.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            outcome(command("EVAL", SOURCE, key, charge), redis).await
        }
        outcome => outcome,
    }
}

fn command(name: &str, script: &str, key: &str, charge: Charge) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(1).arg(key).arg(charge.cost).arg(charge.size).arg(charge.most);
    command
}

async fn outcome(command: Cmd, redis: &mut MultiplexedConnection) -> RedisResult<Outcome> {
    let (admitted, ahead) = command.query_async::<(i64, i64)>(redis).await?;
    Ok(Outcome { admitted: admitted == 1, ahead })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::gcra;
    use super::*;
    use crate::testing;

    /// A generator of numbers (xorshift), so that a failure can be repeated.
    struct Random(u64);

    impl Random {
        fn below(&mut self, most: u64) -> i64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            i64::try_from(self.0 % most).unwrap()
        }
    }

    /// Ten seconds. All times are multiples of it: the keys expire by the real clock, which must not matter.
    const STEP: i64 = 10_000_000;

    async fn connection() -> MultiplexedConnection {
        let client = redis::Client::open(testing::redis().expose()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    #[tokio::test]
    async fn redis_and_rust_compute_the_same() {
        let mut connection = connection().await;
        let with_given_time = SOURCE.replace("redis.call('TIME')", "{ARGV[4], ARGV[5]}");
        assert_ne!(with_given_time, SOURCE);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20 {
            let key = format!("confab.rl.test.{}", uuid::Uuid::now_v7());
            let (mut full_at, mut now) = (0, 1_800_000_000_000_000 + random.below(1_000_000_000_000) * 7);
            let small = STEP * (1 + random.below(20));
            for step in 0..200 {
                now += STEP * random.below(8);
                let most = if random.below(2) == 0 { small } else { 10 * small };
                let size = if random.below(3) == 0 { most } else { small };
                let charge = Charge { cost: STEP * (random.below(12) - 3), size, most };
                let (expected, next) = gcra::charge(full_at, now, charge);
                full_at = next;
                let mut command = command("EVAL", &with_given_time, &key, charge);
                command.arg(now / 1_000_000).arg(now % 1_000_000);
                let actual = outcome(command, &mut connection).await.unwrap();
                assert_eq!(actual, expected, "step {step} of {key}: {charge:?} at {now}");
                // Sometimes the clock is set back. A full bucket has no key, which a clock would affect.
                if expected.ahead > 0 && random.below(20) == 0 {
                    now -= STEP * 30;
                }
            }
        }
    }

    #[tokio::test]
    async fn keys_are_exact_and_expire_when_the_bucket_is_full() {
        let mut connection = connection().await;
        let key = format!("confab.rl.test.{}", uuid::Uuid::now_v7());
        let minute = Charge { cost: 60_000_000, size: 60_000_000, most: 60_000_000 };
        let outcome = charge(&mut connection, &key, minute).await.unwrap();
        assert_eq!(outcome, Outcome { admitted: true, ahead: 60_000_000 });
        let mut stored = redis::pipe();
        let (full_at, left) = stored.get(&key).pttl(&key).query_async::<(String, i64)>(&mut connection).await.unwrap();
        assert!(full_at.len() == 16 && full_at.bytes().all(|byte| byte.is_ascii_digit()), "{full_at}");
        assert!((1..=60_000).contains(&left), "{left}");
        charge(&mut connection, &key, Charge { cost: -minute.cost, ..minute }).await.unwrap();
        let exists = async |connection: &mut MultiplexedConnection| {
            redis::cmd("EXISTS").arg(&key).query_async::<i64>(connection).await.unwrap() == 1
        };
        let expired = async {
            while exists(&mut connection).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), expired).await.unwrap();
    }
}
