//! A figure as SVG: three columns, time going down.
use super::figure::{Column, Row};
use svg::Document;
use svg::node::element::{Line, Rectangle, Text, Title};

const MARGIN: usize = 20;
/// Width of the column of times, and of the three others.
const TIMES: usize = 90;
const WIDTH: usize = 350;
const HEIGHT: usize = 24;
const HEAD: usize = 76;

const COLUMNS: [(Column, &str, &str); 3] = [
    (Column::Os, "OS (kernel mode)", "#dbe9f6"),
    (Column::Hardware, "Hardware", "#f6ecd5"),
    (Column::Program, "Program (user mode)", "#dff0dc"),
];

fn text(x: usize, y: usize, size: usize, content: &str) -> Text {
    Text::new(content)
        .set("x", x)
        .set("y", y)
        .set("font-size", size)
        .set("font-family", "sans-serif")
        .set("fill", "#222222")
}

/// Draws it.
#[must_use]
pub fn draw(title: &str, rows: &[Row]) -> String {
    let width = 2 * MARGIN + TIMES + COLUMNS.len() * WIDTH;
    let height = HEAD + rows.len() * HEIGHT + 2 * MARGIN;
    let mut document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .add(Title::new(title))
        .add(Rectangle::new().set("width", width).set("height", height).set("fill", "white"))
        .add(text(MARGIN, 30, 17, title).set("font-weight", "bold"))
        .add(text(MARGIN, HEAD - 14, 12, "instructions"));
    for (n, (_, name, color)) in COLUMNS.iter().enumerate() {
        let x = MARGIN + TIMES + n * WIDTH;
        let band = Rectangle::new()
            .set("x", x)
            .set("y", HEAD - 32)
            .set("width", WIDTH - 8)
            .set("height", height - HEAD + 32 - MARGIN)
            .set("fill", *color);
        document = document.add(band);
        document = document.add(text(x + 10, HEAD - 12, 14, name).set("font-weight", "bold"));
    }
    let rule = Line::new().set("stroke", "#888888").set("x1", MARGIN).set("x2", width - MARGIN);
    document = document.add(rule.set("y1", HEAD - 4).set("y2", HEAD - 4));
    let mut shown = None;
    for (n, row) in rows.iter().enumerate() {
        let y = HEAD + (n + 1) * HEIGHT - 6;
        if shown.replace(row.time) != Some(row.time) {
            document = document.add(text(MARGIN, y, 12, &row.time.to_string()));
        }
        let column = COLUMNS.iter().position(|(column, ..)| *column == row.column).unwrap_or(0);
        document = document.add(text(MARGIN + TIMES + column * WIDTH + 10, y, 13, &row.text));
    }
    document.to_string()
}
