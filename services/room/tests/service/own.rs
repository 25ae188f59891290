//! The list of a user's own rooms, by their last activity.

use confab_common::Code;
use confab_common::clock::now_ms;

use super::*;

on_both_stores![
    own_rooms_are_listed_by_activity,
    each_room_is_listed_once_while_rooms_become_active,
    rooms_that_are_active_just_now_are_listed_once,
    members_come_and_go_between_pages,
    the_log_of_the_release_before_lists_by_creation,
    wrong_requests_are_rejected,
];

const HOUR: i64 = 3_600_000;

fn names(page: &ListRoomsResponse) -> Vec<&str> {
    page.rooms.iter().map(|room| &*room.name).collect()
}

/// Creates rooms with these names.
async fn rooms(service: &Service, owner: &UserRef, names: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(service.create(owner, name).await.unwrap().id);
    }
    ids
}

/// Reads the pages after this one to the end, and returns the names of their rooms.
async fn rest(service: &Service, user: &UserRef, limit: u32, page: &ListRoomsResponse) -> Vec<String> {
    let (mut read, mut cursor) = (Vec::new(), page.next_cursor.clone());
    while !cursor.is_empty() {
        let page = service.list_own(user, limit, &cursor, "").await.unwrap();
        read.extend(page.rooms.into_iter().map(|room| room.name));
        cursor = page.next_cursor;
    }
    read
}

async fn own_rooms_are_listed_by_activity(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    assert_eq!(service.list_own(&ada, 50, "", "").await.unwrap(), ListRoomsResponse::default());
    let own = rooms(&service, &ada, &["Tea", "Coffee", "Green tea"]).await;
    let hidden = service.create_private(&ada, "Attic").await.unwrap();
    let joined = service.create(&bob, "Water").await.unwrap().id;
    service.create_private(&bob, "Cellar").await.unwrap();
    service.create(&bob, "Milk").await.unwrap();
    service.join(&ada, &joined).await.unwrap();
    // A room without events has the time of its creation, which is just now.
    for (room, at_ms) in [(&own[0], 5 * HOUR), (&own[0], 3 * HOUR), (&joined, 4 * HOUR), (&own[1], 2 * HOUR)] {
        log.active(room, at_ms);
    }
    let page = service.list_own(&ada, 50, "", "").await.unwrap();
    assert_eq!(names(&page)[2..], ["Tea", "Water", "Coffee"]);
    let mut new = names(&page)[..2].to_vec();
    new.sort();
    assert_eq!(new, ["Attic", "Green tea"]);
    assert_eq!(page.next_cursor, "");
    let attic = page.rooms.iter().find(|room| room.id == hidden.id).unwrap();
    assert_eq!((attic, attic.role()), (&hidden, Role::Owner));
    assert_eq!(page.rooms.iter().find(|room| room.id == joined).unwrap().role(), Role::Member);

    log.active(&own[1], now_ms() + HOUR);
    assert_eq!(names(&service.list_own(&ada, 1, "", "").await.unwrap()), ["Coffee"]);
    assert_eq!(names(&service.list_own(&ada, 50, "", "TEA").await.unwrap()), ["Green tea", "Tea"]);
    assert_eq!(names(&service.list_own(&ada, 50, "", "milk").await.unwrap()), [""; 0]);
}

async fn each_room_is_listed_once_while_rooms_become_active(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let ids = rooms(&service, &ada, &all).await;
    for (id, hours) in ids.iter().zip((1..=9).rev()) {
        log.active(id, hours * HOUR);
        log.active(id, hours * HOUR - 1);
    }
    let first = service.list_own(&ada, 3, "", "").await.unwrap();
    assert_eq!(names(&first), ["a", "b", "c"]);
    // Rooms of this page, of the next one and of the last one.
    for active in [0, 2, 3, 5, 8] {
        log.active(&ids[active], now_ms());
    }
    let second = service.list_own(&ada, 3, &first.next_cursor, "").await.unwrap();
    assert_eq!(names(&second), ["d", "e", "f"]);
    for active in [1, 4, 6, 7, 8] {
        log.active(&ids[active], now_ms());
    }
    assert_eq!(rest(&service, &ada, 3, &second).await, ["g", "h", "i"]);
    // A new first page has the new order.
    let again = service.list_own(&ada, 9, "", "").await.unwrap();
    assert_eq!(again.rooms.len(), 9);
    assert_ne!(names(&again), all);
}

