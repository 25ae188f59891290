use super::*;

fn terms_of(text: &str) -> Vec<String> {
    terms(text).into_iter().collect()
}

fn found(query: &str, text: &str) -> Option<Vec<(u32, u32)>> {
    Query::of(query).highlights(text)
}

#[test]
fn words_are_folded() {
    for (text, expected) in [
        ("Crème BRÛLÉE", &["brulee", "creme"][..]),
        ("Cre\u{301}me", &["creme"]),
        ("Straße STRASSE", &["strasse"]),
        ("ΣΊΣΥΦΟΣ Σίσυφος", &["σισυφοσ"]),
        ("İstanbul ISTANBUL", &["istanbul"]),
        ("Ёлка й", &["елка", "и"]),
        ("ﬁn ２０２６ Ⅳ", &["2026", "fin", "iv"]),
        ("soft\u{ad}ware a\u{200d}b", &["ab", "software"]),
        ("مُحَمَّد أحمد", &["احمد", "محمد"]),
        ("שָׁלוֹם", &["שלום"]),
        ("हिन्दी", &["हिन्दी"]),
        ("don't e-mail me@example.com a_b", &["a", "b", "com", "don", "e", "example", "mail", "me", "t"]),
        ("👍 … !", &[]),
        ("", &[]),
    ] {
        assert_eq!(terms_of(text), expected, "{text}");
    }
}

#[test]
fn runs_have_characters_and_pairs() {
    assert_eq!(terms_of("上海 3号"), ["3", "上", "上海", "号", "海"]);
    assert_eq!(terms_of("ｶﾞｽ ガス"), ["ガ", "ガス", "ス"]);
    // The parts of syllables, as some systems write them.
    assert_eq!(terms_of("\u{1112}\u{1161}\u{11ab}국"), terms_of("한국"));
    assert_eq!(terms_of("กา"), ["ก", "กา", "า"]);
    for text in ["ສະບາຍດີ", "ភាសាខ្មែរ", "မြန်မာ", "こんにちは", "한국어"]
    {
        assert!(matches!(&pieces(text)[..], [Piece::Run(_)]), "{text}: {:?}", pieces(text));
    }
}

#[test]
fn all_words_must_be_there_in_any_order() {
    assert_eq!(found("fox quick", "The quick brown fox"), Some(vec![(4, 9), (16, 19)]));
    assert_eq!(found("fox slow", "The quick brown fox"), None);
    assert_eq!(found("", "The quick brown fox"), Some(vec![]));
    assert_eq!(found("海上", "上海"), None);
    assert_eq!(found("上海 手机", "我在上海买了iPhone手机"), Some(vec![(2, 4), (12, 14)]));
    assert_eq!(found("京都", "東京、都"), None, "punctuation ends a run");
}

#[test]
fn beginning_of_the_last_word_is_enough() {
    assert_eq!(found("quick fo", "quick foxes"), Some(vec![(0, 5), (6, 11)]));
    assert_eq!(found("qui foxes", "quick foxes"), None);
    assert_eq!(found("f", "foxes"), None, "one character finds only itself");
    assert_eq!(found("oxes", "foxes"), None);
    let needed = |query: &str| Query::of(query).needed();
    let need = |term: &str, prefix| Needed { term: term.into(), prefix };
    assert_eq!(needed("quick fo"), [need("quick", false), need("fo", true)]);
    assert_eq!(needed("上海人"), [need("上海", false), need("海人", false)]);
    assert_eq!(needed("猫"), [need("猫", false)]);
    assert_eq!(needed("a a A"), [need("a", false)]);
}

#[test]
fn highlights_count_scalar_values_and_are_joined() {
    assert_eq!(found("cafe", "👍 Cafe\u{301} x"), Some(vec![(2, 7)]));
    assert_eq!(found("strasse", "ab Straße"), Some(vec![(3, 9)]));
    assert_eq!(found("人人", "人人人人"), Some(vec![(0, 4)]));
    assert_eq!(found("한", "한국 한"), Some(vec![(0, 1), (3, 4)]));
    let long = "a b ".repeat(1000);
    assert_eq!(found("a", &long).unwrap().len(), 100);
}

#[test]
fn long_words_are_found_by_their_beginning() {
    let long = "x".repeat(10_000);
    assert_eq!(terms_of(&long), ["x".repeat(MAX_TERM)]);
    let wanted = "x".repeat(190);
    assert_eq!(Query::of(&wanted).needed(), [Needed { term: "x".repeat(MAX_TERM), prefix: false }]);
    assert!(found(&wanted, &long).is_some());
    assert!(found(&format!("{}y", "x".repeat(100)), &long).is_none());
}

#[test]
fn every_text_that_matches_has_the_needed_terms() {
    let texts =
        ["我喜欢猫和狗", "Crème brûlée", "東京タワーへ行く", "검색 기능", "ภาษาไทยง่าย", "a1 b2 c3", "Straße 42"];
    for text in texts {
        let (terms, letters) = (terms(text), text.chars().collect::<Vec<_>>());
        for start in 0..letters.len() {
            for end in start + 1..=letters.len() {
                let query = Query::of(&letters[start..end].iter().collect::<String>());
                if query.highlights(text).is_none() {
                    continue;
                }
                for Needed { term, prefix } in query.needed() {
                    let has = terms.iter().any(|has| *has == term || (prefix && has.starts_with(&term)));
                    assert!(has, "{text}: {term}");
                }
            }
        }
    }
}

#[test]
fn no_word_is_the_term_of_a_room() {
    let room = Uuid::now_v7();
    assert_eq!(terms(&of_room(room)).len(), 1, "the mark is no letter");
    assert!(!terms(&of_room(room)).contains(&of_room(room)));
    assert_ne!(of_room(room), of_sender(room));
}
