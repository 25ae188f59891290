//! Names that look alike, and accounts of a release that did not compare skeletons.

use super::*;
use crate::service::fill_skeletons;

contract!(
    only_one_of_the_lookalike_names_gets_an_account,
    one_of_concurrent_lookalike_signups_wins,
    accounts_of_an_earlier_release_are_compared,
    existing_lookalike_accounts_remain_usable,
    skeletons_are_filled_page_by_page,
);

/// Inserts an account as an earlier release does.
pub(super) async fn insert(url: &StoreUrl, user: &User) {
    let User { id, username, username_folded, password_hash, created_at_ms, .. } = user;
    let columns = "users (id, username, username_folded, password_hash, created_at_ms)";
    let text = |id: String| {
        format!(
            "INSERT INTO {columns} VALUES ({id}, '{username}', '{username_folded}', '{password_hash}', {created_at_ms})"
        )
    };
    match url {
        StoreUrl::Sqlite(path) => {
            let insert = text(format!("x'{}'", id.as_simple()));
            assert_eq!(rusqlite::Connection::open(path).unwrap().execute(&insert, []).unwrap(), 1);
        }
        StoreUrl::Postgres(url) => {
            let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SET search_path TO auth").await.unwrap();
            assert_eq!(client.execute(&text(format!("'{id}'")), &[]).await.unwrap(), 1);
        }
    }
}

async fn only_one_of_the_lookalike_names_gets_an_account(url: StoreUrl) {
    let store = open(&url).await;
    let latin = create(&store, account("ace")).await.unwrap();
    assert_eq!(create(&store, account("асе")).await.unwrap_err().code, Code::UsernameTaken);
    // A repeat finds the account, whichever names look alike.
    assert_eq!(create(&store, latin.clone()).await.unwrap(), latin);
    create(&store, account("ace2")).await.unwrap();
    assert_eq!(store.without_skeleton(Uuid::nil(), 10).await.unwrap(), []);
}

async fn one_of_concurrent_lookalike_signups_wins(url: StoreUrl) {
    let store = open(&url).await;
    let outcomes = join_all(["ace", "асе", "aсе", "асe", "аce"].map(|name| create(&store, account(name)))).await;
    let (won, lost) = outcomes.into_iter().partition::<Vec<_>, _>(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 4));
    assert!(lost.into_iter().all(|outcome| outcome.unwrap_err().code == Code::UsernameTaken));
}

async fn accounts_of_an_earlier_release_are_compared(url: StoreUrl) {
    let store = open(&url).await;
    for _ in 0..2 {
        // During an upgrade, replicas of the earlier release continue to create accounts.
        let old = account(&format!("scope{}", Uuid::now_v7().simple()));
        insert(&url, &old).await;
        assert_eq!(store.user_by_name(old.username_folded.clone()).await.unwrap().as_ref(), Some(&old));
        assert_eq!(store.without_skeleton(Uuid::nil(), 10).await.unwrap(), [(old.id, old.username.clone())]);
        assert_eq!(fill_skeletons(store.as_ref()).await.unwrap(), 1);
        assert_eq!(fill_skeletons(store.as_ref()).await.unwrap(), 0);
        let alike = account(&old.username.replace('o', "о"));
        assert_eq!(create(&store, alike).await.unwrap_err().code, Code::UsernameTaken);
    }
}

async fn existing_lookalike_accounts_remain_usable(url: StoreUrl) {
    let store = open(&url).await;
    let accounts = ["ace", "асе", "Ꭺce", "eve"].map(account);
    for account in &accounts {
        insert(&url, account).await;
    }
    let newer = create(&store, account("еve")).await.unwrap();
    assert_eq!(
        fill_skeletons(store.as_ref()).await.unwrap(),
        1,
        "the first account that looks like Ace gets the skeleton"
    );
    let left = store.without_skeleton(Uuid::nil(), 10).await.unwrap();
    assert_eq!(left.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["асе", "Ꭺce", "eve"]);
    assert_eq!(store.without_skeleton(left[0].0, 1).await.unwrap(), left[1..2]);
    for account in accounts.iter().chain([&newer]) {
        assert_eq!(store.user_by_name(account.username_folded.clone()).await.unwrap().as_ref(), Some(account));
    }
}

async fn skeletons_are_filled_page_by_page(url: StoreUrl) {
    let store = open(&url).await;
    // Every other name looks like the one before it.
    let accounts = (0..12).map(|n| account(&format!("{}cope{}", ["s", "ѕ"][n % 2], n / 2))).collect::<Vec<_>>();
    for account in &accounts {
        insert(&url, account).await;
    }
    let (mut after, mut filled) = (Uuid::nil(), 0);
    loop {
        let page = store.without_skeleton(after, 5).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        filled +=
            store.fill_skeletons(page.into_iter().map(|(id, name)| (id, skeleton(&name))).collect()).await.unwrap();
    }
    assert_eq!(filled, 6);
    let left = store.without_skeleton(Uuid::nil(), 100).await.unwrap();
    assert!(
        left.len() == 6 && left.iter().all(|(_, name)| name.starts_with('ѕ')),
        "the older of two accounts has the skeleton: {left:?}"
    );
}
