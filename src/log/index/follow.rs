//! The thread that keeps an index up with its log: woken by commits, off the runtime's threads.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::IndexError;
use super::segments::Shared;

/// How long after a commit the thread waits for more of them: one look at the log takes them all.
const GATHER: Duration = Duration::from_millis(10);

/// How long the thread rests after a failure.
const REST: Duration = Duration::from_secs(5);

/// The thread that keeps an index up with its log. Dropping it stops the thread and waits for it: as long as one batch
/// or the writing of one segment takes.
#[derive(Debug)]
pub struct Follower {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(super) fn start<C: Send + Sync + 'static>(
        shared: Arc<Shared>,
        mut commits: watch::Receiver<C>,
    ) -> Result<Self, IndexError> {
        let folder = shared.options.folder.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(IndexError::io(&folder))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let follow = move || {
            let lag = metrics::gauge!("kopuro_index_lag_entries");
            while !stopped.is_cancelled() {
                // Marked before the source's size is read: a commit in between wakes the wait below.
                commits.mark_unchanged();
                let advanced = shared.advance();
                lag.set(shared.source.size().saturating_sub(shared.state().current.end()) as f64);
                match advanced {
                    Ok(true) => {}
                    Ok(false) => runtime.block_on(async {
                        tokio::select! {
                            () = stopped.cancelled() => {}
                            () = shared.gone_back.notified() => {}
                            changed = commits.changed() => {
                                // Of a closed log nothing will come but a step back.
                                let longest = if changed.is_ok() { GATHER } else { Duration::MAX };
                                tokio::select! {
                                    () = tokio::time::sleep(longest) => {}
                                    () = stopped.cancelled() => {}
                                    () = shared.gone_back.notified() => {}
                                }
                            }
                        }
                    }),
                    Err(error) => {
                        tracing::warn!(%error, "the log's index does not get on; trying again");
                        runtime.block_on(async {
                            let _ = tokio::time::timeout(REST, stopped.cancelled()).await;
                        });
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("index".into()).spawn(follow).map_err(IndexError::io(folder))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst; what it kept is derived.
            let _ = thread.join();
        }
    }
}
