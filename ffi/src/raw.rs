//! Reading and writing through the host's pointers. Everything here checks what can be checked:
//! NULL, alignment, sizes, lengths. What cannot be checked, that a pointer points to what it says,
//! is the host's part of each contract.

#![expect(unsafe_code, reason = "pointers of C")]

use std::ffi::c_char;
use std::mem::{MaybeUninit, align_of, offset_of, size_of};

use crate::fault::Fault;
use crate::types::{
    ring_bytes_t, ring_change_t, ring_core_options_t, ring_cq_options_t, ring_error_t,
    ring_input_t, ring_op_t, ring_options_t, ring_pair_t, ring_stream_t,
};

/// A struct that the host fills: it starts with its size, a `u32`, and every pattern of bits is a
/// value of it.
///
/// # Safety
/// Both must hold for the type, and it must be `repr(C)`.
pub(crate) unsafe trait Sized32: Copy {
    /// The sizes that it had before, each the end of a field: of hosts that were compiled then.
    const FORMER: &'static [usize] = &[];
}

// SAFETY: integers, raw pointers and optional function pointers; `size` comes first.
unsafe impl Sized32 for ring_cq_options_t {}
// SAFETY: as above.
unsafe impl Sized32 for ring_options_t {
    const FORMER: &'static [usize] = &[
        offset_of!(ring_options_t, tags),
        offset_of!(ring_options_t, expect),
        offset_of!(ring_options_t, log),
    ];
}
// SAFETY: as above.
unsafe impl Sized32 for ring_op_t {
    const FORMER: &'static [usize] = &[offset_of!(ring_op_t, route)];
}
// SAFETY: as above.
unsafe impl Sized32 for ring_core_options_t {}
// SAFETY: as above.
unsafe impl Sized32 for ring_input_t {}

/// Reads a struct that the host filled. One of a later version is longer: what this version does
/// not know must be zero. One of a former version is shorter: what it lacks is zero.
///
/// # Safety
/// `from` is NULL, or points to as many readable bytes as its first four say (at least four).
pub(crate) unsafe fn read<T: Sized32>(from: *const T, what: &'static str) -> Result<T, Fault> {
    check_pointer(from, what)?;
    // SAFETY: not NULL and aligned; the caller vouches for four bytes.
    let size = unsafe { from.cast::<u32>().read() };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size < size_of::<T>() {
        if !T::FORMER.contains(&size) {
            return Err(Fault::invalid(format!("{what}: its size is too small")));
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: `size` bytes are readable, by the caller's word, and writable, being fewer than a `T` has; the two
        // do not overlap, one being ours. Zeros and any other bits are a value.
        return Ok(unsafe {
            value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast::<u8>(), size);
            value.assume_init()
        });
    }
    if size > SIZE_MAX {
        return Err(Fault::invalid(format!("{what}: its size is not plausible")));
    }
    // SAFETY: the caller vouches for `size` bytes, which is more than the struct has.
    let tail = unsafe {
        let end = from.cast::<u8>().add(size_of::<T>());
        std::slice::from_raw_parts(end, size - size_of::<T>())
    };
    if tail.iter().any(|byte| *byte != 0) {
        let text = format!("{what}: it has fields that this version of libring does not know");
        return Err(Fault::invalid(text));
    }
    // SAFETY: `size_of::<T>()` bytes are readable, aligned, and any bits are a value.
    Ok(unsafe { from.read() })
}

/// The bytes of a view.
///
/// # Safety
/// The view is empty, or its bytes are readable and do not change while the result is used.
pub(crate) unsafe fn bytes<'a>(view: ring_bytes_t, what: &'static str) -> Result<&'a [u8], Fault> {
    if view.len == 0 {
        return Ok(&[]);
    }
    if view.ptr.is_null() {
        return Err(Fault::invalid(format!("{what}: NULL, but its length is not 0")));
    }
    if isize::try_from(view.len).is_err() {
        return Err(Fault::invalid(format!("{what}: its length is not plausible")));
    }
    // SAFETY: not NULL, not longer than memory; the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(view.ptr, view.len) })
}

