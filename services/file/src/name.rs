//! File names from clients: sanitised instead of rejected.

/// Longest name, in bytes.
const MAX_LEN: usize = 255;
/// Longest extension that is kept when a name is shortened, in bytes including the dot.
const MAX_EXTENSION: usize = 64;
/// The name of a file when sanitising leaves no character.
const NAMELESS: &str = "file";

/// Returns the last component of a path, without control and bidirectional characters, at most 255 bytes long.
pub fn clean(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = last.chars().filter(|c| !c.is_control() && !is_bidirectional_mark(*c)).collect::<String>();
    match kept.trim() {
        "" | "." | ".." => NAMELESS.into(),
        name => shorten(name),
    }
}

/// Returns whether the character reverses the direction of text. With such characters `gpj.exe` can be made to look
/// like `exe.jpg`.
fn is_bidirectional_mark(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shorten(name: &str) -> String {
    if name.len() <= MAX_LEN {
        return name.into();
    }
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    };
    let stem = &stem[..stem.floor_char_boundary(MAX_LEN - extension.len())];
    format!("{}{extension}", stem.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_name_is_unchanged() {
        for name in
            ["photo.jpg", "Чайник (2).tar.gz", "\u{1F375}", ".gitignore", "a\"b'c;d.txt", "...", "ends with a dot."]
        {
            assert_eq!(clean(name), name);
        }
    }

    #[test]
    fn only_the_last_path_component_is_kept() {
        for (path, name) in [
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\ada\\notes.txt", "notes.txt"),
            ("a/b\\c.txt", "c.txt"),
            ("..\\/evil.sh", "evil.sh"),
            ("folder/", "file"),
        ] {
            assert_eq!(clean(path), name, "{path}");
        }
    }

    #[test]
    fn marks_are_removed() {
        assert_eq!(clean("a\0b.txt"), "ab.txt");
        assert_eq!(clean("x\r\nSet-Cookie: a=b.txt"), "xSet-Cookie: a=b.txt");
        assert_eq!(clean("\u{202e}gpj\u{2066}.exe\u{2069}\u{200f}"), "gpj.exe");
        assert_eq!(clean("\u{1b}[31mred\u{7f}\u{85}.txt"), "[31mred.txt");
        assert_eq!(clean("  padded.txt \t"), "padded.txt");
    }

    #[test]
    fn empty_name_becomes_file() {
        for name in ["", "  ", "../", "/", "\\", ".", "..", "\0\r\n", "\u{202e}", ".\0."] {
            assert_eq!(clean(name), "file", "{name:?}");
        }
    }

    #[test]
    fn long_name_keeps_its_extension() {
        let long = clean(&format!("{}.jpeg", "a".repeat(4096)));
        assert_eq!(long, format!("{}.jpeg", "a".repeat(250)));
        // The characters have three bytes each: the name is cut between characters.
        let long = clean(&format!("{}.png", "茶".repeat(2000)));
        assert_eq!(long, format!("{}.png", "茶".repeat(83)));
        assert_eq!(clean(&"b".repeat(4096)), "b".repeat(255));
        assert_eq!(clean(&format!("x.{}", "y".repeat(4096))).len(), 255);
        assert_eq!(clean(&format!(".{}", "z".repeat(300))).len(), 255);
        let exact = format!("{}.txt", "c".repeat(251));
        assert_eq!(clean(&exact), exact);
    }
}
