"use strict";
// Shows a fleet as it was read last, and asks again. Everything that comes from there is put into the page as text, never as markup:
// commit messages and failures were written by others.

const $ = (id) => document.getElementById(id);
const TOKEN = "mainstay-fleet-token";
const MOST_ROWS = 500;
const PAUSE = 15000;

/** Makes an element. Children that are no elements become text. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** How things look that are in some condition: their words say the same. */
const LOOKS = { well: "good", moving: "busy", trouble: "bad", unheard: "warn" };
const WORDS = { well: "well", moving: "on their way", trouble: "not well", unheard: "not heard of" };
const ORDER = ["trouble", "unheard", "moving", "well"];
const short = (id) => id.slice(0, 10);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const pill = (look, text) => el("span", { class: `pill ${look}` }, text);

function length(seconds) {
  for (const [unit, name] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
    if (seconds >= unit) return count(Math.floor(seconds / unit), name);
  }
  return "a moment";
}

function age(moment) {
  return `${length(Math.round((Date.now() - new Date(moment).getTime()) / 1000))} ago`;
}

function when(moment) {
  return el("time", { datetime: moment, title: new Date(moment).toLocaleString() }, age(moment));
}

/** Puts children in place, unless what they say is what is there: who reads there is not disturbed. */
const said = new Map();
function show(place, value, make) {
  const text = JSON.stringify(value);
  if (said.get(place) === text) return;
  said.set(place, text);
  place.replaceChildren(...make());
}

function rowsOf(fleet) {
  return Object.entries(fleet.hosts).flatMap(([host, known]) =>
    Object.entries(known.apps).map(([app, it]) => ({ host, app, it, known })));
}

function banners(fleet) {
  const all = [];
  const add = (kind, title, text) => all.push(el("div", { class: `banner ${kind}` }, el("strong", {}, title), el("span", {}, text)));
  const aside = fleet["left-out"];
  if (fleet.unreachable) add("bad", "The repository cannot be fetched: what is shown may be old", fleet.unreachable);
  if (fleet.unsound) add("bad", `${short(fleet.unsound)} has mistakes`, `Hosts stay at ${short(fleet.commit)}; “mainstay check” lists what is wrong.`);
  if (aside.strangers) add("warn", `${count(aside.strangers, "ref")} of hosts that fleet.yaml does not name`, "They are left out.");
  if (aside.forged) add("bad", `${count(aside.forged, "record")} not signed by their hosts`, "They are left out: somebody who can push wrote them, or a host's key changed.");
  if (aside.unreadable) add("warn", `${count(aside.unreadable, "host")} without a record that can be read`, "They count as unreported.");
  return all;
}

function sum(fleet) {
  const it = fleet.summary;
  const parts = [
    [it.newest, "good", `at ${short(fleet.commit)}`], [it.behind, "busy", "behind"], [it.elsewhere, "warn", "at another commit"],
    [it.silent, "warn", "silent"], [it.unreported, "quiet", "unreported"],
  ];
  return parts.filter(([number]) => number).map(([number, kind, text]) => el("li", {}, pill(kind, `${number} ${text}`)));
}

function cards(rows) {
  const apps = new Map();
  for (const row of rows) {
    if (!apps.has(row.app)) apps.set(row.app, []);
    apps.get(row.app).push(row);
  }
  return [...apps].sort(([a], [b]) => a.localeCompare(b)).map(([app, of]) => {
    const conditions = ORDER.map((kind) => [kind, of.filter((row) => row.it.condition === kind).length]).filter(([, number]) => number);
    const releases = new Map();
    for (const row of of) if (row.it.release) releases.set(row.it.release, (releases.get(row.it.release) || 0) + 1);
    const most = [...releases].sort(([, a], [, b]) => b - a).slice(0, 3);
    return el("li", { class: "card" },
      el("div", { class: "head" }, el("h3", {}, app), el("span", { class: "quiet" }, count(of.length, "host"))),
      el("ul", { class: "sum" }, ...conditions.map(([kind, number]) => el("li", {}, pill(LOOKS[kind], `${number} ${WORDS[kind]}`)))),
      el("p", { class: "quiet" }, ...most.flatMap(([id, number], at) => [at ? ", " : "", el("span", { class: "id", title: id }, short(id)), ` on ${number}`])));
  });
}

