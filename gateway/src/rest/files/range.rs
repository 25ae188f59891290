//! `Range` (RFC 9110, section 14): a single range of bytes. The response to any other `Range` is the whole file.

use axum::http::HeaderMap;
use axum::http::header::RANGE;

/// The part of a file that a client requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file.
    Whole,
    /// A range from `first` to `last`, both inclusive and within the file.
    Part { first: u64, last: u64 },
    /// A range outside the file.
    Unsatisfiable,
}

/// The requested part of a file of `size` bytes.
pub fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Wanted::Whole };
    value.to_str().ok().and_then(|value| parse(value, size)).unwrap_or(Wanted::Whole)
}

/// Parses a single range; `None` for several ranges, another unit, and malformed ranges.
fn parse(value: &str, size: u64) -> Option<Wanted> {
    let (unit, range) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let wanted = match (first, last) {
        ("", last) => {
            let length = number(last)?.min(size);
            (length > 0).then(|| (size - length, size - 1))
        }
        (first, "") => {
            let first = number(first)?;
            (first < size).then(|| (first, size - 1))
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first < size).then(|| (first, last.min(size - 1)))
        }
    };
    Some(wanted.map_or(Wanted::Unsatisfiable, |(first, last)| Wanted::Part { first, last }))
}

/// Parses a number of any length; a number too large for a `u64` is capped.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value.parse().unwrap());
        wanted(&headers, size)
    }

    const fn part(first: u64, last: u64) -> Wanted {
        Wanted::Part { first, last }
    }

    #[test]
    fn a_single_range_is_parsed() {
        assert_eq!(of("bytes=0-0", 10), part(0, 0));
        assert_eq!(of("bytes=2-5", 10), part(2, 5));
        assert_eq!(of("bytes=9-", 10), part(9, 9));
        assert_eq!(of("bytes=-3", 10), part(7, 9));
        assert_eq!(of("bytes=-30", 10), part(0, 9));
        assert_eq!(of("bytes=5-99999999999999999999999", 10), part(5, 9));
        assert_eq!(of("Bytes= 0-9", 10), part(0, 9));
    }

    #[test]
    fn ranges_beyond_the_file_are_capped_or_unsatisfiable() {
        for beyond in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(beyond, 10), Wanted::Unsatisfiable, "{beyond}");
        }
        for empty in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(of(empty, 0), Wanted::Unsatisfiable, "{empty}");
        }
    }

    #[test]
    fn any_other_range_returns_the_whole_file() {
        let thousand = format!("bytes={}", vec!["0-0"; 1000].join(","));
        for other in [
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=--1",
            &thousand,
        ] {
            assert_eq!(of(other, 10), Wanted::Whole, "{other}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, "bytes=0-1".parse().unwrap());
        twice.append(RANGE, "bytes=2-3".parse().unwrap());
        assert_eq!((wanted(&twice, 10), wanted(&HeaderMap::new(), 10)), (Wanted::Whole, Wanted::Whole));
    }
}
