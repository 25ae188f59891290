use super::*;

fn kept(typed: &str) -> String {
    Username::parse(typed).unwrap_or_else(|error| panic!("{typed:?}: {error} {:?}", error.fields)).kept
}

fn refusal(typed: &str) -> String {
    match Username::parse(typed) {
        Ok(name) => panic!("{typed:?} is accepted as {name:?}"),
        Err(error) => {
            assert_eq!(error.fields[0].field, "username");
            error.fields[0].detail.clone()
        }
    }
}

fn key(typed: &str) -> String {
    skeleton(typed)
}

#[test]
fn names_of_all_languages_are_accepted() {
    for name in [
        "Ada_L.1-2",
        "ada.",
        "007",
        "1st",
        "a__b",
        "José",
        "Zoë",
        "Łukasz",
        "Nguyễn",
        "ısıl",
        "İnci",
        "Straße",
        "Ħal",
        "kaʻiulani",
        "Иван",
        "Олександр",
        "μαρίος",
        "Ἀριστοτέλης",
        "Արմեն",
        "თამარ",
        "ᲗᲐᲛᲐᲠ",
        "ᏣᎳᎩ",
        "አበበ",
        "ⴰⵎⴰⵣⵉⵖ",
        "हिन्दी",
        "राम१२",
        "தமிழ்",
        "বাংলা",
        "ਪੰਜਾਬੀ",
        "ಕನ್ನಡ",
        "മലയാളം",
        "ภาษาไทย",
        "น้ำผึ้ง",
        "ລາວດຳ",
        "ໜູນ້ອຍ",
        "ខ្មែរ",
        "မြန်မာ",
        "བོད་ཡིག".split('་').next().unwrap_or_default(),
        "山田太郎",
        "たなか_ゆき",
        "カタカナ東京",
        "ラーメン",
        "佐々木",
        "김철수",
        "金철수",
        "王小明",
        "ㄅㄆㄇ王",
        "מרים",
        "שרה_לוי",
        "محمد",
        "محمد١٢",
        "فارسی۱۲",
        "محمد12",
        "دِيفَارَاث",
        "ދިވެހި",
    ] {
        assert_eq!(kept(name), NFC.normalize(name), "{name}");
    }
}

#[test]
fn names_are_normalised() {
    for (typed, name) in [
        ("  Ada_L.1-2 ", "Ada_L.1-2"),
        ("Jose\u{301}", "José"),
        ("ＡＤＡ＿１", "ADA_1"),
        ("ｶﾞｷﾞｸﾞ", "ガギグ"),
        ("\u{212A}elvin", "Kelvin"),
        ("\u{212B}sa", "Åsa"),
        ("\u{1112}\u{1161}\u{11AB}국인", "한국인"),
        ("\u{958}लम", "\u{915}\u{93C}लम"),
    ] {
        assert_eq!(kept(typed), name, "{typed:?}");
    }
}

#[test]
fn length_is_counted_after_composition() {
    assert_eq!(kept(&"e\u{301}".repeat(32)).chars().count(), 32);
    assert_eq!(kept(&"я".repeat(32)).chars().count(), 32);
    for bad in ["", "ab", " ab ", "e\u{301}e", "ﾊﾟｶ", &"a".repeat(33), &"e\u{301}".repeat(33)] {
        assert!(refusal(bad).contains("3 to 32"), "{bad:?}");
    }
}

