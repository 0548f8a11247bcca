//! Lines over time, drawn here as SVG. The same in words, and in numbers below it.

use orchestrator_api::text::Time;

use super::html::{Html, escape};
use super::size::{bytes, rate};
use super::time::exact;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Parts of a hundred.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    Rate,
}

impl Unit {
    fn show(self, number: f64) -> String {
        match self {
            Self::Percent => format!("{number:.0} %"),
            Self::Bytes => bytes(number.max(0.0) as u64),
            Self::Rate => rate(number),
        }
    }
}

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it is of.
    pub label: String,
    /// From the graph's beginning to its end, evenly; none where nothing is known.
    pub points: Vec<Option<f64>>,
}

/// A graph.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Unlike that of any other graph on its page: `[a-z-]`.
    pub id: &'static str,
    /// What it shows.
    pub title: String,
    /// What is counted.
    pub unit: Unit,
    /// Where it begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
    /// How high it is at least.
    pub top: Option<f64>,
    /// At most three.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;
const ROWS_MAX: usize = 12;

/// The next number above that is round.
fn round_up(number: f64) -> f64 {
    if number <= 0.0 || !number.is_finite() {
        return 1.0;
    }
    let power = 2f64.powf(number.log2().floor());
    let steps = [1.0, 1.25, 1.5, 2.0];
    power * steps.into_iter().find(|step| power * step >= number).unwrap_or(2.0)
}

impl Graph {
    fn highest(&self) -> f64 {
        let found =
            self.lines.iter().flat_map(|line| line.points.iter().flatten()).copied().fold(0.0, f64::max);
        match self.top {
            Some(top) => top.max(found),
            None => round_up(found),
        }
    }

    fn path(points: &[Option<f64>], top: f64) -> String {
        let last = points.len().saturating_sub(1).max(1) as f64;
        let (mut out, mut pen) = (String::new(), false);
        for (at, point) in points.iter().enumerate() {
            let Some(point) = point else {
                pen = false;
                continue;
            };
            let x = at as f64 / last * WIDTH;
            let y = HEIGHT - (point / top).clamp(0.0, 1.0) * (HEIGHT - 4.0) - 2.0;
            // A point with nothing beside it is seen as a dot: a line of no length with round ends.
            let alone = !pen && points.get(at + 1).is_none_or(Option::is_none);
            out.push_str(&format!(
                "{}{x:.1} {y:.1}{}",
                if pen { 'L' } else { 'M' },
                if alone { "h.1" } else { "" }
            ));
            pen = true;
        }
        out
    }

    /// A time at the axis: the clock within a day, else the date.
    fn mark(&self, time: Time) -> String {
        let text = exact(time);
        let is_day = self.to.0 - self.from.0 <= 86_400_000;
        let part = if is_day {
            text.get(11..16).map(|clock| format!("{clock} UTC"))
        } else {
            text.get(..10).map(str::to_owned)
        };
        part.unwrap_or(text)
    }

