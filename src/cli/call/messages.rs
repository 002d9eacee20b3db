//! Messages between JSON and the wire, with types known at run time.

use std::fs::File;
use std::io::BufReader;

use anyhow::{Context, bail};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Where messages to send come from.
pub(super) struct Input;

impl Input {
    /// The messages of `-d`, read in a thread of their own so that a stream flows while its input does; and, should
    /// one be wrong, the error. Inline JSON is checked before anything is sent.
    pub(super) fn read(
        data: &[String],
        method: &MethodDescriptor,
    ) -> anyhow::Result<(ReceiverStream<DynamicMessage>, mpsc::Receiver<anyhow::Error>)> {
        let input = method.input();
        let mut parts = Vec::new();
        for text in data {
            parts.push(match text.strip_prefix('@') {
                Some("-") => Part::Stdin,
                Some(path) => Part::File(File::open(path).with_context(|| path.to_owned())?),
                None => Part::Message(from_json(&input, serde_json::from_str(text).context("-d")?)?),
            });
        }
        let streams = method.is_client_streaming();
        if parts.is_empty() && !streams {
            parts.push(Part::Message(DynamicMessage::new(input.clone())));
        }
        if parts.len() > 1 && !streams {
            bail!("{} takes one message, not {}", method.full_name(), parts.len());
        }
        let (sender, receiver) = mpsc::channel(16);
        let (failure, failed) = mpsc::channel(1);
        std::thread::Builder::new().name("input".into()).spawn(move || {
            if let Err(error) = feed(parts, &input, streams, &sender) {
                let _ = failure.blocking_send(error);
                // The stream stays open until the call is given up, or it would end as if all were well.
                loop {
                    std::thread::park();
                }
            }
        })?;
        Ok((ReceiverStream::new(receiver), failed))
    }
}

enum Part {
    Message(DynamicMessage),
    File(File),
    Stdin,
}

fn feed(
    parts: Vec<Part>,
    input: &MessageDescriptor,
    streams: bool,
    sender: &mpsc::Sender<DynamicMessage>,
) -> anyhow::Result<()> {
    let mut sent = 0;
    let mut send = |message| {
        sent += 1;
        if sent > 1 && !streams {
            bail!("the method takes one message; the input has more");
        }
        // A closed channel is a call that has ended: nobody is left to tell.
        let _ = sender.blocking_send(message);
        Ok(())
    };
    for part in parts {
        let reader: Box<dyn std::io::Read> = match part {
            Part::Message(message) => {
                send(message)?;
                continue;
            }
            Part::File(file) => Box::new(BufReader::new(file)),
            Part::Stdin => Box::new(std::io::stdin().lock()),
        };
        for document in serde_json::Deserializer::from_reader(reader).into_iter::<serde_json::Value>() {
            if sender.is_closed() {
                return Ok(());
            }
            send(from_json(input, document.context("input")?)?)?;
        }
    }
    if sent == 0 && !streams {
        bail!("the input holds no message");
    }
    Ok(())
}

fn from_json(descriptor: &MessageDescriptor, json: serde_json::Value) -> anyhow::Result<DynamicMessage> {
    DynamicMessage::deserialize(descriptor.clone(), json).with_context(|| format!("no {}", descriptor.full_name()))
}

/// Canonical protobuf JSON, on one line unless it is for a person.
pub(super) fn to_json(message: &DynamicMessage, pretty: bool) -> serde_json::Result<String> {
    let mut out = Vec::new();
    let options = SerializeOptions::new();
    if pretty {
        message.serialize_with_options(&mut serde_json::Serializer::pretty(&mut out), &options)?;
    } else {
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)?;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// tonic's codec for a method known at run time.
#[derive(Debug)]
pub(super) struct DynamicCodec {
    output: MessageDescriptor,
}

impl DynamicCodec {
    pub(super) fn new(method: &MethodDescriptor) -> Self {
        Self { output: method.output() }
    }
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.output.clone())
    }
}

#[derive(Debug)]
pub(super) struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

#[derive(Debug)]
pub(super) struct DynamicDecoder(MessageDescriptor);

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
