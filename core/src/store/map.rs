//! An ordered map of byte strings that is copied in no time: a B+tree whose nodes are shared by all copies until
//! one of them writes, which then copies only the nodes on the way to what it changes.
//!
//! Reading follows few pointers: a node keeps, beside its keys, eight bytes of each in one array (the first eight
//! behind what all its keys begin with), so that most keys are told apart without being looked at.
//!
//! Invariants, checked by [`Map::check`] in tests:
//! 1. All leaves are equally deep. No node but the root is empty, none holds more than [`ROOM`].
//! 2. The keys of a node rise. Of an inner node, the keys below child `i` are at least its key `i`, and less than
//!    its key `i + 1`.
//! 3. All keys of a node begin with the same `shared` bytes, and its heads are their next eight, with zeros in
//!    place of those that a key does not have.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

/// The map. A clone shares everything with the original until either is changed.
#[derive(Clone, Debug)]
pub struct Map<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node<V> {
    Leaf(Arc<Keyed<V>>),
    Inner(Arc<Keyed<Node<V>>>),
}

/// What both kinds of nodes are: keys that rise, each with something.
#[derive(Clone, Debug)]
struct Keyed<T> {
    shared: usize,
    heads: Vec<u64>,
    pairs: Vec<(Bytes, T)>,
}

/// What became of a node into which something was put: a second one, with its first key.
type Split<V> = Option<(Bytes, Node<V>)>;

impl<V: Clone> Default for Map<V> {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::new(Keyed::new())), len: 0 }
    }
}

impl<V: Clone> Map<V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a key has.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return leaf.find(key).ok().map(|place| &leaf.pairs[place].1);
                }
                Node::Inner(inner) => node = &inner.pairs[inner.child(key)].1,
            }
        }
    }

    /// Gives a key something; what it had before.
    pub fn insert(&mut self, key: Bytes, value: V) -> Option<V> {
        let (before, split) = self.root.insert(key, value);
        if let Some((key, right)) = split {
            let left = mem::replace(&mut self.root, Node::Leaf(Arc::new(Keyed::new())));
            let mut inner = Keyed::new();
            inner.put(0, left.first_key(), left);
            inner.put(1, key, right);
            self.root = Node::Inner(Arc::new(inner));
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a key out; what it had.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.get(key)?; // nothing is copied for nothing
        let before = self.root.remove(key);
        self.len -= usize::from(before.is_some());
        while let Node::Inner(inner) = &mut self.root
            && inner.pairs.len() == 1
        {
            let inner = Arc::make_mut(inner);
            self.root = inner.pairs.pop().expect("there is one").1;
        }
        before
    }

    /// The keys in `from..to` (from inclusive, to exclusive) in order, or in reverse order.
    #[must_use]
    pub fn range<'a>(&'a self, from: &'a [u8], to: &'a [u8], reverse: bool) -> Range<'a, V> {
        let mut range =
            Range { path: Vec::new(), leaf: &[], place: 0, from, to: Some(to), reverse };
        let start = if reverse { to } else { from };
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    range.leaf = &leaf.pairs;
                    range.place = leaf.find(start).unwrap_or_else(|place| place);
                    return range;
                }
                Node::Inner(inner) => {
                    let child = inner.child(start);
                    range.path.push((&inner.pairs, child));
                    node = &inner.pairs[child].1;
                }
            }
        }
    }

    /// All keys in order.
    #[must_use]
    pub fn iter(&self) -> Range<'_, V> {
        Range { to: None, ..self.range(&[], &[], false) }
    }
}

/// What a node holds.
type Pairs<'a, T> = &'a [(Bytes, T)];

/// What [`Map::range`] shows.
#[derive(Clone, Debug)]
pub struct Range<'a, V> {
    /// The inner nodes on the way to `leaf`, each with the child that was taken.
    path: Vec<(Pairs<'a, Node<V>>, usize)>,
    leaf: Pairs<'a, V>,
    /// Rising: of the next pair. Falling: of the one before it.
    place: usize,
    from: &'a [u8],
    to: Option<&'a [u8]>,
    reverse: bool,
}

