//! Members change together with their event.

use std::collections::HashSet;

use super::*;

contract![
    creator_is_the_first_owner,
    change_and_event_are_atomic,
    present_members_keep_their_name,
    members_are_listed_by_role_and_joining,
    room_passes_to_the_first_other_member,
    deleted_user_cannot_join,
    deleted_room_has_no_members,
    one_of_concurrent_owners_wins,
    concurrent_joins_are_numbered_without_gaps,
];

pub(super) fn member(role: Role, joined_at_ms: i64) -> Member {
    Member { user: user(), role, joined_at_ms }
}

/// Returns the next change of a room, which gives users a role.
pub(super) fn set(room: &Room, set: Vec<Member>, joins: Option<Uuid>) -> MemberChange {
    let event = RoomEvent { event: "memberJoined".into(), closes_room: false, ..deletion(room) };
    let joins = joins.map(|user| Joining { user, added_by: None });
    MemberChange { set, removed: None, joins, event: RoomEvent { access: Some("{\"members\":[]}".into()), ..event } }
}

/// Adds members to a room, and returns its new state.
pub(super) async fn with(store: &Arc<dyn Store>, room: &Room, members: Vec<Member>) -> Room {
    assert!(store.change_members(set(room, members, None)).await.unwrap());
    get(store, room.id).await.unwrap()
}

pub(super) async fn listed(store: &Arc<dyn Store>, room: Uuid) -> Vec<Member> {
    store.members(room, MemberPosition::START, 200).await.unwrap()
}

fn owner(room: &Room) -> Member {
    Member { user: room.creator.clone(), role: Role::Owner, joined_at_ms: room.created_at_ms }
}

async fn creator_is_the_first_owner(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    assert_eq!(listed(&store, tea.id).await, [owner(&tea)]);
    assert_eq!(store.rooms_of(tea.creator.id, 10).await.unwrap(), [tea.id]);
    let seen = Seen { room: tea.clone(), role: Some(Role::Owner) };
    let creator = tea.creator.id;
    assert_eq!(store.get(tea.id, Some(creator)).await.unwrap(), Some(seen.clone()));
    let both = store.get_member(tea.id, creator, Some(creator)).await.unwrap();
    assert_eq!(both, Some((seen.clone(), Some(owner(&tea)))));
    for other in [None, Some(Uuid::now_v7())] {
        assert_eq!(store.get_member(tea.id, creator, other).await.unwrap(), Some((seen.clone(), None)));
    }
    let stranger = store.get_member(tea.id, Uuid::now_v7(), Some(creator)).await.unwrap();
    assert_eq!(stranger, Some((Seen { role: None, ..seen }, Some(owner(&tea)))));
    assert_eq!(store.get_member(Uuid::now_v7(), creator, Some(creator)).await.unwrap(), None);
}

async fn change_and_event_are_atomic(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let bob = member(Role::Member, 2000);
    let joining = set(&tea, vec![bob.clone()], Some(bob.user.id));
    assert!(store.change_members(joining.clone()).await.unwrap());
    let current = get(&store, tea.id).await.unwrap();
    assert_eq!(current, Room { revision: 1, ..tea.clone() });
    assert_eq!(first(&store, tea.id).await.unwrap().event, joining.event);
    store.remove_events(vec![joining.event.id]).await.unwrap();

    let late = set(&tea, vec![member(Role::Member, 3000)], None);
    let removal = MemberChange { set: Vec::new(), removed: Some(bob.user.id), ..set(&tea, Vec::new(), None) };
    for change in [late, removal] {
        assert!(!store.change_members(change).await.unwrap(), "the change was decided on an older state");
    }
    assert_eq!(listed(&store, tea.id).await, [owner(&tea), bob.clone()]);
    assert_eq!(first(&store, tea.id).await, None);

    let removal = MemberChange { removed: Some(bob.user.id), ..set(&current, Vec::new(), None) };
    assert!(store.change_members(removal).await.unwrap());
    assert_eq!(listed(&store, tea.id).await, [owner(&tea)]);
}

async fn present_members_keep_their_name(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let bob = member(Role::Member, 2000);
    let tea = with(&store, &tea, vec![bob.clone()]).await;
    let renamed = User { username: "robert".into(), ..bob.user.clone() };
    let promoted = Member { user: renamed, role: Role::Admin, joined_at_ms: 3000 };
    with(&store, &tea, vec![promoted]).await;
    assert_eq!(listed(&store, tea.id).await, [owner(&tea), Member { role: Role::Admin, ..bob }]);
}

async fn members_are_listed_by_role_and_joining(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let roles = [Role::Member, Role::Admin];
    // Pairs share their millisecond.
    let mut members = (0..20).map(|number| member(roles[number % 2], 5000 - number as i64 / 4)).collect::<Vec<_>>();
    with(&store, &tea, members.clone()).await;
    members.push(owner(&tea));
    members.sort_by_key(|member| (std::cmp::Reverse(member.role), member.joined_at_ms, member.user.id));
    for limit in [1, 3, 200] {
        let (mut after, mut read) = (MemberPosition::START, Vec::new());
        loop {
            let page = store.members(tea.id, after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit as usize);
            after = last.position();
            read.extend(page);
        }
        assert_eq!(read, members);
    }
    assert_eq!(listed(&store, Uuid::now_v7()).await, []);
}

