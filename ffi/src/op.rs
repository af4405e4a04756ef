//! Operations: from the header's struct to core's actions, from replies to events.

#![expect(unsafe_code, reason = "views of the host")]

use std::time::Duration;

use bytes::Bytes;
use libring::{
    Action, Consistency, Error, Failure, MemberId, MemberState, Placement, Range, Reply, Revision,
    Standing, slot_of,
};
use ring_core::ids::len_u64;
use ring_core::shard::command::{Change, Expect};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::queue::Event;
use crate::raw;
use crate::scan::{Pages, failed};
use crate::status;
use crate::types::{
    RING_EV_DONE, RING_IF_VALUE, RING_LOCAL, RING_OP_BATCH, RING_OP_CAS, RING_OP_DELETE,
    RING_OP_GET, RING_OP_LEAVE, RING_OP_MEMBERS, RING_OP_OWNERS, RING_OP_PUT, RING_OP_SCAN,
    RING_OP_STATUS, RING_PREFIX, RING_REMOVE, RING_REVERSE, ring_bytes_t, ring_change_t, ring_op_t,
};

/// An operation, read whole: nothing in it points to the host's memory but the partition's name.
pub(crate) struct Op<'a> {
    pub(crate) tag: u64,
    pub(crate) partition: &'a str,
    /// None: as the node's options say.
    pub(crate) timeout: Option<Duration>,
    pub(crate) what: What,
}

/// What an operation does.
pub(crate) enum What {
    Call(Action),
    /// The status of a member; none: of this one.
    Status(Option<MemberId>),
    /// A member is to leave; none: this one.
    Leave(Option<MemberId>),
    Scan(Pages),
    /// Answered at once.
    Ask(Question),
    #[cfg(feature = "test-ops")]
    Echo(Bytes),
    /// Panics in the call.
    #[cfg(feature = "test-ops")]
    PanicHere,
    /// Panics in the completion, on a thread of the library.
    #[cfg(feature = "test-ops")]
    PanicThere,
}

/// What a node knows by itself.
pub(crate) enum Question {
    Owners { key: Bytes, count: usize },
    Members,
}

/// The answer to a question: who is in line for a key, or who is registered.
pub(crate) fn answered(
    tag: u64,
    question: &Question,
    ring: &Placement,
    members: impl FnOnce() -> Vec<Listed>,
) -> Event {
    let event = Event { tag, kind: RING_EV_DONE, ..Event::default() };
    match question {
        Question::Owners { key, count } => {
            let owners = ring.owners(slot_of(key), *count);
            let data: Vec<u8> = owners.iter().flat_map(|id| id.0.to_ne_bytes()).collect();
            let a = owners.first().map_or(0, |owner| owner.0);
            Event { a, b: len_u64(owners.len()), data: data.into(), ..event }
        }
        Question::Members => {
            let members: Vec<Value> = members().into_iter().map(Listed::json).collect();
            let b = len_u64(members.len());
            Event { b, data: Value::from(members).to_string().into(), ..event }
        }
    }
}

/// A registered member, and what is thought of it.
pub(crate) struct Listed {
    pub(crate) id: MemberId,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) weight: u16,
    pub(crate) standing: Standing,
    pub(crate) state: Option<MemberState>,
    pub(crate) tags: Vec<(String, String)>,
}

impl Listed {
    fn json(self) -> Value {
        let standing = match self.standing {
            Standing::Active => "Active",
            Standing::Leaving => "Leaving",
            Standing::Lost => "Lost",
        };
        let state = self.state.map(|state| match state {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "failed",
            MemberState::Left => "left",
        });
        let tags: serde_json::Map<String, Value> =
            self.tags.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        json!({
            "id": self.id.0,
            "name": self.name,
            "address": self.address,
            "weight": self.weight,
            "standing": standing,
            "state": state,
            "tags": tags,
        })
    }
}

