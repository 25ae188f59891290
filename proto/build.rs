//! Compiles the service definitions with a compiler written in Rust, so that `protoc` is not needed.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "confab/auth/v1/auth.proto",
        "confab/auth/v1/keys.proto",
        "confab/auth/v1/user.proto",
        "confab/room/v1/room.proto",
        "confab/message/v1/message.proto",
        "confab/file/v1/file.proto",
        "confab/file/v1/service.proto",
    ];
    println!("cargo:rerun-if-changed=confab");
    let descriptors = protox::compile(files, ["."])?;
    // The file that `tonic::include_file_descriptor_set!` reads, for server reflection.
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("confab.bin"), descriptors.encode_to_vec())?;
    // The content of files is shared between buffers, not copied.
    tonic_prost_build::configure().bytes(".confab.file.v1").compile_fds(descriptors)?;
    Ok(())
}
