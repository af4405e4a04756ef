//! Writes that wait to be written together, and the view through them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use bytes::{Bytes, BytesMut};

use crate::store::{StoreError, View, WriteBatch};

/// The batch in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    writes: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
    /// Where the bytes of small writes are put, one behind the other: two allocations a write would cost more than
    /// all else about it. Each key and value keeps the whole chunk.
    chunk: BytesMut,
    /// By key the place of its last write, for the first `indexed` writes. Built only when somebody
    /// reads: most batches are puts, which do not.
    index: BTreeMap<Bytes, usize>,
    indexed: usize,
}

impl Pending {
    pub(super) fn push(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.writes.push((Bytes::from(key), value));
    }

    /// Adds a key and its value, each given in parts.
    pub(super) fn put(&mut self, key: &[&[u8]], value: Option<&[&[u8]]>) {
        let len = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>();
        let (key_len, value_len) = (len(key), value.map_or(0, len));
        let both = key_len + value_len;
        if both > self.chunk.capacity() {
            self.chunk = BytesMut::with_capacity(both.max(CHUNK));
        }
        for part in key.iter().chain(value.unwrap_or_default()) {
            self.chunk.extend_from_slice(part);
        }
        let mut written = self.chunk.split().freeze();
        let key = written.split_to(key_len);
        self.bytes += both;
        self.writes.push((key, value.map(|_| written)));
    }

    /// The value of a key as it will be once these writes are done.
    pub(super) fn get(
        &mut self,
        view: &impl View,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        while let Some((key, _)) = self.writes.get(self.indexed) {
            self.index.insert(key.clone(), self.indexed);
            self.indexed += 1;
        }
        match self.index.get(key) {
            Some(place) => Ok(self.writes[*place].1.clone()),
            None => view.get(key),
        }
    }

    pub(super) fn writes(&self) -> &[(Bytes, Option<Bytes>)] {
        &self.writes
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the batch out; after it the state is `whole` or not.
    pub(super) fn take(&mut self, whole: bool) -> WriteBatch {
        self.bytes = 0;
        self.index.clear();
        self.indexed = 0;
        let room = self.writes.len();
        WriteBatch { writes: mem::replace(&mut self.writes, Vec::with_capacity(room)), whole }
    }
}

/// Bytes of a chunk of small writes.
const CHUNK: usize = 64 << 10;
