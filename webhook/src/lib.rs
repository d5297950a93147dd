//! The admission webhook: annotated workloads run only where their images are.
