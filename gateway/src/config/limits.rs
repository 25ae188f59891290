//! The settings of rate limits.

use std::str::FromStr;
use std::time::Duration;

use confab_common::limit::Rule;

/// The highest rate, because buckets count in whole microseconds.
const MAX_PER_SECOND: u32 = 10_000;
const MAX_BURST: u32 = 1_000_000;
/// The longest time in which an empty bucket refills.
const MAX_REFILL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Settings of rate limits.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Rate limits")]
pub struct LimitsConfig {
    /// Signups from one address. Every rate limit has the form BURST,RATE/UNIT: `60,1/s` admits 60 at once, then 1 per
    /// second. The units are `s`, `m` and `h`; 0 = no limit. All gateways share the limits through the bus
    #[arg(long, env = "CONFAB_LIMIT_SIGNUP", default_value = "60,1/s", value_name = "RATE")]
    pub limit_signup: Rate,
    /// Logins from one address, with correct and wrong passwords. The default suits an office of some thousand people
    /// behind one address
    #[arg(long, env = "CONFAB_LIMIT_LOGIN", default_value = "300,5/s", value_name = "RATE")]
    pub limit_login: Rate,
    /// Wrong passwords for one account from one address. A correct password ends the count
    #[arg(long, env = "CONFAB_LIMIT_WRONG_PASSWORD", default_value = "10,2/m", value_name = "RATE")]
    pub limit_wrong_password: Rate,
    /// Wrong passwords for one account from all addresses together. Logins wait only from addresses from which the user
    /// has not logged in within the last 7 days
    #[arg(long, env = "CONFAB_LIMIT_ACCOUNT_PASSWORD", default_value = "20,20/m", value_name = "RATE")]
    pub limit_account_password: Rate,
    /// Logins to one account with the correct password. A user who logs in again and again ends the oldest of 50
    /// sessions each time, and the gateways remember each ended session until its last token expires
    #[arg(long, env = "CONFAB_LIMIT_ACCOUNT_LOGIN", default_value = "300,6/m", value_name = "RATE")]
    pub limit_account_login: Rate,
    /// Refreshes of tokens from one address, with correct and wrong refresh tokens. A client refreshes every 15
    /// minutes, so the default suits 45,000 clients behind one address
    #[arg(long, env = "CONFAB_LIMIT_REFRESH", default_value = "1000,50/s", value_name = "RATE")]
    pub limit_refresh: Rate,
    /// Wrong tokens for a password reset from one address. Correct tokens do not count
    #[arg(long, env = "CONFAB_LIMIT_WRONG_TOKEN", default_value = "60,1/s", value_name = "RATE")]
    pub limit_wrong_token: Rate,
    /// Rooms that one user creates
    #[arg(long, env = "CONFAB_LIMIT_CREATE_ROOM", default_value = "200,1/s", value_name = "RATE")]
    pub limit_create_room: Rate,
    /// Changes of rooms and members by one user: each appends an event to the log
    #[arg(long, env = "CONFAB_LIMIT_CHANGE_ROOM", default_value = "300,10/s", value_name = "RATE")]
    pub limit_change_room: Rate,
    /// Joins of one user with all sockets
    #[arg(long, env = "CONFAB_LIMIT_JOIN_ROOM", default_value = "2000,100/s", value_name = "RATE")]
    pub limit_join_room: Rate,
    /// Messages of one user over all sockets and HTTP, edits, deletions, pins and reactions included.
    /// CONFAB_MAX_EVENTS_PER_SECOND also limits each socket
    #[arg(long, env = "CONFAB_LIMIT_SEND", default_value = "4000,2000/s", value_name = "RATE")]
    pub limit_send: Rate,
    /// Uploads of one user
    #[arg(long, env = "CONFAB_LIMIT_UPLOAD", default_value = "1000,10/s", value_name = "RATE")]
    pub limit_upload: Rate,
    /// Searches of one user, or of one address without a token
    #[arg(long, env = "CONFAB_LIMIT_SEARCH", default_value = "30,5/s", value_name = "RATE")]
    pub limit_search: Rate,
    /// Look-ups of users by one user
    #[arg(long, env = "CONFAB_LIMIT_USER_DIRECTORY", default_value = "30,30/m", value_name = "RATE")]
    pub limit_user_directory: Rate,
    /// Links to files that one user, or one address without a token, requests
    #[arg(long, env = "CONFAB_LIMIT_FILE_LINK", default_value = "2000,100/s", value_name = "RATE")]
    pub limit_file_link: Rate,
}

