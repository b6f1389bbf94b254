//! `classify:image_objects`: images and models as they come, and numbers held against PyTorch's. Needs a
//! GPU, of software or not, as `gpu` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crank::error::{Code, Failure};
use crank::gpu::Adapter;
use crank::router::{Answer, Router};
use serde_json::{Value, json};

use crate::support::{Host, call, crc32, dir, done, guest, router, run};

const CLASSIFY: &str = "classify:image_objects";
const RELAXED: &str = "[workers.image-classifier]\nrelax = [\"gpu_count\", \"gpu_memory_mb\", \"gpu_type\", \"min_memory_mb\"]\n";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).expect("a fixture")
}

pub fn has_gpu() -> bool {
    let has = !Adapter::find().is_empty();
    assert!(
        has || std::env::var_os("TEST_GPU").is_none(),
        "no driver offers a GPU"
    );
    if !has {
        println!("not run: no driver offers a GPU");
    }
    has
}

/// A router to the classifier, if there is a GPU.
async fn classifier(toml: &str) -> Option<Arc<Router>> {
    if !has_gpu() {
        return None;
    }
    let toml = format!("{RELAXED}{toml}");
    Some(router(vec![guest("image-classifier")], &toml).await)
}

/// Sends an image as it is.
async fn send(
    router: &Router,
    media_type: &str,
    image: Vec<u8>,
    top_k: usize,
) -> Result<Answer, Failure> {
    let mut call = call(CLASSIFY, "");
    call.input.media_type = media_type.to_owned();
    call.input.body = image.into();
    call.parameters = vec![("top_k".to_owned(), top_k.to_string())];
    router.invoke(call).await
}

fn labels(answer: &Answer) -> Vec<(String, f64)> {
    let answer: Value = serde_json::from_slice(&answer.payload.body).expect("JSON");
    let labels = answer["labels"].as_array().expect("an array");
    let one = |label: &Value| {
        let name = label["label"].as_str().expect("a name").to_owned();
        (name, label["confidence"].as_f64().expect("a number"))
    };
    labels.iter().map(one).collect()
}

/// What is said of an image in tests/data/images, by the names of the labels.
async fn said(router: &Router, name: &str) -> Vec<(String, f64)> {
    let media_type = match name.rsplit_once('.') {
        Some((_, "jpg")) => "image/jpeg",
        Some((_, "webp")) => "image/webp",
        _ => "image/png",
    };
    let answer = send(router, media_type, read(&format!("images/{name}")), 100).await;
    let mut labels = labels(&answer.unwrap_or_else(|failure| panic!("{name}: {failure:?}")));
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels
}

fn apart(one: &[(String, f64)], other: &[(String, f64)]) -> f64 {
    assert_eq!(one.len(), other.len());
    let each = one.iter().zip(other).map(|(one, other)| {
        assert_eq!(one.0, other.0);
        (one.1 - other.1).abs()
    });
    each.fold(0.0, f64::max)
}

#[test]
fn an_image_of_each_format_is_classified() {
    run(async {
        let Some(router) = classifier("").await else {
            return;
        };
        for (name, media_type, label) in [
            ("house.png", "image/png", "house"),
            ("umbrella.jpg", "image/jpeg", "umbrella"),
            ("mushroom.webp", "image/webp", "mushroom"),
        ] {
            let image = read(&format!("images/{name}"));
            let answer = send(&router, media_type, image.clone(), 3).await;
            let three = labels(&answer.expect("it is classified"));
            assert_eq!(three.len(), 3);
            assert_eq!(three[0].0, label, "{three:?}");
            assert!(three.is_sorted_by(|a, b| a.1 >= b.1), "{three:?}");
            let all = said(&router, name).await;
            let sum: f64 = all.iter().map(|(_, confidence)| confidence).sum();
            assert!((sum - 1.0).abs() < 1e-3, "{sum}");
            // As base64 in JSON the same; five of them if nobody says how many.
            let input = json!({ "image": STANDARD.encode(&image) }).to_string();
            let answer = done(&router, CLASSIFY, &input).await;
            let five = answer["labels"].as_array().expect("an array");
            assert_eq!(five.len(), 5.min(all.len()));
            assert_eq!(five[0]["label"], three[0].0.as_str());
        }
        for top_k in [0, 101] {
            let answer = send(&router, "image/png", read("images/disc.png"), top_k).await;
            assert_eq!(
                answer.expect_err("it is out of range").code,
                Code::InvalidInput
            );
        }
    });
}

