//! Descriptor sets as files: their digest, the part of a set that one service needs, and what a reflection client asks
//! for.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost_reflect::{DescriptorPool, FileDescriptor, ServiceDescriptor};
use sha2::{Digest, Sha256};

use super::{Catalogue, SchemaError};

/// The name by which the directory knows a descriptor set.
pub fn digest(set: &[u8]) -> [u8; 32] {
    Sha256::digest(set).into()
}

/// The smallest descriptor set that defines `services`: their files and what those import, dependencies first. The
/// same input gives the same bytes.
pub fn extract(set: &[u8], services: &[&str]) -> Result<Vec<u8>, SchemaError> {
    let pool = super::set::read(set).map_err(|faults| SchemaError::BadSet {
        digest: hex::encode(digest(set)),
        reason: super::set::words(&faults),
    })?;
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for name in services {
        let service = pool.get_service_by_name(name).ok_or_else(|| SchemaError::NotDefined((*name).to_owned()))?;
        with_imports(&service.parent_file(), &mut seen, &mut files);
    }
    Ok(encoded_set(&files))
}

/// The smallest descriptor set that defines one service, as [`extract`] makes it.
pub fn set_of(service: &ServiceDescriptor) -> Vec<u8> {
    let mut files = Vec::new();
    with_imports(&service.parent_file(), &mut HashSet::new(), &mut files);
    encoded_set(&files)
}

fn encoded_set(files: &[FileDescriptor]) -> Vec<u8> {
    // Encoded from the pool's own bytes, so that options and extensions that we do not know are kept.
    let mut bytes = Vec::new();
    for file in files {
        // Field 1 of FileDescriptorSet, length-delimited.
        let encoded = file.encode_to_vec();
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(encoded.len() as u64, &mut bytes);
        bytes.extend_from_slice(&encoded);
    }
    bytes
}

fn with_imports(file: &FileDescriptor, seen: &mut HashSet<String>, files: &mut Vec<FileDescriptor>) {
    if seen.insert(file.name().to_owned()) {
        for import in file.dependencies() {
            with_imports(&import, seen, files);
        }
        files.push(file.clone());
    }
}

/// What server reflection tells about some of a catalogue's services: no file that these do not need can be had.
#[derive(Debug, Default)]
pub struct FileIndex {
    services: Vec<String>,
    files: HashMap<String, FileDescriptor>,
    extensions: BTreeMap<(String, u32), String>,
}

impl FileIndex {
    /// Of the named services, from the catalogue or else from `own`, the services that the node itself answers; names
    /// that neither has are passed over. Where several systems offer a service, the first one's files are told.
    pub fn new<'a>(catalogue: &Catalogue, own: &DescriptorPool, services: impl IntoIterator<Item = &'a str>) -> Self {
        let mut index = Self::default();
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        for name in services {
            let offered = catalogue.service(name).and_then(|service| service.offers().first());
            let Some(service) = offered.map(|offer| offer.descriptor.clone()).or_else(|| own.get_service_by_name(name))
            else {
                continue;
            };
            index.services.push(name.to_owned());
            with_imports(&service.parent_file(), &mut seen, &mut order);
        }
        index.services.sort();
        index.services.dedup();
        for file in order {
            for extension in file.extensions() {
                let key = (extension.containing_message().full_name().to_owned(), extension.number());
                index.extensions.insert(key, file.name().to_owned());
            }
            index.files.insert(file.name().to_owned(), file);
        }
        index
    }

    /// Full names, sorted.
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// A file by its name, encoded as `FileDescriptorProto`, and then all that it imports.
    pub fn file(&self, name: &str) -> Option<Vec<Bytes>> {
        self.encoded(self.files.get(name)?)
    }

    /// The file that defines a service, method, message, field, oneof, enum or enum value, and then all it imports.
    pub fn file_of_symbol(&self, symbol: &str) -> Option<Vec<Bytes>> {
        let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
        // A member (method, field, value) is defined where what it belongs to is.
        let parent = symbol.rsplit_once('.').map(|(parent, _)| parent);
        let file = self
            .files
            .values()
            .find(|file| defines(file, symbol))
            .or_else(|| self.files.values().find(|file| parent.is_some_and(|p| defines_member(file, p, symbol))))?;
        self.encoded(file)
    }

    /// The file that defines an extension of a message, and then all that it imports.
    pub fn file_of_extension(&self, message: &str, number: u32) -> Option<Vec<Bytes>> {
        self.file(self.extensions.get(&(message.to_owned(), number))?)
    }

    /// The numbers of a message's extensions; `None` for a message that is not known here.
    pub fn extension_numbers(&self, message: &str) -> Option<Vec<u32>> {
        self.files
            .values()
            .any(|file| defines(file, message))
            .then(|| self.extensions.keys().filter(|(of, _)| of == message).map(|(_, number)| *number).collect())
    }

    fn encoded(&self, file: &FileDescriptor) -> Option<Vec<Bytes>> {
        let mut files = Vec::new();
        with_imports(file, &mut HashSet::new(), &mut files);
        // What was asked for comes first.
        files.reverse();
        Some(files.iter().map(|file| file.encode_to_vec().into()).collect())
    }
}

fn defines(file: &FileDescriptor, symbol: &str) -> bool {
    let pool = file.parent_pool();
    pool.get_service_by_name(symbol).is_some_and(|s| s.parent_file() == *file)
        || pool.get_message_by_name(symbol).is_some_and(|m| m.parent_file() == *file)
        || pool.get_enum_by_name(symbol).is_some_and(|e| e.parent_file() == *file)
        || pool.get_extension_by_name(symbol).is_some_and(|e| e.parent_file() == *file)
}

fn defines_member(file: &FileDescriptor, parent: &str, symbol: &str) -> bool {
    let pool = file.parent_pool();
    let name = &symbol[parent.len() + 1..];
    let service = pool.get_service_by_name(parent).filter(|s| s.parent_file() == *file);
    let message = pool.get_message_by_name(parent).filter(|m| m.parent_file() == *file);
    service.is_some_and(|s| s.methods().any(|m| m.name() == name))
        || message.is_some_and(|m| {
            m.get_field_by_name(name).is_some() || m.oneofs().any(|o| o.name() == name)
        })
        // Enum values belong to the scope that holds the enum.
        || file.enums().any(|e| e.values().any(|v| v.full_name() == symbol))
}
