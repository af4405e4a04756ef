//! Core's thread and requests: what waits for an answer, which handlers run, the ends of streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ring_core::Node;
use ring_core::ids::RequestId;
use ring_core::request::message::Fault;
use ring_core::request::{
    self as core, Broken, Effect, Failure, Gone, Half, HandleId, Side, StreamId, Target, Way,
};
use ring_core::time::Now;
use tokio::task::AbortHandle;

use super::handler::Given;
use super::stream::{Ends, Open};
use super::{Incoming, Response};
use crate::error::Error;
use crate::shared::Shared;

/// What the application tells core's thread about requests.
pub(crate) enum Talk {
    Ask(Box<Asking>),
    Cancel(RequestId),
    /// `ends`: of the streams that the response adds.
    Respond {
        handle: HandleId,
        result: Result<core::Response, Fault>,
        ends: Vec<Ends>,
    },
    Write {
        stream: StreamId,
        data: Bytes,
        last: bool,
    },
    Taken {
        stream: StreamId,
        bytes: u64,
    },
    GiveUp {
        stream: StreamId,
        half: Half,
    },
}

/// A request. Who waits for its answer stands in the node's [`AskingTable`](super::AskingTable).
pub(crate) struct Asking {
    pub(super) request: RequestId,
    pub(super) what: core::Request,
    pub(super) ends: Vec<(StreamId, Ends)>,
}

/// What core's thread holds of requests.
#[derive(Default)]
pub(crate) struct Talks {
    /// What core has, and how many streams each has.
    asked: BTreeMap<RequestId, u16>,
    handled: BTreeMap<HandleId, Handled>,
    ends: BTreeMap<StreamId, Ends>,
}

struct Handled {
    given: Arc<Given>,
    running: Option<AbortHandle>,
    streams: u16,
    /// How streams of the response have ended before it: core hears of it when it knows them.
    early: Vec<Talk>,
}

impl Talks {
    /// Tells core what the application says.
    pub(crate) fn tell(&mut self, shared: &Shared, node: &mut Node, now: Now, talk: Talk) {
        let Some(talk) = self.defer(talk) else { return };
        match talk {
            Talk::Ask(asking) => self.ask(shared, node, now, *asking),
            Talk::Cancel(request) => node.cancel_request(request),
            Talk::Respond { handle, result, ends } => {
                for early in self.respond(node, handle, result, ends) {
                    self.tell(shared, node, now, early);
                }
                self.tell_load(shared);
            }
            Talk::Write { stream, data, last } => {
                let written = node.stream_write(stream, data, last);
                written.expect("a writer keeps to its credit");
                if last {
                    self.forget(stream, Half::Write);
                }
            }
            Talk::Taken { stream, bytes } => node.stream_taken(stream, bytes),
            Talk::GiveUp { stream, half } => {
                node.stream_give_up(stream, half);
                self.forget(stream, half);
            }
        }
    }

    /// Keeps what ends a stream of a response that is still to come; hands back anything else.
    fn defer(&mut self, talk: Talk) -> Option<Talk> {
        let (Talk::Write { stream, .. } | Talk::GiveUp { stream, .. }) = &talk else {
            return Some(talk);
        };
        let Side::Handler(handle) = stream.side else { return Some(talk) };
        match self.handled.get_mut(&handle) {
            Some(handled) if stream.index >= handled.streams => {
                handled.early.push(talk);
                None
            }
            Some(_) | None => Some(talk),
        }
    }

    /// How much is under way.
    fn tell_load(&self, shared: &Shared) {
        shared.asked.store(self.asked.len(), Ordering::Relaxed);
        shared.handling.store(self.handled.len(), Ordering::Relaxed);
    }

    fn ask(&mut self, shared: &Shared, node: &mut Node, now: Now, asking: Asking) {
        let Asking { request, what, ends } = asking;
        if let Err(refused) = node.request(now, request, what) {
            for (_, ends) in ends {
                ends.break_both(Broken::Request);
            }
            shared.asking.answer(request, Err(Error::Refused(refused)));
            return;
        }
        let streams = count(ends.len());
        self.ends.extend(ends);
        self.asked.insert(request, streams);
        self.tell_load(shared);
    }

    /// Answers, and says what was to be said when core knows the streams of the response.
    fn respond(
        &mut self,
        node: &mut Node,
        handle: HandleId,
        result: Result<core::Response, Fault>,
        ends: Vec<Ends>,
    ) -> Vec<Talk> {
        let handled = self.handled.remove(&handle);
        let is_sent = node.respond(handle, result);
        let Some(handled) = handled.filter(|_| is_sent) else {
            for ends in ends {
                ends.break_both(Broken::Request);
            }
            return Vec::new();
        };
        for (index, ends) in (handled.streams..).zip(ends) {
            self.ends.insert(StreamId { side: Side::Handler(handle), index }, ends);
        }
        handled.early
    }

