//! `rserpool top`: a registrar in a terminal, by its HTTP interface.

mod draw;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{http, options};
use draw::draw;

/// Number of pools or elements of a page.
const PAGE: usize = 200;

/// Maximum length of an answer in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// Maximum time of a request.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show a registrar, its pools, their elements and the other registrars in the terminal
///
/// The registrar has to run with --admin.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Address of the registrar's HTTP interface
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    address: String,
    /// Seconds between two looks at the registrar
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = options::some_seconds)]
    every: Duration,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "this needs a terminal; for programs, there is http://{}/v1/status",
        arguments.address
    );
    let mut view = View::default();
    view.refresh(&arguments.address).await.with_context(|| {
        format!(
            "no registrar with an HTTP interface at {}: start it with `rserpool registrar --admin {}`",
            arguments.address, arguments.address
        )
    })?;
    let (sender, mut keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    });
    let mut terminal = ratatui::init();
    let shown = async {
        loop {
            terminal.draw(|frame| draw(frame, &view))?;
            tokio::select! {
                () = tokio::time::sleep(arguments.every) => {}
                event = keys.recv() => match event {
                    Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match view.press(key) {
                        Reaction::End => return anyhow::Ok(()),
                        Reaction::Draw => continue,
                        Reaction::Load => {}
                    },
                    Some(_) => continue,
                    None => return Ok(()),
                },
            }
            view.error =
                view.refresh(&arguments.address).await.err().map(|error| format!("{error:#}"));
        }
    };
    let result = shown.await;
    ratatui::restore();
    result.map(|()| ExitCode::SUCCESS)
}

/// Effect of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    End,
    Draw,
    Load,
}

/// State of the display.
#[derive(Debug, Default)]
struct View {
    status: Value,
    peers: Vec<Value>,
    /// The pools or, of a chosen pool, the elements.
    rows: Vec<Value>,
    /// The chosen pool.
    pool: Option<Value>,
    selected: usize,
    /// The position after which the rows begin, and that of the next page.
    after: Option<u64>,
    next: Option<u64>,
    /// The time of the last answer, and the rates of the counters since the one before.
    asked: Option<Instant>,
    rates: Vec<(&'static str, f64)>,
    /// The reason why the last request was not answered.
    error: Option<String>,
}

/// The counters whose rates are shown, and their names.
const RATES: [(&str, &str); 5] = [
    ("registrations", "register"),
    ("renewals", "renew"),
    ("resolutions", "resolve"),
    ("keep_alives", "keep-alive"),
    ("refusals", "refuse"),
];

impl View {
    async fn refresh(&mut self, address: &str) -> anyhow::Result<()> {
        let get = async |path: &str| -> anyhow::Result<Value> {
            let answer = tokio::time::timeout(PATIENCE, http::get(address, path, MAX_ANSWER)).await;
            Ok(serde_json::from_str(&answer.context("no answer in time")??)?)
        };
        let after = self.after.map(|after| format!("&after={after}")).unwrap_or_default();
        let (path, name) = match &self.pool {
            Some(pool) => {
                let path = pool["path"].as_str().context("a pool without a path")?;
                (format!("{path}?limit={PAGE}{after}"), "elements")
            }
            None => (format!("/v1/pools?limit={PAGE}{after}"), "pools"),
        };
        let status = get("/v1/status").await?;
        let mut peers = get("/v1/peers").await?;
        let mut page = get(&path).await?;
        self.take_status(status, now());
        self.peers = list(&mut peers, "peers");
        self.rows = list(&mut page, name);
        self.next = page["next"].as_u64();
        if let Some(pool) = &mut self.pool {
            *pool = page["pool"].take();
        }
        self.selected = self.selected.min(self.rows.len().saturating_sub(1));
        Ok(())
    }

    fn take_status(&mut self, status: Value, now: Instant) {
        let count = |status: &Value, name: &str| status["counters"][name].as_f64().unwrap_or(0.0);
        let passed = self.asked.map(|asked| (now - asked).as_secs_f64());
        let passed = passed.filter(|passed| *passed > 0.0);
        let rate = |(counter, name)| {
            let new = count(&status, counter) - count(&self.status, counter);
            (name, passed.map_or(0.0, |passed| new.max(0.0) / passed))
        };
        self.rates = RATES.map(rate).into();
        (self.status, self.asked) = (status, Some(now));
    }

    fn press(&mut self, key: KeyEvent) -> Reaction {
        let last = self.rows.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return Reaction::End,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Reaction::End;
            }
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(10),
            KeyCode::PageDown => self.selected = (self.selected + 10).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Enter if self.pool.is_none() => {
                let Some(pool) = self.rows.get(self.selected) else { return Reaction::Draw };
                self.go(Some(pool.clone()), None);
                return Reaction::Load;
            }
            KeyCode::Esc | KeyCode::Backspace if self.pool.is_some() => {
                self.go(None, None);
                return Reaction::Load;
            }
            KeyCode::Char('n') if self.next.is_some() => {
                let (pool, next) = (self.pool.take(), self.next);
                self.go(pool, next);
                return Reaction::Load;
            }
            KeyCode::Char('f') => {
                let pool = self.pool.take();
                self.go(pool, None);
                return Reaction::Load;
            }
            _ => {}
        }
        Reaction::Draw
    }

    /// Changes to a list, or to another page of it.
    fn go(&mut self, pool: Option<Value>, after: Option<u64>) {
        (self.pool, self.after, self.next) = (pool, after, None);
        (self.rows, self.selected) = (Vec::new(), 0);
    }
}

#[allow(clippy::disallowed_methods, reason = "the time between two answers is that of the user")]
fn now() -> Instant {
    Instant::now()
}

fn list(document: &mut Value, name: &str) -> Vec<Value> {
    match document[name].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
