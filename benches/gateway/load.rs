//! The load generator: hyper's HTTP/2 client over mutual TLS. Closed loop (so many calls in flight, the next when one is
//! answered) for rates and CPU; open loop (so many calls a second, come what may, each timed from when it *should*
//! have started) for tails that a stall cannot hide. Every byte and every grpc-status of every reply is checked, and a
//! wrong one spoils the measurement instead of entering it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::backend::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::echo::{self, StreamRequest};
use crate::plan::{Call, Pace, Scenario};

/// Past this an open loop is hopeless and its calls count as failed.
const MOST_OUTSTANDING: usize = 4096;
/// How long calls may still run after the window.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Makes call `n` belong to its row: the reserved metadata that a node expects of a peer.
pub(crate) type Decorate = Arc<dyn Fn(&mut HeaderMap, u64) + Send + Sync>;

/// Where a row's load goes and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) decorate: Option<Decorate>,
}

/// What came of a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Exchanges, or messages of a stream, that ended in the window.
    pub(crate) done: u64,
    pub(crate) window: Duration,
    /// Of each call that ended in the window, ascending.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) failures: u64,
    pub(crate) first_failure: Option<String>,
}

impl Measured {
    /// Exchanges (messages) per second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.window.as_secs_f64()
    }

    /// The latency that this share of calls stayed under.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * share).round() as usize).copied()
    }

    fn absorb(&mut self, other: Self) {
        self.done += other.done;
        self.failures += other.failures;
        self.latencies.extend(other.latencies);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn note(&mut self, outcome: Result<u64>, latency: Duration, timely: bool) {
        match outcome {
            Ok(done) => {
                self.done += done;
                if timely {
                    self.latencies.push(latency);
                }
            }
            Err(error) => {
                self.failures += 1;
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// When it counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn holds(&self, moment: Instant) -> bool {
        (self.begin..self.end).contains(&moment)
    }
}

/// Runs `scenario` against `target`: warms up, then measures; `edge` is called at both edges of the window, so that CPU
/// time is taken over exactly what is counted.
pub(crate) async fn measure(
    target: &Target,
    scenario: &Scenario,
    warm_up: Duration,
    length: Duration,
    mut edge: impl FnMut(),
) -> Result<Measured> {
    let mut callers = Vec::new();
    for _ in 0..scenario.connections {
        callers.push(Caller::connect(target.clone(), scenario.call).await?);
    }
    let begin = Instant::now() + warm_up;
    let window = Window { begin, end: begin + length };
    let load = tokio::spawn(match scenario.pace {
        Pace::Closed { in_flight } => futures_util::future::Either::Left(closed(callers, in_flight, window)),
        Pace::Open { per_second } => futures_util::future::Either::Right(open(callers, per_second, window)),
    });
    tokio::time::sleep_until(window.begin.into()).await;
    edge();
    tokio::time::sleep_until(window.end.into()).await;
    edge();
    let mut measured =
        tokio::time::timeout(DRAIN_LIMIT, load).await.context("calls hang past the end of the window")???;
    measured.window = length;
    measured.latencies.sort_unstable();
    Ok(measured)
}

/// Makes one call, to see that the row works before it is measured, and says what TLS was agreed on.
pub(crate) async fn probe(target: &Target) -> Result<String> {
    let now = Instant::now();
    let window = Window { begin: now, end: now };
    let mut caller = Caller::connect(target.clone(), Call::Unary { bytes: 100 }).await?;
    tokio::time::timeout(DRAIN_LIMIT, caller.exchange(window)).await.context("no answer")??;
    Ok(caller.tls)
}

async fn closed(callers: Vec<Caller>, in_flight: usize, window: Window) -> Result<Measured> {
    let mut tasks = Vec::new();
    for slot in 0..in_flight {
        let mut caller = callers.get(slot % callers.len()).cloned().context("no connection")?;
        tasks.push(tokio::spawn(async move {
            let mut measured = Measured::default();
            loop {
                let started = Instant::now();
                if started >= window.end || measured.failures > 0 {
                    return measured;
                }
                let outcome = caller.exchange(window).await;
                let ended = Instant::now();
                measured.note(outcome, ended - started, window.holds(ended));
            }
        }));
    }
    let mut sum = Measured::default();
    for task in tasks {
        sum.absorb(task.await?);
    }
    Ok(sum)
}

async fn open(callers: Vec<Caller>, per_second: u32, window: Window) -> Result<Measured> {
    let sum = Arc::new(Mutex::new(Measured::default()));
    let room = Arc::new(Semaphore::new(MOST_OUTSTANDING));
    let runtime = tokio::runtime::Handle::current();
    let shared = Arc::clone(&sum);
    let outstanding = Arc::clone(&room);
    // A thread that sleeps keeps time to some 60 µs; tokio's timer to a millisecond only.
    let pacer = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        for call in 0.. {
            let due = started + Duration::from_secs(1) * call / per_second;
            if due >= window.end {
                return;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let Some(mut caller) = callers.get(call as usize % callers.len()).cloned() else { return };
            let sum = Arc::clone(&shared);
            let Ok(permit) = Arc::clone(&outstanding).try_acquire_owned() else {
                note(&sum, Err(anyhow!("{MOST_OUTSTANDING} calls are outstanding: it cannot keep up")), due, window);
                continue;
            };
            runtime.spawn(async move {
                let outcome = caller.exchange(window).await;
                note(&sum, outcome, due, window);
                drop(permit);
            });
        }
    });
    pacer.await?;
    let _all = room.acquire_many(MOST_OUTSTANDING as u32).await?;
    let sum = sum.lock().map_err(|_| anyhow!("a call panicked"))?.clone();
    Ok(sum)
}

fn note(sum: &Mutex<Measured>, outcome: Result<u64>, due: Instant, window: Window) {
    if let Ok(mut sum) = sum.lock() {
        sum.note(outcome, due.elapsed(), window.holds(due));
    }
}

/// One connection's handle.
#[derive(Clone)]
struct Caller {
    sender: SendRequest<Full<Bytes>>,
    uri: Uri,
    call: Call,
    decorate: Option<Decorate>,
    /// Cipher suite and key exchange.
    tls: String,
}

impl Caller {
    async fn connect(target: Target, call: Call) -> Result<Self> {
        let socket = TcpStream::connect(target.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let tls = TlsConnector::from(target.tls).connect(ServerName::try_from("localhost")?, socket).await?;
        let session = tls.get_ref().1;
        ensure!(session.alpn_protocol() == Some(b"h2"), "the server does not speak HTTP/2");
        let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
        let exchange = session.negotiated_key_exchange_group().map(|group| group.name());
        let agreed = format!("{suite:?}, {exchange:?}").replace("Some(", "").replace(')', "");
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(1024)
            .handshake(TokioIo::new(tls))
            .await?;
        // A connection's end shows in its calls.
        tokio::spawn(connection);
        let path = match call {
            Call::Unary { .. } => echo::UNARY,
            Call::Stream { .. } => echo::SERVER_STREAM,
        };
        let uri = format!("https://localhost:{}{path}", target.address.port()).parse()?;
        Ok(Self { sender, uri, call, decorate: target.decorate, tls: agreed })
    }

    /// Makes one call and checks every byte of its answer. Returns how many exchanges (messages of a stream) of it ended
    /// in the window.
    async fn exchange(&mut self, window: Window) -> Result<u64> {
        static STAMP: AtomicU64 = AtomicU64::new(1);
        let stamp = STAMP.fetch_add(1, Ordering::Relaxed);
        let (message, expected, count) = match self.call {
            Call::Unary { bytes } => {
                let message = echo::stamped(bytes, stamp);
                (message.clone(), message, 1)
            }
            Call::Stream { messages, bytes } => {
                let request = StreamRequest { count: messages, size: bytes as u32 };
                (echo::frame(&request), echo::streamed(bytes), messages as usize)
            }
        };
        let mut request = Request::post(self.uri.clone()).body(Full::new(message))?;
        let headers = request.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        if let Some(decorate) = &self.decorate {
            decorate(headers, stamp);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status() == 200, "HTTP status {}", response.status());
        let mut status = status_of(response.headers());
        let mut body = response.into_body();
        let mut received = 0;
        let mut counted = 0;
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => {
                    check(&data, &expected, received)?;
                    received += data.len();
                    if window.holds(Instant::now()) {
                        counted += data.len();
                    }
                }
                Err(other) => status = other.trailers_ref().and_then(status_of).or(status),
            }
        }
        let status = status.context("no grpc-status")?;
        ensure!(status.0 == "0", "grpc-status {} {}", status.0, status.1);
        ensure!(received == expected.len() * count, "{received} bytes instead of {}", expected.len() * count);
        Ok((counted / expected.len()) as u64)
    }
}

/// `grpc-status` and `grpc-message`.
fn status_of(headers: &HeaderMap) -> Option<(String, String)> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Some((text("grpc-status")?, text("grpc-message").unwrap_or_default()))
}

/// That `data`, which begins `at` bytes into the body, repeats `expected`.
fn check(mut data: &[u8], expected: &[u8], at: usize) -> Result<()> {
    let mut offset = at % expected.len();
    while !data.is_empty() {
        let length = data.len().min(expected.len() - offset);
        let (now, rest) = data.split_at(length);
        ensure!(now == &expected[offset..offset + length], "the reply's bytes differ from the request's");
        data = rest;
        offset = 0;
    }
    Ok(())
}
