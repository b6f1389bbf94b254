//! From a file to the numbers that a network wants.

use std::io::Cursor;

use crank_worker::Failure;
use gpu_kernels::{Fit, Input};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Rgb, RgbImage};

/// The most pixels of an image: decoded it takes up to eight bytes for each.
const MOST_PIXELS: u64 = 40_000_000;

/// The image in a file, upright and without transparency.
///
/// # Errors
///
/// It is no image that can be read.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, Failure> {
    // A reader has a limit on memory too, of 512 MiB.
    let failed = |error: ImageError| match error {
        ImageError::Limits(_) => too_large(),
        error => Failure::invalid_input("/image", format!("the image cannot be read: {error}")),
    };
    let format = image::guess_format(bytes).ok();
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    let Some(format) = format.filter(|format| known.contains(format)) else {
        return Err(Failure::invalid_input(
            "/image",
            "it is no image in PNG, JPEG or WebP",
        ));
    };
    // Its decoder would make what is missing grey.
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err(Failure::invalid_input(
            "/image",
            "the image cannot be read: it breaks off",
        ));
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if !(1..=MOST_PIXELS).contains(&(u64::from(width) * u64::from(height))) {
        return Err(too_large());
    }
    // What is said about the camera is no reason to refuse what it saw.
    let orientation = decoder.orientation();
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if let Ok(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(on_white(image))
}

/// Whether a JPEG's last scan ends. In a scan, no other marker looks like these (ITU-T T.81, B.1.1.2).
fn has_end(jpeg: &[u8]) -> bool {
    let last = |marker: [u8; 2]| jpeg.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

fn too_large() -> Failure {
    let message = format!("the image must have 1 to {MOST_PIXELS} pixels, in width times height");
    Failure::invalid_input("/image", message)
}

/// What is transparent lies on white.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [colour @ .., alpha] = image.get_pixel(x, y).0;
        let alpha = u32::from(alpha);
        // Rounded; no more than 255.
        Rgb(colour
            .map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// An image in the size of the network's input, as channels of rows: all of it stretched, or its middle, as
/// large as it has the shape of that.
pub fn values(image: RgbImage, input: &Input) -> Vec<f32> {
    // Both are at most 1,024.
    let (width, height) = (input.width as u32, input.height as u32);
    let image = if image.dimensions() == (width, height) {
        image
    } else {
        let (x, y, w, h) = match input.fit {
            Fit::Crop => middle(image.dimensions(), (width, height)),
            Fit::Stretch => (0, 0, image.width(), image.height()),
        };
        let cut = imageops::crop_imm(&image, x, y, w, h);
        imageops::resize(&*cut, width, height, FilterType::Triangle)
    };
    let pixels = image.as_raw();
    let mut values = Vec::with_capacity(pixels.len());
    for channel in 0..3 {
        let (mean, std) = (input.mean[channel], input.std[channel]);
        let own = pixels.iter().skip(channel).step_by(3);
        values.extend(own.map(|&value| (f32::from(value) / 255.0 - mean) / std));
    }
    values
}

/// The largest part in the middle of an image that has the shape of another: where, how wide, how high.
fn middle((width, height): (u32, u32), shape: (u32, u32)) -> (u32, u32, u32, u32) {
    let (wide, high) = (u64::from(shape.0), u64::from(shape.1));
    let (all_wide, all_high) = (u64::from(width), u64::from(height));
    let (w, h) = if all_wide * high > all_high * wide {
        ((all_high * wide / high).max(1) as u32, height)
    } else {
        (width, (all_wide * high / wide).max(1) as u32)
    };
    ((width - w) / 2, (height - h) / 2, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_has_the_shape_that_is_asked_for_and_lies_inside() {
        assert_eq!(middle((400, 300), (64, 64)), (50, 0, 300, 300));
        assert_eq!(middle((300, 400), (64, 64)), (0, 50, 300, 300));
        assert_eq!(middle((400, 300), (64, 32)), (0, 50, 400, 200));
        assert_eq!(middle((1, 40_000_000), (64, 64)), (0, 19_999_999, 1, 1));
        assert_eq!(middle((40_000_000, 1), (32, 64)), (19_999_999, 0, 1, 1));
    }

    #[test]
    fn values_are_channels_of_rows_without_the_mean_over_the_deviation() {
        let input = Input {
            width: 2,
            height: 1,
            mean: [0.5; 3],
            std: [0.25; 3],
            fit: Fit::Stretch,
        };
        let image = RgbImage::from_raw(2, 1, vec![255, 0, 51, 0, 255, 51]).expect("two pixels");
        assert_eq!(values(image, &input), [2.0, -2.0, -2.0, 2.0, -1.2, -1.2]);
    }

    #[test]
    fn what_is_transparent_lies_on_white() {
        let image = image::RgbaImage::from_raw(3, 1, vec![9, 9, 9, 0, 9, 9, 9, 255, 0, 0, 0, 51]);
        let image = on_white(DynamicImage::from(image.expect("three pixels")));
        assert_eq!(image.as_raw()[..], [255, 255, 255, 9, 9, 9, 204, 204, 204]);
    }
}
