//! The directory of users: all users find each other, or only the users of common rooms.

use std::any::Any;

use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::plan::Role;
use confab_tests::server_keys;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::*;

/// Runs each test on the embedded program and on a cluster with two gateways, which the given functions start.
macro_rules! with_directory {
    ($embedded:ident, $cluster:ident: $($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::access::directory::Directory::$embedded().await).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::access::directory::Directory::$cluster().await).await;
            })+
        }
    };
}

mod shared;

with_directory!(
    embedded, cluster:
    names_are_found_by_their_beginning,
    pages_are_complete,
    users_are_shown_and_listed_by_their_ids,
    suspended_and_deleted_users_are_not_found,
    anonymous_callers_find_no_user,
);

/// A server with two ends, which may be the same, and a key with all scopes.
struct Directory {
    one: Api,
    other: Api,
    key: Account,
}

/// Servers on which users find only the users of common rooms.
struct Shared {
    urls: [String; 2],
    key: Account,
    /// The programs, which run until this is dropped.
    _running: Box<dyn Any + Send + Sync>,
}

const SHARED: [(&str, &str); 1] = [("CONFAB_USER_DIRECTORY", "shared")];

impl Directory {
    async fn embedded() -> Self {
        let (server, key) = world::embedded_with_key().await;
        Self { one: Api::new(server.url()), other: Api::new(server.url()), key: key.clone() }
    }

    async fn cluster() -> Self {
        let key = world::key_of_cluster().await.clone();
        let [one, other] = <[Api; 2]>::try_from(world::gateways(world::cluster().await)).expect("two gateways");
        Self { one, other, key }
    }

    async fn shared_embedded() -> Self {
        static STARTED: OnceCell<Shared> = OnceCell::const_new();
        let start = async || {
            let server = Embedded::start(&SHARED).await.expect("confab starts");
            let key = server_keys::of_embedded(&server, server_keys::ALL).await.expect("a key");
            Shared { urls: [server.url(), server.url()], key, _running: Box::new(server) }
        };
        Self::of(STARTED.get_or_init(start).await)
    }

    async fn shared_cluster() -> Self {
        static STARTED: OnceCell<Shared> = OnceCell::const_new();
        let start = async || {
            let cluster = Cluster::scratch(2, 1, &SHARED).await.expect("the cluster starts");
            let key = server_keys::of_cluster(&cluster, server_keys::ALL).await.expect("a key");
            let urls = [1, 2].map(|n| cluster.plan.url((Role::Gateway, n)));
            Shared { urls, key, _running: Box::new(cluster) }
        };
        Self::of(STARTED.get_or_init(start).await)
    }

    /// Each test has its own clients, because connections belong to a runtime.
    fn of(shared: &Shared) -> Self {
        let [one, other] = shared.urls.clone().map(Api::new);
        Self { one, other, key: shared.key.clone() }
    }

    /// Creates a user without a password, and returns the id.
    async fn user(&self, username: &str, display_name: &str) -> String {
        let id = Uuid::now_v7().to_string();
        let user = Some(json!({"username": username, "displayName": display_name}));
        let path = format!("/api/admin/users/{id}");
        self.one.call(Method::PUT, &path, Some(&self.key), user).await.unwrap().expect(201).unwrap();
        id
    }

    /// Suspends or restores a user.
    async fn act(&self, user: &str, act: &str) {
        let path = format!("/api/admin/users/{user}/{act}");
        assert_eq!(self.one.call(Method::POST, &path, Some(&self.key), None).await.unwrap().status, 204, "{act}");
    }

    /// Makes two users members of a room of the first one.
    async fn room_of(&self, owner: &Account, other: &Account, visibility: &str) -> String {
        let new = json!({"name": unique("common"), "visibility": visibility});
        let room = self.one.post("/api/rooms", owner, new).await.unwrap().expect(201).unwrap();
        let room = format!("/api/rooms/{}", room["id"].as_str().unwrap());
        let member = format!("{room}/members/{}", other.id);
        self.one.call(Method::PUT, &member, Some(owner), None).await.unwrap().expect(201).unwrap();
        room
    }

    /// Returns the usernames that a search lists on its first page.
    async fn found(&self, who: &Account, query: &str) -> Vec<String> {
        usernames(&self.other.get(&search(query), who).await.unwrap().expect(200).unwrap())
    }

    /// Whether a user finds another one, which all three forms of a look-up must agree about.
    async fn finds(&self, who: &Account, other: &Account) -> bool {
        let shown = self.other.get(&format!("/api/users/{}", other.id), who).await.unwrap();
        let listed = self.other.get(&format!("/api/users?ids={}", other.id), who).await.unwrap();
        let listed = usernames(&listed.expect(200).unwrap());
        let found = self.found(who, &other.username).await;
        assert_eq!((listed.len(), found.len()), (usize::from(shown.status == 200), listed.len()), "{}", shown.body);
        shown.status == 200
    }
}

