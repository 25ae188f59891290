//! The accounts and server keys with which the callers make their requests.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use confab_tests::api::{Account, Api, PASSWORD, unique};
use confab_tests::form::Form;
use confab_tests::issuer::Issuer;
use confab_tests::server_keys::holder;
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::callers::{Caller, Part, SCOPES};
use super::servers::Servers;

/// How long until all gateways reject the tokens of a suspended user.
const SOON: Duration = Duration::from_secs(5);
/// The beginning of a PNG file.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";

pub struct People {
    parts: HashMap<Part, Account>,
    keys: HashMap<&'static str, Account>,
    /// The member who is the target of changes.
    pub target: Account,
    pub newcomer: Account,
    /// The key with all scopes.
    pub root: Account,
    /// The target's files without a room: one is the picture, the other is not.
    pub picture: String,
    pub theirs: String,
    /// The account whose password and refresh token all callers know.
    pub login: String,
    pub refresh: String,
}

/// What a request contains to show who makes it.
pub struct Sent<'a> {
    pub token: Option<&'a str>,
    /// `Confab-User`.
    pub user: Option<&'a str>,
}

impl People {
    /// Creates all accounts at one end, and waits until both ends reject the suspended one.
    pub async fn at(one: &Api, other: &Api, servers: &Servers) -> anyhow::Result<Self> {
        let mut parts = HashMap::new();
        for part in Part::ALL {
            let account = if part.is_foreign() { foreign(&servers.issuer) } else { one.signup().await? };
            // The first request with a token of an issuer creates the account.
            one.get("/api/auth/me", &account).await?.expect(200)?;
            parts.insert(part, account);
        }
        let (target, newcomer, root) = (one.signup().await?, one.signup().await?, servers.key.clone());
        let mut keys = HashMap::new();
        for scope in SCOPES {
            let created = one.post("/api/admin/keys", &root, json!({"scopes": [scope]})).await?.expect(201)?;
            keys.insert(scope, holder(created["key"].as_str().context("a key")?));
        }
        let form = Form::new().file("a.png", "image/png", PNG);
        let picture = text(&one.upload(&target, form).await?.expect(201)?["id"])?;
        let change = Some(json!({"avatarFileId": picture}));
        one.call(Method::PATCH, "/api/auth/me", Some(&target), change).await?.expect(200)?;
        let theirs = text(&one.share(&target, None, "theirs.txt", b"theirs").await?["id"])?;
        let login = unique("login");
        let new = json!({"username": login, "password": PASSWORD, "refresh": true});
        let session = one.enter("/api/auth/signup", new).await?.expect(201)?;
        let refresh = text(&session["refreshToken"])?;
        let suspended = &parts[&Part::Suspended];
        let path = format!("/api/admin/users/{}/suspend", suspended.id);
        one.call(Method::POST, &path, Some(&root), None).await?.expect(204)?;
        for api in [one, other] {
            let rejected = async || (api.get("/api/auth/me", suspended).await.ok()?.status == 401).then_some(());
            eventually("the suspended user is rejected", SOON, rejected).await?;
        }
        Ok(Self { parts, keys, target, newcomer, root, picture, theirs, login, refresh })
    }

    pub fn of(&self, part: Part) -> &Account {
        &self.parts[&part]
    }

    /// Returns the account with which the caller can create objects.
    pub fn live(&self, caller: Caller) -> Option<&Account> {
        caller.part().filter(|part| *part != Part::Suspended).map(|part| self.of(part))
    }

    pub fn sent(&self, caller: Caller) -> Sent<'_> {
        let token = match caller {
            Caller::Anonymous => None,
            Caller::User(part) => Some(&self.of(part).token),
            Caller::Key(scope) | Caller::Acting(scope, _) => Some(&self.keys[scope].token),
        };
        let user = if let Caller::Acting(_, part) = caller { Some(&*self.of(part).id) } else { None };
        Sent { token: token.map(|token| &**token), user }
    }
}

/// Returns a new user of the issuer.
pub fn foreign(issuer: &Issuer) -> Account {
    let user = unique("user");
    issuer.account(&user, &user, &json!({"name": user}))
}

/// Returns a text of an answer.
///
/// # Errors
/// When it is not there.
pub fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).context("a text is missing")
}
