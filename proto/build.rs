//! Compiles the service definitions with a compiler written in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "confab/auth/v1/auth.proto",
        "confab/auth/v1/user.proto",
        "confab/room/v1/room.proto",
        "confab/message/v1/message.proto",
        "confab/file/v1/file.proto",
        "confab/file/v1/service.proto",
    ];
    println!("cargo:rerun-if-changed=confab");
    let descriptors = protox::compile(files, ["."])?;
    // The bytes of files are shared on their way, not copied.
    tonic_prost_build::configure().bytes(".confab.file.v1").compile_fds(descriptors)?;
    Ok(())
}
