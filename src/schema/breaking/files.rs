//! Files by their name, and packages.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, FileDescriptor, Syntax};
use prost_types::{FileDescriptorProto, FileOptions};

use super::Judge;

/// Options by which generated code changes its names. The rule, the option, and how it is read.
type Named = (&'static str, &'static str, fn(&FileOptions) -> String);

const OPTIONS: [Named; 16] = [
    ("FILE_SAME_CC_ENABLE_ARENAS", "cc_enable_arenas", |o| o.cc_enable_arenas().to_string()),
    ("FILE_SAME_CC_GENERIC_SERVICES", "cc_generic_services", |o| o.cc_generic_services().to_string()),
    ("FILE_SAME_CSHARP_NAMESPACE", "csharp_namespace", |o| o.csharp_namespace().to_owned()),
    ("FILE_SAME_GO_PACKAGE", "go_package", |o| o.go_package().to_owned()),
    ("FILE_SAME_JAVA_GENERIC_SERVICES", "java_generic_services", |o| o.java_generic_services().to_string()),
    ("FILE_SAME_JAVA_MULTIPLE_FILES", "java_multiple_files", |o| o.java_multiple_files().to_string()),
    ("FILE_SAME_JAVA_OUTER_CLASSNAME", "java_outer_classname", |o| o.java_outer_classname().to_owned()),
    ("FILE_SAME_JAVA_PACKAGE", "java_package", |o| o.java_package().to_owned()),
    ("FILE_SAME_OBJC_CLASS_PREFIX", "objc_class_prefix", |o| o.objc_class_prefix().to_owned()),
    ("FILE_SAME_OPTIMIZE_FOR", "optimize_for", |o| o.optimize_for().as_str_name().to_owned()),
    ("FILE_SAME_PHP_CLASS_PREFIX", "php_class_prefix", |o| o.php_class_prefix().to_owned()),
    ("FILE_SAME_PHP_METADATA_NAMESPACE", "php_metadata_namespace", |o| o.php_metadata_namespace().to_owned()),
    ("FILE_SAME_PHP_NAMESPACE", "php_namespace", |o| o.php_namespace().to_owned()),
    ("FILE_SAME_PY_GENERIC_SERVICES", "py_generic_services", |o| o.py_generic_services().to_string()),
    ("FILE_SAME_RUBY_PACKAGE", "ruby_package", |o| o.ruby_package().to_owned()),
    ("FILE_SAME_SWIFT_PREFIX", "swift_prefix", |o| o.swift_prefix().to_owned()),
];

pub(super) fn judge(judge: &mut Judge<'_>, old: &DescriptorPool) {
    let mut packages: BTreeMap<String, FileDescriptor> = BTreeMap::new();
    for before in old.files() {
        if !counts(judge, &before) {
            continue;
        }
        if let Some(after) = judge.new.get_file_by_name(before.name()) {
            pair(judge, &before, &after);
        }
        packages.entry(before.package_name().to_owned()).or_insert(before);
    }
    for (package, file) in packages {
        if !judge.packages.contains(&package) {
            judge.missing("PACKAGE_NO_DELETE", &file, &package, format!("package {package:?} was deleted"));
        }
    }
}

fn pair(judge: &mut Judge<'_>, before: &FileDescriptor, after: &FileDescriptor) {
    let name = after.package_name();
    if before.package_name() != name {
        let what = format!("the file's package changed from {:?} to {name:?}", before.package_name());
        judge.add("FILE_SAME_PACKAGE", after, &[2], name, what);
    }
    let syntax = |file: &FileDescriptor| if file.syntax() == Syntax::Proto2 { "proto2" } else { "proto3" };
    if before.syntax() != after.syntax() {
        let what = format!("the file's syntax changed from {} to {}", syntax(before), syntax(after));
        judge.add("FILE_SAME_SYNTAX", after, &[12], name, what);
    }
    let options = |file: &FileDescriptor| options_of(file.file_descriptor_proto());
    let (old_options, new_options) = (options(before), options(after));
    for (rule, option, read) in OPTIONS {
        let (was, is) = (read(&old_options), read(&new_options));
        if was != is {
            judge.add(rule, after, &[8], name, format!("option {option} changed from {was:?} to {is:?}"));
        }
    }
}

fn options_of(file: &FileDescriptorProto) -> FileOptions {
    file.options.clone().unwrap_or_default()
}

/// A file counts if its package does, or anything in it.
fn counts(judge: &Judge<'_>, file: &FileDescriptor) -> bool {
    let package = file.package_name();
    judge.scope.has(package, "")
        || file.messages().any(|message| judge.scope.has(package, message.full_name()))
        || file.enums().any(|of| judge.scope.has(package, of.full_name()))
}