fn search(query: &str) -> String {
    format!("/api/users?q={}", encoded(query))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn usernames(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["username"].as_str().unwrap().to_owned()).collect()
}

/// A beginning of names that no other test uses.
fn tag() -> String {
    format!("u{}", &Uuid::new_v4().simple().to_string()[..10])
}

async fn names_are_found_by_their_beginning(directory: Directory) {
    let (reader, tag) = (directory.one.signup().await.unwrap(), tag());
    let [first, second, third] = ["a", "b", "c"].map(|end| format!("{tag}{end}"));
    directory.user(&first, &format!("Žofie {tag} 100% tea")).await;
    directory.user(&second, &format!("ŽOFIE {tag} 100_tea")).await;
    directory.user(&third, &format!("Straße {tag}")).await;
    for (query, expected) in [
        (tag.to_uppercase(), vec![&first, &second, &third]),
        (first.clone(), vec![&first]),
        (format!("žofie {tag}"), vec![&first, &second]),
        (format!("Z\u{30c}ofie {tag} 100"), vec![&first, &second]),
        (format!("Zofie {tag}"), vec![]),
        (format!("ŽOFIE {tag} 100%"), vec![&first]),
        (format!("žofie {tag} 100_"), vec![&second]),
        (format!("žofie {tag} 1%"), vec![]),
        (format!("žofie {tag} 100_T"), vec![&second]),
        (format!("STRASSE {tag}"), vec![&third]),
        (format!("%{tag}"), vec![]),
        (tag[1..].to_owned(), vec![]),
    ] {
        assert_eq!(
            directory.found(&reader, &query).await,
            expected.into_iter().cloned().collect::<Vec<_>>(),
            "{query}"
        );
    }
    let page = directory.other.get(&search(&first), &reader).await.unwrap().expect(200).unwrap();
    let display_name = format!("Žofie {tag} 100% tea");
    let item = &page["items"][0];
    assert_eq!((&item["displayName"], &item["avatarUrl"]), (&json!(display_name), &Value::Null));
    assert_eq!(item.as_object().unwrap().len(), 4, "{item}");
    // A user finds a change immediately.
    let me = Some(json!({"displayName": format!("Me {tag}")}));
    directory.one.call(Method::PATCH, "/api/auth/me", Some(&reader), me).await.unwrap().expect(200).unwrap();
    assert_eq!(directory.found(&reader, &format!("me {tag}")).await, [&*reader.username]);
    for wrong in ["", "a", " a "] {
        fails(&directory.other.get(&search(wrong), &reader).await.unwrap(), 400, "invalid_request");
    }
}

async fn pages_are_complete(directory: Directory) {
    let (reader, tag) = (directory.one.signup().await.unwrap(), tag());
    let mut expected = Vec::new();
    for end in ["a", "b", "c", "d", "e", "f", "g"] {
        let username = format!("{tag}{end}");
        // Some users are found by both names, and listed once.
        let display_name = if end < "d" { username.to_uppercase() } else { format!("{tag} {end}") };
        directory.user(&username, &display_name).await;
        expected.push(username);
    }
    for limit in [1, 3, 200] {
        let (mut read, mut path) = (Vec::new(), format!("{}&limit={limit}", search(&tag)));
        loop {
            let page = directory.other.get(&path, &reader).await.unwrap().expect(200).unwrap();
            let names = usernames(&page);
            assert!(names.len() <= limit);
            read.extend(names);
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            assert!(!cursor.contains(&tag));
            let foreign = format!("{}&limit={limit}&cursor={cursor}", search(&tag[..4]));
            fails(&directory.other.get(&foreign, &reader).await.unwrap(), 400, "invalid_request");
            path = format!("{}&limit={limit}&cursor={cursor}", search(&tag));
        }
        assert_eq!(read, expected, "{limit}");
    }
    fails(&directory.other.get(&format!("{}&cursor=x", search(&tag)), &reader).await.unwrap(), 400, "invalid_request");
}

async fn users_are_shown_and_listed_by_their_ids(directory: Directory) {
    let (ada, tag) = (directory.one.signup().await.unwrap(), tag());
    let other = directory.user(&tag, "Ä Ö").await;
    let expected = json!({"id": other, "username": tag, "displayName": "Ä Ö", "avatarUrl": null});
    for path in [other.clone(), format!("@{tag}"), format!("@{}", tag.to_uppercase())] {
        let shown = directory.other.get(&format!("/api/users/{path}"), &ada).await.unwrap();
        assert_eq!(shown.expect(200).unwrap(), expected);
    }
    let me = directory.other.get("/api/users/me", &ada).await.unwrap().expect(200).unwrap();
    assert_eq!((&me["id"], &me["username"]), (&json!(ada.id), &json!(ada.username)));
    let ids = [&other, &Uuid::now_v7().to_string(), &ada.id, &other].map(String::as_str).join(",");
    let listed = directory.other.get(&format!("/api/users?ids={ids}"), &ada).await.unwrap().expect(200).unwrap();
    assert_eq!((usernames(&listed), &listed["nextCursor"]), (vec![tag.clone(), ada.username.clone()], &Value::Null));
    let many = vec![ada.id.as_str(); 101].join(",");
    for query in ["", "?ids=", "?ids=x", &format!("?ids={other}&q={tag}"), &format!("?ids={many}")] {
        fails(&directory.other.get(&format!("/api/users{query}"), &ada).await.unwrap(), 400, "invalid_request");
    }
    for missing in [Uuid::now_v7().to_string(), "x".into(), format!("@{tag}x")] {
        fails(&directory.other.get(&format!("/api/users/{missing}"), &ada).await.unwrap(), 404, "not_found");
    }
}

