"use strict";

const INTERVAL = 2000;
const SAMPLES = 150;
const ROWS = 100;
const MAX_EVENTS = 100;
const RATES = ["registrations", "renewals", "resolutions", "failed_resolutions", "keep_alives", "refusals"];
// Renewals are usual, and too many to read.
const QUIET = ["renewed"];

const at = (id) => document.getElementById(id);
const get = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer.json();
};

function row(cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const place = document.createElement("td");
    if (cell instanceof Node) place.append(cell);
    else if (typeof cell === "number") {
      place.className = "number";
      place.textContent = cell.toLocaleString("en");
    } else if (cell instanceof Seconds) {
      place.className = "number";
      place.textContent = cell.text();
    } else place.textContent = cell ?? "";
    line.append(place);
  }
  return line;
}

// Keeps the rows that are the same, and with them the focus.
function fill(body, rows) {
  rows.forEach((line, index) => {
    const old = body.children[index];
    if (!old) body.append(line);
    else if (!old.isEqualNode(line)) {
      if (old.contains(document.activeElement)) {
        old.replaceWith(line);
        line.querySelector("button")?.focus();
      } else old.replaceWith(line);
    }
  });
  while (body.children.length > rows.length) body.lastElementChild.remove();
}

class Seconds {
  constructor(value) {
    this.value = value;
  }

  text() {
    if (this.value === null) return "";
    return `${this.value < 10 ? this.value.toFixed(1) : Math.round(this.value)} s`;
  }
}

const seconds = (value) => new Seconds(value);
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

// The counters of the last samples.
const samples = [];

function drawRates(counters) {
  samples.push({ time: performance.now() / 1000, counters });
  if (samples.length > SAMPLES) samples.shift();
  const place = at("rates");
  for (const name of RATES) {
    let figure = at(`rate-${name}`);
    if (!figure) {
      figure = document.createElement("figure");
      figure.id = `rate-${name}`;
      figure.innerHTML = '<figcaption><span></span><b></b></figcaption>' +
        '<svg viewBox="0 0 149 40" preserveAspectRatio="none" aria-hidden="true"><polyline></polyline></svg>';
      figure.querySelector("span").textContent = name.replaceAll("_", " ");
      place.append(figure);
    }
    const rates = samples.slice(1).map((sample, index) => {
      const before = samples[index];
      const passed = sample.time - before.time;
      return Math.max(0, sample.counters[name] - before.counters[name]) / passed;
    });
    const most = Math.max(1, ...rates);
    const last = rates.at(-1) ?? 0;
    figure.querySelector("b").textContent = last < 10 ? last.toFixed(1) : Math.round(last).toLocaleString("en");
    const from = SAMPLES - rates.length - 1;
    const points = rates.map((rate, index) => `${from + index},${(39 - 37 * rate / most).toFixed(1)}`);
    figure.querySelector("polyline").setAttribute("points", points.join(" "));
  }
}

// A list of which one page is shown.
class Pages {
  constructor(name, path, draw) {
    Object.assign(this, { name, path, draw, after: null, next: null, before: 0 });
    at(`${name}-first`).onclick = () => this.go(null, 0);
    at(`${name}-next`).onclick = () => this.go(this.next, this.before + ROWS);
  }

  go(after, before) {
    Object.assign(this, { after, before });
    return this.load();
  }

  async load() {
    const path = this.path();
    const after = this.after === null ? "" : `&after=${this.after}`;
    const page = await get(`${path}?limit=${ROWS}${after}`);
    if (path !== this.path()) return;
    this.next = page.next;
    at(`${this.name}-first`).disabled = this.after === null;
    at(`${this.name}-next`).disabled = this.next === null;
    const shown = this.draw(page);
    const range = shown === 0 ? "none" : `${this.before + 1} to ${this.before + shown}`;
    at(`${this.name}-count`).textContent = range;
  }
}

// The pool whose elements are shown.
let chosen = null;

