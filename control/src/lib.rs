//! The control plane of ringbridge.
#![forbid(unsafe_code)]

pub mod files;
