//! The node's own gRPC services, beside what it carries: health for everybody, reflection for systems and auditors, the audit API for
//! auditors, subject access and openings for systems with a grant, the catalogue for the member's systems, and what nodes ask each
//! other. tonic serves them, on the connections that [`super::accept`] has identified.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt;

use super::accept::Caller;
use super::body::{Arriving, BoxError};
use super::catalogue::CatalogueService;
use super::node_grants::NodeGrantsService;
use super::node_log::NodeLogService;
use super::ordinary::{Health, Reflection};
use super::refusal::Refusal;
use crate::log::entry::Side;
use crate::oversight::audit::AuditService;
use crate::oversight::subject::SubjectService;
use crate::proto::kopuro::audit::v1::audit_log_server::AuditLogServer;
use crate::proto::kopuro::audit::v1::openings_server::OpeningsServer;
use crate::proto::kopuro::audit::v1::subject_access_server::SubjectAccessServer;
use crate::proto::kopuro::catalogue::v1::catalogue_server::CatalogueServer;
use crate::proto::kopuro::node::v1::node_grants_server::NodeGrantsServer;
use crate::proto::kopuro::node::v1::node_log_server::NodeLogServer;
use crate::telemetry::metrics::Listener as Role;

const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: [&str; 2] = ["/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];
const AUDIT: &str = "/kopuro.audit.v1.AuditLog/";
const NODE_LOG: &str = "/kopuro.node.v1.NodeLog/";
const SUBJECT: &str = "/kopuro.audit.v1.SubjectAccess/";
const OPENINGS: &str = "/kopuro.audit.v1.Openings/";
const CATALOGUE: &str = "/kopuro.catalogue.v1.Catalogue/";
const NODE_GRANTS: &str = "/kopuro.node.v1.NodeGrants/";

/// tonic's router over them.
#[derive(Debug, Clone)]
pub(super) struct OwnServices {
    routes: tonic::service::Routes,
}

impl OwnServices {
    pub(super) fn new(
        health: &Health,
        reflection: &Reflection,
        log: Option<(AuditService, SubjectService)>,
        node_log: Option<NodeLogService>,
        (catalogue, node_grants): (CatalogueService, NodeGrantsService),
    ) -> Self {
        let mut routes = tonic::service::Routes::new(health.server())
            .add_service(reflection.v1())
            .add_service(reflection.v1alpha())
            .add_service(CatalogueServer::new(catalogue))
            .add_service(NodeGrantsServer::new(node_grants));
        if let Some((audit, subject)) = log {
            routes = routes
                .add_service(AuditLogServer::new(audit))
                .add_service(SubjectAccessServer::new(subject.clone()))
                .add_service(OpeningsServer::new(subject));
        }
        if let Some(node_log) = node_log {
            routes = routes.add_service(NodeLogServer::new(node_log));
        }
        Self { routes: routes.prepare() }
    }

    /// Whether a path is one of ours on this listener.
    pub(super) fn serves(&self, role: Role, path: &str) -> bool {
        path.starts_with(HEALTH)
            || role == Role::Nodes && [NODE_LOG, NODE_GRANTS].iter().any(|own| path.starts_with(own))
            || role == Role::Systems
                && [AUDIT, SUBJECT, OPENINGS, CATALOGUE].iter().chain(&REFLECTION).any(|own| path.starts_with(own))
    }

    pub(super) async fn call(&self, caller: &Caller, mut request: Request<Arriving>) -> Response<tonic::body::Body> {
        request.extensions_mut().insert(caller.peer.clone());
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(caller.address) });
        // What is wrong with a request in another protocol has to arrive as tonic says it.
        let told = |error: BoxError| match error.downcast::<Refusal>() {
            Ok(refusal) => refusal.to_status(Side::Consumer).into(),
            Err(error) => error,
        };
        let request = request.map(|body| tonic::body::Body::new(body.map_err(told)));
        let answer: Result<_, Infallible> = self.routes.clone().oneshot(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

/// An own service's answer. A stream that would go on for ever (health, reflection) ends when the node drains.
pub(super) struct OwnAnswer {
    body: tonic::body::Body,
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl OwnAnswer {
    pub(super) fn new(body: tonic::body::Body, drain: CancellationToken) -> Self {
        Self { body, drain: Some(Box::pin(drain.cancelled_owned())) }
    }
}

impl Body for OwnAnswer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(drain) = &mut this.drain else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Only what is not ready yet is cut short.
        std::task::ready!(drain.as_mut().poll(cx));
        this.drain = None;
        Poll::Ready(Some(Ok(Frame::trailers(Refusal::draining().to_trailers(Side::Unspecified)))))
    }

    fn is_end_stream(&self) -> bool {
        self.drain.is_none() || self.body.is_end_stream()
    }
}
