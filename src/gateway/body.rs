//! The bodies that pass: what comes in, what goes on to the next hop, what goes back. Bytes are carried as they came, never
//! copied; a [`Meter`] sees each chunk once.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::framing::{FramingError, Meter, Totals};
use super::metered::MeteredRequest;
use super::own::OwnAnswer;
use super::untaken::{Given, Untaken};

/// An error whose type the next hop does not need to know.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that arrives: off the wire, or from this node's other half when both systems are its member's.
#[derive(Debug)]
pub(super) enum Arriving {
    /// From a connection.
    Wire(Incoming),
    /// A request that this node sends to itself.
    Request(Box<Outgoing>),
    /// An answer that this node gives itself.
    Answer(Box<Answer>),
    /// Made from another protocol's; what is wrong with that comes as a [`super::refusal::Refusal`].
    Made(UnsyncBoxBody<Bytes, BoxError>),
}

/// A request's body on its way to the next hop.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// One message, collected.
    Whole(Whole),
    /// Messages as they come.
    Stream(Box<MeteredRequest>),
}

/// An answer's body on its way back.
pub(super) enum Answer {
    /// At most one message, collected, and the trailers.
    Whole(Whole, Option<HeaderMap>),
    /// Frames from the task that follows the stream.
    Stream(mpsc::Receiver<Frame<Bytes>>),
    /// From one of the node's own services.
    Own(OwnAnswer),
    /// In another protocol.
    Made(UnsyncBoxBody<Bytes, BoxError>),
}

/// A collected message: its chunks as they came.
#[derive(Debug, Default)]
pub(super) struct Whole {
    // Nearly always the only one, and then nothing is allocated.
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    bytes: usize,
    held: Option<Held>,
    given: Option<Given>,
}

/// Bytes that a node may hold in collected messages, over all its exchanges.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// Some of these, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    bytes: usize,
}

/// Why a body could not be collected.
#[derive(Debug)]
pub(super) enum CollectError {
    /// Its framing is wrong.
    Framing(FramingError),
    /// The sender broke off.
    Broken(BoxError),
    /// The node holds too much already.
    Budget,
}

// === impl Answer ===

impl Answer {
    /// On its way to the client of a connection.
    pub(super) fn given(mut self, untaken: &Arc<Untaken>) -> Self {
        if let Self::Whole(whole, _) = &mut self
            && !whole.is_empty()
        {
            whole.given = Some(untaken.give());
        }
        self
    }
}

// === impl Whole ===

impl Whole {
    /// Collects a body under its meter's limit: its chunks, what passed, its trailers.
    pub(super) async fn collect<B>(
        mut body: B,
        limit: u32,
        budget: &Budget,
    ) -> Result<(Self, Totals, Option<HeaderMap>), CollectError>
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let mut meter = Meter::new(limit);
        let mut whole = Self { held: Some(Held::new(budget)), ..Self::default() };
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            match frame.map_err(CollectError::Broken)?.into_data() {
                Ok(data) => {
                    meter.push(&data).map_err(CollectError::Framing)?;
                    whole.push(data)?;
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let totals = meter.finish().map_err(CollectError::Framing)?;
        Ok((whole, totals, trailers))
    }

    /// Collects a body that is not framed as gRPC's are.
    pub(super) async fn gather<B>(mut body: B, limit: u32, budget: &Budget) -> Result<Self, CollectError>
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin,
    {
        let mut whole = Self { held: Some(Held::new(budget)), ..Self::default() };
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
            let size = whole.bytes.saturating_add(data.len());
            if size > limit as usize {
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                return Err(CollectError::Framing(FramingError::TooLarge { size, limit }));
            }
            whole.push(data)?;
        }
        Ok(whole)
    }

    /// One that is made here, counted among what the node holds: never refused, because its exchange is already recorded.
    pub(super) fn counted(message: Bytes, budget: &Budget) -> Self {
        let mut held = Held::new(budget);
        let _ = held.add(message.len());
        Self { held: Some(held), ..Self::of(message) }
    }

    /// One that is made here.
    pub(super) fn of(message: Bytes) -> Self {
        Self { bytes: message.len(), first: Some(message), ..Self::default() }
    }

    /// All of it in one piece, which it keeps. Copies only where it came in several.
    pub(super) fn joined(&self) -> Bytes {
        match (&self.first, self.rest.front()) {
            (first, None) => first.clone().unwrap_or_default(),
            (first, Some(_)) => {
                let mut whole = bytes::BytesMut::with_capacity(self.bytes);
                for chunk in first.iter().chain(&self.rest) {
                    whole.extend_from_slice(chunk);
                }
                whole.freeze()
            }
        }
    }

    /// All of it in one piece.
    pub(super) fn take(&mut self) -> Bytes {
        let first = self.pop().unwrap_or_default();
        if self.is_empty() {
            return first;
        }
        let mut whole = bytes::BytesMut::from(first);
        while let Some(chunk) = self.pop() {
            whole.extend_from_slice(&chunk);
        }
        whole.freeze()
    }

    fn push(&mut self, chunk: Bytes) -> Result<(), CollectError> {
        if chunk.is_empty() {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            held.add(chunk.len())?;
        }
        self.bytes += chunk.len();
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(chunk);
        } else {
            self.rest.push_back(chunk);
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.first.take().or_else(|| self.rest.pop_front())?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }
}

impl Budget {
    /// At most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Gives back some of it.
    pub(super) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes so many more.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), CollectError> {
        self.bytes += bytes;
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.budget.limit { Err(CollectError::Budget) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// === impl Body ===

impl Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Wire(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Request(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Answer(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Self::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            Self::Request(body) => body.is_end_stream(),
            Self::Answer(body) => body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.pop().map(|chunk| Ok(Frame::data(chunk)))),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(whole, trailers) => {
                Poll::Ready(whole.pop().map(Frame::data).or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Stream(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
            Self::Own(body) => Pin::new(body).poll_frame(cx),
            Self::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole, trailers) => whole.is_empty() && trailers.is_none(),
            Self::Stream(_) => false,
            Self::Own(body) => body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(..) => "Whole",
            Self::Stream(_) => "Stream",
            Self::Own(_) => "Own",
            Self::Made(_) => "Made",
        })
    }
}
