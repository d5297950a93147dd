//! A client of registries that speak the OCI distribution specification.
