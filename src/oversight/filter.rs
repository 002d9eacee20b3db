//! Requests read: filters, page sizes, page tokens. Everything that can be wrong with them is INVALID_ARGUMENT.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::log::entry::{Outcome, Publication};
use crate::log::index;
use crate::oversight::status::invalid;
use crate::proto::kopuro::audit::v1::{Filter, Order, Records};

/// The most exchanges of a page.
const MAX_PAGE: u32 = 1_000;
/// Exchanges of a page where the request does not say.
const USUAL_PAGE: u32 = 100;

/// The index's filter.
pub fn read(filter: &Filter) -> Result<index::Filter, Status> {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let outcome = Outcome::try_from(filter.outcome).map_err(|_| invalid("no such outcome"))?;
    let outcome = match (filter.open, outcome) {
        (true, Outcome::Unspecified) => Some(Outcome::Unspecified),
        (true, _) => return Err(invalid("an exchange that is open has no outcome: either `open` or `outcome`")),
        (false, Outcome::Unspecified) => None,
        (false, outcome) => Some(outcome),
    };
    let publication = Publication::try_from(filter.publication).map_err(|_| invalid("no such publication class"))?;
    let records = match Records::try_from(filter.records).map_err(|_| invalid("no such kind of records"))? {
        Records::Unspecified | Records::Exchanges => index::Records::Exchanges,
        Records::Audits => index::Records::Audits,
        Records::All => index::Records::All,
    };
    let id = &filter.exchange_id;
    Ok(index::Filter {
        from_unix_ms: (filter.from_unix_ms != 0).then_some(filter.from_unix_ms),
        until_unix_ms: (filter.until_unix_ms != 0).then_some(filter.until_unix_ms),
        consumer: text(&filter.consumer),
        provider: text(&filter.provider),
        service: text(&filter.service),
        method: text(&filter.method),
        outcome,
        reason: text(&filter.reason),
        legal_basis: text(&filter.legal_basis),
        publication: (publication != Publication::Unspecified).then_some(publication),
        exchange_id: if id.is_empty() { None } else { Some(exchange_id(id)?) },
        records,
    })
}

/// An exchange id's 16 bytes.
pub(super) fn exchange_id(bytes: &[u8]) -> Result<[u8; 16], Status> {
    bytes.try_into().map_err(|_| invalid("an exchange id has 16 bytes"))
}

/// The order asked for.
pub(super) fn newest_first(order: i32) -> Result<bool, Status> {
    let order = Order::try_from(order).map_err(|_| invalid("no such order"))?;
    Ok(order != Order::OldestFirst)
}

/// The page size asked for.
pub(super) fn page_size(size: u32) -> Result<usize, Status> {
    match size {
        0 => Ok(USUAL_PAGE as usize),
        1..=MAX_PAGE => Ok(size as usize),
        _ => Err(invalid("a page has at most 1,000 exchanges")),
    }
}

/// What a page token is bound to: the filter and the order.
pub(super) fn binding(filter: &Filter, newest_first: bool) -> u64 {
    let digest = Sha256::new().chain_update([u8::from(newest_first)]).chain_update(filter.encode_to_vec()).finalize();
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A page token: where the next page goes on, and of which query. Opaque to callers; a forged one shows what they may
/// see anyway.
pub(super) struct Token;

impl Token {
    const VERSION: u8 = 1;

    pub(super) fn write(after: u64, binding: u64) -> String {
        let mut bytes = vec![Self::VERSION];
        bytes.extend_from_slice(&after.to_be_bytes());
        bytes.extend_from_slice(&binding.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn read(token: &str, binding: u64) -> Result<Option<u64>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| <[u8; 17]>::try_from(bytes).ok());
        let Some([Self::VERSION, rest @ ..]) = bytes else { return Err(invalid("no page token of this service")) };
        let (after, bound) = rest.split_at(8);
        if bound != binding.to_be_bytes() {
            return Err(invalid("the page token is of another filter or order"));
        }
        Ok(after.try_into().ok().map(u64::from_be_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_query_only() {
        let filter = Filter { consumer: "KG/GOV/1".into(), ..Filter::default() };
        let bound = binding(&filter, true);
        let token = Token::write(77, bound);
        assert_eq!(Token::read(&token, bound).unwrap(), Some(77));
        assert!(Token::read(&token, binding(&filter, false)).is_err());
        assert!(Token::read(&token, binding(&Filter::default(), true)).is_err());
        assert!(Token::read("not a token", bound).is_err());
        assert!(Token::read("AAAA", bound).is_err());
        assert_eq!(Token::read("", bound).unwrap(), None);
    }
}
