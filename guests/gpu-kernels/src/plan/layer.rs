//! One layer: its kernel, what that is given, the shape of what it makes, and how large its dispatch is.

use super::{Params, Shape};
use crate::Broken;
use crate::format::{Layer, Tensors, Window};
use crate::kernels::{ELEMENTS, Kernel, LANES, STEP, TILE, Tile};

/// The most values of one output: what one dispatch covers is 65,535 workgroups.
const MOST_VALUES: usize = 16_000_000;
/// The most turns that one thread takes: a software GPU has 65,000.
const MOST_TURNS: usize = 64_000;
/// The largest window, in pixels: it is written out in the shader.
const MOST_WINDOW: usize = 7;

pub(super) fn name(layer: &Layer) -> &'static str {
    match layer {
        Layer::Conv(_) => "conv",
        Layer::Depthwise(_) => "depthwise",
        Layer::Pointwise { .. } => "pointwise",
        Layer::Relu6 => "relu6",
        Layer::Add { .. } => "add",
        Layer::Pool => "pool",
        Layer::Dense { .. } => "dense",
        Layer::Softmax => "softmax",
    }
}

/// The kernel of a layer, what it is given, and the shape of what it makes.
pub(super) fn step(
    layer: &Layer,
    from: Shape,
    shapes: &[Shape],
    tensors: &Tensors,
) -> Result<(Kernel, Params, Shape), Broken> {
    let Shape(channels, height, width) = from;
    let mut params = Params {
        channels: channels as u32,
        height: height as u32,
        width: width as u32,
        stride: 1,
        low: f32::MIN,
        high: f32::MAX,
        ..Params::default()
    };
    let (kernel, to) = match layer {
        Layer::Conv(window) => {
            let [outputs, inputs, kh, kw] = weights(tensors, window, &mut params)?;
            if inputs != channels {
                return Err(takes(&window.weight, inputs, from));
            }
            let to = moved(window, outputs, from, [kh, kw])?;
            (Kernel::Conv(kh, kw), to)
        }
        Layer::Depthwise(window) => {
            let [outputs, inputs, kh, kw] = weights(tensors, window, &mut params)?;
            if (outputs, inputs) != (channels, 1) {
                return Err(takes(&window.weight, outputs, from));
            }
            let to = moved(window, outputs, from, [kh, kw])?;
            (Kernel::Depthwise(kh, kw), to)
        }
        Layer::Pointwise {
            weight,
            bias,
            relu6,
        } => {
            let outputs = matrix(tensors, weight, bias, channels, from, &mut params)?;
            clamp(&mut params, *relu6);
            let kernel = Kernel::Pointwise {
                tile: Tile::of(from.pixels()),
                fours: channels.is_multiple_of(4),
            };
            (kernel, Shape(outputs, height, width))
        }
        Layer::Dense { weight, bias } => {
            let outputs = matrix(tensors, weight, bias, from.values(), from, &mut params)?;
            params.channels = from.values() as u32;
            (Kernel::Dense, Shape(outputs, 1, 1))
        }
        Layer::Relu6 => {
            clamp(&mut params, true);
            (Kernel::Relu6, from)
        }
        Layer::Add { with } => {
            // Not itself, and nothing that comes later.
            let other = shapes.get(*with).copied();
            let other = other
                .ok_or_else(|| Broken(format!("`with` is {with}, and must be an earlier layer")))?;
            if other != from {
                return Err(Broken(format!(
                    "it adds {other}, the output of layer {with}, to {from}"
                )));
            }
            (Kernel::Add, from)
        }
        Layer::Pool => (Kernel::Pool, Shape(channels, 1, 1)),
        Layer::Softmax => (Kernel::Softmax, Shape(from.values(), 1, 1)),
    };
    let values = to.values();
    if values > MOST_VALUES {
        return Err(Broken(format!(
            "its output has {values} values; the most is {MOST_VALUES}"
        )));
    }
    params.out_channels = to.0 as u32;
    params.out_height = to.1 as u32;
    params.out_width = to.2 as u32;
    Ok((kernel, params, to))
}

fn clamp(params: &mut Params, relu6: bool) {
    if relu6 {
        (params.low, params.high) = (0.0, 6.0);
    }
}

fn takes(weight: &str, takes: usize, from: Shape) -> Broken {
    Broken(format!(
        "`{weight}` is for {takes} values or channels, and its input is {from}"
    ))
}

