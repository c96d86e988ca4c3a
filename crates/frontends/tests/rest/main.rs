//! The REST interface as clients see it: recorded answers, and unusual bytes.

#![cfg(test)]

mod golden;
mod raw;
mod rig;
