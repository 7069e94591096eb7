//! The records of each owner, and the owners of each connection.
//!
//! Cleaning up after a connection thus takes time in proportion to its records. Only owners
//! with records are stored, and only connections with owners.
//!
//! Nothing here panics on the number of an existing owner.

use super::record::{ListLinks, NONE, RecordTable};
use super::record_index::LockHasher;
use crate::id::{ConnectionId, Owner};
use crate::table::chunked_vec::ChunkedVec;
use crate::table::hash_index::HashIndex;

/// The records of one owner. A vacant number has none.
struct OwnerEntry {
    owner: Owner,
    connection: u32,
    /// The most recent record of the owner.
    records: u32,
    /// Links in the list of the connection.
    links: ListLinks,
}

const _: () = assert!(size_of::<OwnerEntry>() <= 32, "the documentation states the memory of an owner");

impl Default for OwnerEntry {
    fn default() -> Self {
        let owner = Owner { connection: ConnectionId::new(0), local: 0 };
        Self { owner, connection: NONE, records: NONE, links: ListLinks::NONE }
    }
}

struct OwnerConnection {
    id: ConnectionId,
    /// The most recent owner of the connection.
    owners: u32,
}

impl Default for OwnerConnection {
    fn default() -> Self {
        Self { id: ConnectionId::new(0), owners: NONE }
    }
}

/// The owners of all records of a table.
pub(super) struct OwnerTable {
    hasher: LockHasher,
    index: HashIndex,
    /// By the number that `index` assigned.
    entries: ChunkedVec<OwnerEntry>,
    connection_index: HashIndex,
    /// By the number that `connection_index` assigned.
    connections: ChunkedVec<OwnerConnection>,
}

impl OwnerTable {
    pub(super) fn new(hasher: LockHasher) -> Self {
        Self {
            hasher,
            index: HashIndex::new(),
            entries: ChunkedVec::new(),
            connection_index: HashIndex::new(),
            connections: ChunkedVec::new(),
        }
    }

    pub(super) const fn len(&self) -> u32 {
        self.index.len()
    }

    /// The number of an owner, if it has any records.
    #[inline]
    pub(super) fn find(&self, owner: Owner) -> Option<u32> {
        self.index.find(self.hash(owner), |number| self.entries[number].owner == owner)
    }

    pub(super) fn owner(&self, number: u32) -> Owner {
        self.entries[number].owner
    }

    /// Adds a record to an owner, which is inserted if needed.
    pub(super) fn attach(&mut self, records: &mut RecordTable, owner: Owner, record: u32) {
        let number = self.find(owner).unwrap_or_else(|| self.insert(owner));
        let next = std::mem::replace(&mut self.entries[number].records, record);
        records[record].owner = number;
        records[record].of_owner = ListLinks { prev: NONE, next };
        if next != NONE {
            records[next].of_owner.prev = record;
        }
    }

    /// Removes a record from its owner, which is removed with its last record.
    pub(super) fn detach(&mut self, records: &mut RecordTable, record: u32) {
        let number = records[record].owner;
        let ListLinks { prev, next } = records[record].of_owner;
        if next != NONE {
            records[next].of_owner.prev = prev;
        }
        if prev != NONE {
            records[prev].of_owner.next = next;
        } else if next != NONE {
            self.entries[number].records = next;
        } else {
            self.remove(number);
        }
    }

