//! The planted bugs: that every patch still applies. Whether they are noticed is what the program itself shows, with
//! `cargo run --release -p sim --bin planted`.

use std::process::Command;

/// A patch that no longer applies plants nothing, and would be a bug that nobody looks for.
#[test]
fn every_patch_applies() {
    let planted = Command::new(env!("CARGO_BIN_EXE_planted"))
        .arg("--check")
        .output()
        .expect("a program that cargo has built");
    let said = String::from_utf8_lossy(&planted.stderr);
    assert!(planted.status.success(), "{said}");
}
