"use strict";
// Shows what the agent knows and follows it. Everything that comes from there is put into the page as text, never as markup:
// commit messages, file contents and what services print were written by others.

const $ = (id) => document.getElementById(id);
const TOKEN = "mainstay-token";

/** Makes an element. Children that are no elements become text. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** How a state looks: its words say the same. */
const LOOKS = {
  converged: "good", repaired: "good",
  applying: "busy", waiting: "busy", starting: "busy",
  drifted: "warn", "rolled-back": "warn", unconverged: "warn", removed: "quiet",
  failed: "bad", unhealthy: "bad",
};

const look = (state) => LOOKS[state] || "quiet";
const words = (state) => state.replace("-", " ");
const pill = (state) => el("span", { class: `pill ${look(state)}` }, words(state));
const short = (id) => id.slice(0, 10);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function age(moment) {
  const seconds = Math.round((Date.now() - new Date(moment).getTime()) / 1000);
  if (seconds < 5) return "just now";
  for (const [unit, name] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
    if (seconds >= unit) return `${count(Math.floor(seconds / unit), name)} ago`;
  }
  return "just now";
}

function when(moment) {
  const date = new Date(moment);
  return el("time", { datetime: moment, title: date.toLocaleString() }, age(moment));
}

function release(commit) {
  if (!commit) return [el("span", {}, "a local folder")];
  const subject = commit.subject ? ` ${commit.subject}` : "";
  return [el("span", { class: "id", title: commit.id }, short(commit.id)), subject];
}

