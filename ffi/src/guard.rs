//! What every export is wrapped in: no panic leaves it, no child of a fork uses what its parent
//! made, no callback calls back; and how the library's own threads are started. A panic is told by the status and the text
//! of the call or event that it ends, and by the log of the node whose thread it met.

#![expect(unsafe_code, reason = "signal masks and fork handlers")]

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use crate::fault::Fault;
use crate::raw;
use crate::status::{self, ring_status_t};
use crate::types::ring_error_t;

/// Runs an export. What it fails with goes to `error`; a panic becomes RING_PANICKED and is told to
/// `defect`, which must stop whatever may be half done.
pub(crate) fn run(
    error: *mut ring_error_t,
    defect: impl FnOnce(&str),
    body: impl FnOnce() -> Result<(), Fault>,
) -> ring_status_t {
    let fault = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return status::RING_OK,
        Ok(Err(fault)) => fault,
        Err(panic) => {
            let text = panic_text(&*panic);
            // It may panic too; then there is nothing more to be done.
            let _ = catch_unwind(AssertUnwindSafe(|| defect(&text)));
            let_go(panic);
            Fault::panicked(&text)
        }
    };
    // SAFETY: exports are given a `ring_error_t` of the caller, or NULL.
    unsafe { raw::write_error(error, &fault) };
    fault.code
}

/// Runs an export that gives something else than a status.
pub(crate) fn run_or<T>(
    otherwise: impl FnOnce(Fault) -> T,
    body: impl FnOnce() -> Result<T, Fault>,
) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(fault)) => otherwise(fault),
        Err(panic) => {
            let text = panic_text(&*panic);
            let_go(panic);
            otherwise(Fault::panicked(&text))
        }
    }
}

/// Drops what a panic carries; that may panic again.
pub(crate) fn let_go(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic").to_owned()
}

/// How often this process's ancestors have forked with the library loaded. A handle that was made
/// at another count was made by a parent, whose threads are not here.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Before the first handle is made: counts forks from now on, and keeps panics off stderr.
pub(crate) fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only counts. It fails only without memory; then children are not
        // recognised, as if they had been made by a bare system call.
        unsafe { libc::pthread_atfork(None, None, Some(on_fork)) };
        // On a thread of no node nobody listens: a node that halts for it says so itself.
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("a panic");
            let at = panic.location().map(tracing::field::display);
            tracing::error!(at, "a defect of libring: {text}");
        }));
    });
}

extern "C" fn on_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Whether a callback of the host runs on this thread. A constant: asking for it allocates
    /// nothing on a thread that is not ours.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a callback of the host.
pub(crate) fn callback(body: impl FnOnce()) {
    let before = IN_CALLBACK.replace(true);
    body();
    IN_CALLBACK.set(before);
}

/// Whether this call comes out of a callback.
pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// A callback must not call back.
pub(crate) fn outside_callbacks() -> Result<(), Fault> {
    if in_callback() {
        return Err(Fault::new(status::RING_MISUSE, "called from inside a callback"));
    }
    Ok(())
}

/// A call on something that was made at `made` forks.
pub(crate) fn same_process(made: u32) -> Result<(), Fault> {
    if made == forks() { Ok(()) } else { Err(Fault::forked()) }
}

/// Starts a thread on which, and on whose descendants, no signal is ever handled: the host's
/// handlers run on the host's threads, and a closed connection is an error, never SIGPIPE.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are places of ours; `sigfillset` fills the one, `pthread_sigmask` the other,
    // unless it fails, which with these arguments it cannot.
    let masked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    if masked == 0 {
        // SAFETY: it was filled above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
    }
    thread
}
