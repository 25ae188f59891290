//! A caller that received no answer repeats its call, with the same operation.

use confab_common::Code;
use tonic::Request;

use super::log::Mood;
use super::*;

on_both_stores![removal_of_a_member_is_repeated, deletion_of_a_room_is_repeated];

fn of<T>(operation: Uuid, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("confab-operation", operation.to_string().parse().unwrap());
    request
}

async fn removal_of_a_member_is_repeated(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let id = service.create_private(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &id, &bob, Role::Member).await.unwrap();
    // Bob leaves, and from then on the room is hidden from him.
    let leave = RemoveMemberRequest {
        caller: Some(bob.clone()),
        room_id: id.clone(),
        user_id: bob.id.clone(),
        ..RemoveMemberRequest::default()
    };
    let operation = Uuid::now_v7();
    let again = async |operation| {
        let answer = service.client.clone().remove_member(of(operation, leave.clone())).await;
        answer.map(drop).map_err(Error::from)
    };
    log.is(Mood::Away);
    assert_eq!(again(operation).await.unwrap_err().code, Code::Timeout);
    log.is(Mood::Well);
    for _ in 0..2 {
        again(operation).await.unwrap();
        assert_eq!(log.last(&id).event, "memberLeft", "the repeat waits for the event");
    }
    assert_eq!(again(Uuid::now_v7()).await.unwrap_err().code, Code::NotFound, "another operation");
    assert_eq!(log.of_room(&id).len(), 2, "one event per change");
}

async fn deletion_of_a_room_is_repeated(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let delete = DeleteRoomRequest { caller: Some(ada), id: id.clone(), moderator: false };
    let again = async |operation| {
        let answer = service.client.clone().delete_room(of(operation, delete.clone())).await;
        answer.map(drop).map_err(Error::from)
    };
    let operation = Uuid::now_v7();
    for _ in 0..2 {
        again(operation).await.unwrap();
    }
    assert_eq!(again(Uuid::now_v7()).await.unwrap_err().code, Code::NotFound, "another operation");
    assert_eq!(log.of_room(&id).len(), 1);
}
