//! A log under load is killed with SIGKILL again and again: every acknowledged entry is found where it was said to be,
//! the tree verifies, nothing is there twice.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use kopuro::log::verify::verify_folder;
use uuid::Uuid;

use crate::log_support::{all_ids, is_erased, open, opens, parse_ack, parse_erased, said_erased, signer, writer_child};

const KILLS: u64 = 30;

#[test]
fn nothing_acknowledged_is_lost_to_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u64, Uuid)> = Vec::new();
    let mut erased: Vec<(u64, u64)> = Vec::new();
    let (mut behind, mut broken_off) = (0, 0);
    for round in 0..KILLS {
        let mut child = writer_child(folder.path(), None, u64::MAX).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = acknowledged.len();
        // Killed at another moment of the writer's work each time: after so many acknowledgements, and a little later.
        let enough = 50 + 37 * (round as usize % 7);
        let mut kill_at = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            acknowledged.extend(parse_ack(&line));
            erased.extend(parse_erased(&line));
            if acknowledged.len() >= before + enough {
                let at = *kill_at.get_or_insert_with(|| Instant::now() + Duration::from_micros(430 * (round % 11)));
                if Instant::now() >= at {
                    break;
                }
            }
        }
        child.kill().unwrap();
        // What it had written before it died counts too; the last line may be cut.
        for line in lines.map_while(Result::ok) {
            acknowledged.extend(parse_ack(&line));
            erased.extend(parse_erased(&line));
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= before + enough, "the child died by itself");

        let verified = verify_folder(folder.path(), &signer(1).verifier()).unwrap();
        assert!(verified.ahead_of_head <= 1, "the head lags by one commit at most");
        behind += verified.ahead_of_head;
        broken_off += usize::from(folder.path().join("erasing").exists());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, recovered) = open(folder.path()).unwrap();
    let ids = all_ids(&log);
    assert_eq!(ids.len() as u64, recovered.size);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an entry is there twice");
    for (index, id) in &acknowledged {
        assert_eq!(ids.get(*index as usize), Some(id), "acknowledged entry {index}");
    }
    // Every half opens or is said to be erased, whatever was going on when the writer was killed.
    let said = said_erased(&log);
    let open = (0..recovered.size).filter(|index| opens(&log, &said, *index)).count();
    for (first, count) in &erased {
        (*first..first + count).for_each(|index| is_erased(&log, &said, index));
    }
    assert!(!erased.is_empty() && !folder.path().join("erasing").exists());
    println!("{} erasures told, {open} halves open, {broken_off} erasures broken off", erased.len());
    runtime.block_on(log.close());
    println!("{} entries, {} acknowledged, head behind {behind} of {KILLS} times", ids.len(), acknowledged.len());
}
