//! As little of D-Bus as a floor needs: calls and signals on one kept socket, by hand, so that no library's cost is in it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
/// The bus ends replies beyond 128 that one connection waits for.
const WINDOW: usize = 100;

/// A connection to the system bus.
pub(super) struct Bus {
    socket: UnixStream,
    serial: u32,
    unread: Vec<u8>,
}

/// What came: its kind, the serial that it answers, and its body.
struct Message {
    kind: u8,
    answers: u32,
    member: String,
    body: Vec<u8>,
}

const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Bus {
    /// Connects as root and subscribes to the ends of jobs.
    pub(super) fn connect() -> Result<Bus> {
        let mut socket =
            UnixStream::connect("/run/dbus/system_bus_socket").context("failed to reach the system bus")?;
        // The user id 0 in hex digits of its decimal digits.
        socket.write_all(b"\0AUTH EXTERNAL 30\r\n").context("failed to greet the bus")?;
        let mut line = [0; 256];
        let length = socket.read(&mut line).context("failed to greet the bus")?;
        ensure!(line[..length].starts_with(b"OK "), "the bus refuses root");
        socket.write_all(b"BEGIN\r\n").context("failed to greet the bus")?;
        let mut bus = Bus { socket, serial: 0, unread: Vec::new() };
        let daemon = ("/org/freedesktop/DBus", "org.freedesktop.DBus");
        bus.call(daemon.1, daemon, "Hello", &Body::default())?;
        let rule = "type='signal',sender='org.freedesktop.systemd1',member='JobRemoved'";
        bus.call(daemon.1, daemon, "AddMatch", &Body::default().text(rule))?;
        bus.manager("Subscribe", &Body::default())?;
        Ok(bus)
    }

    /// The state of units, in one call.
    pub(super) fn list_units(&mut self, units: &[String]) -> Result<usize> {
        Ok(self.manager("ListUnitsByNames", &Body::default().texts(units))?.body.len())
    }

    /// Reads all unit files again.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.manager("Reload", &Body::default()).map(drop)
    }

    /// Makes the links of `[Install]` sections, without a reload.
    pub(super) fn enable(&mut self, units: &[String]) -> Result<()> {
        self.manager("EnableUnitFiles", &Body::default().texts(units).flag(false).flag(false)).map(drop)
    }

    /// Starts or restarts units, as many at a time as the bus lets us, until each job has ended.
    pub(super) fn run_jobs(&mut self, method: &str, units: &[String]) -> Result<()> {
        let mut waiting = units.iter();
        let mut unanswered = BTreeSet::new();
        let mut running: BTreeSet<&str> = units.iter().map(String::as_str).collect();
        while !running.is_empty() {
            while unanswered.len() < WINDOW
                && let Some(unit) = waiting.next()
            {
                let body = Body::default().text(unit).text("replace");
                unanswered.insert(self.send(SYSTEMD, MANAGER, method, &body)?);
            }
            let message = self.receive()?;
            match message.kind {
                RETURN => {
                    unanswered.remove(&message.answers);
                }
                SIGNAL if message.member == "JobRemoved" => {
                    // u, o, s, s: the unit's name comes third, its result fourth.
                    let (_, next) = text_at(&message.body, 4)?;
                    let (unit, next) = text_at(&message.body, next)?;
                    let (result, _) = text_at(&message.body, next)?;
                    if running.remove(unit) {
                        ensure!(result == "done", "the job of {unit} ended as {result}");
                    }
                }
                ERROR => bail!("systemd refuses: {}", String::from_utf8_lossy(&message.body)),
                _ => {}
            }
        }
        Ok(())
    }

    fn manager(&mut self, method: &str, body: &Body) -> Result<Message> {
        self.call(SYSTEMD, MANAGER, method, body)
    }

    fn call(&mut self, to: &str, object: (&str, &str), method: &str, body: &Body) -> Result<Message> {
        let serial = self.send(to, object, method, body)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                RETURN if message.answers == serial => return Ok(message),
                ERROR if message.answers == serial => {
                    bail!("{method} is refused: {}", String::from_utf8_lossy(&message.body))
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, to: &str, object: (&str, &str), method: &str, body: &Body) -> Result<u32> {
        self.serial += 1;
        let mut fields = Body::default();
        let named = [(1, "o", object.0), (2, "s", object.1), (3, "s", method), (6, "s", to)];
        for (code, signature, value) in named {
            fields = fields.field(code, signature).text(value);
        }
        if !body.signature.is_empty() {
            fields = fields.field(8, "g");
            fields.bytes.push(u8::try_from(body.signature.len()).context("a signature is short")?);
            fields.bytes.extend(body.signature.bytes().chain([0]));
        }
        let mut message = vec![b'l', 1, 0, 1];
        message.extend(length(&body.bytes)?.to_le_bytes());
        message.extend(self.serial.to_le_bytes());
        message.extend(length(&fields.bytes)?.to_le_bytes());
        message.extend(&fields.bytes);
        pad(&mut message, 8);
        message.extend(&body.bytes);
        self.socket.write_all(&message).context("failed to write to the bus")?;
        Ok(self.serial)
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let mut buffer = [0; 64 << 10];
            let length = self.socket.read(&mut buffer).context("failed to read from the bus")?;
            ensure!(length > 0, "the bus ended the connection");
            self.unread.extend(&buffer[..length]);
        }
    }

    /// Takes the first whole message, if there is one.
    fn take(&mut self) -> Result<Option<Message>> {
        if self.unread.len() < 16 {
            return Ok(None);
        }
        let (fields, body) = (number_at(&self.unread, 12)?, number_at(&self.unread, 4)?);
        let begin = (16 + fields).next_multiple_of(8);
        if self.unread.len() < begin + body {
            return Ok(None);
        }
        let rest = self.unread.split_off(begin + body);
        let whole = std::mem::replace(&mut self.unread, rest);
        let mut message = Message { kind: whole[1], answers: 0, member: String::new(), body: whole[begin..].to_vec() };
        let mut at = 16;
        while at < 16 + fields {
            at = at.next_multiple_of(8);
            // The code, a signature of one letter, and the value.
            let (code, letter) = (whole[at], whole[at + 2]);
            at += 4;
            match letter {
                b'u' => {
                    let value = number_at(&whole, at)?;
                    if code == 5 {
                        message.answers = u32::try_from(value).context("a serial has 32 bits")?;
                    }
                    at += 4;
                }
                b'g' => at += usize::from(whole[at]) + 2,
                _ => {
                    let (text, next) = text_at(&whole, at)?;
                    if code == 3 {
                        text.clone_into(&mut message.member);
                    }
                    at = next;
                }
            }
        }
        Ok(Some(message))
    }
}

