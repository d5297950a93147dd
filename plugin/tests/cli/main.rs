//! The command as people run it: alone, and against a small API server.

mod api;
mod arguments;
mod connection;
mod help;
mod images;
mod install;
mod prefetches;
mod support;
mod wait;
