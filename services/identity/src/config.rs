//! The settings of the services about the users on whose behalf they are called.

use confab_common::issuers::IssuersConfig;

/// Settings of a service about tokens
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Calls on behalf of users")]
pub struct CallersConfig {
    /// Whether a call on behalf of a user must have the user's token, or a server key. With `false`, the service also
    /// accepts such a call without a token from a gateway. Set it once no gateway of the previous release is running.
    /// The embedded server always requires tokens
    #[arg(long, env = "CONFAB_REQUIRE_USER_TOKENS", default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    pub require_user_tokens: bool,
    /// Issuers of tokens for the users of your app
    #[command(flatten)]
    pub issuers: IssuersConfig,
}

impl CallersConfig {
    /// The settings of a process that contains the gateway, too.
    pub fn strict(issuers: IssuersConfig) -> Self {
        Self { require_user_tokens: true, issuers }
    }
}
