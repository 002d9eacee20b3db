//! For systems without gRPC: the Connect protocol at the systems' listener, over HTTP/1.1 and HTTP/2, with the same certificates, grants
//! and log as gRPC.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use kopuro::log::entry::{Kind, Outcome};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::probe::ProbeClient;
use crate::harness::raw::{until_closed, whole};
use crate::harness::web::{Told, Web, http1_stream};
use crate::harness::{CLERK, DESK, Federation, Running, told};

const UNARY: &str = "/kopuro.test.v1.Probe/Unary";
const EXPAND: &str = "/kopuro.test.v1.Probe/Expand";
const COLLECT: &str = "/kopuro.test.v1.Probe/Collect";
const CHAT: &str = "/kopuro.test.v1.Probe/Chat";

fn blob(text: &str) -> String {
    json!({ "value": STANDARD.encode(text) }).to_string()
}

fn said(told: &Told) -> String {
    String::from_utf8(STANDARD.decode(told.json()["value"].as_str().unwrap()).unwrap()).unwrap()
}

async fn both(running: &mut Running) -> [Web; 2] {
    let desk = running.federation.issue(DESK);
    let address = running.consumer.systems_addr();
    let federation = &running.federation;
    [Web::http1(federation, address, &desk).await, Web::http2(federation, address, &desk).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_in_json_is_the_exchange_that_grpc_makes() {
    let mut running = Running::start().await;
    for mut web in both(&mut running).await {
        let before = Running::entries(&running.consumer).len();
        let headers = [("x-said", "hello"), ("x-said-bin", "AAEC"), ("kopuro-user", "official-7"), ("cookie", "a=b")];
        let told_ = web.post(UNARY, &headers, blob("жооп")).await;
        assert_eq!((told_.status, said(&told_).as_str()), (200, "жооп"), "{told_:?}");
        assert_eq!(told_.header("content-type"), "application/json");
        assert_eq!(told_.header("cache-control"), "no-store");
        assert_eq!((told_.header("x-heard"), told_.header("x-heard-bin")), ("hello", "AAEC"));
        assert!(told_.headers.keys().all(|name| !name.as_str().contains("grpc")), "{told_:?}");

        let seen = running.probe.seen.metadata.lock().unwrap().clone().unwrap();
        assert!(seen.get("cookie").is_none() && seen.get("connect-protocol-version").is_none());
        assert_eq!(seen.get("kopuro-consumer").unwrap(), DESK);
        let entries = Running::entries(&running.consumer);
        let new = &entries[before..];
        assert_eq!(
            told(new),
            [(Kind::RequestSent, Outcome::Unspecified, ""), (Kind::ResponseReceived, Outcome::Ok, "")]
        );
        assert_eq!(uuid::Uuid::from_slice(&new[0].exchange_id).unwrap().to_string(), told_.header("kopuro-exchange"));
    }

    // What is committed to is what gRPC would have sent.
    let sizes = |entries: &[kopuro::log::entry::Entry]| entries.len();
    let before = sizes(&Running::entries(&running.provider));
    ProbeClient::new(running.desk().await).unary("жооп").await.unwrap();
    let entries = Running::entries(&running.provider);
    assert_eq!(told(&entries[before..]), told(&entries[before - 2..before]));
    running.stop().await;
}