/// Values in the making, with their signature.
#[derive(Default)]
struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        self.put(text);
        self
    }

    fn texts(mut self, texts: &[String]) -> Body {
        self.signature.push_str("as");
        pad(&mut self.bytes, 4);
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        texts.iter().for_each(|text| self.put(text));
        let length = u32::try_from(self.bytes.len() - at - 4).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn flag(mut self, value: bool) -> Body {
        self.signature.push('b');
        pad(&mut self.bytes, 4);
        self.bytes.extend(u32::from(value).to_le_bytes());
        self
    }

    /// Begins a field of a header.
    fn field(mut self, code: u8, signature: &str) -> Body {
        pad(&mut self.bytes, 8);
        self.bytes.extend([code, 1]);
        self.bytes.extend(signature.bytes().chain([0]));
        self
    }

    fn put(&mut self, text: &str) {
        pad(&mut self.bytes, 4);
        self.bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend(text.bytes().chain([0]));
    }
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn length(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).context("a message is short")
}

fn number_at(bytes: &[u8], at: usize) -> Result<usize> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).context("a message is cut short")?;
    usize::try_from(u32::from_le_bytes(four)).context("a length fits into memory")
}

/// Reads a text or a path, and says where what follows may begin.
fn text_at(bytes: &[u8], at: usize) -> Result<(&str, usize)> {
    let begin = at.next_multiple_of(4) + 4;
    let end = begin + number_at(bytes, begin - 4)?;
    let text = bytes.get(begin..end).context("a message is cut short")?;
    Ok((std::str::from_utf8(text).context("a name is UTF-8")?, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_and_read_back() {
        let body = Body::default().text("ab").texts(&["c".to_owned(), "de".to_owned()]).flag(true);
        assert_eq!(body.signature, "sasb");
        assert_eq!(body.bytes, b"\x02\0\0\0ab\0\0\x0f\0\0\0\x01\0\0\0c\0\0\0\x02\0\0\0de\0\0\x01\0\0\0");
        assert_eq!(text_at(&body.bytes, 0).unwrap(), ("ab", 7));
    }
}
