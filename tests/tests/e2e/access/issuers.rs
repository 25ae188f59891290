//! Tokens of the app's own issuers, on the embedded server and between two gateways.

use std::any::Any;
use std::time::Duration;

use confab_tests::api::PASSWORD;
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::issuer::{Issuer, Key};
use confab_tests::plan::Role;
use confab_tests::raw::connect;
use confab_tests::wait::eventually;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::*;

/// Runs each test on the embedded program and on a cluster with two gateways, both with the same issuers.
macro_rules! with_issuers {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Servers::embedded().await).await;
            })+
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Servers::cluster().await).await;
            })+
        }
    };
}

with_issuers!(
    a_token_of_the_app_works_on_every_gateway,
    users_with_one_name_get_two_usernames,
    a_logout_ends_the_token_everywhere,
    a_key_of_another_issuer_is_rejected,
    a_rotation_rejects_no_token,
    passwords_and_sessions_are_those_of_the_issuer,
);

type Running = Box<dyn Any + Send + Sync>;

/// A server with two ends, which may be the same, and its issuers.
struct Servers {
    urls: [String; 2],
    main: Issuer,
    /// Another issuer, whose key has the same id.
    twin: Issuer,
    /// An issuer that rotates its key. No other test uses it: a fetch that a token causes is possible once in 30 s.
    rotating: Issuer,
    /// The programs, which run until this is dropped.
    _running: Running,
}

impl Servers {
    async fn embedded() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        let start = async |setting: String| {
            let embedded = Embedded::start(&[("CONFAB_ISSUERS", &setting)]).await?;
            Ok(([embedded.url(), embedded.url()], Box::new(embedded) as Running))
        };
        SHARED.get_or_init(async || Self::with(start).await.expect("confab starts")).await
    }

    async fn cluster() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        let start = async |setting: String| {
            let cluster = Cluster::scratch(2, 1, &[("CONFAB_ISSUERS", &setting)]).await?;
            Ok(([1, 2].map(|n| cluster.plan.url((Role::Gateway, n))), Box::new(cluster) as Running))
        };
        SHARED.get_or_init(async || Self::with(start).await.expect("the cluster starts")).await
    }

    async fn with(start: impl AsyncFnOnce(String) -> anyhow::Result<([String; 2], Running)>) -> anyhow::Result<Self> {
        let issuer = |name: &str| Issuer::start(&format!("https://{name}.example/"), Key::new("k")?);
        let (main, twin, rotating) = (issuer("main")?, issuer("twin")?, issuer("rotating")?);
        let setting = json!([main.entry(), twin.entry(), rotating.entry()]).to_string();
        let (urls, running) = start(setting).await?;
        Ok(Self { urls, main, twin, rotating, _running: running })
    }

    /// A client of each end. Each test has its own, because connections belong to a runtime.
    fn ends(&self) -> [Api; 2] {
        self.urls.clone().map(Api::new)
    }
}

/// A new user of an issuer: the id at the issuer, the name, and the username.
fn new_user() -> (String, String, String) {
    let unique = &Uuid::new_v4().simple().to_string()[..8];
    (format!("user_{unique}"), format!("Ada Lovelace {unique}"), format!("ada_lovelace_{unique}"))
}

async fn status(api: &Api, account: &Account) -> u16 {
    api.get("/api/auth/me", account).await.unwrap().status
}

async fn rejected(api: &Api, account: &Account) {
    let is_rejected = async || (status(api, account).await == 401).then_some(());
    eventually("the token is rejected", Duration::from_secs(5), is_rejected).await.unwrap();
}

