//! Keys in files.

use std::path::Path;
use std::time::Duration;

use confab_common::Code;
use confab_common::issuers::Issuers;
use confab_common::testing::directory;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::fixtures::{Signer, rsa_files, set};
use crate::{becomes, claims, code, later, start};

const ISSUER: &str = "https://id.example.com/";
/// Longer than the time between two reads of a file.
const NEXT: Duration = Duration::from_secs(11);

fn with(path: &Path, algorithm: &str) -> Issuers {
    start(&[json!({"issuer": ISSUER, "audience": "chat", "keyFile": path, "algorithms": [algorithm]})])
}

fn token(signer: &Signer, id: &str) -> String {
    signer.sign(id, &claims(ISSUER, json!({})))
}

#[tokio::test]
async fn a_file_holds_a_public_key_a_key_set_or_a_secret() {
    let path = directory().join("keys");
    let (ed25519, secret) = (Signer::ed25519(), "correct horse battery staple 123");
    let hs256 = Signer::secret(Algorithm::HS256, secret.as_bytes());
    for (content, algorithm, signer) in [
        (ed25519.pem(), "EdDSA", &ed25519),
        (set(&[ed25519.jwk("k")]), "EdDSA", &ed25519),
        (format!("{secret}\n"), "HS256", &hs256),
        (set(&[hs256.jwk("k")]), "HS256", &hs256),
    ] {
        std::fs::write(&path, content).unwrap();
        let issuers = with(&path, algorithm);
        assert_eq!(code(&issuers, &token(signer, "k")).await, None, "{algorithm}");
        let anonymous = signer.sign_with(&signer.header(None), &claims(ISSUER, json!({})));
        assert_eq!(code(&issuers, &anonymous).await, None, "{algorithm}");
    }
    for algorithm in [Algorithm::RS256, Algorithm::PS512] {
        let issuers = with(&rsa_files().1, &format!("{algorithm:?}"));
        assert_eq!(code(&issuers, &token(&Signer::rsa(algorithm), "any")).await, None);
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let issuers = with(&rsa_files().1, "RS256");
    let pem = std::fs::read_to_string(&rsa_files().1).unwrap();
    for secret in [pem.as_str(), pem.trim()] {
        let forged = token(&Signer::secret(Algorithm::HS256, secret.as_bytes()), "k");
        assert_eq!(code(&issuers, &forged).await, Some(Code::Unauthorized));
    }
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    let path = directory().join("keys");
    let [first, second, third] = [(); 3].map(|()| Signer::ed25519());
    std::fs::write(&path, first.pem()).unwrap();
    let issuers = with(&path, "EdDSA");
    assert_eq!(code(&issuers, &token(&first, "k")).await, None);

    // The first token with the new key causes a read.
    std::fs::write(&path, second.pem()).unwrap();
    assert_eq!(code(&issuers, &token(&second, "k")).await, None);
    assert_eq!(code(&issuers, &token(&first, "k")).await, Some(Code::Unauthorized));

    // A file that cannot be used, or is missing, changes nothing.
    std::fs::write(&path, "nothing").unwrap();
    later(NEXT).await;
    assert_eq!(code(&issuers, &token(&second, "k")).await, None);
    std::fs::remove_file(&path).unwrap();
    later(NEXT).await;
    assert_eq!(code(&issuers, &token(&second, "k")).await, None);

    // The file is read again in time, without a token that needs it.
    std::fs::write(&path, set(&[third.jwk("k")])).unwrap();
    later(NEXT).await;
    becomes(Some(Code::Unauthorized), async || code(&issuers, &token(&second, "k")).await).await;
    assert_eq!(code(&issuers, &token(&third, "k")).await, None);
}
