use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::window::WINDOW;
use super::*;

const CLUSTER: ClusterId = ClusterId(77);
const ANN: MemberId = MemberId(1);
const NOW: Instant = Instant(5);

fn keys(text: &str) -> DatagramKeys {
    DatagramKeys::parse(text).unwrap()
}

fn key(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn one_key() -> DatagramKeys {
    keys(&format!("seal 1 {}", key(7)))
}

fn start(counter: u64) -> Start {
    Start { counter, drawn: 99 }
}

fn sealer() -> Sealer {
    Sealer::new(&one_key(), CLUSTER, ANN, start(1))
}

/// An opener to which this sealer was introduced.
fn opener(sealer: &Sealer) -> Opener {
    let mut opener = Opener::new(one_key(), CLUSTER);
    opener.introduce(NOW, sealer.sender, sealer.introduction()).unwrap();
    opener
}

fn seal(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(sealer.next, plain, &mut out).unwrap();
    out
}

/// What an opener makes of a copy of a datagram.
fn open(opener: &mut Opener, datagram: &[u8]) -> Result<Vec<u8>, Dropped> {
    let mut copy = datagram.to_vec();
    let opened = opener.open(NOW, &mut copy)?;
    assert_eq!(opened.from, ANN);
    Ok(opened.plain.to_vec())
}

#[test]
fn what_was_sealed_is_opened() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    for plain in [&b""[..], b"x", &[5; DATAGRAM_BYTES_MAX - OVERHEAD_BYTES]] {
        let sealed = seal(&mut sealer, plain);
        assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
        assert_eq!(open(&mut opener, &sealed).unwrap(), plain);
    }
    let mut out = Vec::new();
    let long = [0; DATAGRAM_BYTES_MAX - OVERHEAD_BYTES + 1];
    assert_eq!(sealer.seal(3, &long, &mut out), Err(SealError::TooLong));
    assert_eq!(out, b"");
    assert_eq!(sealer.next, 3, "a refusal takes no counter");
}

/// The format does not change by accident: other versions must read it.
#[test]
fn a_datagram_looks_like_this() {
    let sealed = seal(&mut sealer(), b"hello");
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    let header = "010101000000000000000000000000";
    assert_eq!(&hex[..2 * HEADER_BYTES], header);
    assert_eq!(&hex[2 * HEADER_BYTES..], GOLDEN);
}

/// Nothing that was sealed shows, and the same twice does not look the same.
#[test]
fn what_is_sealed_does_not_show() {
    let mut sealer = sealer();
    let (a, b) = (seal(&mut sealer, &[42; 64]), seal(&mut sealer, &[42; 64]));
    assert_ne!(a[HEADER_BYTES..], b[HEADER_BYTES..]);
    assert!(!a.windows(8).any(|bytes| bytes == [42; 8]));
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    let sealed = seal(&mut sealer, b"once");
    assert!(open(&mut opener, &sealed).is_ok());
    for _ in 0..3 {
        assert_eq!(open(&mut opener, &sealed), Err(Dropped::Replayed));
    }
    assert_eq!(opener.dropped(Dropped::Replayed), 3);
}

#[test]
fn order_does_not_matter_inside_the_window() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    let sealed: Vec<_> = (0..=WINDOW).map(|_| seal(&mut sealer, b"x")).collect();
    for datagram in sealed[1..].iter().rev() {
        assert!(open(&mut opener, datagram).is_ok());
    }
    assert_eq!(open(&mut opener, &sealed[0]), Err(Dropped::TooOld));
    for datagram in &sealed[1..] {
        assert_eq!(open(&mut opener, datagram), Err(Dropped::Replayed));
    }
}