async fn a_token_of_the_app_works_on_every_gateway(servers: &Servers) {
    let ([one, other], (user, name, username)) = (servers.ends(), new_user());
    let ada = servers.main.account(&user, &username, &json!({"name": name}));
    let sender = json!({"id": ada.id, "username": ada.username});
    // The first use is a socket.
    let mut socket = WebSocket::connect(&other.url, &ada.token).await.unwrap();
    let me = one.get("/api/auth/me", &ada).await.unwrap().expect(200).unwrap();
    assert_eq!((&me["id"], &me["username"], &me["displayName"]), (&sender["id"], &sender["username"], &json!(name)));
    let room = one.room(&ada).await.unwrap();
    assert_eq!(socket.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    let message = json!({"roomId": room, "content": "by REST"});
    let posted = one.post("/api/messages", &ada, message).await.unwrap().expect(201).unwrap();
    assert_eq!(posted["sender"], sender);
    assert_eq!(socket.event("message").await.unwrap(), posted);
    let ack = socket.emit("message", json!({"roomId": room, "content": "by socket"})).await.unwrap();
    assert_eq!(ack["message"]["sender"], sender, "{ack}");
    // Other users see the user under this name, and find the user by it.
    let local = other.signup().await.unwrap();
    let found = other.get(&format!("/api/rooms/{room}"), &local).await.unwrap().expect(200).unwrap();
    assert_eq!(found["createdBy"], sender);
    let own = other.room(&local).await.unwrap();
    let path = format!("/api/rooms/{own}/members/@{username}");
    let member = one.call(Method::PUT, &path, Some(&local), Some(json!({}))).await.unwrap().expect(201).unwrap();
    assert_eq!(member["user"], sender);
    // A newer token of the same user, by which the socket stays connected.
    let newer = servers.main.account(&user, &username, &json!({"name": "Another Name", "jti": "2"}));
    assert_eq!(socket.emit("auth", json!({"token": newer.token})).await.unwrap()["ok"], true);
    let again = json!({"roomId": room, "content": "again"});
    let posted = other.post("/api/messages", &newer, again).await.unwrap().expect(201).unwrap();
    assert_eq!(posted["sender"], sender, "the username is made once");
}

async fn users_with_one_name_get_two_usernames(servers: &Servers) {
    let (first, name, username) = new_user();
    let second = format!("{first}-2");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let user = [&first, &second][n % 2];
        let (api, account) = (
            servers.ends()[n / 2 % 2].clone(),
            servers.main.account(user, &username, &json!({"name": name, "nonce": n})),
        );
        tasks.spawn(async move {
            let me = api.get("/api/auth/me", &account).await.unwrap().expect(200).unwrap();
            (account.id, me["username"].as_str().unwrap().to_owned())
        });
    }
    let mut seen = tasks.join_all().await;
    seen.sort_unstable();
    seen.dedup();
    let [one, other] = &seen[..] else { panic!("one username for each user: {seen:?}") };
    let (plain, longer) = if one.1 == username { (one, other) } else { (other, one) };
    assert_eq!(plain.1, username);
    let suffix = longer.1.strip_prefix(&format!("{username}-")).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(suffix.len() == 4 && suffix.bytes().all(|digit| matches!(digit, b'a'..=b'z' | b'2'..=b'7')), "{suffix}");
}

async fn a_logout_ends_the_token_everywhere(servers: &Servers) {
    let ([one, other], (user, name, username)) = (servers.ends(), new_user());
    // A token is revoked by its `jti`, or without one by itself.
    for claim in ["jti", "nonce"] {
        let token = |value: &str| {
            servers.main.account(&user, &username, &json!({"name": name, claim: format!("{user}-{value}")}))
        };
        let (ended, other_token) = (token("1"), token("2"));
        let mut sockets = Vec::new();
        for api in [&one, &other] {
            sockets.push(WebSocket::connect(&api.url, &ended.token).await.unwrap());
        }
        let mut stays = WebSocket::connect(&other.url, &other_token.token).await.unwrap();
        one.post("/api/auth/logout", &ended, Value::Null).await.unwrap().expect(200).unwrap();
        assert_eq!(status(&one, &ended).await, 401);
        for socket in &mut sockets {
            assert_eq!(socket.event("sessionEnded").await.unwrap()["code"], "logged_out");
        }
        rejected(&other, &ended).await;
        assert_eq!([status(&one, &other_token).await, status(&other, &other_token).await], [200, 200]);
        let room = one.room(&other_token).await.unwrap();
        assert_eq!(stays.emit("joinRoom", json!(room)).await.unwrap()["ok"], true);
    }
}

