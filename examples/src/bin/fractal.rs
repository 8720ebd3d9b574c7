//! A fractal, drawn line by line by a pool whose servers crash meanwhile. At the end, the picture
//! is compared with one that is computed without a pool.
//!
//! ```sh
//! cargo run --release -p rserpool-examples --bin fractal -- --runtime smol
//! ```

use std::cell::RefCell;
use std::fs::File;
use std::future::pending;
use std::io::BufWriter;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::testing::{TestPool, TestServer};
use rserpool::{
    InvalidState, PoolElement, PoolUser, RequestConfig, RequestEvent, Service, ServiceConfig,
};

const POOL: &str = "FractalPool";

const WIDTH: u16 = 480;
const HEIGHT: u16 = 320;

/// Service that draws the requested lines. It has no state: the client keeps track of the lines.
struct Painter;

impl Service for Painter {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        let row = request[..].try_into().map_or(0, u16::from_be_bytes);
        line(row).into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

/// Returns one line of the Mandelbrot set, in shades of grey.
fn line(row: u16) -> Vec<u8> {
    let pixel = |column: u16| {
        let x0 = f64::from(column) / f64::from(WIDTH) * 3.0 - 2.2;
        let y0 = f64::from(row) / f64::from(HEIGHT) * 2.4 - 1.2;
        let (mut x, mut y, mut steps) = (0.0, 0.0, 0_u8);
        while x * x + y * y < 4.0 && steps < 255 {
            (x, y) = (x * x - y * y + x0, 2.0 * x * y + y0);
            steps += 1;
        }
        steps.wrapping_mul(8)
    };
    (0..WIDTH).map(pixel).collect()
}

fn main() -> anyhow::Result<()> {
    rserpool_examples::run_with_pool(POOL.parse()?, fractal)
}

async fn fractal(pool: TestPool) -> anyhow::Result<()> {
    let keys = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(start_server(&pool, &keys).await?);
    }
    let servers = RefCell::new(servers);

    let user = pool.user();
    // Each of four sessions draws every fourth line.
    let parts = (0..4).map(|part| draw(&user, part, &servers));
    let parts = try_join_all(parts).await?;
    let picture: Vec<u8> = (0..HEIGHT)
        .flat_map(|row| parts[usize::from(row) % 4][usize::from(row) / 4].clone())
        .collect();
    assert_eq!(picture, (0..HEIGHT).flat_map(line).collect::<Vec<_>>());

    let path = std::env::temp_dir().join("rserpool-fractal.png");
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(&path)?), WIDTH.into(), HEIGHT.into());
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header()?.write_image_data(&picture)?;
    println!("the picture is in {}, the same as without a pool", path.display());
    Ok(())
}

/// Draws every fourth line from `first` on, in one session. The sessions of the first two parts
/// crash the servers meanwhile.
async fn draw(
    user: &PoolUser,
    first: u16,
    servers: &RefCell<Vec<TestServer>>,
) -> anyhow::Result<Vec<Bytes>> {
    let mut session = user.open_requests(POOL, RequestConfig::default().limit(8)).await?;
    let rows: Vec<u16> = (first..HEIGHT).step_by(4).collect();
    let (mut asked, mut lines) = (0, Vec::new());
    let mut kills = first < 2;
    while lines.len() < rows.len() {
        while asked < rows.len() && session.submit(rows[asked].to_be_bytes().to_vec()).is_ok() {
            asked += 1;
        }
        match session.event().await? {
            RequestEvent::Reply { body, .. } => lines.push(body),
            RequestEvent::FailoverCompleted { from, to } => {
                println!("{to} goes on for {from}, from line {}", rows[lines.len()]);
            }
            _ => {}
        }
        if kills && lines.len() == 20 {
            kills = false;
            let mut servers = servers.borrow_mut();
            let serving = |it: &TestServer| session.element() == Some(it.identifier());
            if let Some(at) = servers.iter().position(serving) {
                println!("the server dies that drew line {}", rows[19]);
                servers.remove(at).kill();
            }
        }
    }
    session.close().await;
    Ok(lines)
}

async fn start_server(pool: &TestPool, keys: &KeyRing) -> anyhow::Result<TestServer> {
    let config = ServiceConfig::new(Seal::new(POOL.parse()?, keys.clone()));
    let serve = async |element: PoolElement| {
        element.serve(config, || Painter, pending::<()>(), Duration::ZERO).await;
    };
    Ok(pool.server(serve).await)
}
