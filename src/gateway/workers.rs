//! The threads that carry exchanges: one for each core, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, and with it the exchanges that come over it and the connections by which
//! they go on: nothing is handed from thread to thread on the way, and no core is woken to take what another has. What that saves,
//! and what it costs (one connection's calls have one core), is measured in docs/performance.md. What a node does beside carrying
//! exchanges (listening, its log, publication, reloads) has the runtime that the node was started on.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Threads for blocking work that one worker may have at once: queries of auditors, answers of the node's own services.
const BLOCKING_THREADS: usize = 64;

/// A node's threads; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a worker.
struct Place(Arc<AtomicUsize>);

/// The number of the worker on whose thread this runs; none on any other thread.
pub(super) fn current() -> Option<usize> {
    NUMBER.get()
}

impl Workers {
    /// So many threads.
    pub(super) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let mut this = Self { workers: Vec::with_capacity(count.get()), stop: CancellationToken::new() };
        for number in 0..count.get() {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                // What another thread has woken comes first. That is the log's, which wakes all exchanges of a commit: they have
                // then all run before the connection does that the first of them wakes, and what they send goes in one write.
                .global_queue_interval(1)
                .build()?;
            this.workers.push(Worker { runtime: runtime.handle().clone(), connections: Arc::default() });
            let stop = this.stop.clone();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                NUMBER.set(Some(number));
                runtime.block_on(stop.cancelled());
                runtime.shutdown_background();
            })?;
        }
        Ok(this)
    }

    /// Runs a connection on the worker that has the fewest. Ends with the node's threads, or when what this gives is dropped.
    pub(super) fn run<F>(&self, connection: F) -> Option<AbortOnDropHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let worker = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed))?;
        let place = Place::on(worker);
        let running = worker.runtime.spawn(async move {
            let output = connection.await;
            drop(place);
            output
        });
        Some(AbortOnDropHandle::new(running))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Place {
    fn on(worker: &Worker) -> Self {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Self(worker.connections.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
