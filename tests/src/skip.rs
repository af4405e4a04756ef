//! Tests that this machine cannot run. A skip is never silent.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// Says that a test is not run and why; appends it to the file that `RING_SKIPS` names, so that
/// whoever runs all tests can count.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = env::var_os("RING_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        written.expect("RING_SKIPS names a file that can be written");
    }
}
