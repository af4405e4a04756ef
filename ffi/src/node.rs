//! Exports: nodes and their operations.

#![expect(unsafe_code, reason = "pointers of C")]

use std::ffi::c_void;
use std::mem::size_of;
use std::path::PathBuf;
use std::sync::Arc;

use libring::{Data, Detector, Options};
use ring_core::ids::len_usize;

use crate::cq::{self, lend, ring_cq_t};
use crate::fault::Fault;
use crate::guard;
use crate::handle::{Handle, Sink};
use crate::log::{Free, Log, Say};
use crate::op::{Op, nanos};
use crate::raw;
use crate::status::{self, ring_status_t};
use crate::types::{
    RING_CLIENT, RING_DOWN, RING_HOLD, RING_INSECURE, RING_MEMORY, RING_NO_GOSSIP, RING_UP,
    ring_bytes_t, ring_error_t, ring_event_t, ring_id_t, ring_op_t, ring_options_t, ring_pair_t,
};

/// A member of a cluster, or a client of one; owns threads, sockets and files.
pub struct ring_node_t {
    handle: Arc<Handle>,
    /// Ends after the node: with its threads, or, where one of them hangs, without.
    log: Log,
}

/// The host's functions for what a node logs, and their argument.
#[derive(Clone, Copy)]
struct HostLog {
    log: Option<unsafe extern "C" fn(arg: *mut c_void, level: i32, line: ring_bytes_t)>,
    free: Option<unsafe extern "C" fn(arg: *mut c_void)>,
    arg: *mut c_void,
}

// SAFETY: the header tells the host that `log` is called from any thread, and `log_free` from one that frees the node,
// which may be another than the one that opened it.
unsafe impl Send for HostLog {}
// SAFETY: as above; `log` by several at once.
unsafe impl Sync for HostLog {}

impl HostLog {
    fn of(o: &ring_options_t) -> Log {
        let host = Self { log: o.log, free: o.log_free, arg: o.log_arg };
        let say = host.log.map(|_| -> Say { Box::new(move |level, line| host.say(level, line)) });
        let free = host.free.map(|_| -> Free { Box::new(move || host.free()) });
        Log::new(say, free)
    }

    fn say(&self, level: i32, line: &str) {
        if let Some(log) = self.log {
            // SAFETY: the host vouches for both until ring_node_free() has returned, or a ring_node_open() that fails; `Log`
            // calls it no later. The view is lent for the call.
            unsafe { log(self.arg, level, ring_bytes_t::lend(line.as_bytes())) };
        }
    }

    fn free(&self) {
        if let Some(free) = self.free {
            // SAFETY: as above. `Log` calls it once, after all.
            unsafe { free(self.arg) };
        }
    }
}

/// The node of a handle, in the process that made it, outside of callbacks.
///
/// # Safety
/// `n` is NULL or came from ring_node_open() and was not freed.
unsafe fn node<'a>(n: *const ring_node_t) -> Result<&'a Arc<Handle>, Fault> {
    guard::outside_callbacks()?;
    raw::check_pointer(n, "ring_node_t")?;
    // SAFETY: not NULL; the caller vouches for the rest.
    let handle = unsafe { &(*n).handle };
    handle.same_process()?;
    Ok(handle)
}

/// Runs an export on a node; a panic stops the node.
///
/// # Safety
/// As for [`node`], and `err` as in [`raw::write_error`].
unsafe fn on_node(
    n: *const ring_node_t,
    err: *mut ring_error_t,
    body: impl FnOnce(&Arc<Handle>) -> Result<(), Fault>,
) -> ring_status_t {
    let defect = |text: &str| {
        // SAFETY: the caller's.
        if let Ok(handle) = unsafe { node(n) } {
            handle.defect(text);
        }
    };
    // SAFETY: the caller's.
    guard::run(err, defect, || body(unsafe { node(n)? }))
}

/// Fills `o` with the defaults. `size` is sizeof(ring_options_t) of the host's header.
/// Owns nothing.
/// Any thread; never blocks.
/// Nothing; a size that is not plausible is found by ring_node_open().
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_options_init(o: *mut ring_options_t, size: u32) {
    guard::run_or(drop, || {
        raw::check_pointer(o, "ring_options_t")?;
        let bytes = len_usize(u64::from(size));
        if bytes < size_of::<u32>() {
            return Err(Fault::invalid("ring_options_t: its size is too small"));
        }
        // SAFETY: the caller vouches for `size` bytes, and there is room for a u32.
        unsafe {
            o.cast::<u8>().write_bytes(0, bytes);
            o.cast::<u32>().write(size);
        }
        Ok(())
    });
}

