//! The directory of users.

use super::upgrade::run;
use super::*;
use crate::service::renew_names;

contract!(
    active_users_are_found_by_their_ids,
    names_are_found_by_their_beginning,
    pages_are_complete_and_in_the_order_of_the_names,
    a_search_finds_the_present_names,
    claimed_names_are_found,
    names_that_the_previous_version_changes_are_renewed,
);

fn named(username: &str, display_name: &str) -> User {
    let profile = Profile { display_name: Some(display_name.into()), ..Profile::default() };
    User { profile, ..account(username) }
}

fn first(prefix: &str) -> MatchPosition {
    MatchPosition { name: prefix.into(), id: Uuid::nil() }
}

/// Above all names with this beginning.
fn end(prefix: &str) -> String {
    format!("{prefix}\u{10FFFF}")
}

/// Returns the usernames of the users with a name that begins with a folded text.
async fn found(store: &Arc<dyn Store>, prefix: &str) -> Vec<String> {
    let matches = store.matches(first(prefix), end(prefix), 200).await.unwrap();
    assert!(matches.iter().all(|found| found.name.starts_with(prefix)), "{matches:?}");
    matches.into_iter().map(|found| found.user.username).collect()
}

async fn show(store: &Arc<dyn Store>, user: &User, display_name: Option<&str>) {
    let change = ProfileChange { display_name: Some(display_name.map(Into::into)), ..ProfileChange::default() };
    store.change_profile(user.id, change).await.unwrap().unwrap();
}

async fn delete(store: &Arc<dyn Store>, user: &User) {
    let deletion =
        Deletion { id: user.id, password_hash: "none".into(), now_ms: 0, free_name_at_ms: i64::MAX, entry: None };
    store.delete_user(deletion).await.unwrap();
}

async fn active_users_are_found_by_their_ids(url: StoreUrl) {
    let store = open(&url).await;
    let mut users = Vec::new();
    for name in ["ada", "bob", "suspended", "gone"] {
        users.push(create(&store, named(name, "Shown")).await.unwrap());
    }
    store.suspend(users[2].id, None).await.unwrap();
    delete(&store, &users[3]).await;
    let ids = users.iter().map(|user| user.id).chain([Uuid::now_v7()]).collect::<Vec<_>>();
    let mut active = store.active_users(ids).await.unwrap();
    active.sort_by_key(|user| user.id);
    assert_eq!(active, users[..2]);
    assert_eq!(store.active_users(vec![users[2].id, users[3].id]).await.unwrap(), []);
    assert_eq!(store.active_users(Vec::new()).await.unwrap(), []);
}

async fn names_are_found_by_their_beginning(url: StoreUrl) {
    let store = open(&url).await;
    for (username, display_name) in [
        ("first", "Zoë Ångström"),
        ("second", "Иван Иванов"),
        ("third", "100% tea"),
        ("under_score", "Straße 5"),
        ("underxscore", "O'Hara \\ 🍵"),
        ("Ünal", "ΟΔΟΣ"),
    ] {
        create(&store, named(username, display_name)).await.unwrap();
    }
    for (prefix, usernames) in [
        ("zo", &["first"][..]),
        ("zoë å", &["first"]),
        ("zoe", &[]),
        ("ång", &[]),
        ("ив", &["second"]),
        ("10", &["third"]),
        ("100%", &["third"]),
        ("1%", &[]),
        ("%%", &[]),
        ("un", &["under_score", "underxscore"]),
        ("under_", &["under_score"]),
        ("strasse", &["under_score"]),
        ("o'hara \\", &["underxscore"]),
        ("o' or '1'='1", &[]),
        ("ün", &["Ünal"]),
        ("οδοσ", &["Ünal"]),
        ("fir", &["first"]),
        ("irs", &[]),
    ] {
        assert_eq!(found(&store, prefix).await, usernames, "{prefix}");
    }
}

