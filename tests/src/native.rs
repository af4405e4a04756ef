//! The little that tests need and safe Rust cannot do, as C sources in `native/`, compiled when
//! they are needed. The compiler is the one that links Rust programs.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;

/// The library that lets system calls on data files crash or fail; its source says how. None if
/// there is no C compiler.
#[must_use]
pub fn faults() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| compile("faults", "libfaults.so", &["-shared", "-fPIC"])).clone()
}

/// The program that cuts the power of file systems. None if there is no C compiler.
#[must_use]
pub fn power_cut() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| compile("power_cut", "power_cut", &[])).clone()
}

fn compile(source: &str, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let test = env::current_exe().expect("a test knows its path");
    let dir = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("native");
    fs::create_dir_all(&dir).expect("the target directory can be written");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("native").join(source);
    // Made aside: other tests may compile it, or use it, at the same time.
    let aside = dir.join(format!("{name}.{}", process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"]).args(flags);
    cc.arg("-o").arg(&aside).arg(source.with_extension("c"));
    let compiled = cc.stdin(Stdio::null()).status().ok()?;
    assert!(compiled.success(), "{cc:?} failed");
    let place = dir.join(name);
    fs::rename(&aside, &place).expect("the target directory can be written");
    Some(place)
}