/// A PNG in grey of so many pixels, all of them black: `image` reads it whole.
fn black(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let named = [kind, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&named);
        png.extend(crc32(&named).to_be_bytes());
    };
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sides[..], &[8, 0, 0, 0, 0]].concat());
    // zlib without compression: rows of a filter and zeros, in blocks.
    let rows = vec![0; (width as usize + 1) * height as usize];
    let mut packed = vec![0x78, 0x01];
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        packed.push(u8::from(blocks.peek().is_none()));
        packed.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        packed.extend(block);
    }
    // Adler-32 of zeros: their number and one.
    packed.extend(((rows.len() as u32 % 65_521) << 16 | 1).to_be_bytes());
    chunk(b"IDAT", &packed);
    chunk(b"IEND", b"");
    png
}

#[test]
fn over_http_a_photograph_is_classified_a_text_is_refused_and_forty_megapixels_are_read() {
    run(async {
        let Some(router) = classifier("").await else {
            return;
        };
        let host = Host::of(router, |_| {}).await;
        let post = async |media_type: &str, body: Vec<u8>| -> (u16, Value) {
            let url = host.url("/invoke/classify/image_objects?top_k=2");
            let request = host.client.post(url).header("content-type", media_type);
            let answer = request.body(body).send().await.expect("it answers");
            (answer.status().as_u16(), answer.json().await.expect("JSON"))
        };
        let (status, answer) = post("image/jpeg", read("images/umbrella.jpg")).await;
        assert_eq!(
            (status, &answer["labels"][0]["label"]),
            (200, &json!("umbrella"))
        );
        assert_eq!(answer["labels"].as_array().map(Vec::len), Some(2));
        for (media_type, body, status, code) in [
            ("image/png", b"no image".to_vec(), 422, "invalid-input"),
            (
                "image/gif",
                b"GIF89a".to_vec(),
                415,
                "unsupported-media-type",
            ),
            // A pixel over the most.
            ("image/png", black(8001, 5000), 422, "invalid-input"),
        ] {
            let (got, problem) = post(media_type, body).await;
            assert_eq!((got, &problem["code"]), (status, &json!(code)), "{problem}");
        }
        let (status, answer) = post("image/png", black(8000, 5000)).await;
        assert_eq!(status, 200, "{answer}");
    });
}

#[test]
fn one_image_is_the_same_however_it_is_written() {
    run(async {
        let Some(router) = classifier("").await else {
            return;
        };
        let plain = said(&router, "corner.png").await;
        for (name, most) in [
            ("corner.webp", 1e-6),
            ("corner-palette.png", 1e-6),
            ("corner-clear.png", 0.05),
            ("corner.jpg", 0.05),
            ("corner-turned.jpg", 0.05),
            ("corner-cmyk.jpg", 0.1),
        ] {
            let apart = apart(&plain, &said(&router, name).await);
            assert!(apart <= most, "{name}: {apart}");
        }
        let grey = said(&router, "grey.png").await;
        assert!(apart(&grey, &said(&router, "grey-16-bit.png").await) < 1e-6);
    });
}

#[test]
fn what_is_no_image_is_refused_and_a_bomb_costs_nothing() {
    run(async {
        let Some(router) = classifier("").await else {
            return;
        };
        let jpeg = read("images/stripes.jpg");
        let png = read("images/disc.png");
        for (media_type, image, why) in [
            (
                "image/png",
                b"Dear all, this is text.".to_vec(),
                "no image in PNG, JPEG or WebP",
            ),
            (
                "image/png",
                b"GIF89a\x01\0\x01\0\0\0\0".to_vec(),
                "no image in PNG, JPEG or WebP",
            ),
            ("image/png", Vec::new(), "no image in PNG, JPEG or WebP"),
            (
                "image/jpeg",
                jpeg[..jpeg.len() / 2].to_vec(),
                "cannot be read",
            ),
            ("image/jpeg", jpeg[..40].to_vec(), "cannot be read"),
            ("image/png", png[..png.len() / 2].to_vec(), "cannot be read"),
            (
                "image/webp",
                b"RIFF\x40\0\0\0WEBPVP8 ".to_vec(),
                "cannot be read",
            ),
            ("image/png", read("images/bomb.png"), "1 to 40000000 pixels"),
        ] {
            let failure = send(&router, media_type, image, 5).await;
            let failure = failure.expect_err("it is no image");
            assert_eq!(failure.code, Code::InvalidInput, "{why}: {failure:?}");
            assert!(failure.message.contains(why), "{why}: {}", failure.message);
        }
        let worker = &router.registry().snapshot().workers()[0].observed();
        assert!(worker.memory_peak < 16 << 20, "{}", worker.memory_peak);
        // No shader ran, and the next image is classified.
        said(&router, "disc.png").await;
    });
}

