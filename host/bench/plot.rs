//! Plots as inline SVG, in the colours of the page that they stand on.

use std::error::Error;
use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Measured, Temperatures};
use super::table::digits;

const WIDTH: u32 = 640;
/// Readable on white and on black.
const CURVE: RGBColor = RGBColor(0x2F, 0x7F, 0xD1);
const PROMISE: RGBColor = RGBColor(0xD9, 0x6C, 0x0A);
/// What stands for the page's own colour of text.
const TEXT: RGBColor = BLACK;

type Drawn = Result<String, Box<dyn Error>>;

/// Latency by percentile, each nine as wide as the one before, with the promises as marks.
pub(super) fn latency(of: &Measured) -> Drawn {
    let points: Vec<(f64, f64)> = of
        .curve
        .iter()
        .map(|&(percentile, ms)| (nines(percentile), ms))
        .collect();
    let promises: Vec<(f64, f64)> = of
        .slo
        .iter()
        .filter_map(|verdict| {
            let percentile = verdict.target.strip_prefix("latency_p")?;
            let percentile: f64 = percentile.strip_suffix("_ms")?.parse().ok()?;
            Some((nines(percentile), verdict.declared))
        })
        .collect();
    let most = |at: fn(&(f64, f64)) -> f64| {
        let all = points.iter().chain(&promises);
        all.map(at).fold(f64::MIN_POSITIVE, f64::max)
    };
    let values = span(points.iter().chain(&promises).map(|point| point.1));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 300)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(46)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..most(|point| point.0).max(2.2), values.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(TEXT.mix(0.2))
            .axis_style(TEXT)
            .label_style(("sans-serif", 15, &TEXT))
            .x_labels(8)
            .x_label_formatter(&|nines| percent(*nines))
            .y_label_formatter(&|ms| digits(*ms))
            .x_desc("part of the calls that took no longer, %")
            .y_desc("latency, ms")
            .draw()?;
        chart.draw_series(LineSeries::new(points, CURVE.stroke_width(2)))?;
        chart.draw_series(
            promises
                .iter()
                .map(|&at| Cross::new(at, 6, PROMISE.stroke_width(3))),
        )?;
        let label = ("sans-serif", 15, &PROMISE).into_text_style(&area);
        let label = label.pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series(promises.iter().map(|&(x, ms)| {
            let text = format!("{} ms", digits(ms));
            EmptyElement::at((x, ms)) + Text::new(text, (0, -9), label.clone())
        }))?;
        area.present()?;
    }
    let promised = match promises.is_empty() {
        true => "",
        false => "; crosses mark what is promised",
    };
    Ok(inline(
        &svg,
        &format!("Latency of {} by percentile{promised}", of.capability),
    ))
}

/// A bar for each temperature.
pub(super) fn temperatures(capability: &str, of: &Temperatures) -> Drawn {
    let mut bars = vec![
        ("uncompiled", of.uncompiled.total.ms),
        ("cached", of.cached.total.ms),
        ("fresh", of.fresh.ms),
    ];
    bars.extend(of.gpu_first.map(|first| ("gpu-first", first.ms)));
    let values = span(bars.iter().map(|bar| bar.1));
    let least = values.start;
    let count = bars.len() as f64;
    let mut svg = String::new();
    {
        let height = 60 + 30 * bars.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(170)
            .x_label_area_size(46)
            .build_cartesian_2d(values.log_scale(), 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(TEXT.mix(0.2))
            .axis_style(TEXT)
            .label_style(("sans-serif", 15, &TEXT))
            .x_label_formatter(&|ms| digits(*ms))
            .x_desc("to the first answer, ms")
            .draw()?;
        let at = |row: usize| count - row as f64;
        let bar = |(row, &(_, ms)): (usize, &(_, f64))| {
            Rectangle::new(
                [(least, at(row) - 0.15), (ms, at(row) - 0.85)],
                CURVE.filled(),
            )
        };
        chart.draw_series(bars.iter().enumerate().map(bar))?;
        let label = ("sans-serif", 15, &TEXT).into_text_style(&area);
        let label = label.pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series(bars.iter().enumerate().map(|(row, &(name, ms))| {
            let text = format!("{name}: {} ms", digits(ms));
            EmptyElement::at((ms, at(row) - 0.5)) + Text::new(text, (6, 0), label.clone())
        }))?;
        area.present()?;
    }
    Ok(inline(
        &svg,
        &format!("Time to the first answer of {capability}, cold and warm"),
    ))
}

/// 90 % is one nine, 99 % two.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile.min(99.9999) / 100.0).log10()
}

fn percent(nines: f64) -> String {
    let percent = 100.0 - 100.0 / 10f64.powf(nines);
    let places = if percent < 99.5 { 0 } else { 2 };
    let text = format!("{percent:.places$}");
    match places {
        0 => text,
        _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// A logarithmic axis that has room for all values.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, 1e-3), |(least, most), value| {
            (value.min(least), value.max(most))
        });
    least.min(most) / 2.0..most * 3.0
}

/// As part of a page: of any width, in the page's colour, with words for those who do not see it.
fn inline(svg: &str, label: &str) -> String {
    let size = svg.find(" viewBox").unwrap_or(0);
    let rest = svg.get(size..).unwrap_or(svg);
    format!("<svg role=\"img\" aria-label=\"{label}\"{rest}")
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace("#000000", "currentColor")
}