async fn a_key_of_another_issuer_is_rejected(servers: &Servers) {
    let (main, twin) = (&servers.main, &servers.twin);
    let (user, name, username) = new_user();
    let claims = main.claims(&user, &json!({"name": name}));
    let of_twin = twin.account(&user, "", &json!({"iss": main.name, "name": name})).token;
    let forged = [of_twin, Key::new("k").unwrap().sign(&claims), Key::new("unknown").unwrap().sign(&claims)];
    for api in servers.ends() {
        for token in &forged {
            let account = Account { id: main.id(&user), username: username.clone(), token: token.clone() };
            fails(&api.get("/api/auth/me", &account).await.unwrap(), 401, "unauthorized");
            let mut socket = WebSocket::open(&api.url).await.unwrap();
            socket.send(&connect(token)).await.unwrap();
            assert_eq!(socket.refused().await.unwrap()["data"]["code"], "unauthorized");
        }
        // The same user of two issuers is two users.
        let [one, other] = [main, twin].map(|issuer| issuer.account(&user, &username, &json!({"name": name})));
        let mut ids = Vec::new();
        for account in [&one, &other] {
            let me = api.get("/api/auth/me", account).await.unwrap().expect(200).unwrap();
            assert_eq!(me["id"], account.id);
            ids.push(account.id.clone());
        }
        assert_ne!(ids[0], ids[1]);
    }
}

async fn a_rotation_rejects_no_token(servers: &Servers) {
    let (issuer, (user, name, username)) = (&servers.rotating, new_user());
    let token = || issuer.account(&user, &username, &json!({"name": name}));
    let old = token();
    for api in servers.ends() {
        assert_eq!(status(&api, &old).await, 200);
    }
    issuer.rotate(Key::new("new").unwrap());
    let new = token();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (api, account) = (servers.ends()[n % 2].clone(), [&old, &new][n / 2 % 2].clone());
        tasks.spawn(async move { status(&api, &account).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|status| status == 200));
}

async fn passwords_and_sessions_are_those_of_the_issuer(servers: &Servers) {
    let ([one, other], (user, name, username)) = (servers.ends(), new_user());
    let ada = servers.main.account(&user, &username, &json!({"name": name}));
    assert_eq!(status(&one, &ada).await, 200);
    let change = json!({"currentPassword": PASSWORD, "newPassword": "staple battery horse"});
    for (method, path, body) in [
        (Method::GET, "/api/auth/sessions".to_owned(), None),
        (Method::DELETE, format!("/api/auth/sessions/{}", Uuid::now_v7()), None),
        (Method::POST, "/api/auth/logout-all".to_owned(), None),
        (Method::PUT, "/api/auth/password".to_owned(), Some(change)),
        (Method::DELETE, "/api/auth/me".to_owned(), Some(json!({"password": PASSWORD}))),
    ] {
        fails(&other.call(method, &path, Some(&ada), body).await.unwrap(), 403, "forbidden");
    }
    let login = json!({"username": username, "password": PASSWORD});
    let answer = other.call(Method::POST, "/api/auth/login", None, Some(login)).await.unwrap();
    fails(&answer, 401, "invalid_credentials");
    let signup = json!({"username": username, "password": PASSWORD});
    let answer = other.call(Method::POST, "/api/auth/signup", None, Some(signup)).await.unwrap();
    fails(&answer, 409, "username_taken");
    // What clients show is the user's own choice.
    let change = Some(json!({"displayName": "A. L."}));
    let changed = one.call(Method::PATCH, "/api/auth/me", Some(&ada), change).await.unwrap().expect(200).unwrap();
    assert_eq!((&changed["displayName"], &changed["username"]), (&json!("A. L."), &json!(username)));
}
