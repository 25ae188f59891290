//! Users of the app's own issuers.

use std::collections::HashSet;

use super::*;

contract!(
    claims_are_stored_and_changed_at_intervals,
    one_hundred_creations_of_one_user_make_one_account,
    a_deleted_user_loses_the_claims,
    claims_of_the_previous_version_are_none,
);

/// A user of the app's own issuer whose claims changed at `changed_at_ms`.
fn claimant(name: &str, changed_at_ms: i64) -> User {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
    User { id, claimed: Some(claimed("Ada", changed_at_ms)), ..account(name) }
}

fn claimed(name: &str, changed_at_ms: i64) -> Claimed {
    let picture = Some("https://cdn.example.com/ada.png".into());
    Claimed { issuer: "https://id.example.com/".into(), name: Some(name.into()), picture, changed_at_ms }
}

async fn claims_are_stored_and_changed_at_intervals(url: StoreUrl) {
    let store = open(&url).await;
    let ada = claimant("ada", 1000);
    assert_eq!(create(&store, ada.clone()).await.unwrap(), ada);
    assert_eq!(store.user(ada.id).await.unwrap().as_ref(), Some(&ada));
    assert_eq!(store.change_claims(ada.id, claimed("Ada L.", 1999), 999).await.unwrap(), None, "too early");
    assert_eq!(store.user(ada.id).await.unwrap().as_ref(), Some(&ada));
    let bare = Claimed { name: None, picture: None, ..claimed("", 2000) };
    for (claims, latest_ms) in [(bare, 1000), (claimed("Ada L.", 3000), 2000)] {
        let changed = Some(User { claimed: Some(claims.clone()), ..ada.clone() });
        assert_eq!(store.change_claims(ada.id, claims, latest_ms).await.unwrap(), changed);
        assert_eq!(store.user(ada.id).await.unwrap(), changed);
    }
    // The profile is separate.
    let change = ProfileChange { display_name: Some(Some("A.".into())), ..ProfileChange::default() };
    let changed = store.change_profile(ada.id, change).await.unwrap().unwrap();
    assert_eq!(changed.claimed, Some(claimed("Ada L.", 3000)));
    let other = Claimed { issuer: "https://other.example/".into(), ..claimed("Eve", 9000) };
    assert_eq!(store.change_claims(ada.id, other, 9000).await.unwrap(), None, "of another issuer");
    assert_eq!(store.change_claims(Uuid::now_v7(), claimed("Eve", 9000), 9000).await.unwrap(), None);
    let bare = create(&store, account("eve")).await.unwrap();
    let changed = store.change_claims(bare.id, claimed("Eve", 9000), 8000).await.unwrap();
    assert_eq!(changed, Some(User { claimed: Some(claimed("Eve", 9000)), ..bare }));
}

async fn one_hundred_creations_of_one_user_make_one_account(url: StoreUrl) {
    let store = open(&url).await;
    let creations = stream::iter((0..100).map(|n| create(&store, claimant("ada", n))));
    let created = creations.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    let times = created.into_iter().map(|user| user.unwrap().claimed.unwrap().changed_at_ms).collect::<HashSet<_>>();
    assert_eq!(times.len(), 1, "all calls return the first account");
    assert_eq!(create(&store, account("ada")).await.unwrap_err().code, Code::UsernameTaken);
}

async fn a_deleted_user_loses_the_claims(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, claimant("ada", 1000)).await.unwrap();
    let deletion =
        Deletion { id: ada.id, password_hash: "none".into(), now_ms: 500, free_name_at_ms: 1000, entry: None };
    store.delete_user(deletion).await.unwrap();
    let left = store.user(ada.id).await.unwrap().unwrap();
    let bare = Claimed { name: None, picture: None, ..claimed("", 1000) };
    assert_eq!((left.state, left.claimed), (State::Deleted, Some(bare)));
    assert_eq!(store.change_claims(ada.id, claimed("Ada", 9000), 9000).await.unwrap(), None);
    assert_eq!(create(&store, claimant("ada", 9000)).await.unwrap().state, State::Deleted, "the id is not used again");
}

async fn claims_of_the_previous_version_are_none(url: StoreUrl) {
    let store = open(&url).await;
    let ada = account("ada");
    skeletons::insert(&url, &ada).await;
    assert_eq!(store.user(ada.id).await.unwrap(), Some(ada));
}
