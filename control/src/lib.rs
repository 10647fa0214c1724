//! The control plane of ringbridge.
#![forbid(unsafe_code)]

pub mod client;
pub mod demo;
pub mod files;