/// Each byte counts, and a datagram that was changed neither opens nor uses up the true one.
#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    let sealed = seal(&mut sealer, b"payload");
    for place in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[place] ^= 1 << bit;
            let why = open(&mut opener, &changed).unwrap_err();
            let expected = match place {
                0 => Dropped::Version,
                1 => Dropped::UnknownKey,
                2..10 => Dropped::UnknownSender,
                _ => Dropped::Forged,
            };
            assert_eq!(why, expected, "byte {place}");
        }
    }
    assert!(open(&mut opener, &sealed).is_ok());
}

#[test]
fn a_part_of_a_datagram_is_dropped() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    let sealed = seal(&mut sealer, b"payload");
    for len in 0..sealed.len() {
        let why = open(&mut opener, &sealed[..len]).unwrap_err();
        let expected = if len < OVERHEAD_BYTES { Dropped::Length } else { Dropped::Forged };
        assert_eq!(why, expected, "{len} bytes");
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert_eq!(open(&mut opener, &longer), Err(Dropped::Forged));
    let huge = vec![VERSION; DATAGRAM_BYTES_MAX + 1];
    assert_eq!(open(&mut opener, &huge), Err(Dropped::Length));
}

/// Another key under the same id, and the same key in another cluster.
#[test]
fn only_the_clusters_own_key_opens() {
    let mut sealer = sealer();
    let introduction = sealer.introduction();
    let sealed = seal(&mut sealer, b"x");
    let other_key = keys(&format!("seal 1 {}", key(8)));
    for (keys, cluster) in [(other_key, CLUSTER), (one_key(), ClusterId(78))] {
        let mut opener = Opener::new(keys, cluster);
        opener.introduce(NOW, ANN, introduction).unwrap();
        assert_eq!(open(&mut opener, &sealed), Err(Dropped::Forged));
    }
}

/// Two members with one key never use a nonce under the same derived key: each opens only as what
/// it was sealed as.
#[test]
fn a_datagram_is_of_its_sender_and_its_start() {
    let sealed = seal(&mut sealer(), b"x");
    for (from, start) in [(MemberId(2), start(1)), (ANN, start(2))] {
        let mut posed = sealed.clone();
        posed[2..10].copy_from_slice(&from.0.to_le_bytes());
        let mut opener = Opener::new(one_key(), CLUSTER);
        opener.introduce(NOW, from, Introduction { start, next: 0 }).unwrap();
        assert_eq!(opener.open(NOW, &mut posed), Err(Dropped::Forged));
    }
}

#[test]
fn nobody_is_heard_before_the_introduction() {
    let mut sealer = sealer();
    let mut opener = Opener::new(one_key(), CLUSTER);
    let before = seal(&mut sealer, b"before");
    assert_eq!(open(&mut opener, &before), Err(Dropped::UnknownSender));
    opener.introduce(NOW, ANN, sealer.introduction()).unwrap();
    assert_eq!(open(&mut opener, &before), Err(Dropped::TooOld));
    let after = seal(&mut sealer, b"after");
    assert!(open(&mut opener, &after).is_ok());
    opener.forget(ANN);
    assert_eq!(open(&mut opener, &after), Err(Dropped::UnknownSender));
}

/// Whoever kept all datagrams of a sender plays them to a receiver that has restarted, and after a
/// restart of the sender: none is opened.
#[test]
fn a_restart_of_either_side_makes_nothing_old_new() {
    let mut first = sealer();
    let kept: Vec<_> = (0..50).map(|_| seal(&mut first, b"old")).collect();
    let mut opener = opener(&first);
    for datagram in &kept {
        assert_eq!(open(&mut opener, datagram), Err(Dropped::TooOld));
    }

    let mut second = Sealer::new(&one_key(), CLUSTER, ANN, start(2));
    opener.introduce(NOW, ANN, second.introduction()).unwrap();
    for datagram in &kept {
        assert_eq!(open(&mut opener, datagram), Err(Dropped::Forged));
    }
    // Nor does a late introduction bring the first start back.
    let late = opener.introduce(NOW, ANN, first.introduction());
    assert_eq!(late, Err(NotIntroduced::Older));
    assert!(open(&mut opener, &seal(&mut second, b"new")).is_ok());
}

