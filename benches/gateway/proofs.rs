//! What it costs one thread to show that an entry is logged, and to check it: as between two nodes with 64 exchanges in flight, on a
//! log of some size. An exchange has one proof in each direction, so a node makes one and checks one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use kopuro::log::checkpoint::Checkpoint;
use kopuro::log::entry::{Draft, ExchangeKey, Kind, Publication, Slot};
use kopuro::log::entry_proof::EntryProof;
use kopuro::log::{Log, LogOptions};
use kopuro::trust::note::Signer;
use serde::Serialize;
use uuid::Uuid;

use crate::certs::{ASKER, ECHO};
use crate::echo;
use crate::log::record;

/// Entries that are there before, so that paths have the length of a log in use.
const BEFORE: usize = 100_000;
/// Appended together: what 64 exchanges in flight make.
const TOGETHER: usize = 64;
const ROUNDS: usize = 200;
const DIGEST: [u8; 32] = [7; 32];

/// Means, microseconds of one thread.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ProofCost {
    /// Making one, from the append's answer to the header's text.
    pub(crate) make_us: f64,
    /// Checking one: inclusion, commitment, payload digest.
    pub(crate) check_us: f64,
    /// Verifying a checkpoint's signature, once for all exchanges of a commit: each one's share.
    pub(crate) checkpoint_us: f64,
}

impl ProofCost {
    /// What an exchange costs a node.
    pub(crate) fn exchange_us(&self) -> f64 {
        self.make_us + self.check_us + self.checkpoint_us
    }
}

/// Measures on a log of its own.
pub(crate) async fn measure(folder: &Path) -> Result<ProofCost> {
    eprintln!("proofs on a log of {BEFORE} entries, {TOGETHER} in flight");
    let signer = Signer::generate("benchmark")?;
    let key = signer.verifier();
    let (log, _) = Log::open(LogOptions::new(folder.join("proofs"), signer))?;
    for _ in 0..BEFORE / 1_000 {
        let appended = futures_util::future::join_all((0..1_000).map(|_| log.append(record()))).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let (mut make, mut check, mut signatures) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let sealed: Vec<_> = (0..TOGETHER).map(|_| draft().seal_opening(&[Slot::RequestDigest])).collect();
        let entries: Vec<_> =
            sealed.iter().map(|(record, openings)| (record.entry.clone(), openings.clone())).collect();
        let appended = futures_util::future::join_all(sealed.into_iter().map(|(record, _)| log.append(record))).await;
        let appended = appended.into_iter().collect::<Result<Vec<_>, _>>()?;
        let begun = Instant::now();
        let proofs: Vec<String> = appended
            .iter()
            .zip(entries)
            .map(|(appended, (entry, openings))| EntryProof::new(appended, entry, &openings).to_base64())
            .collect();
        make += begun.elapsed();
        let mut last: Option<Checkpoint> = None;
        for proof in &proofs {
            let mut begun = Instant::now();
            let proof = EntryProof::read(proof.as_bytes())?;
            check += begun.elapsed();
            if last.as_ref().is_none_or(|last| last.note != proof.checkpoint()) {
                begun = Instant::now();
                last = Some(Checkpoint::verify(proof.checkpoint(), &key)?);
                signatures += begun.elapsed();
            }
            let Some(checkpoint) = &last else { continue };
            begun = Instant::now();
            proof.verify(checkpoint)?.opens(Slot::RequestDigest, &DIGEST)?;
            check += begun.elapsed();
        }
    }
    log.close().await;
    let mean = |time: Duration| time.as_secs_f64() * 1e6 / (ROUNDS * TOGETHER) as f64;
    Ok(ProofCost { make_us: mean(make), check_us: mean(check), checkpoint_us: mean(signatures) })
}

fn draft() -> Draft {
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let mut draft = Draft::new(Kind::RequestSent, Uuid::now_v7(), now, &ExchangeKey::generate());
    draft.consumer = ASKER.to_owned();
    draft.provider = ECHO.to_owned();
    draft.service = echo::SERVICE.to_owned();
    draft.method = "Unary".to_owned();
    draft.publication = Publication::Public;
    draft.set(Slot::RequestDigest, DIGEST).set(Slot::Address, *b"127.0.0.1").set(Slot::Sizes, [0; 32]);
    draft
}
