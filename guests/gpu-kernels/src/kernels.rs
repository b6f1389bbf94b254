//! The kernels, in WGSL. Images lie as channels of rows; a thread has a pixel, or a few of them, and
//! several output channels, so that what it reads is used more than once.
//!
//! Shapes come in a uniform, so that a network needs few pipelines; windows are written out, since a
//! turn of a loop costs fuel.

use std::fmt::Write;

/// Threads of a workgroup.
pub const LANES: usize = 64;
/// Output channels that a thread of `conv` and of a pointwise kernel has.
pub const TILE: usize = 8;
/// Values that a thread of `relu6` and `add` has.
pub const ELEMENTS: usize = 4;
/// Values that a turn of `dense` and of `softmax` takes.
pub const STEP: usize = 4;

/// What a workgroup of a pointwise kernel has of an image: as much as keeps its threads busy, in as few
/// as read the least, for each product that a thread makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tile {
    /// 64 threads, 8 pixels each.
    Large,
    /// 64 threads, 4 pixels each.
    Middle,
    /// 16 threads, 4 pixels each.
    Small,
}

impl Tile {
    /// For an image of so many pixels.
    pub fn of(pixels: usize) -> Self {
        match pixels {
            400.. => Self::Large,
            100.. => Self::Middle,
            _ => Self::Small,
        }
    }

    /// Threads, and pixels of each.
    pub fn size(self) -> (usize, usize) {
        match self {
            Self::Large => (LANES, 8),
            Self::Middle => (LANES, 4),
            Self::Small => (16, 4),
        }
    }
}

/// A kernel; each is one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Height and width of the window.
    Conv(usize, usize),
    /// Height and width of the window.
    Depthwise(usize, usize),
    Pointwise {
        tile: Tile,
        /// Whether a turn takes four channels of the input, which must be a multiple of that.
        fours: bool,
    },
    Relu6,
    Add,
    Pool,
    Dense,
    Softmax,
}

/// Slots: 0 the parameters, 1 what is read, 2 the weights, 3 what is written, 4 what is added.
const HEAD: &str = "\
struct Params {
    channels: u32, height: u32, width: u32,
    out_channels: u32, out_height: u32, out_width: u32,
    stride: u32, padding: u32, weight: u32, bias: u32, low: f32, high: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
";
const WEIGHTS: &str = "@group(0) @binding(2) var<storage, read> w: array<f32>;\n";
const OTHER: &str = "@group(0) @binding(4) var<storage, read> z: array<f32>;\n";
const MAIN: &str = "\
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
";

const RELU6: &str = "\
    let n = p.channels * p.height * p.width;
    for_each { y[i] = clamp(x[i], p.low, p.high); }";
const ADD: &str = "\
    let n = p.channels * p.height * p.width;
    for_each { y[i] = x[i] + z[i]; }";
const POOL: &str = "\
    let c = group.x * 64u + me;
    if (c >= p.channels) { return; }
    let n = p.height * p.width;
    let first = c * n;
    var sum = 0.0;
    for (var i = 0u; i < n; i++) { sum += x[first + i]; }
    y[c] = sum / f32(n);";
const DENSE: &str = "\
    let o = group.x * 64u + me;
    if (o >= p.out_channels) { return; }
    let n = p.channels;
    let row = p.weight + o * n;
    var sum = w[p.bias + o];
    let whole = n - n % 4u;
    for (var k = 0u; k < whole; k += 4u) {
        let at = row + k;
        sum += w[at] * x[k] + w[at + 1u] * x[k + 1u] + w[at + 2u] * x[k + 2u] + w[at + 3u] * x[k + 3u];
    }
    for (var k = whole; k < n; k++) { sum += w[row + k] * x[k]; }
    y[o] = sum;";
const SOFTMAX: &str = "\
    let n = p.channels * p.height * p.width;
    let last = n - 1u;
    var most = x[0];
    for (var i = 0u; i < n; i += 4u) {
        let more = max(x[min(i + 2u, last)], x[min(i + 3u, last)]);
        most = max(most, max(max(x[i], x[min(i + 1u, last)]), more));
    }
    var sum = 0.0;
    for (var i = 0u; i < n; i += 4u) {
        let at = vec4<u32>(i, i + 1u, i + 2u, i + 3u);
        let there = min(at, vec4<u32>(last));
        let part = exp(vec4<f32>(x[there.x], x[there.y], x[there.z], x[there.w]) - most);
        sum += dot(part, select(vec4<f32>(), vec4<f32>(1.0), at < vec4<u32>(n)));
    }
    for (var i = me; i < n; i += 64u) { y[i] = exp(x[i] - most) / sum; }";