/// The same introduction again forgets nothing.
#[test]
fn an_introduction_again_keeps_the_window() {
    let mut sealer = sealer();
    let introduction = sealer.introduction();
    let mut opener = opener(&sealer);
    let sealed = [seal(&mut sealer, b"0"), seal(&mut sealer, b"1"), seal(&mut sealer, b"2")];
    assert!(open(&mut opener, &sealed[1]).is_ok());
    opener.introduce(NOW, ANN, introduction).unwrap();
    assert_eq!(open(&mut opener, &sealed[1]), Err(Dropped::Replayed));
    opener.introduce(NOW, ANN, Introduction { next: 2, ..introduction }).unwrap();
    assert_eq!(open(&mut opener, &sealed[0]), Err(Dropped::TooOld));
    assert!(open(&mut opener, &sealed[2]).is_ok());
}

#[test]
fn senders_are_bounded_and_the_silent_give_way() {
    let mut opener = Opener::new(one_key(), CLUSTER);
    let introduction = Introduction { start: start(1), next: 0 };
    for id in 0..4096 {
        opener.introduce(NOW, MemberId(id), introduction).unwrap();
    }
    let one_more = MemberId(4096);
    let full = opener.introduce(NOW, one_more, introduction);
    assert_eq!(full, Err(NotIntroduced::Full));
    let later = NOW + Duration::from_secs(SILENCE_SECONDS);
    for id in 1..4096 {
        opener.introduce(later, MemberId(id), introduction).unwrap();
    }
    opener.introduce(later, one_more, introduction).unwrap();
    assert!(!opener.senders.contains_key(&MemberId(0)), "the only silent one");
    assert_eq!(opener.senders.len(), SENDERS_MAX);
}

/// The three steps of a rotation, each brought to the members one after the other: whoever has
/// which of two versions next to each other, all are opened. The last step shuts the old key out.
#[test]
fn a_rotation_loses_no_datagram() {
    let mut text = format!("seal 1 {}\n", key(7));
    let mut steps = Vec::new();
    let first = keys(&text);
    for _ in 0..3 {
        let (next, step) = rotate(&text).unwrap();
        let (before, after) = (keys(&text), keys(&next));
        for sealing in [&before, &after] {
            for opening in [&before, &after] {
                let mut sealer = Sealer::new(sealing, CLUSTER, ANN, start(1));
                let mut opener = Opener::new(opening.clone(), CLUSTER);
                opener.introduce(NOW, ANN, sealer.introduction()).unwrap();
                assert!(open(&mut opener, &seal(&mut sealer, b"x")).is_ok(), "{step:?}");
            }
        }
        steps.push(step);
        text = next;
    }
    assert_eq!(steps, [Step::Added { id: 2 }, Step::Promoted { id: 2 }, Step::Dropped { id: 1 }]);

    // A running sealer and a running opener take the new keys as they are.
    let mut sealer = Sealer::new(&first, CLUSTER, ANN, start(1));
    let mut opener = Opener::new(first, CLUSTER);
    opener.introduce(NOW, ANN, sealer.introduction()).unwrap();
    let old = [seal(&mut sealer, b"a"), seal(&mut sealer, b"b")];
    assert!(open(&mut opener, &old[0]).is_ok());
    opener.set_keys(keys(&text));
    sealer.set_keys(&keys(&text));
    assert_eq!(open(&mut opener, &old[1]), Err(Dropped::UnknownKey));
    assert!(open(&mut opener, &seal(&mut sealer, b"c")).is_ok());
}

