//! Passwords that are guessed from many addresses.

use std::net::{IpAddr, Ipv4Addr};

use clap::Parser;
use tokio::time::advance;

use super::*;
use crate::config::limits::LimitsConfig;
use crate::testing::bus;

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    limits: LimitsConfig,
}

fn limits() -> RequestLimits {
    with(&[])
}

fn with(settings: &[&str]) -> RequestLimits {
    let config = Settings::parse_from(["test"].iter().chain(settings)).limits;
    RequestLimits { limits: Arc::new(Limits::open(&config, &bus(), None)), applied: Arc::default() }
}

fn address(number: u32) -> ClientAddress {
    IpAddr::from(Ipv4Addr::from(number)).into()
}

/// Guesses wrongly, each time from another address, until the account is limited. Returns the number of guesses.
async fn guess(limits: &RequestLimits, name: &str) -> u32 {
    for number in 0..100 {
        match limits.attempt(name, address(1000 + number)).await {
            Ok(attempt) => attempt.failed().await,
            Err(error) => {
                assert_eq!(error.code, Code::RateLimited);
                return number;
            }
        }
    }
    100
}

#[tokio::test(start_paused = true)]
async fn guesses_from_many_addresses_are_slowed_but_never_lock_the_user_out() {
    let limits = limits();
    limits.attempt("ada", address(1)).await.unwrap().succeeded().await;
    assert_eq!(guess(&limits, "Ada").await, 20);
    assert_eq!(guess(&limits, "bob").await, 20, "other accounts are not affected");

    // The user logs in from the known address, also repeatedly, and mistypes the password there.
    for _ in 0..3 {
        limits.attempt("ada", address(1)).await.unwrap().failed().await;
        limits.attempt("ada", address(1)).await.unwrap().succeeded().await;
    }
    limits.confirmation("ada", address(2)).await.unwrap().succeeded().await;
    // From a new address, the user waits for 3 s at most.
    let error = limits.attempt("ada", address(3)).await.err().unwrap();
    assert!(error.retry_after.unwrap() <= Duration::from_secs(3), "{error:?}");
    assert_eq!(error.detail, "too many wrong passwords for this account; try again in 3 s");
    advance(Duration::from_secs(3)).await;
    limits.attempt("ada", address(3)).await.unwrap().succeeded().await;

    // An address stays known for at least 7 days.
    advance(Duration::from_secs(6 * 24 * 3600)).await;
    assert_eq!(guess(&limits, "ada").await, 20);
    limits.attempt("ada", address(1)).await.unwrap().succeeded().await;
    advance(Duration::from_secs(15 * 24 * 3600)).await;
    assert_eq!(guess(&limits, "ada").await, 20);
    assert!(limits.attempt("ada", address(1)).await.is_err(), "a forgotten address");
}

#[tokio::test(start_paused = true)]
async fn only_logins_with_the_correct_password_count_for_the_account() {
    let limits = with(&["--limit-account-login", "3,1/m"]);
    // Wrong passwords of others never use up the user's logins.
    guess(&limits, "ada").await;
    for number in 0..3 {
        advance(Duration::from_secs(3)).await;
        limits.attempt("ada", address(number)).await.unwrap().succeeded().await;
    }
    // A confirmation opens no session.
    limits.confirmation("ada", address(1)).await.unwrap().succeeded().await;
    let error = limits.attempt("ada", address(1)).await.err().unwrap();
    assert!(error.detail.starts_with("too many logins to this account"), "{error:?}");
    limits.attempt("bob", address(1)).await.unwrap().succeeded().await;
    advance(Duration::from_secs(60)).await;
    limits.attempt("ada", address(1)).await.unwrap().succeeded().await;
}
