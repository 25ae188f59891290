//! Users of the app's own issuers. Their accounts have no password: the first token creates the account.

use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::issuers::is_picture_url;
use confab_common::{Code, Error, Result, text};
use icu_properties::CodePointSetData;
use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint};
use uuid::Uuid;

use super::profiles::MAX_DISPLAY_NAME;
use super::{Accounts, named};
use crate::password::NO_ACCOUNT;
use crate::store::{Claimed, Profile, State, User};
use crate::username;

/// The shortest time between two changes of a user's claims.
const CHANGE_EVERY: Duration = Duration::from_secs(3600);
/// Maximum length of an issuer's name, in bytes.
const MAX_ISSUER: usize = 2048;
/// Maximum number of characters of a name claim that are read. Enough for every name, and little work.
const MAX_NAME: usize = 256;

/// The claims of a token of the app's own issuer. An empty name or picture is none.
pub struct Claims {
    pub issuer: String,
    pub name: String,
    pub picture: String,
}

impl Claims {
    fn check(self, now_ms: i64) -> Result<Claimed> {
        if self.issuer.is_empty() || self.issuer.len() > MAX_ISSUER || self.issuer.contains(char::is_control) {
            let why = format!("must have 1 to {MAX_ISSUER} bytes and no control characters");
            return Err(Error::field("issuer", why));
        }
        let picture = Some(self.picture).filter(|picture| is_picture_url(picture));
        Ok(Claimed { issuer: self.issuer, name: display_name(&self.name), picture, changed_at_ms: now_ms })
    }
}

impl Accounts {
    /// Returns the account of a user of the app's own issuer, and creates it if there is none. Later claims replace
    /// earlier ones at most once in an hour; the username stays. A missing claim replaces nothing.
    ///
    /// # Errors
    /// `invalid_request`; `conflict` when the id belongs to another account.
    pub async fn ensure(&self, id: Uuid, claims: Claims) -> Result<User> {
        if !is_of_issuer(id) {
            return Err(Error::field("userId", "must be a UUIDv5"));
        }
        let name = claims.name.chars().take(MAX_NAME).collect::<String>();
        let claimed = claims.check(now_ms())?;
        match self.store.user(id).await? {
            Some(user) => self.renew(user, claimed).await,
            None => self.admit_claimed(id, &name, claimed).await,
        }
    }

    async fn renew(&self, user: User, claimed: Claimed) -> Result<User> {
        let Claimed { issuer, name, picture, changed_at_ms } = claimed;
        // An account without claims has been created for the issuer's user in another way.
        let none = || Claimed { issuer: issuer.clone(), name: None, picture: None, changed_at_ms: 0 };
        let known = user.claimed.clone().unwrap_or_else(none);
        if known.issuer != issuer {
            return Err(Error::new(Code::Conflict, "that id belongs to another account"));
        }
        // An issuer may have tokens with and without a claim.
        let (name, picture) = (name.or(known.name.clone()), picture.or(known.picture.clone()));
        let is_same = (&name, &picture) == (&known.name, &known.picture);
        let latest_ms = changed_at_ms.saturating_sub(CHANGE_EVERY.as_millis() as i64);
        if is_same || known.changed_at_ms > latest_ms || user.state == State::Deleted {
            return Ok(user);
        }
        let claimed = Claimed { issuer, name, picture, changed_at_ms };
        // Otherwise a concurrent call has changed them.
        Ok(self.store.change_claims(user.id, claimed, latest_ms).await?.unwrap_or(user))
    }

    async fn admit_claimed(&self, id: Uuid, name: &str, claimed: Claimed) -> Result<User> {
        for username in username::candidates(name, id) {
            // An account of an earlier release may have this name in another form.
            if named(self.store.as_ref(), &username.kept).await?.is_some_and(|other| other.id != id) {
                continue;
            }
            let skeleton = username::skeleton(&username.kept);
            let user = User {
                id,
                username: username.kept,
                username_folded: username.folded,
                password_hash: NO_ACCOUNT.into(),
                created_at_ms: claimed.changed_at_ms,
                state: State::Active,
                profile: Profile::default(),
                claimed: Some(claimed.clone()),
            };
            match self.store.create_user(user, skeleton, None, None).await {
                Err(error) if error.code == Code::UsernameTaken => {}
                created => return created,
            }
        }
        Err(Error::internal("every name that can be made for a user is taken"))
    }
}

/// Whether an id belongs to a user of the app's own issuer. Such ids are computed; all others are UUIDv7.
pub fn is_of_issuer(id: Uuid) -> bool {
    id.get_version_num() == 5
}

/// Returns the name that clients show: the claim without control characters, cut to its maximum length. A claim that
/// has other characters which names must not contain loses these, too.
fn display_name(claim: &str) -> Option<String> {
    let cleaned = |is_wrong: &dyn Fn(char) -> bool| {
        let kept = claim.trim().chars().filter(|c| !is_wrong(*c)).take(MAX_DISPLAY_NAME).collect::<String>();
        text::name("name", &kept, MAX_DISPLAY_NAME).ok()
    };
    let is_control = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || CodePointSetData::new::<BidiControl>().contains(c)
    };
    let is_invisible = |c: char| is_control(c) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    cleaned(&is_control).or_else(|| cleaned(&is_invisible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_are_cleaned_and_cut() {
        for (claim, name) in [
            ("Ada Lovelace", "Ada Lovelace"),
            (" Ada  L. 🍵 ", "Ada  L. 🍵"),
            ("Ada\nLove\u{85}lace\0", "AdaLovelace"),
            ("\u{202E}ecalevoL\u{2066}", "ecalevoL"),
            ("👩\u{200D}🚀", "👩\u{200D}🚀"),
            ("می\u{200C}خواهم", "می\u{200C}خواهم"),
            ("a\u{200B}b\u{AD}c\u{200D}", "abc"),
            (&"x".repeat(6000), &"x".repeat(80)),
            (&"👩\u{200D}".repeat(40), &"👩".repeat(40)),
        ] {
            assert_eq!(display_name(claim).as_deref(), Some(name), "{claim:?}");
        }
        for none in ["", " ", "\n\t", "\u{200B}", "\u{3164}", "\u{E000}", "\u{2800}"] {
            assert_eq!(display_name(none), None, "{none:?}");
        }
    }
}
