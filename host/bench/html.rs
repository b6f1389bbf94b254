//! The report as one page that needs nothing else: no script, no font, no other host.

use std::error::Error;
use std::fmt::{self, Write};

use super::plot;
use super::report::{Measured, Report, Verdict};
use super::table::{digits, verdict};

const STYLE: &str = include_str!("page.css");

/// The page.
///
/// # Errors
///
/// A plot cannot be drawn.
pub fn html(report: &Report) -> Result<String, Box<dyn Error>> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>crank bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>crank bench</h1>\n"
    );
    let machine = &report.machine;
    writeln!(
        page,
        "<p>{} on {} ({} cores, {}, {}); crank {}, at Unix time {}. \
         {} s of calls for each capability, in {} rounds.</p>",
        escape(&report.settings.directory.display().to_string()),
        escape(machine.cpu.as_deref().unwrap_or("an unnamed processor")),
        machine.cores,
        escape(&machine.os),
        escape(&machine.arch),
        escape(&report.crank),
        report.measured_at,
        report.settings.duration_ms / 1e3,
        report.settings.rounds,
    )?;
    summary(&mut page, report)?;
    left(&mut page, report)?;
    for measured in &report.capabilities {
        section(&mut page, measured)?;
    }
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

fn summary(page: &mut String, report: &Report) -> fmt::Result {
    page.push_str(
        "<div class=\"scroll\"><table>\n<caption>Calls as they come; times in ms, each from when its call was due</caption>\n<thead><tr>",
    );
    for head in [
        "capability",
        "calls/s",
        "calls",
        "answered",
        "p50",
        "p95",
        "p99",
        "p99.9",
        "CPU",
        "memory, KiB",
        "SLO",
    ] {
        let kind = if head == "SLO" { " class=\"text\"" } else { "" };
        write!(page, "<th scope=\"col\"{kind}>{head}</th>")?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for of in &report.capabilities {
        let latency = &of.latency_ms;
        write!(
            page,
            "<tr><th scope=\"row\">{}</th>",
            escape(&of.capability)
        )?;
        for cell in [
            digits(of.rate),
            of.calls.to_string(),
            of.answered.to_string(),
            digits(latency.p50),
            digits(latency.p95),
            digits(latency.p99),
            digits(latency.p99_9),
            digits(of.cpu_ms_per_call),
            (of.memory_peak_bytes >> 10).to_string(),
        ] {
            write!(page, "<td>{cell}</td>")?;
        }
        let kept = match of.slo.as_slice() {
            [] => "",
            promises => class(promises.iter().all(|verdict| verdict.met)),
        };
        writeln!(
            page,
            "<td class=\"text {}\">{}</td></tr>",
            kept,
            escape(&verdict(&of.slo))
        )?;
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

/// What was not measured, and why.
fn left(page: &mut String, report: &Report) -> fmt::Result {
    let failed = report.failed.iter().map(|left| ("failed", left));
    let skipped = report.skipped.iter().map(|left| ("skipped", left));
    let mut lines: Vec<String> = failed
        .chain(skipped)
        .map(|(word, left)| format!("{word}: {}: {}", left.capability, left.reason))
        .collect();
    lines.extend(report.refused.iter().map(|refused| {
        format!(
            "refused: {}: {}",
            refused.file.display(),
            refused.reasons.join("; ")
        )
    }));
    if lines.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Not measured</h2>\n<ul>\n");
    for line in lines {
        writeln!(page, "<li>{}</li>", escape(&line))?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

fn section(page: &mut String, of: &Measured) -> Result<(), Box<dyn Error>> {
    let temperatures = &of.temperatures;
    writeln!(
        page,
        "<section>\n<h2>{}</h2>\n<p>{}, version {}. Sent: {}.</p>",
        escape(&of.capability),
        escape(&of.worker_id),
        escape(&of.version),
        escape(&of.inputs.join(", ")),
    )?;
    promises(page, &of.slo)?;
    for (code, count) in &of.failures {
        writeln!(
            page,
            "<p class=\"missed\">{count} calls ended as {}.</p>",
            escape(code)
        )?;
    }
    writeln!(
        page,
        "<div class=\"plots\">\n<figure>{}<figcaption>Latency by percentile: {} calls, {} a second. \
         Of it {} ms (p50) is how late calls were made.</figcaption></figure>",
        plot::latency(of)?,
        of.calls,
        digits(of.rate),
        digits(of.late_ms.p50),
    )?;
    let start = |name: &str, start: &super::Start| {
        format!(
            "{name}: engine {}, load {}, call {}",
            digits(start.engine_ms),
            digits(start.load_ms),
            digits(start.call_ms)
        )
    };
    writeln!(
        page,
        "<figure>{}<figcaption>Medians. {}. {}.</figcaption></figure>\n</div>\n</section>",
        plot::temperatures(&of.capability, temperatures)?,
        start("uncompiled", &temperatures.uncompiled),
        start("cached", &temperatures.cached),
    )?;
    Ok(())
}

fn promises(page: &mut String, slo: &[Verdict]) -> fmt::Result {
    if slo.is_empty() {
        page.push_str("<p>No service level objective is declared.</p>\n");
        return Ok(());
    }
    page.push_str(
        "<div class=\"scroll\"><table>\n<caption>Promises</caption>\n<thead><tr><th scope=\"col\">target</th>\
         <th scope=\"col\">declared</th><th scope=\"col\">measured</th><th scope=\"col\">margin</th>\
         <th scope=\"col\" class=\"text\">verdict</th></tr></thead>\n<tbody>\n",
    );
    for verdict in slo {
        let word = class(verdict.met);
        writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{} %</td><td class=\"text {word}\">{word}</td></tr>",
            escape(&verdict.target),
            verdict.declared,
            digits(verdict.measured),
            digits(verdict.margin),
        )?;
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn class(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// Text that comes from workers and files, for HTML and for attributes in double quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
