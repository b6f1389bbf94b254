//! The model file: safetensors, whose metadata names the layers (`network`) and the outputs (`labels`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::Broken;
use crate::plan::Plan;

/// The most bytes of weights.
const MOST_WEIGHTS: usize = 256 << 20;
/// The most layers: each is one dispatch, and a run takes 1,024.
const MOST_LAYERS: usize = 1000;
/// The most outputs: one thread goes through them twice, and a software GPU ends loops at 65,000 turns.
pub const MOST_OUTPUTS: usize = 30_000;
/// The largest side of an input, in pixels.
const MOST_PIXELS: usize = 1024;

/// A model that may run.
#[derive(Debug)]
pub struct Model<'a> {
    /// What it wants to see.
    pub input: Input,
    /// What its outputs are called.
    pub labels: Vec<String>,
    /// Whether its outputs are probabilities: it ends in a softmax.
    pub is_classifier: bool,
    pub(crate) plan: Plan,
    /// All tensors as F32, in the order of the file: what is kept on the GPU.
    pub weights: Cow<'a, [u8]>,
}

/// The image that a network wants: RGB / 255, minus the mean, over the standard deviation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue.
    pub std: [f32; 3],
    /// How an image of another shape comes to this one.
    #[serde(default)]
    pub fit: Fit,
}

/// How an image comes to a shape that is not its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Its middle is cut out: how networks are evaluated on photographs.
    #[default]
    Crop,
    /// All of it is stretched: nothing at its edges is lost.
    Stretch,
}

/// The list of layers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    input: Input,
    layers: Vec<Layer>,
}

/// A layer: its input is the output of the one before, the image for the first.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Layer {
    Conv(Window),
    Depthwise(Window),
    Pointwise {
        weight: String,
        bias: String,
        #[serde(default)]
        relu6: bool,
    },
    Relu6,
    Add {
        with: usize,
    },
    Pool,
    Dense {
        weight: String,
        bias: String,
    },
    Softmax,
}

/// A window that moves over an image.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub weight: String,
    pub bias: String,
    pub stride: usize,
    pub padding: usize,
    #[serde(default)]
    pub relu6: bool,
}

/// A tensor of weights.
pub struct Tensor {
    pub shape: Vec<usize>,
    /// Where it begins, in values.
    pub at: u32,
    used: std::cell::Cell<bool>,
}

/// All of them, by name.
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// A tensor that a layer names.
    pub fn get(&self, name: &str) -> Result<&Tensor, Broken> {
        let missing = || Broken(format!("there is no tensor `{name}`"));
        let tensor = self.0.get(name).ok_or_else(missing)?;
        tensor.used.set(true);
        Ok(tensor)
    }
}

impl<'a> Model<'a> {
    /// Reads a file and checks all of it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(file: &'a [u8]) -> Result<Self, Broken> {
        let whole = |error| Broken(format!("it is no safetensors file: {error}"));
        let (header, metadata) = SafeTensors::read_metadata(file).map_err(whole)?;
        // The length of the header, the header, then the tensors without a gap.
        let weights = file.get(8 + header..).unwrap_or_default();
        if weights.len() > MOST_WEIGHTS {
            return Err(Broken(format!(
                "it has {} bytes of weights; the most is {MOST_WEIGHTS}",
                weights.len()
            )));
        }
        let text = |name: &str| metadata.metadata().as_ref()?.get(name).map(String::as_str);
        let network: Network = json("network", text("network"))?;
        let labels: Vec<String> = json("labels", text("labels"))?;
        check(&network)?;
        let (tensors, dtype) = tensors(&metadata)?;
        let (plan, outputs) = Plan::new(&network.input, &network.layers, &tensors)?;
        if let Some((name, _)) = tensors.0.iter().find(|(_, tensor)| !tensor.used.get()) {
            return Err(Broken(format!("no layer uses the tensor `{name}`")));
        }
        if labels.len() != outputs {
            return Err(Broken(format!(
                "`labels` has {} names, and the last layer has {outputs} outputs",
                labels.len()
            )));
        }
        Ok(Self {
            is_classifier: matches!(network.layers.last(), Some(Layer::Softmax)),
            input: network.input,
            labels,
            plan,
            weights: match dtype {
                Dtype::F16 => widened(weights).into(),
                _ => weights.into(),
            },
        })
    }
}

/// A JSON text of the metadata.
fn json<T: for<'de> Deserialize<'de>>(name: &str, text: Option<&str>) -> Result<T, Broken> {
    let text = text.ok_or_else(|| Broken(format!("its metadata has no `{name}`")))?;
    serde_json::from_str(text).map_err(|error| Broken(format!("`{name}` of its metadata: {error}")))
}

fn check(network: &Network) -> Result<(), Broken> {
    let Input {
        width,
        height,
        mean,
        std,
        fit: _,
    } = &network.input;
    if [width, height]
        .iter()
        .any(|side| !(1..=MOST_PIXELS).contains(*side))
    {
        return Err(Broken(format!(
            "an input of {width} x {height} pixels; each side is 1 to {MOST_PIXELS}"
        )));
    }
    if mean.iter().chain(std).any(|value| !value.is_finite()) || std.contains(&0.0) {
        return Err(Broken(
            "`mean` and `std` of the input must be numbers, and `std` not 0".to_owned(),
        ));
    }
    match network.layers.len() {
        1..=MOST_LAYERS => Ok(()),
        layers => Err(Broken(format!(
            "it has {layers} layers; it must be 1 to {MOST_LAYERS}"
        ))),
    }
}

/// All tensors by name, and what their values are.
fn tensors(metadata: &safetensors::tensor::Metadata) -> Result<(Tensors, Dtype), Broken> {
    let infos = metadata.tensors();
    let dtype = infos.values().next().map_or(Dtype::F32, |info| info.dtype);
    let mut tensors = BTreeMap::new();
    for (name, info) in infos {
        let (at, bytes) = (info.data_offsets.0, dtype.bitsize() / 8);
        if !matches!(dtype, Dtype::F32 | Dtype::F16)
            || info.dtype != dtype
            || !at.is_multiple_of(bytes)
        {
            return Err(Broken(format!(
                "the tensor `{name}` is {:?}; all must be F32, or all F16",
                info.dtype
            )));
        }
        let tensor = Tensor {
            shape: info.shape.clone(),
            // Within MOST_WEIGHTS.
            at: (at / bytes) as u32,
            used: std::cell::Cell::new(false),
        };
        tensors.insert(name.clone(), tensor);
    }
    Ok((Tensors(tensors), dtype))
}

/// F16 as F32, which every GPU computes with.
fn widened(weights: &[u8]) -> Vec<u8> {
    let values = weights.as_chunks().0.iter();
    values
        .flat_map(|&value| f16::from_le_bytes(value).to_f32().to_le_bytes())
        .collect()
}