/// The value of a setting: how many acts are admitted at once, and how fast further acts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    Unlimited,
    Limited { burst: u32, per: Duration },
}

impl Rate {
    /// Returns the rule with this rate.
    pub fn rule(self, name: &'static str) -> Option<Rule> {
        match self {
            Self::Unlimited => None,
            Self::Limited { burst, per } => Some(Rule { name, burst, per }),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::Unlimited);
        }
        let Some((burst, rate, unit)) = parts(text) else {
            return Err("must look like 60,1/s (60 at once, then 1 per second) or 10,2/m, or be 0 for no limit".into());
        };
        let Some(per) =
            unit.checked_div(rate).filter(|_| u64::from(rate) <= unit.as_secs() * u64::from(MAX_PER_SECOND))
        else {
            return Err(format!("must have a rate of 1 to {MAX_PER_SECOND} per second, as in 60,1/s"));
        };
        if !(1..=MAX_BURST).contains(&burst) {
            return Err(format!("must admit 1 to {MAX_BURST} at once, as in 60,1/s"));
        }
        if per.saturating_mul(burst) > MAX_REFILL {
            return Err("must reach the full burst again within 7 days, as 10,2/m does within 5 minutes".into());
        }
        Ok(Self::Limited { burst, per })
    }
}

/// Splits `60,1/s` into its burst, its rate and the unit of its rate.
fn parts(text: &str) -> Option<(u32, u32, Duration)> {
    let (burst, rate) = text.split_once(',')?;
    let (rate, unit) = rate.split_once('/')?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    // `parse` accepts `+5`, too.
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    Some((number(burst)?, number(rate)?, Duration::from_secs(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        limits: LimitsConfig,
    }

    #[test]
    fn rates_are_parsed() {
        let limited = |burst, per| Ok(Rate::Limited { burst, per });
        assert_eq!("60,1/s".parse(), limited(60, Duration::from_secs(1)));
        assert_eq!("10,2/m".parse(), limited(10, Duration::from_secs(30)));
        assert_eq!("1,1/h".parse(), limited(1, Duration::from_secs(3600)));
        assert_eq!("4000,10000/s".parse(), limited(4000, Duration::from_micros(100)));
        assert_eq!("0".parse(), Ok(Rate::Unlimited));
    }

    #[test]
    fn errors_show_a_correct_value() {
        for bad in [
            "",
            "60",
            "60,1",
            "60/s",
            "1/s",
            "60,1/d",
            "60,1/sec",
            "60,1 / s",
            "x,1/s",
            "60,x/s",
            "-1,1/s",
            "+60,1/s",
            "60,1.5/s",
            "0,1/s",
            "60,0/s",
            "60,10001/s",
            "1000001,1/s",
            "100000,1/h",
            "60,1/s,",
            "00",
            "99999999999,1/s",
        ] {
            let error = bad.parse::<Rate>().unwrap_err();
            assert!(
                error.starts_with("must ") && (error.contains("60,1/s") || error.contains("10,2/m")),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn defaults_match_the_documentation() {
        let config = Program::parse_from(["program"]).limits;
        let per = |burst, per| Rate::Limited { burst, per };
        assert_eq!(config.limit_signup, per(60, Duration::from_secs(1)));
        assert_eq!(config.limit_login, per(300, Duration::from_millis(200)));
        assert_eq!(config.limit_wrong_password, per(10, Duration::from_secs(30)));
        assert_eq!(config.limit_account_password, per(20, Duration::from_secs(3)));
        assert_eq!(config.limit_account_login, per(300, Duration::from_secs(10)));
        assert_eq!(config.limit_refresh, per(1000, Duration::from_millis(20)));
        assert_eq!(config.limit_wrong_token, per(60, Duration::from_secs(1)));
        assert_eq!(config.limit_create_room, per(200, Duration::from_secs(1)));
        assert_eq!(config.limit_change_room, per(300, Duration::from_millis(100)));
        assert_eq!(config.limit_join_room, per(2000, Duration::from_millis(10)));
        assert_eq!(config.limit_send, per(4000, Duration::from_micros(500)));
        assert_eq!(config.limit_upload, per(1000, Duration::from_millis(100)));
        assert_eq!(config.limit_search, per(30, Duration::from_millis(200)));
        assert_eq!(config.limit_user_directory, per(30, Duration::from_secs(2)));
        assert_eq!(config.limit_file_link, per(2000, Duration::from_millis(10)));
    }
}
