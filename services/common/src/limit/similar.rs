//! Names as keys.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::text::fold;

/// Longer names, in bytes, are not folded, because folding takes time. No account has such a name.
const MAX_FOLDED: usize = 1024;

/// Returns the key of a typed name: names that differ only in case, in the width of their letters or in other
/// compatibility variants (Unicode D146) have the same key. So spellings of one name cannot have a bucket each.
pub fn similar(name: &str) -> Cow<'_, str> {
    if name.len() > MAX_FOLDED {
        return name.into();
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let once = fold(&nfkc.normalize(&fold(name.trim())));
    nfkc.normalize(&once).trim().to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_name_have_one_key() {
        for (one, other) in [
            ("ada", " ADA\t"),
            ("ada", "ａｄａ"),
            ("ada", "Ａｄａ"),
            ("\u{e9}mile", "E\u{301}mile"),
            ("straße", "STRASSE"),
            ("σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("ｶﾞ", "ガ"),
        ] {
            assert_eq!(similar(one), similar(other));
        }
        assert_ne!(similar("ada"), similar("adam"));
        let long = "Ａ".repeat(MAX_FOLDED);
        assert_eq!(similar(&long), long);
    }
}
