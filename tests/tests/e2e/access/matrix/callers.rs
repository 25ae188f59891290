//! The kinds of callers: the columns of the table.

/// A user of the scene, by the relation to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Stranger,
    Removed,
    Member,
    Admin,
    Owner,
    /// A member with a suspended account.
    Suspended,
    /// A user of the app's own issuer who is not a member.
    Foreign,
    /// A user of the app's own issuer who is a member.
    ForeignMember,
}

impl Part {
    pub const ALL: [Self; 8] = [
        Self::Stranger,
        Self::Removed,
        Self::Member,
        Self::Admin,
        Self::Owner,
        Self::Suspended,
        Self::Foreign,
        Self::ForeignMember,
    ];

    /// Returns the role that the owner gives to the user; a removed member gets it before the removal.
    pub fn role(self) -> Option<&'static str> {
        match self {
            Self::Removed | Self::Member | Self::Suspended | Self::ForeignMember => Some("member"),
            Self::Admin => Some("admin"),
            Self::Stranger | Self::Owner | Self::Foreign => None,
        }
    }

    /// Returns whether the user is not a member.
    pub fn is_outside(self) -> bool {
        matches!(self, Self::Stranger | Self::Removed | Self::Foreign)
    }

    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Foreign | Self::ForeignMember)
    }
}

/// Who makes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    User(Part),
    /// A server key with this scope.
    Key(&'static str),
    /// A server key with this scope, and `Confab-User`.
    Acting(&'static str, Part),
}

impl Caller {
    /// Returns the user who makes the request, or on whose behalf a server key makes it.
    pub fn part(self) -> Option<Part> {
        match self {
            Self::User(part) | Self::Acting(_, part) => Some(part),
            Self::Anonymous | Self::Key(_) => None,
        }
    }

    /// Returns whether a private room is hidden from the caller.
    pub fn is_outside(self) -> bool {
        self == Self::Anonymous || self.part().is_some_and(Part::is_outside)
    }
}

/// The scopes of server keys.
pub const SCOPES: [&str; 6] = ["users", "tokens", "keys", "audit", "rooms", "messages"];

/// The anonymous caller at a server with `CONFAB_ANONYMOUS_READ`.
pub const OPEN: &str = "opn";

/// The columns of the sections for REST operations and socket events, in order.
pub const CALLERS: [(&str, Caller); 24] = [
    ("ano", Caller::Anonymous),
    (OPEN, Caller::Anonymous),
    ("str", Caller::User(Part::Stranger)),
    ("rem", Caller::User(Part::Removed)),
    ("mem", Caller::User(Part::Member)),
    ("adm", Caller::User(Part::Admin)),
    ("own", Caller::User(Part::Owner)),
    ("sus", Caller::User(Part::Suspended)),
    ("iss", Caller::User(Part::Foreign)),
    ("ism", Caller::User(Part::ForeignMember)),
    ("usr", Caller::Key("users")),
    ("tok", Caller::Key("tokens")),
    ("key", Caller::Key("keys")),
    ("aud", Caller::Key("audit")),
    ("roo", Caller::Key("rooms")),
    ("msg", Caller::Key("messages")),
    ("usr+", Caller::Acting("users", Part::Member)),
    ("tok+", Caller::Acting("tokens", Part::Member)),
    ("key+", Caller::Acting("keys", Part::Member)),
    ("aud+", Caller::Acting("audit", Part::Member)),
    ("roo+", Caller::Acting("rooms", Part::Member)),
    ("msg+", Caller::Acting("messages", Part::Member)),
    ("roo-", Caller::Acting("rooms", Part::Stranger)),
    ("msg-", Caller::Acting("messages", Part::Stranger)),
];
