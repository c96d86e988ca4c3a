//! The gRPC interface as clients see it: recorded answers, unusual bytes, real clients.

#![cfg(test)]

mod bounds;
mod client;
mod deadlines;
mod golden;
mod local;
mod python;
mod reload;
#[path = "../rest/rig.rs"]
#[expect(dead_code, reason = "shared with the REST tests, which use more of it")]
mod rig;
mod slow;
