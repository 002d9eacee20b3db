//! W3C Trace Context (<https://www.w3.org/TR/trace-context-2/>): an exchange's place in a trace, at this node. Pure, but for the random ids.
//!
//! ```text
//!   traceparent of the caller     this node                          traceparent of the next hop
//!   00-trace-parent-flags   ──▶   span, a child of parent       ──▶   00-trace-hop-flags
//!                                 └─ hop, the leg to the next one
//! ```
//!
//! A caller's context that is not valid is dropped with its `tracestate`. Where there is none, one begins here if this node exports
//! traces, and otherwise nothing is sent on. A trace says nothing of what an exchange is about, and no entry of the log names one.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Carries trace, parent and flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Carries what tracing systems add to it; sent on as it came.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Whoever began the trace, or a caller after that, records it.
const SAMPLED: u8 = 1;
/// The trace's id is random in its last seven bytes at least.
const RANDOM: u8 = 2;

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub parent_id: [u8; 8],
    /// Those flags that are defined.
    pub flags: u8,
}

/// An exchange's place in a trace, at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The caller's span; none where the trace began here.
    pub parent: Option<[u8; 8]>,
    /// This node's span.
    pub span: [u8; 8],
    /// The leg to the next hop, which is told it as its parent. This node's span itself where nothing is recorded.
    pub hop: [u8; 8],
    /// As they came, or as they began here.
    pub flags: u8,
}

/// Whether this node records traces, and which of those that begin here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Of traces that begin here; a caller's own choice always holds.
    pub ratio: f64,
}

impl TraceContext {
    /// Of a header's value. A later version is read as far as this one goes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, more) = value.split_at_checked(55)?;
        let version: [u8; 1] = hex(&head[..2])?;
        let good = match version[0] {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more, [] | [b'-', ..]),
        };
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let context =
            Self { trace_id: hex(&head[3..35])?, parent_id: hex(&head[36..52])?, flags: hex::<1>(&head[53..])?[0] };
        let named = context.trace_id != [0; 16] && context.parent_id != [0; 8];
        let flags = context.flags & (SAMPLED | RANDOM);
        (good && dashes && named).then_some(Self { flags, ..context })
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{}-{}-{:02x}", Id(&self.trace_id), Id(&self.parent_id), self.flags)
    }
}

impl Trace {
    /// Takes a caller's context out of a request's headers; `tracestate` stays in them where it may go on. Begins a trace where
    /// there is none and `sampling` says that this node records any.
    pub fn take(headers: &mut HeaderMap, sampling: Option<Sampling>) -> Option<Self> {
        let context = match headers.get(&TRACEPARENT) {
            None => None,
            // Of two nobody knows which is meant.
            Some(_) if headers.get_all(&TRACEPARENT).iter().nth(1).is_some() => None,
            Some(value) => TraceContext::parse(value.as_bytes()),
        };
        headers.remove(&TRACEPARENT);
        if context.is_none() {
            headers.remove(&TRACESTATE);
        }
        if context.is_none() && sampling.is_none() {
            return None;
        }
        let mut random = [0; 32];
        // Without randomness there is no trace; everything else that needs it fails by itself.
        getrandom::fill(&mut random).ok()?;
        let (trace_id, span, hop) = (take(&random, 0), take(&random, 16), take(&random, 24));
        let (trace_id, parent, flags) = match context {
            Some(TraceContext { trace_id, parent_id, flags }) => (trace_id, Some(parent_id), flags),
            None => (trace_id, None, RANDOM | if sampling?.takes(&trace_id) { SAMPLED } else { 0 }),
        };
        let recorded = sampling.is_some() && flags & SAMPLED != 0;
        Some(Self { trace_id, parent, span, hop: if recorded { hop } else { span }, flags })
    }

    /// Whether the caller, or the beginning of the trace, asks for it to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Tells the next hop.
    pub fn put(&self, headers: &mut HeaderMap) {
        let context = TraceContext { trace_id: self.trace_id, parent_id: self.hop, flags: self.flags };
        if let Ok(mut value) = HeaderValue::try_from(context.to_string()) {
            // Of this call alone: HPACK's table is no place for it.
            value.set_sensitive(true);
            headers.insert(TRACEPARENT, value);
        }
    }