#[test]
fn a_bad_file_is_refused() {
    let (a, b) = (key(1), key(2));
    let cases = [
        (String::new(), KeyFileError::Sealing),
        (format!("open 1 {a}"), KeyFileError::Sealing),
        (format!("seal 1 {a}\nseal 2 {b}"), KeyFileError::Sealing),
        (format!("seal 1 {a}\nopen 1 {b}"), KeyFileError::Twice(1)),
        (format!("seal 1 {a}\nopen 257 {b}"), KeyFileError::Twice(257)),
        (format!("# x\n\nseal 1 {}", &a[1..]), KeyFileError::Line(3)),
        (format!("seal 1 +{}", &a[1..]), KeyFileError::Line(1)),
        (format!("seal -1 {a}"), KeyFileError::Line(1)),
        (format!("seal 1 {a} more"), KeyFileError::Line(1)),
        (format!("steal 1 {a}"), KeyFileError::Line(1)),
        ((1..=5).map(|id| format!("open {id} {a}\n")).collect(), KeyFileError::Many),
    ];
    for (text, error) in cases {
        assert_eq!(DatagramKeys::parse(&text).unwrap_err(), error, "{text}");
        assert!(!error.to_string().contains(&a[..8]));
    }
    assert!(DatagramKeys::parse(&new_file().unwrap()).is_ok());
    assert_ne!(new_file().unwrap(), new_file().unwrap());
}

/// A counter twice under one key would give the key away.
#[test]
fn no_counter_is_used_twice() {
    let mut sealer = sealer();
    let mut opener = opener(&sealer);
    let mut out = Vec::new();
    sealer.seal(7, b"x", &mut out).unwrap();
    assert_eq!(opener.open(NOW, &mut out).unwrap().counter, 7);
    out.clear();
    for counter in [0, 6, 7, COUNTER_END, u64::MAX] {
        assert_eq!(sealer.seal(counter, b"y", &mut out), Err(SealError::Counter), "{counter}");
    }
    assert_eq!(out, b"");
    sealer.seal(COUNTER_END - 1, b"z", &mut out).unwrap();
    assert_eq!(opener.open(NOW, &mut out).unwrap().counter, COUNTER_END - 1);
    assert_eq!(sealer.introduction().next, COUNTER_END);
    assert_eq!(sealer.seal(COUNTER_END, b"y", &mut Vec::new()), Err(SealError::Counter));
}

/// The obvious twin of the window: it remembers every counter.
#[derive(Default)]
struct Slow {
    begin: u64,
    taken: BTreeSet<u64>,
}

impl Slow {
    fn look(&self, counter: u64) -> Result<(), Dropped> {
        let end = self.taken.last().map_or(0, |last| last + 1);
        if counter < self.begin || counter + WINDOW < end {
            return Err(Dropped::TooOld);
        }
        if self.taken.contains(&counter) { Err(Dropped::Replayed) } else { Ok(()) }
    }
}

proptest! {
    #[test]
    fn the_window_is_as_its_slow_twin(
        begin in 0..50u64,
        // Steps around the present end: near, far, and over the whole window.
        steps in prop::collection::vec((prop_oneof![-80..80i64, -2000..2000i64], 0..40u8), 1..300),
    ) {
        let mut window = Window::beginning_at(begin);
        let mut slow = Slow { begin, taken: BTreeSet::new() };
        let mut at = begin;
        for (step, raise) in steps {
            at = at.saturating_add_signed(step);
            let looked = slow.look(at);
            prop_assert_eq!(window.look(at), looked, "{}", at);
            if looked.is_ok() {
                window.take(at);
                slow.taken.insert(at);
            }
            if raise == 0 {
                slow.begin = slow.begin.max(at);
                window.begin_at(at);
            }
        }
    }

    /// Whatever comes is dropped without a panic.
    #[test]
    fn noise_is_dropped(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut opener = opener(&sealer());
        prop_assert!(opener.open(NOW, &mut bytes).is_err());
        let dropped: u64 = Dropped::ALL.iter().map(|why| opener.dropped(*why)).sum();
        prop_assert_eq!(dropped, 1);
    }
}

/// Made by another implementation of HKDF and AES-GCM, from the description in the module.
const GOLDEN: &str = "692520e8511e7803c35254a8fba9143b5456792aea";
