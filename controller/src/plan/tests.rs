//! The plan against a small model of a cluster.

mod assignment;
mod copies;
mod gate;
mod handmade;
mod labels;
mod model;
mod removal;
mod status;
mod turns;
