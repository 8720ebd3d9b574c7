//! `rserpool explain`.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use rserpool::PoolHandle;
use serde_json::Value;

use super::{AtOption, path_of};
use crate::options;
use crate::table::{self, text};

/// Show which elements of a pool the registrar selects next, and why
///
/// The registrar tries the next 1,000 resolutions on a copy of the state of the pool's policy, so that
/// the real ones stay as they are. FIRST is the share of answers in which the element comes first: the
/// user takes it. KEY or WEIGHT is what the policy goes by: the smallest key comes first, and weights are
/// proportions. STATE is drained (see `rserpool drain`), doubted (users reported it as unreachable, so it
/// comes after others), or asked (a keep-alive is unanswered). --json has more.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    #[command(flatten)]
    at: AtOption,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("{}/forecast", path_of(&arguments.pool));
    let forecast = arguments.at.ask(Method::GET, &path).await?;
    if arguments.json {
        out!("{forecast}");
        return Ok(ExitCode::SUCCESS);
    }
    let elements: Vec<_> = forecast["elements"].as_array().into_iter().flatten().collect();
    let by_weight = elements.iter().any(|element| element["rank"]["weight"].is_number());
    out!(
        "{}: {}, {} element{}, answers of up to {}",
        text(&forecast["pool"]["handle"]),
        text(&forecast["pool"]["policy"]),
        elements.len(),
        if elements.len() == 1 { "" } else { "s" },
        text(&forecast["items"])
    );
    let next: Vec<_> =
        forecast["next"].as_array().into_iter().flatten().map(text).take(5).collect();
    let drawn = if by_weight { ", as one of many draws" } else { "" };
    match next.is_empty() {
        true => out!("next: nobody"),
        false => out!("next{drawn}: {}", next.join(" ")),
    }
    let of = forecast["resolutions"].as_f64().unwrap_or(1.0);
    let share = |value: &Value| format!("{:.0} %", value.as_f64().unwrap_or(0.0) / of * 100.0);
    let rows: Vec<_> = elements
        .iter()
        .map(|element| {
            vec![
                text(&element["element"]["identifier"]),
                share(&element["first"]),
                rank(element),
                table::values(&element["element"]["policy"]),
                state(element).to_owned(),
                table::address(&element["element"]),
            ]
        })
        .collect();
    let rank = if by_weight { "WEIGHT" } else { "KEY" };
    let head = ["ELEMENT", "FIRST", rank, "VALUES", "STATE", "ADDRESS"];
    table::print(&head, &[1, 2], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what the policy goes by. A key that is a load is a percentage.
fn rank(element: &Value) -> String {
    let rank = &element["rank"];
    let is_load = element["element"]["policy"]["load"].is_number();
    match rank["key"].as_f64() {
        Some(key) if is_load => format!("{:.1} %", key / f64::from(u32::MAX) * 100.0),
        Some(_) => text(&rank["key"]),
        None => text(&rank["weight"]),
    }
}

/// Returns why an element is avoided.
fn state(element: &Value) -> &'static str {
    match (element["drained"] == true, element["doubted"] == true) {
        (true, _) => "drained",
        (_, true) => "doubted",
        _ if element["asked"] == true => "asked",
        _ => "",
    }
}
