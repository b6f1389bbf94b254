//! A policy's own tests: rules whose name begins with `test_`, as `opa test` has them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rego::Policy;
use super::source::Files;

/// Time for one test.
const TIME: Duration = Duration::from_secs(5);

/// All policies, data and tests of a directory.
pub struct Suite(Policy);

/// What became of one test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// `data.crank.invoke_test.test_anonymous`
    pub name: String,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Suite {
    /// Reads a directory of policies with its tests.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, by line.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let (files, _) = Files::read(dir)?;
        Policy::compile(&files, true).map(Self)
    }

    /// Runs every test, in the order of their names.
    ///
    /// # Errors
    ///
    /// The policies do not compile.
    pub fn run(&self) -> Result<Vec<Tested>, String> {
        let is_test = |name: &String| {
            let last = name.rsplit('.').next();
            last.is_some_and(|last| last.starts_with("test_"))
        };
        let mut names: Vec<String> = self.0.rules()?.into_iter().filter(is_test).collect();
        names.sort();
        let run = |name: String| {
            let began = Instant::now();
            let failed = match self.0.value(&name, TIME) {
                Ok(Value::Bool(true)) => None,
                Ok(Value::Null) => Some("it is undefined, not true".to_owned()),
                Ok(value) => Some(format!("it is {value}, not true")),
                Err(error) => Some(error),
            };
            let took = began.elapsed();
            Tested { name, failed, took }
        };
        Ok(names.into_iter().map(run).collect())
    }
}
