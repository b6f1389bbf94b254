//! The choice against three others, in simulated time: how many callers are answered in time, and what
//! that costs. Prints the tables of docs/routing.md and draws docs/routing.svg.
//!
//!     cargo bench --bench simulate

mod routing;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;
use routing::{Host, Kind, Policy, RAMP, TWO, Tally, calls, ramp, twenty};

/// Parts of the capacity.
const LOADS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Simulated seconds of each run.
const SECONDS: f64 = 60.0;
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 90, 180),
    RGBColor(200, 80, 0),
    RGBColor(90, 140, 60),
    RGBColor(130, 130, 130),
];

/// What one policy made of each load.
type Curve = Vec<Tally>;

fn main() -> Result<(), Box<dyn Error>> {
    let curves: Vec<Curve> = Policy::ALL
        .into_iter()
        .map(|policy| LOADS.map(|load| twenty(policy, load, SECONDS)).to_vec())
        .collect();
    print(&curves);
    let shares = shares();
    for (second, share) in shares.iter().enumerate().step_by(5) {
        println!(
            "{second:>3} s  {:>4.0} calls/s  {:>5.1} % to {}",
            ramp(second as f64),
            share * 100.0,
            TWO[0].name
        );
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/routing.svg");
    draw(&file, &curves, &shares)
}

fn print(curves: &[Curve]) {
    println!("in time, tokens for each call in time");
    print!("| load |");
    for policy in Policy::ALL {
        print!(" {} |", policy.name());
    }
    println!("\n|---|---|---|---|---|");
    for (at, load) in LOADS.iter().enumerate() {
        print!("| {:.0} % |", load * 100.0);
        for curve in curves {
            let tally = &curve[at];
            print!(" {:.1} %, {:.2} |", tally.attained() * 100.0, tally.cost());
        }
        println!();
    }
}

/// The part of each second's calls that went to the cheap slow worker.
fn shares() -> Vec<f64> {
    let mut host = Host::new(&TWO);
    let mut seconds = vec![(0.0, 0.0); RAMP as usize];
    for call in calls(RAMP, ramp, &[(1000, 1)]) {
        let to = host.call(call, Policy::Ours);
        let (cheap, all) = &mut seconds[call.at.as_secs() as usize];
        *cheap += f64::from(u8::from(to == 0));
        *all += 1.0;
    }
    host.pass(Duration::from_secs_f64(RAMP + 1.0));
    seconds
        .into_iter()
        .map(|(cheap, all)| cheap / f64::max(all, 1.0))
        .collect()
}

fn draw(file: &Path, curves: &[Curve], shares: &[f64]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (960, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(380);
    let (left, right) = above.split_horizontally(480);
    by_load(&left, curves)?;
    by_cost(&right, curves)?;
    flip(&below, shares)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn by_load(area: &Area, curves: &[Curve]) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(
            "Twenty workers: callers answered in time",
            ("sans-serif", 16),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..105.0, 0.0..101.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("load, % of the capacity")
        .y_desc("in time, %")
        .draw()?;
    for ((curve, policy), colour) in curves.iter().zip(Policy::ALL).zip(COLOURS) {
        let points = LOADS
            .iter()
            .zip(curve)
            .map(|(load, tally)| (load * 100.0, tally.attained() * 100.0));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))?
            .label(policy.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    legend(&mut chart)
}

fn by_cost(area: &Area, curves: &[Curve]) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(
            "and what that costs, loads from 10 to 100 %",
            ("sans-serif", 16),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..8.0, 0.0..101.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("tokens for each call in time")
        .y_desc("in time, %")
        .draw()?;
    for ((curve, policy), colour) in curves.iter().zip(Policy::ALL).zip(COLOURS) {
        let points = curve
            .iter()
            .map(|tally| (tally.cost(), tally.attained() * 100.0));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(1)).point_size(4))?
            .label(policy.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    legend(&mut chart)
}

fn flip(area: &Area, shares: &[f64]) -> Result<(), Box<dyn Error>> {
    let [Kind { name: cheap, .. }, Kind { name: dear, .. }] = TWO;
    let caption = format!("{cheap} or {dear}, as load rises and falls");
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .right_y_label_area_size(50)
        .build_cartesian_2d(0.0..RAMP, 0.0..101.0)?
        .set_secondary_coord(0.0..RAMP, 0.0..320.0);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("simulated time, s")
        .y_desc("% of the calls")
        .draw()?;
    chart.configure_secondary_axes().y_desc("calls/s").draw()?;
    let seconds = || shares.iter().enumerate();
    let series = [
        (
            cheap,
            COLOURS[0],
            seconds()
                .map(|(at, share)| (at as f64 + 0.5, share * 100.0))
                .collect::<Vec<_>>(),
        ),
        (
            dear,
            COLOURS[1],
            seconds()
                .map(|(at, share)| (at as f64 + 0.5, 100.0 - share * 100.0))
                .collect(),
        ),
    ];
    for (name, colour, points) in series {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let grey = COLOURS[3];
    let rates = (0..=RAMP as usize).map(|at| (at as f64, ramp(at as f64)));
    chart
        .draw_secondary_series(LineSeries::new(rates, grey.stroke_width(1)))?
        .label("calls/s, right")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], grey.stroke_width(1)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

type Plain = plotters::coord::types::RangedCoordf64;

fn legend<'a, Backend: DrawingBackend + 'a>(
    chart: &mut ChartContext<'a, Backend, Cartesian2d<Plain, Plain>>,
) -> Result<(), Box<dyn Error>>
where
    Backend::ErrorType: 'static,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
