//! Exports: completion queues.

#![expect(unsafe_code, reason = "pointers of C")]

use std::ffi::c_void;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::len_u64;

use crate::fault::Fault;
use crate::guard;
use crate::handle::system;
use crate::queue::{Event, Queue, Take, Wake};
use crate::raw;
use crate::status::{self, ring_status_t};
use crate::types::{ring_bytes_t, ring_cq_options_t, ring_error_t, ring_event_t};

/// A completion queue: filled by many threads, drained by one at a time.
pub struct ring_cq_t {
    queue: Arc<Queue>,
}

/// The host's function and its argument.
struct HostWake {
    wake: unsafe extern "C" fn(arg: *mut c_void),
    arg: *mut c_void,
}

// SAFETY: the header tells the host that `wake` is called from any thread.
unsafe impl Send for HostWake {}
// SAFETY: as above.
unsafe impl Sync for HostWake {}

impl HostWake {
    fn call(&self) {
        // SAFETY: the host vouches for both until ring_cq_free() has returned; `Queue` calls it no
        // later.
        unsafe { (self.wake)(self.arg) };
    }
}

/// The queue of a handle, in the process that made it, outside of callbacks.
///
/// # Safety
/// `cq` is NULL or came from ring_cq_open() and was not freed.
pub(crate) unsafe fn queue<'a>(cq: *const ring_cq_t) -> Result<&'a Arc<Queue>, Fault> {
    guard::outside_callbacks()?;
    raw::check_pointer(cq, "ring_cq_t")?;
    // SAFETY: not NULL; the caller vouches for the rest.
    let queue = unsafe { &(*cq).queue };
    queue.same_process()?;
    Ok(queue)
}

/// Makes a completion queue; `o` may be NULL.
/// The caller owns *out and ends it with ring_cq_free().
/// Any thread; does not block.
/// RING_OK, RING_INVALID, RING_IO (no descriptor is left), RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_open(
    o: *const ring_cq_options_t,
    out: *mut *mut ring_cq_t,
    err: *mut ring_error_t,
) -> ring_status_t {
    guard::run(
        err,
        |_| {},
        || {
            guard::outside_callbacks()?;
            guard::begin();
            raw::check_pointer(out, "out")?;
            let mut wake: Option<Wake> = None;
            if !o.is_null() {
                // SAFETY: the caller's struct, as long as it says.
                let options = unsafe { raw::read(o, "ring_cq_options_t")? };
                if options.flags != 0 {
                    return Err(Fault::invalid("ring_cq_options_t: unknown flags"));
                }
                if let Some(function) = options.wake {
                    let host = HostWake { wake: function, arg: options.wake_arg };
                    wake = Some(Box::new(move || host.call()));
                }
            }
            let queue = Arc::new(Queue::new(wake).map_err(system)?);
            let handle = Box::into_raw(Box::new(ring_cq_t { queue }));
            // SAFETY: checked above; the caller's place for a pointer.
            unsafe { raw::write(out, handle, "out") }
        },
    )
}

/// A descriptor that is readable while events wait, for poll() and its like. Never read it.
/// It belongs to the queue and is closed with it.
/// Any thread; never blocks.
/// The descriptor, or a negative code: RING_INVALID, RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_fd(cq: *const ring_cq_t) -> i32 {
    // SAFETY: the caller's handle.
    guard::run_or(|fault| fault.code, || Ok(unsafe { queue(cq)? }.fd()))
}

/// Waits until events wait, at most `timeout_ns` (negative: without end, 0: looks only).
/// Owns nothing.
/// Any thread but a callback's; blocks. ring_cq_wakeup() and ring_cq_free() end it.
/// RING_OK, RING_TIMEOUT, RING_AGAIN (woken), RING_CLOSED, RING_INVALID, RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_wait(cq: *mut ring_cq_t, timeout_ns: i64) -> ring_status_t {
    guard::run(
        std::ptr::null_mut(),
        |_| {},
        || {
            // SAFETY: the caller's handle. Held on its own: another thread may free the handle.
            let queue = Arc::clone(unsafe { queue(cq)? });
            queue.wait(u64::try_from(timeout_ns).ok().map(Duration::from_nanos))
        },
    )
}

