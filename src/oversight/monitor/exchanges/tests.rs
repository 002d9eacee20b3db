use super::*;
use crate::log::entry::{Kind, Outcome};

const MINUTE: i64 = 60_000;

fn bench(now_ms: i64) -> Bench {
    let members: Vec<_> = ["KG/GOV/1", "KG/GOV/2"].map(|member| Some(member.to_owned())).into();
    Bench {
        followed: members.iter().flatten().cloned().collect(),
        members,
        all_known: true,
        hidden: HashMap::new(),
        now_ms,
        grace_ms: 10 * MINUTE,
    }
}

/// The id of exchange `n`, which began in minute `n`.
fn id(n: u64) -> ExchangeId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(n * 60_000).to_be_bytes()[2..]);
    id[8..].copy_from_slice(&n.to_be_bytes());
    id
}

/// Both entries of one side of exchange `n`.
fn side(log: u32, n: u64) -> [Fact; 2] {
    let (opening, closing) = match log {
        0 => (Kind::RequestSent, Kind::ResponseReceived),
        _ => (Kind::RequestReceived, Kind::ResponseSent),
    };
    [(opening, Outcome::Unspecified, 2 * n), (closing, Outcome::Ok, 2 * n + 1)].map(|(kind, outcome, index)| Fact {
        log,
        index,
        shown_ms: n as i64 * MINUTE,
        kind: kind.into(),
        outcome: outcome.into(),
        consumer: "KG/GOV/1/desk".into(),
        provider: "KG/GOV/2/probe".into(),
        ..Fact::default()
    })
}

struct Story {
    folder: tempfile::TempDir,
    exchanges: Exchanges,
}

impl Story {
    fn new(most_facts: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut exchanges = Exchanges::open(folder.path().into(), Saved::default()).unwrap();
        exchanges.most_facts = most_facts;
        Self { folder, exchanges }
    }

    fn add(&mut self, log: u32, numbers: impl Iterator<Item = u64>) {
        for n in numbers {
            for fact in side(log, n) {
                self.exchanges.add(id(n), fact, &bench(0)).unwrap();
            }
        }
    }

    /// Commits; gives how many were newly found wrong.
    fn commit(&mut self, now_ms: i64) -> usize {
        let mut found = 0;
        self.exchanges.commit(&bench(now_ms), |_, _, _| found += 1).unwrap();
        found
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }
}

#[test]
fn one_log_long_before_the_other_and_little_memory() {
    let mut story = Story::new(50);
    story.add(0, 0..1_000);
    assert!(story.exchanges.facts < 50 && story.files() > 100, "most of it is on disk");
    assert_eq!(story.commit(0), 0);
    story.exchanges.settle().unwrap();
    let saved = story.exchanges.saved();
    assert_eq!((saved.waiting(), saved.agreed), (1_000, 0));
    // What falls due is found once, the rest goes on waiting.
    assert_eq!(story.commit(109 * MINUTE), 100);
    assert_eq!(story.commit(109 * MINUTE), 0);
    assert_eq!(story.exchanges.saved().wrong(), BTreeMap::from([(Problem::MissingAtProvider.name(), 100)]));
    let mut shown = 0;
    let show = |waiting: &Waiting, problem, _: &str| {
        assert_eq!((problem, waiting.facts.len(), waiting.reported), (Problem::MissingAtProvider, 2, true));
        shown += 1;
        shown < 70
    };
    story.exchanges.each_wrong(&bench(109 * MINUTE), show).unwrap();
    assert_eq!(shown, 70);
    // The other side comes late: nothing is left.
    story.add(1, 0..1_000);
    assert_eq!(story.commit(110 * MINUTE), 0);
    story.exchanges.settle().unwrap();
    let saved = story.exchanges.saved();
    assert_eq!((saved.waiting(), saved.agreed, saved.wrong().len(), story.files()), (0, 1_000, 0, 0));
}

#[test]
fn a_crash_before_the_state_is_kept_loses_nothing() {
    let mut story = Story::new(30);
    story.add(0, 0..100);
    story.commit(0);
    story.exchanges.settle().unwrap();
    let kept = story.exchanges.saved().clone();
    // The other side's entries are read, what is agreed is dropped from the files, and the state is never written.
    story.add(1, 0..60);
    story.commit(0);
    assert_eq!(story.exchanges.saved().agreed, 60);
    story.exchanges = Exchanges::open(story.folder.path().into(), kept).unwrap();
    // So they are read again, some of them twice.
    story.add(1, 0..60);
    story.add(1, 30..60);
    story.add(0, 90..100);
    story.commit(0);
    let saved = story.exchanges.saved();
    assert_eq!((saved.agreed, saved.waiting(), saved.wrong().len()), (60, 40, 0));
}

#[test]
fn both_sides_together_never_reach_the_disk() {
    let mut story = Story::new(50);
    for n in 0..1_000 {
        story.add(0, n..n + 1);
        story.add(1, n..n + 1);
    }
    assert_eq!((story.exchanges.saved().agreed, story.files()), (1_000, 0));
}

#[test]
fn damage_is_noticed_and_what_is_old_is_forgotten() {
    let mut story = Story::new(50);
    story.add(0, 0..1);
    story.commit(0);
    let path = std::fs::read_dir(story.folder.path()).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[10] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let refused = story.exchanges.commit(&bench(HORIZON_MS), |_, _, _| {}).unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
    std::fs::write(&path, good).unwrap();
    assert_eq!(story.commit(HORIZON_MS + 1), 0);
    let saved = story.exchanges.saved();
    assert_eq!((saved.forgotten, saved.waiting(), saved.wrong().len()), (1, 0, 0));
}