function diff(difference) {
  const lines = difference.text.replace(/\n$/, "").split("\n").filter((line) => !/^(---|\+\+\+) \//.test(line));
  const kinds = { "+": "add", "-": "cut", "@": "at" };
  const shown = lines.map((line) => el("span", { class: kinds[line[0]] || "same" }, line || " "));
  const title = `Difference of ${difference.path}`;
  return el("div", {}, el("p", { class: "id" }, difference.path),
    el("pre", { class: "diff", tabindex: "0", role: "region", "aria-label": title }, ...shown));
}

function step(it) {
  const of = it.app ? ` ${it.app}` : "";
  return el("li", {}, el("span", { class: "verb" }, it.verb), ` ${it.object}`,
    el("span", { class: "quiet" }, `${of && ` ·${of}`} · ${it.why}`));
}

/** Puts children in place, unless what they say is what is there: who reads or has the focus there is not disturbed. */
const said = new Map();
function show(place, value, make) {
  const text = JSON.stringify(value);
  if (said.get(place) === text) return;
  said.set(place, text);
  const open = new Set([...place.querySelectorAll("details[open]")].map((it) => it.dataset.key));
  place.replaceChildren(...make());
  for (const details of place.querySelectorAll("details")) {
    if (open.has(details.dataset.key)) details.open = true;
  }
}

function card(name, app) {
  const [first, ...rest] = (app.trouble || "").split("\n");
  const bad = app.bad
    ? `${app.bad.commit ? short(app.bad.commit) : "The release"} is not tried again until a commit changes it, or “mainstay retry ${name}”`
    : null;
  return el("li", { class: "card" },
    el("div", { class: "head" }, el("h3", {}, name), pill(app.state)),
    el("p", {}, ...release(app.commit)),
    el("p", { class: "quiet" }, `${words(app.state)} `, when(app.since),
      app.commit && app.commit.committed ? ", committed " : null,
      app.commit && app.commit.committed ? when(app.commit.committed) : null),
    first ? el("p", {}, first) : null,
    rest.length ? el("pre", { class: "said", tabindex: "0", role: "region", "aria-label": `What ${name} said` }, rest.map((line) => line.replace(/^ {2}\| /, "")).join("\n")) : null,
    bad ? el("p", { class: "quiet" }, bad) : null);
}

function banners(status) {
  const all = [];
  const add = (kind, title, text) => all.push(el("div", { class: `banner ${kind}` }, el("strong", {}, title), el("span", {}, text)));
  if (status.refused) add("bad", `Commit ${short(status.refused.commit)} is refused; the last good state stays`, status.refused.why);
  if (status.unreachable) add("warn", "The repository does not answer; what was believed stays enforced", status.unreachable);
  if (status.unreported) add("warn", "Records cannot be pushed; they are kept", status.unreported);
  if (status.stale) add("bad", "Newer commits may be withheld", status.stale);
  if (status.trust && status.trust.require === "none") add("warn", "Nobody has to sign commits", "Whoever can push to the branch is root on this host.");
  const { held, paused } = status.plan;
  for (const [whom, pause] of Object.entries({ ...(paused.host && { "this host": paused.host }), ...paused.apps })) {
    add("warn", `Paused: nothing of ${whom} is changed until ${new Date(pause.until).toLocaleString()}`, pause.reason);
  }
  if (held) add("warn", `${held.removals.length} of ${held.owned} owned things would be removed at once`, `To let this happen, acknowledge “${held.acknowledge}” in fleet.yaml:\n${held.removals.join("\n")}`);
  return all;
}

function trouble(plan) {
  const lines = [];
  const add = (kind, app, title, text) => lines.push(el("div", { class: "card" },
    el("div", { class: "head" }, el("h3", {}, title), el("span", { class: `pill ${look(kind)}` }, app || "this host")), el("p", {}, text)));
  for (const it of plan.conflicts) add("failed", it.app, it.resource, it.why);
  for (const it of plan.contested) add("drifted", it.app, it.resource, "somebody else changes it back again and again; it is no longer put back");
  for (const it of plan.drift) add("drifted", it.app, `${it.verb} ${it.object}`, it.why);
  for (const it of plan.unknown) add("drifted", it.app, it.resource, it.why);
  for (const it of plan["held-back"]) add("rolled-back", it.app, { waits: "waits", paused: "paused" }[it.why] || "held back",
    it.for || (it.why === "paused" ? "the commit has another release, which waits for the end of the pause" : "the commit's release failed here"));
  for (const it of plan.postponed) add("applying", it.app, `${it.verb} ${it.object}`, `${it.why}; waits for the end of the pause`);
  for (const it of plan.waiting) lines.push(el("div", { class: "card" }, el("p", {}, `${it.app} is tried again at ${new Date(it.until).toLocaleTimeString()}`)));
  for (const it of plan.notes) add("applying", it.app, it.resource, it.text);
  if (plan.steps.length) lines.push(el("div", { class: "card" }, el("h3", {}, "Being done"), el("ul", { class: "steps" }, ...plan.steps.map(step))));
  const differences = plan.differences.map(diff);
  return differences.length ? [el("div", { class: "cards" }, ...lines), ...differences] : [el("div", { class: "cards" }, ...lines)];
}

function change(it) {
  const failed = it.failed.length ? `, failed in ${it.failed.join(", ")}` : "";
  const summary = el("summary", {}, when(it.at), ` · ${count(it.steps.length + it.more, "step")}${failed} · `,
    it.steps.slice(0, 3).map((step) => `${step.verb} ${step.object}`).join(", "), it.steps.length > 3 ? " …" : "");
  const more = it.more ? el("p", { class: "quiet" }, `and ${it.more} more`) : null;
  return el("details", { "data-key": it.at }, summary,
    el("div", {}, el("ul", { class: "steps" }, ...it.steps.map(step)), ...[more].filter(Boolean), ...it.differences.map(diff)));
}

/** Entries of one commit that follow upon each other are one moment of the timeline. */
function timeline(entries) {
  const moments = [];
  for (const entry of entries) {
    const last = moments.at(-1);
    if (last && last.commit.id === entry.commit.id) last.entries.push(entry);
    else moments.push({ commit: entry.commit, entries: [entry] });
  }
  return moments.map(({ commit, entries: all }) => {
    const looks = all.map((entry) => look(entry.state));
    const worst = ["bad", "warn", "busy", "good"].find((kind) => looks.includes(kind)) || "quiet";
    const lines = all.map((entry) => el("li", {}, pill(entry.state), ` ${entry.app} `,
      el("span", { class: "quiet" }, when(entry.at), !entry["took-seconds"] ? "" : `, took ${entry["took-seconds"]} s`,
        entry.failure ? `: ${entry.failure}` : "")));
    return el("li", { class: `dot-${worst}` }, el("p", { class: "moment" }, ...release(commit)), el("ul", {}, ...lines));
  });
}

function render(status) {
  document.title = `${status.host}: ${status.condition}`;
  $("host").textContent = status.host;
  const condition = $("condition");
  if (condition.textContent !== status.condition) {
    condition.textContent = status.condition;
    condition.className = `pill ${look(status.condition)}`;
  }
  show($("commit"), [status.commit, status.repository], () => status.commit
    ? [...release(status.commit), status.commit.author ? ` · ${status.commit.author}` : "", status.commit.committed ? " · " : "", status.commit.committed ? when(status.commit.committed) : ""]
    : [status.ready ? "a local folder" : "no commit was believed yet"]);
  show($("banners"), [status.refused, status.unreachable, status.unreported, status.stale, status.trust, status.plan.held, status.plan.paused], () => banners(status));
  const apps = Object.entries(status.apps);
  show($("apps"), apps, () => apps.length ? apps.map(([name, app]) => card(name, app)) : [el("li", { class: "empty" }, "Nothing is placed here.")]);
  const { held, kept, paused, ...plan } = status.plan;
  const quiet = Object.values(plan).every((list) => list.length === 0);
  $("trouble").hidden = quiet;
  $("trouble-title").textContent = plan.steps.length ? "On its way" : "Not as the commit says";
  show($("trouble-list"), plan, () => trouble(plan));
  $("changes-section").hidden = status.changes.length === 0;
  show($("changes"), status.changes, () => status.changes.map(change));
  $("about").textContent = `mainstay ${status.agent.version}, fleet ${status.fleet || "unknown"}, branch ${status.repository.branch} of ${status.repository.url || "a local folder"}`;
  $("known").hidden = false;
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

let asking = 0;
async function past() {
  const mine = ++asking;
  // Records are written a moment after the picture is.
  await new Promise((done) => setTimeout(done, 300));
  if (mine !== asking) return;
  try {
    const answer = await fetch("v1/history?limit=60", { headers: headers() });
    if (!answer.ok) return;
    const { history } = await answer.json();
    show($("history"), history, () => history.length ? timeline(history) : [el("li", { class: "empty" }, "Nothing was deployed here yet.")]);
  } catch {
    // The events tell that nobody answers.
  }
}

function tell(text, lost) {
  const link = $("link");
  if (link.textContent !== text) link.textContent = text;
  link.className = lost ? "link lost" : "link";
}

/** Follows the events until they end; true when the host asks for a token. */
async function follow() {
  const stop = new AbortController();
  let silent = setTimeout(() => stop.abort(), 20000);
  const answer = await fetch("v1/events", { headers: headers(), signal: stop.signal });
  if (answer.status === 401) {
    clearTimeout(silent);
    return true;
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return false;
    clearTimeout(silent);
    silent = setTimeout(() => stop.abort(), 45000);
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data: "));
      text = text.slice(end + 2);
      if (data.length) {
        render(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
        past();
      }
      tell("live", false);
    }
  }
}

async function live() {
  let wait = 1000;
  for (;;) {
    const begun = Date.now();
    try {
      if (await follow()) {
        $("door").hidden = false;
        $("known").hidden = true;
        $("condition").textContent = "locked";
        $("wrong").textContent = sessionStorage.getItem(TOKEN) ? "This is not the token of this host." : "";
        sessionStorage.removeItem(TOKEN);
        tell("", false);
        $("token").focus();
        return;
      }
    } catch {
      // Said below, whatever it was.
    }
    wait = Date.now() - begun > 10000 ? 1000 : Math.min(wait * 2, 15000);
    tell("connection lost: what is shown may be old; trying again", true);
    await new Promise((done) => setTimeout(done, wait));
  }
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  $("door").hidden = true;
  live();
});

setInterval(() => {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time")) time.textContent = age(time.dateTime);
}, 10000);

live();