async fn pages_are_complete_and_in_the_order_of_the_names(url: StoreUrl) {
    let store = open(&url).await;
    let mut expected = Vec::new();
    for number in 0..30 {
        // Three users share each display name; the display name of some users is their username.
        let username = format!("user{number:02}");
        let display_name = if number % 5 == 0 { username.to_uppercase() } else { format!("User {}", number / 3) };
        let user = create(&store, named(&username, &display_name)).await.unwrap();
        let shown = confab_common::text::fold(&display_name);
        let names = [(username, user.id), (shown, user.id)];
        expected.extend(names);
        create(&store, named(&format!("other{number:02}"), "Usable")).await.unwrap();
    }
    for user in [named("usersuspended", "x"), named("usergone", "y")] {
        let user = create(&store, user).await.unwrap();
        store.suspend(user.id, None).await.unwrap();
        if user.username == "usergone" {
            delete(&store, &user).await;
        }
    }
    expected.sort();
    expected.dedup();
    for limit in [1, 7, 200] {
        let (mut after, mut read) = (first("user"), Vec::new());
        loop {
            let page = store.matches(after, end("user"), limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = last.position();
            read.extend(page.into_iter().map(|found| (found.name, found.user.id, found.by_username)));
        }
        for (name, id, by_username) in &read {
            let user = store.user(*id).await.unwrap().unwrap();
            let names = if *by_username { user.username_folded } else { user.shown_folded().unwrap() };
            assert_eq!(*name, names);
        }
        // Of two equal names of a user, the username comes first, and a page may end between them.
        let mut read = read.into_iter().map(|(name, id, _)| (name, id)).collect::<Vec<_>>();
        read.dedup();
        assert_eq!(read, expected, "{limit}");
    }
}

async fn a_search_finds_the_present_names(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    assert_eq!(found(&store, "ad").await, ["ada"]);
    show(&store, &ada, Some("Countess")).await;
    assert_eq!(found(&store, "count").await, ["ada"]);
    show(&store, &ada, Some("Lovelace")).await;
    assert_eq!((found(&store, "count").await, found(&store, "love").await), (vec![], vec!["ada".to_owned()]));
    show(&store, &ada, None).await;
    assert_eq!(found(&store, "love").await, [""; 0]);
    show(&store, &ada, Some("Lovelace")).await;
    let name = Name { username: "Grace".into(), folded: "grace".into(), skeleton: skeleton("grace") };
    let entry = Entry::new(Actor::default(), "user.change", ada.id);
    let change = ProfileChange { display_name: Some(Some("Hopper".into())), ..ProfileChange::default() };
    store.change_user(ada.id, name, change, reservation(1), entry).await.unwrap().unwrap();
    for former in ["ad", "love"] {
        assert_eq!(found(&store, former).await, [""; 0], "{former}");
    }
    for present in ["gr", "hop"] {
        assert_eq!(found(&store, present).await, ["Grace"], "{present}");
    }
    store.suspend(ada.id, None).await.unwrap();
    assert_eq!((found(&store, "gr").await, found(&store, "hop").await), (vec![], vec![]));
    store.restore(ada.id, i64::MAX, None).await.unwrap();
    assert_eq!(found(&store, "hop").await, ["Grace"]);
    delete(&store, &ada).await;
    for name in ["gr", "hop", "deleted"] {
        assert_eq!(found(&store, name).await, [""; 0], "{name}");
    }
    assert_eq!(store.outdated_names(Uuid::nil(), 10).await.unwrap(), []);
}

async fn claimed_names_are_found(url: StoreUrl) {
    let store = open(&url).await;
    let claimed = |name: &str, changed_at_ms: i64| {
        let (issuer, name) = ("https://issuer.example/".into(), Some(name.into()));
        Claimed { issuer, name, picture: None, changed_at_ms }
    };
    let ada = User { claimed: Some(claimed("Countess", 1000)), ..account("ada") };
    create(&store, ada.clone()).await.unwrap();
    assert_eq!(found(&store, "count").await, ["ada"]);
    store.change_claims(ada.id, claimed("Lovelace", 2000), 1000).await.unwrap().unwrap();
    assert_eq!((found(&store, "count").await, found(&store, "love").await), (vec![], vec!["ada".to_owned()]));
    // The name that the user chooses takes precedence.
    show(&store, &ada, Some("Byron")).await;
    assert_eq!((found(&store, "love").await, found(&store, "byr").await), (vec![], vec!["ada".to_owned()]));
    store.change_claims(ada.id, claimed("King", 3000), 2000).await.unwrap().unwrap();
    assert_eq!((found(&store, "ki").await, found(&store, "byr").await), (vec![], vec!["ada".to_owned()]));
    show(&store, &ada, None).await;
    assert_eq!(found(&store, "ki").await, ["ada"]);
    assert_eq!(store.outdated_names(Uuid::nil(), 10).await.unwrap(), []);
}

async fn names_that_the_previous_version_changes_are_renewed(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, named("ada", "Countess")).await.unwrap();
    run(&url, |id| format!("UPDATE users SET display_name = 'LOVELACE' WHERE id = {}", id(ada.id))).await;
    assert_eq!((found(&store, "count").await, found(&store, "love").await), (vec![], vec![]));
    assert_eq!(store.outdated_names(Uuid::nil(), 10).await.unwrap(), [(ada.id, Some("LOVELACE".to_owned()))]);
    assert_eq!(store.outdated_names(ada.id, 10).await.unwrap(), []);
    // A name that has changed meanwhile is not stored.
    let late = ShownName { name: Some("Countess".into()), folded: Some("countess".into()) };
    assert_eq!(store.renew_names(vec![(ada.id, late)]).await.unwrap(), 0);
    assert_eq!([renew_names(store.as_ref()).await.unwrap(), renew_names(store.as_ref()).await.unwrap()], [1, 0]);
    assert_eq!(found(&store, "love").await, ["ada"]);
    // The claims of an account that the previous version has changed do not hide the change.
    run(&url, |id| format!("UPDATE users SET display_name = 'Byron' WHERE id = {}", id(ada.id))).await;
    let name = Some("King".into());
    let claimed = Claimed { issuer: "https://issuer.example/".into(), name, picture: None, changed_at_ms: 1000 };
    store.change_claims(ada.id, claimed, 0).await.unwrap().unwrap();
    assert_eq!(renew_names(store.as_ref()).await.unwrap(), 1);
    assert_eq!(found(&store, "byr").await, ["ada"]);
    // A deletion by the previous version leaves no name behind.
    let gone = "state = 2, display_name = NULL, claimed_name = NULL";
    run(&url, |id| format!("UPDATE users SET {gone} WHERE id = {}", id(ada.id))).await;
    assert_eq!(renew_names(store.as_ref()).await.unwrap(), 1);
    let erased = "shown_name IS NULL AND shown_folded IS NULL";
    run(&url, |id| format!("UPDATE users SET state = 2 WHERE {erased} AND id = {}", id(ada.id))).await;
}