    /// By which the lines that this exchange logs can be found.
    pub fn log_span(trace: Option<&Self>) -> tracing::Span {
        match trace {
            // At the highest level, so that it is there with every line that a filter lets through.
            Some(trace) => {
                tracing::error_span!("exchange", trace_id = %Id(&trace.trace_id), span_id = %Id(&trace.span))
            }
            None => tracing::Span::none(),
        }
    }
}

impl Sampling {
    /// By the trace's last seven bytes, which are random: the same choice wherever it is made with the same ratio.
    fn takes(self, trace_id: &[u8; 16]) -> bool {
        let random = u64::from_be_bytes(take(trace_id, 8)) & ((1 << 56) - 1);
        (random as f64) < self.ratio * (1u64 << 56) as f64
    }
}

/// Bytes as hexadecimal digits.
struct Id<'a>(&'a [u8]);

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// So many bytes of a longer array.
fn take<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(&bytes[from..]).for_each(|(to, from)| *to = *from);
    taken
}

/// Lower-case hexadecimal digits, exactly.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn taken(values: &[&str], sampling: Option<Sampling>) -> (Option<Trace>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        headers.append(TRACESTATE, "congo=t61rcWkgMzE".parse().unwrap());
        headers.append(TRACESTATE, "rojo=00f067aa0ba902b7".parse().unwrap());
        (Trace::take(&mut headers, sampling), headers)
    }

    #[test]
    fn a_context_goes_on_with_a_new_parent() {
        let (trace, mut headers) = taken(&[VALID], None);
        let trace = trace.unwrap();
        assert_eq!(headers.get_all(TRACESTATE).iter().count(), 2);
        assert!(headers.get(TRACEPARENT).is_none(), "the caller's own does not go on");
        trace.put(&mut headers);
        let told = TraceContext::parse(headers[TRACEPARENT].as_bytes()).unwrap();
        let came = TraceContext::parse(VALID.as_bytes()).unwrap();
        assert_eq!((told.trace_id, told.flags), (came.trace_id, 1));
        assert_eq!((told.parent_id, trace.parent), (trace.span, Some(came.parent_id)));
        assert_ne!(told.parent_id, came.parent_id);
        // Recorded, the leg to the next hop is a span of its own.
        let recorded = taken(&[VALID], Some(Sampling { ratio: 0.0 })).0.unwrap();
        assert!(recorded.is_sampled() && recorded.hop != recorded.span);
        let not = taken(&[&VALID.replace("-01", "-00")], Some(Sampling { ratio: 1.0 })).0.unwrap();
        assert!(!not.is_sampled() && not.hop == not.span, "the caller's choice holds");
    }

    #[test]
    fn what_is_not_valid_is_dropped_with_its_state() {
        let upper = VALID.to_uppercase();
        let wrong = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &upper,
        ];
        for wrong in wrong {
            let (trace, headers) = taken(&[wrong], None);
            assert_eq!((trace, headers.len()), (None, 0), "{wrong}");
            let begun = taken(&[wrong], Some(Sampling { ratio: 1.0 })).0.unwrap();
            assert!(begun.parent.is_none() && begun.flags == SAMPLED | RANDOM, "{wrong}");
        }
        assert_eq!(taken(&[VALID, VALID], None).0, None, "of two nobody knows which is meant");
        assert_eq!(taken(&[], None), (None, HeaderMap::new()), "a state of nothing");
        for later in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        ] {
            let trace = taken(&[later], None).0.unwrap();
            assert!(trace.is_sampled() && trace.flags <= SAMPLED | RANDOM, "{later}");
        }
    }

    #[test]
    fn so_many_traces_begin_here_as_the_ratio_says() {
        let recorded =
            |ratio| (0..2_000).filter(|_| taken(&[], Some(Sampling { ratio })).0.unwrap().is_sampled()).count();
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 2_000));
        let half = recorded(0.5);
        assert!((800..1_200).contains(&half), "{half}");
    }
}
