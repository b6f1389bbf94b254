//! From layers to dispatches: every shape is checked, and every output has its buffer.

mod layer;

use std::collections::BTreeSet;

use layer::{name, size, step};

use crate::Broken;
use crate::format::{Input, Layer, MOST_OUTPUTS, Tensors};
use crate::kernels::Kernel;

/// Different kernels of one network: each is compiled.
const MOST_KERNELS: usize = 32;

/// What is done, in order.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// The buffers for what flows, each in values. The first starts with the image.
    pub buffers: Vec<usize>,
    /// Where the last output is, and how many values it has.
    pub output: (usize, usize),
}

/// One dispatch.
#[derive(Debug)]
pub struct Step {
    pub kernel: Kernel,
    pub params: Params,
    /// Numbers of buffers.
    pub from: usize,
    pub with: Option<usize>,
    pub to: usize,
    pub groups: (u32, u32, u32),
    pub fuel: u32,
}

/// The numbers that a kernel is given; `kernels` declares the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params {
    pub channels: u32,
    pub height: u32,
    pub width: u32,
    pub out_channels: u32,
    pub out_height: u32,
    pub out_width: u32,
    pub stride: u32,
    pub padding: u32,
    pub weight: u32,
    pub bias: u32,
    /// What the output is held between.
    pub low: f32,
    pub high: f32,
}

impl Params {
    pub fn bytes(&self) -> Vec<u8> {
        let Self {
            channels,
            height,
            width,
            out_channels,
            out_height,
            out_width,
            stride,
            padding,
            weight,
            bias,
            low,
            high,
        } = *self;
        let words = [
            channels,
            height,
            width,
            out_channels,
            out_height,
            out_width,
            stride,
            padding,
            weight,
            bias,
            low.to_bits(),
            high.to_bits(),
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Channels, height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape(usize, usize, usize);

impl Shape {
    fn values(self) -> usize {
        self.0.saturating_mul(self.pixels())
    }

    fn pixels(self) -> usize {
        self.1 * self.2
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}, {}]", self.0, self.1, self.2)
    }
}

impl Plan {
    /// The plan of a network, and how many outputs it has.
    pub fn new(
        input: &Input,
        layers: &[Layer],
        tensors: &Tensors,
    ) -> Result<(Self, usize), Broken> {
        let image = Shape(3, input.height, input.width);
        let mut shapes: Vec<Shape> = Vec::new();
        let mut flow = Flow::new(layers, image);
        let mut plan = Self::default();
        let mut kernels = BTreeSet::new();
        for (at, layer) in layers.iter().enumerate() {
            let from = shapes.last().copied().unwrap_or(image);
            let told = |Broken(why)| Broken(format!("layer {at} ({}): {why}", name(layer)));
            if matches!(layer, Layer::Softmax) && at + 1 < layers.len() {
                return Err(told(Broken("a softmax is the last layer".to_owned())));
            }
            let (kernel, params, to) = step(layer, from, &shapes, tensors).map_err(told)?;
            kernels.insert(kernel);
            let (groups, fuel) = size(kernel, from, to).map_err(told)?;
            let with = match layer {
                Layer::Add { with } => Some(*with),
                _ => None,
            };
            let (from, with, to_buffer) = flow.next(at, with, to);
            plan.steps.push(Step {
                kernel,
                params,
                from,
                with,
                to: to_buffer,
                groups,
                fuel,
            });
            shapes.push(to);
        }
        if kernels.len() > MOST_KERNELS {
            return Err(Broken(format!(
                "its layers have {} different kernels; the most is {MOST_KERNELS}",
                kernels.len()
            )));
        }
        let outputs = shapes.last().map_or(0, |shape| shape.values());
        if outputs > MOST_OUTPUTS {
            return Err(Broken(format!(
                "it has {outputs} outputs; the most is {MOST_OUTPUTS}"
            )));
        }
        plan.output = (plan.steps.last().map_or(0, |step| step.to), outputs);
        plan.buffers = flow.sizes;
        Ok((plan, outputs))
    }
}

/// Which buffer holds what: one is used again when nothing reads it any more.
struct Flow {
    /// The last layer that reads the image, then that reads the output of each layer.
    last: Vec<usize>,
    /// The buffer of the image, then of each output.
    places: Vec<usize>,
    /// For each buffer, from which layer on it is free.
    free: Vec<usize>,
    /// For each buffer, values.
    sizes: Vec<usize>,
}

impl Flow {
    fn new(layers: &[Layer], image: Shape) -> Self {
        // Numbered from the image: the output of layer i is number i + 1.
        let mut last: Vec<usize> = (0..=layers.len()).collect();
        for (at, layer) in layers.iter().enumerate() {
            if let Layer::Add { with } = layer
                && let Some(last) = last.get_mut(with + 1)
            {
                *last = (*last).max(at);
            }
        }
        Self {
            free: vec![last.first().map_or(0, |last| last + 1)],
            last,
            places: vec![0],
            sizes: vec![image.values()],
        }
    }

    /// The buffers of the next layer: what it reads, what it adds, what it writes.
    fn next(&mut self, at: usize, with: Option<usize>, to: Shape) -> (usize, Option<usize>, usize) {
        let place = |number: usize| self.places.get(number).copied().unwrap_or(0);
        let (from, with) = (place(at), with.map(|with| place(with + 1)));
        let free = self.free.iter().position(|&free| free <= at);
        let place = free.unwrap_or(self.free.len());
        if place == self.free.len() {
            self.free.push(0);
            self.sizes.push(0);
        }
        // Read by the next layer at least, or at the end.
        let last = self.last.get(at + 1).copied().unwrap_or(at + 1);
        if let (Some(free), Some(size)) = (self.free.get_mut(place), self.sizes.get_mut(place)) {
            *free = last + 1;
            *size = (*size).max(to.values());
        }
        self.places.push(place);
        (from, with, place)
    }
}
