use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::testing::directory;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    issuers: IssuersConfig,
}

/// An entry with these members changed; `null` removes one.
fn entry(changes: Value) -> Value {
    let mut entry = json!({
        "issuer": "https://id.example.com/",
        "audience": "chat",
        "jwksUrl": "https://id.example.com/jwks",
        "algorithms": ["RS256"],
    });
    for (name, value) in changes.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    entry
}

fn with(text: &str) -> anyhow::Result<Vec<Entry>> {
    let config = Program::try_parse_from(["program", "--issuers", text])?.issuers;
    config.check()?;
    config.entries()
}

fn error(text: &str) -> String {
    format!("{:#}", with(text).unwrap_err())
}

#[test]
fn no_issuers_are_the_default() {
    assert!(Program::try_parse_from(["program"]).unwrap().issuers.entries().unwrap().is_empty());
    for none in ["", " ", "[]", " [ ] "] {
        assert!(with(none).unwrap().is_empty(), "{none:?}");
    }
}

#[test]
fn optional_members_have_defaults() {
    let read = with(&json!([entry(json!({}))]).to_string()).unwrap();
    let only = &read[0];
    assert_eq!((&*only.issuer, &only.audience[..]), ("https://id.example.com/", &["chat".to_owned()][..]));
    assert_eq!((only.user_claim.as_str(), only.max_life), ("sub", 24 * 3600));
    assert_eq!((&only.name_claim, &only.picture_claim), (&None, &None));
    let other = entry(json!({
        "issuer": "other",
        "audience": ["a", "b"],
        "algorithms": ["EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        "userClaim": "uid", "nameClaim": "name", "pictureClaim": "picture", "maxTtl": "8760h",
    }));
    let read = with(&json!([entry(json!({})), other]).to_string()).unwrap();
    let other = &read[1];
    assert_eq!((other.place, other.audience.len(), other.algorithms.len()), (1, 2, 9));
    assert_eq!((other.user_claim.as_str(), other.max_life), ("uid", 8760 * 3600));
    assert_eq!((other.name_claim.as_deref(), other.picture_claim.as_deref()), (Some("name"), Some("picture")));
}

#[test]
fn errors_name_the_entry_and_the_field() {
    for (changes, field) in [
        (json!({"issuer": ""}), "`issuer` must not be empty"),
        (json!({"issuer": "x".repeat(2049)}), "`issuer` must have at most 2048 bytes"),
        (json!({"issuer": "a\0b"}), "`issuer` must have at most 2048 bytes and no control characters"),
        (json!({"issuer": "confab"}), "`issuer` must not be \"confab\""),
        (json!({"issuer": null}), "missing field `issuer`"),
        (json!({"issuer": 1}), "issuer: invalid type: integer `1`, expected a string"),
        (json!({"audience": null}), "missing field `audience`"),
        (json!({"audience": ""}), "`audience` must"),
        (json!({"audience": []}), "`audience` must"),
        (json!({"audience": ["chat", ""]}), "`audience` must"),
        (json!({"audience": 1}), "audience: invalid type: integer `1`, expected a text or a list of texts"),
        (json!({"audience": ["chat", 1]}), "audience[1]: invalid type"),
        (json!({"jwksUrl": null}), "exactly one of `jwksUrl` and `keyFile`"),
        (json!({"keyFile": "/keys"}), "exactly one of `jwksUrl` and `keyFile`"),
        (json!({"jwksUrl": "http://id.example.com/jwks"}), "`jwksUrl` must begin with https://"),
        (json!({"jwksUrl": "id.example.com"}), "`jwksUrl` must be a URL"),
        (json!({"jwksUrl": "https://a:b@id.example.com"}), "`jwksUrl` must not contain a user"),
        (json!({"algorithms": null}), "missing field `algorithms`"),
        (json!({"algorithms": []}), "`algorithms` must not be empty"),
        (json!({"algorithms": ["RS256", "none"]}), "algorithms[1]: unknown algorithm \"none\""),
        (json!({"algorithms": ["RS256", "HS256"]}), "`algorithms` must not contain HS256 with `jwksUrl`"),
        (
            json!({"algorithms": ["RS256", "HS512"], "jwksUrl": null, "keyFile": "/keys"}),
            "`algorithms` must not contain both HS512",
        ),
        (json!({"userClaim": ""}), "`userClaim` must not be empty"),
        (json!({"nameClaim": ""}), "`nameClaim` must not be empty"),
        (json!({"pictureClaim": 1}), "pictureClaim: invalid type"),
        (json!({"maxTtl": "1d"}), "`maxTtl` must be a number with a unit"),
        (json!({"maxTtl": "0s"}), "`maxTtl` must be from 1s to 8760h"),
        (json!({"maxTtl": "8761h"}), "`maxTtl` must be from 1s to 8760h"),
        (json!({"maxTtl": 60}), "maxTtl: invalid type"),
        (json!({"jwks_url": "https://id.example.com/jwks"}), "unknown field `jwks_url`"),
        (json!({"keyFile": "/missing/keys", "jwksUrl": null}), "`keyFile` cannot be used: cannot read /missing/keys"),
    ] {
        let first = entry(json!({"issuer": "first"}));
        let error = error(&json!([first, entry(changes.clone())]).to_string());
        assert!(error.starts_with("CONFAB_ISSUERS, entry 2: "), "{changes}: {error}");
        assert!(error.contains(field), "{changes}: {error}");
    }
}

#[test]
fn issuers_are_unique_and_at_most_16() {
    let same = error(&json!([entry(json!({})), entry(json!({"audience": "other"}))]).to_string());
    assert!(same.starts_with("CONFAB_ISSUERS, entry 2: `issuer` must be unique, but entry 1"), "{same}");
    let many = |count: usize| Value::from_iter((0..count).map(|n| entry(json!({"issuer": n.to_string()})))).to_string();
    assert_eq!(with(&many(16)).unwrap().len(), 16);
    assert_eq!(error(&many(17)), "CONFAB_ISSUERS must have at most 16 entries");
}

#[test]
fn malformed_lists_are_rejected() {
    for bad in ["{", "{}", "null", "issuers.json", "[1, 2", "[] []"] {
        let error = error(bad);
        assert!(error.starts_with("CONFAB_ISSUERS must be a JSON list of objects"), "{bad}: {error}");
    }
    for bad in ["[1]", "[null]", r#"["https://id.example.com/"]"#, "[[]]"] {
        assert!(error(bad).starts_with("CONFAB_ISSUERS, entry 1: "), "{bad}");
    }
    let twice = json!([entry(json!({}))]).to_string().replace("\"algorithms\"", "\"issuer\":\"x\",\"algorithms\"");
    assert!(error(&twice).contains("duplicate field `issuer`"), "{}", error(&twice));
}

#[test]
fn key_files_are_checked_without_quoting_them() {
    let path = directory().join("key");
    let with_file = |content: &str, algorithms: Value| {
        std::fs::write(&path, content).unwrap();
        let changes = json!({"jwksUrl": null, "keyFile": path, "algorithms": algorithms});
        with(&json!([entry(changes)]).to_string()).map(drop).map_err(|error| format!("{error:#}"))
    };
    let secret = "correct horse battery staple 123";
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, secret);
    let set = json!({"keys": [{"kty": "oct", "k": base64}]}).to_string();
    for good in [secret, &format!("{secret}\n"), &set] {
        assert_eq!(with_file(good, json!(["HS256", "HS512"])), Ok(()));
    }
    // Ed25519, from RFC 8410, section 10.1.
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let private = public.replace("PUBLIC", "PRIVATE");
    assert_eq!(with_file(public, json!(["RS256", "EdDSA"])), Ok(()));
    for (content, algorithms, why) in [
        (&secret[1..], "HS256", "the secret has fewer than 32 bytes"),
        (public, "HS256", "nor a secret in one line of text"),
        (&*set.replace("oct", "RSA"), "HS256", "the key set contains no key for HS256"),
        (&*set, "RS256", "the key set contains no key for RS256"),
        ("{\"keys\": 1}", "RS256", "the content is not a JSON Web Key Set"),
        (secret, "RS256", "nor a public key in PEM"),
        (&*private, "EdDSA", "nor a public key in PEM"),
        (&*public.repeat(2), "EdDSA", "several public keys"),
        (public, "ES256", "the key does not fit ES256"),
        ("", "RS256", "nor a public key in PEM"),
        ("", "HS256", "the secret has fewer than 32 bytes"),
    ] {
        let error = with_file(content, json!([algorithms])).unwrap_err();
        let place = "CONFAB_ISSUERS, entry 1: `keyFile` cannot be used: ";
        assert!(error.starts_with(place) && error.contains(why), "{why}: {error}");
        assert!(!error.contains("horse") && !error.contains("MCow"), "{error}");
    }
}