/// The weights of a window: outputs, inputs, height, width.
fn weights(tensors: &Tensors, window: &Window, params: &mut Params) -> Result<[usize; 4], Broken> {
    let tensor = tensors.get(&window.weight)?;
    let Ok(shape) = <[usize; 4]>::try_from(tensor.shape.as_slice()) else {
        return Err(Broken(format!(
            "`{}` has the shape {:?}; it must be [outputs, inputs, height, width]",
            window.weight, tensor.shape
        )));
    };
    let [outputs, _, kh, kw] = shape;
    if [kh, kw]
        .iter()
        .any(|side| !(1..=MOST_WINDOW).contains(side))
    {
        return Err(Broken(format!(
            "`{}` has a window of {kh} x {kw}; each side is 1 to {MOST_WINDOW}",
            window.weight
        )));
    }
    params.weight = tensor.at;
    params.bias = bias(tensors, &window.bias, outputs)?;
    params.stride = window.stride as u32;
    params.padding = window.padding as u32;
    clamp(params, window.relu6);
    Ok(shape)
}

fn bias(tensors: &Tensors, name: &str, outputs: usize) -> Result<u32, Broken> {
    let tensor = tensors.get(name)?;
    if outputs == 0 || tensor.shape != [outputs] {
        return Err(Broken(format!(
            "`{name}` has the shape {:?}; it must be [{outputs}], one for each output",
            tensor.shape
        )));
    }
    Ok(tensor.at)
}

/// The weights of outputs that see all of so many values: how many outputs there are.
fn matrix(
    tensors: &Tensors,
    weight: &str,
    offset: &str,
    inputs: usize,
    from: Shape,
    params: &mut Params,
) -> Result<usize, Broken> {
    let tensor = tensors.get(weight)?;
    let (outputs, takes_in) = match *tensor.shape.as_slice() {
        [outputs, inputs] | [outputs, inputs, 1, 1] => (outputs, inputs),
        _ => {
            return Err(Broken(format!(
                "`{weight}` has the shape {:?}; it must be [outputs, inputs]",
                tensor.shape
            )));
        }
    };
    if takes_in != inputs {
        return Err(takes(weight, takes_in, from));
    }
    params.weight = tensor.at;
    params.bias = bias(tensors, offset, outputs)?;
    Ok(outputs)
}

/// The shape of what a window makes that moves over an image.
fn moved(window: &Window, outputs: usize, from: Shape, sides: [usize; 2]) -> Result<Shape, Broken> {
    let Window {
        stride, padding, ..
    } = *window;
    if !(1..=16).contains(&stride) || padding > MOST_WINDOW {
        return Err(Broken(format!(
            "a stride of {stride} and a padding of {padding}; they are 1 to 16 and 0 to {MOST_WINDOW}"
        )));
    }
    let [height, width] = [(from.1, sides[0]), (from.2, sides[1])].map(|(image, side)| {
        let room = (image + 2 * padding).checked_sub(side)?;
        Some(room / stride + 1)
    });
    match (height, width) {
        (Some(height), Some(width)) => Ok(Shape(outputs, height, width)),
        _ => Err(Broken(format!(
            "a window of {} x {} does not fit into {from}",
            sides[0], sides[1]
        ))),
    }
}

/// Workgroups, and the fuel of each thread.
pub(super) fn size(
    kernel: Kernel,
    from: Shape,
    to: Shape,
) -> Result<((u32, u32, u32), u32), Broken> {
    let groups = |x: usize, y: usize| (x as u32, y as u32, 1);
    let pixels = to.pixels();
    // A loop of n turns looks at its fuel n + 1 times.
    let (groups, turns) = match kernel {
        Kernel::Conv(..) => (
            groups(pixels.div_ceil(LANES), to.0.div_ceil(TILE)),
            from.0 + 1,
        ),
        Kernel::Depthwise(..) => (groups(pixels.div_ceil(LANES), to.0), 0),
        Kernel::Pointwise { tile, fours } => {
            let (lanes, each) = tile.size();
            let turns = if fours { from.0 / 4 } else { from.0 };
            (
                groups(pixels.div_ceil(lanes * each), to.0.div_ceil(TILE)),
                turns + 1,
            )
        }
        Kernel::Relu6 | Kernel::Add => (groups(to.values().div_ceil(LANES * ELEMENTS), 1), 0),
        Kernel::Pool => (groups(to.0.div_ceil(LANES), 1), from.pixels() + 1),
        Kernel::Dense => {
            let turns = from.values() / STEP + from.values() % STEP;
            (groups(to.0.div_ceil(LANES), 1), turns + 2)
        }
        Kernel::Softmax => {
            let values = from.values();
            let turns = 2 * values.div_ceil(STEP) + values.div_ceil(LANES);
            (groups(1, 1), turns + 3)
        }
    };
    if turns > MOST_TURNS {
        return Err(Broken(format!(
            "its input is {from}; one thread would go through more than {MOST_TURNS} values of it"
        )));
    }
    Ok((groups, turns as u32))
}
