fn main() -> std::process::ExitCode {
    confab_common::process::run(confab_auth::run)
}
