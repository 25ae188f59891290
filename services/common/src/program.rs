//! The parts that the programs of all services share.

use crate::config::CommonConfig;
use crate::grpc::Role;
use crate::process::Settings;
use crate::store::StorageConfig;

/// A program's name and the settings that no other program has.
pub trait ServiceArgs: clap::Args {
    const NAME: &'static str;
    /// The description of the program, on one line.
    const ABOUT: &'static str;
    const LISTEN: &'static str;

    /// Validates the settings without side effects.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn check(&self, storage: &StorageConfig) -> anyhow::Result<()>;
}

/// The settings of a program with a store. Flags may stand before and after a subcommand.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = S::NAME,
    version,
    about = S::ABOUT,
    long_about = None,
    mut_arg("listen", |listen| listen.default_value(S::LISTEN)),
    mut_args(|flag| flag.global(true)),
)]
pub struct Program<S: ServiceArgs, C: clap::Subcommand = Command> {
    /// Settings of every program
    #[command(flatten)]
    pub common: CommonConfig,
    /// Settings of the stores
    #[command(flatten)]
    pub storage: StorageConfig,
    /// Settings of this program
    #[command(flatten)]
    pub service: S,
    /// The subcommand
    #[command(subcommand)]
    pub command: Option<C>,
}

/// The subcommand of most programs
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Bring the database schema up to date and exit
    Migrate,
}

impl<S: ServiceArgs, C: clap::Subcommand> Settings for Program<S, C> {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn serves(&self) -> bool {
        self.command.is_none()
    }

    fn check(&self) -> anyhow::Result<()> {
        // A subcommand needs only some of the settings, and checks those itself.
        if !self.serves() {
            return Ok(());
        }
        if Role::of_program(S::NAME).is_some_and(Role::is_service) {
            self.common.calls.check_listener(self.common.listen)?;
        }
        self.service.check(&self.storage)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Clone, clap::Args)]
    struct Tea {
        #[arg(long, env = "CONFAB_TEST_TEA", default_value = "black")]
        tea: String,
    }

    impl ServiceArgs for Tea {
        const NAME: &'static str = "confab-tea";
        const ABOUT: &'static str = "Tea";
        const LISTEN: &'static str = "127.0.0.1:50099";

        fn check(&self, _: &StorageConfig) -> anyhow::Result<()> {
            anyhow::ensure!(self.tea != "coffee", "that is not tea");
            Ok(())
        }
    }

    #[test]
    fn common_and_own_settings_are_read() {
        Program::<Tea>::command().debug_assert();
        let program = Program::<Tea>::parse_from(["confab-tea", "--tea=green", "--log=debug"]);
        assert_eq!((program.service.tea.as_str(), program.common.log.as_str()), ("green", "debug"));
        assert_eq!(program.common.listen.port(), 50099);
        assert!(program.serves() && program.check().is_ok());
        assert!(Program::<Tea>::parse_from(["confab-tea", "--tea=coffee"]).check().is_err());
        let help = Program::<Tea>::command().render_long_help().to_string();
        assert!(help.starts_with("Tea\n"), "{help}");
    }

    #[test]
    fn flags_are_accepted_before_and_after_the_subcommand() {
        for arguments in [["--data-dir=x", "--tea=green", "migrate"], ["migrate", "--data-dir=x", "--tea=green"]] {
            let program = Program::<Tea>::parse_from(["confab-tea"].iter().chain(&arguments));
            assert_eq!(program.command, Some(Command::Migrate));
            assert_eq!((program.service.tea.as_str(), program.storage.data_dir.to_str()), ("green", Some("x")));
            assert!(!program.serves());
        }
    }
}
