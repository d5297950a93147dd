//! What Coral changes in objects that are being admitted, so that pods run where their images are and use their copies.
//!
//! ```text
//!   AdmissionReview ──► review ──► mutate, rewrite ──► JSON patch ──► AdmissionReview
//! ```
//!
//! Pure: no network, no files, no clock. What is known of Prefetches and copies comes with the question. The webhook is the server around it, and
//! the `kubectl` plugin asks [`mutate`] itself.
//!
//! This crate is compiled for speed, and the others for size: everything that costs something in an admission is here.

#[cfg(feature = "bench")]
pub mod bench;
pub mod mutate;
pub mod review;
pub mod rewrite;
