//! The acts that have a rate limit.

use crate::config::limits::{LimitsConfig, Rate};

/// An act that has a rate limit. The setting is `CONFAB_LIMIT_` and the name in capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// One signup from an address.
    Signup,
    /// One login from an address.
    Login,
    /// One wrong password for an account from an address.
    WrongPassword,
    /// One wrong password for an account from any address.
    AccountPassword,
    /// One login to an account with the correct password.
    AccountLogin,
    /// One refresh of a token from an address.
    Refresh,
    /// One wrong token for a password reset from an address.
    WrongToken,
    /// One new room of a user.
    CreateRoom,
    /// One change of a room or its members by a user.
    ChangeRoom,
    /// One `joinRoom` of a user.
    JoinRoom,
    /// One message of a user.
    Send,
    /// One upload of a user.
    Upload,
    /// One search of a user, or of an address without a token.
    Search,
    /// One look-up of users by a user.
    UserDirectory,
    /// One request for a link to a file by a user, or by an address without a token.
    FileLink,
}

impl Act {
    /// All acts, in the order of their variants.
    pub const ALL: [Self; 15] = [
        Self::Signup,
        Self::Login,
        Self::WrongPassword,
        Self::AccountPassword,
        Self::AccountLogin,
        Self::Refresh,
        Self::WrongToken,
        Self::CreateRoom,
        Self::ChangeRoom,
        Self::JoinRoom,
        Self::Send,
        Self::Upload,
        Self::Search,
        Self::UserDirectory,
        Self::FileLink,
    ];

    /// The name in metrics, in the headers of responses and in the keys of buckets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Login => "login",
            Self::WrongPassword => "wrong_password",
            Self::AccountPassword => "account_password",
            Self::AccountLogin => "account_login",
            Self::Refresh => "refresh",
            Self::WrongToken => "wrong_token",
            Self::CreateRoom => "create_room",
            Self::ChangeRoom => "change_room",
            Self::JoinRoom => "join_room",
            Self::Send => "send",
            Self::Upload => "upload",
            Self::Search => "search",
            Self::UserDirectory => "user_directory",
            Self::FileLink => "file_link",
        }
    }

    /// Completes "too many …" in errors.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Signup => "signups from this address",
            Self::Login => "logins from this address",
            Self::WrongPassword | Self::AccountPassword => "wrong passwords for this account",
            Self::AccountLogin => "logins to this account",
            Self::Refresh => "refreshes from this address",
            Self::WrongToken => "wrong tokens from this address",
            Self::CreateRoom => "new rooms",
            Self::ChangeRoom => "changes of rooms and members",
            Self::JoinRoom => "joins",
            Self::Send => "messages",
            Self::Upload => "uploads",
            Self::Search => "searches",
            Self::UserDirectory => "look-ups of users",
            Self::FileLink => "links to files",
        }
    }

    /// Whether its rejections are delayed: those of acts that need no token, so that one machine can repeat them at the
    /// highest rate.
    pub fn is_rejected_late(self) -> bool {
        match self {
            Self::Signup
            | Self::Login
            | Self::WrongPassword
            | Self::AccountPassword
            | Self::AccountLogin
            | Self::Refresh
            | Self::WrongToken => true,
            Self::CreateRoom
            | Self::ChangeRoom
            | Self::JoinRoom
            | Self::Send
            | Self::Upload
            | Self::Search
            | Self::UserDirectory
            | Self::FileLink => false,
        }
    }

    pub fn rate(self, config: &LimitsConfig) -> Rate {
        match self {
            Self::Signup => config.limit_signup,
            Self::Login => config.limit_login,
            Self::WrongPassword => config.limit_wrong_password,
            Self::AccountPassword => config.limit_account_password,
            Self::AccountLogin => config.limit_account_login,
            Self::Refresh => config.limit_refresh,
            Self::WrongToken => config.limit_wrong_token,
            Self::CreateRoom => config.limit_create_room,
            Self::ChangeRoom => config.limit_change_room,
            Self::JoinRoom => config.limit_join_room,
            Self::Send => config.limit_send,
            Self::Upload => config.limit_upload,
            Self::Search => config.limit_search,
            Self::UserDirectory => config.limit_user_directory,
            Self::FileLink => config.limit_file_link,
        }
    }
}
