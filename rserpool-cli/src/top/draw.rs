//! The picture of a registrar, for terminals of 80 columns and more.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table, TableState};
use serde_json::Value;

use super::View;
use crate::table::{self, printable, seconds, text};

/// Width of a load bar in columns.
const BAR: usize = 10;

/// Draws a view.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let peers = u16::try_from(view.peers.len()).unwrap_or(u16::MAX).clamp(1, 4) + 2;
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(5),
        Constraint::Length(peers),
        Constraint::Length(1),
    ]);
    let [head, rows, peers, foot] = areas.areas(frame.area());
    draw_head(frame, head, view);
    match &view.pool {
        Some(pool) => draw_elements(frame, rows, view, pool),
        None => draw_pools(frame, rows, view),
    }
    draw_peers(frame, peers, view);
    let keys = match view.pool {
        Some(_) => " Esc pools  n next page  f first page  q end",
        None => " Enter elements  n next page  f first page  q end",
    };
    let line = match &view.error {
        Some(error) => Line::from(format!(" no answer: {}", printable(error))).red(),
        None => Line::from(keys).dim(),
    };
    frame.render_widget(line, foot);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let status = &view.status;
    let name =
        status["name"].as_str().map(|name| format!("{} ", printable(name))).unwrap_or_default();
    let ready = status["joined"] == true && status["ready"] == true;
    let first = Line::from(vec![
        Span::from(format!(" {name}{}", text(&status["identifier"]))).bold(),
        Span::from(if ready { "  ready" } else { "  starting" }),
        Span::from(format!(
            "  {} pools  {} elements  {} own  {} connections",
            status["pools"], status["elements"], status["own_elements"], status["connections"]
        )),
    ]);
    let rates = view.rates.iter().map(|(name, rate)| format!(" {name} {rate:.1}"));
    let second = Line::from(format!("{} /s", rates.collect::<String>())).dim();
    frame.render_widget(first, Rect { height: 1, ..area });
    frame.render_widget(second, Rect { y: area.y + 1, height: 1, ..area });
}

fn draw_pools(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.rows.iter().map(|pool| {
        Row::new([
            text(&pool["handle"]),
            text(&pool["policy"]),
            text(&pool["transport"]),
            format!("{:>8}", text(&pool["elements"])),
        ])
    });
    let widths =
        [Constraint::Min(20), Constraint::Length(24), Constraint::Length(9), Constraint::Length(8)];
    let head = Row::new(["pool", "policy", "transport", "elements"]);
    draw_table(frame, area, view, Table::new(rows, widths).header(head.dim()), "Pools");
}

