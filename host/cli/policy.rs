//! `crank policy`: tests of a policy, its reasons, and the built-in one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ConfigArgs, Ended};
use crate::identity::SpiffeId;
use crate::registry::Snapshot;
use crate::router::{self, Who};
use crate::rules::{BUILT_IN, INVOKE, Rules, Suite};

/// Test a policy, ask it why, or print the built-in one.
///
/// A policy is a directory of Rego: *.rego with the packages crank.invoke (who may invoke what) and
/// crank.load (which worker may be loaded), data/*.json, and tests in *_test.rego.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank policy default                                  the policy that holds where you have none
  crank policy test policies                            run its tests: rules named test_*
  crank policy explain spiffe://crank.local/agent/ada greet:hello_world
  crank policy explain - greet:hello_world --dir target/workers --json")]
pub struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Test(Test),
    Explain(Explain),
    /// Print the built-in policy
    Default,
}

/// Run a policy's own tests; exits with 1 if one fails or there are none
#[derive(Args)]
struct Test {
    /// Directory of policies
    #[arg(default_value = "policies")]
    dir: PathBuf,
}

/// Say whether a caller may invoke a capability, and why; exits with 1 if not
#[derive(Args)]
struct Explain {
    /// SPIFFE id of who calls; - for a caller without one
    caller: String,
    /// What would be invoked: verb:name
    capability: String,
    /// SPIFFE id of who called first, where a worker makes the call on somebody's behalf
    #[arg(long, value_name = "ID")]
    origin: Option<String>,
    /// A worker makes the call
    #[arg(long)]
    nested: bool,
    /// Directory of components: then the policy sees who offers the capability
    #[arg(long, value_name = "WORKERS")]
    dir: Option<PathBuf>,
    /// Print JSON: the document that the policy is asked of, and the values of all its rules
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Policy {
    pub fn run(self) -> Result<(), Ended> {
        match self.command {
            Command::Test(test) => test.run(),
            Command::Explain(explain) => explain.run(),
            Command::Default => {
                for (name, text) in BUILT_IN {
                    println!("# {name}\n{text}");
                }
                Ok(())
            }
        }
    }
}

impl Test {
    fn run(self) -> Result<(), Ended> {
        let suite = Suite::open(&self.dir).map_err(Ended::Usage)?;
        let tested = suite.run().map_err(Ended::Usage)?;
        for test in &tested {
            let ms = test.took.as_secs_f64() * 1e3;
            match &test.failed {
                None => println!("PASS {} ({ms:.2} ms)", test.name),
                Some(why) => println!("FAIL {} ({ms:.2} ms): {why}", test.name),
            }
        }
        let failed = tested.iter().filter(|test| test.failed.is_some()).count();
        println!("{} passed, {failed} failed", tested.len() - failed);
        match (tested.len(), failed) {
            (0, _) => Err(Ended::Short(format!(
                "{} has no tests: rules whose name begins with test_, in files *_test.rego",
                self.dir.display()
            ))),
            (_, 0) => Ok(()),
            _ => Err(Ended::Short(String::new())),
        }
    }
}

impl Explain {
    fn run(self) -> Result<(), Ended> {
        let caller = id(&self.caller)?;
        let origin = self.origin.as_deref().map(id).transpose()?.flatten();
        let nested = self.nested || origin.is_some();
        let who = Who {
            caller,
            origin: if nested { origin } else { caller },
            depth: usize::from(nested),
        };
        let dir = self.dir.as_deref();
        // Where nobody names a place: beside where this runs.
        let beside = Some(dir.unwrap_or(Path::new(".")));
        let config = super::configure(beside, Some(&self.config), &[])?;
        super::log(config.log, None, "warn")?;
        let (verb, name) = self
            .capability
            .split_once(':')
            .ok_or_else(|| Ended::Usage(format!("{} is not written verb:name", self.capability)))?;
        let rules = Rules::open(config.policies.as_deref()).map_err(Ended::Usage)?;
        let inputs = match dir {
            None => vec![anonymous(&who, verb, name)],
            Some(dir) => {
                let snapshot = super::runtime()?.block_on(async {
                    let (engine, config) = super::host(config)?;
                    let loaded = Snapshot::load_dir(&engine, &config, dir).await;
                    loaded.map_err(|error| Ended::Usage(format!("{}: {error}", dir.display())))
                })?;
                let offers = snapshot.names(verb).and_then(|names| names.get(name));
                let offers = offers.map(Vec::as_slice).unwrap_or_default();
                offers.iter().map(|at| router::judged(&who, at)).collect()
            }
        };
        if inputs.is_empty() {
            let offered = &self.capability;
            return Err(Ended::Usage(format!("nobody there offers {offered}")));
        }
        let revision = rules.current();
        let mut told = Vec::new();
        for input in inputs {
            let (judged, values) = revision.explain(INVOKE, input.clone());
            told.push(json!({
                "allowed": judged.reasons.is_empty(),
                "reasons": judged.reasons,
                "input": input,
                "rules": values,
            }));
        }
        self.print(&told)
    }

    fn print(&self, told: &[Value]) -> Result<(), Ended> {
        if self.json {
            let json = serde_json::to_string_pretty(told).map_err(Ended::usage)?;
            println!("{json}");
        } else {
            for told in told {
                self.print_one(told);
            }
        }
        match told.iter().any(|told| told["allowed"] == true) {
            true => Ok(()),
            false => Err(Ended::Short(String::new())),
        }
    }

    fn print_one(&self, told: &Value) {
        let at = match told["input"]["worker"]["id"].as_str() {
            Some(id) => format!(" of {id}"),
            None => String::new(),
        };
        let may = match told["allowed"] == true {
            true => "may",
            false => "may not",
        };
        println!("{} {may} invoke {}{at}", self.caller, self.capability);
        for reason in told["reasons"].as_array().into_iter().flatten() {
            let reason = reason.as_str().unwrap_or_default();
            println!("     {INVOKE}.deny   {reason}");
        }
        println!("     it is asked of   {}", told["input"]);
        for (rule, value) in told["rules"].as_object().into_iter().flatten() {
            println!("     {INVOKE}.{rule} = {value}");
        }
    }
}

/// What is asked where it is not known who offers it.
fn anonymous(who: &Who<'_>, verb: &str, name: &str) -> Value {
    json!({
        "caller": who.caller, "origin": who.origin,
        "nested": who.depth > 0, "depth": who.depth,
        "capability": { "verb": verb, "name": name, "version": null },
        "worker": null,
    })
}

/// A caller's id, or none.
fn id(text: &str) -> Result<Option<&str>, Ended> {
    if text == "-" {
        return Ok(None);
    }
    SpiffeId::parse(text)
        .map(|_| Some(text))
        .map_err(|error| Ended::Usage(format!("{text}: {error}; a caller without an id is -")))
}
