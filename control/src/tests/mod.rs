//! The control plane as its clients see it: the real socket, router and methods, on shards that only pretend.

mod accounts;
mod agentgateway;
mod audit;
mod dialogues;
mod failures;
pub(crate) mod fake;
mod icws;
mod in_process;
mod limits;
mod media;
mod mediacontrol;
mod moves;
mod operations;
mod quotas;
pub(crate) mod rig;
mod verba;
