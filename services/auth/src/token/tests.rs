use jsonwebtoken::{Validation, decode};
use serde_json::{Value, json};

use super::*;

/// The key of RFC 8037, appendix A, whose thumbprint the RFC states.
const RFC: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";

const HOUR: Duration = Duration::from_secs(3600);

fn tokens() -> anyhow::Result<Tokens> {
    Tokens::new(&SigningKeys::parse(RFC).unwrap())
}

#[test]
fn first_key_signs_and_all_are_published() {
    let other = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
    let ids = |keys: &str| {
        let tokens = Tokens::new(&SigningKeys::parse(keys).unwrap()).unwrap();
        let set = serde_json::from_str::<JwkSet>(tokens.jwks()).unwrap();
        let token = tokens.issue(Uuid::now_v7(), "ada", Uuid::now_v7(), 0, HOUR).unwrap();
        let ids = set.keys.into_iter().map(|key| key.common.key_id.unwrap()).collect::<Vec<_>>();
        (ids, jsonwebtoken::decode_header(&token.text).unwrap().kid.unwrap())
    };
    let (one, signs) = ids(RFC);
    assert_eq!(one, std::slice::from_ref(&signs));
    let (two, first) = ids(&format!("{RFC},{other}"));
    assert_eq!((two.len(), &two[0], &first), (2, &signs, &signs));
    let (turned, first) = ids(&format!("{other},{RFC}"));
    assert_eq!((&turned[0], &turned[1], &first), (&two[1], &two[0], &two[1]));
}

#[test]
fn key_set_matches_the_rfc() {
    let jwks = serde_json::from_str::<Value>(tokens().unwrap().jwks()).unwrap();
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig"
    });
    assert_eq!(jwks, json!({ "keys": [key] }));
}

#[test]
fn token_verifies_with_the_key_set() {
    let tokens = tokens().unwrap();
    let (user, session, now) = (Uuid::now_v7(), Uuid::now_v7(), jsonwebtoken::get_current_timestamp() as i64);
    let token = tokens.issue(user, "Zoë", session, now, HOUR).unwrap();
    let keys = serde_json::from_str::<JwkSet>(tokens.jwks()).unwrap();
    let kid = jsonwebtoken::decode_header(&token.text).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["confab"]);
    validation.set_issuer(&["confab"]);
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    validation.validate_nbf = true;
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let claims = decode::<Value>(&token.text, &key, &validation).unwrap().claims;
    assert_eq!((claims["sub"].as_str(), claims["name"].as_str()), (Some(user.to_string().as_str()), Some("Zoë")));
    assert_eq!(claims["jti"], json!(session));
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(now), Some(now + 3600)));
    assert_eq!(token.expires_at_ms, (now + 3600) * 1000);
}

#[test]
fn tokens_with_a_refresh_token_live_for_at_most_15_minutes() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for (token, refresh, plain, refreshable) in [(60, 100, 60, 15), (10, 100, 10, 10), (60, 5, 60, 5)] {
        let lifetimes = Lifetimes { token: minutes(token), refresh: minutes(refresh) };
        assert_eq!([lifetimes.of_token(false), lifetimes.of_token(true)], [minutes(plain), minutes(refreshable)]);
    }
}