impl<'a, V> Range<'a, V> {
    /// Goes on to the next leaf, or the one before; false when there is none.
    fn turn_leaf(&mut self) -> bool {
        let mut node = loop {
            let Some((pairs, child)) = self.path.pop() else {
                return false;
            };
            let next = if self.reverse { child.checked_sub(1) } else { Some(child + 1) };
            if let Some(next) = next
                && let Some((_, node)) = pairs.get(next)
            {
                self.path.push((pairs, next));
                break node;
            }
        };
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = &leaf.pairs;
                    self.place = if self.reverse { leaf.pairs.len() } else { 0 };
                    return true;
                }
                Node::Inner(inner) => {
                    let child = if self.reverse { inner.pairs.len() - 1 } else { 0 };
                    self.path.push((&inner.pairs, child));
                    node = &inner.pairs[child].1;
                }
            }
        }
    }

    fn end(&mut self) -> Option<(&'a Bytes, &'a V)> {
        self.path.clear();
        self.leaf = &[];
        self.place = 0;
        None
    }
}

impl<'a, V> Iterator for Range<'a, V> {
    type Item = (&'a Bytes, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let place = if self.reverse { self.place.checked_sub(1) } else { Some(self.place) };
            if let Some(place) = place
                && let Some((key, value)) = self.leaf.get(place)
            {
                self.place = if self.reverse { place } else { place + 1 };
                let is_in = match self.to {
                    _ if self.reverse => key[..] >= *self.from,
                    Some(to) => key[..] < *to,
                    None => true,
                };
                return if is_in { Some((key, value)) } else { self.end() };
            }
            if !self.turn_leaf() {
                return self.end();
            }
        }
    }
}

impl<V: Clone> Node<V> {
    fn first_key(&self) -> Bytes {
        match self {
            Node::Leaf(leaf) => leaf.pairs[0].0.clone(),
            Node::Inner(inner) => inner.pairs[0].0.clone(),
        }
    }

    fn insert(&mut self, key: Bytes, value: V) -> (Option<V>, Split<V>) {
        match self {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                match leaf.find(&key) {
                    Ok(place) => (Some(mem::replace(&mut leaf.pairs[place].1, value)), None),
                    Err(place) => {
                        let right = leaf.insert(place, key, value);
                        (None, right.map(|(key, right)| (key, Node::Leaf(Arc::new(right)))))
                    }
                }
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let place = match inner.find(&key) {
                    Ok(place) => place,
                    Err(0) => {
                        inner.lower(key.clone());
                        0
                    }
                    Err(place) => place - 1,
                };
                let (before, split) = inner.pairs[place].1.insert(key, value);
                let right = split.and_then(|(key, node)| inner.insert(place + 1, key, node));
                (before, right.map(|(key, right)| (key, Node::Inner(Arc::new(right)))))
            }
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<V> {
        match self {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let place = leaf.find(key).ok()?;
                Some(leaf.take(place).1)
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let place = inner.child(key);
                let before = inner.pairs[place].1.remove(key);
                inner.mend(place);
                before
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.pairs.len(),
            Node::Inner(inner) => inner.pairs.len(),
        }
    }

    /// Adds all of the node on the right, which is of the same kind.
    fn append(&mut self, right: Self) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => Arc::make_mut(left).append(right),
            (Node::Inner(left), Node::Inner(right)) => Arc::make_mut(left).append(right),
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
                unreachable!("all leaves are equally deep")
            }
        }
    }
}

impl<V: Clone> Keyed<Node<V>> {
    /// Takes a child out that has become empty; joins one that has become small with a neighbour.
    fn mend(&mut self, place: usize) {
        let len = self.pairs[place].1.len();
        if len == 0 {
            self.take(place);
            return;
        }
        if len >= ROOM / 4 {
            return;
        }
        let fits = |left: usize| {
            let (left, right) = (self.pairs.get(left)?, self.pairs.get(left + 1)?);
            (left.1.len() + right.1.len() <= ROOM).then_some(())
        };
        let left = match place.checked_sub(1) {
            Some(before) if fits(before).is_some() => before,
            Some(_) | None if fits(place).is_some() => place,
            Some(_) | None => return,
        };
        let (_, right) = self.take(left + 1);
        self.pairs[left].1.append(right);
    }
}

impl<T: Clone> Keyed<T> {
    fn new() -> Self {
        Self { shared: 0, heads: Vec::new(), pairs: Vec::new() }
    }