function line({ host, app, it, known }) {
  const silent = known["silent-seconds"];
  const state = silent !== null && it.condition !== "trouble" ? "silent" : it.state;
  const remark = silent !== null ? el("span", { class: "quiet" }, ` silent for ${length(silent)}`) : null;
  const why = it.failure ? el("p", { class: "why" }, it.failure) : null;
  return el("tr", {}, el("th", { scope: "row" }, host), el("td", {}, app), el("td", {}, pill(LOOKS[it.condition], state.replace("-", " ")), why),
    el("td", {}, it.since ? when(it.since) : ""), el("td", {}, it.release ? el("span", { class: "id", title: it.release }, short(it.release)) : "", remark));
}

let last = null;
function table() {
  if (!last) return;
  const wanted = $("filter").value.trim().toLowerCase();
  const has = ({ host, app, it }) => [host, app, it.state, it.condition, it.release || ""].some((text) => text.toLowerCase().includes(wanted));
  const rows = rowsOf(last).filter(has).sort((a, b) => ORDER.indexOf(a.it.condition) - ORDER.indexOf(b.it.condition));
  show($("rows"), [wanted, rows.slice(0, MOST_ROWS)], () => rows.slice(0, MOST_ROWS).map(line));
  $("more").textContent = rows.length > MOST_ROWS ? `and ${rows.length - MOST_ROWS} more` : rows.length ? "" : "Nothing like that is anywhere.";
}

function render(fleet) {
  last = fleet;
  const it = fleet.summary;
  const kind = it.trouble ? "bad" : it.newest === it.hosts ? "good" : "busy";
  const words = it.trouble ? `${count(it.trouble, "application")} not well` : kind === "good" ? "converged" : `${it.newest} of ${count(it.hosts, "host")} there`;
  document.title = `${fleet.fleet}: ${words}`;
  $("fleet").textContent = fleet.fleet;
  if ($("condition").textContent !== words) $("condition").textContent = words;
  $("condition").className = `pill ${kind}`;
  show($("commit"), [fleet.commit, fleet.subject], () =>
    [el("span", { class: "id", title: fleet.commit }, short(fleet.commit)), ` ${fleet.subject || ""} · ${fleet.branch}`]);
  show($("banners"), [fleet.unreachable, fleet.unsound, fleet["left-out"]], () => banners(fleet));
  show($("sum"), it, () => sum(fleet));
  show($("apps"), fleet.hosts, () => cards(rowsOf(fleet)));
  table();
  $("about").replaceChildren("read ", when(fleet.at));
  $("known").hidden = false;
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function tell(text, lost) {
  const link = $("link");
  if (link.textContent !== text) link.textContent = text;
  link.className = lost ? "link lost" : "link";
}

async function ask() {
  const answer = await fetch("v1/fleet", { headers: headers(), signal: AbortSignal.timeout(20000) });
  if (answer.status === 401) {
    $("door").hidden = false;
    $("known").hidden = true;
    $("condition").textContent = "locked";
    $("wrong").textContent = sessionStorage.getItem(TOKEN) ? "This is not the token." : "";
    sessionStorage.removeItem(TOKEN);
    tell("", false);
    $("token").focus();
    return false;
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  render(await answer.json());
  tell("live", false);
  return true;
}

async function live() {
  for (;;) {
    try {
      if (!document.hidden && !await ask()) return;
    } catch {
      tell("nobody answers: what is shown may be old; trying again", true);
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  $("door").hidden = true;
  live();
});

$("filter").addEventListener("input", table);

setInterval(() => {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time")) time.textContent = age(time.dateTime);
}, 10000);

live();
