//! Invites and password resets.

use super::*;

contract!(
    as_many_accounts_as_uses_are_created,
    a_failed_signup_takes_no_use,
    an_invite_expires,
    valid_invites_are_bounded,
    a_password_reset_works_once,
    a_new_password_reset_replaces_the_earlier_one,
    used_and_expired_secrets_are_purged,
);

fn invite(code: u8, uses: u32, expires_at_ms: i64) -> Invite {
    Invite { id: Uuid::now_v7(), code_sha256: [code; 32], uses, created_at_ms: 100, expires_at_ms, entry: None }
}

async fn invited(store: &Arc<dyn Store>, user: User, code: u8, now_ms: i64) -> Result<User> {
    let skeleton = skeleton(&user.username_folded);
    store.create_user(user, skeleton, Some(([code; 32], now_ms)), None).await
}

async fn as_many_accounts_as_uses_are_created(url: StoreUrl) {
    let store = open(&url).await;
    assert!(store.create_invite(invite(1, 7, 9000), 10).await.unwrap());
    let signups = (0..50).map(|n| invited(&store, account(&format!("user{n}")), 1, 200));
    let outcomes = stream::iter(signups).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    let (created, refused) = outcomes.into_iter().partition::<Vec<_>, _>(Result::is_ok);
    assert_eq!((created.len(), refused.len()), (7, 43));
    assert!(refused.into_iter().all(|refused| refused.unwrap_err().code == Code::Forbidden));
    let mut found = 0;
    for n in 0..50 {
        found += usize::from(store.user_by_name(format!("user{n}")).await.unwrap().is_some());
    }
    assert_eq!(found, 7, "a rejected signup leaves no account");
    assert!(!store.has_invite([1; 32], 200).await.unwrap());
}

async fn a_failed_signup_takes_no_use(url: StoreUrl) {
    let store = open(&url).await;
    assert!(store.create_invite(invite(1, 1, 9000), 10).await.unwrap());
    create(&store, account("ada")).await.unwrap();
    assert_eq!(invited(&store, account("ADA"), 1, 200).await.unwrap_err().code, Code::UsernameTaken);
    assert_eq!(invited(&store, account("eve"), 2, 200).await.unwrap_err().code, Code::Forbidden);
    assert!(store.has_invite([1; 32], 200).await.unwrap());
    let eve = invited(&store, account("eve"), 1, 200).await.unwrap();
    assert!(!store.has_invite([1; 32], 200).await.unwrap());
    assert_eq!(invited(&store, eve.clone(), 1, 200).await.unwrap(), eve, "a repeat needs no second use");
}

async fn an_invite_expires(url: StoreUrl) {
    let store = open(&url).await;
    assert!(store.create_invite(invite(1, 1, 9000), 10).await.unwrap());
    assert!(store.has_invite([1; 32], 8999).await.unwrap() && !store.has_invite([1; 32], 9000).await.unwrap());
    assert_eq!(invited(&store, account("ada"), 1, 9000).await.unwrap_err().code, Code::Forbidden);
    invited(&store, account("ada"), 1, 8999).await.unwrap();
}

async fn valid_invites_are_bounded(url: StoreUrl) {
    let store = open(&url).await;
    assert!(store.create_invite(invite(0, 1, 100), 3).await.unwrap(), "expired at once");
    let created = join_all((1..9).map(|code| store.create_invite(invite(code, 1, 9000), 3))).await;
    assert_eq!(created.into_iter().filter(|created| *created.as_ref().unwrap()).count(), 3);
}

async fn a_password_reset_works_once(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let first = open_at(&store, &ada, 1000).await;
    let token = [3; 32];
    let reset = PasswordReset { user_id: ada.id, token_sha256: token, created_at_ms: 100, expires_at_ms: 9000 };
    store.create_reset(reset).await.unwrap();
    assert_eq!(store.reset_user(token, 8999).await.unwrap(), Some(ada.id));
    assert_eq!(store.reset_user(token, 9000).await.unwrap(), None);
    assert_eq!(store.redeem_reset(token, "late".into(), 9000, cut(None)).await.unwrap(), None);
    assert_eq!(store.redeem_reset([4; 32], "other".into(), 200, cut(None)).await.unwrap(), None);
    assert_eq!(store.user(ada.id).await.unwrap().unwrap().password_hash, ada.password_hash);
    let redeemed = join_all((0..8).map(|n| store.redeem_reset(token, format!("new {n}"), 200, cut(None)))).await;
    let won = redeemed.iter().enumerate().filter(|(_, redeemed)| redeemed.as_ref().unwrap().is_some());
    let [(winner, outcome)] = won.collect::<Vec<_>>()[..] else { panic!("{redeemed:?}") };
    let (user_id, ended) = outcome.clone().unwrap().unwrap();
    let before = Scope::Before { user_id: ada.id, not_before_s: 200, except: None };
    assert_eq!(user_id, ada.id);
    assert_eq!(ended.iter().map(|ended| ended.scope).collect::<Vec<_>>(), [Scope::Session(first), before]);
    assert_eq!(store.user(ada.id).await.unwrap().unwrap().password_hash, format!("new {winner}"));
    assert_eq!(store.reset_user(token, 200).await.unwrap(), None);
}

async fn a_new_password_reset_replaces_the_earlier_one(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    let reset =
        |byte| PasswordReset { user_id: ada.id, token_sha256: [byte; 32], created_at_ms: 0, expires_at_ms: 9000 };
    store.create_reset(reset(1)).await.unwrap();
    assert!(store.redeem_reset([1; 32], "new".into(), 200, cut(None)).await.unwrap().is_some());
    for byte in [2, 3] {
        store.create_reset(reset(byte)).await.unwrap();
    }
    assert_eq!(store.reset_user([2; 32], 200).await.unwrap(), None);
    assert!(store.redeem_reset([3; 32], "newer".into(), 200, cut(None)).await.unwrap().is_some());
}

async fn used_and_expired_secrets_are_purged(url: StoreUrl) {
    let store = open(&url).await;
    let ada = create(&store, account("ada")).await.unwrap();
    for (code, expires_at_ms) in [(1, 1000), (2, 9000), (3, 9000)] {
        assert!(store.create_invite(invite(code, 1, expires_at_ms), 10).await.unwrap());
    }
    invited(&store, account("eve"), 2, 200).await.unwrap();
    let reset = PasswordReset { user_id: ada.id, token_sha256: [1; 32], created_at_ms: 0, expires_at_ms: 1000 };
    store.create_reset(reset).await.unwrap();
    assert_eq!([store.purge_secrets(1001, 10).await.unwrap(), store.purge_secrets(1001, 10).await.unwrap()], [3, 0]);
    assert!(store.has_invite([3; 32], 1001).await.unwrap());
}
