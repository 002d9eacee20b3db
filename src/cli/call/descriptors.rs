//! The types of a service: from the node's reflection, or from a file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, bail};
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::schema::set;

/// More files than any service has: a server that never ends is not followed.
const MAX_FILES: usize = 2_000;

/// A `google.protobuf.FileDescriptorSet` file.
pub(super) fn from_file(file: &Path) -> anyhow::Result<DescriptorPool> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    set::read(&bytes).map_err(|faults| anyhow::anyhow!("{}: {}", file.display(), set::words(&faults)))
}

/// What the node says that we may call.
pub(super) async fn services(channel: Channel) -> anyhow::Result<Vec<String>> {
    let mut session = Session::open(channel).await?;
    match session.ask(MessageRequest::ListServices(String::new())).await? {
        MessageResponse::ListServicesResponse(list) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        other => bail!("reflection: unexpected answer {other:?}"),
    }
}

/// The service's file and everything it imports.
pub(super) async fn reflected(channel: Channel, service: &str) -> anyhow::Result<DescriptorPool> {
    let mut session = Session::open(channel).await?;
    let mut files: HashMap<String, FileDescriptorProto> = HashMap::new();
    let mut question = MessageRequest::FileContainingSymbol(service.to_owned());
    let mut asked = HashSet::new();
    loop {
        let MessageResponse::FileDescriptorResponse(answer) = session.ask(question).await? else {
            bail!("reflection: unexpected answer");
        };
        for bytes in answer.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&bytes[..]).context("reflection: a file does not decode")?;
            files.insert(file.name().to_owned(), file);
        }
        // Some servers send imports along, others want to be asked for each.
        let missing = files.values().flat_map(|file| &file.dependency).find(|name| !files.contains_key(*name));
        match missing.cloned() {
            None => break,
            Some(name) if files.len() < MAX_FILES && asked.insert(name.clone()) => {
                question = MessageRequest::FileByFilename(name);
            }
            Some(name) => bail!("reflection: the node does not give {name}"),
        }
    }
    let set = FileDescriptorSet { file: files.into_values().collect() };
    set::read(&set.encode_to_vec()).map_err(|faults| anyhow::anyhow!("reflection: {}", set::words(&faults)))
}

/// One reflection stream: a question, then its answer.
struct Session {
    questions: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

impl Session {
    async fn open(channel: Channel) -> anyhow::Result<Self> {
        let (questions, receiver) = mpsc::channel(1);
        let opened = ServerReflectionClient::new(channel).server_reflection_info(ReceiverStream::new(receiver)).await;
        let answers = opened.map_err(|status| refused(&status))?.into_inner();
        Ok(Self { questions, answers })
    }

    async fn ask(&mut self, question: MessageRequest) -> anyhow::Result<MessageResponse> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        self.questions.send(request).await.context("reflection: the stream is closed")?;
        let answer = self.answers.message().await.map_err(|status| refused(&status))?;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ErrorResponse(error)) => bail!("{}", error.error_message),
            Some(answer) => Ok(answer),
            None => bail!("reflection: no answer"),
        }
    }
}

fn refused(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("reflection: {:?}: {} (--descriptors FILE does without)", status.code(), status.message())
}
