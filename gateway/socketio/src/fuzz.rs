//! Entry points for the fuzzer, and the replay of its corpus. No parser may panic or exceed its limits, for any input.

use bytes::Bytes;

use crate::engine::payload::{Packet as Part, SEPARATOR, packets};
use crate::frame::Frame;
use crate::packet::{EventPayload, Packet};
use crate::protocol::{Attachment, Protocol, Step};

/// Largest packet in these runs, in bytes.
const MAX_PACKET: usize = 4096;

/// Parses one Socket.IO packet. The payload of a valid packet is a suffix of the input.
pub fn packet(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(packet) = Packet::parse(text) else { return };
    assert!(text.ends_with(packet.data) && packet.attachments <= 10);
    if let Ok(event) = EventPayload::parse(packet.data) {
        let sent = Frame::event(&event.name, &event.argument);
        assert!(sent.packet().starts_with(b"42["));
    }
}

/// Parses the payload of a POST.
pub fn payload(data: &[u8]) {
    for part in packets(data, MAX_PACKET).flatten() {
        match part {
            Part::Text(text) => assert!(text.len() <= MAX_PACKET),
            Part::Binary(bytes) => assert!(bytes.len() <= data.len()),
        }
    }
}

/// Runs a complete session; `accept` stands for the application's answer to CONNECT. The protocol must return the
/// number of bytes that it has counted.
pub fn protocol(data: &[u8]) {
    let (protocol, mut held, mut connected) = (Protocol::new(1000), 0, false);
    for packet in data.split(|byte| *byte == SEPARATOR) {
        match packet {
            b"accept" => connected |= protocol.accept(),
            [b'b', bytes @ ..] => match protocol.binary(Bytes::copy_from_slice(bytes), MAX_PACKET) {
                Ok(Attachment::Waiting) => held += bytes.len(),
                Ok(Attachment::Complete(partial)) => {
                    assert_eq!(partial.bytes(), held + bytes.len());
                    held = 0;
                    if let Ok(Step::Event(event)) = protocol.complete(&partial) {
                        assert!(event.size <= MAX_PACKET && !event.attachments.is_empty());
                    }
                }
                Err(_) => break,
            },
            text => {
                let Ok(text) = std::str::from_utf8(text) else { break };
                match protocol.text(text, connected) {
                    Ok(Step::Waiting) => {
                        assert!(Protocol::may_wait(text));
                        held += text.len();
                    }
                    Ok(Step::Event(event)) => assert!(event.size <= text.len()),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
    assert_eq!(protocol.end(), held);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in
            [("packet", super::packet as fn(&[u8])), ("payload", super::payload), ("protocol", super::protocol)]
        {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let inputs = std::fs::read_dir(&corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
            assert!(inputs.inspect(|input| target(input)).count() >= 5, "{name}");
        }
    }
}
