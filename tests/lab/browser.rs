//! A real browser of the machine, without a window, in a host's network: what it is asked to open, it gets from there.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{Host, machine, shell};

/// Chromium, what drives it, and letters for it.
const PROGRAMS: [(&str, &str); 2] = [("chromium", "chromium"), ("chromedriver", "chromium-driver")];
const DEADLINE: Duration = Duration::from_secs(60);
/// In the host's network, which is its own.
const ADDRESS: &str = "http://127.0.0.1:9515";

/// Installs what is missing of it.
pub(crate) fn ensure() -> Result<()> {
    machine::ensure(&PROGRAMS)
}

/// A browser that shows one page; it ends with this value.
pub struct Browser {
    driver: Child,
    network: String,
    session: String,
}

impl Browser {
    /// Starts a browser in the network of `host`; installs it first where it is missing.
    pub fn start(host: &Host) -> Result<Browser> {
        ensure()?;
        let network = format!("/proc/{}/ns/net", host.leader_pid()?);
        let mut driver = within(&network, &["chromedriver", "--port=9515", "--log-level=SEVERE"]);
        let null = std::process::Stdio::null;
        let driver = driver.stdout(null()).stderr(null()).spawn().context("failed to start chromedriver")?;
        let mut browser = Browser { driver, network, session: String::new() };
        let ready = || Ok(browser.call("GET", "/status", &Value::Null).ok().filter(|it| it["ready"] == true));
        shell::poll(DEADLINE, ready)?.context("chromedriver is not ready in time")?;
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--no-proxy-server",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": arguments },
        } } });
        let begun = browser.call("POST", "/session", &wanted).context("failed to start chromium")?;
        browser.session = begun["sessionId"].as_str().context("chromedriver names no session")?.to_owned();
        Ok(browser)
    }

    /// Opens a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", "/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script in the page and returns what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns true; the error shows what the page says.
    pub fn wait_for(&self, deadline: Duration, script: &str) -> Result<()> {
        let end = Instant::now() + deadline;
        while self.run(&format!("return Boolean({script})"))? != true {
            if Instant::now() > end {
                let said = self.run("return document.body.innerText")?;
                bail!("not true within {deadline:?}: {script}\n{}", said.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Types into whatever has the focus; `\u{e004}` is the key Tab, `\u{e007}` Enter.
    pub fn keys(&self, text: &str) -> Result<()> {
        let strokes = text
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]);
        let actions =
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>() }] });
        self.ask("POST", "/actions", &actions).map(drop)
    }

    /// Asks Chromium's own protocol for something that the standard has no word for.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.ask("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What the page complained about since this was asked last.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.ask("POST", "/se/log", &json!({ "type": "browser" }))?;
        let lines = log.as_array().into_iter().flatten().filter(|line| line["level"] == "SEVERE");
        Ok(lines.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Keeps a picture of the page, as PNG.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let encoded = self.ask("GET", "/screenshot", &Value::Null)?;
        let scratch = tempfile::NamedTempFile::new().context("failed to make a file")?;
        std::fs::write(scratch.path(), encoded.as_str().unwrap_or_default()).context("failed to write a picture")?;
        let mut decode = shell::command("sh");
        decode.args(["-c", "base64 -d \"$1\" > \"$2\"", "sh"]).arg(scratch.path()).arg(path);
        shell::check(&mut decode, DEADLINE).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let scratch = tempfile::NamedTempFile::new().context("failed to make a file")?;
        std::fs::write(scratch.path(), body.to_string()).context("failed to write a question")?;
        let url = format!("{ADDRESS}{path}");
        let mut curl = within(&self.network, &["curl", "-sS", "--noproxy", "*", "-X", method, &url]);
        if !body.is_null() {
            curl.arg("--data-binary").arg(format!("@{}", scratch.path().display()));
        }
        let said = shell::check(&mut curl, DEADLINE)?;
        let mut said: Value = serde_json::from_str(&said).with_context(|| format!("{method} {path}: {said}"))?;
        let value = said["value"].take();
        match value["error"].as_str() {
            Some(error) => bail!("{method} {path}: {error}: {}", value["message"].as_str().unwrap_or_default()),
            None => Ok(value),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty()
            && let Err(error) = self.ask("DELETE", "", &Value::Null)
        {
            eprintln!("lab: the browser did not end: {error:#}");
        }
        if let Err(error) = shell::kill_group(&mut self.driver) {
            eprintln!("lab: chromedriver did not end: {error:#}");
        }
    }
}

fn within(network: &str, program: &[&str]) -> Command {
    let mut command = shell::command("nsenter");
    command.arg(format!("--net={network}")).arg("--").args(program);
    command
}
