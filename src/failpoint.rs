//! Points at which a test has the process die, to see what a start makes of what is left. Only in builds with debug
//! assertions: a release has none of this.
//!
//! `KOPURO_FAILPOINT=tile:3` aborts at the third time that the process reaches the point `tile`.
//!
//! | point | is reached |
//! |---|---|
//! | `commit` | entries are durable, the head does not name them yet |
//! | `head` | the head names them, nobody has heard of them yet |
//! | `tile` | one of several tiles is published |
//! | `tiles` | all tiles of a size are published, its checkpoint is not |
//! | `remembered` | the node has noted on its own disk what it is about to publish |
//! | `checkpoint` | the checkpoint is published |

/// Dies here if this is where the environment says so.
#[cfg(debug_assertions)]
pub(crate) fn reach(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static CHOSEN: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("KOPURO_FAILPOINT").ok()?;
        let (name, times) = chosen.split_once(':').unwrap_or((&chosen, "1"));
        Some((name.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });
    if let Some((name, left)) = chosen
        && name == point
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &str) {}