    /// Where a key is, or where it would have to go.
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some((first, _)) = self.pairs.first() else {
            return Err(0);
        };
        let shared = &first[..self.shared];
        let head = match key.get(..self.shared) {
            Some(begin) if begin == shared => head(&key[self.shared..]),
            Some(_) | None if key < shared => return Err(0),
            Some(_) | None => return Err(self.pairs.len()),
        };
        let first = self.heads.partition_point(|other| *other < head);
        let ties = self.heads[first..].partition_point(|other| *other == head);
        let ties = &self.pairs[first..first + ties];
        match ties.binary_search_by(|(other, _)| other[..].cmp(key)) {
            Ok(place) => Ok(first + place),
            Err(place) => Err(first + place),
        }
    }

    /// The child below which a key belongs.
    fn child(&self, key: &[u8]) -> usize {
        match self.find(key) {
            Ok(place) => place,
            Err(place) => place.saturating_sub(1),
        }
    }

    /// Makes the first key one that is less.
    fn lower(&mut self, key: Bytes) {
        let fits = key.starts_with(&self.pairs[0].0[..self.shared]);
        if fits {
            self.heads[0] = head(&key[self.shared..]);
        }
        self.pairs[0].0 = key;
        if !fits {
            self.renew();
        }
    }

    /// Puts a pair in its place; what no longer has room goes, from the middle on, to a new node.
    fn insert(&mut self, place: usize, key: Bytes, what: T) -> Option<(Bytes, Self)> {
        if self.pairs.len() < ROOM {
            self.put(place, key, what);
            return None;
        }
        // Keys that only rise fill their nodes.
        let middle = if place == ROOM { ROOM - 1 } else { ROOM / 2 };
        let mut right = Self::new();
        right.pairs.reserve_exact(ROOM);
        right.heads.reserve_exact(ROOM);
        right.pairs.extend(self.pairs.drain(middle..));
        right.renew();
        self.renew();
        if place <= middle {
            self.put(place, key, what);
        } else {
            right.put(place - middle, key, what);
        }
        Some((right.pairs[0].0.clone(), right))
    }

    fn put(&mut self, place: usize, key: Bytes, what: T) {
        let first = self.pairs.first().map_or(&key, |(first, _)| first);
        let fits = key.len() >= self.shared && key[..self.shared] == first[..self.shared];
        if fits && !self.pairs.is_empty() {
            self.heads.insert(place, head(&key[self.shared..]));
            self.pairs.insert(place, (key, what));
        } else {
            self.pairs.insert(place, (key, what));
            self.renew();
        }
    }

    fn take(&mut self, place: usize) -> (Bytes, T) {
        self.heads.remove(place);
        self.pairs.remove(place)
    }

    fn append(&mut self, right: Arc<Self>) {
        let right = Arc::unwrap_or_clone(right);
        self.pairs.extend(right.pairs);
        self.renew();
    }

    /// Finds out anew what all keys share.
    fn renew(&mut self) {
        let (Some((first, _)), Some((last, _))) = (self.pairs.first(), self.pairs.last()) else {
            self.shared = 0;
            self.heads.clear();
            return;
        };
        // What the first and the last of an order share, all between them do.
        let shared = first.iter().zip(last.iter()).take_while(|(a, b)| a == b).count();
        self.shared = shared;
        self.heads.clear();
        self.heads.extend(self.pairs.iter().map(|(key, _)| head(&key[shared..])));
    }
}

/// The first eight bytes of a key, so that they compare like it.
fn head(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(first)
        }
    }
}

