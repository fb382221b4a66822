//! As little of git's protocol and of the container engine's API as a floor needs, by hand and on raw sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};

/// A repository at a git daemon.
pub(super) struct Git {
    host: String,
    path: String,
}

impl Git {
    /// Takes a `git://HOST/PATH` address apart.
    pub(super) fn at(url: &str) -> Result<Git> {
        let rest = url.strip_prefix("git://").context("the floor speaks git:// only")?;
        let (host, path) = rest.split_once('/').context("a repository has a path")?;
        Ok(Git { host: host.to_owned(), path: format!("/{path}") })
    }

    /// Asks where the branch is: a connection and one list of one ref.
    pub(super) fn tip(&self) -> Result<String> {
        let mut connection = self.connect()?;
        self.list(&mut connection)
    }

    /// Asks where the branch is, and takes what came since `known`; returns the tip and the size of the pack.
    pub(super) fn fetch(&self, known: &str) -> Result<(String, usize)> {
        let mut connection = self.connect()?;
        let tip = self.list(&mut connection)?;
        let mut ask = packet("command=fetch\n");
        ask.push_str("0001");
        for line in ["ofs-delta\n", "no-progress\n", &format!("want {tip}\n"), &format!("have {known}\n"), "done\n"] {
            ask.push_str(&packet(line));
        }
        ask.push_str("0000");
        connection.write_all(ask.as_bytes()).context("failed to ask the git daemon")?;
        let pack = until_flush(&mut connection)?;
        Ok((tip, pack.iter().map(Vec::len).sum()))
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut connection =
            TcpStream::connect((self.host.as_str(), 9418)).context("failed to reach the git daemon")?;
        connection.set_nodelay(true).context("failed to set up a socket")?;
        let hello = packet(&format!("git-upload-pack {}\0host={}\0\0version=2\0", self.path, self.host));
        connection.write_all(hello.as_bytes()).context("failed to ask the git daemon")?;
        until_flush(&mut connection)?;
        Ok(connection)
    }

    fn list(&self, connection: &mut TcpStream) -> Result<String> {
        let ask = format!("{}0001{}0000", packet("command=ls-refs\n"), packet("ref-prefix refs/heads/main\n"));
        connection.write_all(ask.as_bytes()).context("failed to ask the git daemon")?;
        let lines = until_flush(connection)?;
        let line = lines.first().context("the branch is not there")?;
        Ok(String::from_utf8_lossy(line).split(' ').next().unwrap_or_default().to_owned())
    }
}

fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// Reads packets up to the one that ends an answer.
fn until_flush(connection: &mut TcpStream) -> Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    loop {
        // The daemon's next small packet waits for our acknowledgement of the last one, and the kernel would wait with that.
        rustix::net::sockopt::set_tcp_quickack(&mut *connection, true).context("failed to set up a socket")?;
        let mut head = [0; 4];
        connection.read_exact(&mut head).context("the git daemon ended the connection")?;
        let head = std::str::from_utf8(&head).context("the git daemon does not speak git")?;
        match usize::from_str_radix(head, 16).context("the git daemon does not speak git")? {
            0 => return Ok(packets),
            length if length <= 4 => {}
            length => {
                let mut packet = vec![0; length - 4];
                connection.read_exact(&mut packet).context("the git daemon ended the connection")?;
                packets.push(packet);
            }
        }
    }
}

/// The container engine, on one kept connection.
pub(super) struct Engine {
    socket: UnixStream,
    unread: Vec<u8>,
}

impl Engine {
    /// Connects to Docker.
    pub(super) fn connect() -> Result<Engine> {
        let socket = UnixStream::connect("/var/run/docker.sock").context("failed to reach the container engine")?;
        Ok(Engine { socket, unread: Vec::new() })
    }

    /// Lists all containers.
    pub(super) fn list(&mut self) -> Result<usize> {
        Ok(self.ask("GET", "/containers/json?all=true", "")?.len())
    }

    /// Creates and starts a container, the way the agent wants them.
    pub(super) fn run(&mut self, name: &str, image: &str) -> Result<()> {
        let policy = r#"{"RestartPolicy":{"Name":"unless-stopped"}}"#;
        let body = format!(r#"{{"Image":"{image}","HostConfig":{policy}}}"#);
        self.ask("POST", &format!("/containers/create?name={name}"), &body)?;
        self.ask("POST", &format!("/containers/{name}/start"), "").map(drop)
    }

    /// Removes a container, whatever it does.
    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        self.ask("DELETE", &format!("/containers/{name}?force=true"), "").map(drop)
    }

    fn ask(&mut self, verb: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        let length = body.len();
        let head = format!("{verb} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n");
        let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        self.socket.write_all(request.as_bytes()).context("failed to ask the engine")?;
        let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n")?).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = if head.contains("transfer-encoding: chunked") {
            self.chunks()?
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(Ok(0), |length| length.trim().parse());
            self.exactly(length.context("a length is a number")?)?
        };
        if !status.starts_with('2') {
            bail!("the engine answers {status} to {path}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let length = String::from_utf8_lossy(&line).trim().to_owned();
            let length = usize::from_str_radix(&length, 16).context("a chunk has a length")?;
            whole.extend(self.exactly(length)?);
            self.exactly(2)?;
            if length == 0 {
                return Ok(whole);
            }
        }
    }

    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.exactly(at + end.len());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            self.more()?;
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        let length = self.socket.read(&mut buffer).context("failed to read from the engine")?;
        ensure!(length > 0, "the engine ended the connection");
        self.unread.extend(&buffer[..length]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_packets() {
        let git = Git::at("git://192.0.2.2/fleet.git").unwrap();
        assert_eq!((git.host.as_str(), git.path.as_str()), ("192.0.2.2", "/fleet.git"));
        assert_eq!(packet("done\n"), "0009done\n");
    }
}