impl Kernel {
    /// Whether it reads weights.
    pub fn has_weights(self) -> bool {
        matches!(
            self,
            Self::Conv(..) | Self::Depthwise(..) | Self::Pointwise { .. } | Self::Dense
        )
    }

    /// Its shader; the entry point is `main`.
    pub fn wgsl(self) -> String {
        let body = match self {
            Self::Conv(height, width) => conv(height, width),
            Self::Depthwise(height, width) => depthwise(height, width),
            Self::Pointwise { tile, fours } => pointwise(tile, fours),
            Self::Relu6 => each(RELU6),
            Self::Add => each(ADD),
            Self::Pool => POOL.to_owned(),
            Self::Dense => DENSE.to_owned(),
            Self::Softmax => SOFTMAX.to_owned(),
        };
        let weights = if self.has_weights() { WEIGHTS } else { "" };
        let other = if self == Self::Add { OTHER } else { "" };
        let lanes = match self {
            Self::Pointwise { tile, .. } => tile.size().0,
            _ => LANES,
        };
        format!("{HEAD}{weights}{other}@compute @workgroup_size({lanes})\n{MAIN}{body}\n}}\n")
    }
}

/// Writes a body out for each value that a thread has.
fn each(text: &str) -> String {
    let (head, body) = text.split_once("for_each").unwrap_or((text, ""));
    let mut out = head.to_owned();
    for at in 0..ELEMENTS {
        let first = at * LANES;
        let _ = writeln!(
            out,
            "    {{ let i = group.x * {}u + {first}u + me; if (i < n) {body} }}",
            LANES * ELEMENTS
        );
    }
    out
}

/// Where a window of a pixel lies in a channel: offsets, and whether they are inside of the image.
fn window(height: usize, width: usize) -> String {
    let mut out = "\
    let pixels = p.out_height * p.out_width;
    let pixel = group.x * 64u + me;
    let inside_0 = pixel < pixels;
    let pixel_0 = pixel;
    let at = min(pixel, pixels - 1u);
    let top = i32((at / p.out_width) * p.stride) - i32(p.padding);
    let left = i32((at % p.out_width) * p.stride) - i32(p.padding);
    let h = i32(p.height);
    let v = i32(p.width);
    let plane = p.height * p.width;
"
    .to_owned();
    for row in 0..height {
        let _ = writeln!(
            out,
            "    let y{row} = top + {row}; let has_y{row} = y{row} >= 0 && y{row} < h;"
        );
    }
    for column in 0..width {
        let _ = writeln!(
            out,
            "    let x{column} = left + {column}; let has_x{column} = x{column} >= 0 && x{column} < v;"
        );
    }
    for (row, column) in taps(height, width) {
        let _ = writeln!(
            out,
            "    let has_{row}_{column} = has_y{row} && has_x{column};
    let at_{row}_{column} = u32(select(0, y{row} * v + x{column}, has_{row}_{column}));"
        );
    }
    out
}

fn taps(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |row| (0..width).map(move |column| (row, column)))
}

/// A pixel of one channel.
fn depthwise(height: usize, width: usize) -> String {
    let mut out = window(height, width);
    let _ = writeln!(
        out,
        "    let c = group.y;
    let first = c * plane;
    let row = p.weight + c * {}u;
    var sum = w[p.bias + c];",
        height * width
    );
    for (tap, (row, column)) in taps(height, width).enumerate() {
        let _ = writeln!(
            out,
            "    sum += w[row + {tap}u] * select(0.0, x[first + at_{row}_{column}], has_{row}_{column});"
        );
    }
    out + "    if (inside_0) { y[c * pixels + pixel] = clamp(sum, p.low, p.high); }"
}

