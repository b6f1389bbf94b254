//! From a page's drawing instructions to glyphs with their text and place.

use hayro_cmap::BfString;
use hayro_interpret::font::{Glyph as Drawn, GlyphRun};
use hayro_interpret::{
    BlendMode, ClipPath, Device, DrawMode, DrawProps, Image, ImageDrawProps, SoftMask,
};
use hayro_syntax::object::{Dict, String as PdfString};
use kurbo::{Affine, BezPath, Point, Vec2};

use super::lines::Lines;

/// A glyph on the page.
#[derive(Clone, Debug)]
pub struct Glyph {
    /// What it stands for; several characters for a ligature.
    pub text: String,
    /// Where it begins on its baseline.
    pub origin: Point,
    /// Where the next glyph begins, if nothing comes between.
    pub end: Point,
    /// The direction of writing, of length 1.
    pub along: Vec2,
    /// The font's size on the page.
    pub size: f64,
}

/// A device that draws nothing and hands every glyph to the lines.
pub struct Glyphs<'a> {
    lines: &'a mut Lines,
    /// Marked content that is open, innermost last: text that replaces what is drawn there.
    marked: Vec<Option<String>>,
    /// Place and code of the first glyph that the last run drew, and its length.
    last_run: Option<(Point, u32, usize)>,
}

impl<'a> Glyphs<'a> {
    pub fn new(lines: &'a mut Lines) -> Self {
        Self {
            lines,
            marked: Vec::new(),
            last_run: None,
        }
    }

    /// What a glyph stands for. Inside of marked content with a replacement, the first glyph stands
    /// for all of it and the others for nothing.
    fn text(&mut self, glyph: &Drawn<'_>) -> String {
        if let Some(replacement) = self.marked.iter_mut().flatten().next() {
            return std::mem::take(replacement);
        }
        match glyph.as_unicode() {
            Some(BfString::Char(c)) => c.into(),
            Some(BfString::String(text)) => text,
            None => char::REPLACEMENT_CHARACTER.into(),
        }
    }
}

impl Device<'_> for Glyphs<'_> {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        let place = |transform: Affine| (props.transform * transform) * Point::ORIGIN;
        let this_run = run.glyphs().first().map(|glyph| {
            (
                place(glyph.transform()),
                glyph.char_code(),
                run.glyphs().len(),
            )
        });
        // Text that is filled and stroked comes twice; so does text that is printed over itself to
        // look bold.
        if this_run == self.last_run {
            return;
        }
        self.last_run = this_run;
        for glyph in run.glyphs() {
            let transform = props.transform * glyph.transform();
            let width = match &**glyph {
                Drawn::Outline(outline) => outline.advance_width(),
                Drawn::Type3(type3) => type3.advance_width(),
            };
            let origin = transform * Point::ORIGIN;
            let unit = transform * Point::new(1000.0, 0.0) - origin;
            let up = transform * Point::new(0.0, 1000.0) - origin;
            let end = origin + unit * (f64::from(width.unwrap_or_default()) / 1000.0);
            let text = self.text(glyph);
            let along = if unit.hypot() > 0.0 {
                unit.normalize()
            } else {
                Vec2::new(1.0, 0.0)
            };
            self.lines.push(Glyph {
                text,
                origin,
                end,
                along,
                size: up.hypot(),
            });
        }
    }

    fn begin_marked_content(&mut self, _: &[u8], properties: Option<&Dict<'_>>) {
        let replacement = properties
            .and_then(|properties| properties.get::<PdfString<'_>>(b"ActualText".as_ref()));
        self.marked
            .push(replacement.map(|text| super::text_string(text.as_bytes())));
    }

    fn end_marked_content(&mut self) {
        self.marked.pop();
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {}
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}
