//! Makes the gRPC code and its descriptor from `proto/`, with the `protoc` of Debian's protobuf-compiler.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    tonic_prost_build::configure()
        .build_client(true)
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_protos(
            &["proto/debvisor.proto", "proto/grpc/health/v1/health.proto"],
            &["proto"],
        )
        .map_err(|error| {
            std::io::Error::other(format!(
                "{error}\nprotoc is in the Debian package protobuf-compiler"
            ))
        })
}