#[test]
fn invisible_and_variant_characters_are_rejected() {
    for bad in [
        "a b",
        "a@b",
        "a/b",
        "abc!",
        "a\0b",
        "a\nb",
        "a\u{85}b",
        "a\u{A0}b",
        "ab\u{1F375}",
        "👩‍🚀👩‍🚀👩‍🚀",
        "a\u{202E}bc",
        "a\u{200E}bc",
        "\u{3164}\u{3164}\u{3164}",
        "ada\u{3164}",
        "\u{115F}\u{1160}\u{115F}",
        "ada\u{FFA0}",
        "ada\u{AD}",
        "ada\u{34F}",
        "a\u{200B}da",
        "a\u{200D}da",
        "ක්\u{200D}ෂ",
        "می\u{200C}خواهم",
        "ada\u{FE0F}",
        "葛\u{E0100}城市",
        "ada\u{E0061}",
        "\u{1100}\u{1100}\u{1100}",
        "\u{3131}\u{3131}\u{3131}",
        "𝐚𝐝𝐚",
        "𝒶𝒹𝒶",
        "ᵃᵈᵃ",
        "adaⁿ",
        "ada²",
        "ﬁona",
        "ﬆan",
        "ªda",
        "ſam",
        "ŉda",
        "ĳda",
        "ǅon",
        "ⓐⓓⓐ",
        "ⅷⅷⅷ",
        "㍿㍿㍿",
        "ﷺﷺﷺ",
        "ﺍﺩﺍ",
        "\u{640}محمد",
        "محـمد",
        "\u{301}ada",
        "1\u{301}da",
        "ad_\u{301}",
        "ada\u{20DD}",
        "ada\u{E000}",
        "ada\u{378}",
        "ada\u{2800}",
        "Ⅻab",
        "½ab",
        "l·l·l",
    ] {
        refusal(bad);
    }
    for bad in ["_ada", ".ada", "-ada"] {
        assert_eq!(refusal(bad), "must begin with a letter or digit");
    }
    assert_eq!(kept("a\u{331}\u{325}\u{330}\u{332}da").chars().count(), 7);
    assert!(refusal("a\u{331}\u{325}\u{330}\u{332}\u{333}da").contains("at most 4 marks"));
}

#[test]
fn a_name_has_one_script() {
    for bad in [
        "аda",
        "adа",
        "Αda",
        "ada\u{582}",
        "Ꭺda",
        "ꮯaᴅ",
        "раypal",
        "αβγabc",
        "ивanов",
        "हिन्दीabc",
        "abcไทย",
        "田中taro",
        "김kim",
        "カΑカ",
        "ㄅㄆㄇか",
        "कাক",
        "ada१",
        "ไทย१२",
    ] {
        assert_eq!(refusal(bad), "must be written in one script", "{bad:?}");
    }
}

#[test]
fn a_name_has_one_set_of_digits_and_one_direction() {
    for bad in ["हिन्दी1२", "محمد1٢", "فارسی۱1", "ไทย1๒"] {
        assert_eq!(refusal(bad), "must use one set of digits", "{bad:?}");
    }
    for bad in ["1מרים", "מרים_", "מרים.", "1محمد", "محمد-", "٣٤٥", "1_שרה"] {
        assert!(refusal(bad).contains("right to left"), "{bad:?}");
    }
}

#[test]
fn service_names_are_reserved() {
    for bad in [
        "system",
        "System",
        "ADMIN",
        "admın",
        "аԁmіп",
        "ａｄｍｉｎ",
        "Confab",
        "deleted",
        "EVERYONE",
        "here",
        "hеrе",
        "room",
        "rооm",
        "sуstem",
        "confàb\u{0}",
    ] {
        refusal(bad);
    }
    assert_eq!(refusal(" Admin "), "is reserved");
    for good in ["admins", "rooms", "hereford", "roomy", "administrator"] {
        kept(good);
    }
}

#[test]
fn all_spellings_of_a_name_are_one_account() {
    for (one, other) in [
        ("Zoë", "ZOE\u{308}"),
        ("μαριοσ", "ΜΑΡΙΟΣ"),
        ("Straße", "STRASSE"),
        ("თამარ", "ᲗᲐᲛᲐᲠ"),
        ("ＡＤＡ", "ada"),
        ("ꮳꮃꭹ", "ᏣᎳᎩ"),
        ("\u{212A}im", "kim"),
    ] {
        assert_eq!(Username::parse(one).unwrap().folded, Username::parse(other).unwrap().folded, "{one} {other}");
    }
    assert_ne!(folded("ısı"), folded("isi"));
}

#[test]
fn lookalike_names_have_one_skeleton() {
    for (one, other) in [
        ("ace", "асе"),
        ("scope", "ѕсоре"),
        ("ada1", "adal"),
        ("barn", "bam"),
        ("ada", "ɑdɑ"),
        ("ooo", "οοο"),
        ("ooo", "օօօ"),
        ("ısı", "isi"),
        ("น้ำ", "น\u{E49}\u{E4D}\u{E32}"),
    ] {
        assert_eq!(key(one), key(other), "{one} {other}");
    }
    for (one, other) in [("ada", "eve"), ("ada", "ada_"), ("a.b", "a-b"), ("zoe", "zoë"), ("山田", "山本")] {
        assert_ne!(key(one), key(other), "{one} {other}");
    }
}