/// Ends one ring_cq_wait(), the one under way or the next, and makes the descriptor readable.
/// Owns nothing.
/// Any thread, also in callbacks; does not block.
/// Nothing; NULL and a queue of a parent process are ignored.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_wakeup(cq: *mut ring_cq_t) {
    guard::run_or(drop, || {
        raw::check_pointer(cq, "ring_cq_t")?;
        // SAFETY: not NULL; the caller's handle.
        let queue = unsafe { &(*cq).queue };
        queue.same_process()?;
        queue.wakeup();
        Ok(())
    });
}

/// Takes up to `max` events out of the queue, in the order in which they happened.
/// Each event's data is lent until ring_events_release(), which every event must go to.
/// One thread at a time, not in callbacks; does not block.
/// How many, or a negative code: RING_MISUSE (a second thread), RING_INVALID, RING_FORKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_drain(
    cq: *mut ring_cq_t,
    out: *mut ring_event_t,
    max: u32,
) -> i32 {
    guard::run_or(
        |fault| fault.code,
        || {
            // SAFETY: the caller's handle. Held on its own: what follows a scan may outlive it.
            let queue = Arc::clone(unsafe { queue(cq)? });
            let max = i32::try_from(max).unwrap_or(i32::MAX);
            if max == 0 {
                return Ok(0);
            }
            raw::check_pointer(out, "out")?;
            let most = usize::try_from(max).unwrap_or(0);
            let mut next = 0;
            let taken = queue.drain(|event| {
                if next == most {
                    return Take::Full;
                }
                let event = lend(event);
                // SAFETY: the caller vouches for `max` events at `out`, and `next` is less.
                unsafe { out.add(next).write(event) };
                next += 1;
                Take::Took
            })?;
            Ok(i32::try_from(taken).unwrap_or(i32::MAX))
        },
    )
}

/// Gives back what ring_cq_drain() or ring_call() lent.
/// Afterwards the events' data must not be used; to give it back twice does nothing.
/// Any thread, also in callbacks; does not block.
/// Nothing.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_events_release(ev: *mut ring_event_t, n: u32) {
    guard::run_or(drop, || {
        let n = usize::try_from(n).unwrap_or(0);
        if n == 0 {
            return Ok(());
        }
        raw::check_pointer(ev, "ev")?;
        // SAFETY: the caller vouches for `n` events that a drain has filled.
        for event in unsafe { slice::from_raw_parts_mut(ev, n) } {
            event.data = ring_bytes_t::lend(&[]);
            let owner = std::mem::replace(&mut event.owner, std::ptr::null_mut());
            if !owner.is_null() {
                // SAFETY: `lend` made it, and it was not given back: it would be NULL.
                drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
            }
        }
        Ok(())
    });
}

/// As ring_cq_drain(), for other languages: copies whole records into `buf`, nothing to release.
/// A record: tag u64, id u64, kind u32, status i32, a u64, b u64, length u32, 0 u32, then the data,
/// padded with zeros to a multiple of 8; in the byte order of the machine. `buf` is the caller's.
/// One thread at a time, not in callbacks; does not block.
/// The bytes written. -48 or less: minus the size that the first record needs. Else a code:
/// RING_MISUSE (a second thread), RING_INVALID, RING_FORKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_drain_packed(
    cq: *mut ring_cq_t,
    buf: *mut c_void,
    cap: usize,
) -> i64 {
    guard::run_or(
        |fault| i64::from(fault.code),
        || {
            // SAFETY: the caller's handle. Held on its own: what follows a scan may outlive it.
            let queue = Arc::clone(unsafe { queue(cq)? });
            if cap > 0 {
                raw::check_pointer(buf.cast::<u8>(), "buf")?;
            }
            let cap = cap.min(usize::try_from(isize::MAX).unwrap_or(usize::MAX));
            let mut written = 0;
            let mut needed = None;
            queue.drain(|event| {
                let size = packed_size(event);
                if size > cap - written {
                    if written == 0 {
                        needed = Some(size);
                    }
                    return Take::Full;
                }
                // SAFETY: the caller vouches for `cap` bytes at `buf`, and `size` are left of them.
                unsafe { pack(event, buf.cast::<u8>().add(written)) };
                written += size;
                Take::Took
            })?;
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            Ok(needed.map_or_else(|| count(written), |needed| -count(needed)))
        },
    )
}

