//! The service that every row of the benchmark calls: `kopuro.bench.v1.Echo`. Its messages, its gRPC framing and its
//! descriptor set are written here by hand, because `proto/` is public API and the benchmark is not part of it.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};

pub(crate) const SERVICE: &str = "kopuro.bench.v1.Echo";
pub(crate) const UNARY: &str = "/kopuro.bench.v1.Echo/Unary";
pub(crate) const SERVER_STREAM: &str = "/kopuro.bench.v1.Echo/ServerStream";

/// What goes there and comes back.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EchoMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) payload: Bytes,
}

/// Asks for `count` messages of `size` bytes each.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) size: u32,
}

/// A message as it crosses: flag byte, length, bytes.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    message.encode(&mut framed).expect("the buffer grows");
    framed.freeze()
}

/// An echo message of `size` payload bytes, of which the first eight are `stamp`: so that no two in flight are equal
/// and a reply that belongs to another call is noticed.
pub(crate) fn stamped(size: usize, stamp: u64) -> Bytes {
    let mut payload = BytesMut::with_capacity(size);
    payload.put_u64(stamp);
    payload.resize(size.max(8), 0x5a);
    frame(&EchoMessage { payload: payload.freeze() })
}

/// The message that a server stream repeats.
pub(crate) fn streamed(size: usize) -> Bytes {
    stamped(size, 0)
}

/// The descriptor set that the directory names for the service.
pub(crate) fn descriptors() -> FileDescriptorSet {
    let method = |name: &str, input: &str, streams: bool| MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(format!(".kopuro.bench.v1.{input}")),
        output_type: Some(".kopuro.bench.v1.EchoMessage".into()),
        server_streaming: Some(streams),
        ..Default::default()
    };
    let message = |name: &str, field: Vec<FieldDescriptorProto>| DescriptorProto {
        name: Some(name.into()),
        field,
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("kopuro/bench/v1/echo.proto".into()),
        package: Some("kopuro.bench.v1".into()),
        message_type: vec![
            message("EchoMessage", vec![field("payload", 1, Type::Bytes)]),
            message("StreamRequest", vec![field("count", 1, Type::Uint32), field("size", 2, Type::Uint32)]),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Echo".into()),
            method: vec![method("Unary", "EchoMessage", false), method("ServerStream", "StreamRequest", true)],
            ..Default::default()
        }],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
}
