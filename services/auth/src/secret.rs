//! Random secrets, and the hashes under which they are stored.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use confab_common::{Error, Result};
use confab_proto::server_key::PREFIX;
use uuid::Uuid;

/// The prefix of a password-reset token.
const RESET: &str = "cfp_";
/// The digits of an invite's code (Crockford's base32): without letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Digits in an invite's code: the smallest number for 128 bits.
const CODE_DIGITS: usize = 26;
/// Digits between two hyphens of an invite's code.
const GROUP: usize = 7;

/// Returns random bytes.
///
/// # Errors
/// `internal` when the system has no randomness.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::internal("no randomness"))?;
    Ok(bytes)
}

/// Returns the SHA-256 of a secret. The secrets are random, so their hashes need neither salt nor a slow function.
pub fn sha256(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret).as_ref());
    hash
}

/// Creates a token that sets a password, of 256 bits.
///
/// # Errors
/// As [`random`].
pub fn reset_token() -> Result<String> {
    Ok(format!("{RESET}{}", BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// Returns the SHA-256 of a well-formed password-reset token.
pub fn reset_sha256(token: &str) -> Option<[u8; 32]> {
    let is_formed = token.len() == RESET.len() + 43 && token.starts_with(RESET);
    is_formed.then(|| sha256(token.as_bytes()))
}

/// Creates the server key with this id and a secret of 256 bits.
///
/// # Errors
/// As [`random`].
pub fn server_key(id: Uuid) -> Result<String> {
    Ok(format!("{PREFIX}{}_{}", id.simple(), BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// Creates the code of an invite, of 128 bits.
///
/// # Errors
/// As [`random`].
pub fn invite_code() -> Result<String> {
    let mut rest = u128::from_be_bytes(random()?);
    let mut digits = [0; CODE_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 32) as usize];
        rest /= 32;
    }
    Ok(digits.chunks(GROUP).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-"))
}

/// Returns the SHA-256 of an invite's code as a user types it: in any case, with any hyphens and spaces. `None` for a
/// text that is no code.
pub fn invite_sha256(typed: &str) -> Option<[u8; 32]> {
    if typed.len() > 4 * CODE_DIGITS {
        return None;
    }
    let digit = |c: char| match c.to_ascii_uppercase() {
        'O' => Some('0'),
        'I' | 'L' => Some('1'),
        c => DIGITS.iter().any(|digit| char::from(*digit) == c).then_some(c),
    };
    let digits = typed.chars().filter(|c| !matches!(c, '-' | ' ')).map(digit).collect::<Option<String>>()?;
    (digits.len() == CODE_DIGITS).then(|| sha256(digits.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invite_codes_are_recognised_as_typed() {
        let code = invite_code().unwrap();
        assert_eq!(code.split('-').map(str::len).collect::<Vec<_>>(), [7, 7, 7, 5]);
        assert_ne!(code, invite_code().unwrap());
        let hash = invite_sha256(&code).unwrap();
        for typed in [code.to_lowercase(), code.replace('-', ""), format!(" {} ", code.replace('-', " "))] {
            assert_eq!(invite_sha256(&typed), Some(hash), "{typed}");
        }
        let zeros = "0000000-0000000-0000000-11111";
        assert_eq!(invite_sha256("OOOOOOO-ooooooo-0000000-IlL1i"), invite_sha256(zeros));
        for bad in ["", "-", &code[1..], &format!("{code}0"), &code.replacen(&code[..1], "U", 1), &" ".repeat(200)] {
            assert_eq!(invite_sha256(bad), None, "{bad}");
        }
    }

    #[test]
    fn reset_tokens_have_one_form() {
        let token = reset_token().unwrap();
        assert!(reset_sha256(&token).is_some_and(|hash| hash == sha256(token.as_bytes())));
        for bad in ["", "cfp_", &token[1..], &format!("{token}A"), &token.to_uppercase()] {
            assert_eq!(reset_sha256(bad), None, "{bad}");
        }
    }

    #[test]
    fn server_keys_are_well_formed() {
        let id = Uuid::now_v7();
        let (first, second) = (server_key(id).unwrap(), server_key(id).unwrap());
        assert_ne!(first, second);
        for key in [first, second] {
            assert_eq!(confab_proto::server_key::id_of(&key), Some(id), "{key}");
        }
    }

    #[test]
    fn a_known_hash() {
        let hex = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
