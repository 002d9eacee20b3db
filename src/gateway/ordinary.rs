//! What any gRPC server offers beside its services, served by the node itself to whoever connects: health
//! (`grpc.health.v1`) and server reflection (v1 and v1alpha), so that ordinary tools work through the node.
//!
//! In: the catalogue in force, whether the node is ready, and the caller's identity, which the listener leaves in the
//! request's extensions as `Arc<PeerIdentity>`. Out: tonic services. A caller is shown the services that it may call
//! and no file that these do not need; without an identity it is shown nothing.

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use prost_reflect::DescriptorPool;
use tokio::sync::watch;
use tonic::{Extensions, Request, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::catalogue;
use crate::oversight::subject;
use crate::proto::DESCRIPTORS;
use crate::schema::{Catalogue, FileIndex, SchemaError};
use crate::trust::certificate::PeerIdentity;
use crate::trust::identity::{Identity, SystemId};

/// Which of the directory's services a system may call, by full name.
pub type MayCall = Arc<dyn Fn(&SystemId) -> Vec<String> + Send + Sync>;

/// Everybody who got through TLS may ask these of a node.
const FOR_ALL: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Auditors may ask this too.
const FOR_AUDITORS: &str = "kopuro.audit.v1.AuditLog";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Server reflection over the catalogue in force.
#[derive(Clone)]
pub struct Reflection {
    catalogue: Arc<ArcSwap<Catalogue>>,
    own: DescriptorPool,
    may_call: MayCall,
}

impl Reflection {
    /// Shows each system the services that `may_call` names for it.
    pub fn new(catalogue: Arc<ArcSwap<Catalogue>>, may_call: MayCall) -> Result<Self, SchemaError> {
        Ok(Self { catalogue, own: own_descriptors()?, may_call })
    }

    /// The types of the services that nodes themselves answer.
    pub(super) fn own(&self) -> &DescriptorPool {
        &self.own
    }

    /// The current protocol, `grpc.reflection.v1`.
    pub fn v1(&self) -> tonic_reflection::server::v1::ServerReflectionServer<Self> {
        tonic_reflection::server::v1::ServerReflectionServer::new(self.clone())
    }

    /// The old protocol, which many tools still speak, `grpc.reflection.v1alpha`.
    pub fn v1alpha(&self) -> tonic_reflection::server::v1alpha::ServerReflectionServer<Self> {
        tonic_reflection::server::v1alpha::ServerReflectionServer::new(self.clone())
    }

    /// What this caller is shown, as things stand now.
    fn index_for(&self, extensions: &Extensions) -> Result<FileIndex, Status> {
        let peer = extensions.get::<Arc<PeerIdentity>>().ok_or_else(|| Status::unauthenticated("no identity"))?;
        let mut names: Vec<String> = FOR_ALL.iter().map(|name| (*name).to_owned()).collect();
        match &peer.identity {
            Identity::System(system) => {
                names.push(catalogue::SERVICE.to_owned());
                names.extend((self.may_call)(system));
            }
            Identity::Auditor { .. } => names.push(FOR_AUDITORS.to_owned()),
            Identity::Node { .. } | Identity::Member(_) => {}
        }
        Ok(FileIndex::new(&self.catalogue.load(), &self.own, names.iter().map(String::as_str)))
    }
}

impl std::fmt::Debug for Reflection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reflection").field("catalogue", &self.catalogue).finish_non_exhaustive()
    }
}

/// The types of the services that a node itself answers.
pub(super) fn own_descriptors() -> Result<DescriptorPool, SchemaError> {
    let mut pool = DescriptorPool::new();
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    for set in sets {
        pool.decode_file_descriptor_set(set).map_err(|error| SchemaError::BadSet {
            digest: hex::encode(crate::schema::digest(set)),
            reason: error.to_string(),
        })?;
    }
    Ok(pool)
}

