//! Compiles the protocol with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=runtime");
    println!("cargo:rerun-if-changed=containerd");
    let descriptors = protox::compile(
        [
            "runtime/v1/api.proto",
            "containerd/services/content/v1/content.proto",
            "containerd/services/images/v1/images.proto",
        ],
        ["."],
    )?;
    tonic_prost_build::configure()
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        .build_transport(false)
        // The derived `Debug` would print passwords; `src/lib.rs` has one that does not.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    Ok(())
}
