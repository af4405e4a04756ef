//! libring in a simulated world.

#[cfg(not(madsim))]
compile_error!(
    "sim needs `--cfg madsim`, which .cargo/config.toml sets for this workspace. A RUSTFLAGS environment variable \
     replaces that setting: unset RUSTFLAGS, or add `--cfg madsim` to it."
);

pub mod check;
pub mod history;
