//! The credential of a call: the token of a user, or a server key with the user on whose behalf it acts. The caller
//! sends it as metadata; events in a batch name it by its digest.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use confab_common::{Code, Error, Result, text};
use confab_proto::message::v1 as message;
use confab_proto::server_key::PREFIX;
use http::HeaderMap;
use tonic::metadata::AsciiMetadataValue;
use uuid::Uuid;

/// The metadata with the token of a user.
pub const USER: &str = "confab-user";
/// The metadata with a server key.
pub const KEY: &str = "confab-key";
/// The metadata with the id of the user on whose behalf the server key acts.
pub const ACTING_FOR: &str = "confab-acting-for";

/// The outcome of an event whose credential the message service does not know.
pub const UNKNOWN: &str = "credential_unknown";

/// Longest token or server key, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// The first 16 bytes of the SHA-256 of a credential: of the token, or of the server key, a space and the user's id.
pub type Digest = [u8; 16];

/// A credential; clones share its text. The default is none.
#[derive(Clone, Default)]
pub struct Credential(Option<Arc<Inner>>);

struct Inner {
    given: Given,
    digest: Digest,
}

/// What a caller has presented.
pub enum Given {
    Token(AsciiMetadataValue),
    Key { key: AsciiMetadataValue, user: Option<Uuid> },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Credential(…)" } else { "Credential(none)" })
    }
}

impl Credential {
    /// The credential of a user. A text that no token can have is none.
    pub fn of_token(token: &str) -> Self {
        Self::new(token, Given::Token, token.as_bytes())
    }

    /// The credential of a server key, alone or on behalf of a user.
    pub fn of_key(key: &str, user: Option<Uuid>) -> Self {
        let text = user.map_or_else(|| key.to_owned(), |user| format!("{key} {user}"));
        Self::new(key, |key| Given::Key { key, user }, text.as_bytes())
    }

    fn new(secret: &str, given: impl FnOnce(AsciiMetadataValue) -> Given, hashed: &[u8]) -> Self {
        let Some(mut value) = AsciiMetadataValue::try_from(secret).ok().filter(|_| secret.len() <= MAX_TOKEN) else {
            return Self::default();
        };
        value.set_sensitive(true);
        Self(Some(Arc::new(Inner { given: given(value), digest: first_of_sha256(hashed) })))
    }

    /// The credential in the metadata of a call.
    ///
    /// # Errors
    /// `unauthorized` for a credential that is malformed or given twice.
    pub fn in_metadata(headers: &HeaderMap) -> Result<Self> {
        let once = |name: &'static str| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(|_| malformed()),
                (Some(_), Some(_)) => Err(malformed()),
            }
        };
        Self::of_parts(once(USER)?, once(KEY)?, once(ACTING_FOR)?)
    }

    /// The credential with a token, or with a server key and perhaps a user.
    ///
    /// # Errors
    /// `unauthorized` for any other combination, for a malformed text, and for one above 8 KiB.
    pub fn of_parts(token: Option<&str>, key: Option<&str>, user: Option<&str>) -> Result<Self> {
        let credential = match (token, key, user) {
            (None, None, None) => return Ok(Self::default()),
            (Some(token), None, None) => Self::of_token(token),
            (None, Some(key), user) if key.starts_with(PREFIX) => {
                let user = user.map(|user| text::id(ACTING_FOR, user)).transpose().map_err(|_| malformed())?;
                Self::of_key(key, user)
            }
            _ => return Err(malformed()),
        };
        if credential.given().is_some() { Ok(credential) } else { Err(malformed()) }
    }

    /// Adds the credential to a call.
    #[must_use]
    pub fn attach<T>(&self, mut request: tonic::Request<T>) -> tonic::Request<T> {
        let metadata = request.metadata_mut();
        match self.given() {
            None => {}
            Some(Given::Token(token)) => _ = metadata.insert(USER, token.clone()),
            Some(Given::Key { key, user }) => {
                metadata.insert(KEY, key.clone());
                if let Some(user) = user.and_then(|user| user.to_string().parse().ok()) {
                    metadata.insert(ACTING_FOR, user);
                }
            }
        }
        request
    }

    /// The bytes that it takes in a message.
    pub fn size(&self) -> usize {
        match self.given() {
            None => 0,
            Some(Given::Token(token)) => token.as_encoded_bytes().len(),
            Some(Given::Key { key, .. }) => key.as_encoded_bytes().len() + uuid::fmt::Hyphenated::LENGTH,
        }
    }

    /// Whether a server key is the credential, alone or on behalf of a user.
    pub fn is_key(&self) -> bool {
        matches!(self.given(), Some(Given::Key { .. }))
    }

    /// What the caller has presented; `None` if nothing.
    pub fn given(&self) -> Option<&Given> {
        self.0.as_deref().map(|inner| &inner.given)
    }

    /// The digest by which events name the credential; `None` without a credential.
    pub fn digest(&self) -> Option<Digest> {
        self.0.as_deref().map(|inner| inner.digest)
    }
}

