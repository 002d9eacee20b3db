//! `kopuro.audit.v1.Openings`: single fields of one entry, opened to an officer whom a grant allows it.

use prost::Message;
use tonic::{Code, Request, Response, Status};
use zeroize::Zeroizing;

use super::admit::About;
use super::{OPENINGS, SubjectService, failed, shown_entry};
use crate::log::LogError;
use crate::log::entry::{self, Entry};
use crate::log::hidden::Private;
use crate::log::opening::{OpeningError, is_slot};
use crate::oversight::join::JoinError;
use crate::oversight::status::{self, invalid};
use crate::policy::Publication;
use crate::proto::kopuro::audit::v1::openings_server::Openings;
use crate::proto::kopuro::audit::v1::{OpenFieldsRequest, OpenFieldsResponse};

#[tonic::async_trait]
impl Openings for SubjectService {
    async fn open_fields(&self, request: Request<OpenFieldsRequest>) -> Result<Response<OpenFieldsResponse>, Status> {
        // Whom the entry is about goes into the entry of this look, which shows no more than the entry itself.
        let index = request.get_ref().index;
        let about = self.answer(move |service, _| Ok(service.about(index).unwrap_or_default())).await?.into_inner();
        let asked = self.admit(OPENINGS, "OpenFields", request, &about).await?;
        self.answer(move |service, _| service.open(&asked)).await
    }
}

impl SubjectService {
    fn about(&self, index: u64) -> Option<About> {
        let (entry, private) = self.log.read_with_private(index, 1).ok()?.into_iter().next()?;
        let entry = Entry::decode(entry).ok()?;
        let class = match entry.publication() {
            entry::Publication::Delayed => Publication::Delayed { days: entry.delay_days },
            entry::Publication::Sealed => Publication::Sealed,
            entry::Publication::Public | entry::Publication::Unspecified => Publication::Public,
        };
        let private = private.as_ref().and_then(|private| Private::read(private));
        let subjects = private.map_or_else(Vec::new, |private| private.subjects());
        let mut subjects = subjects.into_iter().map(|(_, who)| Zeroizing::new(who.to_vec()));
        Some(About { subject: subjects.next().unwrap_or_default(), others: subjects.collect(), class })
    }

    fn open(&self, asked: &OpenFieldsRequest) -> Result<OpenFieldsResponse, Status> {
        let checkpoint = self.log.checkpoint();
        let size = if asked.tree_size == 0 { checkpoint.size } else { asked.tree_size };
        let index = asked.index;
        if index >= size || size > checkpoint.size {
            let has = checkpoint.size;
            return Err(Status::out_of_range(format!("entry {index} in a tree of {size}: the log has {has} entries")));
        }
        let named = |slot: &i32| u8::try_from(*slot).ok().filter(|slot| is_slot(*slot));
        let slots = asked.slots.iter().map(named).collect::<Option<Vec<u8>>>();
        let slots = slots.filter(|slots| !slots.is_empty()).ok_or_else(|| invalid("name fields that there are"))?;
        let read = self.log.read_with_private(index, 1).map_err(log_failed)?.into_iter().next();
        let (entry, private) = read.ok_or_else(|| Status::internal("the entry cannot be read"))?;
        let absent = |what: &str| status::with_reason(Code::FailedPrecondition, what, "NOTHING_TO_OPEN");
        let private = private.ok_or_else(|| absent("the entry's private half is destroyed"))?;
        let half = Private::read(&private).ok_or_else(|| absent("the entry's private half cannot be read"))?;
        if let Some(slot) = slots.iter().find(|slot| half.value_at(**slot).is_none()) {
            return Err(absent(&OpeningError::absent(*slot, &half).to_string()));
        }
        let proof = self.log.inclusion_proof(index, size).map_err(log_failed)?;
        let entry = shown_entry(index, entry, Some(&half), &slots, &proof);
        Ok(OpenFieldsResponse { entry: Some(entry), checkpoint: checkpoint.note.clone() })
    }
}

fn log_failed(error: LogError) -> Status {
    failed(JoinError::Source(error.into()))
}
