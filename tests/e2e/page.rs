//! The page in a real browser: what it shows, live, to everybody, and that nothing it is told becomes markup.
//!
//! With `MAINSTAY_PICTURES=FOLDER`, pictures of it are kept there.

use std::path::PathBuf;

use lab::{Browser, Host};
use serde_json::json;

use crate::{agent, start};

const FLEET: &str = "fleet: home\nhosts:\n  attic: {}\n";
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const HOSTILE: &str = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>";
const FAILS: &str = "[Service]\nType=oneshot\nExecStart=sh -c 'echo \"<b onclick=x>bold</b><script>window.pwned=1</script>\"; exit 1'\n[Install]\nWantedBy=multi-user.target\n";

/// The least contrast of any text with what is behind it, and the text.
pub(crate) const CONTRAST: &str = r#"
    const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
    const light = ({ r, g, b }) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const behind = (element) => {
        for (let it = element; it; it = it.parentElement) {
            const colour = parse(getComputedStyle(it).backgroundColor);
            if (colour.a > 0) return colour;
        }
        return { r: 255, g: 255, b: 255 };
    };
    let least = [21, ''];
    for (const element of document.querySelectorAll('body *')) {
        const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
        if (!texts.length || !element.checkVisibility() || element.classList.contains('skip')) continue;
        const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < least[0]) least = [ratio, texts[0].textContent];
    }
    return least;
"#;

/// What a reader without eyes needs.
pub(crate) const ACCESS: &str = r#"
    const wrong = [];
    const say = (condition, words) => { if (!condition) wrong.push(words); };
    say(document.documentElement.lang === 'en', 'no language');
    say(document.querySelectorAll('h1').length === 1, 'not one h1');
    for (const tag of ['header', 'main', 'footer']) say(document.querySelectorAll(tag).length === 1, `not one ${tag}`);
    let level = 0;
    for (const heading of document.querySelectorAll('h1, h2, h3')) {
        const its = Number(heading.tagName[1]);
        if (heading.checkVisibility()) { say(its <= level + 1, `${heading.textContent} skips a level`); level = its; }
    }
    for (const input of document.querySelectorAll('input')) say(input.labels.length, 'an input has no label');
    const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
    say(new Set(ids).size === ids.length, 'an id is there twice');
    for (const section of document.querySelectorAll('section')) say(section.ariaLabel || document.getElementById(section.getAttribute('aria-labelledby')), 'a section has no name');
    return wrong;
"#;

struct Page<'a> {
    browser: Browser,
    host: &'a Host,
    pictures: Option<PathBuf>,
}

impl Page<'_> {
    fn wait(&self, script: &str) {
        if let Err(error) = self.browser.wait_for(agent::SOON, script) {
            panic!("{error:#}\n{:?}\n{}", self.browser.complaints(), agent::log(self.host));
        }
    }

    fn size(&self, width: u32, height: u32, mobile: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.browser.devtools("Emulation.setDeviceMetricsOverride", &size).unwrap();
    }

    fn colours(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.browser.devtools("Emulation.setEmulatedMedia", &features).unwrap();
    }

    fn picture(&self, name: &str) {
        if let Some(folder) = &self.pictures {
            self.browser.picture(&folder.join(name)).unwrap();
        }
    }

    /// Checks what must hold however it is looked at.
    fn is_readable(&self) {
        for scheme in ["light", "dark"] {
            self.colours(scheme);
            let least = self.browser.run(CONTRAST).unwrap();
            assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
        }
        self.colours("light");
        assert_eq!(self.browser.run(ACCESS).unwrap(), json!([]));
    }
}

