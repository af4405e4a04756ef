//! Fields: what an event says of a request or a response beside its body.
//!
//! A field is its kind and the length of what follows, each a `u32`, and that. The header's
//! `ring_field_next()` reads them.

use bytes::{BufMut, Bytes, BytesMut};
use libring::Way;
use ring_core::ids::len_u64;

use crate::types::{
    RING_DOWN, RING_FIELD_HEADER, RING_FIELD_ONE_WAY, RING_FIELD_REQUEST, RING_FIELD_STREAM,
    RING_FIELD_TIME_LEFT, RING_UP,
};

/// Fields, one behind the other.
#[derive(Default)]
pub(crate) struct Fields(BytesMut);

impl Fields {
    /// A field whose value is bytes.
    pub(crate) fn bytes(&mut self, kind: u32, value: &[u8]) {
        self.add(kind, &[value]);
    }

    pub(crate) fn header(&mut self, name: &str, value: &[u8]) {
        let len = short(name.len());
        self.add(RING_FIELD_HEADER, &[&len.to_ne_bytes(), name.as_bytes(), value]);
    }

    pub(crate) fn stream(&mut self, name: &str, id: u64, ways: u32) {
        let parts = [&id.to_ne_bytes()[..], &ways.to_ne_bytes(), name.as_bytes()];
        self.add(RING_FIELD_STREAM, &parts);
    }

    /// Who asks, which start of it, its number.
    pub(crate) fn request(&mut self, caller: u64, boot: u64, number: u64) {
        let parts = [&caller.to_ne_bytes()[..], &boot.to_ne_bytes(), &number.to_ne_bytes()];
        self.add(RING_FIELD_REQUEST, &parts);
    }

    pub(crate) fn time_left(&mut self, ns: u64) {
        self.add(RING_FIELD_TIME_LEFT, &[&ns.to_ne_bytes()]);
    }

    pub(crate) fn one_way(&mut self) {
        self.add(RING_FIELD_ONE_WAY, &[]);
    }

    /// The fields and the body behind them, and where that begins. A body alone is not copied.
    pub(crate) fn with_body(mut self, body: Bytes) -> (Bytes, u64) {
        if self.0.is_empty() {
            return (body, 0);
        }
        let begin = len_u64(self.0.len());
        self.0.put_slice(&body);
        (self.0.freeze(), begin)
    }

    fn add(&mut self, kind: u32, parts: &[&[u8]]) {
        let len = short(parts.iter().map(|part| part.len()).sum());
        self.0.put_slice(&kind.to_ne_bytes());
        self.0.put_slice(&len.to_ne_bytes());
        for part in parts {
            self.0.put_slice(part);
        }
    }
}

/// Ways as the header has them.
pub(crate) fn ways(way: Way) -> u32 {
    match way {
        Way::Up => RING_UP,
        Way::Down => RING_DOWN,
        Way::Both => RING_UP | RING_DOWN,
    }
}

/// No key, name or header is longer.
fn short(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_alone_is_handed_on_as_it_is() {
        let body = Bytes::from("body");
        let (data, begin) = Fields::default().with_body(body.clone());
        assert_eq!((data.as_ptr(), begin), (body.as_ptr(), 0));
    }

    #[test]
    fn fields_stand_before_the_body_each_with_its_length() {
        let mut fields = Fields::default();
        fields.header("n", b"value");
        fields.stream("s", 7, ways(Way::Both));
        fields.one_way();
        let (data, begin) = fields.with_body(Bytes::from("body"));
        let word = |n: u32| n.to_ne_bytes();
        let mut expected: Vec<u8> = Vec::new();
        expected.extend([word(4), word(10), word(1)].concat());
        expected.extend(b"nvalue");
        expected.extend([word(5), word(13)].concat());
        expected.extend(7_u64.to_ne_bytes());
        expected.extend(word(3));
        expected.extend(b"s");
        expected.extend([word(8), word(0)].concat());
        assert_eq!(begin, len_u64(expected.len()));
        expected.extend(b"body");
        assert_eq!(data, expected);
    }
}