    /// In a sentence: each line's lowest, highest and last, which is of now only where the newest point is known.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        for line in &self.lines {
            let known: Vec<f64> = line.points.iter().flatten().copied().collect();
            let Some(last) = known.last() else {
                parts.push(format!("{}: nothing known yet", line.label));
                continue;
            };
            let low = known.iter().copied().fold(f64::INFINITY, f64::min);
            let high = known.iter().copied().fold(0.0, f64::max);
            let last = match line.points.last() {
                Some(Some(now)) => format!("{} now", self.unit.show(*now)),
                _ => format!("last {}", self.unit.show(*last)),
            };
            parts.push(format!(
                "{}: {last}, from {} to {}",
                line.label,
                self.unit.show(low),
                self.unit.show(high)
            ));
        }
        parts.join("; ")
    }

    fn table(&self) -> String {
        let many = self.lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
        let each = many.div_ceil(ROWS_MAX).max(1);
        let mut out = String::from("<table><thead><tr><th scope=\"col\">From</th>");
        for line in &self.lines {
            out.push_str(&format!("<th scope=\"col\">{}</th>", escape(&line.label)));
        }
        out.push_str("</tr></thead><tbody>");
        for first in (0..many).step_by(each) {
            let at = self.from.0 + (self.to.0 - self.from.0) * first as i64 / many.max(1) as i64;
            out.push_str(&format!("<tr><td>{}</td>", exact(Time(at))));
            for line in &self.lines {
                let known: Vec<f64> = line.points.iter().skip(first).take(each).flatten().copied().collect();
                let shown = match known.len() {
                    0 => "–".to_owned(),
                    count => self.unit.show(known.iter().sum::<f64>() / count as f64),
                };
                out.push_str(&format!("<td>{shown}</td>"));
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table>");
        out
    }

    /// The figure.
    pub fn html(&self) -> Html {
        let top = self.highest();
        let (id, title, words) = (self.id, escape(&self.title), escape(&self.words()));
        let mut out = format!(
            "<figure class=\"graph\"><figcaption><b>{title}</b><span>{words}</span></figcaption>\
             <svg role=\"img\" aria-labelledby=\"{id}-title {id}-words\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\">\
             <title id=\"{id}-title\">{title}</title><desc id=\"{id}-words\">{words}</desc>\
             <path class=\"grid\" d=\"M0 2h{WIDTH}M0 {}h{WIDTH}M0 {}h{WIDTH}\"/>",
            HEIGHT / 2.0,
            HEIGHT - 2.0
        );
        for (at, line) in self.lines.iter().take(3).enumerate() {
            out.push_str(&format!(
                "<path class=\"line line-{}\" d=\"{}\"/>",
                at + 1,
                Self::path(&line.points, top)
            ));
        }
        out.push_str(&format!(
            "</svg><p class=\"axis\" aria-hidden=\"true\"><span>{}</span><span>top: {}</span><span>{}</span></p>",
            self.mark(self.from),
            self.unit.show(top),
            self.mark(self.to)
        ));
        if self.lines.len() > 1 {
            out.push_str("<p class=\"legend\" aria-hidden=\"true\">");
            for (at, line) in self.lines.iter().take(3).enumerate() {
                out.push_str(&format!("<span class=\"key-{}\">{}</span>", at + 1, escape(&line.label)));
            }
            out.push_str("</p>");
        }
        out.push_str(&format!("<details><summary>Numbers</summary>{}</details></figure>", self.table()));
        Html::of(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(points: Vec<Option<f64>>) -> Graph {
        Graph {
            id: "cpu",
            title: "Processor".to_owned(),
            unit: Unit::Percent,
            from: Time(0),
            to: Time(3_600_000),
            top: Some(100.0),
            lines: vec![Line { label: "all <processors>".to_owned(), points }],
        }
    }

    #[test]
    fn a_gap_is_a_gap() {
        let path = Graph::path(&[Some(0.0), Some(100.0), None, Some(50.0), None], 100.0);
        assert_eq!(path, "M0.0 138.0L150.0 2.0M450.0 70.0h.1");
        assert_eq!(Graph::path(&[], 1.0), "");
    }

    #[test]
    fn a_graph_is_told_in_words_and_numbers() {
        let shown = graph(vec![Some(10.0), Some(30.0), None, Some(20.0)]).html();
        assert!(shown.as_str().contains("all &lt;processors&gt;: 20 % now, from 10 % to 30 %"), "{shown}");
        assert!(shown.as_str().contains("<td>1970-01-01 00:30:00 UTC</td><td>–</td>"), "{shown}");
        let ended = graph(vec![Some(10.0), Some(99.0), None]).words();
        assert!(ended.contains(": last 99 %, from 10 % to 99 %") && !ended.contains("now"), "{ended}");
        assert!(graph(vec![None; 60]).words().contains("nothing known yet"));
        assert!(graph(vec![Some(1.0); 1000]).html().as_str().matches("<tr>").count() <= ROWS_MAX + 1);
    }

    #[test]
    fn what_is_above_the_top_lifts_it() {
        assert_eq!(graph(vec![Some(130.0)]).highest(), 130.0);
        assert_eq!(
            (round_up(0.0), round_up(100.0), round_up(1000.0), round_up(f64::NAN)),
            (1.0, 128.0, 1024.0, 1.0)
        );
        assert_eq!(round_up(70.0), 80.0);
    }
}
