//! What applications offer to each other: read from app.yaml and fleet.yaml, and found for each environment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};

use super::model::{Address, Host};
use super::page::{Extent, Page};
use super::yaml::{Key, Kind, Node};
use crate::diagnostic::{Diagnostic, Location};
use crate::id::{AppName, HostName, shown};

/// What an application offers on each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    port: u16,
    scheme: String,
    path: String,
    location: Location,
}

/// Reads `endpoints:` of app.yaml.
pub(super) fn offers(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, Offer> {
    let mut offers = BTreeMap::new();
    for (key, node) in page.entries(node, "`endpoints`").unwrap_or_default() {
        let name = name(page, key);
        let offer = offer(page, key, node);
        if let (Some(name), Some(offer)) = (name, offer) {
            offers.insert(name, offer);
        }
    }
    offers
}

/// Reads `endpoints:` of an environment.
pub(super) fn externals(page: &mut Page<'_>, node: &Node) -> BTreeMap<String, Address> {
    let mut externals = BTreeMap::new();
    for (key, node) in page.entries(node, "`endpoints`").unwrap_or_default() {
        let name = name(page, key);
        let node = match &node.kind {
            Kind::Mapping(_) => {
                let Some(mut table) = page.table(node, "an endpoint") else { continue };
                let url = table.take("url").map(|(_, node)| node);
                table.finish(page, "an endpoint");
                if url.is_none() {
                    page.error("endpoint", key.extent, "this endpoint has no `url`").help(URL);
                }
                url
            }
            _ => Some(node),
        };
        let address = node.and_then(|node| external(page, node, key));
        if let (Some(name), Some(address)) = (name, address) {
            externals.insert(name, address);
        }
    }
    externals
}

/// Names are words in templates, and with upper-case letters in `endpoints.env`.
fn name(page: &mut Page<'_>, key: &Key) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let good = key.text.len() <= 63
        && key.text.starts_with(|c: char| c.is_ascii_lowercase())
        && key.text.chars().all(plain)
        && !key.text.ends_with('_');
    if !good {
        let better: String = key.text.to_lowercase().chars().map(|c| if plain(c) { c } else { '_' }).take(63).collect();
        let better = better.trim_matches(|c: char| c == '_' || c.is_ascii_digit()).to_owned();
        let help = match better.as_str() {
            "" => "begin with a letter, and use lower-case letters, digits and `_`".to_owned(),
            better => format!("call it {better}: lower-case letters, digits and `_`, beginning with a letter"),
        };
        page.error("endpoint-name", key.extent, format!("`{}` is not an endpoint's name", shown(&key.text))).help(help);
    }
    good.then(|| key.text.clone())
}

fn offer(page: &mut Page<'_>, key: &Key, node: &Node) -> Option<Offer> {
    const FORM: &str = "write { port: 1883, scheme: mqtt }, with path: /… if need be";
    let mut table = page.table(node, &format!("endpoint `{}`", shown(&key.text)))?;
    let port = match table.take("port") {
        Some((_, node)) => port(page, node),
        None => {
            page.error("endpoint", key.extent, "this endpoint names no port").help(FORM);
            None
        }
    };
    let scheme = table.take("scheme").map(|(_, node)| scheme(page, node));
    let path = table.take("path").map(|(_, node)| {
        let text = page.text(node, "`path`")?;
        let good = text.starts_with('/') && text.chars().all(is_of_url);
        if !good {
            page.error("endpoint", node.extent, format!("`{}` is not the path of a URL", shown(text)))
                .help("begin it with `/`, without spaces and quotes");
        }
        good.then(|| text.to_owned())
    });
    table.finish(page, "an endpoint");
    let scheme = scheme.unwrap_or_else(|| Some("tcp".to_owned()))?;
    let path = path.unwrap_or_else(|| Some(String::new()))?;
    Some(Offer { port: port?, scheme, path, location: page.at(key.extent) })
}

fn port(page: &mut Page<'_>, node: &Node) -> Option<u16> {
    let text = page.as_written(node, "`port`")?;
    let port = text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with(['0', '+']));
    if port.is_none() {
        page.error("endpoint", node.extent, format!("`{}` is not a port from 1 to 65535", shown(text)))
            .help("write the number, such as 1883");
    }
    port
}

fn scheme(page: &mut Page<'_>, node: &Node) -> Option<String> {
    let text = page.text(node, "`scheme`")?;
    let good = is_scheme(text);
    if !good {
        page.error("endpoint", node.extent, format!("`{}` is not a URL's scheme", shown(text)))
            .help("write lower-case letters and digits, such as mqtt or https");
    }
    good.then(|| text.to_owned())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
}

/// What may stand in a URL and needs no quotes in an environment file.
fn is_of_url(c: char) -> bool {
    c.is_ascii_graphic() && !"\"'\\`<>{}|^".contains(c)
}

const URL: &str = "write a URL, such as https://billing.example or mqtt://192.0.2.7:1883";

fn external(page: &mut Page<'_>, node: &Node, key: &Key) -> Option<Address> {
    let text = page.text(node, "an endpoint")?;
    let address = parse(text, page, key.extent);
    if address.is_none() {
        page.error("endpoint", node.extent, format!("`{}` is not a URL", shown(text))).help(URL);
    }
    address
}

fn parse(text: &str, page: &Page<'_>, extent: Extent) -> Option<Address> {
    let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
    let authority = rest.split(['/', '?', '#']).next().filter(|_| text.chars().all(is_of_url))?;
    let place = authority.rsplit('@').next().unwrap_or(authority);
    let (name, port) = match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((name, port)) => (name, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?)),
        None => (place, None),
    };
    let name = name.trim_matches(['[', ']']).to_owned();
    let location = page.at(extent);
    let address = Address { host: None, scheme: scheme.to_owned(), name, port, url: text.to_owned(), location };
    (!address.name.is_empty()).then_some(address)
}