    /// The records of an owner, the most recent first.
    pub(super) fn records_of<'a>(
        &self,
        records: &'a RecordTable,
        number: u32,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let number_or_end = |number: u32| (number != NONE).then_some(number);
        let first = number_or_end(self.entries[number].records);
        std::iter::successors(first, move |record| number_or_end(records[*record].of_owner.next))
    }

    /// The owners of a connection, the most recent first.
    pub(super) fn owners_of(&self, id: ConnectionId) -> impl Iterator<Item = u32> + use<'_> {
        let number_or_end = |number: u32| (number != NONE).then_some(number);
        let connection = self.find_connection(id);
        let first = connection.and_then(|connection| number_or_end(self.connections[connection].owners));
        std::iter::successors(first, move |number| number_or_end(self.entries[*number].links.next))
    }

    fn insert(&mut self, owner: Owner) -> u32 {
        let number = self.index.insert(self.hash(owner));
        let connection = self.find_connection(owner.connection).unwrap_or_else(|| {
            let connection = self.connection_index.insert(self.connection_hash(owner.connection));
            self.connections.set_or_push(connection, OwnerConnection { id: owner.connection, owners: NONE });
            connection
        });
        let next = std::mem::replace(&mut self.connections[connection].owners, number);
        if next != NONE {
            self.entries[next].links.prev = number;
        }
        let links = ListLinks { prev: NONE, next };
        self.entries.set_or_push(number, OwnerEntry { owner, connection, records: NONE, links });
        number
    }

    fn remove(&mut self, number: u32) {
        let OwnerEntry { connection, links: ListLinks { prev, next }, .. } =
            std::mem::take(&mut self.entries[number]);
        self.index.remove(number);
        if next != NONE {
            self.entries[next].links.prev = prev;
        }
        if prev != NONE {
            self.entries[prev].links.next = next;
        } else if next != NONE {
            self.connections[connection].owners = next;
        } else {
            self.connections[connection] = OwnerConnection::default();
            self.connection_index.remove(connection);
        }
    }

    fn find_connection(&self, id: ConnectionId) -> Option<u32> {
        self.connection_index.find(self.connection_hash(id), |number| self.connections[number].id == id)
    }

    fn hash(&self, owner: Owner) -> u32 {
        self.hasher.numbers(owner.connection.number(), owner.local)
    }

    fn connection_hash(&self, id: ConnectionId) -> u32 {
        self.hasher.numbers(id.number(), 0)
    }

    /// The number of connections with owners.
    #[cfg(test)]
    pub(super) const fn connections_len(&self) -> u32 {
        self.connection_index.len()
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<u32> {
        (0..self.entries.len() as u32).filter(|number| self.entries[*number].records != NONE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::lock::record::{LockRecord, RecordStage};

    fn owner(connection: u64, local: u64) -> Owner {
        Owner { connection: ConnectionId::new(connection), local }
    }

    #[test]
    fn owner_exists_while_it_has_records() {
        let mut owners = OwnerTable::new(LockHasher::new([1, 2]));
        let mut records = RecordTable::new();
        let give = |owners: &mut OwnerTable, records: &mut RecordTable, to| {
            let record = records.insert(LockRecord { stage: RecordStage::Queued, ..LockRecord::default() });
            owners.attach(records, to, record);
            record
        };
        let all: Vec<u32> = [(1, 1), (1, 2), (1, 1), (2, 1), (1, 1)]
            .map(|(connection, local)| give(&mut owners, &mut records, owner(connection, local)))
            .to_vec();
        let has = |owners: &OwnerTable, records: &RecordTable, owner| {
            owners.find(owner).map_or(Vec::new(), |number| owners.records_of(records, number).collect())
        };
        assert_eq!(has(&owners, &records, owner(1, 1)), [all[4], all[2], all[0]]);
        assert_eq!((owners.len(), owners.connections_len()), (3, 2));
        let of = |owners: &OwnerTable, id| -> Vec<Owner> {
            owners.owners_of(ConnectionId::new(id)).map(|number| owners.owner(number)).collect()
        };
        assert_eq!(of(&owners, 1), [owner(1, 2), owner(1, 1)]);
        for record in [all[2], all[4], all[0]] {
            owners.detach(&mut records, record);
        }
        assert_eq!((of(&owners, 1), owners.find(owner(1, 1))), (vec![owner(1, 2)], None));
        for record in [all[1], all[3]] {
            owners.detach(&mut records, record);
        }
        assert_eq!((of(&owners, 1), of(&owners, 2)), (vec![], vec![]));
        assert_eq!((owners.len(), owners.connections_len()), (0, 0));
    }
}
