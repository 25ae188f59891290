//! Entry points for the fuzzer, and the replay of its corpus. The parsers of recovery offsets, which clients store, and
//! of hints must not panic for any input.

use bytes::Bytes;

use crate::chat::recovery::Offset;
use crate::rooms::effect::Effect;
use crate::rooms::partition::read_hint;

/// Decodes a recovery offset, which follows the pid and a line break.
pub fn offset(data: &[u8]) {
    const USER: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pid, offset) = text.split_once('\n').unwrap_or(("", text));
    if let Some(read) = Offset::decode(offset, pid, USER) {
        assert_eq!(Offset::decode(&read.encode(), pid, USER).as_ref(), Some(&read));
    }
}

/// Decodes a hint from the bus.
pub fn hint(data: &[u8]) {
    let Some(hint) = read_hint(&Bytes::copy_from_slice(data), 0) else { return };
    for (position, event) in (hint.first_position..).zip(&hint.events) {
        assert_eq!(event.position, position);
        crate::rooms::event::encode(event);
        let _ = Effect::of(event);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in [("offset", super::offset as fn(&[u8])), ("hint", super::hint)] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let inputs = std::fs::read_dir(&corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
            assert!(inputs.inspect(|input| target(input)).count() >= 5, "{name}");
        }
    }
}
