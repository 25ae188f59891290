//! The parts in braces of a request: the room, the files and the accounts that it is about.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use confab_tests::api::{Account, Api, PASSWORD, unique};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::callers::{CALLERS, Caller, Part};
use super::people::text;
use super::stage::{Place, Stage};
use super::table::Kind;

/// The parts that a room has.
const OF_A_ROOM: [&str; 4] = ["room", "name", "file", "mine"];
/// The numbers of messages in a room.
const NUMBERS: [&str; 2] = ["seq", "ownseq"];
/// The parts that are about a new member of the room.
const OF_A_FELLOW: [&str; 2] = ["fellow", "nick"];

/// The values of the parts.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    values: BTreeMap<String, String>,
}

/// A request that needs objects.
pub struct Needs<'a> {
    /// The whole request.
    pub request: &'a str,
    pub kind: Kind,
    pub column: usize,
    /// Whether the request changes its objects, which no other request uses then.
    pub changes: bool,
    /// The account of the caller, if it has one.
    pub account: Option<&'a Account>,
}

impl Objects {
    /// Creates what a request needs.
    ///
    /// # Errors
    /// When the server rejects it, or a part is unknown.
    pub async fn of(stage: &Stage, api: &Api, needs: &Needs<'_>) -> anyhow::Result<Self> {
        let mut objects = Self::default();
        let parts = parts(needs.request);
        let has_one_of = |names: &[&str]| parts.iter().any(|part| names.contains(&&**part));
        if [&OF_A_ROOM[..], &NUMBERS, &OF_A_FELLOW].into_iter().any(has_one_of) {
            ensure!(needs.kind != Kind::Any, "a room needs a line for each kind");
            let Place { room, name, file, mine, seq, own_seq } = if needs.changes {
                stage.new_place(api, needs.kind, CALLERS[needs.column].1).await?
            } else {
                stage.place(api, needs.kind, needs.column).await?.clone()
            };
            if has_one_of(&OF_A_FELLOW) {
                let fellow = new_fellow(stage, api, &room).await.context("a new member")?;
                objects.values.extend(OF_A_FELLOW.map(str::to_owned).into_iter().zip(fellow));
            }
            let values = OF_A_ROOM.map(str::to_owned).into_iter().zip([room, name, file, mine]);
            objects.values.extend(values);
            objects
                .values
                .extend(NUMBERS.map(str::to_owned).into_iter().zip([seq, own_seq].map(|seq| seq.to_string())));
        }
        for part in parts {
            if objects.values.contains_key(&part) {
                continue;
            }
            let value = value(stage, api, needs, &part).await.with_context(|| format!("{{{part}}}"))?;
            objects.values.insert(part, value);
        }
        Ok(objects)
    }

    /// Fills the values in.
    pub fn fill(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (part, value)| text.replace(&format!("{{{part}}}"), value))
    }

    pub fn get(&self, part: &str) -> Option<&str> {
        self.values.get(part).map(String::as_str)
    }

    /// Returns the same objects with a room, files and a member that do not exist; `None` when there is no room. The
    /// numbers of messages stay.
    pub fn unknown(&self) -> Option<Self> {
        let mut values = self.values.clone();
        values.get("room")?;
        for part in OF_A_ROOM.into_iter().chain(["theirs", "fellow"]) {
            if let Some(value) = values.get_mut(part) {
                *value = Uuid::now_v7().to_string();
            }
        }
        Some(Self { values })
    }

    /// Returns the ids of the room, of its files and of its new member.
    pub fn ids(&self) -> Vec<String> {
        let parts = OF_A_ROOM.into_iter().chain(["fellow"]);
        parts.filter_map(|part| self.values.get(part).cloned()).collect()
    }
}

