//! How events of the log change which clients are in their room.

use std::collections::HashSet;
use std::sync::Arc;

use confab_common::failpoint;
use confab_proto::message::v1::Event;
use confab_proto::room::v1::Visibility;
use uuid::Uuid;

/// How an event changes which clients are in its room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Effect {
    /// All clients stay.
    #[default]
    None,
    /// The room is deleted. The event is the last one that its clients receive.
    Closes,
    /// These users lose the right to read. The event is the last one that their clients receive.
    Removes(Arc<HashSet<Uuid>>),
    /// The room becomes private. Its clients do not receive the event: members reconnect and join again.
    Hides,
}

impl Effect {
    /// The effect of an event. In a public room, a user who is no longer a member may still read.
    pub fn of(event: &Event) -> Self {
        if event.event == "roomDeleted" {
            return Self::Closes;
        }
        match &event.access {
            Some(access) if access.visibility() == Visibility::Private => {
                if failpoint!("skip-eviction") {
                    return Self::None;
                }
                if access.changes_visibility {
                    return Self::Hides;
                }
                let users = access.removed.iter().filter_map(|id| id.parse().ok()).collect::<HashSet<_>>();
                if users.is_empty() { Self::None } else { Self::Removes(users.into()) }
            }
            _ => Self::None,
        }
    }

    /// Whether the event takes any client out of the room.
    pub fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether the event takes the clients of this user out of the room.
    pub fn takes_out(&self, user: Option<Uuid>) -> bool {
        match self {
            Self::None => false,
            Self::Closes | Self::Hides => true,
            Self::Removes(users) => user.is_some_and(|user| users.contains(&user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::{AccessChange, RoomMember};

    use super::*;

    #[test]
    fn only_private_rooms_take_members_out() {
        let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let effect = |visibility: Visibility, changes_visibility, removed: &[Uuid]| {
            let members = vec![RoomMember { user_id: bob.to_string(), role: 1 }];
            let removed = removed.iter().map(Uuid::to_string).collect();
            let access = AccessChange { members, removed, visibility: visibility.into(), changes_visibility };
            Effect::of(&Event { access: Some(access), ..Event::default() })
        };
        assert_eq!(effect(Visibility::Private, false, &[ada]), Effect::Removes(Arc::new([ada].into())));
        assert_eq!(effect(Visibility::Private, false, &[]), Effect::None);
        assert_eq!(effect(Visibility::Private, true, &[ada]), Effect::Hides);
        for changes_visibility in [false, true] {
            assert_eq!(effect(Visibility::Public, changes_visibility, &[ada]), Effect::None);
        }
        assert_eq!(Effect::of(&Event { event: "roomDeleted".into(), ..Event::default() }), Effect::Closes);
        assert_eq!(Effect::of(&Event::default()), Effect::None);
    }

    #[test]
    fn a_removal_takes_out_only_the_clients_of_its_users() {
        let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let removal = Effect::Removes(Arc::new([ada].into()));
        assert!(removal.takes_out(Some(ada)) && !removal.takes_out(Some(bob)) && !removal.takes_out(None));
        assert!(Effect::Hides.takes_out(None) && !Effect::None.takes_out(Some(ada)));
    }
}
