//! Entry points for the fuzzer, and the replay of its corpus. The parsers of recovery offsets and cursors, which clients
//! store, of forms, and of hints must not panic or exceed their limits for any input.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use confab_common::cursor;
use futures::stream;
use tokio::runtime::Builder;
use uuid::Uuid;

use crate::chat::recovery::Offset;
use crate::rest::files::multipart::{FILE, Form};
use crate::rooms::effect::Effect;
use crate::rooms::partition::read_hint;
use crate::views::history::{Changes, Position};

/// Most parts of a form, and most bytes of a field.
const MAX_FORM: (usize, usize) = (20, 1024);

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

/// Decodes a cursor of a room's history, or of its changed messages.
pub fn page(data: &[u8]) {
    let room = Uuid::from_u128(0x0193_a4c0_7d50_7cc3_98a5_2f6b_8e1d_0c01);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(position) = Position::of_cursor(room, text) {
        assert_eq!(Position::of_cursor(room, &cursor::encode(&(room, position))).ok(), Some(position));
    }
    if let Ok(changes) = Changes::of_cursor(room, text) {
        assert_eq!(Changes::of_cursor(room, &cursor::encode(&(room, changes))).ok(), Some(changes));
    }
}

/// Reads the body of a form, whose boundary is `XX`. The first byte is the size of the pieces in which it arrives.
pub fn form(data: &[u8]) {
    let Some((size, body)) = data.split_first() else { return };
    let pieces = body.chunks((*size).max(1).into()).map(Bytes::copy_from_slice).map(Ok::<_, Infallible>);
    let body = Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()));
    let request = Request::builder().header(CONTENT_TYPE, "multipart/form-data; boundary=XX").body(body);
    let (Ok(request), Ok(runtime)) = (request, Builder::new_current_thread().enable_time().build()) else { return };
    let parts = runtime.block_on(async { read(Form::of(request).ok()?).await });
    let Some(parts) = parts else { return };
    assert!(parts.len() <= MAX_FORM.0 && parts.iter().all(|size| *size <= MAX_FORM.1));
}

/// The sizes of the fields; 0 for a file. `None` for a malformed form.
async fn read(mut form: Form) -> Option<Vec<usize>> {
    let mut sizes = Vec::new();
    while let Some(mut part) = form.next().await.ok()? {
        if part.name() == FILE {
            let _ = (part.file_name(), part.content_type());
            while part.chunk().await.ok()?.is_some() {}
            sizes.push(0);
        } else {
            sizes.push(part.text().await.ok()?.len());
        }
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        let offset = super::offset as fn(&[u8]);
        for (name, target) in [("offset", offset), ("hint", super::hint), ("page", super::page), ("form", super::form)]
        {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let inputs = std::fs::read_dir(&corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
            assert!(inputs.inspect(|input| target(input)).count() >= 5, "{name}");
        }
    }
}