async fn value(stage: &Stage, api: &Api, needs: &Needs<'_>, part: &str) -> anyhow::Result<String> {
    let (people, caller) = (&stage.people, CALLERS[needs.column].1);
    let new_id = || Uuid::new_v4().to_string();
    Ok(match part {
        "target" => people.target.id.clone(),
        "newcomer" => people.newcomer.id.clone(),
        "owner" => people.of(Part::Owner).id.clone(),
        "opposite" => needs.kind.opposite().into(),
        "theirs" => people.theirs.clone(),
        "picture" => people.picture.clone(),
        "login" => people.login.clone(),
        "password" => PASSWORD.into(),
        "refresh" => people.refresh.clone(),
        "another" => people.newcomer.token.clone(),
        "unique" => unique("matrix"),
        "id" => new_id(),
        "loose" => match people.live(caller) {
            Some(account) => text(&api.share(account, None, "loose.txt", b"loose").await?["id"])?,
            None => people.theirs.clone(),
        },
        // An unknown object, where the request must change nothing.
        "user" | "key" | "session" if !needs.changes => new_id(),
        "user" => {
            let [id, _] = new_user(stage, api).await?;
            id
        }
        "key" => {
            let new = json!({"scopes": ["rooms"]});
            text(&api.post("/api/admin/keys", &people.root, new).await?.expect(201)?["id"])?
        }
        "session" => session(stage, api, needs.account.context("the caller has no account")?).await?,
        "token" => token(stage, api, caller, needs.account).await?,
        _ => bail!("is unknown"),
    })
}

/// Creates a user without a password. Returns the id and the name.
async fn new_user(stage: &Stage, api: &Api) -> anyhow::Result<[String; 2]> {
    let (id, name) = (Uuid::new_v4().to_string(), unique("matrix"));
    let (path, new) = (format!("/api/admin/users/{id}"), json!({"username": name}));
    api.call(Method::PUT, &path, Some(&stage.people.root), Some(new)).await?.expect(201)?;
    Ok([id, name])
}

/// Creates a user who is a member of this room and of no other. Returns the id and the name.
async fn new_fellow(stage: &Stage, api: &Api, room: &str) -> anyhow::Result<[String; 2]> {
    let [id, name] = new_user(stage, api).await?;
    let member = format!("/api/rooms/{room}/members/{id}");
    api.call(Method::PUT, &member, Some(stage.people.of(Part::Owner)), None).await?.expect(201)?;
    Ok([id, name])
}

/// Opens another session of the account. Returns its id.
async fn session(stage: &Stage, api: &Api, account: &Account) -> anyhow::Result<String> {
    let other = stage.login(api, account).await?;
    let listed = api.get("/api/auth/sessions", &other).await?.expect(200)?;
    let current = listed["items"].as_array().into_iter().flatten().find(|session| session["current"] == true);
    text(&current.context("no current session")?["id"])
}

/// Returns a new token of the caller.
async fn token(stage: &Stage, api: &Api, caller: Caller, account: Option<&Account>) -> anyhow::Result<String> {
    let (Some(account), Some(part)) = (account, caller.part()) else { return Ok("none".into()) };
    if part == Part::Suspended {
        return Ok("none".into());
    }
    if part.is_foreign() {
        // The user's id at the issuer is the username.
        let (name, more) = (&account.username, json!({"name": account.username, "jti": unique("token")}));
        return Ok(stage.issuer.account(name, name, &more).token);
    }
    let new = json!({"userId": account.id});
    text(&api.post("/api/admin/tokens", &stage.people.root, new).await?.expect(200)?["token"])
}

/// Returns the parts in braces.
pub fn parts(request: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for piece in request.split('{').skip(1) {
        let part = piece.split_once('}').map(|(part, _)| part);
        let is_part = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
        if let Some(part) = part.filter(is_part).map(str::to_owned)
            && !parts.contains(&part)
        {
            parts.push(part);
        }
    }
    parts
}

#[test]
fn parts_of_a_request() {
    let request = r#"POST /x/{room}/{room} {"a":"{file}","b":{"c":{}},"d":"{x y}"}"#;
    assert_eq!(parts(request), ["room", "file"]);
    let values = [("room".to_owned(), "1".to_owned()), ("theirs".to_owned(), "2".to_owned())];
    let objects = Objects { values: values.into() };
    assert_eq!(objects.fill(r#"{"{room}{theirs}{other}"}"#), r#"{"12{other}"}"#);
    let unknown = objects.unknown().unwrap();
    assert!(unknown.get("room") != Some("1") && unknown.get("theirs") != Some("2"), "{unknown:?}");
}