/// Opens a node and waits until it is up. Its own events go to `events`, unless that is NULL.
/// The caller owns *out and ends it with ring_node_free(). `o` is copied; the queue is only used.
/// Any thread but a callback's; blocks, at most `open_timeout_ns`.
/// RING_OK, RING_INVALID, RING_IO, RING_TIMEOUT, RING_HALTED, RING_FORKED, RING_MISUSE,
/// RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_node_open(
    o: *const ring_options_t,
    events: *mut ring_cq_t,
    out: *mut *mut ring_node_t,
    err: *mut ring_error_t,
) -> ring_status_t {
    guard::run(
        err,
        |_| {},
        || {
            guard::outside_callbacks()?;
            guard::begin();
            // SAFETY: the caller's struct, as long as it says.
            let o = unsafe { raw::read(o, "ring_options_t")? };
            // From here on every end that is not a node's ends its log, too.
            let log = HostLog::of(&o);
            raw::check_pointer(out, "out")?;
            let timeout = nanos(o.open_timeout_ns);
            // SAFETY: the caller's views.
            let (mut options, keys_dir) = unsafe { read_options(&o)? };
            options.logger = log.dispatch(o.log_level)?;
            let events = if events.is_null() {
                None
            } else {
                // SAFETY: the caller's handle.
                Some(Arc::clone(unsafe { cq::queue(events)? }))
            };
            let handle = Handle::open(options, keys_dir, timeout, events)?;
            let node = Box::into_raw(Box::new(ring_node_t { handle, log }));
            // SAFETY: checked above; the caller's place for a pointer.
            unsafe { raw::write(out, node, "out") }
        },
    )
}

/// Begins to close a node: nothing more is accepted. Scans, watches, handlers and tracks are cancelled; requests that
/// were handed out are answered for the host, RING_CODE_DROPPED; what else is under way ends by itself, or at
/// `timeout_ns` with the node (negative: as long as it takes; every operation has its deadline). Then streams break,
/// everything is written, and RING_EV_CLOSED comes to `cq` with `tag`: the last event of the node, in any queue. Nobody
/// is told to leave: a member that is closed is away, and comes back when it is opened again.
/// Owns nothing: ring_node_free() is still to be called, then, or before to hurry.
/// Any thread but a callback's, also while others are in calls on the node; does not block. Calls that come later
/// answer RING_CLOSED, ring_call() on other threads ends as its operation does.
/// RING_OK, RING_CLOSED (it was closed before), RING_INVALID, RING_IO, RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_node_close(
    n: *mut ring_node_t,
    cq: *mut ring_cq_t,
    tag: u64,
    timeout_ns: i64,
) -> ring_status_t {
    let close = |handle: &Arc<Handle>| {
        // SAFETY: the caller's handle.
        let queue = Arc::clone(unsafe { cq::queue(cq)? });
        let timeout = u64::try_from(timeout_ns).ok().map(std::time::Duration::from_nanos);
        handle.close(queue, tag, timeout)
    };
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), close) }
}

/// Ends a node: stops it at once, as if the process had been killed, unless it was closed; nothing
/// acknowledged is lost. Everything under way ends: its RING_EV_DONE is in its queue.
/// Afterwards `n` must not be used. NULL is ignored.
/// Any thread but a callback's, where it does nothing; blocks until its threads have ended, and waits for a `log` under
/// way; then `log_free` is called.
/// Nothing. In a child of fork() it does nothing: the memory stays with the process.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_node_free(n: *mut ring_node_t) {
    guard::run_or(drop, || {
        // SAFETY: the caller's handle.
        unsafe { node(n)? };
        // SAFETY: from `Box::into_raw` in ring_node_open(); the caller gives it up.
        let node = unsafe { Box::from_raw(n) };
        let ring_node_t { handle, log } = *node;
        handle.stop();
        drop(log);
        Ok(())
    });
}

