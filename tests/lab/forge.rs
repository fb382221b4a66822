//! The forge: the lab host that serves git over every transport, files over http(s), and container images.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::network::{self, FORGE, Network};
use crate::repo::Repo;
use crate::tree::Debian;
use crate::{Host, shell};

const SETUP: &str = include_str!("forge.sh");
const IMAGE: &str = include_str!("image.sh");

/// For the scripts of [`Forge::image_made_by`].
const WITH_PROGRAMS: &str = r#"with_programs() {
    for program in "$@"; do
        cp "$(command -v "$program")" "$image/bin/"
        ldd "$(command -v "$program")" | grep -o '/[^ ]*' | while read -r library; do
            mkdir -p "$image$(dirname "$library")" && cp -n "$library" "$image$library"
        done
    done
}"#;

/// The public bundle of root certificates on a Debian host.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A [`Host`] that serves: git at `ssh://`, `http://`, `https://` and `git://`, what [`Forge::publish`] is given, and
/// images at port 5000. There is one per lab, named `forge`, always at the same address.
pub struct Forge {
    host: Arc<Host>,
}

/// An image in the forge's registry.
#[derive(Clone, Debug)]
pub struct Image {
    /// `ADDRESS:5000/NAME:TAG`
    pub reference: String,
    /// `ADDRESS:5000/NAME@sha256:…`
    pub pinned: String,
    /// `sha256:…` of the manifest.
    pub digest: String,
}

/// A key that signs commits; the private part stays on the forge.
#[derive(Clone, Debug)]
pub struct Signer {
    /// `ssh-ed25519 AAAA…`, or a certificate in its armour.
    pub public_key: String,
    /// The form of its signatures, as git calls it.
    pub(crate) format: &'static str,
    /// The file of the private part, or the fingerprint.
    pub(crate) key: String,
}

impl Signer {
    /// Who signs where nobody else is named; `/usr/share/lab/signers` names them on every host.
    pub(crate) fn usual() -> Signer {
        Signer { public_key: String::new(), format: "ssh", key: "/usr/share/lab/signer".to_owned() }
    }
}

impl Forge {
    pub(crate) fn boot(network: &Arc<Network>) -> Result<Forge> {
        let host = Host::boot(network, "forge", Debian::Trixie, Some(FORGE), |root| {
            let mut setup = shell::command("sh");
            setup.args(["-euc", SETUP, "forge.sh"]).arg(root).arg(network::address(FORGE));
            shell::check(&mut setup, Duration::from_secs(30)).context("failed to set up the forge").map(drop)
        })?;
        let forge = Forge { host: Arc::new(host) };
        forge.wait_until_served()?;
        Ok(forge)
    }

    /// Makes an empty bare repository `/srv/git/NAME.git`, with `main` as its branch.
    pub fn repo(&self, name: &str) -> Result<Repo> {
        Repo::create(Arc::clone(&self.host), name)
    }

    /// Lets root on a host fetch and push over ssh: gives it a key if it has none, and the forge's host key.
    pub fn authorize(&self, host: &Host) -> Result<()> {
        let key = host.sh("test -e ~/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
             cat ~/.ssh/id_ed25519.pub")?;
        self.authorize_key(&key)?;
        host.write("/root/.ssh/known_hosts", self.known_hosts()?)
    }

    /// Lets whoever holds a key fetch and push over ssh; for users of a host other than root.
    pub fn authorize_key(&self, public_key: &str) -> Result<()> {
        self.sh(&format!("echo '{}' >> /home/git/.ssh/authorized_keys", public_key.trim())).map(drop)
    }

    /// A line for a `known_hosts` file: the forge by address and by name.
    pub fn known_hosts(&self) -> Result<String> {
        Ok(format!("{},{} {}\n", self.address(), self.name(), self.ssh_host_key()?))
    }

    /// Makes a host trust the forge's certificate, system-wide.
    pub fn trust_https(&self, host: &Host) -> Result<()> {
        host.write("/usr/local/share/ca-certificates/lab.crt", self.root_certificate()?)?;
        // What `update-ca-certificates` would do to the bundle, without its second of work.
        host.sh(&format!("cat /usr/local/share/ca-certificates/lab.crt >> {BUNDLE}")).map(drop)
    }

    /// The certificate (PEM) that signed the web server's.
    pub fn root_certificate(&self) -> Result<String> {
        self.read("/etc/forge/ca.crt")
    }

    /// Serves a file; returns its address with `http://`, and `https://` serves it as well.
    pub fn publish(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
        self.write(&format!("/srv/www/{path}"), bytes)?;
        Ok(format!("http://{}/{path}", self.address()))
    }

    /// Pushes a small image that serves `marker` over http at port 8080 and has it in the file `/marker`, so that a
    /// test can tell which image runs.
    pub fn image(&self, name: &str, tag: &str, marker: &str) -> Result<Image> {
        let files = [("marker", marker), ("www/index.html", marker)];
        self.image_with(name, tag, &files, &["/bin/httpd", "-f", "-p", "8080", "-h", "/www"])
    }

    /// Pushes an image of busybox, some files and a command. The same content has the same digest; a tag that exists
    /// is moved.
    pub fn image_with(&self, name: &str, tag: &str, files: &[(&str, &str)], command: &[&str]) -> Result<Image> {
        let staged = staged();
        for (path, content) in files {
            self.write(&format!("{staged}/{}", path.trim_start_matches('/')), content)?;
        }
        self.push_image(name, tag, &staged, command)
    }

    /// As [`Forge::image_with`], of whatever a bash script puts into the folder `$image`. It finds `with_programs NAME…`,
    /// which puts programs of the root tree there, with the libraries that they need.
    pub fn image_made_by(&self, name: &str, tag: &str, script: &str, command: &[&str]) -> Result<Image> {
        let staged = staged();
        self.sh(&format!("image={staged}; mkdir -p $image/bin\n{WITH_PROGRAMS}\n{script}"))?;
        self.push_image(name, tag, &staged, command)
    }

    fn push_image(&self, name: &str, tag: &str, staged: &str, command: &[&str]) -> Result<Image> {
        let command = serde_json::to_string(command).context("failed to spell the command")?;
        let push = self.command(&["bash", "-c", IMAGE, "image.sh", name, tag, &command, staged]);
        let digest = shell::check(&mut push?, Duration::from_secs(60));
        let digest = digest.with_context(|| format!("failed to push image {name}:{tag}"))?.trim().to_owned();
        let at = format!("{}:5000/{name}", self.address());
        Ok(Image { reference: format!("{at}:{tag}"), pinned: format!("{at}@{digest}"), digest })
    }

    /// Lets both engines of a host find here what they would fetch from Docker Hub: as `library/NAME` and `OWNER/NAME`.
    /// To be called before Docker is started.
    pub fn stand_in_for_docker_hub(&self, host: &Host) -> Result<()> {
        let address = self.address();
        let docker = host.read("/etc/docker/daemon.json")?;
        let mut docker: serde_json::Value = serde_json::from_str(&docker).context("Docker's settings are no JSON")?;
        docker["registry-mirrors"] = serde_json::json!([format!("http://{address}:5000")]);
        host.write("/etc/docker/daemon.json", docker.to_string())?;
        host.write(
            "/etc/containers/registries.conf.d/hub.conf",
            format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"{address}:5000\"\ninsecure = true\n"),
        )
    }

