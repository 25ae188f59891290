//! The services as docs/grpc.md shows them: its commands are run unmodified, and their output is compared with the
//! document's.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use confab_tests::cluster::Cluster;
use confab_tests::guard::Guard;
use confab_tests::plan::{Plan, Role};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world;

const DOCUMENT: &str = include_str!("../../../docs/grpc.md");

/// A command in the document, and the answer that it shows, if any.
struct Step {
    command: String,
    answer: Option<Value>,
}

/// Returns the commands under these headings, in order.
fn steps(headings: &[&str]) -> Vec<Step> {
    let sections =
        DOCUMENT.split("\n## ").filter(|section| headings.contains(&section.lines().next().unwrap_or_default()));
    let mut steps = Vec::<Step>::new();
    for section in sections {
        // Every second piece is a code block; its first line names the language.
        for block in section.split("```").skip(1).step_by(2) {
            match block.split_once('\n').unwrap() {
                ("sh", command) => steps.push(Step { command: command.into(), answer: None }),
                ("json", answer) => steps.last_mut().unwrap().answer = Some(serde_json::from_str(answer).unwrap()),
                _ => {}
            }
        }
    }
    steps
}

/// Returns whether an answer matches the shown one, in which `…` matches any text.
fn agrees(shown: &Value, said: &Value) -> bool {
    match (shown, said) {
        (Value::String(shown), Value::String(said)) => match shown.split_once('…') {
            Some((begin, end)) => said.starts_with(begin) && said.ends_with(end),
            None => shown == said,
        },
        (Value::Array(shown), Value::Array(said)) => {
            shown.len() == said.len() && shown.iter().zip(said).all(|(shown, said)| agrees(shown, said))
        }
        (Value::Object(shown), Value::Object(said)) => {
            shown.len() == said.len()
                && shown.iter().all(|(name, shown)| said.get(name).is_some_and(|said| agrees(shown, said)))
        }
        _ => shown == said,
    }
}

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs the commands in one shell, on this cluster instead of the one of `make cluster-up`.
async fn follow(steps: &[Step], cluster: &Cluster) -> anyhow::Result<()> {
    let guard = Guard::new("grpc")?;
    let said = |step: usize, what: &str| guard.directory().join(format!("{step}.{what}"));
    let mut script = String::new();
    for (n, step) in steps.iter().enumerate() {
        script += &format!(
            "{{\n{}}} > '{}' 2>&1\necho $? > '{}'\n",
            step.command,
            said(n, "out").display(),
            said(n, "code").display()
        );
    }
    for role in Role::SERVICES {
        let documented = Plan::fixed(".run", 2, 2).url((role, 1));
        ensure!(script.contains(&documented), "the document does not name {documented}");
        script = script.replace(&documented, &cluster.plan.url((role, 1)));
    }
    let (documented, certificates) = ("TLS=.run/tls/gateway", cluster.plan.certificates().join("gateway"));
    ensure!(script.contains(documented), "the document does not contain {documented}");
    script = script.replace(documented, &format!("TLS='{}'", certificates.display()));
    let ended = Command::new("bash").arg("-c").arg(&script).current_dir(checkout()).kill_on_drop(true).status().await?;
    ensure!(ended.success(), "bash ends with {ended}");
    for (n, Step { command, answer }) in steps.iter().enumerate() {
        let (out, code) = (std::fs::read_to_string(said(n, "out"))?, std::fs::read_to_string(said(n, "code"))?);
        let is_error =
            answer.as_ref().is_some_and(|answer| answer.get("message").is_some() && answer.get("code").is_some());
        ensure!((code.trim() == "0") != is_error, "{command}ends with {code}{out}");
        if let Some(shown) = answer {
            let said = serde_json::from_str(&out).with_context(|| format!("{command}answers {out}"))?;
            ensure!(agrees(shown, &said), "{command}answers {said:#}, not {shown:#}");
        }
    }
    Ok(())
}

