//! The algorithms of signatures (RFC 7518, RFC 8037).

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use aws_lc_rs::rsa::RsaParameters;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512,
};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Algorithm {
    EdDsa,
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Hs256,
    Hs384,
    Hs512,
}

const NAMES: [(Algorithm, &str); 12] = [
    (Algorithm::EdDsa, "EdDSA"),
    (Algorithm::Es256, "ES256"),
    (Algorithm::Es384, "ES384"),
    (Algorithm::Rs256, "RS256"),
    (Algorithm::Rs384, "RS384"),
    (Algorithm::Rs512, "RS512"),
    (Algorithm::Ps256, "PS256"),
    (Algorithm::Ps384, "PS384"),
    (Algorithm::Ps512, "PS512"),
    (Algorithm::Hs256, "HS256"),
    (Algorithm::Hs384, "HS384"),
    (Algorithm::Hs512, "HS512"),
];

/// How the signatures of an algorithm are verified.
pub enum Scheme {
    Ed25519,
    Ecdsa {
        /// The `crv` of the keys.
        curve: &'static str,
        /// The bytes of a coordinate.
        coordinate: usize,
        verification: &'static EcdsaVerificationAlgorithm,
    },
    Rsa(&'static RsaParameters),
    /// With a secret that the issuer and Confab share.
    Hmac(hmac::Algorithm),
}

impl Algorithm {
    /// The name in the header of tokens.
    pub fn name(self) -> &'static str {
        // The table has the order of the variants; a test checks this.
        NAMES[self as usize].1
    }

    pub fn scheme(self) -> Scheme {
        match self {
            Self::EdDsa => Scheme::Ed25519,
            Self::Es256 => Scheme::Ecdsa { curve: "P-256", coordinate: 32, verification: &ECDSA_P256_SHA256_FIXED },
            Self::Es384 => Scheme::Ecdsa { curve: "P-384", coordinate: 48, verification: &ECDSA_P384_SHA384_FIXED },
            Self::Rs256 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Scheme::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Hs256 => Scheme::Hmac(HMAC_SHA256),
            Self::Hs384 => Scheme::Hmac(HMAC_SHA384),
            Self::Hs512 => Scheme::Hmac(HMAC_SHA512),
        }
    }

    /// Whether the key is a shared secret.
    pub fn is_secret(self) -> bool {
        matches!(self.scheme(), Scheme::Hmac(_))
    }
}

impl TryFrom<String> for Algorithm {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm).ok_or_else(|| {
            let names = NAMES.map(|(_, name)| name).join(", ");
            format!("unknown algorithm {name:?}; the algorithms are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_order_of_the_variants() {
        for (at, (algorithm, name)) in NAMES.into_iter().enumerate() {
            assert_eq!((algorithm as usize, algorithm.name()), (at, name));
            assert_eq!(Algorithm::try_from(name.to_owned()), Ok(algorithm));
            assert_eq!(algorithm.is_secret(), name.starts_with("HS"));
        }
        for unknown in ["", "none", "nOnE", "rs256", "ES512", "EDDSA"] {
            assert!(Algorithm::try_from(unknown.to_owned()).is_err(), "{unknown}");
        }
    }
}