/// Weights are found on the GPU by their hash: the second call does not bring them again.
#[test]
fn a_second_call_uploads_no_weights() {
    run(async {
        let Some(router) = classifier("").await else {
            return;
        };
        let model = std::fs::read(data(
            "../../guests/image-classifier/model/default.safetensors",
        ));
        let model = model.expect("the default model");
        let header = u64::from_le_bytes(*model.first_chunk().expect("its length"));
        let weights = model.len() as u64 - 8 - header;
        let mut memory = Vec::new();
        for _ in 0..3 {
            let answer = send(&router, "image/png", read("images/disc.png"), 5).await;
            memory.push(answer.expect("it is classified").usage.gpu_memory_peak);
        }
        // Parameters of the layers are looked at anew each time; they are small beside the rest.
        assert!(memory[0] >= memory[1] + weights / 2, "{memory:?}");
        assert_eq!(memory[1], memory[2]);
    });
}

/// A safetensors file of a network's text and tensors that are all ones.
fn model(network: &Value, labels: &Value, tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let one = 1.0_f32.to_le_bytes();
    model_of(network, labels, tensors, "F32", &one)
}

/// The same of values of another type, of which `one` is 1.
fn model_of(
    network: &Value,
    labels: &Value,
    tensors: &[(&str, &[usize])],
    dtype: &str,
    one: &[u8],
) -> Vec<u8> {
    let mut header = json!({
        "__metadata__": { "network": network.to_string(), "labels": labels.to_string() }
    });
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in tensors {
        let from = data.len();
        let values = shape.iter().product();
        data.extend(std::iter::repeat_n(one, values).flatten());
        header[name] =
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [from, data.len()] });
    }
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

fn network(layers: Value) -> Value {
    let input = json!({ "width": 4, "height": 4, "mean": [0, 0, 0], "std": [1, 1, 1] });
    json!({ "input": input, "layers": layers })
}

