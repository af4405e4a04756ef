//! Exports: a member without input and output of its own.

#![expect(unsafe_code, reason = "pointers of C")]

use std::mem::size_of;

use bytes::Bytes;
use ring_core::Config;

use crate::fault::Fault;
use crate::guard;
use crate::machine::Machine;
use crate::node::{EMPTY, read_members, read_texts};
use crate::op::Op;
use crate::raw;
use crate::status::ring_status_t;
use crate::types::{
    RING_CLIENT, RING_FX_NONE, ring_bytes_t, ring_core_options_t, ring_effect_t, ring_error_t,
    ring_event_t, ring_id_t, ring_input_t, ring_op_t,
};

/// A member that the host drives: no clock, no socket, no file, no thread of its own. Its state is
/// a function of its options and of what it was told. The replicated data is in memory; log batches
/// go to the host, but a member cannot be opened from them yet.
pub struct ring_core_t {
    machine: Machine,
    /// What the last effect lends.
    lent: Bytes,
    /// Why it cannot be used any more.
    broken: Option<String>,
}

/// Runs an export on a member; a panic ends its use.
///
/// # Safety
/// `c` is NULL or came from ring_core_open(), was not freed, and no other thread uses it now.
unsafe fn on_core(
    c: *mut ring_core_t,
    body: impl FnOnce(&mut ring_core_t) -> Result<(), Fault>,
) -> ring_status_t {
    let defect = |text: &str| {
        // SAFETY: `body`'s use has ended; it panicked, so it got past the check for NULL.
        if let Some(core) = unsafe { c.as_mut() } {
            core.broken = Some(text.to_owned());
        }
    };
    guard::run(std::ptr::null_mut(), defect, || {
        guard::outside_callbacks()?;
        raw::check_pointer(c, "ring_core_t")?;
        // SAFETY: not NULL; the caller vouches for the rest.
        let core = unsafe { &mut *c };
        if let Some(text) = &core.broken {
            return Err(Fault::panicked(text));
        }
        core.lent = Bytes::new();
        body(core)
    })
}

/// Makes a sans-IO member.
/// The caller owns *out and ends it with ring_core_free(). `o` is copied.
/// Any thread; does not block.
/// RING_OK, RING_INVALID, RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_open(
    o: *const ring_core_options_t,
    out: *mut *mut ring_core_t,
    err: *mut ring_error_t,
) -> ring_status_t {
    guard::run(
        err,
        |_| {},
        || {
            guard::begin();
            raw::check_pointer(out, "out")?;
            // SAFETY: the caller's struct, as long as it says, and its views.
            let (config, o) = unsafe {
                let o = raw::read(o, "ring_core_options_t")?;
                (read_config(&o)?, o)
            };
            let machine = Machine::new(config, o.seed, o.now_ns)?;
            let core = Box::new(ring_core_t { machine, lent: Bytes::new(), broken: None });
            // SAFETY: checked above; the caller's place for a pointer.
            unsafe { raw::write(out, Box::into_raw(core), "out") }
        },
    )
}

/// Tells a member something. `now_ns` never goes back (if it does, the time before counts).
/// `in` and its data are copied.
/// One thread at a time; does not block.
/// RING_OK, RING_INVALID (nothing happened), RING_MISUSE, RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_input(
    c: *mut ring_core_t,
    now_ns: u64,
    input: *const ring_input_t,
) -> ring_status_t {
    let tell = |core: &mut ring_core_t| {
        // SAFETY: the caller's struct, as long as it says.
        let input = unsafe { raw::read(input, "ring_input_t")? };
        // SAFETY: the caller's view.
        let data = unsafe { raw::bytes(input.data, "data")? };
        core.machine.input(now_ns, input.kind, input.peer, input.token, data)
    };
    // SAFETY: the caller's handle.
    unsafe { on_core(c, tell) }
}

/// Begins an operation; its events come as RING_FX_EVENT. *id names it, NULL if nobody wants to
/// know.
/// `op` and all it points to are copied.
/// One thread at a time; does not block.
/// RING_OK: exactly one RING_EV_DONE follows. Else nothing happened: RING_AGAIN, RING_INVALID, RING_UNSUPPORTED
/// (RING_OP_REQUEST, RING_OP_RESPOND, RING_OP_HANDLE, RING_OP_TRACK, RING_OP_REPLICA, RING_OP_METRICS),
/// RING_HALTED, RING_MISUSE, RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_submit(
    c: *mut ring_core_t,
    now_ns: u64,
    op: *const ring_op_t,
    id: *mut ring_id_t,
) -> ring_status_t {
    let submit = |core: &mut ring_core_t| {
        // SAFETY: the caller's struct, as long as it says, and its views.
        let op = unsafe { Op::read(op)? };
        let begun = core.machine.submit(now_ns, op)?;
        // SAFETY: the caller's place, or NULL.
        unsafe { raw::offer(id, begun) };
        Ok(())
    };
    // SAFETY: the caller's handle.
    unsafe { on_core(c, submit) }
}