#[test]
fn the_page_shows_the_host_as_it_is() {
    let Some(lab) = start() else { return };
    let (forge, host) = (lab.forge().unwrap(), lab.boot("attic").unwrap());
    forge.authorize(&host).unwrap();
    let repo = forge.repo("fleet").unwrap();
    let files = [
        ("fleet.yaml", FLEET),
        ("apps/web/web.service", STAYS),
        ("apps/web/files/etc/web/page", "one\ntwo\nthree\n"),
        ("apps/broker/broker.service", STAYS),
        ("apps/broker/files/etc/broker/listen", "listener 1883\n"),
        ("apps/broker/app.yaml", "files:\n  /etc/broker/listen: { drift: report }\n"),
        ("apps/import/import.service", FAILS),
    ];
    let first = repo.commit(&files, HOSTILE).unwrap();
    host.sh("mkdir -p /etc/mainstay").unwrap();
    host.write("/etc/mainstay/token", "correct horse battery staple\n").unwrap();
    agent::follow(&host, &repo.ssh_url(), "endpoint: { listen: [\"127.0.0.1:9105\"], token: /etc/mainstay/token }\n");
    agent::await_status(&host, &format!("on {}, 1 of 3", &first[..10]));
    let pictures = std::env::var_os("MAINSTAY_PICTURES").map(PathBuf::from);
    let page = Page { browser: Browser::start(&host).unwrap(), host: &host, pictures };
    let browser = &page.browser;
    page.size(1200, 1400, false);
    browser.open("http://127.0.0.1:9105/").unwrap();
    token_is_asked_for(&page);
    page.wait("document.querySelectorAll('#apps .card').length === 3");
    page.wait("document.getElementById('link').textContent === 'live'");
    page.wait("document.querySelectorAll('#history > li').length > 0");
    browser.run("window.sameDocument = true").unwrap();

    // What others wrote is text.
    page.wait(&format!("document.getElementById('commit').textContent.includes({})", json!(HOSTILE)));
    page.wait("[...document.querySelectorAll('#apps .card')].some((it) => it.textContent.includes('failed'))");
    assert_eq!(
        browser.run("return window.pwned === undefined && !document.querySelector('img, b, main script')").unwrap(),
        true
    );

    // Drift that is only reported, with what differs; drift that was put back, with what was changed.
    host.sh("echo '<script>window.pwned=1</script>' > /etc/broker/listen; echo changed > /etc/web/page").unwrap();
    page.wait("document.querySelector('#trouble-list .diff .cut')?.textContent.includes('<script>window.pwned=1')");
    page.wait("document.querySelector('#changes .diff .cut')?.textContent === '-changed'");

    // A commit is live without anybody asking again.
    let second = repo.commit(&[("apps/web/files/etc/web/page", "one\n2\nthree\n")], "web: count in digits").unwrap();
    page.wait(&format!("document.getElementById('commit').textContent.includes('{}')", &second[..10]));
    page.wait("document.getElementById('history').textContent.includes('web: count in digits')");
    assert_eq!(browser.run("return window.sameDocument && window.pwned === undefined").unwrap(), true);

    page.is_readable();
    assert_eq!(browser.complaints().unwrap(), Vec::<String>::new());
    browser.run("document.querySelector('#changes details').open = true").unwrap();
    page.picture("desktop-light.png");
    page.colours("dark");
    page.picture("desktop-dark.png");
    page.size(360, 2400, true);
    page.picture("phone-dark.png");
    page.colours("light");
    page.picture("phone-light.png");
    let wide = browser.run("return document.documentElement.scrollWidth").unwrap();
    assert!(wide.as_u64().unwrap() <= 360, "{wide}");

    // With the keyboard alone: past the head, and into what scrolls.
    page.size(1200, 1400, false);
    browser.open("http://127.0.0.1:9105/").unwrap();
    page.wait("document.getElementById('link').textContent === 'live'");
    browser.keys("\u{e004}").unwrap();
    assert_eq!(browser.run("return document.activeElement.className").unwrap(), "skip");
    browser.keys("\u{e007}").unwrap();
    page.wait("document.activeElement.id === 'main'");

    // Whoever lost the agent says so, and comes back: here to one that asks for no token, and tells less.
    host.sh("systemctl stop mainstay").unwrap();
    page.wait("document.getElementById('link').textContent.startsWith('connection lost')");
    page.picture("lost.png");
    agent::set(&host, &repo.ssh_url(), "endpoint: { listen: [\"127.0.0.1:9105\"] }\n");
    host.sh("systemctl start mainstay").unwrap();
    page.wait("document.getElementById('link').textContent === 'live' && !document.querySelector('.diff, #apps pre')");
    page.wait("document.querySelector('#trouble-list').textContent.includes('/etc/broker/listen')");
    // Only the connections that were lost and the refusals that were meant.
    let complaints = browser.complaints().unwrap();
    assert!(complaints.iter().all(|it| it.contains("ERR_") || it.contains("401")), "{complaints:#?}");
}

fn token_is_asked_for(page: &Page<'_>) {
    let browser = &page.browser;
    page.wait("document.activeElement.id === 'token'");
    assert_eq!(browser.run("return document.getElementById('known').checkVisibility()").unwrap(), false);
    page.is_readable();
    page.picture("door.png");
    browser.keys("a wrong one\u{e007}").unwrap();
    page.wait("document.getElementById('wrong').textContent.includes('not the token')");
    browser.keys("correct horse battery staple\u{e007}").unwrap();
    // Who proved who they are sees what services print, as text.
    page.wait("document.querySelector('#apps pre')?.textContent.includes('<b onclick=x>bold</b>')");
    // The refusals that were meant.
    let complaints = browser.complaints().unwrap();
    assert!(complaints.iter().all(|it| it.contains("401")), "{complaints:#?}");
}