async fn suspended_and_deleted_users_are_not_found(directory: Directory) {
    let (reader, tag) = (directory.one.signup().await.unwrap(), tag());
    let id = directory.user(&tag, &format!("Name {tag}")).await;
    let user = Account { id: id.clone(), username: tag.clone(), token: String::new() };
    let by_name = async || directory.other.get(&format!("/api/users/@{tag}"), &reader).await.unwrap().status;
    assert!(directory.finds(&reader, &user).await);
    directory.act(&id, "suspend").await;
    assert!(!directory.finds(&reader, &user).await);
    assert_eq!((by_name().await, directory.found(&reader, &format!("name {tag}")).await.len()), (404, 0));
    directory.act(&id, "restore").await;
    assert!(directory.finds(&reader, &user).await);
    let path = format!("/api/admin/users/{id}");
    assert_eq!(directory.one.call(Method::DELETE, &path, Some(&directory.key), None).await.unwrap().status, 204);
    assert!(!directory.finds(&reader, &user).await);
    assert_eq!((by_name().await, directory.found(&reader, &format!("name {tag}")).await.len()), (404, 0));
    let unknown = format!("/api/users/{}", Uuid::now_v7());
    let [mut gone, mut unknown] = [
        directory.other.get(&format!("/api/users/{id}"), &reader).await.unwrap().body,
        directory.other.get(&unknown, &reader).await.unwrap().body,
    ];
    gone["requestId"] = Value::Null;
    unknown["requestId"] = Value::Null;
    assert_eq!(gone, unknown);
}

async fn anonymous_callers_find_no_user(directory: Directory) {
    for path in ["/api/users?q=user".to_owned(), format!("/api/users?ids={}", Uuid::now_v7()), "/api/users/me".into()] {
        fails(&directory.other.call(Method::GET, &path, None, None).await.unwrap(), 401, "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_of_users_are_limited() {
    let server = Embedded::start(&[("CONFAB_LIMIT_USER_DIRECTORY", "3,1/h")]).await.unwrap();
    let api = Api::new(server.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let paths = [search(&bob.username), format!("/api/users?ids={}", bob.id), format!("/api/users/{}", bob.id)];
    for (path, left) in paths.iter().zip([2, 1, 0]) {
        let found = api.get(path, &ada).await.unwrap();
        assert_eq!(found.status, 200, "{path}");
        assert_eq!(found.header("ratelimit-policy"), "\"user_directory\";q=3;w=10800");
        let state = found.header("ratelimit");
        assert!(state.starts_with(&format!("\"user_directory\";r={left};t=")), "{path}: {state}");
    }
    for path in &paths {
        let rejected = api.get(path, &ada).await.unwrap();
        fails(&rejected, 429, "rate_limited");
        assert!(rejected.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{path}");
    }
    assert_eq!(api.get(&paths[0], &bob).await.unwrap().status, 200, "each user has a limit of its own");
    // To add a user by name is a look-up, too.
    let room = api.post("/api/rooms", &ada, json!({"name": unique("room")})).await.unwrap().expect(201).unwrap();
    let add = async |user: &str| {
        let member = format!("/api/rooms/{}/members/{user}", room["id"].as_str().unwrap());
        api.call(Method::PUT, &member, Some(&ada), None).await.unwrap()
    };
    fails(&add(&format!("@{}", bob.username)).await, 429, "rate_limited");
    assert_eq!(add(&bob.id).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_hidden_users_each_addition_to_a_room_is_a_look_up() {
    let settings = [("CONFAB_LIMIT_USER_DIRECTORY", "1,1/h"), ("CONFAB_USER_DIRECTORY", "shared")];
    let server = Embedded::start(&settings).await.unwrap();
    let api = Api::new(server.url());
    let (ada, bob) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let room = api.room(&ada).await.unwrap();
    let add = async |user: &str| {
        api.call(Method::PUT, &format!("/api/rooms/{room}/members/{user}"), Some(&ada), None).await.unwrap()
    };
    assert_eq!(add(&bob.id).await.status, 201);
    for user in [bob.id.clone(), Uuid::now_v7().to_string(), format!("@{}", bob.username)] {
        fails(&add(&user).await, 429, "rate_limited");
    }
    assert_eq!(add("me").await.status, 200);
}
