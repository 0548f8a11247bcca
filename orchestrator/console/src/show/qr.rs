//! A text as a picture that a camera reads.

use super::html::Html;

/// The picture, as SVG; none for what is too long for one.
pub fn qr(text: &str, description: &str) -> Option<Html> {
    let code = qrcode::QrCode::with_error_correction_level(text.as_bytes(), qrcode::EcLevel::M).ok()?;
    let (width, quiet) = (code.width(), 4);
    let mut path = String::new();
    for (at, colour) in code.to_colors().iter().enumerate() {
        if *colour == qrcode::Color::Dark {
            path.push_str(&format!("M{} {}h1v1h-1z", at % width + quiet, at / width + quiet));
        }
    }
    let side = width + 2 * quiet;
    Some(Html::of(format!(
        "<svg class=\"qr\" role=\"img\" viewBox=\"0 0 {side} {side}\" width=\"220\" height=\"220\" \
         shape-rendering=\"crispEdges\"><title>{}</title><path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/>\
         <path fill=\"#000\" d=\"{path}\"/></svg>",
        super::html::escape(description)
    )))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_picture_is_drawn_or_there_is_none() {
        let drawn = super::qr("otpauth://totp/x?secret=ABC", "For \"your\" phone").expect("fits");
        assert!(
            drawn.as_str().contains("For &quot;your&quot; phone") && drawn.as_str().contains("M4 4h1v1h-1z")
        );
        assert!(super::qr(&"x".repeat(5000), "").is_none());
    }
}