    /// Makes a key to sign commits with, see [`crate::Change::signed_by`].
    pub fn signer(&self, name: &str) -> Result<Signer> {
        let path = format!("/home/git/signer-{name}");
        self.sh(&format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {path}; chown git:git {path}*"))?;
        let line = self.read(&format!("{path}.pub"))?;
        let public_key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Ok(Signer { public_key, format: "ssh", key: path })
    }

    /// Makes a key for OpenPGP to sign commits with: one that certifies, with a subkey that signs.
    pub fn openpgp_signer(&self, name: &str) -> Result<Signer> {
        let gpg = "setpriv --reuid=git --regid=git --clear-groups env HOME=/home/git gpg --batch --quiet --pinentry-mode loopback --passphrase ''";
        let mail = format!("{name}@example.com");
        let list = format!("{gpg} --list-keys --with-colons {mail} | awk -F: '/^fpr/ {{ print $10; exit }}'");
        self.sh(&format!("cd /; {gpg} --quick-gen-key '{name} <{mail}>' ed25519 cert never"))?;
        let key = self.sh(&format!("cd /; {list}"))?.trim().to_owned();
        self.sh(&format!("cd /; {gpg} --quick-add-key {key} ed25519 sign never"))?;
        let public_key = self.sh(&format!("cd /; {gpg} --armor --export {key}"))?;
        Ok(Signer { public_key, format: "openpgp", key })
    }

    /// Revokes a key for OpenPGP; returns its certificate since then.
    pub fn revoke(&self, signer: &Signer) -> Result<String> {
        let gpg = "setpriv --reuid=git --regid=git --clear-groups env HOME=/home/git gpg --batch --quiet";
        let key = &signer.key;
        self.sh(&format!(
            "cd /; sed 's/^:-----/-----/' /home/git/.gnupg/openpgp-revocs.d/{key}.rev | {gpg} --import; {gpg} --armor --export {key}"
        ))
    }

    /// No git by any transport; files over http are gone too.
    pub fn stop_git(&self) -> Result<()> {
        self.sh("systemctl stop forge-http forge-git ssh").map(drop)
    }

    /// Undoes [`Forge::stop_git`].
    pub fn start_git(&self) -> Result<()> {
        self.sh("systemctl start forge-http forge-git ssh")?;
        self.wait_until_served()
    }

    /// No images.
    pub fn stop_registry(&self) -> Result<()> {
        self.sh("systemctl stop forge-registry").map(drop)
    }

    /// Undoes [`Forge::stop_registry`].
    pub fn start_registry(&self) -> Result<()> {
        self.sh("systemctl start forge-registry")?;
        self.wait_until_served()
    }

    /// A started service does not listen yet; these do not tell when they do.
    fn wait_until_served(&self) -> Result<()> {
        const LISTENING: &str = "for unit in ssh:22 forge-http:80 forge-http:443 forge-git:9418 forge-registry:5000; do
            systemctl -q is-active ${unit%:*} || continue
            : </dev/tcp/127.0.0.1/${unit#*:}
        done";
        self.wait_for(Duration::from_secs(20), LISTENING).map(drop)
    }
}

impl Deref for Forge {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.host
    }
}

/// A new folder on the forge for the files of an image.
fn staged() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("/run/lab-image-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Where the forge keeps a repository.
pub(crate) fn repo_path(name: &str) -> String {
    Path::new("/srv/git").join(format!("{name}.git")).display().to_string()
}