/// The text of a view.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn text<'a>(view: ring_bytes_t, what: &'static str) -> Result<&'a str, Fault> {
    // SAFETY: the caller's.
    let bytes = unsafe { bytes(view, what)? };
    std::str::from_utf8(bytes).map_err(|_| Fault::invalid(format!("{what}: not UTF-8")))
}

/// An element type of the host's arrays.
///
/// # Safety
/// Every pattern of bits is a value, and it is `repr(C)`.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: a raw pointer and an integer.
unsafe impl Plain for ring_bytes_t {}
// SAFETY: integers and views.
unsafe impl Plain for ring_change_t {}
// SAFETY: views.
unsafe impl Plain for ring_pair_t {}
// SAFETY: a view and integers.
unsafe impl Plain for ring_stream_t {}

/// An array of the host.
///
/// # Safety
/// It is empty, or its elements are readable and do not change while the result is used.
pub(crate) unsafe fn array<'a, T: Plain>(
    first: *const T,
    len: usize,
    most: usize,
    what: &'static str,
) -> Result<&'a [T], Fault> {
    if len == 0 {
        return Ok(&[]);
    }
    check_pointer(first, what)?;
    if len > most {
        return Err(Fault::invalid(format!("{what}: {len} are more than the limit of {most}")));
    }
    // SAFETY: not NULL, aligned, `most` elements fit into memory; the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(first, len) })
}

/// The place for a result.
///
/// # Safety
/// `out` is NULL or a place for a `T` that nobody else uses now.
pub(crate) unsafe fn write<T>(out: *mut T, value: T, what: &'static str) -> Result<(), Fault> {
    check_pointer(out, what)?;
    // SAFETY: not NULL and aligned; the caller vouches for the place. `write` drops nothing.
    unsafe { out.write(value) };
    Ok(())
}

/// As [`write`], where NULL means that nobody wants the value.
///
/// # Safety
/// As for [`write`].
pub(crate) unsafe fn offer<T>(out: *mut T, value: T) {
    if check_pointer(out, "").is_ok() {
        // SAFETY: not NULL and aligned; the caller vouches for the place.
        unsafe { out.write(value) };
    }
}

/// NULL and misaligned pointers cannot be used.
pub(crate) fn check_pointer<T>(pointer: *const T, what: &'static str) -> Result<(), Fault> {
    if pointer.is_null() {
        return Err(Fault::invalid(format!("{what}: NULL")));
    }
    if !pointer.addr().is_multiple_of(align_of::<T>()) {
        return Err(Fault::invalid(format!("{what}: not aligned")));
    }
    Ok(())
}

/// Says in the host's `ring_error_t` why a call failed. Writes no more than the host said it has
/// room for.
///
/// # Safety
/// `to` is NULL, or points to as many writable bytes as its first four say (at least four).
pub(crate) unsafe fn write_error(to: *mut ring_error_t, fault: &Fault) {
    if check_pointer(to, "").is_err() {
        return;
    }
    // SAFETY: not NULL and aligned; the caller vouches for four bytes.
    let size = unsafe { to.cast::<u32>().read() };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size < size_of::<ring_error_t>() {
        return;
    }
    let mut text: [c_char; 240] = [0; 240];
    let cut = fault.text.floor_char_boundary(text.len() - 1);
    for (to, from) in text.iter_mut().zip(fault.text.as_bytes().iter().take(cut)) {
        *to = c_char::from_ne_bytes([*from]);
    }
    // SAFETY: at least a `ring_error_t` is writable there.
    unsafe {
        to.byte_add(offset_of!(ring_error_t, code)).cast::<i32>().write(fault.code);
        to.byte_add(offset_of!(ring_error_t, detail)).cast::<u64>().write(0);
        to.byte_add(offset_of!(ring_error_t, text)).cast::<[c_char; 240]>().write(text);
    }
}

/// No struct of this header will ever be longer.
const SIZE_MAX: usize = 4096;

impl ring_bytes_t {
    /// A view of bytes that the library lends.
    pub(crate) fn lend(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self { ptr: std::ptr::null(), len: 0 };
        }
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

#[cfg(test)]
mod tests;