const pools = new Pages("pools", () => "/v1/pools", (page) => {
  fill(at("pools"), page.pools.map((pool) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "handle";
    button.textContent = pool.handle;
    button.onclick = () => choose(pool);
    return row([button, pool.policy, pool.transport, pool.elements]);
  }));
  return page.pools.length;
});

const elements = new Pages("elements", () => chosen.path, (page) => {
  at("pool-title").textContent = `Pool ${page.pool.handle}: ${count(page.pool.elements, "element")}`;
  fill(at("elements"), page.elements.map((it) => {
    const { identifier, policy, home_registrar, user_transport } = it.element;
    const address = user_transport.address;
    const where = address ? address.addresses.map((ip) => `${address.protocol}:${ip}:${address.port}`).join(" ") : "";
    const state = [it.drained && "drained", it.doubted && "doubted", it.asked && "asked", it.owner && it.owner.join(" ")];
    return row([identifier, where, values(policy), home_registrar, seconds(it.registered_seconds),
      seconds(it.heard_seconds), state.filter(Boolean).join(", ")]);
  }));
  return page.elements.length;
});

function values(policy) {
  const { type, load, ...others } = policy;
  const text = [type, ...Object.entries(others).map(([name, value]) => `${name} ${value}`)].join(", ");
  const span = document.createElement("span");
  if (load !== undefined) {
    const percent = (100 * load / 0xffffffff).toFixed(0);
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${percent}%`;
    span.append(bar, `${percent} % `);
  }
  span.append(text);
  return span;
}

function choose(pool) {
  chosen = pool;
  at("pool").hidden = false;
  elements.go(null, 0).then(() => at("pool-title").focus(), () => {});
}

at("pool-close").onclick = () => {
  chosen = null;
  at("pool").hidden = true;
  at("pools").querySelector("button")?.focus();
};

async function refresh() {
  try {
    const status = await get("/v1/status");
    const name = [status.name, status.identifier].filter(Boolean).join(" ");
    document.title = at("title").textContent = `Registrar ${name}`;
    const ready = status.joined && status.ready ? "ready" : "starting";
    at("state").className = "";
    at("state").textContent = `${ready}: ${count(status.pools, "pool")}, ` +
      `${count(status.elements, "element")} (${status.own_elements.toLocaleString("en")} of its own), ` +
      `${count(status.connections, "connection")}`;
    drawRates(status.counters);
    const peers = (await get("/v1/peers")).peers;
    fill(at("peers"), peers.map((peer) => row([peer.identifier,
      peer.condition + (peer.connected ? "" : ", not connected"), peer.address, peer.elements,
      seconds(peer.heard_seconds)])));
    await pools.load();
    if (chosen !== null) {
      await elements.load().catch((error) => { at("pool-title").textContent = `Pool ${chosen.handle}: ${error.message}`; });
    }
  } catch (error) {
    at("state").className = "bad";
    at("state").textContent = `no answer: ${error.message}`;
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, INTERVAL));
  }
}

function follow() {
  const events = new EventSource("/v1/events");
  const show = (name, data) => {
    const { time, ...others } = data;
    const text = Object.entries(others).filter(([, value]) => value !== null)
      .map(([key, value]) => `${key} ${value}`).join(", ");
    at("events").prepend(row([new Date(time).toLocaleTimeString(), name.replaceAll("_", " "), text]));
    while (at("events").children.length > MAX_EVENTS) at("events").lastElementChild.remove();
  };
  for (const name of EVENTS.filter((name) => !QUIET.includes(name))) {
    events.addEventListener(name, (event) => show(name, JSON.parse(event.data)));
  }
  // The browser connects again by itself, but not after a refusal.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 10 * INTERVAL);
  });
}

const EVENTS = ["missed", "registered", "renewed", "refused", "removed", "not_taken", "peer_announced",
  "peer_connected", "peer_lost", "peer_silent", "peer_dead", "hidden", "drained", "undrained", "joined",
  "ready", "behind", "denied", "limit_hit", "crowded", "took_over", "taken_over", "left", "misbehaved"];

follow();
run();