    /// Carries out what core says.
    pub(crate) fn carry_out(&mut self, shared: &Arc<Shared>, effect: Effect) {
        match effect {
            Effect::Handle(handle) => self.handle(shared, *handle),
            Effect::Gone { handle, why } => self.gone(shared, handle, why),
            Effect::Answered { request, result } => self.answered(shared, request, result),
            Effect::Data { stream, data, last } => {
                if let Some(ends) = self.ends.get(&stream) {
                    ends.come(data, last);
                }
                if last {
                    self.forget(stream, Half::Read);
                }
            }
            Effect::Credit { stream, upto } => {
                if let Some(ends) = self.ends.get(&stream) {
                    ends.allow(upto);
                }
            }
            Effect::Broken { stream, half, why } => {
                if let Some(ends) = self.ends.get(&stream) {
                    ends.break_half(half, why);
                }
                self.forget(stream, half);
            }
        }
    }

    fn handle(&mut self, shared: &Arc<Shared>, handle: core::Handle) {
        if let Target::Key(key) = &handle.target {
            shared.trace.note(key);
        }
        let id = handle.handle;
        // Looked at first: whoever is not held back any more finds every handler.
        let is_held = shared.routes.is_held();
        let Some(handler) = shared.routes.of(&handle.route) else {
            let fault = if is_held { Fault::Busy } else { Fault::NoRoute };
            let (result, ends) = (Err(fault), Vec::new());
            shared.talk(Talk::Respond { handle: id, result, ends });
            return;
        };
        let mut open = Open::default();
        for (index, (name, way)) in (0..).zip(&handle.streams) {
            let stream = StreamId { side: Side::Handler(id), index };
            let ends = open.add(shared, stream, name, *way, Way::Down);
            self.ends.insert(stream, ends);
        }
        let streams = count(handle.streams.len());
        let given = Arc::<Given>::default();
        let incoming = Incoming::new(handle, open, Arc::clone(shared), Arc::clone(&given));
        let running = handler.spawn(incoming);
        self.handled.insert(id, Handled { given, running, streams, early: Vec::new() });
        self.tell_load(shared);
    }

    fn gone(&mut self, shared: &Shared, handle: HandleId, why: Gone) {
        match why {
            Gone::Caller => {
                if let Some(handled) = self.handled.get(&handle) {
                    handled.given.tell_gone();
                }
            }
            Gone::Late => {
                let Some(handled) = self.handled.remove(&handle) else { return };
                handled.given.tell_gone();
                if let Some(running) = handled.running {
                    running.abort();
                }
                self.tell_load(shared);
            }
        }
    }

    fn answered(
        &mut self,
        shared: &Arc<Shared>,
        request: RequestId,
        result: Result<core::Response, Failure>,
    ) {
        let Some(streams) = self.asked.remove(&request) else { return };
        self.tell_load(shared);
        let result = result.map(|response| {
            let core::Response { headers, body, streams: added } = response;
            let mut open = Open::default();
            for (index, (name, way)) in (streams..).zip(&added) {
                let stream = StreamId { side: Side::Caller(request), index };
                let ends = open.add(shared, stream, name, *way, Way::Up);
                self.ends.insert(stream, ends);
            }
            Response { headers, body, streams: open }
        });
        let result = result.map_err(Error::Request);
        shared.asking.answer(request, result);
    }

    fn forget(&mut self, stream: StreamId, half: Half) {
        let Some(ends) = self.ends.get_mut(&stream) else { return };
        match half {
            Half::Read => ends.read = None,
            Half::Write => ends.write = None,
        }
        if ends.read.is_none() && ends.write.is_none() {
            self.ends.remove(&stream);
        }
    }

    /// The node has ended. What core did not end may have been handled.
    pub(crate) fn end(&mut self, shared: &Shared) {
        for (_, ends) in std::mem::take(&mut self.ends) {
            ends.break_both(Broken::Closed);
        }
        for (request, _) in std::mem::take(&mut self.asked) {
            shared.asking.answer(request, Err(Failure::Closed { maybe: true }.into()));
        }
        shared.asking.clear();
        for (_, handled) in std::mem::take(&mut self.handled) {
            handled.given.tell_gone();
            if let Some(running) = handled.running {
                running.abort();
            }
        }
    }
}

fn count(streams: usize) -> u16 {
    u16::try_from(streams).unwrap_or(u16::MAX)
}