#[test]
fn folded_form_of_earlier_releases_is_unchanged() {
    assert_eq!(former(" STRASSE "), "strasse");
    assert_eq!(former("Straße"), "straße");
    assert_eq!(former("ΜΑΡΙΟΣ"), "μαριος");
    assert_eq!(former("ＡＤＡ"), "ａｄａ");
    assert_eq!(former("Zoe\u{308}"), folded("ZOË"));
}

#[test]
fn names_are_compared_in_the_shown_form() {
    for (one, other) in [
        ("lan", "Ian"),
        ("BOBBY", "B0BBY"),
        ("Oscar582", "0scar582"),
        ("mila582", "miIa582"),
        ("ivan582", "lvan582"),
        ("IVAN", "ivan"),
        ("bob", "b0b"),
    ] {
        assert_eq!(key(one), key(other), "{one} {other}");
    }
    assert_ne!(key("ada"), key("eda"));
    for reserved in ["DeIeted", "c0nfab", "r00m", "R00M", "ADMlN"] {
        assert_eq!(refusal(reserved), "is reserved");
    }
}

#[test]
fn blank_letters_are_rejected() {
    for blank in ["\u{13441}\u{13442}\u{13441}", "𓀀𓀀\u{13441}", "\u{18B00}\u{16FE4}\u{18B00}\u{18B00}"] {
        assert!(refusal(blank).contains("letters"), "{blank:?}");
    }
}

fn tried(claim: &str) -> Vec<String> {
    let id = "90b98074-64ad-5519-b800-eedf19d458d9".parse().unwrap();
    candidates(claim, id).map(|name| name.kept).collect()
}

#[test]
fn claims_become_usernames() {
    for (claim, name) in [
        ("Ada Lovelace", "ada_lovelace"),
        (" ADA ", "ada"),
        ("ada", "ada"),
        ("Al", "al"),
        ("Ada \t\n (the 1st)!", "ada_the_1st_"),
        ("ada@example.com", "ada_example.com"),
        ("_.-ada_.-", "ada_.-"),
        ("🍵 Ada", "ada"),
        ("Jose\u{301}", "josé"),
        ("ＡＤＡ＿１", "ada_1"),
        ("ΜΑΡΊΟΣ", "μαρίος"),
        ("Иван Петров", "иван_петров"),
        ("山田 太郎", "山田_太郎"),
        ("हिन्दी", "हिन्दी"),
        ("İnci", "i\u{307}nci"),
        ("ﬁona", "ona"),
        ("a\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}b", "á\u{302}\u{303}\u{304}\u{305}_b"),
        ("1\u{301}a", "1_a"),
        ("a\u{200B}\u{202E}b", "a_b"),
        ("a\0b", "a_b"),
        ("abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz0"),
        ("Ada аda", "ada_аda"),
    ] {
        let names = tried(claim);
        assert_eq!(names[0], name, "{claim:?}");
        assert!(names.iter().all(|name| name.chars().count() <= 32), "{names:?}");
    }
    for none in ["", " ", "!?", "🍵", "_.-", "\u{301}", "\u{3164}", "***\u{200B}"] {
        assert_eq!(tried(none)[0], "user", "{none:?}");
    }
}

#[test]
fn the_id_follows_a_name_that_is_taken() {
    assert_eq!(
        tried("Ada"),
        ["ada", "ada-sc4y", "ada-sc4ya5de", "ada-sc4ya5devvkrtoaa", "ada-sc4ya5devvkrtoaa53prtvcy3e"]
    );
    let long = "abcdefghijklmnopqrstuvwxyz0123456789";
    assert_eq!(
        tried(long)[1..],
        [
            "abcdefghijklmnopqrstuvwxyz0-sc4y",
            "abcdefghijklmnopqrstuvw-sc4ya5de",
            "abcdefghijklmno-sc4ya5devvkrtoaa",
            "abcde-sc4ya5devvkrtoaa53prtvcy3e"
        ]
    );
    // Reserved names are not tried alone.
    for reserved in ["System", "admin", "ADMlN", "Deleted", "room"] {
        let name = claimed(reserved);
        assert_eq!(tried(reserved)[0], format!("{name}-sc4y"), "{reserved}");
    }
}

#[test]
fn names_from_claims_are_folded_like_typed_ones() {
    let id = Uuid::nil();
    for claim in ["Straße", "ADA", "ISI", "ΜΑΡΊΟΣ"] {
        let made = candidates(claim, id).next().unwrap();
        assert_eq!((folded(&made.kept), &made.folded), (made.folded.clone(), &folded(claim)), "{claim}");
    }
}
