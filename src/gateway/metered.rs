//! A streamed request on its way to the next hop: each message judged as it passes, all of them metered, what was gathered of them
//! recorded before more pass, and at the end the proof that closes the stream.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::body::{Arriving, BoxError};
use super::exchange::{GatheringRecorder, Recording};
use super::framing::{Meter, Totals};
use super::refusal::Refusal;
use super::typed::JudgedStream;

/// A streamed request: carried on frame by frame, followed by a meter that the exchange's closing entry reads.
pub(super) struct MeteredRequest {
    inner: Arriving,
    progress: Arc<Progress>,
    judged: JudgedStream,
    recorder: GatheringRecorder,
    /// What was gathered and has to be durable before more passes.
    recording: Option<Recording>,
    end: End,
    trailers: Option<HeaderMap>,
}

/// What remains to be done when all messages of a streamed request have passed.
pub(super) enum End {
    /// Nothing.
    Plain,
    /// The next node is shown that it is recorded: trailers follow.
    Prove(Completion),
    /// That is under way.
    Proving(Completing),
    /// The node before has to have shown the same, in the trailers that came.
    Check(Judge),
    /// Nothing follows.
    Done,
}

/// Records the end of a streamed request; gives its trailers.
pub(super) type Completion = Box<dyn FnOnce(Totals) -> Completing + Send>;
/// The same, under way.
pub(super) type Completing = Pin<Box<dyn Future<Output = Result<HeaderMap, Refusal>> + Send>>;
/// Judges the trailers of a streamed request.
pub(super) type Judge = Box<dyn FnOnce(Option<&HeaderMap>, &Totals) -> Result<(), Refusal> + Send>;

/// What has passed of a streamed request, and what was wrong with it.
#[derive(Debug)]
pub(super) struct Progress {
    meter: Mutex<Meter>,
    failure: OnceLock<Refusal>,
}

impl MeteredRequest {
    /// Follows `inner`, whose messages may have `limit` bytes each.
    pub(super) fn new(
        inner: Arriving,
        limit: u32,
        judged: JudgedStream,
        recorder: GatheringRecorder,
        end: End,
    ) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress { meter: Mutex::new(Meter::new(limit)), failure: OnceLock::new() });
        let this = Self { inner, progress: progress.clone(), judged, recorder, recording: None, end, trailers: None };
        (this, progress)
    }

    /// What may go on of the messages that have come; pending until what was gathered of them is durable.
    fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        loop {
            if let Some(recording) = &mut self.recording {
                let recorded = ready!(recording.as_mut().poll(cx));
                self.recording = None;
                if let Err(refusal) = recorded {
                    return Poll::Ready(Some(Err(refusal)));
                }
            }
            self.recording = self.recorder.record();
            if self.recording.is_none() {
                return Poll::Ready(self.judged.pop().map(Ok));
            }
        }
    }

    /// All messages have passed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let totals = match self.progress.meter.lock().unwrap_or_else(PoisonError::into_inner).finish() {
            Ok(totals) => totals,
            Err(error) => return Poll::Ready(Some(Err(self.fail(Refusal::framing(error, "request"))))),
        };
        if let Err(refusal) = self.judged.judge.finish() {
            return Poll::Ready(Some(Err(self.fail(refusal))));
        }
        loop {
            match std::mem::replace(&mut self.end, End::Done) {
                End::Plain | End::Done => return Poll::Ready(None),
                End::Check(judge) => {
                    if let Err(refusal) = judge(self.trailers.as_ref(), &totals) {
                        return Poll::Ready(Some(Err(self.fail(refusal))));
                    }
                }
                End::Prove(completion) => self.end = End::Proving(completion(totals)),
                End::Proving(mut completing) => match completing.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.end = End::Proving(completing);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Some(Err(self.fail(refusal)))),
                },
            }
        }
    }

    fn fail(&self, refusal: Refusal) -> BoxError {
        // The first failure is the cause; later ones follow from it.
        let _ = self.progress.failure.set(refusal);
        // hyper resets the stream with the code it finds: to the next hop this is a call that its caller gave up.
        h2::Error::from(h2::Reason::CANCEL).into()
    }
}

impl Progress {
    /// What has passed so far.
    pub(super) fn totals(&self) -> Totals {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).totals()
    }

    /// Bytes passed so far.
    pub(super) fn bytes(&self) -> u64 {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// Why the request was cut off, if it was.
    pub(super) fn failure(&self) -> Option<&Refusal> {
        self.failure.get()
    }
}

impl Body for MeteredRequest {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !matches!(this.end, End::Proving(_) | End::Done) {
            match ready!(this.poll_judged(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Err(refusal)) => return Poll::Ready(Some(Err(this.fail(refusal)))),
                None => {}
            }
            let problem = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                None => break,
                Some(Err(error)) => Refusal::of_request(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let metered = {
                            let mut meter = this.progress.meter.lock().unwrap_or_else(PoisonError::into_inner);
                            meter.push(&data).map_err(|error| Refusal::framing(error, "request"))
                        };
                        match metered.and_then(|()| this.judged.push(data)) {
                            Ok(()) => continue,
                            Err(refusal) => refusal,
                        }
                    }
                    // gRPC requests have no trailers; between nodes they carry a proof.
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        continue;
                    }
                },
            };
            return Poll::Ready(Some(Err(this.fail(problem))));
        }
        this.poll_end(cx)
    }

    fn is_end_stream(&self) -> bool {
        // The framing is judged when the stream ends, so the end must be polled.
        false
    }
}

impl fmt::Debug for MeteredRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredRequest").field("inner", &self.inner).finish_non_exhaustive()
    }
}
