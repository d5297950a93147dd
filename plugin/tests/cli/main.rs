//! The command as people run it: alone, and against a small API server.

mod api;
mod arguments;
mod connection;
mod explain;
mod help;
mod images;
mod inject;
mod install;
mod prefetches;
mod sources;
mod support;
mod wait;