/// Both versions of the protocol have the same messages under different names.
macro_rules! serve_reflection {
    ($version:ident) => {
        #[tonic::async_trait]
        impl tonic_reflection::server::$version::ServerReflection for Reflection {
            type ServerReflectionInfoStream = Answers<tonic_reflection::pb::$version::ServerReflectionResponse>;

            async fn server_reflection_info(
                &self,
                request: Request<Streaming<tonic_reflection::pb::$version::ServerReflectionRequest>>,
            ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                let index = self.index_for(request.extensions())?;
                let answers = request.into_inner().map(move |question| {
                    question.map(|question| tonic_reflection::pb::$version::ServerReflectionResponse {
                        valid_host: question.host.clone(),
                        message_response: Some($version::answer(&index, question.message_request.as_ref())),
                        original_request: Some(question),
                    })
                });
                Ok(Response::new(Box::pin(answers)))
            }
        }

        mod $version {
            use bytes::Bytes;
            use tonic::Code;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServiceResponse,
            };

            use crate::schema::FileIndex;

            pub(super) fn answer(index: &FileIndex, question: Option<&MessageRequest>) -> MessageResponse {
                match question {
                    Some(MessageRequest::FileByFilename(name)) => files(index.file(name), name),
                    Some(MessageRequest::FileContainingSymbol(symbol)) => files(index.file_of_symbol(symbol), symbol),
                    Some(MessageRequest::FileContainingExtension(extension)) => {
                        let number = u32::try_from(extension.extension_number).unwrap_or(0);
                        files(index.file_of_extension(&extension.containing_type, number), &extension.containing_type)
                    }
                    Some(MessageRequest::AllExtensionNumbersOfType(message)) => {
                        match index.extension_numbers(message) {
                            Some(numbers) => MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name: message.clone(),
                                extension_number: numbers.iter().filter_map(|n| i32::try_from(*n).ok()).collect(),
                            }),
                            None => not_found(message),
                        }
                    }
                    Some(MessageRequest::ListServices(_)) => {
                        MessageResponse::ListServicesResponse(ListServiceResponse {
                            service: index.services().iter().cloned().map(|name| ServiceResponse { name }).collect(),
                        })
                    }
                    None => error(Code::InvalidArgument, "the request asks for nothing".to_owned()),
                }
            }

            fn files(found: Option<Vec<Bytes>>, name: &str) -> MessageResponse {
                found.map_or_else(
                    || not_found(name),
                    |files| {
                        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                            file_descriptor_proto: files.iter().map(|file| file.to_vec()).collect(),
                        })
                    },
                )
            }

            fn not_found(name: &str) -> MessageResponse {
                error(Code::NotFound, format!("{name} is not known, or not among what this caller may call"))
            }

            fn error(code: Code, message: String) -> MessageResponse {
                MessageResponse::ErrorResponse(ErrorResponse { error_code: code as i32, error_message: message })
            }
        }
    };
}
serve_reflection!(v1);
serve_reflection!(v1alpha);

/// `grpc.health.v1`: SERVING while the node is ready to take exchanges.
#[derive(Debug, Clone)]
pub struct Health {
    ready: watch::Receiver<bool>,
}

impl Health {
    /// Follows `ready`; once its sender is gone, the node is not serving.
    pub fn new(ready: watch::Receiver<bool>) -> Self {
        Self { ready }
    }

    /// The tonic service.
    pub fn server(&self) -> HealthServer<Self> {
        HealthServer::new(self.clone())
    }

    fn now(&self) -> ServingStatus {
        let gone = self.ready.has_changed().is_err();
        if *self.ready.borrow() && !gone { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

/// The node as a whole is asked for with no name, or as one of the services that it answers itself.
fn is_own(service: &str) -> bool {
    service.is_empty()
        || service == FOR_AUDITORS
        || service == catalogue::SERVICE
        || subject::methods(service).is_some()
        || FOR_ALL.contains(&service)
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthApi for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if is_own(&request.get_ref().service) {
            Ok(Response::new(response(self.now())))
        } else {
            Err(Status::not_found("a node tells its own health only: ask with an empty service name"))
        }
    }

    type WatchStream = Answers<HealthCheckResponse>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !is_own(&request.get_ref().service) {
            let unknown = futures_util::stream::once(async { Ok(response(ServingStatus::ServiceUnknown)) });
            // As the protocol asks: say so and keep the stream open.
            return Ok(Response::new(Box::pin(unknown.chain(futures_util::stream::pending()))));
        }
        let mut health = self.clone();
        health.ready.mark_unchanged();
        let first = response(health.now());
        let later = futures_util::stream::unfold(health, |mut health| async move {
            health.ready.changed().await.ok()?;
            let answer = response(health.now());
            Some((Ok(answer), health))
        });
        Ok(Response::new(Box::pin(futures_util::stream::once(async move { Ok(first) }).chain(later))))
    }
}
