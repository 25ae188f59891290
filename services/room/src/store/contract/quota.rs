//! The maximum number of rooms of one user is exact.

use futures::future::join_all;

use super::members::{listed, member, set, with};
use super::*;

contract![
    created_and_joined_rooms_count,
    one_of_concurrent_creations_gets_the_last_place,
    one_of_concurrent_joins_gets_the_last_place,
    concurrent_repeats_of_the_last_creation_are_repeats,
    users_have_their_own_places,
    heirs_are_exempt,
    other_users_fill_at_most_half,
    concurrent_additions_by_other_users_fill_at_most_half,
];

const MAXIMUM: u32 = 4;

fn sqlite() -> Arc<dyn Store> {
    let store = SqliteStore::open(&testing::directory().join("room.db")).unwrap();
    Arc::new(store.with_max_rooms(MAXIMUM))
}

async fn postgres() -> Arc<dyn Store> {
    let store = PostgresStore::open(&testing::database().await, &config()).await.unwrap();
    Arc::new(store.with_max_rooms(MAXIMUM))
}

/// Returns a room that a user is to create.
fn by(creator: &User, number: u32) -> Room {
    Room { creator: creator.clone(), ..room(&format!("{number} of {}", creator.id)) }
}

/// Creates rooms of a user.
async fn own(store: &Arc<dyn Store>, creator: &User, count: u32) -> Vec<Room> {
    let rooms = (0..count).map(|number| by(creator, number)).collect::<Vec<_>>();
    for room in &rooms {
        assert!(store.create(room.clone()).await.unwrap());
    }
    rooms
}

/// Returns how many of these changes succeeded; the others must have met the maximum.
fn succeeded(outcomes: Vec<Result<bool>>) -> usize {
    let rejected = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    assert!(rejected.into_iter().all(|error| error.code == Code::Conflict), "{outcomes:?}");
    outcomes.into_iter().filter(|outcome| matches!(outcome, Ok(true))).count()
}

/// Returns the next change of a room, by which its creator adds a user.
fn addition(room: &Room, member: &Member) -> MemberChange {
    let joins = Some(Joining { user: member.user.id, added_by: Some(room.creator.id) });
    MemberChange { joins, ..set(room, vec![member.clone()], None) }
}

/// Creates rooms of different users.
async fn of_others(store: &Arc<dyn Store>, count: u32) -> Vec<Room> {
    let mut rooms = Vec::new();
    for number in 0..count {
        rooms.push(made(store, &format!("room {number}")).await);
    }
    rooms
}

async fn created_and_joined_rooms_count(store: Arc<dyn Store>) {
    let bob = member(Role::Member, 2000);
    let rooms = own(&store, &bob.user, MAXIMUM - 1).await;
    let (tea, coffee) = (made(&store, "Tea").await, made(&store, "Coffee").await);
    let join = |room: &Room| store.change_members(set(room, vec![bob.clone()], Some(bob.user.id)));
    assert!(join(&tea).await.unwrap());

    let rejected = join(&coffee).await.unwrap_err();
    assert_eq!(
        (rejected.code, &*rejected.detail),
        (Code::Conflict, "the user is in 4 rooms, the maximum for one user")
    );
    assert_eq!(get(&store, coffee.id).await.unwrap(), coffee);
    assert_eq!(first(&store, coffee.id).await, None);
    assert_eq!(listed(&store, coffee.id).await.len(), 1);
    let another = by(&bob.user, MAXIMUM);
    assert_eq!(store.create(another.clone()).await.unwrap_err().code, Code::Conflict);
    assert_eq!(get(&store, another.id).await, None);

    // Repeats, and another role in a room of the user.
    assert!(!store.create(rooms[0].clone()).await.unwrap());
    assert!(!join(&tea).await.unwrap(), "the room is not at that revision");
    with(&store, &rooms[0], vec![Member { role: Role::Admin, ..bob.clone() }]).await;

    // A deleted room frees its place. A rejected creation has not used up its id.
    assert!(store.delete(deletion(&rooms[1])).await.unwrap());
    assert!(store.create(another).await.unwrap());
    // So does a room that the user leaves.
    assert_eq!(join(&coffee).await.unwrap_err().code, Code::Conflict);
    let tea = get(&store, tea.id).await.unwrap();
    let leaving = MemberChange { removed: Some(bob.user.id), ..set(&tea, Vec::new(), None) };
    assert!(store.change_members(leaving).await.unwrap());
    assert!(join(&coffee).await.unwrap());
}

async fn one_of_concurrent_creations_gets_the_last_place(store: Arc<dyn Store>) {
    let ada = user();
    own(&store, &ada, MAXIMUM - 1).await;
    let creations = (0..50).map(|number| store.create(by(&ada, 100 + number)));
    assert_eq!(succeeded(join_all(creations).await), 1);
    assert_eq!(store.rooms_of(ada.id, 100).await.unwrap().len(), MAXIMUM as usize);
}