impl Op<'_> {
    /// Reads an operation.
    ///
    /// # Safety
    /// As ring_submit() says of its `op`.
    pub(crate) unsafe fn read<'a>(op: *const ring_op_t) -> Result<Op<'a>, Fault> {
        // SAFETY: the caller's.
        let op = unsafe { raw::read(op, "ring_op_t")? };
        // SAFETY: the caller vouches for every view in it.
        let partition = unsafe { raw::text(op.partition, "partition")? };
        // SAFETY: as above.
        let what = unsafe { read_what(&op)? };
        Ok(Op { tag: op.tag, partition, timeout: nanos(op.timeout_ns), what })
    }
}

/// A member of the header; 0 is none.
fn member(id: u64) -> Option<MemberId> {
    Some(MemberId(id)).filter(|member| member.0 != 0)
}

/// A time of the header; none when it is not positive.
pub(crate) fn nanos(ns: i64) -> Option<Duration> {
    u64::try_from(ns).ok().filter(|ns| *ns > 0).map(Duration::from_nanos)
}

/// # Safety
/// Every view in `op` is as [`raw::bytes`] asks.
unsafe fn read_what(op: &ring_op_t) -> Result<What, Fault> {
    // SAFETY: the caller's.
    let copy =
        |view: ring_bytes_t, what| unsafe { raw::bytes(view, what) }.map(Bytes::copy_from_slice);
    let known = |flags: u16| match op.flags & !flags {
        0 => Ok(()),
        unknown => Err(Fault::invalid(format!("op {}: unknown flags {unknown:#x}", op.op))),
    };
    let consistency = match op.flags & RING_LOCAL {
        0 => Consistency::Linearizable,
        _ => Consistency::Local,
    };
    let call = match op.op {
        RING_OP_GET => {
            known(RING_LOCAL)?;
            Action::Get { key: copy(op.key, "key")?, consistency }
        }
        RING_OP_PUT => {
            known(0)?;
            Action::Put { key: copy(op.key, "key")?, value: copy(op.value, "value")? }
        }
        RING_OP_DELETE => {
            known(0)?;
            Action::Delete { key: copy(op.key, "key")? }
        }
        RING_OP_CAS => {
            known(RING_IF_VALUE | RING_REMOVE)?;
            let expect = match op.flags & RING_IF_VALUE {
                0 => Expect::Revision(Revision(op.expect)),
                _ => Expect::Value(Some(copy(op.compare, "compare")?)),
            };
            let value = match op.flags & RING_REMOVE {
                0 => Some(copy(op.value, "value")?),
                _ => None,
            };
            Action::CompareAndSet { key: copy(op.key, "key")?, expect, value }
        }
        RING_OP_BATCH => {
            known(0)?;
            // SAFETY: the caller's.
            Action::Batch { changes: unsafe { read_changes(op)? } }
        }
        RING_OP_SCAN => {
            known(RING_PREFIX | RING_REVERSE | RING_LOCAL)?;
            return scan(op, copy(op.key, "key")?, copy(op.value, "value")?, consistency);
        }
        RING_OP_STATUS => {
            known(0)?;
            return Ok(What::Status(member(op.target)));
        }
        RING_OP_OWNERS => {
            known(0)?;
            let count = usize::try_from(op.limit.max(1)).unwrap_or(usize::MAX);
            return Ok(What::Ask(Question::Owners { key: copy(op.key, "key")?, count }));
        }
        RING_OP_MEMBERS => {
            known(0)?;
            return Ok(What::Ask(Question::Members));
        }
        RING_OP_LEAVE => {
            known(0)?;
            return Ok(What::Leave(member(op.target)));
        }
        #[cfg(feature = "test-ops")]
        TEST_ECHO => return Ok(What::Echo(copy(op.value, "value")?)),
        #[cfg(feature = "test-ops")]
        TEST_PANIC_HERE => return Ok(What::PanicHere),
        #[cfg(feature = "test-ops")]
        TEST_PANIC_THERE => return Ok(What::PanicThere),
        unknown => return Err(Fault::invalid(format!("op {unknown}: not known"))),
    };
    Ok(What::Call(call))
}

