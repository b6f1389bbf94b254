//! Rego, by the engine `regorus`: compiled once, asked within bounds. No other file knows the engine.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Rc};
use serde_json::{Value, json};

use super::source::{Files, is_test};
use super::{BUILT_IN, Denial};

/// May this caller invoke this capability?
pub const INVOKE: Package = Package("data.crank.invoke");
/// May this worker be loaded, with all that it declares and imports?
pub const LOAD: Package = Package("data.crank.load");

/// Time to try a policy on an empty document, where it is read.
const TRIAL: Duration = Duration::from_secs(2);
/// Steps of an evaluation between two looks at the clock.
const STEPS: NonZeroU32 = match NonZeroU32::new(64) {
    Some(steps) => steps,
    None => NonZeroU32::MIN,
};
/// Reasons of one refusal that are told.
const REASONS: usize = 16;
/// Bytes of one reason that are told.
const REASON: usize = 300;

/// A package that the host asks: its `deny` holds reasons; its `allow`, where there is one, must be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package(&'static str);

/// All policies and data, ready to be asked.
pub(super) struct Policy {
    /// Never asked itself: each question gets a clone.
    engine: Engine,
    sources: Files,
    /// Packages that have a `deny`, and those that have an `allow`.
    denies: Vec<Package>,
    allows: Vec<Package>,
}

/// What a policy says of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Why not, each beginning with its rule's name, perhaps with a colon and more. None: nothing is said
    /// against it.
    pub reasons: Vec<String>,
    /// There was no answer, and so it is denied.
    pub failed: bool,
}

impl Policy {
    /// Nothing to ask: for a host whose built-in policy denies nothing.
    pub fn open() -> Self {
        Self {
            engine: Engine::new(),
            sources: Files::default(),
            denies: Vec::new(),
            allows: Vec::new(),
        }
    }

    /// Compiles the built-in policy and the operator's files; a file of a built-in name stands for that.
    /// `tests`: those of `*_test.rego` too.
    ///
    /// # Errors
    ///
    /// File, line, what is wrong there, and what would mend it.
    pub fn compile(files: &Files, tests: bool) -> Result<Self, String> {
        let mut engine = Engine::new();
        // As in other engines: what a built-in function cannot do is undefined.
        engine.set_strict_builtin_errors(false);
        let (mut denies, mut allows) = (Vec::new(), Vec::new());
        for (path, text) in sources(files, tests) {
            let shown = path.display().to_string();
            let told = |error| located(&shown, &format!("{error:#}"));
            let name = engine.add_policy(shown.clone(), text).map_err(told)?;
            is_known(&shown, &name)?;
            // Also those that have a default and nothing else.
            let has = |rule| engine.has_declared_rule_rooted_at(&shown, rule);
            if let Some(package) = [INVOKE, LOAD].into_iter().find(|known| known.0 == name) {
                denies.extend(has("deny").map_err(told)?.then_some(package));
                allows.extend(has("allow").map_err(told)?.then_some(package));
            }
        }
        let data: serde_json::Map<String, Value> = files.data.clone().into_iter().collect();
        let data = regorus::Value::from(Value::Object(data));
        let failed = |error| located("data", &format!("{error:#}"));
        engine.add_data(data).map_err(failed)?;
        engine.set_input(json!({}).into());
        let lacks = |package| !denies.contains(package) && !allows.contains(package);
        if let Some(package) = [INVOKE, LOAD].iter().find(|package| lacks(*package)) {
            return Err(format!(
                "neither {package}.deny nor {package}.allow is there; `crank policy default` prints one to begin with"
            ));
        }
        let mut policy = Self {
            denies,
            allows,
            engine,
            sources: files.clone(),
        };
        // Once for all: a question's clone finds it prepared. Whether it holds, the trial says.
        policy.engine.set_execution_timer_config(timer(TRIAL));
        let rule = if policy.denies.contains(&INVOKE) {
            "deny"
        } else {
            "allow"
        };
        let _ = policy.engine.eval_rule(INVOKE.rule(rule));
        for package in [INVOKE, LOAD] {
            let trial = policy.ask(package, package.sample(), Instant::now() + TRIAL);
            trial.map_err(|error| located(&package.to_string(), &error))?;
        }
        Ok(policy)
    }

