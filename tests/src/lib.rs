//! What the suites share.

pub mod sim;