/// # Safety
/// Every change is readable, and every view in them.
unsafe fn read_changes(op: &ring_op_t) -> Result<Vec<Change<Bytes>>, Fault> {
    // SAFETY: the caller's.
    let changes: &[ring_change_t] =
        unsafe { raw::array(op.changes, op.n_changes, CHANGES_MAX, "changes")? };
    let change = |change: &ring_change_t| {
        // SAFETY: the caller's.
        let key = Bytes::copy_from_slice(unsafe { raw::bytes(change.key, "a change's key")? });
        let put = match change.op {
            op if op == u32::from(RING_OP_PUT) => true,
            op if op == u32::from(RING_OP_DELETE) => false,
            op => return Err(Fault::invalid(format!("a change's op {op}: not known"))),
        };
        if !put {
            return Ok(Change { key, value: None });
        }
        // SAFETY: the caller's.
        let value = unsafe { raw::bytes(change.value, "a change's value")? };
        Ok(Change { key, value: Some(Bytes::copy_from_slice(value)) })
    };
    changes.iter().map(change).collect()
}

fn scan(op: &ring_op_t, key: Bytes, value: Bytes, consistency: Consistency) -> Result<What, Fault> {
    let reverse = op.flags & RING_REVERSE != 0;
    let limit = Some(op.limit).filter(|limit| *limit != 0);
    let (from, to) = if op.flags & RING_PREFIX == 0 {
        (key, Some(value).filter(|to| !to.is_empty()))
    } else if value.is_empty() {
        let to = Range::after_prefix(&key);
        (key, to)
    } else {
        return Err(Fault::invalid("scan: `value` is no end of a scan with RING_PREFIX"));
    };
    Ok(What::Scan(Pages::new(from, to, reverse, limit, consistency)))
}

/// The end of an operation that is no scan.
pub(crate) fn done(tag: u64, id: u64, answer: Result<Reply, Error>) -> Event {
    let event = Event { tag, id, kind: RING_EV_DONE, ..Event::default() };
    match answer {
        Ok(Reply::Written { revision }) => Event { a: revision.0, ..event },
        Ok(Reply::Deleted { existed, revision }) => {
            Event { a: revision.0, b: u64::from(existed), ..event }
        }
        Ok(Reply::Compared { swapped, revision }) => {
            let status = if swapped { status::RING_OK } else { status::RING_CONFLICT };
            Event { status, a: revision.0, ..event }
        }
        Ok(Reply::Value(Some((data, revision)))) => Event { a: revision.0, data, ..event },
        Ok(Reply::Value(None)) => Event { status: status::RING_NOT_FOUND, ..event },
        Ok(Reply::Status(status)) => match serde_json::to_vec(&status) {
            Ok(data) => Event { a: status.member.0, data: data.into(), ..event },
            Err(e) => failed(tag, id, &Fault::new(status::RING_IO, e.to_string())),
        },
        Ok(
            Reply::Page { .. }
            | Reply::Info { .. }
            | Reply::Changes { .. }
            | Reply::Compacted { .. },
        ) => {
            let fault = Fault::new(status::RING_PANICKED, "a reply of the wrong kind");
            failed(tag, id, &fault)
        }
        // Told to whoever abandoned a read.
        Err(Error::Failed(Failure::Interrupted)) => {
            let fault = Fault::new(status::RING_CANCELLED, "cancelled; it did not happen");
            failed(tag, id, &fault)
        }
        Err(error) => failed(tag, id, &error.into()),
    }
}

/// More changes are refused by every configuration.
const CHANGES_MAX: usize = 1 << 20;
#[cfg(feature = "test-ops")]
const TEST_ECHO: u16 = 0xF001;
#[cfg(feature = "test-ops")]
const TEST_PANIC_HERE: u16 = 0xF002;
#[cfg(feature = "test-ops")]
const TEST_PANIC_THERE: u16 = 0xF003;