/// When RING_IN_WAKEUP is due, on the clock of `now_ns`. Ask when no effect is left.
/// Owns nothing.
/// One thread at a time; does not block.
/// A time; -1: there is no timer, or a member that cannot be used any more.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_deadline(c: *const ring_core_t) -> i64 {
    guard::run_or(
        |_| -1,
        || {
            raw::check_pointer(c, "ring_core_t")?;
            // SAFETY: not NULL; the caller's handle.
            let core = unsafe { &*c };
            let at = core.machine.deadline().filter(|_| core.broken.is_none());
            Ok(at.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)))
        },
    )
}

/// The next thing that the host is to do; call it until it says RING_FX_NONE. Effects are carried
/// out in this order.
/// What *out shows is lent until the next call on `c`.
/// One thread at a time; does not block.
/// RING_OK, RING_INVALID, RING_MISUSE, RING_PANICKED.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_next(
    c: *mut ring_core_t,
    out: *mut ring_effect_t,
) -> ring_status_t {
    let next = |core: &mut ring_core_t| {
        raw::check_pointer(out, "out")?;
        let mut effect = core.machine.next().unwrap_or_default();
        let mut event = EMPTY;
        let mut data = ring_bytes_t::lend(&[]);
        if let Some(happened) = effect.event.take() {
            core.lent = happened.data;
            event = ring_event_t {
                tag: happened.tag,
                id: happened.id,
                kind: happened.kind,
                status: happened.status,
                a: happened.a,
                b: happened.b,
                data: ring_bytes_t::lend(&core.lent),
                ..EMPTY
            };
        } else {
            core.lent = effect.data;
            data = ring_bytes_t::lend(&core.lent);
        }
        let size = u32::try_from(size_of::<ring_effect_t>()).unwrap_or(0);
        let (kind, peer, token) = (effect.kind, effect.peer, effect.token);
        // SAFETY: the caller's place.
        unsafe { raw::write(out, ring_effect_t { size, kind, peer, token, data, event }, "out") }
    };
    // SAFETY: the caller's handle.
    unsafe { on_core(c, next) }
}

/// A hash over the member's state and all effects so far: the same for the same options and inputs
/// with the same version of the library.
/// Owns nothing.
/// One thread at a time; does not block.
/// The hash; 0 for NULL and for a member that cannot be used any more.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_digest(c: *const ring_core_t) -> u64 {
    guard::run_or(
        |_| 0,
        || {
            raw::check_pointer(c, "ring_core_t")?;
            // SAFETY: not NULL; the caller's handle.
            let core = unsafe { &*c };
            Ok(if core.broken.is_some() { 0 } else { core.machine.digest() })
        },
    )
}

/// Ends a member, as if its process had been killed.
/// Afterwards `c` and what it lent must not be used. NULL is ignored.
/// One thread at a time; does not block.
/// Nothing.
// SAFETY: as for ring_abi().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ring_core_free(c: *mut ring_core_t) {
    guard::run_or(drop, || {
        raw::check_pointer(c, "ring_core_t")?;
        // SAFETY: from `Box::into_raw` in ring_core_open(); the caller gives it up.
        drop(unsafe { Box::from_raw(c) });
        Ok(())
    });
}

/// # Safety
/// Every view in `o` is as [`raw::bytes`] asks.
unsafe fn read_config(o: &ring_core_options_t) -> Result<Config, Fault> {
    if o.flags & !RING_CLIENT != 0 {
        return Err(Fault::invalid("ring_core_options_t: unknown flags"));
    }
    let defaults = Config::default();
    // SAFETY: the caller's.
    let text = |view, what| unsafe { raw::text(view, what) }.map(str::to_owned);
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let client = o.flags & RING_CLIENT != 0;
    // SAFETY: the caller's.
    let (members, join) =
        unsafe { (read_members(o.members, o.n_members)?, read_texts(o.join, o.n_join, "join")?) };
    let members = if client {
        join.into_iter().map(|address| (String::new(), address)).collect()
    } else {
        members
    };
    Ok(Config {
        cluster: given(text(o.cluster, "cluster")?).unwrap_or(defaults.cluster),
        name: given(text(o.name, "name")?).unwrap_or(defaults.name),
        client,
        members,
        shards: if o.shards == 0 { defaults.shards } else { o.shards },
        replication: if o.replication == 0 { defaults.replication } else { o.replication },
        ..Config::default()
    })
}

const _: () = assert!(RING_FX_NONE == 0, "the default of an effect");
