//! JSON Web Keys (RFC 7517).

use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// Some issuers pad the parts of their keys.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
pub struct Jwk {
    kty: String,
    pub kid: Option<String>,
    pub alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
}

impl Jwk {
    /// Whether the key may verify signatures.
    pub fn is_for_signatures(&self) -> bool {
        self.purpose.as_ref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"))
    }

    /// The bytes of an Ed25519 key.
    pub fn ed25519(&self) -> Option<Vec<u8>> {
        self.is("OKP", Some("Ed25519")).then(|| of_size(self.x.as_ref(), 32)).flatten()
    }

    /// The point of a key on this curve, uncompressed.
    pub fn point(&self, curve: &str, coordinate: usize) -> Option<Vec<u8>> {
        let [x, y] = [&self.x, &self.y].map(|part| of_size(part.as_ref(), coordinate));
        self.is("EC", Some(curve)).then(|| Some([vec![4], x?, y?].concat())).flatten()
    }

    /// The modulus and the exponent of an RSA key, without leading zeros.
    pub fn rsa(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let number = |part: &Option<String>| {
            let bytes = BASE64.decode(part.as_ref()?).ok()?;
            Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>())
        };
        self.is("RSA", None).then(|| Some((number(&self.n)?, number(&self.e)?))).flatten()
    }

    /// The bytes of a shared secret.
    pub fn secret(&self) -> Option<Vec<u8>> {
        self.is("oct", None).then(|| BASE64.decode(self.k.as_ref()?).ok()).flatten()
    }

    fn is(&self, kind: &str, curve: Option<&str>) -> bool {
        self.kty == kind && curve.is_none_or(|curve| self.crv.as_deref() == Some(curve))
    }
}

fn of_size(part: Option<&String>, size: usize) -> Option<Vec<u8>> {
    BASE64.decode(part?).ok().filter(|bytes| bytes.len() == size)
}
