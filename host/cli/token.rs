//! `crank token`.

use clap::{Args, Subcommand};

use super::Ended;
use crate::auth;
use crate::identity::SpiffeId;

/// Make local tokens: secrets that prove who calls, where there is no SPIFFE issuer.
#[derive(Args)]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a new token, which is shown this once, and the line for the file that identity.tokens names.
    ///
    /// The token goes to standard output, the line to standard error. Taking the line out again revokes the token.
    #[command(after_help = "\
Examples:
  crank token new spiffe://crank.local/user/ada
  (umask 077; crank token new spiffe://crank.local/user/ada > ada.token 2>> tokens.txt)")]
    New {
        /// Whose token it is: spiffe://TRUST-DOMAIN/PATH
        #[arg(value_parser = SpiffeId::parse)]
        id: SpiffeId,
    },
}

impl Token {
    pub fn run(self) -> Result<(), Ended> {
        let Command::New { id } = self.command;
        let token = auth::fresh().map_err(Ended::Usage)?;
        println!("{token}");
        eprintln!("{}", auth::line(&token, &id));
        Ok(())
    }
}