async fn one_of_concurrent_joins_gets_the_last_place(store: Arc<dyn Store>) {
    let bob = member(Role::Member, 2000);
    own(&store, &bob.user, MAXIMUM - 1).await;
    let rooms = of_others(&store, 25).await;
    let joins = rooms.iter().map(|room| store.change_members(set(room, vec![bob.clone()], Some(bob.user.id))));
    let creations = (0..25).map(|number| store.create(by(&bob.user, 100 + number)));
    let (joined, created) = tokio::join!(join_all(joins), join_all(creations));
    assert_eq!(succeeded(joined) + succeeded(created), 1);
    assert_eq!(store.rooms_of(bob.user.id, 100).await.unwrap().len(), MAXIMUM as usize);
}

async fn concurrent_repeats_of_the_last_creation_are_repeats(store: Arc<dyn Store>) {
    let ada = user();
    own(&store, &ada, MAXIMUM - 1).await;
    let last = by(&ada, MAXIMUM);
    let outcomes = join_all((0..10).map(|_| store.create(last.clone()))).await;
    assert_eq!(outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1);
}

async fn users_have_their_own_places(store: Arc<dyn Store>) {
    let users = (0..5).map(|_| user()).collect::<Vec<_>>();
    let creations = users.iter().flat_map(|user| (0..10).map(|number| store.create(by(user, number))));
    assert_eq!(succeeded(join_all(creations).await), users.len() * MAXIMUM as usize);
}

async fn heirs_are_exempt(store: Arc<dyn Store>) {
    let bob = member(Role::Member, 2000);
    let tea = made(&store, "Tea").await;
    let tea = with(&store, &tea, vec![bob.clone()]).await;
    own(&store, &bob.user, MAXIMUM - 1).await;
    let heir = Member { role: Role::Owner, ..bob.clone() };
    let passed = MemberChange { removed: Some(tea.creator.id), ..set(&tea, vec![heir.clone()], None) };
    assert!(store.change_members(passed).await.unwrap());
    assert_eq!(listed(&store, tea.id).await, [heir]);
}

async fn other_users_fill_at_most_half(store: Arc<dyn Store>) {
    let bob = member(Role::Member, 2000);
    let rooms = of_others(&store, 5).await;
    let add = |room: &Room| store.change_members(addition(room, &bob));
    assert!(add(&rooms[0]).await.unwrap());
    assert!(add(&rooms[1]).await.unwrap());
    let rejected = add(&rooms[2]).await.unwrap_err();
    let detail = "other users may add the user to 2 of 4 rooms; the user can still join rooms";
    assert_eq!((rejected.code, &*rejected.detail), (Code::Conflict, detail));
    assert_eq!(first(&store, rooms[2].id).await, None);
    // Another role in such a room needs no place, and does not change who added the user.
    let tea = get(&store, rooms[0].id).await.unwrap();
    let tea = with(&store, &tea, vec![Member { role: Role::Admin, ..bob.clone() }]).await;
    assert_eq!(add(&rooms[2]).await.unwrap_err().code, Code::Conflict);

    // The user creates and joins rooms up to the maximum.
    own(&store, &bob.user, 1).await;
    assert!(store.change_members(set(&rooms[3], vec![bob.clone()], Some(bob.user.id))).await.unwrap());
    let full = add(&rooms[4]).await.unwrap_err();
    assert_eq!(full.detail, "the user is in 4 rooms, the maximum for one user");
    // A room that the user leaves frees the place in both counts.
    let leaving = MemberChange { removed: Some(bob.user.id), ..set(&tea, Vec::new(), None) };
    assert!(store.change_members(leaving).await.unwrap());
    assert!(add(&rooms[4]).await.unwrap());
    assert_eq!(add(&rooms[2]).await.unwrap_err().detail, full.detail);
}

async fn concurrent_additions_by_other_users_fill_at_most_half(store: Arc<dyn Store>) {
    let bob = member(Role::Member, 2000);
    let rooms = of_others(&store, 25).await;
    let (first, second) = rooms.split_at(15);
    let added = succeeded(join_all(first.iter().map(|room| store.change_members(addition(room, &bob)))).await);
    assert_eq!(added, MAXIMUM as usize / 2);
    let joins = second[..5].iter().map(|room| store.change_members(set(room, vec![bob.clone()], Some(bob.user.id))));
    let additions = second[5..].iter().map(|room| store.change_members(addition(room, &bob)));
    let creations = (0..5).map(|number| store.create(by(&bob.user, number)));
    let (joined, added, created) = tokio::join!(join_all(joins), join_all(additions), join_all(creations));
    assert_eq!((succeeded(added), succeeded(joined) + succeeded(created)), (0, MAXIMUM as usize / 2));
    assert_eq!(store.rooms_of(bob.user.id, 100).await.unwrap().len(), MAXIMUM as usize);
}
