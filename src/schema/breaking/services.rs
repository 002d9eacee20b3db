//! Services and methods by their names.

use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use super::{Judge, annotations};

pub(super) fn judge(judge: &mut Judge<'_>, old: &DescriptorPool) {
    for before in old.services() {
        match judge.new.get_service_by_name(before.full_name()) {
            Some(after) => pair(judge, &before, &after),
            None if judge.packages.contains(before.package_name()) => {
                let what = format!("service {} was deleted", before.name());
                judge.missing("PACKAGE_SERVICE_NO_DELETE", &before.parent_file(), before.full_name(), what);
            }
            None => {}
        }
    }
}

fn pair(judge: &mut Judge<'_>, before: &ServiceDescriptor, after: &ServiceDescriptor) {
    annotations::service(judge, before, after);
    for old in before.methods() {
        match after.methods().find(|method| method.name() == old.name()) {
            Some(new) => method(judge, &old, &new),
            None => {
                let what = format!("method {} was deleted", old.name());
                judge.add("RPC_NO_DELETE", &after.parent_file(), after.path(), after.full_name(), what);
            }
        }
    }
}

fn method(judge: &mut Judge<'_>, before: &MethodDescriptor, after: &MethodDescriptor) {
    let mut changed = |rule, what: &str, was: &str, is: &str| {
        if was != is {
            let what = format!("{what} changed from {was} to {is}");
            judge.add(rule, &after.parent_file(), after.path(), after.full_name(), what);
        }
    };
    let streams = |yes: bool| if yes { "streamed" } else { "one message" };
    let (input, output) = (before.input(), before.output());
    changed("RPC_SAME_REQUEST_TYPE", "the request's type", input.full_name(), after.input().full_name());
    changed("RPC_SAME_RESPONSE_TYPE", "the response's type", output.full_name(), after.output().full_name());
    let (was, is) = (before.is_client_streaming(), after.is_client_streaming());
    changed("RPC_SAME_CLIENT_STREAMING", "the request", streams(was), streams(is));
    let (was, is) = (before.is_server_streaming(), after.is_server_streaming());
    changed("RPC_SAME_SERVER_STREAMING", "the response", streams(was), streams(is));
    let (was, is) = (idempotency(before), idempotency(after));
    changed("RPC_SAME_IDEMPOTENCY_LEVEL", "idempotency_level", was, is);
    annotations::method(judge, before, after);
}

fn idempotency(method: &MethodDescriptor) -> &'static str {
    let options = method.method_descriptor_proto().options.as_ref();
    options.map_or("IDEMPOTENCY_UNKNOWN", |options| options.idempotency_level().as_str_name())
}