async fn room_passes_to_the_first_other_member(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let creator = tea.creator.id;
    assert_eq!(store.first_others(tea.id, creator, 1).await.unwrap(), []);
    let bob = member(Role::Member, 2000);
    let tea = with(&store, &tea, vec![bob.clone(), member(Role::Member, 3000)]).await;
    assert_eq!(store.first_others(tea.id, creator, 1).await.unwrap(), [bob]);
    let cleo = member(Role::Admin, 4000);
    let tea = with(&store, &tea, vec![cleo.clone(), member(Role::Admin, 5000)]).await;
    assert_eq!(store.first_others(tea.id, creator, 1).await.unwrap(), std::slice::from_ref(&cleo));

    let heir = Member { role: Role::Owner, ..cleo.clone() };
    let passed = MemberChange { removed: Some(creator), ..set(&tea, vec![heir.clone()], None) };
    assert!(store.change_members(passed).await.unwrap());
    let left = listed(&store, tea.id).await;
    assert_eq!((left.len(), &left[0]), (4, &heir));
    assert_eq!(get(&store, tea.id).await.unwrap().creator, tea.creator, "the creator stays");
}

async fn deleted_room_has_no_members(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let bob = member(Role::Member, 2000);
    let tea = with(&store, &tea, vec![bob.clone()]).await;
    let coffee = with(&store, &made(&store, "Coffee").await, vec![bob.clone()]).await;
    assert!(store.delete(deletion(&tea)).await.unwrap());
    assert_eq!(listed(&store, tea.id).await, []);
    assert_eq!(store.rooms_of(bob.user.id, 10).await.unwrap(), [coffee.id]);
    assert!(!store.change_members(set(&tea, vec![bob], None)).await.unwrap());
}

async fn deleted_user_cannot_join(store: Arc<dyn Store>) {
    let (tea, bob, cleo) = (made(&store, "Tea").await, member(Role::Admin, 2000), member(Role::Member, 3000));
    let tea = with(&store, &tea, vec![bob.clone()]).await;
    for _ in 0..2 {
        store.record_gone(bob.user.clone()).await.unwrap();
        store.record_gone(cleo.user.clone()).await.unwrap();
    }
    let joining = || set(&tea, vec![cleo.clone()], Some(cleo.user.id));
    assert_eq!(store.change_members(joining()).await.unwrap_err().code, Code::NotFound);
    assert_eq!(get(&store, tea.id).await.unwrap(), tea);
    // Nor can such a user inherit a room.
    assert_eq!(store.first_others(tea.id, tea.creator.id, 10).await.unwrap(), []);

    assert_eq!(store.unsettled(Uuid::nil(), 10).await.unwrap(), [], "still in a room");
    store.record_left(cleo.user.id, 500).await.unwrap();
    assert_eq!(store.unsettled(Uuid::nil(), 10).await.unwrap(), [(cleo.user.clone(), 500)]);
    assert_eq!(store.unsettled(cleo.user.id, 10).await.unwrap(), []);
    store.settle(cleo.user.id).await.unwrap();
    assert_eq!(store.unsettled(Uuid::nil(), 10).await.unwrap(), []);
}

async fn one_of_concurrent_owners_wins(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let former = Member { role: Role::Admin, ..owner(&tea) };
    let heirs = [member(Role::Owner, 2000), member(Role::Owner, 3000), member(Role::Owner, 4000)];
    let passing = heirs.iter().map(|heir| store.change_members(set(&tea, vec![heir.clone(), former.clone()], None)));
    let outcomes = futures::future::join_all(passing).await;
    assert_eq!(outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap()).count(), 1);
    let roles = listed(&store, tea.id).await.into_iter().map(|member| member.role).collect::<Vec<_>>();
    assert_eq!(roles, [Role::Owner, Role::Admin]);
}

async fn concurrent_joins_are_numbered_without_gaps(store: Arc<dyn Store>) {
    let tea = made(&store, "Tea").await;
    let joining = (0..100).map(|number| {
        let (store, id, member) = (store.clone(), tea.id, member(Role::Member, 2000 + number));
        async move {
            loop {
                let current = get(&store, id).await.unwrap();
                if store.change_members(set(&current, vec![member.clone()], Some(member.user.id))).await.unwrap() {
                    return member.user.id;
                }
            }
        }
    });
    let mut users = futures::future::join_all(joining).await.into_iter().collect::<HashSet<_>>();
    users.insert(tea.creator.id);
    let listed = listed(&store, tea.id).await;
    assert_eq!(listed.into_iter().map(|member| member.user.id).collect::<HashSet<_>>(), users);
    assert_eq!(get(&store, tea.id).await.unwrap().revision, 100);
    for number in 1..=100 {
        let owed = first(&store, tea.id).await.unwrap();
        assert_eq!(owed.event.number, number);
        store.remove_events(vec![owed.event.id]).await.unwrap();
    }
}
