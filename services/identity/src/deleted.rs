//! Users whose accounts are deleted. The services store the name that an author had; clients see `deleted` instead.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1::File;
use confab_proto::message::v1::Event;
use confab_proto::room::v1::Room;
use parking_lot::RwLock;
use serde_json::Value;
use uuid::Uuid;

/// The name that clients see instead of the name of a deleted user.
const DELETED: &str = "deleted";

/// The deleted users; clones share them. While there are none, the functions cost one atomic read.
#[derive(Clone, Default)]
pub struct DeletedUsers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Whether there has been a deleted user.
    any: AtomicBool,
    // The lock is held for one look-up or change, never across an await.
    ids: RwLock<HashSet<Uuid>>,
}

impl DeletedUsers {
    /// Records whether a user is deleted.
    pub fn set(&self, id: Uuid, is_deleted: bool) {
        if is_deleted {
            self.0.ids.write().insert(id);
            self.0.any.store(true, Ordering::Release);
        } else if self.any() {
            self.0.ids.write().remove(&id);
        }
    }

    /// Hides the names of deleted users in events of a room's log.
    pub fn hide_in_events(&self, events: &mut [Event]) {
        if self.any() {
            events.iter_mut().for_each(|event| self.hide_in_event(event));
        }
    }

    /// Hides the name of a deleted uploader.
    pub fn hide_in_file(&self, file: &mut File) {
        self.hide_in(&mut file.uploaded_by);
    }

    /// Hides the name of a deleted creator.
    pub fn hide_in_room(&self, room: &mut Room) {
        self.hide_in(&mut room.created_by);
    }

    /// Hides the name of a deleted user.
    pub fn hide_in(&self, user: &mut Option<UserRef>) {
        if let Some(user) = user.as_mut().filter(|user| self.contains(&user.id)) {
            user.username = DELETED.into();
        }
    }

    fn hide_in_event(&self, event: &mut Event) {
        self.hide_in(&mut event.sender);
        event.files.iter_mut().for_each(|file| self.hide_in_file(file));
        if let Some(state) = &mut event.state {
            self.hide_in(&mut state.deleted_by);
        }
        if let Some(change) = &mut event.change {
            change.reactions.iter_mut().for_each(|reaction| self.hide_in(&mut reaction.user));
            change.message.iter_mut().for_each(|message| self.hide_in_event(message));
        }
        // Room events name users in their data.
        if !event.data.is_empty()
            && let Ok(mut data) = serde_json::from_str(&event.data)
            && self.hide_in_data(&mut data)
        {
            event.data = data.to_string();
        }
    }

    /// Hides names in the objects `{id, username}` within a value; `false` when there was nothing to hide.
    fn hide_in_data(&self, data: &mut Value) -> bool {
        match data {
            Value::Object(fields) => {
                let is_deleted = fields.get("id").and_then(Value::as_str).is_some_and(|id| self.contains(id));
                let mut hidden = false;
                if is_deleted && let Some(username) = fields.get_mut("username") {
                    *username = DELETED.into();
                    hidden = true;
                }
                fields.values_mut().fold(hidden, |hidden, value| self.hide_in_data(value) | hidden)
            }
            Value::Array(values) => values.iter_mut().fold(false, |hidden, value| self.hide_in_data(value) | hidden),
            _ => false,
        }
    }

    fn contains(&self, id: &str) -> bool {
        self.any() && id.parse().is_ok_and(|id| self.0.ids.read().contains(&id))
    }

    fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::{Change, State};

    use super::*;

    const ADA: Uuid = Uuid::from_u128(1);
    const EVE: Uuid = Uuid::from_u128(2);

    fn user(id: Uuid, username: &str) -> Option<UserRef> {
        Some(UserRef { id: id.to_string(), username: username.into() })
    }

    fn event() -> Event {
        let file = |id, name: &str| File { uploaded_by: user(id, name), ..File::default() };
        let [by, user_json] =
            [(EVE, "eve"), (ADA, "ada")].map(|(id, name)| format!(r#"{{"id":"{id}","username":"{name}"}}"#));
        let data = format!(r#"{{"by":{by},"members":[{{"role":"admin","user":{user_json}}}]}}"#);
        Event { sender: user(ADA, "ada"), files: vec![file(EVE, "eve"), file(ADA, "ada")], data, ..Event::default() }
    }

    #[test]
    fn only_deleted_users_lose_their_names() {
        let deleted = DeletedUsers::default();
        let mut events = [event()];
        deleted.hide_in_events(&mut events);
        assert_eq!(events, [event()]);
        deleted.set(ADA, true);
        deleted.hide_in_events(&mut events);
        let expected = Event {
            sender: user(ADA, "deleted"),
            data: event().data.replace(r#""ada""#, r#""deleted""#),
            files: vec![
                File { uploaded_by: user(EVE, "eve"), ..File::default() },
                File { uploaded_by: user(ADA, "deleted"), ..File::default() },
            ],
            ..Event::default()
        };
        assert_eq!(events, [expected]);
        let mut room = Room { created_by: user(ADA, "ada"), ..Room::default() };
        deleted.hide_in_room(&mut room);
        assert_eq!(room.created_by, user(ADA, "deleted"));
    }

    #[test]
    fn a_deleted_user_loses_the_name_in_changes_of_messages() {
        let deleted = DeletedUsers::default();
        deleted.set(ADA, true);
        let changed = |name: &str| {
            let state = Some(State { deleted_by: user(ADA, name), ..State::default() });
            let message = Event { sender: user(EVE, "eve"), state, ..Event::default() };
            let change = Change { target: 1, message: Some(Box::new(message)), ..Change::default() };
            Event { sender: user(ADA, name), change: Some(Box::new(change)), ..Event::default() }
        };
        let mut events = [changed("ada")];
        deleted.hide_in_events(&mut events);
        assert_eq!(events, [changed("deleted")]);
    }

    #[test]
    fn a_restored_account_has_its_name_again() {
        let deleted = DeletedUsers::default();
        deleted.set(EVE, false);
        for (is_deleted, name) in [(true, "deleted"), (false, "ada")] {
            deleted.set(ADA, is_deleted);
            let mut sender = user(ADA, "ada");
            deleted.clone().hide_in(&mut sender);
            assert_eq!(sender, user(ADA, name));
        }
    }

    #[test]
    fn data_without_deleted_users_keeps_its_text() {
        let deleted = DeletedUsers::default();
        deleted.set(ADA, true);
        for data in ["", "{", r#"{ "name": "b", "id": 7 }"#, &format!(r#"{{ "userId": "{ADA}" , "username":"x"}}"#)] {
            let mut events = [Event { data: data.into(), ..Event::default() }];
            deleted.hide_in_events(&mut events);
            assert_eq!(events[0].data, data);
        }
    }
}
