//! `crank bench`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Ended, invoke};
use crate::bench::{self, Comparison, Input, Plan, Report};
use crate::capability::Name;
use crate::toolchain::Terminal;

/// Standard output, where a file is named.
const STDOUT: &str = "-";

/// Measure what each capability costs, and hold it against its service level objective.
///
/// Calls each capability with its examples: on a host that never saw it, on one that is started again, one call after
/// the other, and at random at a rate. Nothing of the operator's is touched: compiled code and state go to a
/// directory that is gone afterwards. Exits with 1 if a promise is missed, an example is not answered, or
/// a figure is worse than in the run that --compare names.
#[derive(Args)]
#[command(after_help = "\
Examples:
  crank bench target/workers
  crank bench target/workers --capability greet:hello_world --duration 10s --rate 500
  crank bench target/workers --input convert:pdf_to_text=@paper.pdf --html bench.html
  crank bench target/workers --json bench.json
  crank bench target/workers --compare bench.json --tolerance 30")]
pub struct Bench {
    /// Directory of components
    dir: PathBuf,
    /// What to measure: verb:name; may repeat [default: all]
    #[arg(long = "capability", value_name = "VERB:NAME", value_parser = capability)]
    capabilities: Vec<String>,
    /// What to send in place of the examples: JSON, - for standard input, or @FILE, after VERB:NAME= unless
    /// one --capability is chosen; may repeat
    #[arg(long = "input", value_name = "[VERB:NAME=]INPUT")]
    inputs: Vec<String>,
    /// Calls per second of each capability [default: half of what is sustained, 1000 at most]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// How long each capability is called: 5s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Write the figures as JSON; - for standard output, in place of the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Hold the figures against those that an earlier run wrote with --json
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// How much worse a figure may be than in that run, in percent
    #[arg(long, value_name = "PCT", default_value_t = 25.0, value_parser = percent)]
    tolerance: f64,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Bench {
    pub fn run(self) -> Result<(), Ended> {
        if !self.dir.is_dir() {
            return Err(Ended::Usage(format!(
                "{} is not a directory",
                self.dir.display()
            )));
        }
        // Before anything is measured: a mistake should not cost minutes.
        let old = self.compare.as_deref().map(read).transpose()?;
        let inputs = self.inputs()?;
        let scratch = tempfile::Builder::new()
            .prefix("crank-bench-")
            .tempdir()
            .map_err(Ended::usage)?;
        let place = |name: &str| scratch.path().join(name).display().to_string();
        let flags = ["cache_dir", "state_dir", "tmp_dir"].map(|key| (key, place(key)));
        let config = super::configure(Some(&self.dir), Some(&self.config), &flags)?;
        super::log(config.log, None, "error")?;
        super::raise_handles();
        let plan = Plan {
            dir: self.dir.clone(),
            capabilities: self.capabilities.clone(),
            inputs,
            rate: self.rate,
            rates: old.as_ref().map(rates).unwrap_or_default(),
            duration: self.duration,
        };
        let terminal = Terminal::default();
        let runtime = super::runtime()?;
        let report = runtime
            .block_on(bench::bench(plan, Arc::new(config), &|event| {
                terminal.show(event);
            }))
            .map_err(Ended::Usage)?;
        self.write(&report)?;
        let comparison = old.map(|old| bench::compare(&old, &report, self.tolerance));
        self.judge(&report, comparison.as_ref())
    }

    /// What is sent to whom.
    fn inputs(&self) -> Result<BTreeMap<String, Input>, Ended> {
        let mut inputs = BTreeMap::new();
        for text in &self.inputs {
            let named = text
                .split_once('=')
                .filter(|(name, _)| capability(name).is_ok());
            let (name, input) = match (named, self.capabilities.as_slice()) {
                (Some((name, input)), _) => (name.to_owned(), input),
                (None, [only]) => (only.clone(), text.as_str()),
                (None, _) => {
                    return Err(Ended::Usage(format!(
                        "--input {text:?} does not say whose input it is: put VERB:NAME= before it, or choose one --capability"
                    )));
                }
            };
            let payload = invoke::payload(input, None)?;
            if payload.media_type == "application/json"
                && let Err(error) = serde_json::from_slice::<serde_json::Value>(&payload.body)
            {
                return Err(Ended::Usage(format!(
                    "--input {input:?} is not JSON ({error}); @FILE reads a file"
                )));
            }
            let input = Input {
                title: format!("--input {input}"),
                payload,
                parameters: Vec::new(),
            };
            inputs.insert(name, input);
        }
        Ok(inputs)
    }

    fn write(&self, report: &Report) -> Result<(), Ended> {
        let json = serde_json::to_string_pretty(report).map_err(Ended::usage)?;
        let written = |file: &Path, text: &str| {
            fs::write(file, text).map_err(|error| {
                Ended::Usage(format!("{} is not written: {error}", file.display()))
            })
        };
        match self.json.as_deref() {
            Some(file) if file == Path::new(STDOUT) => println!("{json}"),
            Some(file) => {
                written(file, &format!("{json}\n"))?;
                print!("{}", bench::table(report));
            }
            None => print!("{}", bench::table(report)),
        }
        if let Some(file) = &self.html {
            let page = bench::html(report)
                .map_err(|error| Ended::Usage(format!("no page is drawn: {error}")))?;
            written(file, &page)?;
        }
        Ok(())
    }

    /// Says what falls short; standard output may be JSON, so not there.
    fn judge(&self, report: &Report, comparison: Option<&Comparison>) -> Result<(), Ended> {
        let mut short = report.shortfalls();
        if let (Some(comparison), Some(file)) = (comparison, &self.compare) {
            for note in &comparison.notes {
                eprintln!("note: {note}");
            }
            let worse = comparison.shortfalls();
            eprintln!(
                "{} capabilities compared with {}: {} regressions beyond {} %",
                comparison.compared,
                file.display(),
                comparison.regressions.len(),
                self.tolerance
            );
            short.extend(worse);
        }
        if short.is_empty() {
            return Ok(());
        }
        Err(Ended::Short(short.join("\ncrank: ")))
    }
}

/// An earlier run.
fn read(file: &Path) -> Result<Report, Ended> {
    let wrong = |why: String| Ended::Usage(format!("{}: {why}", file.display()));
    let text = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("not what `crank bench --json` writes: {error}")))?;
    match report.version {
        bench::VERSION => Ok(report),
        other => Err(wrong(format!(
            "it is of version {other}, and this program reads {}; measure anew",
            bench::VERSION
        ))),
    }
}

/// The rates of an earlier run: latencies are compared at equal ones.
fn rates(old: &Report) -> BTreeMap<String, f64> {
    let rates = old.capabilities.iter();
    rates
        .map(|measured| (measured.capability.clone(), measured.rate))
        .collect()
}

fn capability(text: &str) -> Result<String, String> {
    let parts = text.split_once(':');
    let names = parts.filter(|(verb, name)| Name::parse(verb).is_ok() && Name::parse(name).is_ok());
    match names {
        Some(_) => Ok(text.to_owned()),
        None => Err("a capability is verb:name".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| (0.01..=1e6).contains(rate))
        .ok_or_else(|| "a rate is a number of calls per second, from 0.01 to 1000000".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok();
    percent
        .filter(|percent| (0.0..=1e6).contains(percent))
        .ok_or_else(|| "a tolerance is a number of percent, from 0".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    let seconds = number.parse::<f64>().ok().zip(unit);
    seconds
        .map(|(number, unit)| number * unit)
        .filter(|seconds| (0.05..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a time is a number with its unit, from 50ms to 60m: 5s".to_owned())
}
