//! Writes the seeds of the corpora: `cargo run --bin corpus` in the folder `fuzz`. The same on each run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ring_core::io::{Action, Call, Consistency};
use ring_core::rng::Rng;
use ring_core::wire::Encoder;
use ring_fuzz::world::Lone;

fn main() -> std::io::Result<()> {
    let mut lone = life();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    frames(&mut lone, &root.join("frames"))?;
    segments(&lone, &root.join("log_recovery"))?;
    for (target, longest) in [
        ("handshake", 256),
        ("log_recovery", 512),
        ("snapshot_chunks", 1024),
        ("entries", 512),
        ("node", 1024),
        ("membership", 1024),
        ("datagrams", 512),
    ] {
        drawn(&root.join(target), longest)?;
    }
    Ok(())
}

/// A member that was founded, called, and restarted.
fn life() -> Lone {
    let mut lone = Lone::founded();
    for round in 0..6 {
        let key = Bytes::from_static(b"key");
        let action = match round % 3 {
            0 => Action::Put { key, value: Bytes::from_static(b"value") },
            1 => Action::Get { key, consistency: Consistency::Linearizable },
            _ => Action::Info,
        };
        let deadline = lone.now.instant + Duration::from_secs(10);
        lone.submit(Call { deadline, partition: String::from("p"), action });
        lone.pass(Duration::from_millis(700));
        lone.store(usize::MAX);
        lone.run(usize::MAX);
    }
    lone
}

/// What it sent: the head that the target takes, then frames.
fn frames(lone: &mut Lone, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut kinds = Vec::new();
    lone.restart();
    lone.meet();
    for (_, message) in &lone.sent {
        let kind = std::mem::discriminant(message);
        if kinds.contains(&kind) {
            continue;
        }
        kinds.push(kind);
        let mut encoder = Encoder::new();
        encoder.push(message).expect("it was sent");
        let mut bytes = vec![2, 3, 100, 7, 255, 1];
        while encoder.frame(&mut bytes) {}
        fs::write(folder.join(format!("sent-{:02}", kinds.len())), bytes)?;
    }
    let mut encoder = Encoder::new();
    let mut bytes = vec![2, 255, 255, 255, 255, 0];
    for (_, message) in lone.sent.iter().take(20) {
        encoder.push(message).expect("it was sent");
    }
    while encoder.frame(&mut bytes) {}
    fs::write(folder.join("together"), bytes)
}

/// What it wrote: the head that the target takes, then a segment.
fn segments(lone: &Lone, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for (segment, bytes) in lone.segments() {
        let bytes: Vec<u8> = [0, 0, 0].iter().chain(bytes).copied().take(4096).collect();
        fs::write(folder.join(format!("segment-{}", segment.0)), bytes)?;
    }
    Ok(())
}

/// Numbers for the targets that read their input as a list of steps.
fn drawn(folder: &Path, longest: u64) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut rng = Rng::new(longest);
    for number in 0..12 {
        let len = longest / 4 + rng.below(longest * 3 / 4);
        let bytes: Vec<u8> = (0..len).map(|_| rng.next().to_le_bytes()[0]).collect();
        fs::write(folder.join(format!("drawn-{number:02}")), bytes)?;
    }
    Ok(())
}