/// Most pairs of a node.
const ROOM: usize = 48;

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    impl<V: Clone> Map<V> {
        /// Panics if an invariant does not hold.
        fn check(&self) {
            let mut depths = Vec::new();
            let mut keys = 0;
            walk(&self.root, 0, &mut depths, &mut keys);
            assert!(depths.windows(2).all(|two| two[0] == two[1]), "leaves at {depths:?}");
            assert_eq!(keys, self.len);
            assert!(self.len == 0 || self.root.len() > 0);
        }
    }

    fn walk<V: Clone>(node: &Node<V>, depth: usize, depths: &mut Vec<usize>, keys: &mut usize) {
        match node {
            Node::Leaf(leaf) => {
                leaf.check();
                depths.push(depth);
                *keys += leaf.pairs.len();
            }
            Node::Inner(inner) => {
                inner.check();
                for (place, (key, child)) in inner.pairs.iter().enumerate() {
                    assert!(child.len() > 0);
                    assert!(child.first_key() >= key);
                    if let Some((next, _)) = inner.pairs.get(place + 1) {
                        assert!(last_key(child) < *next);
                    }
                    walk(child, depth + 1, depths, keys);
                }
            }
        }
    }

    fn last_key<V>(node: &Node<V>) -> Bytes {
        match node {
            Node::Leaf(leaf) => leaf.pairs.last().expect("not empty").0.clone(),
            Node::Inner(inner) => last_key(&inner.pairs.last().expect("not empty").1),
        }
    }

    impl<T: Clone> Keyed<T> {
        fn check(&self) {
            assert!(self.pairs.len() <= ROOM);
            assert!(self.pairs.windows(2).all(|two| two[0].0 < two[1].0));
            assert_eq!(self.heads.len(), self.pairs.len());
            for ((key, _), head_of) in self.pairs.iter().zip(&self.heads) {
                assert!(key.starts_with(&self.pairs[0].0[..self.shared]));
                assert_eq!(head(&key[self.shared..]), *head_of);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, u16),
        Remove(Vec<u8>),
        /// Removes everything that begins with it.
        Clear(u8),
        /// Keeps a copy, which must stay as it is.
        Copy,
        Range(Vec<u8>, Vec<u8>, bool),
    }

    /// Keys of all lengths, of few letters, some with much in common: heads tie, and zeros end them.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let letters = || prop_oneof![Just(0_u8), Just(1), Just(7), Just(255)];
        prop_oneof![
            proptest::collection::vec(letters(), 0..6),
            proptest::collection::vec(letters(), 0..4).prop_map(|end| [
                &b"a long beginning "[..],
                &end
            ]
            .concat()),
            any::<u16>().prop_map(|number| number.to_be_bytes().to_vec()),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (keys(), any::<u16>()).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => keys().prop_map(Step::Remove),
            1 => prop_oneof![Just(0), Just(1), Just(b'a'), any::<u8>()].prop_map(Step::Clear),
            1 => Just(Step::Copy),
            2 => (keys(), keys(), any::<bool>()).prop_map(|(a, b, r)| Step::Range(a, b, r)),
        ];
        proptest::collection::vec(step, 0..600)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_does_what_a_plain_ordered_map_does(steps in steps()) {
            let mut map = Map::new();
            let mut twin: BTreeMap<Vec<u8>, u16> = BTreeMap::new();
            let mut copies = vec![(map.clone(), twin.clone())];
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        let before = map.insert(Bytes::from(key.clone()), value);
                        prop_assert_eq!(before, twin.insert(key, value));
                    }
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), twin.remove(&key)),
                    Step::Clear(first) => {
                        let gone: Vec<Vec<u8>> =
                            twin.keys().filter(|key| key.first() == Some(&first)).cloned().collect();
                        for key in gone {
                            prop_assert_eq!(map.remove(&key), twin.remove(&key));
                            map.check();
                        }
                    }
                    Step::Copy => copies.push((map.clone(), twin.clone())),
                    Step::Range(from, to, reverse) => {
                        let shown = map.range(&from, &to, reverse);
                        let shown: Vec<_> = shown.map(|(k, v)| (k.to_vec(), *v)).collect();
                        let mut wanted: Vec<_> = twin
                            .iter()
                            .filter(|(key, _)| **key >= from && **key < to)
                            .map(|(k, v)| (k.clone(), *v))
                            .collect();
                        if reverse {
                            wanted.reverse();
                        }
                        prop_assert_eq!(shown, wanted);
                    }
                }
            }
            copies.push((map, twin));
            for (map, twin) in copies {
                map.check();
                for (key, value) in &twin {
                    prop_assert_eq!(map.get(key), Some(value));
                }
                let all = map.iter().map(|(key, value)| (key.to_vec(), *value));
                prop_assert!(all.eq(twin));
            }
        }
    }

    #[test]
    fn rising_keys_fill_their_nodes() {
        let mut map = Map::new();
        for number in 0..10_000_u32 {
            map.insert(Bytes::copy_from_slice(&number.to_be_bytes()), number);
        }
        map.check();
        let mut leaves = Vec::new();
        walk(&map.root, 0, &mut leaves, &mut 0);
        assert!(leaves.len() <= 10_000 / (ROOM - 1) + 1, "{} leaves", leaves.len());
    }
}
