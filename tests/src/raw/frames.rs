//! WebSocket frames as clients send them.

/// Returns a frame as clients send it (RFC 6455 section 5.2): the given first byte, and a masked payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x13, 0xc7, 0x88];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub fn text(packet: &str) -> Vec<u8> {
    frame(0x81, packet.as_bytes())
}

pub fn binary(data: &[u8]) -> Vec<u8> {
    frame(0x82, data)
}