/// Where an endpoint is found in one environment, in the order of the hosts' names.
pub(super) type Found = BTreeMap<String, Arc<[Address]>>;

/// Who offers an endpoint in one environment, `None` for one outside the fleet, and where.
type Claim = (Option<AppName>, Vec<Address>);

/// Every endpoint of the fleet.
#[derive(Default)]
pub(super) struct Exchange<'f> {
    found: BTreeMap<Option<&'f str>, BTreeMap<String, Claim>>,
    /// Who offers what, wherever it is placed.
    offered: BTreeMap<String, AppName>,
}

impl<'f> Exchange<'f> {
    /// Begins with what lies outside the fleet.
    pub(super) fn outside<'e>(
        environments: impl Iterator<Item = (Option<&'f str>, &'e BTreeMap<String, Address>)>,
    ) -> Exchange<'f> {
        let mut exchange = Exchange::default();
        for (environment, externals) in environments {
            let addresses = externals.iter().map(|(name, it)| (name.clone(), (None, vec![it.clone()])));
            exchange.found.insert(environment, addresses.collect());
        }
        exchange
    }

    /// Adds what `app` offers on some of its hosts.
    pub(super) fn add<'h>(
        &mut self,
        app: &AppName,
        offers: &BTreeMap<String, Offer>,
        hosts: impl Iterator<Item = (&'h HostName, &'f Host)>,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        for name in offers.keys() {
            self.offered.entry(name.clone()).or_insert_with(|| app.clone());
        }
        for (host, settings) in hosts {
            let found = self.found.entry(settings.environment.as_deref()).or_default();
            for (name, offer) in offers {
                let (owner, addresses) = found.entry(name.clone()).or_insert_with(|| (Some(app.clone()), Vec::new()));
                if owner.as_ref() == Some(app) {
                    addresses.push(offer.on(host, settings));
                } else if let Some(other) = addresses.first() {
                    diagnostics.push(clash(name, app, offer, owner.as_ref(), &other.location));
                }
            }
        }
    }

    /// Returns what is found in each environment, and what an endpoint's name leads to in templates there.
    pub(super) fn close(self) -> (BTreeMap<Option<String>, Found>, BTreeMap<String, AppName>) {
        let sorted = |mut addresses: Vec<Address>| {
            addresses.sort_by(|one, other| one.host.cmp(&other.host));
            Arc::from(addresses)
        };
        let found = self.found.into_iter().map(|(environment, found)| {
            let found = found.into_iter().map(|(name, (_, addresses))| (name, sorted(addresses)));
            (environment.map(str::to_owned), found.collect())
        });
        (found.collect(), self.offered)
    }
}

impl Offer {
    fn on(&self, name: &HostName, host: &Host) -> Address {
        let address = host.address.clone().unwrap_or_else(|| name.as_str().to_owned());
        let shown = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        let Offer { port, scheme, path, location } = self;
        let url = format!("{scheme}://{shown}:{port}{path}");
        let (host, location) = (Some(name.clone()), location.clone());
        Address { host, scheme: scheme.clone(), name: address, port: Some(*port), url, location }
    }
}

fn clash(name: &str, app: &AppName, offer: &Offer, other: Option<&AppName>, place: &Location) -> Diagnostic {
    let (message, what) = match other {
        Some(other) => {
            (format!("endpoint `{name}` is offered by `{other}` and `{app}` in one environment"), "offered here")
        }
        None => {
            (format!("endpoint `{name}` is offered by `{app}`, and lies outside the fleet as well"), "written here")
        }
    };
    let mut complaint = Diagnostic::error("endpoint-twice", offer.location.clone(), message);
    complaint
        .help("rename one of the two: whoever asks for it could not tell which one is meant")
        .related(place.clone(), what);
    complaint
}

/// What templates know as `endpoints` on one host.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// Where each is found in the host's environment.
    pub(super) found: Option<Arc<Found>>,
    /// The host.
    pub(super) host: HostName,
    /// Its environment.
    pub(super) environment: Option<String>,
    /// Who offers what, wherever it is placed.
    pub(super) offered: Arc<BTreeMap<String, AppName>>,
}

impl Object for Endpoints {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let all = self.found.as_ref()?.get(key.as_str()?)?;
        Some(Value::from_object(Endpoint { all: all.clone(), host: self.host.clone() }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.found.iter().flat_map(|found| found.keys());
        Enumerator::Values(names.map(Value::from).collect())
    }
}

/// What templates can ask of an endpoint.
pub(super) const PARTS: [&str; 5] = ["url", "host", "port", "scheme", "all"];

/// One endpoint in a template: prints its URL.
#[derive(Debug)]
struct Endpoint {
    all: Arc<[Address]>,
    /// The host that asks.
    host: HostName,
}

impl Endpoint {
    fn first(&self) -> Option<&Address> {
        let own = self.all.iter().find(|address| address.host.as_ref() == Some(&self.host));
        own.or(self.all.first())
    }
}

impl Object for Endpoint {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let first = self.first()?;
        Some(match key.as_str()? {
            "url" => Value::from(&first.url),
            "host" => Value::from(&first.name),
            "scheme" => Value::from(&first.scheme),
            "port" => first.port.map_or(Value::from(()), Value::from),
            "all" => Address::nearest_first(&self.all, &self.host).iter().map(|address| &address.url).collect(),
            _ => return None,
        })
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.first().map_or("", |address| &address.url))
    }
}
