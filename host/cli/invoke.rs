//! `crank invoke`.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, Ended};
use crate::registry::{Registry, Snapshot};
use crate::router::{Call, Router};
use crate::sandbox::Payload;

/// Run one capability without a server; the answer goes to standard output.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank invoke target/workers greet:hello_world '{\"name\":\"Ada\"}'
  crank invoke target/workers convert:pdf_to_text @paper.pdf
  cat mail.eml | crank invoke target/workers convert:email_to_text - --media-type message/rfc822
  crank invoke target/workers convert:text_to_stream @notes.txt --parameter unit=paragraph")]
pub struct Invoke {
    /// Directory of components
    dir: PathBuf,
    /// What to run: verb:name, or a verb alone where it has one name
    capability: String,
    /// The input: JSON, - for standard input, or @FILE
    #[arg(default_value = "{}")]
    input: String,
    /// The input's media type [default: by the file's name, else application/json]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// A parameter that goes with a raw input, as NAME=VALUE; may repeat
    #[arg(long = "parameter", short, value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Invoke {
    pub fn run(self) -> Result<(), Ended> {
        let config = super::configure(Some(&self.dir), Some(&self.config), &[])?;
        super::log(config.log, None, "warn")?;
        let input = payload(&self.input, self.media_type.as_deref())?;
        let (verb, name) = match self.capability.split_once(':') {
            Some((verb, name)) => (verb.to_owned(), Some(name.to_owned())),
            None => (self.capability.clone(), None),
        };
        let answer = super::runtime()?.block_on(async {
            let (engine, config) = super::host(config)?;
            let snapshot = Snapshot::load_dir(&engine, &config, &self.dir)
                .await
                .map_err(|error| Ended::Usage(format!("{}: {error}", self.dir.display())))?;
            for refused in snapshot.refused() {
                tracing::warn!(file = %refused.file.display(), "refused: {}", refused.reasons.join("; "));
            }
            let call = Call {
                parameters: self.parameters.clone(),
                caller: config.identity.local.as_ref().map(ToString::to_string),
                ..Call::new("invoke".to_owned(), verb, name, input)
            };
            let registry = Registry::new(snapshot).ruled_by(engine.rules().clone());
            Router::new(registry).invoke(call).await.map_err(|failure| {
                let mut told = failure.to_string();
                for fault in &failure.faults {
                    told.push_str(&format!("\n  at `{}`: {}", fault.pointer, fault.detail));
                }
                if let Some(cause) = &failure.cause {
                    told.push_str(&format!("\n  because: {cause}"));
                }
                Ended::Short(told)
            })
        })?;
        let mut out = std::io::stdout().lock();
        out.write_all(&answer.payload.body)
            .and_then(|()| out.flush())
            .map_err(Ended::usage)
    }
}

/// An input as the command line names it: JSON, `-` for standard input, or `@FILE`.
pub(super) fn payload(input: &str, media_type: Option<&str>) -> Result<Payload, Ended> {
    let mut body = Vec::new();
    let mut guessed = None;
    match (input, input.strip_prefix('@')) {
        ("-", _) => {
            std::io::stdin()
                .read_to_end(&mut body)
                .map_err(Ended::usage)?;
        }
        (_, Some(file)) => {
            body = std::fs::read(file).map_err(|error| Ended::Usage(format!("{file}: {error}")))?;
            guessed = mime_guess::from_path(file).first_raw();
        }
        (json, None) => body = json.as_bytes().to_vec(),
    }
    let media_type = media_type.or(guessed).unwrap_or("application/json");
    Ok(Payload {
        media_type: media_type.to_owned(),
        body: body.into(),
    })
}

fn parameter(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "a parameter is NAME=VALUE".to_owned())
}
