//! Documents that do not change: the page for an operator's browser, which shows what the rest of the
//! interface answers, and the description of the interface.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use hyper::{Response, StatusCode};

use super::{Body, text};

/// Content security policy of the page: it loads nothing from elsewhere, and no script or style but its
/// own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the document at `path`, if it is one of these.
pub(super) fn part(path: &str) -> Option<Response<Body>> {
    let (kind, content) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        "/openapi.json" => ("application/json", include_str!("openapi.json")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        _ => return None,
    };
    let mut response = text(StatusCode::OK, kind, content.to_owned());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_knows_all_events() {
        let script = include_str!("page/page.js");
        // Each event is a tuple whose first part is its name.
        let names = include_str!("json.rs").split("fn happened").nth(1).unwrap_or_default();
        let names = names.split("(\"").skip(1).filter_map(|rest| rest.split_once("\", "));
        let is_name = |name: &str| name.chars().all(|it| it.is_ascii_lowercase() || it == '_');
        let mut count = 0;
        for (name, rest) in names.filter(|(name, _)| is_name(name)) {
            if ["json!", "with(", "of("].iter().any(|begin| rest.trim_start().starts_with(begin)) {
                assert!(script.contains(&format!("\"{name}\"")), "{name}");
                count += 1;
            }
        }
        assert!(count > 10, "{count} events");
    }
}