fn draw_elements(frame: &mut Frame<'_>, area: Rect, view: &View, pool: &Value) {
    let rows = view.rows.iter().map(|it| {
        let element = &it["element"];
        let state = match (&it["drained"], &it["doubted"]) {
            (Value::Bool(true), _) => "drained",
            (_, Value::Bool(true)) => "doubted",
            _ => "",
        };
        Row::new([
            text(&element["identifier"]),
            table::address(element),
            load(&element["policy"]),
            seconds(&it["heard_seconds"]),
            state.to_owned(),
        ])
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Min(21),
        Constraint::Length(20),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let head = Row::new(["element", "address", "load or values", "  heard", "state"]);
    let title = format!(
        "{}: {} elements, {}",
        text(&pool["handle"]),
        pool["elements"],
        text(&pool["policy"])
    );
    draw_table(frame, area, view, Table::new(rows, widths).header(head.dim()), &title);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, view: &View, table: Table<'_>, title: &str) {
    let page = if view.after.is_some() || view.next.is_some() { ", in pages" } else { "" };
    let block = Block::new().borders(Borders::TOP).title(format!(" {title}{page} "));
    let table = table.block(block).row_highlight_style(Style::new().reversed());
    let mut state = TableState::new().with_selected(Some(view.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.peers.iter().map(|peer| {
        let lost = if peer["connected"] == true { "" } else { ", not connected" };
        Row::new([
            text(&peer["identifier"]),
            format!("{}{lost}", text(&peer["condition"])),
            text(&peer["address"]),
            seconds(&peer["heard_seconds"]),
            format!("{:>8}", text(&peer["elements"])),
        ])
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(24),
        Constraint::Min(20),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    let head = Row::new(["registrar", "condition", "address", "  heard", "elements"]);
    let block = Block::new().borders(Borders::TOP).title(" Other registrars ");
    frame.render_widget(Table::new(rows, widths).header(head.dim()).block(block), area);
}

/// Returns the load of an element as a bar and a percentage, or its policy values.
fn load(policy: &Value) -> String {
    let Some(load) = policy["load"].as_f64() else {
        return table::values(policy);
    };
    let share = load / f64::from(u32::MAX);
    let filled = (share * BAR as f64).round() as usize;
    let bar: String = (0..BAR).map(|place| if place < filled { '█' } else { '░' }).collect();
    format!("{bar} {:>3.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    use super::super::Reaction;
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn view() -> View {
        let status = |resolutions: u32| {
            json!({
                "identifier": "0x00000001", "name": "registrar-1", "joined": true, "ready": true,
                "pools": 2, "elements": 3, "own_elements": 3, "connections": 4,
                "counters": { "resolutions": resolutions },
            })
        };
        let mut view = View::default();
        let start = Instant::now();
        view.take_status(status(10), start);
        view.take_status(status(30), start + Duration::from_secs(2));
        view.peers = vec![json!({
            "identifier": "0x00000002", "condition": "alive", "address": "tcp:192.0.2.2:9901",
            "connected": false, "heard_seconds": 1.25, "elements": 7,
        })];
        view.rows = ["Echo\u{1b}[2J", "Calc"]
            .map(|handle| json!({ "handle": handle, "policy": "LeastUsed", "transport": "tcp", "elements": 3 }))
            .into();
        view
    }

    fn picture(view: &View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal.draw(|frame| draw(frame, view)).expect("it is drawn");
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(80).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_registrar_fits_80_columns_and_24_lines() {
        let mut view = view();
        let lines = picture(&view);
        assert_eq!(
            lines[0],
            " registrar-1 0x00000001  ready  2 pools  3 elements  3 own  4 connections"
        );
        assert!(lines[1].contains("resolve 10.0"), "{lines:#?}");
        let expected = "Echo\u{fffd}[2J                             LeastUsed                tcp              3";
        assert_eq!(lines[4], expected);
        let peer =
            "0x00000002 alive, not connected     tcp:192.0.2.2:9901            1.2 s        7";
        assert!(lines.iter().any(|line| line == peer), "{lines:#?}");

        let press = |view: &mut View, code| view.press(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(press(&mut view, KeyCode::Down), Reaction::Draw);
        assert_eq!(press(&mut view, KeyCode::Enter), Reaction::Load);
        assert_eq!(view.pool.as_ref().map(|pool| &pool["handle"]), Some(&json!("Calc")));
        view.rows = vec![json!({
            "element": {
                "identifier": "0x00000007",
                "user_transport": { "address": { "addresses": ["192.0.2.7"], "port": 80 } },
                "policy": { "type": "LeastUsed", "load": 0x8000_0000_u32 },
            },
            "heard_seconds": 0.5, "doubted": true,
        })];
        let lines = picture(&view);
        assert!(lines[2].contains(" Calc: 3 elements, LeastUsed "), "{lines:#?}");
        assert!(lines[4].contains("192.0.2.7:80"), "{lines:#?}");
        assert!(lines[4].contains("█████░░░░░  50 %"), "{lines:#?}");
        assert!(lines[4].ends_with("doubted"), "{lines:#?}");
        assert_eq!(press(&mut view, KeyCode::Esc), Reaction::Load);
        assert!(view.pool.is_none());
        assert_eq!(press(&mut view, KeyCode::Char('q')), Reaction::End);
    }
}