/// The credential in a message to the message service.
pub fn message_credential(credential: &Credential) -> message::Credential {
    let text = |value: &AsciiMetadataValue| value.to_str().unwrap_or_default().to_owned();
    match credential.given() {
        None => message::Credential::default(),
        Some(Given::Token(token)) => message::Credential { token: text(token), ..message::Credential::default() },
        Some(Given::Key { key, user }) => {
            let user_id = user.map(|user| user.to_string()).unwrap_or_default();
            message::Credential { key: text(key), user_id, token: String::new() }
        }
    }
}

/// The credential in a message.
///
/// # Errors
/// As [`Credential::of_parts`]; also for none.
pub fn credential_of(message: &message::Credential) -> Result<Credential> {
    let part = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let (token, key, user) = (part(&*message.token), part(&*message.key), part(&*message.user_id));
    let credential = Credential::of_parts(token, key, user)?;
    if credential.given().is_some() { Ok(credential) } else { Err(malformed()) }
}

/// The digest by which events name the credential in a message, also if it is malformed.
pub fn digest_of(message: &message::Credential) -> Digest {
    match &message.key {
        key if key.is_empty() => first_of_sha256(message.token.as_bytes()),
        key if message.user_id.is_empty() => first_of_sha256(key.as_bytes()),
        key => first_of_sha256(format!("{key} {}", message.user_id).as_bytes()),
    }
}

fn first_of_sha256(text: &[u8]) -> Digest {
    let mut first = Digest::default();
    first.copy_from_slice(&digest(&SHA256, text).as_ref()[..size_of::<Digest>()]);
    first
}

fn malformed() -> Error {
    Error::new(Code::Unauthorized, "the credential of the call is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn sent(credential: &Credential) -> HeaderMap {
        credential.attach(tonic::Request::new(())).into_parts().0.into_headers()
    }

    #[test]
    fn metadata_returns_what_was_attached() {
        let key = format!("{PREFIX}x");
        let credentials =
            [Credential::of_token("a.b.c"), Credential::of_key(&key, None), Credential::of_key(&key, Some(ID))];
        let digests = credentials.iter().map(|credential| credential.digest().unwrap()).collect::<Vec<_>>();
        for (credential, digest) in credentials.iter().zip(&digests) {
            let received = Credential::in_metadata(&sent(credential)).unwrap();
            assert_eq!(received.digest(), Some(*digest));
        }
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
        assert!(Credential::in_metadata(&HeaderMap::new()).unwrap().digest().is_none());
        assert!(sent(&Credential::default()).is_empty());
        assert!(sent(&credentials[0])[USER].is_sensitive(), "proxies must not index it");
    }

    #[test]
    fn the_digest_is_the_beginning_of_the_sha_256() {
        let expected = *b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23";
        assert_eq!(Credential::of_token("abc").digest(), Some(expected));
    }

    #[test]
    fn malformed_metadata_is_rejected() {
        let (id, long) = (ID.to_string(), "x".repeat(MAX_TOKEN + 1));
        for (token, key, user) in [
            (Some("a"), Some("cfk_a"), None),
            (Some("a"), None, Some(&*id)),
            (None, None, Some(&*id)),
            (None, Some("a"), None),
            (None, Some("cfk_a"), Some("me")),
            (Some("a\nb"), None, None),
            (Some(&*long), None, None),
        ] {
            let refused = Credential::of_parts(token, key, user).unwrap_err();
            assert_eq!(refused.code, Code::Unauthorized, "{token:?} {key:?} {user:?}");
        }
        let mut twice = sent(&Credential::of_token("a"));
        twice.append(USER, "b".parse().unwrap());
        assert_eq!(Credential::in_metadata(&twice).unwrap_err().code, Code::Unauthorized);
    }

    #[test]
    fn logs_do_not_contain_the_secret() {
        assert_eq!(format!("{:?}", Credential::of_token("secret")), "Credential(…)");
    }
}
