//! A log under load is killed with SIGKILL again and again: every acknowledged entry is found where it was said to be,
//! the tree verifies, nothing is there twice.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use kopuro::log::verify::verify_folder;
use uuid::Uuid;

use crate::log_support::{all_ids, open, parse_ack, signer, writer_child};

const KILLS: u64 = 30;

#[test]
fn nothing_acknowledged_is_lost_to_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u64, Uuid)> = Vec::new();
    let mut behind = 0;
    for round in 0..KILLS {
        let mut child = writer_child(folder.path(), None, u64::MAX).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = acknowledged.len();
        // Killed at another moment of the writer's work each time: after so many acknowledgements, and a little later.
        let enough = 50 + 37 * (round as usize % 7);
        let mut kill_at = None;
        for line in lines.by_ref() {
            acknowledged.extend(parse_ack(&line.unwrap()));
            if acknowledged.len() >= before + enough {
                let at = *kill_at.get_or_insert_with(|| Instant::now() + Duration::from_micros(430 * (round % 11)));
                if Instant::now() >= at {
                    break;
                }
            }
        }
        child.kill().unwrap();
        // What it had written before it died counts too; the last line may be cut.
        acknowledged.extend(lines.filter_map(|line| parse_ack(&line.ok()?)));
        child.wait().unwrap();
        assert!(acknowledged.len() >= before + enough, "the child died by itself");

        let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
        assert!(verified.ahead_of_head <= 1, "the head lags by one commit at most");
        behind += verified.ahead_of_head;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, recovered) = open(folder.path()).unwrap();
    let ids = all_ids(&log);
    assert_eq!(ids.len() as u64, recovered.size);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an entry is there twice");
    for (index, id) in &acknowledged {
        assert_eq!(ids.get(*index as usize), Some(id), "acknowledged entry {index}");
    }
    runtime.block_on(log.close());
    println!("{} entries, {} acknowledged, head behind {behind} of {KILLS} times", ids.len(), acknowledged.len());
}