/// Begins an operation; its events come to `cq`.
/// `op` and all it points to are copied. *id names it; NULL if nobody wants to know.
/// Any thread but a callback's; does not block.
/// RING_OK: exactly one RING_EV_DONE follows; it may be in the queue before this returns. Else nothing happened:
/// RING_AGAIN (too many), RING_CLOSED, RING_INVALID, RING_CONFLICT (RING_OP_HANDLE), RING_HALTED, RING_FORKED,
/// RING_MISUSE, RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_submit(
    n: *mut ring_node_t,
    cq: *mut ring_cq_t,
    op: *const ring_op_t,
    id: *mut ring_id_t,
) -> ring_status_t {
    let submit = |handle: &Arc<Handle>| {
        // SAFETY: the caller's handle.
        let queue = Arc::clone(unsafe { cq::queue(cq)? });
        // SAFETY: the caller's struct, as long as it says, and its views.
        let op = unsafe { Op::read(op)? };
        let begun = handle.submit(op, Sink::Queue(queue))?;
        // SAFETY: the caller's place, or NULL.
        unsafe { raw::offer(id, begun) };
        Ok(())
    };
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), submit) }
}

/// Ends an operation early: its DONE says RING_CANCELLED, or of a write that may have happened
/// RING_OUTCOME_UNKNOWN. It may also just have ended by itself.
/// Owns nothing.
/// Any thread but a callback's; does not block.
/// RING_OK, RING_INVALID (no such operation, or it has ended), RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_cancel(n: *mut ring_node_t, id: ring_id_t) -> ring_status_t {
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), |handle| handle.cancel(id)) }
}

/// Makes an operation that one event tells, and waits for its end, which *out tells as RING_EV_DONE would. Those that
/// are told by more need a queue: RING_OP_SCAN, RING_OP_WATCH, RING_OP_HANDLE, RING_OP_TRACK, RING_OP_REPLICA,
/// and requests and responses with streams or RING_STREAMS are RING_INVALID here.
/// *out is to be given to ring_events_release() unless no operation began; then it is empty.
/// Any thread but a callback's, many at a time; blocks, at most until the operation's deadline, and nobody else. While it
/// waits the thread does nothing for the host's queues: one that also drains a queue must not wait here for what only
/// that drain brings about, as for a request that its own handler is to answer. ring_cancel() cannot name it;
/// ring_node_free() on another thread ends it.
/// What the operation came to: also RING_NOT_FOUND, RING_CONFLICT, RING_TIMEOUT, RING_HANDLER_ERROR, RING_NO_HANDLER,
/// RING_OUTCOME_UNKNOWN; and as ring_submit().
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_call(
    n: *mut ring_node_t,
    op: *const ring_op_t,
    out: *mut ring_event_t,
    err: *mut ring_error_t,
) -> ring_status_t {
    let call = |handle: &Arc<Handle>| {
        // SAFETY: the caller's place. So that it may be given back whatever happens.
        unsafe { raw::write(out, EMPTY, "out")? };
        // SAFETY: the caller's struct, as long as it says, and its views.
        let op = unsafe { Op::read(op)? };
        // Held on its own: another thread may free the node meanwhile.
        let handle = Arc::clone(handle);
        let mut event = handle.call(op)?;
        let code = event.status;
        let text = if code == status::RING_OK {
            String::new()
        } else {
            String::from_utf8_lossy(&event.data).into_owned()
        };
        // SAFETY: as above; an empty event owns nothing.
        unsafe { raw::write(out, lend(&mut event), "out")? };
        if code == status::RING_OK { Ok(()) } else { Err(Fault::new(code, text)) }
    };
    // SAFETY: the caller's handle.
    unsafe { on_node(n, err, call) }
}

