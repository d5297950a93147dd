//! The command as people run it: alone, and against a small API server.

mod api;
mod arguments;
mod complete;
mod connection;
mod doctor;
mod explain;
mod help;
mod images;
mod inject;
mod install;
mod mirror;
mod mirror_gc;
mod mirror_objects;
mod prefetches;
mod sources;
mod support;
mod wait;
