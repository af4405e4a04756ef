use std::ffi::CStr;
use std::ptr;

use super::*;
use crate::status;

/// A struct of a later version, with one field that this one does not know.
#[repr(C)]
struct Later {
    known: ring_cq_options_t,
    new: u64,
}

fn options(size: usize) -> ring_cq_options_t {
    let size = u32::try_from(size).expect("small");
    ring_cq_options_t { size, flags: 3, wake: None, wake_arg: ptr::null_mut() }
}

fn read_text(from: &Later) -> Result<u32, String> {
    // SAFETY: a whole struct, whose size is that of `Later` at most.
    let read = unsafe { read(ptr::from_ref(from).cast::<ring_cq_options_t>(), "o") };
    read.map(|o| o.flags).map_err(|fault| fault.text.into_owned())
}

#[test]
fn a_struct_may_be_longer_if_what_is_unknown_is_zero() {
    let (known, later) = (size_of::<ring_cq_options_t>(), size_of::<Later>());
    assert_eq!(read_text(&Later { known: options(known), new: 9 }), Ok(3));
    assert_eq!(read_text(&Later { known: options(later), new: 0 }), Ok(3));
    let refused = read_text(&Later { known: options(later), new: 1 << 63 });
    assert!(refused.is_err_and(|text| text.contains("does not know")));
    for (size, why) in [(known - 1, "too small"), (0, "too small"), (4097, "not plausible")] {
        let refused = read_text(&Later { known: options(size), new: 0 });
        assert!(refused.is_err_and(|text| text.contains(why)), "{size}");
    }
}

#[test]
fn views_are_empty_whole_or_refused() {
    let text = "grüß";
    let code = |ptr, len| {
        // SAFETY: a view of `text`, or one that is refused before it is looked at.
        unsafe { super::text(ring_bytes_t { ptr, len }, "t") }.map_err(|fault| fault.code)
    };
    assert_eq!(code(ptr::null(), 0), Ok(""));
    assert_eq!(code(text.as_ptr(), text.len()), Ok(text));
    assert_eq!(code(text.as_ptr(), 3), Err(status::RING_INVALID), "cut inside a letter");
    assert_eq!(code(ptr::null(), 1), Err(status::RING_INVALID));
    assert_eq!(code(text.as_ptr(), usize::MAX), Err(status::RING_INVALID));
}

#[test]
fn arrays_are_bounded_and_aligned() {
    let views = [ring_bytes_t::lend(b"a"), ring_bytes_t::lend(b"b")];
    let len = |first: *const ring_bytes_t, len| {
        // SAFETY: `views`, or one that is refused before it is looked at.
        unsafe { array(first, len, 2, "v") }.map(<[_]>::len).map_err(|fault| fault.code)
    };
    assert_eq!(len(views.as_ptr(), 2), Ok(2));
    assert_eq!(len(ptr::null(), 0), Ok(0));
    assert_eq!(len(ptr::null(), 1), Err(status::RING_INVALID));
    assert_eq!(len(views.as_ptr(), 3), Err(status::RING_INVALID));
    assert_eq!(len(views.as_ptr().wrapping_byte_add(1), 1), Err(status::RING_INVALID));
}

#[test]
fn a_long_error_is_cut_between_letters() {
    let mut error = ring_error_t { size: 256, code: 0, detail: 7, text: [1; 240] };
    let fault = Fault::invalid("ü".repeat(200));
    // SAFETY: a whole struct that says its size.
    unsafe { write_error(&raw mut error, &fault) };
    assert_eq!((error.code, error.detail), (status::RING_INVALID, 0));
    // SAFETY: the text is terminated, which `write_error` sees to.
    let text = unsafe { CStr::from_ptr(error.text.as_ptr()) };
    assert_eq!(text.to_str(), Ok(&*"ü".repeat(119)));

    error.size = 255;
    error.text[0] = 1;
    // SAFETY: as above.
    unsafe { write_error(&raw mut error, &fault) };
    assert_eq!(error.text[0], 1, "too small for a whole one: nothing is written");
}
