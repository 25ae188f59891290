//! Users who share a room.

use super::*;

contract![users_of_common_rooms_are_acquainted, former_members_are_not_acquainted, many_users_are_filtered_at_once];

const NONE: [Uuid; 0] = [];

/// Changes the members of a room.
async fn change_members(store: &Arc<dyn Store>, room: Uuid, joining: &[Uuid], removed: Option<Uuid>) {
    let room = get(store, room).await.unwrap();
    let member = |id: &Uuid| {
        let user = User { id: *id, username: "x".into() };
        Member { user, role: Role::Member, joined_at_ms: 2000 }
    };
    let event = RoomEvent { event: "memberJoined".into(), closes_room: false, ..deletion(&room) };
    let change = MemberChange { set: joining.iter().map(member).collect(), removed, joins: None, event };
    assert!(store.change_members(change).await.unwrap());
}

/// Returns which of `others` share a room with `user`, in the order of `others`.
async fn acquainted(store: &Arc<dyn Store>, user: Uuid, others: &[Uuid]) -> Vec<Uuid> {
    let found = store.acquaintances(user, others.to_vec()).await.unwrap();
    let in_order = others.iter().copied().filter(|other| found.contains(other)).collect::<Vec<_>>();
    assert_eq!(in_order.len(), found.len(), "each once: {found:?}");
    in_order
}

async fn users_of_common_rooms_are_acquainted(store: Arc<dyn Store>) {
    let [ada, bob, cleo, dora] = [(); 4].map(|()| Uuid::now_v7());
    let (tea, coffee) = (made(&store, "Tea").await, made(&store, "Coffee").await);
    let secret = Room { private: true, ..room("Secret") };
    assert!(store.create(secret.clone()).await.unwrap());
    change_members(&store, tea.id, &[ada, bob], None).await;
    change_members(&store, coffee.id, &[bob, cleo], None).await;
    change_members(&store, secret.id, &[ada, dora, bob], None).await;
    let all = [ada, bob, cleo, dora, tea.creator.id, coffee.creator.id, Uuid::now_v7()];
    assert_eq!(acquainted(&store, ada, &all).await, [ada, bob, dora, tea.creator.id]);
    assert_eq!(acquainted(&store, bob, &all).await, all[..6]);
    assert_eq!(acquainted(&store, cleo, &all).await, [bob, cleo, coffee.creator.id]);
    assert_eq!(acquainted(&store, Uuid::now_v7(), &all).await, NONE);
    assert_eq!(acquainted(&store, ada, &[]).await, NONE);
}

async fn former_members_are_not_acquainted(store: Arc<dyn Store>) {
    let [ada, bob] = [(); 2].map(|()| Uuid::now_v7());
    let (tea, coffee) = (made(&store, "Tea").await, made(&store, "Coffee").await);
    for room in [tea.id, coffee.id] {
        change_members(&store, room, &[ada, bob], None).await;
    }
    change_members(&store, tea.id, &[], Some(bob)).await;
    assert_eq!(acquainted(&store, ada, &[bob]).await, [bob], "another common room is left");
    let coffee = get(&store, coffee.id).await.unwrap();
    assert!(store.delete(deletion(&coffee)).await.unwrap());
    assert_eq!(acquainted(&store, ada, &[bob]).await, NONE);
    assert_eq!(acquainted(&store, bob, &[ada]).await, NONE);
}

async fn many_users_are_filtered_at_once(store: Arc<dyn Store>) {
    let ada = Uuid::now_v7();
    let users = (0..200).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    for number in 0..20 {
        let room = made(&store, &format!("room {number}")).await;
        // Every second user is in rooms without ada.
        let joining = users.iter().copied().skip(number % 2).step_by(2).collect::<Vec<_>>();
        change_members(&store, room.id, &joining, None).await;
        if number % 2 == 0 {
            change_members(&store, room.id, &[ada], None).await;
        }
    }
    let shared = users.iter().copied().step_by(2).collect::<Vec<_>>();
    assert_eq!(acquainted(&store, ada, &users).await, shared);
}
