//! Changes of members and visibility as the log shows them, and the rights of users that follow from them.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

/// A member's role; a higher role may do more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Member,
    Admin,
    Owner,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Parses a role; `None` when it is not one.
    pub fn of(value: &Value) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| value == role.name())
    }
}

/// A room as it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    pub private: bool,
    pub owner: Uuid,
}

/// A change of a room's members or visibility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Joined {
        user: Uuid,
        role: Role,
    },
    Left {
        user: Uuid,
    },
    /// These members have other roles.
    Roles(BTreeMap<Uuid, Role>),
    Visibility {
        private: bool,
    },
}

impl Change {
    /// Parses an event of the log; `None` when it changes neither members nor visibility. The rooms of a run keep their
    /// names, so each `roomUpdated` event without members changes the visibility.
    pub fn of(event: &Value) -> Option<Self> {
        let data = &event["data"];
        let member = |value: &Value| Some((user(&value["user"])?, Role::of(&value["role"])?));
        match event["event"].as_str()? {
            "memberJoined" => member(data).map(|(user, role)| Self::Joined { user, role }),
            "memberLeft" => Some(Self::Left { user: user(&data["user"])? }),
            "roomUpdated" => match data["members"].as_array() {
                Some(members) => members.iter().map(member).collect::<Option<_>>().map(Self::Roles),
                None => Some(Self::Visibility { private: data["visibility"] == "private" }),
            },
            _ => None,
        }
    }
}

fn user(value: &Value) -> Option<Uuid> {
    value["id"].as_str()?.parse().ok()
}

/// All changes of a room.
#[derive(Debug)]
pub struct Ledger {
    opening: Opening,
    /// With the `seq` of each event, in rising order.
    changes: Vec<(u64, Change)>,
}

/// What the changes of a room mean for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    pub outs: Vec<Out>,
    pub cuts: Vec<Cut>,
}

/// A period in which the user may neither read nor post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    /// The event that began it; 0: the creation of the room.
    pub from: u64,
    /// The event that ended it.
    pub until: Option<u64>,
}

/// An event that took the user's sockets out of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub at: u64,
    /// The first event that a socket which was in the room before must not receive. A removed user's sockets receive
    /// the removal; when a room becomes private, no socket receives that event.
    pub first: u64,
}

impl Out {
    /// Whether the user may not read the room at this head.
    pub fn covers(&self, head: u64) -> bool {
        self.from <= head && self.until.is_none_or(|until| head < until)
    }

    /// Whether the user could not have posted an event with this number.
    pub fn forbids(&self, seq: u64) -> bool {
        self.from < seq && self.until.is_none_or(|until| seq < until)
    }
}

impl Ledger {
    pub fn new(opening: Opening, changes: Vec<(u64, Change)>) -> Self {
        Self { opening, changes }
    }

    /// Returns the members after all changes.
    pub fn members(&self) -> BTreeMap<Uuid, Role> {
        let mut members = BTreeMap::from([(self.opening.owner, Role::Owner)]);
        for (_, change) in &self.changes {
            match change {
                Change::Joined { user, role } => _ = members.insert(*user, *role),
                Change::Left { user } => _ = members.remove(user),
                Change::Roles(roles) => members.extend(roles),
                Change::Visibility { .. } => {}
            }
        }
        members
    }

    /// Returns the rights of a user over time.
    pub fn of(&self, user: Uuid) -> Rights {
        let (mut private, mut member) = (self.opening.private, user == self.opening.owner);
        let mut rights = Rights::default();
        let mut from = (private && !member).then_some(0);
        for (seq, change) in &self.changes {
            let at = *seq;
            match change {
                Change::Joined { user: joined, .. } => member |= *joined == user,
                Change::Left { user: left } if *left == user => {
                    member = false;
                    rights.cuts.extend(private.then_some(Cut { at, first: at + 1 }));
                }
                Change::Visibility { private: hidden } => {
                    rights.cuts.extend((*hidden && !private).then_some(Cut { at, first: at }));
                    private = *hidden;
                }
                Change::Left { .. } | Change::Roles(_) => {}
            }
            let reads = !private || member;
            match from {
                None if !reads => from = Some(at),
                Some(began) if reads => {
                    rights.outs.push(Out { from: began, until: Some(at) });
                    from = None;
                }
                _ => {}
            }
        }
        rights.outs.extend(from.map(|from| Out { from, until: None }));
        rights
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWNER: Uuid = Uuid::from_u128(1);
    const ADA: Uuid = Uuid::from_u128(2);
    const EVE: Uuid = Uuid::from_u128(3);

    #[test]
    fn events_are_parsed() {
        let of = |event: &str, data: Value| Change::of(&json!({"event": event, "data": data}));
        let ada = json!({"id": ADA, "username": "ada"});
        assert_eq!(
            of("memberJoined", json!({"user": ada, "role": "member"})),
            Some(Change::Joined { user: ADA, role: Role::Member })
        );
        assert_eq!(of("memberLeft", json!({"user": ada, "role": "admin"})), Some(Change::Left { user: ADA }));
        let roles = json!({"visibility": "private", "members": [{"user": ada, "role": "owner"}]});
        assert_eq!(of("roomUpdated", roles), Some(Change::Roles([(ADA, Role::Owner)].into())));
        assert_eq!(of("roomUpdated", json!({"visibility": "public"})), Some(Change::Visibility { private: false }));
        assert_eq!(of("roomDeleted", json!({})), None);
        assert_eq!(Change::of(&json!({"type": "message", "content": "hi"})), None);
    }

    #[test]
    fn rights_follow_the_changes() {
        let joined = |user| Change::Joined { user, role: Role::Member };
        let changes = vec![
            (1, joined(ADA)),
            (4, Change::Left { user: ADA }),
            (6, joined(ADA)),
            (7, Change::Roles([(ADA, Role::Owner), (OWNER, Role::Admin)].into())),
            (8, Change::Visibility { private: false }),
            (9, Change::Left { user: OWNER }),
            (11, Change::Visibility { private: true }),
        ];
        let ledger = Ledger::new(Opening { private: true, owner: OWNER }, changes);
        let out = |from, until| Out { from, until };
        let hidden = Cut { at: 11, first: 11 };
        let ada = Rights { outs: vec![out(0, Some(1)), out(4, Some(6))], cuts: vec![Cut { at: 4, first: 5 }, hidden] };
        assert_eq!(ledger.of(ADA), ada);
        assert_eq!(ledger.of(EVE), Rights { outs: vec![out(0, Some(8)), out(11, None)], cuts: vec![hidden] });
        assert_eq!(ledger.of(OWNER), Rights { outs: vec![out(11, None)], cuts: vec![hidden] });
        assert_eq!(ledger.members(), [(ADA, Role::Owner)].into());
        let removal = out(4, Some(6));
        assert_eq!([3, 4, 5, 6].map(|head| removal.covers(head)), [false, true, true, false]);
        assert_eq!([4, 5, 6].map(|seq| removal.forbids(seq)), [false, true, false]);
    }
}
