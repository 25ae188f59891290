//! The claims of a token.

use super::config::Entry;
use super::token::{Object, Reason};

/// Tolerated difference between the clocks of an issuer and this machine, in seconds.
const LEEWAY: i64 = 5;
/// Longest user claim, in bytes.
const MAX_USER: usize = 255;

/// The checked claims of a token.
pub struct Claims {
    pub user: String,
    pub name: Option<String>,
    pub picture: Option<String>,
    /// The `jti`, if it is a text that is not empty.
    pub id: Option<String>,
    pub issued_at: i64,
    pub expires_at: i64,
}

impl Claims {
    /// Checks the claims of a token of this issuer at a time, in seconds since the Unix epoch.
    pub fn check(claims: &Object<'_>, issuer: &Entry, now: i64) -> Result<Self, Reason> {
        if !claims.names_one_of("aud", &issuer.audience)? {
            return Err("it is for another audience");
        }
        let expires_at = claims.seconds("exp")?.ok_or("it has no `exp`")?;
        let issued_at = claims.seconds("iat")?.ok_or("it has no `iat`")?;
        if expires_at < now - LEEWAY {
            return Err("it has expired");
        }
        if issued_at > now + LEEWAY {
            return Err("it is issued in the future: this machine's clock may be behind the issuer's");
        }
        if claims.seconds("nbf")?.is_some_and(|begin| begin > now + LEEWAY) {
            return Err("it is not valid yet: this machine's clock may be behind the issuer's");
        }
        // Neither is negative, so the difference cannot overflow.
        if !(0..=issuer.max_life).contains(&(expires_at - issued_at)) {
            return Err("it is valid for longer than the issuer's `maxTtl`, or ends before it begins");
        }
        let user = claims.text(&issuer.user_claim)?.ok_or("it has no user claim")?;
        if user.is_empty() || user.len() > MAX_USER || user.contains(char::is_control) {
            return Err("its user claim is empty, has more than 255 bytes or has control characters");
        }
        // A claim about the user that has another form is not a reason to reject the user.
        let optional = |name: Option<&str>| {
            let text = claims.text(name?).ok()??;
            (!text.is_empty()).then(|| text.into_owned())
        };
        Ok(Self {
            user: user.into_owned(),
            name: optional(issuer.name_claim.as_deref()),
            picture: optional(issuer.picture_claim.as_deref()),
            id: optional(Some("jti")),
            issued_at,
            expires_at,
        })
    }
}
