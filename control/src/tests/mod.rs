//! The control plane as its clients see it: the real socket, router and methods, on shards that only pretend.

mod accounts;
mod dialogues;
mod failures;
mod fake;
mod limits;
mod media;
mod rig;
