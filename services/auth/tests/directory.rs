//! Finding users by their ids and by the beginning of their names.

#![allow(clippy::unwrap_used)]

mod support;

use confab_common::testing::directory;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use support::*;
use uuid::Uuid;

const PASSWORD: &str = "correct horse";

/// Signs up a user with a display name, and returns the id.
async fn user(client: &mut Client, username: &str, display_name: &str) -> String {
    let user_id = user_id(&signup(client, "", username, PASSWORD).await.unwrap());
    let display_name = Some(display_name.into());
    let change = UpdateProfileRequest { user_id: user_id.clone(), display_name, ..UpdateProfileRequest::default() };
    client.update_profile(call(change)).await.unwrap();
    user_id
}

async fn search(client: &mut Client, query: &str, limit: u32, cursor: &str) -> Result<SearchUsersResponse, Error> {
    let request = SearchUsersRequest { query: query.into(), limit, cursor: cursor.into() };
    Ok(client.search_users(call(request)).await?.into_inner())
}

async fn get(client: &mut Client, ids: &[&str]) -> Result<Vec<String>, Error> {
    let request = GetUsersRequest { ids: ids.iter().map(|id| id.to_string()).collect() };
    let users = client.get_users(call(request)).await?.into_inner().users;
    Ok(users.into_iter().map(|user| user.username).collect())
}

fn names(page: &SearchUsersResponse) -> Vec<&str> {
    page.users.iter().map(|found| found.user.as_ref().unwrap().username.as_str()).collect()
}

#[tokio::test]
async fn users_are_found_by_ids_and_by_names() {
    let (mut client, _process) = start(directory(), bus()).await;
    let zoe = user(&mut client, "Zoë", "Anna Å").await;
    let anna = user(&mut client, "anna", "Anna B").await;
    let hidden = user(&mut client, "annabel", "Anna C").await;
    client.suspend_user(call(SuspendUserRequest { user_id: hidden.clone(), actor: None })).await.unwrap();

    let unknown = Uuid::now_v7().to_string();
    assert_eq!(get(&mut client, &[&anna, &unknown, &hidden, &zoe, &anna]).await.unwrap(), ["anna", "Zoë"]);
    assert_eq!(get(&mut client, &[]).await.unwrap(), [""; 0]);
    for wrong in [vec!["x"], vec![&*anna; 201]] {
        let error = get(&mut client, &wrong).await.unwrap_err();
        assert_eq!((error.code, &*error.fields[0].field), (Code::InvalidRequest, "ids"));
    }

    // `anna` is listed once, although both names begin with the text.
    let page = search(&mut client, " ANN", 10, "").await.unwrap();
    assert_eq!((names(&page), &*page.next_cursor), (vec!["anna", "Zoë"], ""));
    assert_eq!(names(&search(&mut client, "zoe\u{308}", 10, "").await.unwrap()), ["Zoë"]);
    assert_eq!(names(&search(&mut client, "anna a\u{30a}", 10, "").await.unwrap()), ["Zoë"]);
    for nothing in ["nn", "%%", "a%", "an_a", "annabel"] {
        assert_eq!(names(&search(&mut client, nothing, 10, "").await.unwrap()), [""; 0], "{nothing}");
    }
    // A list continues after a page, and after each user of it.
    let after_first = search(&mut client, "ann", 10, &page.users[0].cursor).await.unwrap();
    assert_eq!(names(&after_first), ["Zoë"]);
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = search(&mut client, "ANN", 1, &cursor).await.unwrap();
        read.extend(names(&page).into_iter().map(str::to_owned));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(read, ["anna", "Zoë"]);

    let cursor = &page.users[0].cursor;
    let long = "x".repeat(81);
    for (query, limit, cursor, field) in [
        ("a", 10, "", "q"),
        ("", 10, "", "q"),
        (&*long, 10, "", "q"),
        ("an\0", 10, "", "q"),
        ("ann", 0, "", "limit"),
        ("ann", 201, "", "limit"),
        ("ann", 10, "x", "cursor"),
        ("anna", 10, cursor, "cursor"),
    ] {
        let error = search(&mut client, query, limit, cursor).await.unwrap_err();
        assert_eq!((error.code, &*error.fields[0].field), (Code::InvalidRequest, field), "{query:?}");
    }
}
