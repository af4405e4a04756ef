use super::*;
use ring_core::ids::{ReplicaId, Term};
use ring_core::storage::record::Checkpoint;
use ring_core::storage::{Log, Tail, encode_batch, recover, segment_name};

fn synced(disk: &mut Disk, name: &str) {
    let mark = disk.mark();
    let mut rng = Rng::new(0);
    disk.sync_file(name, mark, &mut rng).unwrap();
    disk.sync_dir(mark, &mut rng).unwrap();
}

fn bytes(data: &'static [u8]) -> Bytes {
    Bytes::from_static(data)
}

#[test]
fn a_process_reads_what_it_wrote() {
    let mut disk = Disk::new();
    disk.create("a").unwrap();
    disk.write("a", 0, bytes(b"hello")).unwrap();
    disk.write("a", 3, bytes(b"p me")).unwrap();
    assert_eq!(disk.read("a").unwrap(), b"help me");
    disk.truncate("a", 4).unwrap();
    assert_eq!(disk.read("a").unwrap(), b"help");
    assert_eq!(disk.len("a"), Some(4));
    assert_eq!(disk.create("a").unwrap_err().problem, "create failed: file exists");
    disk.remove("a").unwrap();
    assert_eq!(disk.read("a").unwrap_err().problem, "no such file");
}

#[test]
fn a_power_cut_never_touches_what_was_synced() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut disk = Disk::new();
        disk.create("a").unwrap();
        disk.write("a", 0, bytes(&[7; 1000])).unwrap();
        synced(&mut disk, "a");
        disk.write("a", 1000, bytes(&[8; 3000])).unwrap();
        disk.power_cut(&mut rng);
        let content = disk.read("a").unwrap();
        assert!(content.len() >= 1000);
        assert!(content[..1000].iter().all(|b| *b == 7));
    }
}

/// Each of the outcomes of an unsynced write appears: all kept, all lost, cut at a byte, cut at a sector, holes.
#[test]
fn a_power_cut_tears_in_every_way() {
    let (mut all, mut none, mut sector, mut byte, mut hole) = (0, 0, 0, 0, 0);
    for seed in 0..400 {
        let mut disk = Disk::new();
        disk.create("a").unwrap();
        synced(&mut disk, "a");
        disk.write("a", 0, bytes(&[9; 2000])).unwrap();
        disk.power_cut(&mut Rng::new(seed));
        let content = disk.read("a").unwrap();
        if content.iter().any(|b| *b != 9) {
            hole += 1;
        } else {
            match content.len() {
                0 => none += 1,
                2000 => all += 1,
                n if n % 512 == 0 => sector += 1,
                _ => byte += 1,
            }
        }
    }
    assert!(
        [all, none, sector, byte, hole].iter().all(|n| *n > 3),
        "{all} {none} {sector} {byte} {hole}"
    );
}

#[test]
fn unsynced_names_may_come_and_go() {
    let (mut lost, mut kept, mut back, mut gone) = (0, 0, 0, 0);
    for seed in 0..100 {
        let mut disk = Disk::new();
        disk.create("old").unwrap();
        disk.write("old", 0, bytes(b"x")).unwrap();
        synced(&mut disk, "old");
        disk.create("new").unwrap();
        disk.write("new", 0, bytes(b"y")).unwrap();
        let mark = disk.mark();
        disk.sync_file("new", mark, &mut Rng::new(1)).unwrap();
        disk.remove("old").unwrap();
        disk.power_cut(&mut Rng::new(seed));
        match disk.read("new") {
            Ok(content) => {
                assert_eq!(content, b"y", "its content was synced, its name was not");
                kept += 1;
            }
            Err(_) => lost += 1,
        }
        match disk.read("old") {
            Ok(content) => {
                assert_eq!(content, b"x");
                back += 1;
            }
            Err(_) => gone += 1,
        }
    }
    assert!([lost, kept, back, gone].iter().all(|n| *n > 10));
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    let mut disk = Disk::new();
    disk.create("a").unwrap();
    synced(&mut disk, "a");
    disk.write("a", 0, bytes(b"1")).unwrap();
    let mark = disk.mark();
    disk.write("a", 1, bytes(b"2")).unwrap();
    disk.sync_file("a", mark, &mut Rng::new(0)).unwrap();
    let lost = (0..50).any(|seed| {
        let mut copy = disk.clone();
        copy.power_cut(&mut Rng::new(seed));
        let content = copy.read("a").unwrap();
        assert!(content.starts_with(b"1"));
        content.len() == 1
    });
    assert!(lost);
}

/// Trap W1: the sync that follows a failed one answers well and writes nothing of what the first one covered.
#[test]
fn a_sync_after_a_failed_one_does_not_save_what_was_stranded() {
    let mut stranded = 0;
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut disk = Disk::new();
        disk.create("a").unwrap();
        synced(&mut disk, "a");
        disk.write("a", 0, bytes(b"1")).unwrap();
        disk.faults().sync_fails = true;
        let mark = disk.mark();
        assert!(disk.sync_file("a", mark, &mut rng).is_err());
        assert_eq!(disk.read("a").unwrap(), b"1", "the cache still shows it");
        disk.sync_file("a", disk.mark(), &mut rng).unwrap();
        disk.power_cut(&mut rng);
        assert!(!disk.deceives(), "the truth is out");
        if disk.read("a").unwrap().is_empty() {
            stranded += 1;
        }
    }
    assert!((10..40).contains(&stranded), "{stranded}");
}

