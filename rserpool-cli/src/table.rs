//! Tables, and values of documents as a person reads them.

use serde_json::Value;

/// Prints a table. The columns `right` are aligned to the right.
pub(crate) fn print(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> anyhow::Result<()> {
    for line in lines(head, right, rows) {
        out!("{line}");
    }
    Ok(())
}

/// Returns the lines of a table, see [`print()`].
pub(crate) fn lines(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell));
        cells.chain([length(head[column])]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.into_iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(head.to_vec());
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(rows).collect()
}

/// Replaces control characters, which would change the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

/// Returns a text or number of a document.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Returns a number of seconds of a document.
pub(crate) fn seconds(value: &Value) -> String {
    value.as_f64().map(|seconds| format!("{seconds:>5.1} s")).unwrap_or_default()
}

/// Returns the values of an element for its policy. Loads are percentages.
pub(crate) fn values(policy: &Value) -> String {
    let values = policy.as_object().into_iter().flatten().filter(|(name, _)| *name != "type");
    let value = |(name, value): (&String, &Value)| match value.as_f64() {
        Some(load) if name.starts_with("load") => {
            format!("{name} {:.0} %", load / f64::from(u32::MAX) * 100.0)
        }
        _ => format!("{name} {value}"),
    };
    let values = values.map(value).collect::<Vec<_>>().join(", ");
    printable(&values.replace("load_degradation", "degr.").replace('_', " "))
}

/// Returns the first address and the port of an element of a document, and how many others it has.
pub(crate) fn address(element: &Value) -> String {
    let address = &element["user_transport"]["address"];
    let host = address["addresses"][0].as_str().unwrap_or_default();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let others = address["addresses"].as_array().map_or(0, Vec::len).saturating_sub(1);
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    printable(&format!("{host}:{}{others}", address["port"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "23".to_owned()]];
        assert_eq!(lines(&["name", "n"], &[1], &rows), ["name   n", "a      1", "bcd   23"]);
        assert_eq!(lines(&["name"], &[], &[]), ["name"]);
    }

    #[test]
    fn loads_are_percentages() {
        let policy =
            json!({ "type": "X", "load": u32::MAX / 4, "load_degradation": 0, "weight": 3 });
        assert_eq!(values(&policy), "load 25 %, degr. 0 %, weight 3");
        assert_eq!(values(&json!({ "type": "RoundRobin" })), "");
        assert_eq!(printable("a\u{1b}b"), "a\u{fffd}b");
    }
}
