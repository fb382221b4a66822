//! The direct connection to a user's manager. No bus is between, so that none need be there, and nobody else's can answer.
//!
//! systemd names itself `org.freedesktop.systemd1` as the sender of each message on such a connection. The specification has
//! only unique names there, and zbus insists on one: the first letter is made the colon of a unique name as messages come in.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use spec::id::User;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::Connection;
use zbus::connection::Builder;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// The part of a message's header that says how long the rest is.
const HEAD: usize = 16;
/// The longest message that is taken. The list of all units there can be is shorter, and the other end is the user's.
const LONGEST: usize = 16 * 1024 * 1024;
/// The longest line of the greeting.
const LINE: usize = 512;
/// The header field of the sender: its code, its type, and the text with its length.
const SENDER: [u8; 4] = [7, 1, b's', 0];
const SYSTEMD: &[u8] = b"org.freedesktop.systemd1";

/// Connects to a user's manager, on the socket that root and the user may connect to.
///
/// The folder is the user's, who may put there what leads to another manager, PID 1's above all: what is asked of it would be
/// done to the host. So whoever answers must be the user.
pub(super) async fn connect(user: &User) -> zbus::Result<Connection> {
    let failed = |error: io::Error| zbus::Error::InputOutput(error.into());
    let (stream, guid) = greeted(user).await.map_err(failed)?;
    Builder::authenticated_socket(Direct(stream), guid.as_str()).p2p().build().await
}

/// Says whether a user's manager seems to run. That it answers, and is the user's, shows when it is asked.
pub fn seems_up(user: &User) -> bool {
    Path::new(&socket(user)).exists()
}

fn socket(user: &User) -> String {
    format!("/run/user/{}/systemd/private", user.uid())
}

/// Connects and says who we are: root, which is what the socket itself tells the other end.
async fn greeted(user: &User) -> io::Result<(UnixStream, String)> {
    let path = socket(user);
    let mut stream = UnixStream::connect(&path).await?;
    let peer = stream.peer_cred()?.uid();
    if peer != user.uid() {
        let text = format!("{path} leads to a process of user {peer}, not of {user}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let own = rustix::process::geteuid().as_raw().to_string();
    // In one piece, as systemd's own programs do: of a message that came in together with the last line, systemd would take
    // notice only when the next one comes.
    stream.write_all(format!("\0AUTH EXTERNAL {}\r\nBEGIN\r\n", hex::encode(own)).as_bytes()).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the greeting has no end"));
        }
        // Byte by byte: what follows the line is not ours to read here.
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    let guid = line.trim_end().strip_prefix("OK ").map(str::to_owned).ok_or_else(|| {
        io::Error::new(io::ErrorKind::PermissionDenied, format!("refused: {}", spec::id::shown(line.trim_end())))
    })?;
    Ok((stream, guid))
}

/// A connection after the greeting.
struct Direct(UnixStream);

impl Socket for Direct {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.0.into_split();
        Split::new(Reader { stream: read, message: Vec::new(), given: 0 }, Writer(write))
    }
}

/// Takes in whole messages, and hands them on in whatever pieces are asked for.
#[derive(Debug)]
struct Reader {
    stream: OwnedReadHalf,
    message: Vec<u8>,
    given: usize,
}

impl Reader {
    async fn next(&mut self) -> io::Result<()> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).await?;
        let (fields, length) = lengths(&head).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a message is too long, or not of this machine's kind")
        })?;
        self.message.clear();
        self.message.extend_from_slice(&head);
        self.message.resize(length, 0);
        self.given = 0;
        self.stream.read_exact(&mut self.message[HEAD..]).await?;
        make_unique(&mut self.message[..HEAD + fields]);
        Ok(())
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.given == self.message.len() {
            self.next().await?;
        }
        let rest = &self.message[self.given..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok((length, Vec::new()))
    }
}

#[derive(Debug)]
struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// Reads how long the header fields of a message are, and the whole of it (D-Bus Specification, "Message Format").
fn lengths(head: &[u8; HEAD]) -> Option<(usize, usize)> {
    let number = |at: usize| {
        let bytes = head[at..at + 4].try_into().ok()?;
        let number = match head[0] {
            b'l' => u32::from_le_bytes(bytes),
            b'B' => u32::from_be_bytes(bytes),
            _ => return None,
        };
        usize::try_from(number).ok().filter(|number| *number <= LONGEST)
    };
    let (body, fields) = (number(4)?, number(12)?);
    let length = HEAD + fields.next_multiple_of(8) + body;
    (length <= LONGEST).then_some((fields, length))
}

/// Turns systemd's name as the sender into a unique name of the same length. Fields begin at multiples of eight bytes.
fn make_unique(header: &mut [u8]) {
    for at in (HEAD..header.len()).step_by(8) {
        let Some((field, text)) = header[at..].split_at_mut_checked(8) else { return };
        if field.starts_with(&SENDER) && text.starts_with(SYSTEMD) {
            text[0] = b':';
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_is_no_unique_name_becomes_one() {
        let signal =
            zbus::Message::signal("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Reloading");
        let message = signal.sender(":rg.freedesktop.systemd1").build(&true);
        let sound = message.expect("a message").data().to_vec();
        let at = sound.windows(SYSTEMD.len()).position(|part| part == b":rg.freedesktop.systemd1").expect("the sender");
        let mut theirs = sound.clone();
        theirs[at] = b'o';
        let head: [u8; HEAD] = theirs[..HEAD].try_into().expect("a head");
        let (fields, length) = lengths(&head).expect("lengths");
        assert_eq!(length, sound.len());
        make_unique(&mut theirs[..HEAD + fields]);
        assert_eq!(theirs, sound);
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let mut head = [0; HEAD];
        head[0] = b'l';
        assert_eq!(lengths(&head), Some((0, HEAD)));
        head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(lengths(&head), None);
        head[0] = b'?';
        assert_eq!(lengths(&head), None);
    }
}