#[test]
fn the_operators_model_is_used_and_a_broken_one_says_what_is_wrong() {
    run(async {
        let models = dir();
        let place = models.path().join("model.safetensors");
        let toml = format!("models = {:?}", models.path());
        let dense = json!({ "op": "dense", "weight": "w", "bias": "b" });
        let layers = json!([{ "op": "pool" }, dense, { "op": "softmax" }]);
        let names = json!(["this", "that"]);
        let tensors: [(&str, &[usize]); 2] = [("w", &[2, 3]), ("b", &[2])];
        let whole = model(&network(layers.clone()), &names, &tensors);
        std::fs::write(&place, &whole).expect("a file");
        let Some(router) = classifier(&toml).await else {
            return;
        };
        let half = ["that", "this"].map(|name| (name.to_owned(), 0.5));
        assert_eq!(said(&router, "disc.png").await, half);
        let narrow =
            |dtype, one: [u8; 2]| model_of(&network(layers.clone()), &names, &tensors, dtype, &one);
        std::fs::write(&place, narrow("F16", [0x00, 0x3c])).expect("a file");
        assert_eq!(said(&router, "disc.png").await, half);

        let of = |layers: Value, tensors: &[_]| model(&network(layers), &names, tensors);
        let window = |stride, padding| json!([{ "op": "conv", "weight": "w", "bias": "b", "stride": stride, "padding": padding }]);
        let mut wide = network(layers.clone());
        wide["input"]["width"] = json!(100_000);
        let mut flat = network(layers.clone());
        flat["input"]["std"] = json!([1, 0, 1]);
        let mut cut = whole.clone();
        cut.truncate(whole.len() - 4);
        let mut nan = whole.clone();
        let last = nan.len() - 4;
        nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        for (file, why) in [
            (b"no model".to_vec(), "it is no safetensors file"),
            (cut, "it is no safetensors file"),
            (u64::MAX.to_le_bytes().to_vec(), "it is no safetensors file"),
            (nan, "what it answers are no numbers"),
            (
                narrow("BF16", [0x80, 0x3f]),
                "is BF16; all must be F32, or all F16",
            ),
            (
                model(&json!("x"), &names, &tensors),
                "`network` of its metadata",
            ),
            (of(json!([{ "op": "gelu" }]), &[]), "unknown variant `gelu`"),
            (of(json!([]), &[]), "it has 0 layers"),
            (model(&wide, &names, &tensors), "100000 x 4 pixels"),
            (model(&flat, &names, &tensors), "`std` not 0"),
            (
                model(&network(layers.clone()), &json!(["one"]), &tensors),
                "`labels` has 1 names",
            ),
            (
                of(layers.clone(), &tensors[..1]),
                "layer 1 (dense): there is no tensor `b`",
            ),
            (
                of(layers.clone(), &[("w", &[2, 4]), ("b", &[2])]),
                "layer 1 (dense): `w` is for 4",
            ),
            (
                of(layers.clone(), &[("w", &[2, 3]), ("b", &[3])]),
                "layer 1 (dense): `b` has the shape [3]",
            ),
            (
                of(layers, &[("w", &[2, 3]), ("b", &[2]), ("x", &[1])]),
                "no layer uses the tensor `x`",
            ),
            (
                of(json!([{ "op": "add", "with": 0 }]), &[]),
                "layer 0 (add): `with` is 0",
            ),
            (
                of(json!([{ "op": "softmax" }, { "op": "pool" }]), &[]),
                "a softmax is the last layer",
            ),
            (
                of(json!([{ "op": "pool" }, dense]), &tensors),
                "its last layer is no softmax",
            ),
            (
                of(window(0, 0), &[("w", &[2, 3, 1, 1]), ("b", &[2])]),
                "a stride of 0",
            ),
            (
                of(window(1, 0), &[("w", &[2, 3, 5, 5]), ("b", &[2])]),
                "does not fit",
            ),
            (
                of(window(1, 0), &[("w", &[2, 1, 9, 9]), ("b", &[2])]),
                "a window of 9 x 9",
            ),
            (
                of(window(1, 0), &[("w", &[2, 4, 1, 1]), ("b", &[2])]),
                "`w` is for 4",
            ),
            (
                of(window(1, 0), &[("w", &[2, 3]), ("b", &[2])]),
                "`w` has the shape [2, 3]",
            ),
        ] {
            std::fs::write(&place, file).expect("a file");
            let answer = send(&router, "image/png", read("images/disc.png"), 5).await;
            let failure = answer.expect_err(why);
            assert_eq!(failure.code, Code::Unavailable, "{why}: {failure:?}");
            assert_eq!(
                failure.worker_code.as_deref(),
                Some("broken-model"),
                "{why}"
            );
            assert!(failure.message.contains(why), "{why}: {}", failure.message);
        }
        std::fs::remove_file(&place).expect("it is there");
        assert!(
            said(&router, "disc.png").await.len() > 2,
            "the default model"
        );
    });
}

/// Each layer type alone and a small network, against the outputs of PyTorch
/// (guests/image-classifier/tools/agree.py).
#[test]
fn our_kernels_agree_with_pytorch() {
    run(async {
        if !has_gpu() {
            return;
        }
        let router = router(vec![guest("network-lab")], "").await;
        let mut networks = 0;
        for entry in data("networks").read_dir().expect("fixtures") {
            let path = entry.expect("a file").path();
            if path
                .extension()
                .is_none_or(|extension| extension != "safetensors")
            {
                continue;
            }
            let model = std::fs::read(&path).expect("a network");
            let numbers = std::fs::read(path.with_extension("json")).expect("its numbers");
            let numbers: Value = serde_json::from_slice(&numbers).expect("JSON");
            let list = |value: &Value| -> Vec<f32> {
                serde_json::from_value(value.clone()).expect("numbers")
            };
            let input: Vec<u8> = list(&numbers["input"])
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            let input = json!({ "model": STANDARD.encode(model), "input": STANDARD.encode(input) });
            let answer = done(&router, "network:run", &input.to_string()).await;
            let (ours, theirs) = (list(&answer["output"]), list(&numbers["output"]));
            assert_eq!(ours.len(), theirs.len(), "{}", path.display());
            let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
            let apart = apart.fold(0.0, f32::max);
            assert!(apart < 1e-3, "{}: {apart}", path.display());
            networks += 1;
        }
        assert!(networks >= 13, "{networks}");
    });
}
