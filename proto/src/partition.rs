//! Maps rooms to partitions of the log.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// The number of partitions of a log, unless it was created with another number.
pub const DEFAULT_COUNT: u32 = 64;

/// Maximum number of partitions of a log.
pub const MAX_COUNT: u32 = 4096;

/// Returns the partition of a room in a log of `count` partitions: the top bits of xxh3-64 over the id's 16 bytes in
/// network order. Doubling `count` therefore splits every partition in two and keeps ranges contiguous.
///
/// `count` is a power of two from 1 to [`MAX_COUNT`]; see [`is_valid_count`].
pub fn of_room(room: Uuid, count: u32) -> u32 {
    debug_assert!(is_valid_count(count));
    match count.trailing_zeros() {
        0 => 0,
        bits => (xxh3_64(room.as_bytes()) >> (64 - bits)) as u32,
    }
}

/// Returns whether a log can have this many partitions.
pub fn is_valid_count(count: u32) -> bool {
    count.is_power_of_two() && count <= MAX_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        // Fixed permanently: with another mapping, existing logs would be misread.
        let vectors = [
            ("00000000-0000-0000-0000-000000000000", 52),
            ("0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01", 50),
            ("0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c02", 53),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", 28),
        ];
        for (room, partition) in vectors {
            assert_eq!(of_room(room.parse().unwrap(), 64), partition, "{room}");
        }
    }

    #[test]
    fn doubling_splits() {
        for n in 0..1000u128 {
            let room = Uuid::from_u128(n << 64 | 7);
            assert_eq!(of_room(room, 1), 0);
            assert_eq!(of_room(room, 128) / 2, of_room(room, 64));
        }
    }

    #[test]
    fn counts() {
        assert!(is_valid_count(1) && is_valid_count(64) && is_valid_count(4096));
        assert!(!is_valid_count(0) && !is_valid_count(63) && !is_valid_count(8192));
    }
}
