//! Keys that sign tokens.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use confab_common::testing;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

pub struct Signer {
    pub algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn ed25519() -> Self {
        let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let mut seed = [0; 32];
        fill(&mut seed).expect("random bytes");
        Self { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(&[&head[..], &seed].concat()) }
    }

    pub fn es256() -> Self {
        Self::ecdsa(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384() -> Self {
        Self::ecdsa(Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ecdsa(algorithm: Algorithm, signing: &'static EcdsaSigningAlgorithm) -> Self {
        let key = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).expect("a key");
        Self { algorithm, key: EncodingKey::from_ec_der(key.as_ref()) }
    }

    /// All signers of this kind have one key.
    pub fn rsa(algorithm: Algorithm) -> Self {
        let key = PrivatePkcs1KeyDer::from_pem_file(rsa_files().0.as_path()).expect("an RSA key");
        Self { algorithm, key: EncodingKey::from_rsa_der(key.secret_pkcs1_der()) }
    }

    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { algorithm, key: EncodingKey::from_secret(secret) }
    }

    /// The published key, with `alg`.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a key");
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    /// The published Ed25519 key in PEM.
    pub fn pem(&self) -> String {
        let head = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let jwk = self.jwk("");
        let x = BASE64_URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("an Ed25519 key")).expect("base64url");
        let base64 = BASE64_STANDARD.encode([&head[..], &x].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
    }

    pub fn header(&self, id: Option<&str>) -> Header {
        Header { kid: id.map(String::from), ..Header::new(self.algorithm) }
    }

    pub fn sign(&self, id: &str, claims: &Value) -> String {
        self.sign_with(&self.header(Some(id)), claims)
    }

    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key).expect("a token")
    }
}

/// A part of a token.
pub fn part(json: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json)
}

pub fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// The files of an RSA key: the private key in the form of PKCS #1, and the public key.
pub fn rsa_files() -> &'static (PathBuf, PathBuf) {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    FILES.get_or_init(|| {
        let directory = testing::directory();
        openssl(&directory, "genrsa -traditional -out private.pem 2048");
        openssl(&directory, "rsa -in private.pem -pubout -out public.pem");
        (directory.join("private.pem"), directory.join("public.pem"))
    })
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
