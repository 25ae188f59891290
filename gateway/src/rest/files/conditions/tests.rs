use super::*;

/// 6 November 1994, 08:49:37 and some milliseconds.
fn validators() -> Validators {
    Validators::of(&File { sha256: "abc".into(), created_at_ms: 784_111_777_321, ..File::default() })
}

fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn validators_become_headers() {
    let [(_, tag), (_, modified)] = validators().headers();
    assert_eq!((tag.to_str().unwrap(), modified.to_str().unwrap()), ("\"abc\"", "Sun, 06 Nov 1994 08:49:37 GMT"));
}

#[test]
fn a_tag_takes_precedence_over_a_date() {
    let known = |pairs: &[_]| validators().is_known_to(&headers(pairs));
    for same in ["\"abc\"", "W/\"abc\"", "*", "\"x\", W/\"y\",\"abc\""] {
        assert!(known(&[(IF_NONE_MATCH, same)]), "{same}");
    }
    assert!(known(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")]));
    for other in ["\"abd\"", "abc", "", "w/\"abc\""] {
        assert!(!known(&[(IF_NONE_MATCH, other)]), "{other}");
        assert!(!known(&[(IF_NONE_MATCH, other), (IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT")]), "{other}");
    }
    assert!(!known(&[]));
}

#[test]
fn preconditions_reject_another_version() {
    let expected = |pairs: &[_]| validators().are_expected_by(&headers(pairs));
    for same in ["\"abc\"", "*", "\"x\", \"abc\""] {
        assert!(expected(&[(IF_MATCH, same)]), "{same}");
        // A tag takes precedence over a date.
        assert!(expected(&[(IF_MATCH, same), (IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]), "{same}");
    }
    for other in ["\"abd\"", "W/\"abc\"", "abc", ""] {
        assert!(!expected(&[(IF_MATCH, other)]), "{other}");
    }
    for until in ["Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 00:00:00 GMT", "yesterday"] {
        assert!(expected(&[(IF_UNMODIFIED_SINCE, until)]), "{until}");
    }
    assert!(!expected(&[(IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]));
    assert!(expected(&[]));
}

#[test]
fn all_http_date_formats_are_read() {
    let known = |date| validators().is_known_to(&headers(&[(IF_MODIFIED_SINCE, date)]));
    for since in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Mon, 07 Nov 1994 00:00:00 GMT",
    ] {
        assert!(known(since), "{since}");
    }
    for before in ["Sun, 06 Nov 1994 08:49:36 GMT", "yesterday", ""] {
        assert!(!known(before), "{before}");
    }
}

#[test]
fn a_range_needs_the_same_version() {
    let allow = |condition| validators().allow_range(&headers(&[(IF_RANGE, condition)]));
    assert!(validators().allow_range(&HeaderMap::new()));
    assert!(allow("\"abc\"") && allow("Sun, 06 Nov 1994 08:49:37 GMT"));
    for other in ["W/\"abc\"", "\"abd\"", "*", "Mon, 07 Nov 1994 00:00:00 GMT", "x"] {
        assert!(!allow(other), "{other}");
    }
}