/// Returns the services in the reflection of a service, as a gateway sees them, or its error.
async fn listed(cluster: &Cluster, role: Role) -> anyhow::Result<Result<Vec<String>, String>> {
    let mut buf = Command::new(checkout().join(".tools/bin/buf"));
    buf.arg("curl");
    let certificates = cluster.plan.certificates().join("gateway");
    for (option, file) in [("--cacert", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")] {
        buf.arg(option).arg(certificates.join(file));
    }
    let (name, url) = (format!("{}.confab", role.name()), cluster.plan.url((role, 1)));
    buf.args(["--servername", &name, "--protocol", "grpc", "--list-services", &url]);
    let answer = buf.output().await.context("scripts/ensure-buf.sh installs buf")?;
    Ok(if answer.status.success() {
        Ok(String::from_utf8(answer.stdout)?.lines().map(str::to_owned).collect())
    } else {
        Err(String::from_utf8(answer.stderr)?)
    })
}

#[tokio::test]
async fn documented_commands_work_unmodified_and_repeatedly() {
    let steps = steps(&["Try it"]);
    assert!(steps.iter().filter(|step| step.answer.is_some()).count() >= 6, "the examples are not found");
    let cluster = world::cluster().await;
    for _ in 0..2 {
        follow(&steps, cluster).await.unwrap();
    }
}

#[test]
fn different_answer_is_detected() {
    let shown = json!({"id": "…", "token": "eyJ…", "sender": {"name": "ada"}, "events": [1]});
    let said = |token, name, events| json!({"id": "x", "token": token, "sender": {"name": name}, "events": events});
    assert!(agrees(&shown, &said("eyJx", "ada", json!([1]))));
    for another in [
        said("x", "ada", json!([1])),
        said("eyJx", "bob", json!([1])),
        said("eyJx", "ada", json!([1, 2])),
        json!({"id": "x"}),
    ] {
        assert!(!agrees(&shown, &another), "{another}");
    }
}

#[tokio::test]
async fn reflection_is_optional_and_lists_the_services() {
    let (without, with) =
        (world::cluster().await, Cluster::scratch(1, 1, &[("CONFAB_GRPC_REFLECTION", "true")]).await.unwrap());
    for (role, service) in
        Role::SERVICES.into_iter().zip(["AuthService", "RoomService", "MessageService", "FileService"])
    {
        let refusal = listed(without, role).await.unwrap().unwrap_err();
        assert!(refusal.contains("unimplemented"), "{refusal}");
        let there = listed(&with, role).await.unwrap().unwrap();
        let own = format!("confab.{}.v1.{service}", role.name());
        assert_eq!(there, [own.as_str(), "grpc.health.v1.Health"]);
    }
    let mut steps = steps(&["Try it", "Reflection"]);
    let (first, last) = (steps.remove(0), steps.pop().unwrap());
    assert!(last.command.contains("Health/Check"));
    follow(&[first, last], &with).await.unwrap();
}

/// Calls on behalf of another user than that of the token, in the shell of the document. Each line fails unless the
/// service rejects the call.
const FORGERIES: &str = r#"
set -e
ended() {
  for attempt in $(seq 100); do
    if "$@" 2>&1 | grep -q unauthenticated; then return 0; fi
    sleep 0.1
  done
  return 1
}
rejects() { grep -q "$1" || { echo "not $1"; exit 1; }; }
OTHER='{"id": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e01", "username": "other.by.grpc"}'
signup=$(call $AUTH confab.auth.v1.AuthService/Signup \
  '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e01", "username": "other.by.grpc", "password": "correct horse battery"}')
TOKEN=$(echo "$signup" | grep -o '"token": "[^"]*"' | cut -d '"' -f 4)
mine='{"id": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", "caller": '"$OTHER"'}'
forged='{"id": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", "caller": '"$ADA"'}'
event='"id": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e02", "roomId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", "content": "?"'
file='{"id": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e03", "caller": '"$ADA"'}'
as_user $ROOM confab.room.v1.RoomService/GetRoom "$mine"
as_user $ROOM confab.room.v1.RoomService/GetRoom "$forged" 2>&1 | rejects permission_denied
as_user $ROOM confab.room.v1.RoomService/DeleteRoom "$forged" 2>&1 | rejects permission_denied
as_user $ROOM confab.room.v1.RoomService/ListOwnRooms '{"limit": 1, "caller": '"$ADA"'}' 2>&1 |
  rejects permission_denied
as_user $ROOM confab.room.v1.RoomService/FilterAcquaintances '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01"}' 2>&1 |
  rejects permission_denied
as_user $FILE confab.file.v1.FileService/DeleteFile "$file" 2>&1 | rejects permission_denied
as_user $MESSAGE confab.message.v1.MessageService/Append \
  '{"events": [{'"$event"', "kind": "KIND_MESSAGE", "sender": '"$ADA"'}]}' | rejects forbidden
as_user $AUTH confab.auth.v1.AuthService/UpdateProfile \
  '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01", "displayName": "?"}' 2>&1 | rejects permission_denied
call $ROOM confab.room.v1.RoomService/GetRoom "$mine" 2>&1 | rejects unauthenticated
TOKEN="${TOKEN%?????}AAAAA" as_user $ROOM confab.room.v1.RoomService/GetRoom "$mine" 2>&1 | rejects unauthenticated
call $MESSAGE confab.message.v1.MessageService/Append \
  '{"events": [{'"$event"', "kind": "KIND_MESSAGE", "sender": '"$OTHER"'}]}' | rejects unauthorized
call $MESSAGE confab.message.v1.MessageService/ListEvents \
  '{"roomId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", "readers": ["0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01"]}' 2>&1 |
  rejects unauthenticated
call $AUTH confab.auth.v1.AuthService/IssueToken '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01",
  "actor": {"keyId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01"}}' 2>&1 | rejects unauthenticated
as_user $AUTH confab.auth.v1.AuthService/EndSessions '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e01"}'
ended as_user $ROOM confab.room.v1.RoomService/GetRoom "$mine"
ended as_user $AUTH confab.auth.v1.AuthService/ListSessions '{"userId": "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0e01"}'
set +e
"#;

#[tokio::test]
async fn services_reject_calls_on_behalf_of_another_user() {
    let mut steps = steps(&["Try it"]);
    // The functions, a user and a room.
    steps.truncate(3);
    steps.push(Step { command: FORGERIES.into(), answer: None });
    let documented = [Role::Room, Role::Message, Role::File, Role::Auth];
    assert!(documented.into_iter().all(|role| steps[0].command.contains(&Plan::fixed(".run", 2, 2).url((role, 1)))));
    follow(&steps, world::cluster().await).await.unwrap();
}
