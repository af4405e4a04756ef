//! What the library says of itself.

#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_char;

use libring::slot_of;

use crate::guard;
use crate::raw;
use crate::status::{self, ring_status_t};
use crate::types::ring_bytes_t;

/// The number of this header: ring_abi() of the library must return the same.
pub const RING_ABI: u32 = 0;

/// The library's ABI number; a binding compares it with RING_ABI.
/// Owns nothing.
/// Any thread, also in callbacks; never blocks.
/// Always succeeds.
// SAFETY: no other function of this name is linked: names of this library begin with `ring_`.
#[unsafe(no_mangle)]
pub extern "C" fn ring_abi() -> u32 {
    RING_ABI
}

/// The library's version, "1.2.3".
/// The text is static and NUL-terminated.
/// Any thread, also in callbacks; never blocks.
/// Always succeeds.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub extern "C" fn ring_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

/// A status code's name, "RING_TIMEOUT".
/// The text is static and NUL-terminated.
/// Any thread, also in callbacks; never blocks.
/// Always succeeds: "RING_UNKNOWN_STATUS" for a code that it does not know.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub extern "C" fn ring_status_name(s: ring_status_t) -> *const c_char {
    status::name(s).as_ptr()
}

/// The slot of a key, 0 to 65,535: those of RING_EV_MOVE and RING_EV_STEAL. The same on every member, in every language.
/// Owns nothing.
/// Any thread, also in callbacks; never blocks.
/// The slot; that of the empty key for a view that cannot be read: NULL with a length.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_slot(key: ring_bytes_t) -> u32 {
    guard::run_or(
        |_| u32::from(slot_of(b"")),
        || {
            // SAFETY: the caller's view.
            let key = unsafe { raw::bytes(key, "key")? };
            Ok(u32::from(slot_of(key)))
        },
    )
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
