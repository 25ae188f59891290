//! A change and its event are atomic.

use confab_common::Code;

use super::log::Mood;
use super::*;

on_both_stores![
    change_returns_after_its_event_is_in_the_log,
    outbox_is_relayed_after_an_outage_of_the_log,
    events_of_a_room_are_appended_together,
    outbox_survives_a_restart,
    lost_answer_does_not_duplicate_the_event,
    concurrent_changes_reach_the_log_in_order,
    rejected_event_does_not_delay_other_rooms,
    event_of_a_deleted_room_is_dropped_if_its_log_is_closed,
];

fn updated(name: &str, description: &str) -> (String, String) {
    ("roomUpdated".into(), format!(r#"{{"name":"{name}","description":"{description}","visibility":"public"}}"#))
}

fn deleted() -> (String, String) {
    ("roomDeleted".into(), "{}".into())
}

async fn change_returns_after_its_event_is_in_the_log(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    assert_eq!(log.events(), [], "creating a room appends no event");

    let (caller, description) = (Some(ada.clone()), Some("leaves".into()));
    let described = UpdateRoomRequest { caller, id: id.clone(), description, ..UpdateRoomRequest::default() };
    service.update(described.clone()).await.unwrap();
    assert_eq!(log.of_room(&id), [updated("Tea", "leaves")]);
    service.update(described).await.unwrap();
    assert_eq!(log.events().len(), 1, "a request that changes nothing appends no event");

    service.delete(&ada, &id).await.unwrap();
    assert_eq!(log.of_room(&id), [updated("Tea", "leaves"), deleted()]);
    let events = log.events();
    assert!(events.iter().all(|event| event.sender.as_ref() == Some(&ada) && event.client_message_id.is_none()));
    assert_eq!(events.iter().map(|event| event.closes_room).collect::<Vec<_>>(), [false, true]);
}

async fn outbox_is_relayed_after_an_outage_of_the_log(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;

    log.is(Mood::Away);
    let (tea, late) = tokio::join!(service.rename(&ada, &id, "Green tea"), async {
        eventually(async || service.get(&id).await.ok().filter(|room| room.name == "Green tea")).await;
        service.rename(&ada, &id, "Black tea").await
    });
    assert_eq!((tea.unwrap_err().code, late.unwrap_err().code), (Code::Timeout, Code::Timeout));
    assert_eq!(service.get(&id).await.unwrap().name, "Black tea", "the change stands");
    assert_eq!(service.delete(&ada, &id).await.unwrap_err().code, Code::Timeout);
    assert_eq!(service.get(&id).await.unwrap_err().code, Code::NotFound);
    // The name is free: a new room stands, too, and waits for its opening.
    assert_eq!(service.create(&ada, "Black tea").await.unwrap_err().code, Code::Timeout);
    assert_eq!(service.list(50, "", "black tea").await.unwrap().rooms.len(), 1);
    assert_eq!(log.events(), []);

    log.is(Mood::Well);
    eventually(async || (log.of_room(&id).len() == 3).then_some(())).await;
    assert_eq!(log.of_room(&id), [updated("Green tea", ""), updated("Black tea", ""), deleted()]);
}

async fn events_of_a_room_are_appended_together(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    log.is(Mood::Away);
    let names = ["Tea 1", "Tea 2", "Tea 3", "Tea 4"];
    for name in names {
        assert_eq!(service.rename(&ada, &id, name).await.unwrap_err().code, Code::Timeout);
    }
    service.stop();
    log.is(Mood::Well);
    let _service = Service::start(&location, &log).await;
    eventually(async || (log.of_room(&id).len() == names.len()).then_some(())).await;
    assert_eq!(log.of_room(&id), names.map(|name| updated(name, "")));
    assert_eq!(log.batches().first(), Some(&names.len()), "{:?}", log.batches());
}

async fn outbox_survives_a_restart(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    log.is(Mood::Away);
    service.rename(&ada, &id, "Green tea").await.unwrap_err();
    // A caller without an answer repeats the deletion; the repeat waits for the first one's event.
    let (first, repeat) = tokio::join!(service.delete(&ada, &id), async {
        eventually(async || service.get(&id).await.err()).await;
        service.delete(&ada, &id).await
    });
    assert_eq!((first.unwrap_err().code, repeat.unwrap_err().code), (Code::Timeout, Code::Timeout));
    service.stop();

    let service = Service::start(&location, &log).await;
    assert_eq!(log.events(), []);
    log.is(Mood::Well);
    eventually(async || (log.of_room(&id) == [updated("Green tea", ""), deleted()]).then_some(())).await;
    eventually(async || service.delete(&ada, &id).await.err().filter(|error| error.code == Code::NotFound)).await;
}

async fn lost_answer_does_not_duplicate_the_event(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    log.is(Mood::Mute);
    let (changed, ()) = tokio::join!(service.rename(&ada, &id, "Green tea"), async {
        eventually(async || (log.attempts() > 1).then_some(())).await;
        log.is(Mood::Well);
    });
    changed.unwrap();
    assert_eq!(log.of_room(&id), [updated("Green tea", "")]);
}

async fn concurrent_changes_reach_the_log_in_order(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    // A second replica, if the store can be shared.
    let other = match location.url {
        Some(_) => Some(Service::start(&location, &log).await),
        None => None,
    };
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let names = (0..10).map(|number| format!("Tea {number}")).collect::<Vec<_>>();
    let changes = names.iter().enumerate().map(|(turn, name)| {
        let service = other.as_ref().filter(|_| turn % 2 == 1).unwrap_or(&service);
        let (ada, id) = (&ada, &id);
        eventually(async move || match service.rename(ada, id, name).await {
            Ok(_) => Some(()),
            // Other callers were faster until the time limit.
            Err(error) if error.code == Code::Unavailable => None,
            // The change stands, and its event follows.
            Err(error) if error.code == Code::Timeout => Some(()),
            Err(error) => panic!("{error:?}"),
        })
    });
    futures::future::join_all(changes).await;
    let relayed = eventually(async || Some(log.of_room(&id)).filter(|relayed| relayed.len() >= 10)).await;
    let last = service.get(&id).await.unwrap();
    assert_eq!(relayed.len(), 10);
    assert_eq!(relayed.last(), Some(&updated(&last.name, "")), "the last event describes the room's final state");
    let mut sorted = relayed.clone();
    sorted.sort();
    assert_eq!(sorted, names.iter().map(|name| updated(name, "")).collect::<Vec<_>>());
}

async fn rejected_event_does_not_delay_other_rooms(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let (stuck, well) =
        (service.create(&ada, "Stuck").await.unwrap().id, service.create(&ada, "Well").await.unwrap().id);
    log.is(Mood::Refusing("not_found"));
    assert_eq!(service.rename(&ada, &stuck, "Stuck 2").await.unwrap_err().code, Code::Timeout);
    log.is(Mood::Well);
    service.rename(&ada, &well, "Well 2").await.unwrap();
    // The service keeps the event of an existing room even if the log rejects it, and relays it in the end.
    eventually(async || (log.of_room(&stuck) == [updated("Stuck 2", "")]).then_some(())).await;
}

async fn event_of_a_deleted_room_is_dropped_if_its_log_is_closed(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    log.is(Mood::Refusing("not_found"));
    service.delete(&ada, &id).await.unwrap();
    assert_eq!(service.delete(&ada, &id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(log.events(), []);
}
