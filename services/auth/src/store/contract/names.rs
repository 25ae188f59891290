//! The former name of a renamed user stays reserved for a time.

use super::*;

contract!(
    a_former_name_is_free_after_its_time,
    a_user_takes_a_former_name_back,
    a_look_alike_of_a_former_name_is_reserved,
);

fn entry() -> Entry {
    Entry::new(Actor::default(), "user.change", Uuid::nil())
}

async fn rename(store: &Arc<dyn Store>, user: &User, to: &str, free_name_at_ms: i64) -> Result<User> {
    let change = ProfileChange::default();
    Ok(store.change_user(user.id, name(to), change, reservation(free_name_at_ms), entry()).await?.unwrap())
}

async fn a_former_name_is_free_after_its_time(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    rename(&store, &ada, "zoe", 1000).await.unwrap();
    for early in [999, 1000] {
        assert_eq!(create(&store, account("Ada")).await.unwrap_err().code, Code::UsernameTaken);
        assert_eq!(rename(&store, &eve, "ada", 1).await.unwrap_err().code, Code::UsernameTaken);
        assert_eq!(store.free_names(early, 10).await.unwrap(), 0);
    }
    assert_eq!([store.free_names(1001, 10).await.unwrap(), store.free_names(1001, 10).await.unwrap()], [1, 0]);
    assert_eq!(store.user_by_name("ada".into()).await.unwrap(), None);
    assert_eq!(rename(&store, &eve, "ada", 2000).await.unwrap().username, "ada");
    // What the upkeep has freed is no longer in the way of its former user either.
    assert_eq!(rename(&store, &ada, "eve", 2000).await.unwrap_err().code, Code::UsernameTaken);
}

async fn a_user_takes_a_former_name_back(url: StoreUrl) {
    let store = open(&url).await;
    let (ada, eve) = (create(&store, account("ada")).await.unwrap(), create(&store, account("eve")).await.unwrap());
    for to in ["zoe", "joe", "Ada", "ADA", "zoe"] {
        assert_eq!(rename(&store, &ada, to, 1000).await.unwrap().username, to);
        assert_eq!(store.user(ada.id).await.unwrap().unwrap().username, to);
        for reserved in ["ada", "zoe"].into_iter().filter(|_| to != "zoe") {
            assert_eq!(rename(&store, &eve, reserved, 1).await.unwrap_err().code, Code::UsernameTaken, "{reserved}");
        }
    }
    assert_eq!(store.user_by_name("zoe".into()).await.unwrap().unwrap().id, ada.id);
    // Of all the former names, "joe" and "ada" are reserved now.
    assert_eq!(store.free_names(1001, 10).await.unwrap(), 2);
    for free in ["joe", "ada"] {
        create(&store, account(free)).await.unwrap();
    }
}

async fn a_look_alike_of_a_former_name_is_reserved(url: StoreUrl) {
    let store = open(&url).await;
    let ace = create(&store, account("ace")).await.unwrap();
    rename(&store, &ace, "\u{430}\u{441}\u{435}", 1000).await.unwrap();
    assert_eq!(create(&store, account("ace")).await.unwrap_err().code, Code::UsernameTaken);
    rename(&store, &ace, "zoe", 1000).await.unwrap();
    for reserved in ["ace", "\u{430}\u{441}\u{435}"] {
        assert_eq!(create(&store, account(reserved)).await.unwrap_err().code, Code::UsernameTaken, "{reserved}");
    }
    assert_eq!(store.free_names(1001, 10).await.unwrap(), 2);
    create(&store, account("ace")).await.unwrap();
}
