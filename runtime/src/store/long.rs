//! Keys that are too long for a table, whose keys have a length of two bytes.
//!
//! All keys of [`HEAD`] bytes and more that begin with the same `HEAD` bytes are one entry of a table, a *bundle*:
//! its key is those bytes, its value lists, in order, the rest of each key with its value. No other entry has a key
//! of that length, and a bundle sorts where its keys do.

use bytes::{BufMut, Bytes};
use ring_core::store::Map;

/// So many bytes of a long key are the key of its bundle.
pub(super) const HEAD: usize = 60_000;

/// The key of the bundle that a key is in; none: it is an entry of its own.
pub(super) fn head(key: &[u8]) -> Option<&[u8]> {
    key.get(..HEAD)
}

/// What a bundle lists: the rests of its keys with their values. None: it is damaged.
pub(super) fn open(bundle: &Bytes) -> Option<Map<Bytes>> {
    let mut rest = bundle.clone();
    let mut map = Map::new();
    while !rest.is_empty() {
        let key = take(&mut rest)?;
        let value = take(&mut rest)?;
        map.insert(key, value);
    }
    Some(map)
}

/// A bundle that lists this; none: it would be empty.
pub(super) fn close(map: &Map<Bytes>) -> Option<Bytes> {
    let mut bundle = Vec::new();
    for part in map.iter().flat_map(|(key, value)| [key, value]) {
        let len = u32::try_from(part.len()).expect("keys and values are far shorter than 4 GiB");
        bundle.put_u32(len);
        bundle.extend_from_slice(part);
    }
    (!map.is_empty()).then(|| bundle.into())
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let len = rest.split_off_checked(4)?;
    let len = usize::try_from(u32::from_be_bytes(len[..].try_into().ok()?)).ok()?;
    rest.split_off_checked(len)
}

trait Take {
    /// The first `len` bytes, which are taken off.
    fn split_off_checked(&mut self, len: usize) -> Option<Bytes>;
}

impl Take for Bytes {
    fn split_off_checked(&mut self, len: usize) -> Option<Bytes> {
        (self.len() >= len).then(|| self.split_to(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_lists_what_was_put_in() {
        let mut map = Map::new();
        map.insert(Bytes::from_static(b""), Bytes::from_static(b"the head itself"));
        map.insert(Bytes::from_static(b"rest"), Bytes::new());
        let bundle = close(&map).unwrap();
        let opened = open(&bundle).unwrap();
        assert!(opened.iter().eq(map.iter()));
        assert_eq!(close(&Map::new()), None);
        for len in 0..bundle.len() {
            let cut = open(&bundle.slice(..len)).map_or(0, |map| map.len());
            assert!(cut < 2, "cut to {len}");
        }
        assert!(head(&[7; HEAD - 1]).is_none());
        assert_eq!(head(&[7; HEAD + 1]).map(<[u8]>::len), Some(HEAD));
    }
}