/// Ends a queue. Events that wait are dropped, also those that a node still adds.
/// Afterwards `cq` must not be used, and `wake` is not called any more. NULL is ignored.
/// Any thread but a callback's, where it does nothing; waits for a `wake` under way.
/// Nothing. In a child of fork() it does nothing: the memory stays with the process.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cq_free(cq: *mut ring_cq_t) {
    guard::run_or(drop, || {
        // SAFETY: the caller's handle.
        unsafe { queue(cq)? };
        // SAFETY: from `Box::into_raw` in ring_cq_open(); the caller gives it up.
        let handle = unsafe { Box::from_raw(cq) };
        handle.queue.free();
        Ok(())
    });
}

/// An event as C sees it. Its data stays where it is.
pub(crate) fn lend(event: &mut Event) -> ring_event_t {
    let data = std::mem::take(&mut event.data);
    let (view, owner) = if data.is_empty() {
        (ring_bytes_t::lend(&[]), std::ptr::null_mut())
    } else {
        let owner = Box::new(data);
        (ring_bytes_t::lend(&owner), Box::into_raw(owner).cast::<c_void>())
    };
    ring_event_t {
        tag: event.tag,
        id: event.id,
        kind: event.kind,
        status: event.status,
        a: event.a,
        b: event.b,
        data: view,
        owner,
    }
}

fn packed_size(event: &Event) -> usize {
    PACKED_HEAD + event.data.len().next_multiple_of(8)
}

/// # Safety
/// `packed_size` bytes are writable at `to`.
unsafe fn pack(event: &Event, to: *mut u8) {
    let mut head = [0; PACKED_HEAD];
    let len = u32::try_from(event.data.len()).unwrap_or(u32::MAX);
    let fields: [&[u8]; 7] = [
        &event.tag.to_ne_bytes(),
        &event.id.to_ne_bytes(),
        &event.kind.to_ne_bytes(),
        &event.status.to_ne_bytes(),
        &event.a.to_ne_bytes(),
        &event.b.to_ne_bytes(),
        &len.to_ne_bytes(),
    ];
    for (to, from) in head.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    let padding = packed_size(event) - PACKED_HEAD - event.data.len();
    // SAFETY: the three parts lie behind each other and are `packed_size` bytes together; the
    // caller vouches for those, and they are the host's, so they overlap nothing of ours.
    unsafe {
        to.copy_from_nonoverlapping(head.as_ptr(), PACKED_HEAD);
        to.add(PACKED_HEAD).copy_from_nonoverlapping(event.data.as_ptr(), event.data.len());
        to.add(PACKED_HEAD + event.data.len()).write_bytes(0, padding);
    }
    debug_assert!(len_u64(event.data.len()) <= u64::from(u32::MAX), "values are far shorter");
}

const PACKED_HEAD: usize = 48;
const _: () = assert!(PACKED_HEAD == 4 * 8 + 2 * 4 + 2 * 4);
// What ring_cq_drain_packed() returns is a code or minus a size.
const _: () = assert!(status::RING_RESET == -20 && PACKED_HEAD > 20);
