//! How many elements each list in a message may have, and the decoding that holds to it.
//!
//! A list says its length before its elements. Taken at its word, four bytes could reserve
//! gigabytes; an element that takes 2 bytes on the wire can take 90 in memory. So a list is refused
//! when it says more than its bound or more than there are bytes left, and memory is reserved for
//! [`RESERVE_BYTES_MAX`] at once at most, and beyond that as elements really come, never more than
//! twice what came. What a member is configured to send must stay inside these bounds.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Most members in a cluster, most replicas in each part of a group's membership.
pub const MEMBERS_MAX: usize = 1024;
/// Most groups: beats in one message, replicas in a status.
pub const GROUPS_MAX: usize = 65_536;
/// Most entries in one append.
pub const ENTRIES_MAX: usize = 65_536;
/// Most commands in one proposal, most outcomes in its answer.
pub const COMMANDS_MAX: usize = 65_536;
/// Most changes in one batch command.
pub const CHANGES_MAX: usize = 65_536;
/// Most keys on one page of a scan.
pub const PAGE_KEYS_MAX: usize = 65_536;

/// Memory reserved for a list before its first element is decoded, at most.
pub const RESERVE_BYTES_MAX: usize = 64 << 10;

/// Decodes a list of at most `MAX` elements. For `#[serde(deserialize_with)]`.
///
/// # Errors
/// If the list says it is longer than `MAX` or than the bytes left, or an element is malformed.
pub fn list<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(List::<MAX, T>(PhantomData))
}

struct List<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for List<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let count = count::<MAX, _>(&elements)?;
        let mut list = Vec::with_capacity(reserve::<T>(count));
        while let Some(element) = elements.next_element()? {
            if list.len() == list.capacity() {
                // Doubles, as a vector does by itself, but never past what the list will hold.
                list.reserve_exact(list.len().max(1).min(count - list.len()));
            }
            list.push(element);
        }
        Ok(list)
    }
}

/// How many elements a list says it has.
///
/// # Errors
/// More than `MAX`, or more than there are bytes left.
pub(crate) fn count<'de, const MAX: usize, A: SeqAccess<'de>>(
    elements: &A,
) -> Result<usize, A::Error> {
    // Postcard gives no hint exactly when the list says more elements than there are bytes left.
    match elements.size_hint() {
        None => Err(A::Error::custom("a list longer than its message")),
        Some(count) if count > MAX => {
            let list: List<MAX, ()> = List(PhantomData);
            Err(A::Error::invalid_length(count, &list))
        }
        Some(count) => Ok(count),
    }
}

/// For how many elements memory may be reserved before the first of them is decoded.
pub(crate) fn reserve<T>(count: usize) -> usize {
    count.min(RESERVE_BYTES_MAX / size_of::<T>().max(1))
}

#[cfg(test)]
mod tests {

    use super::*;
    use alloc::vec;

    fn decode<const MAX: usize>(bytes: &[u8]) -> Result<Vec<u64>, postcard::Error> {
        list::<MAX, u64, _>(&mut postcard::Deserializer::from_bytes(bytes))
    }

    #[test]
    fn a_list_at_its_bound_is_decoded_and_one_beyond_is_not() {
        assert_eq!(decode::<3>(&[3, 7, 8, 9]).unwrap(), vec![7, 8, 9]);
        assert_eq!(decode::<2>(&[3, 7, 8, 9]), Err(postcard::Error::SerdeDeCustom));
        assert_eq!(decode::<0>(&[0]).unwrap(), Vec::<u64>::new());
    }

    /// X1: the length is 2^32 - 1, 3 bytes follow.
    #[test]
    fn a_list_longer_than_what_follows_is_refused_before_its_first_element() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        assert_eq!(decode::<{ usize::MAX }>(&bytes), Err(postcard::Error::SerdeDeCustom));
        assert_eq!(decode::<{ usize::MAX }>(&[3, 7, 8]), Err(postcard::Error::SerdeDeCustom));
    }

    #[test]
    fn little_is_reserved_for_what_is_only_claimed() {
        assert_eq!(reserve::<[u8; 64]>(10), 10);
        assert_eq!(reserve::<[u8; 64]>(1 << 40), 1024);
        assert_eq!(reserve::<()>(5), 5);
    }
}
