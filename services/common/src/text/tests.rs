use super::*;

#[test]
fn folding_covers_more_than_ascii() {
    assert_eq!(fold("ÄPFEL"), fold("a\u{308}pfel"));
    assert_eq!(fold("ПРИВЕТ"), "привет");
    assert_ne!(fold("a"), fold("b"));
    // All spellings of a name fold to one form.
    for (one, other) in [
        ("μαριος", "ΜΑΡΙΟΣ"),
        ("μαριοσ", "ΜΑΡΙΟΣ"),
        ("straße", "STRASSE"),
        ("STRA\u{1E9E}E", "strasse"),
        ("\u{212A}elvin", "kelvin"),
        ("\u{212B}ngström", "a\u{30A}NGSTRÖM"),
        ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"),
        ("ꮳꮃꭹ", "ᏣᎳᎩ"),
        ("ΐ", "\u{1FD3}"),
        ("ŉ", "ʼn"),
    ] {
        assert_eq!(fold(one), fold(other), "{one} {other}");
        assert_eq!(fold(&fold(one)), fold(one), "{one}");
    }
    // A Turkish dotless i is a separate letter.
    assert_ne!(fold("ısı"), fold("isi"));
}

#[test]
fn names() {
    assert_eq!(name("name", "  Tea \u{1F375} ", 80).unwrap(), "Tea \u{1F375}");
    assert_eq!(name("name", &"é".repeat(80), 80).unwrap().chars().count(), 80);
    for bad in ["", " \t", "\u{3000}", "a\0b", "a\nb", "\u{200B}", "\u{202E}moor", &"é".repeat(81)] {
        assert_eq!(name("name", bad, 80).unwrap_err().fields[0].field, "name", "{bad:?}");
    }
}

#[test]
fn descriptions() {
    for good in ["", "Tea\n\tand biscuits ", "हिन्दी"] {
        assert_eq!(description("description", good, 80).unwrap(), good);
    }
    for bad in [" ", "\u{FEFF}", "a\0b", "a\u{202E}b", &"é".repeat(81)] {
        assert_eq!(description("description", bad, 80).unwrap_err().fields[0].field, "description", "{bad:?}");
    }
}

#[test]
fn ids_have_one_spelling() {
    let text = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";
    assert_eq!(id("roomId", text).unwrap().to_string(), text);
    for bad in ["", "0193a4c07d507cc398a52f6b8e1d0c01", "{0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01}", "x"] {
        assert!(id("roomId", bad).is_err(), "{bad:?}");
    }
}