/// A pixel of several output channels, all of the input's one after the other.
fn conv(height: usize, width: usize) -> String {
    let taps_of = height * width;
    let mut out = window(height, width);
    out += &rows(&format!("p.channels * {taps_of}u"));
    out += &sums(1);
    let _ = writeln!(
        out,
        "    for (var c = 0u; c < p.channels; c++) {{
        let first = c * plane;
        let k = c * {taps_of}u;"
    );
    for (tap, (row, column)) in taps(height, width).enumerate() {
        let _ = writeln!(
            out,
            "        let v{tap} = select(0.0, x[first + at_{row}_{column}], has_{row}_{column});"
        );
    }
    for quad in 0..TILE / 4 {
        let _ = writeln!(out, "        var s{quad} = vec4<f32>();");
        for tap in 0..taps_of {
            let _ = writeln!(out, "        s{quad} += {} * v{tap};", weights(quad, tap));
        }
        let _ = writeln!(out, "        sum_0_{quad} += s{quad};");
    }
    out += "    }\n";
    out + &stores(1)
}

/// Several pixels of several output channels: a product of matrices.
fn pointwise(tile: Tile, fours: bool) -> String {
    let (lanes, each) = tile.size();
    let by = if fours { 4 } else { 1 };
    let mut out = "    let pixels = p.out_height * p.out_width;\n".to_owned();
    for at in 0..each {
        let first = lanes * at;
        let _ = writeln!(
            out,
            "    let pixel_{at} = group.x * {}u + {first}u + me; let inside_{at} = pixel_{at} < pixels;
    let at_{at} = min(pixel_{at}, pixels - 1u);",
            lanes * each,
        );
    }
    out += &rows("p.channels");
    out += &sums(each);
    let _ = writeln!(out, "    for (var k = 0u; k < p.channels; k += {by}u) {{");
    for step in 0..by {
        let _ = writeln!(out, "        let k{step} = (k + {step}u) * pixels;");
        for at in 0..each {
            let _ = writeln!(out, "        let v_{at}_{step} = x[k{step} + at_{at}];");
        }
    }
    for quad in 0..TILE / 4 {
        for step in 0..by {
            let _ = writeln!(
                out,
                "        let w_{quad}_{step} = {};",
                weights(quad, step)
            );
        }
        for at in 0..each {
            let product = |step| format!("w_{quad}_{step} * v_{at}_{step}");
            let products: Vec<_> = (0..by).map(product).collect();
            let _ = writeln!(out, "        sum_{at}_{quad} += {};", products.join(" + "));
        }
    }
    out += "    }\n";
    out + &stores(each)
}

/// Where the weights of each output of a thread begin: those that there are not are the last one's.
fn rows(length: &str) -> String {
    let mut out = format!(
        "    let o = group.y * {TILE}u;
    let last = p.out_channels - 1u;
    let length = {length};\n"
    );
    for output in 0..TILE {
        let _ = writeln!(
            out,
            "    let o{output} = min(o + {output}u, last); let r{output} = p.weight + o{output} * length;"
        );
    }
    out
}

/// Weight `k + step` of four outputs.
fn weights(quad: usize, step: usize) -> String {
    let one = |at: usize| format!("w[r{} + k + {step}u]", quad * 4 + at);
    format!("vec4<f32>({}, {}, {}, {})", one(0), one(1), one(2), one(3))
}

/// Sums of each pixel, four outputs each; they start with the bias.
fn sums(pixels: usize) -> String {
    let mut out = String::new();
    for quad in 0..TILE / 4 {
        let one = |at: usize| format!("w[p.bias + o{}]", quad * 4 + at);
        let _ = writeln!(
            out,
            "    let b{quad} = vec4<f32>({}, {}, {}, {});",
            one(0),
            one(1),
            one(2),
            one(3)
        );
        for pixel in 0..pixels {
            let _ = writeln!(out, "    var sum_{pixel}_{quad} = b{quad};");
        }
    }
    out
}

/// Writes the sums of each pixel that there is. An output that there is not is written as the last one, with
/// the last one's value.
fn stores(pixels: usize) -> String {
    let mut out = String::new();
    for output in 0..TILE {
        let _ = writeln!(out, "    let to{output} = o{output} * pixels;");
    }
    for pixel in 0..pixels {
        let _ = writeln!(out, "    if (inside_{pixel}) {{");
        for output in 0..TILE {
            let (quad, part) = (output / 4, output % 4);
            if part == 0 {
                let _ = writeln!(
                    out,
                    "        let s{quad} = clamp(sum_{pixel}_{quad}, vec4<f32>(p.low), vec4<f32>(p.high));"
                );
            }
            let _ = writeln!(
                out,
                "        y[to{output} + pixel_{pixel}] = s{quad}[{part}];"
            );
        }
        out += "    }\n";
    }
    out
}
