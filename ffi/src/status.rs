//! The codes that calls return. Received codes are integers, so these are constants and no enum.

/// What a call or an operation came to: RING_OK, or a negative code. ring_status_name() knows each.
pub type ring_status_t = i32;

/// Done.
pub const RING_OK: ring_status_t = 0;
/// No room, or nothing there yet: try again later. Nothing happened.
pub const RING_AGAIN: ring_status_t = -1;
/// The node, queue or stream is closed. Nothing happened.
pub const RING_CLOSED: ring_status_t = -2;
/// Cancelled. It did not happen.
pub const RING_CANCELLED: ring_status_t = -3;
/// The time was up. It did not happen.
pub const RING_TIMEOUT: ring_status_t = -4;
/// An argument cannot be used: NULL, a size, UTF-8, a limit. Nothing happened.
pub const RING_INVALID: ring_status_t = -5;
/// A call that is not allowed here: inside a callback, two threads where one may be, a second answer to a request.
pub const RING_MISUSE: ring_status_t = -6;
/// This member does not lead; only calls that ask for it see this.
pub const RING_NOT_LEADER: ring_status_t = -7;
/// What was asked for does not fit what is there, and nothing was changed. RING_OP_CAS, in its DONE: the key is not as
/// expected; the event's `a` is its revision, 0 when it does not exist. RING_OP_HANDLE, from ring_submit(): the route has
/// a handler on this node. RING_OP_TRACK, in its DONE: this member does not own the key. RING_OP_REPLICA, in its DONE: it owns
/// the key already.
pub const RING_CONFLICT: ring_status_t = -8;
/// The write may have happened, or may still happen. Repeating it may do it twice.
pub const RING_OUTCOME_UNKNOWN: ring_status_t = -9;
/// The system refused: a file, a socket, a thread, a disk.
pub const RING_IO: ring_status_t = -10;
/// The handle was made before fork(); this is the child. Nothing happened.
pub const RING_FORKED: ring_status_t = -11;
/// A defect of this library: the node has stopped, and writes nothing more.
pub const RING_PANICKED: ring_status_t = -12;
/// The memory given is too small for what must go there.
pub const RING_TOO_SMALL: ring_status_t = -13;
/// No such key.
pub const RING_NOT_FOUND: ring_status_t = -14;
/// The member has halted: it met something that it must not go on with. Nothing happened.
pub const RING_HALTED: ring_status_t = -15;
/// A scan's snapshot is gone: scan again from the key that the event carries.
pub const RING_INTERRUPTED: ring_status_t = -16;

/// A request's handler answered with an error: the event's `a` is its code.
pub const RING_HANDLER_ERROR: ring_status_t = -17;
/// The member that was asked handles no such route. Nothing happened.
pub const RING_NO_HANDLER: ring_status_t = -18;
/// A watch cannot go on: changes before revision `b` of the event are forgotten.
pub const RING_COMPACTED: ring_status_t = -19;
/// A stream is broken: its other end, its request or its connection is gone. What its reader has got is not known.
pub const RING_RESET: ring_status_t = -20;

/// This kind of member does not do that, whatever its state: a sans-IO member (ring_core_t) neither asks nor handles, tracks
/// no keys and has no metrics. Nothing happened.
pub const RING_UNSUPPORTED: ring_status_t = -21;

/// A code's name as it stands in the header, NUL-terminated.
pub(crate) fn name(status: ring_status_t) -> &'static std::ffi::CStr {
    match status {
        RING_OK => c"RING_OK",
        RING_AGAIN => c"RING_AGAIN",
        RING_CLOSED => c"RING_CLOSED",
        RING_CANCELLED => c"RING_CANCELLED",
        RING_TIMEOUT => c"RING_TIMEOUT",
        RING_INVALID => c"RING_INVALID",
        RING_MISUSE => c"RING_MISUSE",
        RING_NOT_LEADER => c"RING_NOT_LEADER",
        RING_CONFLICT => c"RING_CONFLICT",
        RING_OUTCOME_UNKNOWN => c"RING_OUTCOME_UNKNOWN",
        RING_IO => c"RING_IO",
        RING_FORKED => c"RING_FORKED",
        RING_PANICKED => c"RING_PANICKED",
        RING_TOO_SMALL => c"RING_TOO_SMALL",
        RING_NOT_FOUND => c"RING_NOT_FOUND",
        RING_HALTED => c"RING_HALTED",
        RING_INTERRUPTED => c"RING_INTERRUPTED",
        RING_HANDLER_ERROR => c"RING_HANDLER_ERROR",
        RING_NO_HANDLER => c"RING_NO_HANDLER",
        RING_COMPACTED => c"RING_COMPACTED",
        RING_RESET => c"RING_RESET",
        RING_UNSUPPORTED => c"RING_UNSUPPORTED",
        _ => c"RING_UNKNOWN_STATUS",
    }
}
