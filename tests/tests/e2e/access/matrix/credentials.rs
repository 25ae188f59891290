//! The rows about credentials: `buf` calls the services of the cluster as a gateway, with the credentials of users and
//! server keys.

use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use confab_tests::api::{Account, Api, PASSWORD};
use confab_tests::cluster::Cluster;
use confab_tests::plan::Role;
use serde_json::{Value, json};
use tokio::process::Command;

use super::callers::SCOPES;
use super::grpc::services;
use super::people::text;
use super::servers::Servers;
use super::table::Row;

/// The columns of the section, in order. The user's own calls are the last ones, because they may end the session.
pub const CALLERS: [&str; 7] = ["none", "bad", "other", "key", "key+", "key-", "user"];

/// The directory with the contract and with `buf`.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The numbers of gRPC statuses.
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;
/// Errors of a service that has accepted the credential: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION and
/// OUT_OF_RANGE.
const ACCEPTED: [i32; 4] = [3, 5, 9, 11];

/// The cluster, and the credentials that all rows share.
pub struct Credentials {
    cluster: &'static Cluster,
    api: Api,
    other: Account,
    key: String,
    key_id: String,
}

impl Credentials {
    /// Creates another user and a server key.
    ///
    /// # Errors
    /// When the server rejects it.
    pub async fn of(servers: &'static Servers) -> anyhow::Result<Arc<Self>> {
        let api = Api::new(&servers.urls[0]);
        let other = api.signup().await?;
        let created = api.post("/api/admin/keys", &servers.key, json!({"scopes": SCOPES})).await?.expect(201)?;
        let (key, key_id) = (text(&created["key"])?, text(&created["id"])?);
        Ok(Arc::new(Self { cluster: servers.programs(), api, other, key, key_id }))
    }

    /// Makes the call of a row with each credential, and compares the answers.
    ///
    /// # Errors
    /// When an answer is another one.
    pub async fn test(self: Arc<Self>, row: Row) -> anyhow::Result<()> {
        self.tested(&row).await.context(row.request)
    }

    async fn tested(&self, row: &Row) -> anyhow::Result<()> {
        let (method, body) = call(&row.request).context("a method has a body")?;
        let role = *services(method).first().context("no service has this method")?;
        let user = self.api.signup().await?;
        let body = self.filled(body, &user).await?;
        let mut wrong = Vec::new();
        for (caller, expected) in CALLERS.iter().zip(&row.lines[0].cells) {
            let metadata = self.metadata(caller, &user);
            let answer = outcome(&self.answer(role, method, &body, &metadata).await?);
            let answer = answer.with_context(|| (*caller).to_owned())?;
            if answer != expected {
                wrong.push(format!("{caller}: expected {expected}, got {answer}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }

    /// Fills the parts in braces in.
    async fn filled(&self, body: &str, user: &Account) -> anyhow::Result<String> {
        let mut body = body.to_owned();
        if body.contains("{session}") {
            let listed = self.api.get("/api/auth/sessions", user).await?.expect(200)?;
            body = body.replace("{session}", &text(&listed["items"][0]["id"])?);
        }
        for (part, value) in [("{user}", &*user.id), ("{key}", &*self.key_id), ("{password}", PASSWORD)] {
            body = body.replace(part, value);
        }
        Ok(body)
    }

    /// Returns the metadata of a call on behalf of a user.
    fn metadata(&self, caller: &str, user: &Account) -> Vec<String> {
        let of_user = |token: &str| vec![format!("confab-user: {token}")];
        let of_key =
            |user: &Account| vec![format!("confab-key: {}", self.key), format!("confab-acting-for: {}", user.id)];
        match caller {
            // The signature is at the end.
            "bad" => of_user(&format!("{}AAAAA", &user.token[..user.token.len() - 5])),
            "other" => of_user(&self.other.token),
            "user" => of_user(&user.token),
            "key" => vec![format!("confab-key: {}", self.key)],
            "key+" => of_key(user),
            "key-" => of_key(&self.other),
            _ => Vec::new(),
        }
    }

    async fn answer(&self, role: Role, method: &str, body: &str, metadata: &[String]) -> anyhow::Result<Output> {
        let (url, certificates) = (self.cluster.plan.url((role, 1)), self.cluster.plan.certificates().join("gateway"));
        let mut buf = Command::new(format!("{CHECKOUT}/.tools/bin/buf"));
        buf.current_dir(CHECKOUT).args(["curl", "--protocol", "grpc", "--schema", "proto", "--data", body]);
        for (option, file) in [("--cacert", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")] {
            buf.arg(option).arg(certificates.join(file));
        }
        buf.args(["--servername", &format!("{}.confab", role.name())]);
        for line in metadata {
            buf.args(["--header", line]);
        }
        buf.arg(format!("{url}/{method}")).kill_on_drop(true);
        buf.output().await.context("scripts/ensure-buf.sh installs buf")
    }
}

/// Returns the method and the body of a row.
pub fn call(request: &str) -> Option<(&str, &str)> {
    request.split_once(' ')
}

/// Returns the word of the table for an answer. `buf` exits with eight times the number of the status.
fn outcome(output: &Output) -> anyhow::Result<&'static str> {
    let refused = || {
        let answer = serde_json::from_slice::<Value>(&output.stdout).ok()?;
        Some(answer.pointer("/outcomes/0/refusal/code")?.as_str()?.to_owned())
    };
    Ok(match output.status.code() {
        Some(0) => match refused().as_deref() {
            Some("forbidden") => "no",
            Some("unauthorized") => "401",
            _ => "yes",
        },
        Some(code) if code == 8 * PERMISSION_DENIED => "no",
        Some(code) if code == 8 * UNAUTHENTICATED => "401",
        Some(code) if ACCEPTED.iter().any(|status| code == 8 * status) => "yes",
        code => bail!("buf exits with {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    })
}

#[test]
fn answers_of_buf_have_words() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    let word = |code: i32, stdout: &str| {
        let status = ExitStatus::from_raw(code << 8);
        outcome(&Output { status, stdout: stdout.into(), stderr: Vec::new() })
    };
    let refusal = |code: &str| json!({"outcomes": [{"refusal": {"code": code}}]}).to_string();
    for (code, stdout, expected) in [
        (0, String::new(), "yes"),
        (0, refusal("not_found"), "yes"),
        (0, refusal("forbidden"), "no"),
        (0, refusal("unauthorized"), "401"),
        (24, String::new(), "yes"),
        (56, String::new(), "no"),
        (128, String::new(), "401"),
    ] {
        assert_eq!(word(code, &stdout).unwrap(), expected, "{code} {stdout}");
    }
    assert!(word(1, "").is_err() && word(112, "").is_err());
}
