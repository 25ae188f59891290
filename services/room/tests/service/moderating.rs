//! A server key without a user has the rights of the owner in every room.

use confab_common::Code;

use super::*;

on_both_stores![
    a_moderator_sees_every_room,
    a_moderator_changes_and_deletes_every_room,
    a_moderator_manages_members,
    a_moderator_passes_a_room_on,
];

pub(super) fn key() -> UserRef {
    UserRef { id: Uuid::now_v7().to_string(), username: "system".into() }
}

impl Service {
    pub(super) async fn moderate(
        &self,
        key: &UserRef,
        room: &str,
        user: &UserRef,
        role: Role,
    ) -> Result<(Role, bool), Error> {
        let (caller, room_id, user) = (Some(key.clone()), room.into(), Some(user.clone()));
        let set = SetMemberRequest { caller, room_id, user, role: role.into(), moderator: true };
        let answer = self.set_as(set).await?;
        Ok((answer.member.unwrap().role(), answer.created))
    }

    async fn moderate_away(&self, key: &UserRef, room: &str, user: &str) -> Result<(), Error> {
        let (caller, room_id, user_id) = (Some(key.clone()), room.into(), user.into());
        let remove = RemoveMemberRequest { caller, room_id, user_id, moderator: true };
        self.client.clone().remove_member(remove).await?;
        Ok(())
    }
}

async fn a_moderator_sees_every_room(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let hidden = service.create_private(&ada, "Tea").await.unwrap().id;
    let caller = Some(key());
    let get = |id: &str| GetRoomRequest { caller: caller.clone(), id: id.into(), moderator: true };
    let room = service.client.clone().get_room(get(&hidden)).await.unwrap().into_inner();
    assert_eq!((room.visibility(), room.role()), (Visibility::Private, Role::Unspecified));
    let list = ListMembersRequest {
        caller: caller.clone(),
        room_id: hidden.clone(),
        limit: 50,
        cursor: String::new(),
        moderator: true,
    };
    assert_eq!(service.client.clone().list_members(list).await.unwrap().into_inner().members.len(), 1);
    let check = |room: &str| CheckAccessRequest { room_id: room.into(), moderator: true, ..Default::default() };
    let access = service.client.clone().check_access(check(&hidden)).await.unwrap().into_inner();
    assert_eq!(access, Access { may_read: true, may_post: false, may_manage: true, private: true });
    let unknown = Uuid::now_v7().to_string();
    let refused = service.client.clone().get_room(get(&unknown)).await.unwrap_err();
    assert_eq!(Error::from(refused).code, Code::NotFound);
    let refused = service.client.clone().check_access(check(&unknown)).await.unwrap_err();
    assert_eq!(Error::from(refused).code, Code::NotFound);
    // Without the flag, a key has no rights.
    assert_eq!(service.get_as(caller.as_ref().unwrap(), &hidden).await.unwrap_err().code, Code::NotFound);
}

async fn a_moderator_changes_and_deletes_every_room(location: Location) {
    let (log, ada, key) = (Log::default(), user("ada"), key());
    let service = Service::start(&location, &log).await;
    let id = service.create_private(&ada, "Tea").await.unwrap().id;
    let change = UpdateRoomRequest {
        caller: Some(key.clone()),
        id: id.clone(),
        name: Some("Coffee".into()),
        moderator: true,
        ..UpdateRoomRequest::default()
    };
    let changed = service.update(change.clone()).await.unwrap();
    assert_eq!((&*changed.name, changed.role()), ("Coffee", Role::Unspecified));
    assert_eq!(log.last(&id).sender, Some(key.clone()));
    let public = Some(Visibility::Public.into());
    let changed = service.update(UpdateRoomRequest { visibility: public, ..change }).await.unwrap();
    assert_eq!(changed.visibility(), Visibility::Public);
    // The log learns the owner of the room, not the key.
    assert_eq!(log.room(&id), (Visibility::Public, [(ada.id.clone(), Role::Owner)].into()));
    let delete = DeleteRoomRequest { caller: Some(key.clone()), id: id.clone(), moderator: true };
    service.client.clone().delete_room(delete).await.unwrap();
    let event = log.last(&id);
    assert_eq!((&*event.event, event.sender), ("roomDeleted", Some(key)));
}

async fn a_moderator_manages_members(location: Location) {
    let (log, ada, bob, key) = (Log::default(), user("ada"), user("bob"), key());
    let service = Service::start(&location, &log).await;
    let id = service.create_private(&ada, "Tea").await.unwrap().id;
    assert_eq!(service.moderate(&key, &id, &bob, Role::Unspecified).await.unwrap(), (Role::Member, true));
    assert_eq!(service.moderate(&key, &id, &bob, Role::Admin).await.unwrap(), (Role::Admin, false));
    let refused = service.moderate(&key, &id, &ada, Role::Member).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "a room has an owner");
    assert_eq!(service.moderate_away(&key, &id, &ada.id).await.unwrap_err().code, Code::Conflict);
    service.moderate_away(&key, &id, &bob.id).await.unwrap();
    let event = log.last(&id);
    assert_eq!((&*event.event, event.sender.as_ref()), ("memberLeft", Some(&key)));
    assert_eq!(service.moderate_away(&key, &id, &bob.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.members(&ada, &id).await, [(ada.clone(), Role::Owner)]);
}

async fn a_moderator_passes_a_room_on(location: Location) {
    let (log, ada, bob, key) = (Log::default(), user("ada"), user("bob"), key());
    let service = Service::start(&location, &log).await;
    let id = service.create_private(&ada, "Tea").await.unwrap().id;
    assert_eq!(service.moderate(&key, &id, &bob, Role::Owner).await.unwrap(), (Role::Owner, true));
    assert_eq!(service.members(&bob, &id).await, [(bob.clone(), Role::Owner), (ada.clone(), Role::Admin)]);
    let roles = [(bob.id.clone(), Role::Owner), (ada.id.clone(), Role::Admin)].into();
    assert_eq!(log.room(&id), (Visibility::Private, roles));
    assert_eq!(service.moderate(&key, &id, &ada, Role::Owner).await.unwrap(), (Role::Owner, false));
    assert_eq!(service.members(&bob, &id).await, [(ada, Role::Owner), (bob, Role::Admin)]);
}
