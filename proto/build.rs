//! Compiles the service definitions with a compiler written in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["confab/auth/v1/auth.proto", "confab/auth/v1/user.proto", "confab/room/v1/room.proto", "confab/message/v1/message.proto"];
    println!("cargo:rerun-if-changed=confab");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