async fn rooms_that_are_active_just_now_are_listed_once(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let ids = rooms(&service, &ada, &["a", "b", "c", "d", "e", "f", "g", "h", "i"]).await;
    // The last four have no events, and were created just now.
    for (id, at_ms) in ids[..5].iter().zip(now_ms() + 1000..) {
        log.active(id, at_ms);
    }
    let first = service.list_own(&ada, 2, "", "").await.unwrap();
    assert_eq!(names(&first), ["e", "d"]);
    for id in &ids {
        log.active(id, now_ms() + 2000);
    }
    let mut listed = rest(&service, &ada, 2, &first).await;
    listed.sort();
    assert_eq!(listed, ["a", "b", "c", "f", "g", "h", "i"]);
}

async fn members_come_and_go_between_pages(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let ids = rooms(&service, &ada, &["a", "b", "c", "d"]).await;
    let other = service.create(&bob, "other").await.unwrap().id;
    for (id, hours) in ids.iter().zip((1..=4).rev()) {
        log.active(id, hours * HOUR);
    }
    let first = service.list_own(&ada, 1, "", "").await.unwrap();
    assert_eq!(names(&first), ["a"]);
    service.delete(&ada, &ids[2]).await.unwrap();
    service.join(&ada, &other).await.unwrap();
    log.active(&other, now_ms());
    service.create(&ada, "new").await.unwrap();
    let listed = rest(&service, &ada, 1, &first).await;
    assert_eq!(listed, ["b", "d"], "what is newer than the first page is on no later page");
}

async fn the_log_of_the_release_before_lists_by_creation(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let ids = rooms(&service, &ada, &["a", "b", "c", "d"]).await;
    log.active(&ids[0], now_ms() + HOUR);
    let by_activity = service.list_own(&ada, 1, "", "").await.unwrap();
    assert_eq!(names(&by_activity), ["a"]);

    log.has_format(2, true);
    let first = service.list_own(&ada, 2, "", "").await.unwrap();
    let rejected = service.list_own(&ada, 1, &by_activity.next_cursor, "").await.unwrap_err();
    assert_eq!(rejected.code, Code::Unavailable, "this page needs another replica");
    log.has_format(2, false);
    // The pages keep the order of the first one.
    let mut listed = names(&first).into_iter().map(String::from).collect::<Vec<_>>();
    listed.extend(rest(&service, &ada, 2, &first).await);
    let mut newest_first = service.found_by(&ada, "").await.into_iter().map(|room| room.name).collect::<Vec<_>>();
    assert_eq!(listed, newest_first);
    newest_first.sort();
    assert_eq!(newest_first, ["a", "b", "c", "d"]);

    log.is(log::Mood::Away);
    assert_eq!(service.list_own(&ada, 2, "", "").await.unwrap_err().code, Code::Unavailable);
}

async fn wrong_requests_are_rejected(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    rooms(&service, &ada, &["a tea", "b tea"]).await;
    let page = service.list_own(&ada, 1, "", "tea").await.unwrap();
    let of_all = service.found_by(&ada, "").await;
    assert_eq!((page.rooms.len(), of_all.len()), (1, 2));
    let list = service.list(1, "", "").await.unwrap();
    for (limit, cursor, query) in [
        (0, "", ""),
        (201, "", ""),
        (1, "nonsense", ""),
        (1, &*page.next_cursor, ""),
        (1, &*page.next_cursor, "a"),
        (1, &*list.next_cursor, ""),
        (1, "", &*"x".repeat(201)),
    ] {
        let rejected = service.list_own(&ada, limit, cursor, query).await.unwrap_err();
        assert_eq!(rejected.code, Code::InvalidRequest, "{limit} {cursor} {query}");
    }
    assert_eq!(service.list_own(&ada, 1, &page.next_cursor, "TEA").await.unwrap().rooms.len(), 1);
    let anonymous = ListOwnRoomsRequest { limit: 1, ..ListOwnRoomsRequest::default() };
    let rejected = service.client.clone().list_own_rooms(anonymous).await.unwrap_err();
    assert_eq!(Error::from(rejected).code, Code::Unauthorized);
}
