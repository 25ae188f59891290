//! The roles of programs, by which services decide which calls they accept.

use std::fmt;

/// A kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Auth,
    Room,
    Message,
    File,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Gateway, Self::Auth, Self::Room, Self::Message, Self::File];

    /// Returns the name in settings, certificates and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Auth => "auth",
            Self::Room => "room",
            Self::Message => "message",
            Self::File => "file",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Returns the role of a program such as `confab-auth`. The embedded program `confab` has no role of its own: it
    /// contains programs of all roles.
    pub fn of_program(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("confab-")?)
    }

    /// Returns whether programs of this role accept gRPC calls.
    pub fn is_service(self) -> bool {
        self != Self::Gateway
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0b11111);

    pub fn contains(self, role: Role) -> bool {
        self.0 & Self::from(role).0 != 0
    }

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(1 << role as u8)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, |set, role| Self(set.0 | Self::from(role).0))
    }
}

/// Writes `gateway, room`, or `none`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Role::ALL.into_iter().filter(|role| self.contains(*role)).map(Role::name).collect::<Vec<_>>();
        if names.is_empty() { f.write_str("none") } else { f.write_str(&names.join(", ")) }
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_roles() {
        for role in Role::ALL {
            assert_eq!(Role::of_program(&format!("confab-{}", role.name())), Some(role));
        }
        for other in ["confab", "confab-tea", "room"] {
            assert_eq!(Role::of_program(other), None, "{other}");
        }
    }

    #[test]
    fn sets_of_roles() {
        assert_eq!(Role::ALL.into_iter().collect::<Roles>(), Roles::ALL);
        let two = [Role::Room, Role::Gateway, Role::Room].into_iter().collect::<Roles>();
        assert!(two.contains(Role::Gateway) && two.contains(Role::Room) && !two.contains(Role::File));
        assert_eq!((two.to_string(), Roles::NONE.to_string()), ("gateway, room".into(), "none".into()));
    }
}