#[test]
fn a_full_disk_leaves_half_a_record() {
    let mut disk = Disk::new();
    disk.create("a").unwrap();
    disk.faults().full = true;
    assert!(disk.write("a", 0, bytes(b"1234")).is_err());
    assert_eq!(disk.read("a").unwrap(), b"12");
    assert!(disk.create("b").is_err());
    disk.faults().full = false;
    disk.write("a", 0, bytes(b"1234")).unwrap();
    assert_eq!(disk.read("a").unwrap(), b"1234");
}

#[test]
fn a_crash_keeps_what_was_written() {
    for seed in 0..50 {
        let mut disk = Disk::new();
        disk.create("a").unwrap();
        disk.write("a", 0, bytes(b"1234")).unwrap();
        disk.write("a", 4, bytes(b"5678")).unwrap();
        disk.crash(&mut Rng::new(seed));
        let content = disk.read("a").unwrap();
        assert!(content.len() >= 4 && b"12345678".starts_with(&content));
    }
}

#[test]
fn rot_spares_the_last_synced_write() {
    for seed in 0..100 {
        let mut disk = Disk::new();
        disk.create("a").unwrap();
        disk.write("a", 0, bytes(&[0; 100])).unwrap();
        synced(&mut disk, "a");
        disk.write("a", 100, bytes(&[0; 100])).unwrap();
        synced(&mut disk, "a");
        let (name, place) = disk.rot(&mut Rng::new(seed)).unwrap();
        assert_eq!(name, "a");
        assert!(place < 100);
        let content = disk.read("a").unwrap();
        assert_eq!(content.iter().filter(|b| **b != 0).count(), 1);
    }
    assert_eq!(Disk::new().rot(&mut Rng::new(0)), None);
}

#[test]
fn a_rolled_back_disk_is_the_earlier_one() {
    let mut disk = Disk::new();
    disk.create("a").unwrap();
    disk.write("a", 0, bytes(b"1")).unwrap();
    let earlier = disk.clone();
    disk.write("a", 1, bytes(b"2")).unwrap();
    synced(&mut disk, "a");
    let mut rng = Rng::new(3);
    disk.roll_back(&earlier, &mut rng);
    disk.power_cut(&mut rng);
    assert_eq!(disk.read("a").unwrap(), b"1");
    disk.wipe();
    assert!(disk.is_empty());
    assert_eq!(disk.bytes(), 0);
}

/// A log on disk, each of these records in a batch of its own, all of it durable.
fn logged(records: impl IntoIterator<Item = Record>) -> Disk {
    let mut disk = Disk::new();
    let mut log = Log::new(&Tail::default(), 1 << 20);
    log.open_segment(Checkpoint::default());
    for record in records {
        log.push(record);
        let batch = log.seal().unwrap();
        let mut data = Vec::new();
        encode_batch(&batch, &mut data);
        let name = segment_name(batch.segment);
        if batch.opens.is_some() {
            disk.create(&name).unwrap();
        }
        disk.write(&name, batch.offset, data.into()).unwrap();
        synced(&mut disk, &name);
        log.on_stored(batch.seq);
    }
    disk
}

fn content(disk: &Disk) -> BTreeMap<SegmentId, Bytes> {
    let files = disk.names().map(|name| (parse_segment_name(name), disk.read(name).unwrap()));
    files.map(|(id, bytes)| (id.unwrap(), Bytes::from(bytes))).collect()
}

/// A misdirected write leaves an intact batch in the place of another one; whoever reads the log must notice.
#[test]
fn a_misdirected_batch_is_found_where_it_does_not_belong() {
    let disk = logged((0..20).map(|birth| Record::Birth { birth: birth << 40 }));
    assert!(recover(&mut content(&disk)).is_ok());
    let before = content(&disk);
    for seed in 0..50 {
        let mut disk = disk.clone();
        let (name, _) = disk.misdirect(&mut Rng::new(seed)).unwrap();
        assert_eq!(disk.len(&name), before.get(&SegmentId(1)).map(|b| len_u64(b.len())));
        assert_ne!(content(&disk), before);
        assert!(recover(&mut content(&disk)).is_err(), "seed {seed}");
    }
    assert_eq!(Disk::new().misdirect(&mut Rng::new(0)), None);
}

/// What is lost is often the last that the log says of a group, and another group's last stands there.
#[test]
fn a_misdirected_batch_may_replace_the_last_word_on_a_group() {
    let vote = |group: u32| Record::Vote {
        group: GroupId(group),
        replica: ReplicaId(u64::from(group)),
        term: Term(3),
        vote: Some(ReplicaId(9)),
    };
    let births = |from: u64| (from..from + 20).map(|birth| Record::Birth { birth: birth << 40 });
    let disk = logged(births(1).chain([vote(1), vote(2), vote(1), vote(2)]).chain(births(50)));
    // The two last words, in the order in which they were written.
    let last: Vec<u64> =
        disk.old_batches().iter().filter(|b| b.is_last_word).map(|b| b.offset).collect();
    assert_eq!(last.len(), 2);
    let hits =
        (0..50).filter(|seed| disk.clone().misdirect(&mut Rng::new(*seed)).unwrap().1 == last[0]);
    assert!(hits.count() >= 15);
}
