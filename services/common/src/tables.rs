//! Shrinks hash tables after a burst of entries.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

/// Tables with a smaller capacity, in entries, are not shrunk.
const SMALL: usize = 1024;

/// Frees most of the memory that a table allocated for a burst of entries.
pub fn shrink<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if is_sparse(table.len(), table.capacity()) {
        table.shrink_to(2 * table.len());
    }
}

/// The same for a set.
pub fn shrink_set<T: Eq + Hash, S: BuildHasher>(table: &mut HashSet<T, S>) {
    if is_sparse(table.len(), table.capacity()) {
        table.shrink_to(2 * table.len());
    }
}

fn is_sparse(entries: usize, room: usize) -> bool {
    room > SMALL && entries < room / 8
}
