//! Small line plots, as SVG, for pages that are read light or dark.

use std::fmt::Write as _;

use super::super::figures::short;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 230.0;
/// Room around the axes: left, right, top, bottom.
const MARGIN: [f64; 4] = [58.0, 18.0, 46.0, 34.0];
const COLUMNS: usize = 2;
const COLOURS: &[&str] = &["#0969da", "#bf3989", "#1a7f37"];

/// One pair of axes. Both begin at zero.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) series: Vec<Series>,
}

/// One line.
pub(super) struct Series {
    /// What it is; empty where there is only one.
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point has a dot with its value.
    pub(super) has_dots: bool,
}

/// The panels beside and below each other.
pub(super) fn svg(panels: &[Panel]) -> String {
    let columns = COLUMNS.min(panels.len()).max(1);
    let (width, height) = (WIDTH * count(columns), HEIGHT * count(panels.len().div_ceil(columns)));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#59636e\">\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = (WIDTH * count(number % columns), HEIGHT * count(number / columns));
        let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
        draw(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel) {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let x_end = end(points().map(|point| point.0));
    let y_end = end(points().map(|point| point.1));
    let [left, right, top, bottom] = MARGIN;
    let x = |value: f64| left + value / x_end * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - value / y_end * (HEIGHT - top - bottom);
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{}</text>",
        escaped(&panel.title)
    );
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (value_x, value_y) = (x_end * share, y_end * share);
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {:.1}H{:.1}\" stroke=\"#d1d9e0\" stroke-opacity=\"0.6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            left,
            y(value_y),
            WIDTH - right,
            left - 6.0,
            y(value_y) + 4.0,
            tick(value_y),
            x(value_x),
            HEIGHT - bottom + 16.0,
            tick(value_x),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        WIDTH - right,
        HEIGHT - 4.0,
        escaped(panel.x_label)
    );
    for (number, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<String> = series
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        let name_x = left + 120.0 * count(number);
        let _ = writeln!(
            svg,
            "<text x=\"{name_x}\" y=\"32\" fill=\"{colour}\">{}</text>",
            escaped(&series.name)
        );
        for point in series.points.iter().filter(|_| series.has_dots) {
            let (x, y) = (x(point.0), y(point.1));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{colour}\">{}</text>",
                y - 7.0,
                short(point.1)
            );
        }
    }
}

/// Where an axis ends: a round number at or above everything.
fn end(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    let enough = steps.into_iter().find(|step| step * unit >= most * 0.999);
    enough.unwrap_or(10.0) * unit
}

fn tick(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[expect(clippy::cast_precision_loss, reason = "a few panels")]
const fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, wanted) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (17.3, 20.0),
            (97.0, 100.0),
            (0.031, 0.032),
            (5000.0, 5000.0),
        ] {
            let end = end([0.0, most].into_iter());
            assert!((end - wanted).abs() < wanted * 1e-9, "{most}: {end}");
        }
    }

    #[test]
    fn every_point_is_inside_its_panel_and_has_its_value() {
        let panel = Panel {
            title: "a < b".to_owned(),
            x_label: "nodes",
            series: vec![Series {
                name: String::new(),
                points: vec![(1000.0, 10.0), (5000.0, 50.0)],
                has_dots: true,
            }],
        };
        let svg = svg(&[panel]);
        assert!(svg.contains("a &lt; b") && svg.contains(">50.0</text>"));
        // The last is at the end of both axes.
        assert!(svg.contains("<circle cx=\"342.0\" cy=\"46.0\""), "{svg}");
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
