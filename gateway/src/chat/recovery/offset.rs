//! The recovery offset: everything needed to recover a client, kept by the client itself.
//!
//! Bytes, then base64 (RFC 4648 section 5, unpadded): version, pid (8), mark of the user (8), epoch of the log (16),
//! number of rooms, and for each its id (16) and a LEB128 number: 0 while the client is joining it, else one more than
//! the newest `seq` of the room sent to the client.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use indexmap::IndexMap;
use uuid::Uuid;

/// Most rooms that are recovered.
pub const MAX_ROOMS: usize = 16;
/// Marks a client that cannot be recovered.
const BEYOND: u8 = u8::MAX;
const VERSION: u8 = 1;
const FIXED: usize = 34;
/// Longest LEB128 number of 64 bits, in bytes.
const MAX_NUMBER: usize = 10;
/// Longest offset, in characters.
pub const MAX_LENGTH: usize = (FIXED + MAX_ROOMS * (16 + MAX_NUMBER)).div_ceil(3) * 4;

/// What a client has been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// Identifies the offset's chain of connections. An offset of another chain is meaningless.
    pub pid: u64,
    /// Distinguishes users; see [`mark`].
    pub user: u64,
    /// The log's epoch. None before the first room.
    pub epoch: Uuid,
    /// The newest `seq` sent of each room; `None` while it is being joined.
    pub rooms: IndexMap<Uuid, Option<u64>>,
}

impl Offset {
    /// The offset of a client that has been sent nothing.
    pub fn new(user: &str) -> Self {
        // The low half of a UUIDv4 is 62 random bits.
        Self { pid: Uuid::new_v4().as_u64_pair().1, user: mark(user), epoch: Uuid::nil(), rooms: IndexMap::new() }
    }

    /// The pid in the form that clients receive.
    pub fn pid(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.pid.to_be_bytes())
    }

    /// The offset as a string that the client keeps.
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

    /// Reads an offset that a client kept under a pid, for its present user. `None` when the client cannot be recovered
    /// exactly: the offset is another user's, names another pid, was joining a room, or has too many rooms.
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

/// Distinguishes users without naming them: the random half of the id. Access to rooms is checked separately.
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
    fn comes_back_as_it_went() {
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
    fn what_is_not_exact_is_none() {
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
    fn nonsense_is_none() {
        let offset = offset(2);
        let text = offset.encode();
        let read = |text: &str| Offset::decode(text, &offset.pid(), USER);
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), None);
        }
        for bad in [format!("{text}AAAA"), "A".repeat(MAX_LENGTH + 4), "\u{1F600}".into(), text.replacen('A', "-", 1)] {
            assert_ne!(read(&bad).as_ref(), Some(&offset), "{bad}");
        }
        // A duplicate room, an endless number, one that is too large.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
        let with = |rooms: &[u8]| read(&BASE64_URL_SAFE_NO_PAD.encode([&bytes[..FIXED - 1], rooms].concat()));
        let room = [7; 16];
        assert!(with(&[&[1], &room[..], &[1]].concat()).is_some());
        assert!(with(&[&[2], &room[..], &[1], &room, &[1]].concat()).is_none());
        assert!(with(&[&[1], &room[..], &[0xff; 12]].concat()).is_none());
        assert!(with(&[&[1], &room[..], &[0xff; 9], &[2]].concat()).is_none());
    }
}
