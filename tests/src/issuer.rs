//! The app's own issuer of tokens: it signs tokens for the app's users, and publishes its keys over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Account;

/// Time limit for a request for the keys.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Longest head of a request for the keys, in bytes.
const MAX_HEAD: usize = 8192;

/// A key that signs tokens.
pub struct Key {
    id: String,
    pair: Ed25519KeyPair,
}

impl Key {
    /// Creates a key with this id.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(id: &str) -> anyhow::Result<Arc<Self>> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no key"))?;
        Ok(Arc::new(Self { id: id.to_owned(), pair }))
    }

    /// Signs a token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "typ": "JWT", "kid": self.id})), part(claims));
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes())))
    }

    fn jwk(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.id, "x": x})
    }
}

/// An issuer whose server runs until the end of the process.
pub struct Issuer {
    /// The `iss` of its tokens.
    pub name: String,
    address: SocketAddr,
    /// The newest key first.
    keys: Arc<Mutex<Vec<Arc<Key>>>>,
}

impl Issuer {
    /// Starts an issuer with this name and this key.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(name: &str, key: Arc<Key>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, keys) = (listener.local_addr()?, Arc::new(Mutex::new(vec![key])));
        let published = keys.clone();
        // A thread of its own: tests share an issuer, but each test has its own runtime.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = answer(client, &published.lock());
            }
        });
        Ok(Self { name: name.to_owned(), address, keys })
    }

    /// Returns its entry in `CONFAB_ISSUERS`.
    pub fn entry(&self) -> Value {
        json!({
            "issuer": self.name,
            "audience": "chat",
            "jwksUrl": format!("http://{}/jwks", self.address),
            "algorithms": ["EdDSA"],
            "nameClaim": "name",
            "pictureClaim": "picture",
        })
    }

    /// Publishes another key, and signs with it from now on.
    pub fn rotate(&self, key: Arc<Key>) {
        self.keys.lock().insert(0, key);
    }

    /// Returns the claims of a valid token for this user, with the claims in `more`.
    pub fn claims(&self, user: &str, more: &Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut claims = json!({"iss": self.name, "aud": "chat", "sub": user, "iat": now, "exp": now + 3600});
        let more = more.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
        claims.as_object_mut().into_iter().for_each(|claims| claims.extend(more.clone()));
        claims
    }

    /// Signs a token for a user. The account has the name that Confab is expected to give it.
    pub fn account(&self, user: &str, username: &str, more: &Value) -> Account {
        let token = self.keys.lock()[0].sign(&self.claims(user, more));
        Account { id: self.id(user), username: username.to_owned(), token }
    }

    /// Returns the id that Confab computes for a user.
    pub fn id(&self, user: &str) -> String {
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, self.name.as_bytes());
        Uuid::new_v5(&namespace, user.as_bytes()).to_string()
    }
}

/// Answers any request with the keys.
fn answer(mut client: TcpStream, keys: &[Arc<Key>]) -> std::io::Result<()> {
    client.set_read_timeout(Some(REQUEST_LIMIT))?;
    client.set_write_timeout(Some(REQUEST_LIMIT))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD && client.read(&mut byte)? > 0 {
        head.extend(byte);
    }
    let body = json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    client.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_documentation() {
        let issuer = Issuer::start("https://id.example.com/", Key::new("k").unwrap()).unwrap();
        assert_eq!(issuer.id("user_123"), "90b98074-64ad-5519-b800-eedf19d458d9");
    }
}
