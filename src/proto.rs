//! Code generated from `proto/` at build time, by package.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated code; the .proto files carry the documentation"
)]

/// The descriptor set of every file under `proto/` and what they import, as `google.protobuf.FileDescriptorSet` bytes.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The gateway's own packages.
pub mod kopuro {
    /// `kopuro.log`.
    pub mod log {
        /// `kopuro.log.v1`: the log entry.
        pub mod v1 {
            tonic::include_proto!("kopuro.log.v1");
        }
    }
    /// `kopuro.node`.
    pub mod node {
        /// `kopuro.node.v1`: what nodes ask each other.
        pub mod v1 {
            tonic::include_proto!("kopuro.node.v1");
        }
    }
    /// `kopuro.catalogue`.
    pub mod catalogue {
        /// `kopuro.catalogue.v1`: what a system may call.
        pub mod v1 {
            tonic::include_proto!("kopuro.catalogue.v1");
        }
    }
    /// `kopuro.audit`.
    pub mod audit {
        /// `kopuro.audit.v1`: the auditor's API.
        pub mod v1 {
            tonic::include_proto!("kopuro.audit.v1");
        }
    }
}

/// Example services of state bodies (`proto/kg/`).
pub mod kg {
    /// `kg.common`.
    pub mod common {
        /// `kg.common.v1`: addresses and amounts.
        pub mod v1 {
            tonic::include_proto!("kg.common.v1");
        }
    }
    /// `kg.civil`.
    pub mod civil {
        /// `kg.civil.v1`: the register of the population.
        pub mod v1 {
            tonic::include_proto!("kg.civil.v1");
        }
    }
    /// `kg.tax`.
    pub mod tax {
        /// `kg.tax.v1`: taxpayers and income.
        pub mod v1 {
            tonic::include_proto!("kg.tax.v1");
        }
    }
    /// `kg.social`.
    pub mod social {
        /// `kg.social.v1`: social insurance.
        pub mod v1 {
            tonic::include_proto!("kg.social.v1");
        }
    }
    /// `kg.cadastre`.
    pub mod cadastre {
        /// `kg.cadastre.v1`: rights to real estate.
        pub mod v1 {
            tonic::include_proto!("kg.cadastre.v1");
        }
    }
}
