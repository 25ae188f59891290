//! The recovery offset: all data that a gateway needs to recover a client. The client itself stores it.
//!
//! Format: base64 (RFC 4648 section 5, unpadded) of the version (1 byte), the pid (8), the mark of the user (8), the
//! epoch of the log (16), the number of rooms (1), and for each room its id (16) and a LEB128 number: 0 while the
//! client joins the room, otherwise one more than the newest `seq` of the room that the gateway has sent.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use indexmap::IndexMap;
use uuid::Uuid;

/// Maximum number of rooms in an offset.
pub const MAX_ROOMS: usize = 16;
/// The number of rooms of a client that cannot be recovered, because it is in more than [`MAX_ROOMS`].
const BEYOND: u8 = u8::MAX;
const VERSION: u8 = 1;
const FIXED: usize = 34;
/// Longest LEB128 number of 64 bits, in bytes.
const MAX_NUMBER: usize = 10;
/// Longest offset, in characters.
pub const MAX_LENGTH: usize = (FIXED + MAX_ROOMS * (16 + MAX_NUMBER)).div_ceil(3) * 4;

/// The newest events that the gateway has sent to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// Identifies a connection and the connections that recovered it. An offset is valid only with its own pid.
    pub pid: u64,
    /// Distinguishes users; see [`mark`].
    pub user: u64,
    /// The log's epoch; nil before the first room.
    pub epoch: Uuid,
    /// The newest `seq` sent for each room; `None` while the client joins it.
    pub rooms: IndexMap<Uuid, Option<u64>>,
}

impl Offset {
    /// The offset of a new client, with a random pid and no room.
    pub fn new(user: &str) -> Self {
        // The low half of a UUIDv4 is 62 random bits.
        Self { pid: Uuid::new_v4().as_u64_pair().1, user: mark(user), epoch: Uuid::nil(), rooms: IndexMap::new() }
    }

    /// The pid in the form that clients receive.
    pub fn pid(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.pid.to_be_bytes())
    }

    /// Encodes the offset as a string for the client.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(FIXED + self.rooms.len().min(MAX_ROOMS) * (16 + 3));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.pid.to_be_bytes());
        bytes.extend_from_slice(&self.user.to_be_bytes());
        bytes.extend_from_slice(self.epoch.as_bytes());
        if self.rooms.len() > MAX_ROOMS {
            bytes.push(BEYOND);
        } else {
            bytes.push(self.rooms.len() as u8);
            for (room, seq) in &self.rooms {
                bytes.extend_from_slice(room.as_bytes());
                put_number(&mut bytes, seq.map_or(0, |seq| seq + 1));
            }
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes an offset that a client of this user presents with this pid. `None` when the client cannot be recovered
    /// exactly: the offset is malformed, belongs to another user or pid, or has a room that the client was joining or
    /// too many rooms.
    pub fn decode(text: &str, pid: &str, user: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        let [VERSION] = take(&mut rest)? else { return None };
        let mut offset = Self {
            pid: u64::from_be_bytes(take(&mut rest)?),
            user: u64::from_be_bytes(take(&mut rest)?),
            epoch: Uuid::from_bytes(take(&mut rest)?),
            rooms: IndexMap::new(),
        };
        let [count] = take(&mut rest)?;
        if usize::from(count) > MAX_ROOMS {
            return None;
        }
        for _ in 0..count {
            let room = Uuid::from_bytes(take(&mut rest)?);
            let seq = take_number(&mut rest)?.checked_sub(1)?;
            if offset.rooms.insert(room, Some(seq)).is_some() {
                return None;
            }
        }
        let fits = rest.is_empty() && offset.pid() == pid && offset.user == mark(user);
        fits.then_some(offset)
    }
}

/// The random half of a user's id. It distinguishes users without containing the id. Access to rooms is checked
/// separately.
fn mark(user: &str) -> u64 {
    Uuid::parse_str(user).unwrap_or_default().as_u64_pair().1
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..MAX_NUMBER {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the one remaining bit.
        if place == MAX_NUMBER - 1 && bits > 1 {
            return None;
        }
        number |= bits << (7 * place);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";

    fn offset(rooms: usize) -> Offset {
        let rooms = (0..rooms as u64).map(|n| (Uuid::from_u128(n.into()), Some(n * n * n * 1000))).collect();
        Offset { epoch: Uuid::now_v7(), rooms, ..Offset::new(USER) }
    }

    fn read(offset: &Offset) -> Option<Offset> {
        Offset::decode(&offset.encode(), &offset.pid(), USER)
    }

    #[test]
    fn an_offset_survives_encoding() {
        for rooms in [0, 1, MAX_ROOMS] {
            let offset = offset(rooms);
            assert_eq!(read(&offset).as_ref(), Some(&offset));
        }
        let mut largest = offset(MAX_ROOMS);
        largest.rooms.values_mut().for_each(|seq| *seq = Some(u64::MAX - 1));
        assert!(largest.encode().len() <= MAX_LENGTH);
        assert_eq!(read(&largest), Some(largest));
    }

    #[test]
    fn inexact_offsets_are_rejected() {
        assert_eq!(read(&offset(MAX_ROOMS + 1)), None);
        let mut joining = offset(3);
        joining.rooms[1] = None;
        assert_eq!(read(&joining), None);
        let offset = offset(2);
        let text = offset.encode();
        assert_eq!(Offset::decode(&text, &Offset::new(USER).pid(), USER), None);
        assert_eq!(Offset::decode(&text, &offset.pid(), &Uuid::now_v7().to_string()), None);
    }

    #[test]
    fn malformed_offsets_are_rejected() {
        let offset = offset(2);
        let text = offset.encode();
        let read = |text: &str| Offset::decode(text, &offset.pid(), USER);
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), None);
        }
        for bad in [format!("{text}AAAA"), "A".repeat(MAX_LENGTH + 4), "\u{1F600}".into(), text.replacen('A', "-", 1)] {
            assert_ne!(read(&bad).as_ref(), Some(&offset), "{bad}");
        }
        // A duplicate room, a number without an end, and a number over 64 bits.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        let with = |rooms: &[u8]| read(&BASE64_URL_SAFE_NO_PAD.encode([&bytes[..FIXED - 1], rooms].concat()));
        let room = [7; 16];
        assert!(with(&[&[1], &room[..], &[1]].concat()).is_some());
        assert!(with(&[&[2], &room[..], &[1], &room, &[1]].concat()).is_none());
        assert!(with(&[&[1], &room[..], &[0xff; 12]].concat()).is_none());
        assert!(with(&[&[1], &room[..], &[0xff; 9], &[2]].concat()).is_none());
    }
}
