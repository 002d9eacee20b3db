//! What is measured: the scenarios, and how long each is run.

use std::time::Duration;

/// What one call is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// One message there, the same back.
    Unary {
        /// Of the payload.
        bytes: usize,
    },
    /// A small message there, many back.
    Stream {
        /// Per call.
        messages: u32,
        /// Of each payload.
        bytes: usize,
    },
}

/// How calls follow one another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next when one is answered.
    Closed {
        /// Over all connections.
        in_flight: usize,
    },
    /// At a fixed rate.
    Open {
        /// Over all connections.
        per_second: u32,
    },
}

/// One way to load a row.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) call: Call,
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
}

/// What is run, how often and how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Of each row of the log alone.
    pub(crate) log_window: Duration,
}

/// Calls a second of the open loop: what every row can carry on two cores, so that tails are compared at equal work.
const OPEN_RATE: u32 = 1_000;

impl Scenario {
    /// The loops that the targets are about.
    pub(crate) const ONE_IN_FLIGHT: &str = "100 B, 1 in flight, 1 connection";
    pub(crate) const SIXTY_FOUR: [&str; 2] =
        ["100 B, 64 in flight, 1 connection", "100 B, 64 in flight, 8 connections"];

    fn unary(bytes: usize, in_flight: usize, connections: usize) -> Self {
        Self { call: Call::Unary { bytes }, pace: Pace::Closed { in_flight }, connections }
    }

    /// As the table and the JSON have it.
    pub(crate) fn name(&self) -> String {
        let (Call::Unary { bytes } | Call::Stream { bytes, .. }) = self.call;
        let size = if bytes % 1024 == 0 { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") };
        let pace = match self.pace {
            Pace::Closed { in_flight } => format!("{in_flight} in flight"),
            Pace::Open { per_second } => format!("{per_second}/s open loop"),
        };
        let kind = if matches!(self.call, Call::Stream { .. }) { "server stream of " } else { "" };
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{kind}{size}, {pace}, {} connection{plural}", self.connections)
    }

    /// How many calls are in flight, where that is fixed.
    pub(crate) fn in_flight(&self) -> Option<usize> {
        match self.pace {
            Pace::Closed { in_flight } => Some(in_flight),
            Pace::Open { .. } => None,
        }
    }
}

impl Plan {
    /// Everything, in some ten minutes.
    pub(crate) fn full() -> Self {
        let mut scenarios = Vec::new();
        for bytes in [100, 16 * 1024] {
            for in_flight in [1, 16, 64, 256] {
                for connections in [1, 8] {
                    // Eight connections for one call would be one connection.
                    if connections <= in_flight {
                        scenarios.push(Scenario::unary(bytes, in_flight, connections));
                    }
                }
            }
        }
        scenarios.extend([stream(), open()]);
        let (warm_up, window) = (Duration::from_millis(400), Duration::from_secs(2));
        Self { scenarios, rounds: 3, warm_up, window, log_window: Duration::from_secs(2) }
    }

    /// What the targets need and a taste of the rest, in under two minutes.
    pub(crate) fn quick() -> Self {
        let scenarios = vec![
            Scenario::unary(100, 1, 1),
            Scenario::unary(100, 64, 1),
            Scenario::unary(100, 64, 8),
            Scenario::unary(100, 256, 8),
            Scenario::unary(16 * 1024, 64, 8),
            stream(),
            open(),
        ];
        let (warm_up, window) = (Duration::from_millis(150), Duration::from_millis(500));
        Self { scenarios, rounds: 3, warm_up, window, log_window: Duration::from_millis(500) }
    }
}

fn stream() -> Scenario {
    Scenario { call: Call::Stream { messages: 2_000, bytes: 100 }, pace: Pace::Closed { in_flight: 1 }, connections: 1 }
}

fn open() -> Scenario {
    Scenario { call: Call::Unary { bytes: 100 }, pace: Pace::Open { per_second: OPEN_RATE }, connections: 8 }
}