/// Writes to a stream what there is room for; with `fin` 1 ends it well when that was all of `chunk`.
/// What was taken is copied; *taken says how much; NULL if nobody wants to know.
/// Any thread but a callback's, one at a time for a stream that is to keep its order; does not block.
/// RING_OK: all of it. RING_AGAIN: not all; RING_EV_WRITABLE follows. RING_RESET: the stream is broken. RING_CLOSED: it
/// has ended. RING_INVALID (an id that was never a stream's here, or it does not go from here), RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_stream_write(
    n: *mut ring_node_t,
    s: ring_id_t,
    chunk: ring_bytes_t,
    fin: u32,
    taken: *mut usize,
) -> ring_status_t {
    let write = |handle: &Arc<Handle>| {
        // SAFETY: the caller's place, or NULL.
        unsafe { raw::offer(taken, 0) };
        if fin > 1 {
            return Err(Fault::invalid("fin: 0 or 1"));
        }
        // SAFETY: the caller's view.
        let chunk = unsafe { raw::bytes(chunk, "chunk")? };
        let stream = handle.own.stream(s)?;
        let (took, written) = stream.write(chunk, fin == 1);
        // SAFETY: as above.
        unsafe { raw::offer(taken, took) };
        written
    };
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), write) }
}

/// Allows so many bytes more of a stream to come as RING_EV_BODY. Without, none do.
/// Owns nothing.
/// Any thread but a callback's; does not block.
/// RING_OK, RING_CLOSED (the stream has ended), RING_INVALID (an id that was never a stream's here, or it does not come
/// here), RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_stream_credit(
    n: *mut ring_node_t,
    s: ring_id_t,
    bytes: u64,
) -> ring_status_t {
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), |handle| handle.own.stream(s)?.credit(bytes)) }
}

/// Gives a stream up, in RING_UP, RING_DOWN or both `ways`; the other end is told. To end it well is ring_stream_write().
/// Nothing more is told of these ways but what is in the queue already.
/// Any thread but a callback's; does not block.
/// RING_OK, RING_CLOSED (the stream has ended), RING_INVALID (an id that was never a stream's here, or ways that it does not
/// have), RING_FORKED, RING_MISUSE.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_stream_reset(
    n: *mut ring_node_t,
    s: ring_id_t,
    ways: u32,
) -> ring_status_t {
    let reset = |handle: &Arc<Handle>| {
        if ways == 0 || ways & !(RING_UP | RING_DOWN) != 0 {
            return Err(Fault::invalid("ways: RING_UP, RING_DOWN or both"));
        }
        handle.own.stream(s)?.give_up(ways & RING_UP != 0, ways & RING_DOWN != 0)
    };
    // SAFETY: the caller's handle.
    unsafe { on_node(n, std::ptr::null_mut(), reset) }
}

/// The options, and where the keys are.
///
/// # Safety
/// Every view in `o` is as [`raw::bytes`] asks.
unsafe fn read_options(o: &ring_options_t) -> Result<(Options, Option<String>), Fault> {
    let unknown =
        o.flags & !(RING_CLIENT | RING_MEMORY | RING_INSECURE | RING_NO_GOSSIP | RING_HOLD);
    if unknown != 0 {
        return Err(Fault::invalid(format!("ring_options_t: unknown flags {unknown:#x}")));
    }
    if [o.reserved, o.reserved2, o.reserved3, o.reserved4] != [0; 4] {
        return Err(Fault::invalid("ring_options_t: reserved: 0"));
    }
    let expect = u16::try_from(o.expect)
        .map_err(|_| Fault::invalid(format!("expect: {}; at most 65,535", o.expect)))?;
    // SAFETY: the caller's.
    let text = |view, what| unsafe { raw::text(view, what) }.map(str::to_owned);
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let defaults = Options::default();
    let client = o.flags & RING_CLIENT != 0;
    let dir = text(o.data_dir, "data_dir")?;
    let data = if o.flags & RING_MEMORY != 0 || client {
        Data::Memory
    } else if dir.is_empty() {
        return Err(Fault::invalid("data_dir: empty; name a directory, or set RING_MEMORY"));
    } else {
        Data::Dir(PathBuf::from(dir))
    };
    let weight = match u16::try_from(o.weight) {
        Ok(0) => defaults.weight,
        Ok(weight) => weight,
        Err(_) => return Err(Fault::invalid(format!("weight: {}; at most 65,535", o.weight))),
    };
    let keys_dir = given(text(o.keys_dir, "keys_dir")?);
    let mut limits = defaults.limits.clone();
    if o.max_inflight != 0 {
        limits.calls = len_usize(u64::from(o.max_inflight));
        limits.requests = limits.calls;
    }
    let mut timers = defaults.timers.clone();
    if let Some(replace_after) = nanos(o.replace_after_ns) {
        timers.replace_after = replace_after;
    }
    let options = Options {
        timers,
        detector: detector(o),
        name: given(text(o.name, "name")?).unwrap_or(defaults.name),
        cluster: given(text(o.cluster, "cluster")?).unwrap_or(defaults.cluster),
        client,
        // SAFETY: the caller's.
        members: unsafe { read_members(o.members, o.n_members)? },
        // SAFETY: as above.
        join: unsafe { read_texts(o.join, o.n_join, "join")? },
        listen: given(text(o.listen, "listen")?),
        advertise: given(text(o.advertise, "advertise")?),
        weight,
        // Read by a thread of the library's.
        keys: None,
        data,
        // SAFETY: as above.
        tags: unsafe { read_tags(o.tags, o.n_tags)? },
        expect: Some(expect).filter(|expect| *expect != 0),
        metrics: given(text(o.metrics, "metrics")?),
        gossip: o.flags & RING_NO_GOSSIP == 0,
        hold_requests: o.flags & RING_HOLD != 0,
        transport: None,
        // Not known here.
        logger: None,
        insecure: o.flags & RING_INSECURE != 0,
        shards: if o.shards == 0 { defaults.shards } else { o.shards },
        replication: if o.replication == 0 { defaults.replication } else { o.replication },
        limits,
        deadline: nanos(o.timeout_ns).unwrap_or(defaults.deadline),
    };
    Ok((options, keys_dir))
}

