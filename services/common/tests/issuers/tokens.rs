//! Which tokens are valid.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use confab_common::Code;
use confab_common::issuers::{Issuers, user_id};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use crate::fixtures::{Signer, part, rsa_files};
use crate::servers::Server;
use crate::{claims, code, now, start, valid};

const ISSUER: &str = "https://id.example.com/";

async fn issuer(id: &str, signer: &Signer, algorithm: &str) -> (Server, Issuers) {
    let server = Server::start(ISSUER, &[(id, signer)]).await;
    let issuers = start(&[server.entry(&[algorithm])]);
    (server, issuers)
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_valid() {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    let mut signers = vec![Signer::ed25519(), Signer::es256(), Signer::es384()];
    signers.extend([RS256, RS384, RS512, PS256, PS384, PS512].map(Signer::rsa));
    let names = signers.iter().map(|signer| format!("{:?}", signer.algorithm)).collect::<Vec<_>>();
    let keys = names.iter().map(String::as_str).zip(&signers).collect::<Vec<_>>();
    let server = Server::start(ISSUER, &keys).await;
    let issuers = start(&[server.entry(&names.iter().map(String::as_str).collect::<Vec<_>>())]);
    for (id, signer) in keys {
        let claims = claims(ISSUER, json!({"name": "Ada", "picture": "https://cdn.example.com/ada.png"}));
        let token = valid(&issuers, &signer.sign(id, &claims)).await;
        assert_eq!((&*token.issuer, token.user_id), (ISSUER, user_id(ISSUER, "user_123")), "{id}");
        assert_eq!(token.user_id.to_string(), "90b98074-64ad-5519-b800-eedf19d458d9");
        assert_eq!((Some(token.issued_at), Some(token.expires_at)), (claims["iat"].as_i64(), claims["exp"].as_i64()));
        assert_eq!(token.name.as_deref(), Some("Ada"));
        assert_eq!(token.picture.as_deref(), Some("https://cdn.example.com/ada.png"));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn tokens_of_other_issuers_are_left_to_the_caller() {
    let signer = Signer::ed25519();
    let (server, issuers) = issuer("k", &signer, "EdDSA").await;
    for other in ["confab", "https://id.example.com", "https://ID.example.com/", ""] {
        assert_eq!(issuers.verify(&signer.sign("k", &claims(other, json!({})))).await.unwrap(), None, "{other}");
    }
    let nameless = signer.sign("k", &claims(ISSUER, json!({"iss": null})));
    assert_eq!(issuers.verify(&nameless).await.unwrap(), None);
    assert_eq!(Issuers::default().verify("anything").await.unwrap(), None);
    assert!(Issuers::default().is_empty() && !issuers.is_empty());
    drop(server);
}

#[tokio::test]
async fn wrong_claims_are_rejected() {
    let signer = Signer::ed25519();
    let (_server, issuers) = issuer("k", &signer, "EdDSA").await;
    let now = now();
    for fine in [
        json!({"iat": now - 60, "exp": now - 2}),
        json!({"iat": now + 3}),
        json!({"nbf": now + 3}),
        json!({"nbf": 0}),
        json!({"aud": ["other", "mobile"]}),
        json!({"iat": now, "exp": now + 24 * 3600}),
        json!({"sub": "x".repeat(255)}),
        json!({"sub": "auth0|ü 1"}),
        json!({"name": 1, "picture": [], "jti": 7, "more": {"a": 1.5}}),
    ] {
        assert_eq!(code(&issuers, &signer.sign("k", &claims(ISSUER, fine.clone()))).await, None, "{fine}");
    }
    for bad in [
        json!({"exp": now - 10}),
        json!({"exp": null}),
        json!({"exp": (now + 60).to_string()}),
        json!({"exp": now as f64 + 60.0}),
        json!({"exp": 1e20}),
        json!({"exp": -1}),
        json!({"exp": [now + 60]}),
        json!({"exp": u64::MAX}),
        // Longer than 24 h, the default of `maxTtl`.
        json!({"iat": now, "exp": now + 24 * 3600 + 1}),
        json!({"exp": now + 365 * 24 * 3600}),
        json!({"iat": 0}),
        json!({"iat": null}),
        json!({"iat": now.to_string()}),
        json!({"iat": now as f64}),
        json!({"iat": -1}),
        json!({"iat": now + 60}),
        json!({"iat": now + 4, "exp": now + 3}),
        json!({"nbf": now + 60}),
        json!({"nbf": "0"}),
        json!({"nbf": 0.0}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": "Chat"}),
        json!({"aud": null}),
        json!({"aud": 1}),
        json!({"aud": ["chat", 1]}),
        json!({"iss": [ISSUER]}),
        json!({"iss": 1}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 123}),
        json!({"sub": "x".repeat(256)}),
        json!({"sub": "a\nb"}),
        json!({"sub": "a\u{85}b"}),
        json!({"more": "x".repeat(8 * 1024)}),
    ] {
        let token = signer.sign("k", &claims(ISSUER, bad.clone()));
        assert_eq!(code(&issuers, &token).await, Some(Code::Unauthorized), "{bad:.100}");
    }
}

#[tokio::test]
async fn names_and_pictures_are_optional() {
    let signer = Signer::ed25519();
    let (_server, issuers) = issuer("k", &signer, "EdDSA").await;
    for none in [json!({}), json!({"name": "", "picture": ""}), json!({"name": 1, "picture": {}})] {
        let token = valid(&issuers, &signer.sign("k", &claims(ISSUER, none))).await;
        assert_eq!((token.name, token.picture), (None, None));
    }
}

#[tokio::test]
async fn forged_tokens_are_rejected() {
    let signer = Signer::ed25519();
    let (server, issuers) = issuer("k", &signer, "EdDSA").await;
    let good = claims(ISSUER, json!({}));
    let token = signer.sign("k", &good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let payload = signed.split('.').nth(1).unwrap();
    let jwk = signer.jwk("k");
    let x = jwk["x"].as_str().unwrap();
    let secrets = [x.as_bytes().to_vec(), BASE64_URL_SAFE_NO_PAD.decode(x).unwrap(), signer.pem().into_bytes()];
    let mut forged = secrets.map(|secret| Signer::secret(Algorithm::HS256, &secret).sign("k", &good)).to_vec();
    for alg in ["none", "nOnE", "NONE", "", "HS256", "RS256", "eddsa", "Ed25519"] {
        let head = part(&json!({"alg": alg, "kid": "k"}).to_string());
        forged.extend([format!("{head}.{payload}."), format!("{head}.{payload}.{signature}")]);
    }
    for head in [
        r#"{"kid":"k"}"#,
        r#"{"alg":null,"kid":"k"}"#,
        r#"{"alg":["EdDSA"],"kid":"k"}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"k"}"#,
        r#"{"alg":"EdDSA","kid":1}"#,
        r#"["EdDSA"]"#,
        "",
    ] {
        forged.push(format!("{}.{payload}.{signature}", part(head)));
    }
    // Signed with the right key, but not for callers, or with rules that Confab does not know.
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = signer.header(Some("k"));
        change(&mut header);
        signer.sign_with(&header, &good)
    };
    forged.push(with(&|header| header.typ = Some("logout+jwt".into())));
    forged.push(with(&|header| header.crit = Some(vec!["b64".into()])));
    forged.push(with(&|header| header.crit = Some(vec![])));
    // Signed by another key.
    forged.extend([Signer::ed25519().sign("k", &good), Signer::es256().sign("k", &good)]);
    // Changed after it was signed.
    let other = part(&claims(ISSUER, json!({"sub": "root"})).to_string());
    forged.push(format!("{}.{other}.{signature}", signed.split('.').next().unwrap()));
    forged.extend([
        format!("{signed}."),
        signed.to_owned(),
        format!("{token}.x"),
        format!("x.{token}"),
        format!("{token}="),
        format!("{token} "),
        format!(" {token}"),
        token[..token.len() - 1].to_owned(),
    ]);
    forged.extend(["", ".", "..", "...", "a.b.c", "🦀.🦀.🦀"].map(String::from));
    for token in forged {
        assert_eq!(code(&issuers, &token).await, Some(Code::Unauthorized), "{token:.100}");
    }
    assert_eq!(code(&issuers, &token).await, None);
    assert!(server.requests() <= 2, "{}", server.requests());
}

#[tokio::test]
async fn members_that_occur_twice_are_rejected() {
    let signer = Signer::secret(Algorithm::HS256, &[7; 32]);
    let path = confab_common::testing::directory().join("key");
    std::fs::write(&path, crate::fixtures::set(&[signer.jwk("k")])).unwrap();
    let issuers = start(&[json!({"issuer": ISSUER, "audience": "chat", "keyFile": path, "algorithms": ["HS256"]})]);
    let sign = |payload: &str| {
        let signed = format!("{}.{}", part(r#"{"alg":"HS256","kid":"k"}"#), part(payload));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 32]);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        format!("{signed}.{signature}")
    };
    let good = claims(ISSUER, json!({})).to_string();
    assert_eq!(code(&issuers, &sign(&good)).await, None);
    for twice in [r#""sub":"root""#, r#""iss":"confab""#, r#""exp":1"#, r#""iat":1"#, r#""aud":"chat""#] {
        for payload in [good.replacen('{', &format!("{{{twice},"), 1), good.replacen('}', &format!(",{twice}}}"), 1)] {
            assert_eq!(code(&issuers, &sign(&payload)).await, Some(Code::Unauthorized), "{payload}");
        }
    }
}

#[tokio::test]
async fn only_the_listed_algorithms_are_accepted() {
    let (es256, rs256) = (Signer::es256(), Signer::rsa(Algorithm::RS256));
    let server = Server::start(ISSUER, &[("e", &es256), ("r", &rs256)]).await;
    let mut jwk = rs256.jwk("r");
    jwk.as_object_mut().unwrap().remove("alg");
    server.answer(crate::servers::Answer::Body(crate::fixtures::set(&[es256.jwk("e"), jwk])));
    let issuers = start(&[server.entry(&["ES256", "RS256"])]);
    let good = claims(ISSUER, json!({}));
    assert_eq!(code(&issuers, &es256.sign("e", &good)).await, None);
    assert_eq!(code(&issuers, &rs256.sign("r", &good)).await, None);
    // The same key with another algorithm of its family, and the algorithm of the other key.
    let ps256 = Signer::rsa(Algorithm::PS256).sign("r", &good);
    for forged in [ps256, es256.sign("r", &good), rs256.sign("e", &good)] {
        assert_eq!(code(&issuers, &forged).await, Some(Code::Unauthorized));
    }
    let pem = std::fs::read(&rsa_files().1).unwrap();
    let confused = Signer::secret(Algorithm::HS256, &pem).sign("r", &good);
    assert_eq!(code(&issuers, &confused).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn keys_in_the_head_of_a_token_are_ignored() {
    let (signer, attacker) = (Signer::ed25519(), Signer::ed25519());
    let (_server, issuers) = issuer("k", &signer, "EdDSA").await;
    let evil = Server::start("evil", &[("k", &attacker)]).await;
    let url = Some(format!("http://{}/jwks", evil.address));
    let header = |signer: &Signer| Header {
        jku: url.clone(),
        x5u: url.clone(),
        jwk: serde_json::from_value(attacker.jwk("k")).ok(),
        ..signer.header(Some("k"))
    };
    let good = claims(ISSUER, json!({}));
    assert_eq!(code(&issuers, &attacker.sign_with(&header(&attacker), &good)).await, Some(Code::Unauthorized));
    assert_eq!(code(&issuers, &signer.sign_with(&header(&signer), &good)).await, None);
    assert_eq!(evil.requests(), 0);
}

#[tokio::test]
async fn an_id_means_a_key_of_its_issuer_only() {
    let (one, other) = (Signer::ed25519(), Signer::ed25519());
    let a = Server::start("https://a.example", &[("k", &one)]).await;
    let b = Server::start("https://b.example", &[("k", &other)]).await;
    let issuers = start(&[a.entry(&["EdDSA"]), b.entry(&["EdDSA"])]);
    let token = |signer: &Signer, server: &Server| signer.sign("k", &claims(&server.issuer, json!({})));
    let (first, second) = (valid(&issuers, &token(&one, &a)).await, valid(&issuers, &token(&other, &b)).await);
    assert_ne!(first.user_id, second.user_id);
    assert_eq!(code(&issuers, &token(&one, &b)).await, Some(Code::Unauthorized));
    assert_eq!(code(&issuers, &token(&other, &a)).await, Some(Code::Unauthorized));
}

#[tokio::test]
async fn a_token_may_omit_the_key_id_if_there_is_one_key() {
    let (one, other) = (Signer::ed25519(), Signer::ed25519());
    let (server, issuers) = issuer("a", &one, "EdDSA").await;
    let anonymous = |signer: &Signer| signer.sign_with(&signer.header(None), &claims(ISSUER, json!({})));
    assert_eq!(code(&issuers, &anonymous(&one)).await, None);
    assert_eq!(code(&issuers, &one.sign("b", &claims(ISSUER, json!({})))).await, Some(Code::Unauthorized));
    server.publish(&[("a", &one), ("b", &other)]);
    let issuers = start(&[server.entry(&["EdDSA"])]);
    for signer in [&one, &other] {
        assert_eq!(code(&issuers, &anonymous(signer)).await, Some(Code::Unauthorized));
    }
}

#[tokio::test]
async fn revocations_are_by_jti_or_by_token() {
    let signer = Signer::es256();
    let (_server, issuers) = issuer("k", &signer, "ES256").await;
    let id = async |changes: Value| {
        let token = valid(&issuers, &signer.sign("k", &claims(ISSUER, changes))).await;
        assert_eq!(token.revocation_id.get_version_num(), 5);
        token.revocation_id
    };
    assert_eq!(id(json!({"jti": "1"})).await, id(json!({"jti": "1", "sub": "other"})).await);
    assert_ne!(id(json!({"jti": "1"})).await, id(json!({"jti": "2"})).await);
    for unusable in [Value::Null, json!(""), json!(1)] {
        let one = id(json!({"jti": unusable, "nonce": "a"})).await;
        assert_ne!(one, id(json!({"jti": unusable, "nonce": "b"})).await, "{unusable}");
    }
    // The owner of a token can compute the second form of its signature, (r, n - s), and must not escape a logout so.
    let token = signer.sign("k", &claims(ISSUER, json!({})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    negate(&mut signature[32..]);
    let second = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    assert_ne!(second, token);
    assert_eq!(valid(&issuers, &token).await.revocation_id, valid(&issuers, &second).await.revocation_id);
}

/// Replaces a number by the difference to it from the order of P-256.
fn negate(number: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut borrow = 0;
    for (digit, of_order) in number.iter_mut().zip(ORDER).rev() {
        let difference = i16::from(of_order) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *digit = difference.rem_euclid(256) as u8;
    }
}