    /// Whether both were made of the same files.
    pub fn is_same(&self, other: &Self) -> bool {
        self.sources.policies == other.sources.policies && self.sources.data == other.sources.data
    }

    /// The paths of all rules: `data.crank.invoke.deny`.
    pub fn rules(&self) -> Result<Vec<String>, String> {
        let mut engine = self.engine.clone();
        // The engine lists them for a rule that is there, and any will do.
        for rule in [INVOKE, LOAD].iter().flat_map(|package| {
            let rules = ["deny", "allow"];
            rules.map(|rule| package.rule(rule))
        }) {
            let entry: Rc<str> = rule.into();
            match engine.compile_with_entrypoint(&entry) {
                Ok(compiled) => {
                    let rules = compiled.get_rules().keys();
                    return Ok(rules.map(ToString::to_string).collect());
                }
                Err(error) if error.to_string().contains("not a valid rule path") => {}
                Err(error) => return Err(located("policy", &format!("{error:#}"))),
            }
        }
        Ok(Vec::new())
    }

    /// Asks a package of a document. Blocks; what does not answer in time denies.
    pub fn judge(&self, package: Package, input: Value, until: Instant) -> Judgement {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Judgement::failed(package, "no time is left for it");
        }
        match self.ask(package, input, until) {
            Ok(reasons) => Judgement {
                reasons,
                failed: false,
            },
            Err(error) => Judgement::failed(package, &error),
        }
    }

    fn ask(&self, package: Package, input: Value, until: Instant) -> Result<Vec<String>, String> {
        let mut engine = self.engine.clone();
        engine.set_input(input.into());
        let mut value = |rule: &str| {
            let left = until.saturating_duration_since(Instant::now());
            engine.set_execution_timer_config(timer(left));
            let value = engine.eval_rule(package.rule(rule));
            value.map_err(|error| format!("{error:#}"))
        };
        // Where the built-in policy is replaced there may be an `allow` alone.
        let mut reasons = match self.denies.contains(&package) {
            true => reasons(&value("deny")?),
            false => Vec::new(),
        };
        if self.allows.contains(&package) && value("allow")? != regorus::Value::from(true) {
            reasons.push("allow: no rule allows it".to_owned());
        }
        Ok(reasons)
    }

    /// The values of all rules of a package, for whoever asks why.
    pub fn values(&self, package: Package, input: Value, until: Instant) -> Value {
        let mut engine = self.engine.clone();
        engine.set_input(input.into());
        engine.set_execution_timer_config(timer(until.saturating_duration_since(Instant::now())));
        let queried = engine.eval_query(package.to_string(), false);
        let value = queried.ok().and_then(|mut found| {
            let result = found.result.pop()?;
            Some(result.expressions.into_iter().next()?.value)
        });
        value.map_or(Value::Null, |value| plain(&value))
    }

    /// The value of one rule on its own, within so much time.
    pub fn value(&self, rule: &str, time: Duration) -> Result<Value, String> {
        let mut engine = self.engine.clone();
        engine.set_execution_timer_config(timer(time));
        let value = engine.eval_rule(rule.to_owned());
        value
            .map(|value| plain(&value))
            .map_err(|error| located(rule, &format!("{error:#}")))
    }
}

impl Package {
    fn rule(self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }

    /// A document of the form that the package is asked of, in which nothing is known.
    fn sample(self) -> Value {
        match self {
            INVOKE => json!({
                "caller": null, "origin": null, "nested": false, "depth": 0,
                "capability": { "verb": "", "name": "", "version": "0.0.0" },
                "worker": {
                    "id": "", "spiffe_id": null, "file": null, "place": "local",
                    "required_capabilities": [],
                },
            }),
            _ => json!({
                "worker": { "id": "", "file": "" },
                "capabilities": [], "required_capabilities": [], "imports": [],
            }),
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Judgement {
    /// No answer is a no.
    pub(super) fn failed(package: Package, why: &str) -> Self {
        let why = located(&package.to_string(), why);
        Self {
            reasons: vec![short(&format!("policy_error: {why}"))],
            failed: true,
        }
    }

    /// The refusal, if it is one.
    pub fn denial(&self) -> Option<Denial> {
        let name = |reason: &String| match reason.split_once(':') {
            Some((name, _)) => name.to_owned(),
            None => reason.clone(),
        };
        let mut rules: Vec<String> = self.reasons.iter().map(name).collect();
        rules.dedup();
        (!rules.is_empty()).then(|| Denial {
            rules: rules.join(", "),
            reasons: self.reasons.join("; "),
        })
    }
}

/// The built-in policies but for those that a file of the same name stands for, and the operator's.
fn sources(files: &Files, tests: bool) -> Vec<(PathBuf, String)> {
    let named = |name: &str| {
        let mut policies = files.policies.iter();
        policies.any(|(path, _)| path.file_name().is_some_and(|has| has == name))
    };
    let built_in = BUILT_IN.iter().filter(|(name, _)| !named(name));
    let built_in = built_in.map(|(name, text)| (PathBuf::from(name), (*text).to_owned()));
    let own = files.policies.iter();
    let own = own.filter(|(path, _)| tests || !is_test(path)).cloned();
    built_in.chain(own).collect()
}

/// A package under `data.crank` that the host never asks is a slip of the pen that would deny nothing.
fn is_known(path: &str, package: &str) -> Result<(), String> {
    let is_ours = |known: Package| package == known.0;
    let test = package.ends_with("_test") && is_test(Path::new(path));
    let crank = package == "data.crank" || package.starts_with("data.crank.");
    if !crank || test || is_ours(INVOKE) || is_ours(LOAD) {
        return Ok(());
    }
    let package = package.trim_start_matches("data.");
    Err(format!(
        "{path}:1: package {package} is asked by nobody; the host asks crank.invoke and crank.load, and libraries have other names"
    ))
}

fn timer(limit: Duration) -> ExecutionTimerConfig {
    ExecutionTimerConfig {
        limit,
        check_interval: STEPS,
    }
}

/// The engine's message on one line, with its place in front: `FILE:LINE:COLUMN: …`.
fn located(whence: &str, error: &str) -> String {
    let place = error.lines().find_map(|line| line.strip_prefix("--> "));
    let said = error.lines().rev().find_map(|line| {
        let line = line.trim();
        line.strip_prefix("error: ")
            .or_else(|| line.strip_prefix("error:"))
    });
    let said = said.unwrap_or_else(|| error.lines().last().unwrap_or_default());
    let place = place.unwrap_or(whence);
    format!("{place}: {}; correct it there", said.trim())
}

/// The members of `deny`: a set of reasons, or whatever else was written there.
fn reasons(denied: &regorus::Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => short(text),
        other => short(&other.to_string()),
    };
    let mut reasons: Vec<String> = match plain(denied) {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Bool(true) => vec!["deny".to_owned()],
        Value::Array(reasons) => reasons.iter().map(text).collect(),
        Value::Object(reasons) => reasons.keys().map(|key| short(key)).collect(),
        other => vec![text(&other)],
    };
    reasons.truncate(REASONS);
    reasons
}

fn short(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(REASON));
    text.unwrap_or_default().replace(char::is_control, " ")
}

/// As JSON: sets are arrays, what is undefined is null.
fn plain(value: &regorus::Value) -> Value {
    match value {
        regorus::Value::Undefined => Value::Null,
        value => {
            // What JSON cannot hold is a reason all the same, and no `true`.
            let text = value.to_json_str();
            let text = text.unwrap_or_else(|error| error.to_string());
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
    }
}