fn detector(o: &ring_options_t) -> Detector {
    let defaults = Detector::default();
    let interval = nanos(o.probe_interval_ns).unwrap_or(defaults.probe_interval);
    let or = |given: u32, default| if given == 0 { default } else { given };
    Detector {
        sync_interval: nanos(o.sync_interval_ns).unwrap_or(defaults.sync_interval),
        suspicion_min: or(o.suspicion_min, defaults.suspicion_min),
        suspicion_max: or(o.suspicion_max, defaults.suspicion_max),
        ..Detector::paced(interval, nanos(o.probe_timeout_ns))
    }
}

/// # Safety
/// The views are readable, and what they show.
pub(crate) unsafe fn read_texts(
    first: *const ring_bytes_t,
    len: usize,
    what: &'static str,
) -> Result<Vec<String>, Fault> {
    // SAFETY: the caller's.
    let views = unsafe { raw::array(first, len, MEMBERS_MAX, what)? };
    // SAFETY: the caller's.
    views.iter().map(|view| unsafe { raw::text(*view, what) }.map(str::to_owned)).collect()
}

/// # Safety
/// The views are readable, and what they show.
pub(crate) unsafe fn read_members(
    first: *const ring_bytes_t,
    len: usize,
) -> Result<Vec<(String, String)>, Fault> {
    // SAFETY: the caller's.
    let texts = unsafe { read_texts(first, len, "members")? };
    let pair = |text: String| match text.split_once('=') {
        Some((name, address)) => Ok((name.to_owned(), address.to_owned())),
        None => Err(Fault::invalid(format!("members: \"{text}\" is not name=host:port"))),
    };
    texts.into_iter().map(pair).collect()
}

/// # Safety
/// The tags are readable, and what they show.
unsafe fn read_tags(first: *const ring_pair_t, len: usize) -> Result<Vec<(String, String)>, Fault> {
    // SAFETY: the caller's.
    let pairs = unsafe { raw::array(first, len, TAGS_MAX, "tags")? };
    let tag = |pair: &ring_pair_t| {
        // SAFETY: the caller's.
        let (name, value) =
            unsafe { (raw::text(pair.name, "a tag's name")?, raw::text(pair.value, "a tag")?) };
        Ok((name.to_owned(), value.to_owned()))
    };
    pairs.iter().map(tag).collect()
}

/// More tags are refused by core.
const TAGS_MAX: usize = 4096;
/// More members are refused by core.
const MEMBERS_MAX: usize = 4096;

/// What owns nothing.
pub(crate) const EMPTY: ring_event_t = ring_event_t {
    tag: 0,
    id: 0,
    kind: 0,
    status: 0,
    a: 0,
    b: 0,
    data: ring_bytes_t { ptr: std::ptr::null(), len: 0 },
    owner: std::ptr::null_mut(),
};
