//! Accounts as other users see them.

use confab_common::{Code, Error, Result, text};
use uuid::Uuid;

use super::{Accounts, MAX_TYPED, named};
use crate::store::{ProfileChange, State, User};

/// Maximum length of a display name, in characters.
pub(super) const MAX_DISPLAY_NAME: usize = 80;
/// Maximum length of the app's data, in bytes.
const MAX_DATA: usize = 4096;

/// A typed change of a profile. An absent field stays unchanged, an empty one is removed.
pub struct Change {
    pub display_name: Option<String>,
    pub avatar_file_id: Option<String>,
    pub data: Option<String>,
}

impl Change {
    pub(super) fn check(self) -> Result<ProfileChange> {
        let display_name = match self.display_name {
            Some(name) if !name.is_empty() => Some(Some(text::name("displayName", &name, MAX_DISPLAY_NAME)?)),
            cleared => cleared.map(|_| None),
        };
        let avatar_file_id = match self.avatar_file_id {
            Some(id) if !id.is_empty() => Some(Some(text::id("avatarFileId", &id)?)),
            cleared => cleared.map(|_| None),
        };
        if let Some(data) = &self.data {
            check_data(data)?;
        }
        Ok(ProfileChange { display_name, avatar_file_id, data: self.data })
    }
}

fn check_data(data: &str) -> Result<()> {
    if data.len() > MAX_DATA {
        return Err(Error::new(Code::TooLarge, format!("data must be at most {MAX_DATA} bytes")));
    }
    text::no_nul("data", data)?;
    let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(data).is_ok();
    if is_object { Ok(()) } else { Err(Error::field("data", "must be an object")) }
}

impl Accounts {
    /// Returns one account. A deleted account has the name `deleted`.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user(&self, id: Uuid) -> Result<User> {
        self.store.user(id).await?.ok_or_else(|| Error::not_found("user"))
    }

    /// Returns the account with a typed name.
    ///
    /// # Errors
    /// `not_found`, also for the name of a deleted account.
    pub async fn user_named(&self, typed: &str) -> Result<User> {
        if typed.len() > MAX_TYPED || typed.contains('\0') {
            return Err(Error::not_found("user"));
        }
        let user = named(self.store.as_ref(), typed).await?.filter(|user| user.state != State::Deleted);
        user.ok_or_else(|| Error::not_found("user"))
    }

    /// Changes the profile of a user.
    ///
    /// # Errors
    /// `invalid_request`; `too_large` for data above 4 KiB; `not_found` for an unknown or deleted user.
    pub async fn update_profile(&self, id: Uuid, change: Change) -> Result<User> {
        let change = change.check()?;
        self.store.change_profile(id, change).await?.ok_or_else(|| Error::not_found("user"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(display_name: Option<&str>, avatar_file_id: Option<&str>, data: Option<&str>) -> Result<ProfileChange> {
        let [display_name, avatar_file_id, data] =
            [display_name, avatar_file_id, data].map(|text| text.map(Into::into));
        Change { display_name, avatar_file_id, data }.check()
    }

    #[test]
    fn profiles_are_checked() {
        let change = check(Some(" Ada L. "), Some(""), Some(r#"{"a":[1]}"#)).unwrap();
        assert_eq!((change.display_name, change.avatar_file_id), (Some(Some("Ada L.".into())), Some(None)));
        let nothing = check(None, None, None).unwrap();
        assert!(nothing.display_name.is_none() && nothing.avatar_file_id.is_none() && nothing.data.is_none());
        assert_eq!(check(Some(""), None, None).unwrap().display_name, Some(None));
        let field = |error: Error| error.fields.first().map(|field| field.field.clone()).unwrap_or_default();
        for bad in [" ", "a\nb", "\u{202E}", &"x".repeat(81)] {
            assert_eq!(field(check(Some(bad), None, None).err().unwrap()), "displayName", "{bad:?}");
        }
        assert_eq!(field(check(None, Some("x"), None).err().unwrap()), "avatarFileId");
        for bad in ["", "[]", "null", "7", "{", "{} {}", "{\"a\":\0}"] {
            assert_eq!(field(check(None, None, Some(bad)).err().unwrap()), "data", "{bad:?}");
        }
        let of_length = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(check(None, None, Some(&of_length(4096))).is_ok());
        assert_eq!(check(None, None, Some(&of_length(4097))).err().unwrap().code, Code::TooLarge);
    }
}
