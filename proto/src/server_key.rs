//! Server keys: their text, and their scopes.

use std::fmt;

use uuid::Uuid;

/// The beginning of every server key.
pub const PREFIX: &str = "cfk_";
/// Digits of the id in a key.
const ID: usize = uuid::fmt::Simple::LENGTH;
/// Characters of the secret: 256 bits in base64url.
const SECRET: usize = 43;

/// The name under which a server key acts without a user. No user can have it.
pub const SYSTEM: &str = "system";

/// Returns the id in a well-formed key: the prefix, the id as 32 lower-case digits, `_`, and the secret.
pub fn id_of(key: &str) -> Option<Uuid> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_at_checked(ID)?;
    let secret = secret.strip_prefix('_').filter(|secret| secret.len() == SECRET)?;
    let is_formed = secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let parsed = Uuid::try_parse(id).ok().filter(|_| is_formed)?;
    (parsed.as_simple().encode_lower(&mut [0; ID]) == id).then_some(parsed)
}

/// What a server key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Create, change, suspend and delete users, and create invites.
    Users,
    /// Issue tokens of users.
    Tokens,
    /// Create and delete server keys.
    Keys,
    /// Read the audit.
    Audit,
    /// Act in rooms and on their members.
    Rooms,
    /// Act on messages and files.
    Messages,
}

impl Scope {
    pub const ALL: [Self; 6] = [Self::Users, Self::Tokens, Self::Keys, Self::Audit, Self::Rooms, Self::Messages];

    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Tokens => "tokens",
            Self::Keys => "keys",
            Self::Audit => "audit",
            Self::Rooms => "rooms",
            Self::Messages => "messages",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::from(scope).0 != 0
    }

    /// Returns whether every scope of this set is in the other set.
    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns the names, in the order of [`Scope::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope)).map(Scope::name)
    }

    /// Returns the scopes with these names. Other names, as of a later version, are ignored.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Scope::parse).collect()
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(1 << scope as u8)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), |set, scope| Self(set.0 | Self::from(scope).0))
    }
}

/// Writes `users keys`.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_form() {
        let id = Uuid::from_u128(0x0193_a4c0_7d50_7cc3_98a5_2f6b_8e1d_0c01);
        let key = format!("cfk_{}_{}", id.simple(), "-_aZ9".repeat(9).split_at(SECRET).0);
        assert_eq!(id_of(&key), Some(id));
        let upper = key.replace("0c01_", "0C01_");
        for bad in ["", "cfk_", &key[1..], &format!("{key}A"), &key[..key.len() - 1], &upper, &key.replace("-_", "+/")]
        {
            assert_eq!(id_of(bad), None, "{bad}");
        }
        assert_eq!(id_of(&key.replacen("cfk_0", "cfk_é", 1)), None);
        let hyphenated = format!("cfk_{id}_{}", "a".repeat(SECRET));
        assert_eq!(id_of(&hyphenated), None);
    }

    #[test]
    fn sets_of_scopes() {
        let set = Scopes::of_names(["rooms", "keys", "rooms", "tea"]);
        assert!(set.contains(Scope::Keys) && set.contains(Scope::Rooms) && !set.contains(Scope::Users));
        assert_eq!((set.to_string().as_str(), Scopes::default().to_string().as_str()), ("keys rooms", ""));
        let all = Scope::ALL.into_iter().collect::<Scopes>();
        assert!(set.is_within(all) && !all.is_within(set) && Scopes::default().is_within(set));
        assert!(Scopes::of_names(all.names()) == all && Scopes::default().is_empty() && !set.is_empty());
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.name()), Some(scope));
        }
    }
}
