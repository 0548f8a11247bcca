//! Text out of files and logs: shown as it is, with what cannot be seen by its number.

use orchestrator_api::text::is_unseen;

use crate::show::{Html, escape};

/// The longest line that is shown, in characters.
const LINE_MAX: usize = 4_000;

/// What cannot be seen, or steers what shows it, shows as its number; tabs stay, and so does what makes a picture of the sign before it.
fn is_odd(one: char) -> bool {
    is_unseen(one) && !matches!(one, '\t' | '\u{fe00}'..='\u{fe0f}')
}

/// One line.
pub fn line(text: &str) -> Html {
    let mut out = String::with_capacity(text.len());
    let mut plain = String::new();
    let mut shown = text.chars();
    for one in shown.by_ref().take(LINE_MAX) {
        if is_odd(one) {
            out.push_str(&escape(&plain));
            plain.clear();
            out.push_str(&format!("<span class=\"odd\">⟨{:02X}⟩</span>", u32::from(one)));
        } else {
            plain.push(one);
        }
    }
    out.push_str(&escape(&plain));
    let left = shown.count();
    if left > 0 {
        out.push_str(&format!("<span class=\"odd\">⟨{left} more characters⟩</span>"));
    }
    Html::of(out)
}

/// The same as plain text.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars().take(LINE_MAX) {
        if is_odd(one) {
            out.push_str(&format!("⟨{:02X}⟩", u32::from(one)));
        } else {
            out.push(one);
        }
    }
    out
}

/// Lines, without what ends them.
pub fn lines(text: &str) -> Vec<Html> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').map(|one| line(one.strip_suffix('\r').unwrap_or(one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_nothing_but_stand_there() {
        let table = [
            ("a\tb", "a\tb"),
            ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
            ("\x1b[31mred", "<span class=\"odd\">⟨1B⟩</span>[31mred"),
            ("if (a) {\u{202e} }", "if (a) {<span class=\"odd\">⟨202E⟩</span> }"),
            ("a\u{3164}b", "a<span class=\"odd\">⟨3164⟩</span>b"),
            ("\u{2714}\u{fe0f} done", "\u{2714}\u{fe0f} done"),
        ];
        for (text, shown) in table {
            assert_eq!(line(text).as_str(), shown);
        }
        assert!(line(&"x".repeat(5_000)).as_str().ends_with("⟨1000 more characters⟩</span>"));
        assert_eq!(plain("\x1b[2J<b>\tx"), "⟨1B⟩[2J<b>\tx");
        assert_eq!(lines("a\r\nb\n").len(), 2);
        assert_eq!(lines("").len(), 1);
    }
}
