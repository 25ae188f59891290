//! The program's object store at start: the sources of its credentials, and the reports about a store that does not
//! work.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use confab_common::testing::{self, Authority, Front, S3};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use uuid::Uuid;

const LOG_LINE_LIMIT: Duration = Duration::from_secs(60);

/// A file service with a new bucket.
struct Program {
    _process: Child,
    log: Lines<BufReader<ChildStderr>>,
    admin: u16,
}

impl Program {
    /// Starts the service with these variables.
    async fn start(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let directory = testing::directory();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_confab-file"));
        command
            .env_clear()
            .env("HOME", &directory)
            .current_dir(directory)
            .args(["--listen=127.0.0.1:0", "--log-format=json"]);
        command.arg(format!("--admin-listen=127.0.0.1:{admin}")).arg(format!("--objects=s3://test-{}", Uuid::now_v7()));
        command.arg(format!("--s3-endpoint={endpoint}")).envs(variables.iter().copied());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { _process: process, log, admin }
    }

    /// Waits for a line of the log that contains this text.
    async fn wait_for_line(&mut self, what: &str) -> String {
        let mut said = Vec::new();
        let saying = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                if line.contains(what) {
                    return Some(line);
                }
                said.push(line);
            }
            None
        };
        let line = timeout(LOG_LINE_LIMIT, saying).await.unwrap_or_default();
        line.unwrap_or_else(|| panic!("not logged: {what}\n{}", said.join("\n")))
    }

    async fn readyz(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// Starts a server that answers every request with this text.
async fn answering(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut request).await.unwrap_or(0) > 0
            {}
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

const OWNS: &str = "this installation now owns the object store";

#[tokio::test]
async fn credentials_are_found_in_amazons_places() {
    let S3 { endpoint, key, secret } = testing::s3();
    let secret = secret.expose();
    let file = |name: &str, text: &str| {
        let path: PathBuf = testing::directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // The answer of the agent of a container or a pod.
    let issued = format!(
        r#"{{"AccessKeyId": "{key}", "SecretAccessKey": "{secret}", "Token": "", "Expiration": "2099-01-01T00:00:00Z"}}"#
    );
    // The answer of Amazon's token service.
    let assumed = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>\
         <AssumedRoleId>r:s</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}\
         </SecretAccessKey><SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    let (agent, tokens) = (answering(issued).await, answering(assumed).await);
    let profile =
        file("credentials", &format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"));
    let token = file("token", "a token of Kubernetes");
    for variables in [
        &[("AWS_ACCESS_KEY_ID", &*key), ("AWS_SECRET_ACCESS_KEY", secret)][..],
        &[("AWS_SHARED_CREDENTIALS_FILE", &profile)],
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent)],
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ("AWS_ENDPOINT_URL_STS", &tokens),
        ],
        &[("CONFAB_S3_ACCESS_KEY_ID", &*format!("{key}\n")), ("CONFAB_S3_SECRET_ACCESS_KEY", &*format!("{secret}\n"))],
    ] {
        Program::start(&endpoint, variables).await.wait_for_line(OWNS).await;
    }
}

#[tokio::test]
async fn store_faults_are_reported_at_start() {
    let S3 { endpoint, key, secret } = testing::s3();
    let secret = secret.expose();
    let pair = |key: &str, secret: &str| {
        [("CONFAB_S3_ACCESS_KEY_ID", key.to_owned()), ("CONFAB_S3_SECRET_ACCESS_KEY", secret.to_owned())]
    };
    let none = ("AWS_EC2_METADATA_DISABLED", "true".to_owned());
    for (endpoint, variables, why) in [
        (&*endpoint, &pair("stranger", "hunter2")[..], "the store does not accept the access key"),
        (&endpoint, &pair(&key, "hunter2"), "the secret does not match the access key"),
        ("http://127.0.0.1:1", &pair(&key, secret), "the store is unreachable"),
        (&endpoint, &[none], "there are no credentials"),
    ] {
        let variables = variables.iter().map(|(name, value)| (*name, &**value)).collect::<Vec<_>>();
        let mut program = Program::start(endpoint, &variables).await;
        let line = program.wait_for_line("file storage (CONFAB_OBJECTS) does not work").await;
        let readyz = program.readyz().await;
        assert!(line.contains(why) && readyz.contains(&format!("; file storage: {why}")), "{line}\n{readyz}");
        assert!(!line.contains("hunter2") && !readyz.contains("hunter2"), "{line}\n{readyz}");
    }
}

#[tokio::test]
async fn private_authority_is_trusted_in_addition() {
    let S3 { endpoint, key, secret } = testing::s3();
    let (authority, server) = (Authority::new(), endpoint.strip_prefix("http://").unwrap());
    let front = Front::of(server, &authority.issue("DNS:localhost")).await;
    let (endpoint, file) = (format!("https://localhost:{}", front.port()), authority.certificate());
    let keys = [("CONFAB_S3_ACCESS_KEY_ID", &*key), ("CONFAB_S3_SECRET_ACCESS_KEY", secret.expose())];
    let stranger = Program::start(&endpoint, &keys).await.wait_for_line("does not work").await;
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let trusting = [&keys[..], &[("CONFAB_CA_FILE", file.to_str().unwrap())]].concat();
    Program::start(&endpoint, &trusting).await.wait_for_line(OWNS).await;
}
